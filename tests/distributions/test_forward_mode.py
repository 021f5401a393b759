"""Forward-mode derivatives of a pool are those of reverse mode, where a component is removed or alone, too."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.func import jacfwd

from pyro_probmix.distributions import LogLinearPool
from pyro_probmix.distributions.exponential_family import set_validation
from tests.cases import CASES, NAMES, unmasked

# PyTorch compiles a script when its forward mode is first used.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("name", NAMES)
def test_forward_and_reverse_mode_agree(name: str, weight: float) -> None:
    case = CASES[name]
    drawn = [case.parameters(torch.Size(), torch.Generator().manual_seed(seed)) for seed in range(2)]
    count = len(drawn[0])
    y = case.draw((), 7).sample()

    def both(weight: Tensor, *parameters: Tensor) -> Tensor:
        members = [case.make(*parameters[:count]), case.make(*parameters[count:])]
        for member in members:
            set_validation(member, False)
        pool = LogLinearPool(members, [weight, 1 - weight])
        return torch.stack([unmasked(pool.fused).log_prob(y), pool.log_normalizer])

    inputs = (torch.tensor(weight, dtype=torch.float64), *drawn[0], *drawn[1])
    forward = jacfwd(both, argnums=tuple(range(len(inputs))))(*inputs)
    reverse = torch.autograd.functional.jacobian(both, inputs)
    for ours, theirs in zip(forward, reverse, strict=True):
        assert ours.isfinite().all()
        torch.testing.assert_close(ours, theirs, atol=1e-9, rtol=1e-7)


EDGES = [(name, i) for name in NAMES for i in range(len(CASES[name].awkward))]


@pytest.mark.faults("zero times minus infinity")
@pytest.mark.parametrize(("name", "edge"), EDGES)
def test_forward_mode_is_finite_beside_an_extreme_component_of_weight_zero(name: str, edge: int) -> None:
    case = CASES[name]
    p, extreme = case.draw(), case.edges()[edge]
    y = p.sample()

    def both(weight: Tensor) -> Tensor:
        pool = LogLinearPool([extreme, p], [weight, 1 - weight])
        return torch.stack([unmasked(pool.fused).log_prob(y), pool.log_normalizer])

    zero = torch.zeros((), dtype=torch.float64)
    forward, reverse = jacfwd(both)(zero), torch.autograd.functional.jacobian(both, zero)
    assert forward.isfinite().all()
    torch.testing.assert_close(forward, reverse, atol=1e-9, rtol=1e-7)
