"""The pool of a batch with its partners: one law, whether or not it is checked on the way."""

from __future__ import annotations

from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_probmix.distributions import natural_parameters
from pyro_probmix.distributions.exponential_family import validates
from pyro_probmix.mixing import DiracVicinity
from pyro_probmix.models.mixing import Mixing

PARTNER = torch.tensor([2, 0, 1, 3])
COEFFICIENTS = {
    "edges": torch.tensor([0.0, 1.0, 0.3, 0.8], dtype=torch.float64),
    "samples": torch.tensor([[0.1, 0.5, 0.0, 1.0], [0.9, 0.2, 1.0, 0.4]], dtype=torch.float64),
    "another dtype": torch.tensor([0.25, 1.0, 0.5, 0.0]),
}


def draw(*shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.rand(shape, generator=generator, dtype=torch.float64) + 0.5


COMPONENTS: dict[str, Any] = {
    "normal": lambda: dist.Normal(draw(4), draw(4)),
    "normals": lambda: dist.Normal(draw(4, 2), draw(4, 2)).to_event(1),
    "expanded": lambda: dist.Normal(draw(1), draw(1)).expand([4]),
    "multivariate normal": lambda: dist.MultivariateNormal(draw(4, 2), scale_tril=torch.diag_embed(draw(4, 2))),
    "log-normal": lambda: dist.LogNormal(draw(4), draw(4)),
    "transformed": lambda: dist.TransformedDistribution(dist.Normal(draw(4), draw(4)), dist.transforms.ExpTransform()),
    "categorical": lambda: dist.Categorical(logits=draw(4, 3)),
    "binomial": lambda: dist.Binomial(7, logits=draw(4)),
    "negative binomial": lambda: dist.NegativeBinomial(torch.full((4,), 3.0).double(), logits=draw(4)),
    "gamma": lambda: dist.Gamma(draw(4), draw(4)),
    "masked": lambda: dist.Gamma(draw(4), draw(4)).mask(torch.tensor([True, False, True, True])),
    "masked outputs": lambda: dist.Normal(draw(4, 2), draw(4, 2)).mask(draw(4, 2) > 0.8).to_event(1),
}


def fuse(name: str, coefficient: torch.Tensor, validate: bool) -> Any:
    mixing = Mixing("y", dist.Beta(0.2, 0.2), DiracVicinity())
    with pyro.validation_enabled(validate):
        fused = mixing.fuse(COMPONENTS[name](), PARTNER, coefficient)
        assert validates(fused) is validate
        return fused


@pytest.mark.faults("validation lost on the way")
@pytest.mark.parametrize("coefficient", COEFFICIENTS)
@pytest.mark.parametrize("name", COMPONENTS)
def test_one_pool_with_validation_and_without(name: str, coefficient: str) -> None:
    checked, unchecked = (fuse(name, COEFFICIENTS[coefficient], validate) for validate in (True, False))
    assert type(checked) is type(unchecked)
    assert checked.batch_shape == unchecked.batch_shape
    for ours, theirs in zip(natural_parameters(unchecked), natural_parameters(checked), strict=True):
        assert ours.dtype == theirs.dtype
        assert torch.equal(ours, theirs)
    value = checked.sample()
    assert torch.equal(unchecked.log_prob(value), checked.log_prob(value))


def test_masks_that_differ_within_a_pair_are_refused_without_validation_too() -> None:
    mixing = Mixing("y", dist.Beta(0.2, 0.2), DiracVicinity())
    with pyro.validation_enabled(False):
        p = dist.Independent(dist.Normal(draw(4, 2, 2), draw(4, 2, 2)).mask(draw(4, 2, 2) > 0.8).to_event(1), 1)
        with pytest.raises(ValueError, match="masks"):
            mixing.fuse(p, PARTNER, COEFFICIENTS["edges"])
