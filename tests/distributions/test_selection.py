"""Members of a batch, of distributions of no family here: theirs are the densities of the rows, or it is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import Tensor

from pyro_probmix.distributions import LinearPool, index_select
from pyro_probmix.distributions.exponential_family import validates


def real(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def positive(*shape: int, seed: int = 0) -> Tensor:
    return real(*shape, seed=seed).abs() + 0.3


# name: a distribution of batch shape (3, 2)
MEMBERS: dict[str, Callable[[], Any]] = {
    "StudentT": lambda: dist.StudentT(4.0, real(3, 2), positive(2)),
    "Cauchy": lambda: dist.Cauchy(real(3, 1), positive(2)),
    "HalfCauchy": lambda: dist.HalfCauchy(positive(3, 2)),
    "Logistic": lambda: dist.Logistic(real(3, 2), positive(3, 2)),
    "FisherSnedecor": lambda: dist.FisherSnedecor(positive(3, 2), positive(3, 2, seed=1)),
    "RelaxedBernoulli": lambda: dist.RelaxedBernoulli(torch.tensor(0.7).double(), probs=torch.rand(3, 2).double()),
    "RelaxedOneHotCategorical": lambda: dist.RelaxedOneHotCategorical(torch.tensor(0.7).double(), logits=real(3, 2, 4)),
    "BetaBinomial": lambda: dist.BetaBinomial(positive(3, 2), positive(3, 2, seed=1), 9),
    "DirichletMultinomial": lambda: dist.DirichletMultinomial(positive(3, 2, 4), 5),
    "MultivariateStudentT": lambda: dist.MultivariateStudentT(
        positive(3, 2) + 2, real(3, 2, 2), torch.diag_embed(positive(2))
    ),
    "ProjectedNormal": lambda: dist.ProjectedNormal(real(3, 2, 3)),
    "SkewLogistic": lambda: dist.SkewLogistic(real(3, 2), positive(3, 2), positive(3, 2, seed=1)),
    "SoftAsymmetricLaplace": lambda: dist.SoftAsymmetricLaplace(real(3, 2), positive(3, 2), positive(3, 2, seed=1)),
    "SoftLaplace": lambda: dist.SoftLaplace(real(3, 2), positive(3, 2)),
    "Stable": lambda: dist.Stable(1.5 * torch.ones(3, 2), torch.zeros(3, 2), positive(3, 2).float(), torch.zeros(3, 2)),
    "SineSkewed": lambda: dist.SineSkewed(
        dist.VonMises(real(3, 2, 1), positive(3, 2, 1)).to_event(1), real(3, 2, 1).tanh()
    ),
    "mixture": lambda: dist.MixtureSameFamily(
        dist.Categorical(logits=real(3, 2, 4)), dist.Normal(real(3, 2, 4), positive(4))
    ),
    "mixture of vectors with one weight for all": lambda: dist.MixtureSameFamily(
        dist.Categorical(logits=real(4)), dist.StudentT(4.0, real(3, 2, 4, 5), positive(5)).to_event(1)
    ),
    "LinearPool": lambda: LinearPool([dist.StudentT(4.0, real(3, 1), 1.0), dist.Normal(real(2), 1.0)], [0.3, 0.7]),
    "LinearPool of a batch": lambda: LinearPool(dist.Logistic(real(3, 2, 4), 1.0), real(3, 2, 4).softmax(-1)),
    "LinearPool of batches that broadcast": lambda: LinearPool(
        dist.Logistic(real(2, 4), 1.0), real(3, 1, 4).softmax(-1)
    ),
    "transformed": lambda: dist.TransformedDistribution(
        dist.Cauchy(real(3, 2), positive(3, 2)), dist.transforms.ExpTransform()
    ),
    "independent": lambda: dist.StudentT(4.0, real(3, 2, 5), positive(5)).to_event(1),
    "masked": lambda: dist.Cauchy(real(3, 2), positive(3, 2)).mask(real(3, 2) > 0),
    "masked outputs": lambda: dist.Cauchy(real(3, 2, 5), 1.0).mask(real(3, 2, 5) > 0).to_event(1),
    "masked for all": lambda: dist.Cauchy(real(3, 2), positive(3, 2)).mask(False),
    "expanded": lambda: dist.StudentT(4.0, real(2), positive(2)).expand([3, 2]),
    "expanded without a method of its own": lambda: dist.SkewLogistic(real(2), 1.0, 1.0).expand_by([3]),
    "a mask of two laws": lambda: dist.MaskedMixture(
        real(3, 2) > 0, dist.Cauchy(real(3, 2), 1.0), dist.Cauchy(real(3, 2), 2.0)
    ),
    "Pyro's mixture of vectors": lambda: dist.MixtureOfDiagNormals(
        real(3, 2, 4, 5), positive(3, 2, 4, 5), real(3, 2, 4)
    ),
    "one of equal scales": lambda: dist.MixtureOfDiagNormalsSharedCovariance(
        real(3, 2, 4, 5), positive(3, 2, 5), real(3, 2, 4)
    ),
    "draws with weights": lambda: dist.Empirical(real(3, 2, 1).expand(3, 2, 6), real(3, 2, 6)),
    "a factor": lambda: dist.Unit(real(3, 2)),
    "named expansion": lambda: dist.torch_distribution.ExpandedDistribution(
        dist.StudentT(4.0, real(2), positive(2)), torch.Size([3, 2])
    ),
}


@pytest.mark.faults("families that are not closed")
@pytest.mark.parametrize("name", MEMBERS)
def test_members_have_the_densities_of_the_rows(name: str) -> None:
    p = MEMBERS[name]()
    assert p.batch_shape == (3, 2)
    y = (p.expand(p.batch_shape) if isinstance(p, dist.MixtureSameFamily) else p).sample()
    with pyro.validation_enabled(False):
        rows = p.log_prob(y)
    for dim, index in ((-1, [1, 0]), (-2, [2, 0, 0, 1]), (0, [1]), (1, [0, 1, 0]), (0, [2, 1, 0])):
        q = index_select(p, dim, torch.tensor(index))
        left = dim % 2
        chosen, expected = (t.index_select(left, torch.tensor(index)) for t in (y, rows))
        assert (q.batch_shape, q.event_shape) == (expected.shape, p.event_shape)
        torch.testing.assert_close(q.log_prob(chosen), expected)
        assert validates(q) is validates(p)


@pytest.mark.parametrize("name", ["StudentT", "mixture", "LinearPool of a batch", "independent", "BetaBinomial"])
def test_it_is_followed_by_vmap(name: str) -> None:
    partner = torch.tensor([[2, 0, 1], [1, 1, 0]])
    with pyro.validation_enabled(False):
        p = MEMBERS[name]()
        y = p.sample()

        def log_prob(partner: Tensor) -> Tensor:
            return index_select(p, 0, partner).log_prob(y)

        mapped = torch.func.vmap(log_prob)(partner)
        each = torch.stack([log_prob(row) for row in partner])
    torch.testing.assert_close(mapped, each)


class Shifted(dist.StudentT):
    """A class whose constructor takes what it does not keep."""

    def __init__(self, amount: Tensor, validate_args: bool | None = None) -> None:
        super().__init__(3.0, amount + 1, 1.0, validate_args=validate_args)


UNKNOWN: dict[str, tuple[Callable[[], Any], str]] = {
    "a constructor's own argument": (lambda: Shifted(real(3, 3)), "Shifted: .* got amount, which is no attribute"),
    "times that are no rows": (
        lambda: dist.CoalescentTimes(torch.zeros(3), positive(3, 3).float()),
        "CoalescentTimes: .*event shape",
    ),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_cannot_be_selected_rightly_is_named(name: str) -> None:
    make, message = UNKNOWN[name]
    with pytest.raises(TypeError, match=message):
        index_select(make(), -1, torch.tensor([2, 0, 1]))
