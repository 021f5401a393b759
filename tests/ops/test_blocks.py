"""Large pools are worked on in blocks: values and derivatives of every kind are those of the pool in one piece."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from typing import Any

import pyro.distributions as dist
import pytest
import torch
from torch import Tensor
from torch.func import grad, hessian, jvp, vmap

from pyro_probmix.distributions import log_linear_pool
from pyro_probmix.ops import blocks

# PyTorch compiles a script when its forward mode is first used.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")

INFINITE = torch.tensor([[-math.inf, 0.3, -math.inf], [0.1, -math.inf, 0.5], [0.0, 0.0, -math.inf], [1.0, 0.2, 0.4]])


@pytest.fixture
def in_blocks(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Takes four elements for a block, or everything."""
    return lambda small: monkeypatch.setattr(blocks, "BLOCK", 4 if small else 2**17)


def _draw(*shape: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def _normal(*inputs: Tensor) -> tuple[list[Any], Tensor]:
    return [dist.Normal(inputs[k], inputs[2 + k].exp(), validate_args=False) for k in range(2)], inputs[4]


def _joint_normal(*inputs: Tensor) -> tuple[list[Any], Tensor]:
    members, y = _normal(*inputs)
    return [member.to_event(1) for member in members], y


def _categorical(first: Tensor, second: Tensor) -> tuple[list[Any], Tensor]:
    members = [dist.Categorical(logits=logits, validate_args=False) for logits in (first, second)]
    return members, torch.tensor([1, 0, 1, 2])


NORMAL = tuple(_draw(4, 3, seed=k) for k in range(5))
TURNED = tuple(_draw(3, 4, seed=k).mT for k in range(5))  # neither contiguous nor of the results' strides
LOGITS = tuple(_draw(4, 3, seed=k) for k in range(2))
FLAT = tuple(_draw(1, 12, seed=k) for k in range(5))
CASES: dict[str, tuple[Callable[..., tuple[list[Any], Tensor]], tuple[Tensor, ...], tuple[int, ...]]] = {
    "Normal": (_normal, NORMAL, (4, 3)),
    "Normal, one weight a row": (_normal, NORMAL, (4, 1)),
    "Normal, one weight": (_normal, NORMAL, ()),
    "Normal, transposed": (_normal, TURNED, (4, 3)),
    "Normal, one long row": (_normal, FLAT, (12,)),
    "Normal, to_event": (_joint_normal, NORMAL, (4,)),
    "Categorical": (_categorical, LOGITS, (4,)),
    "Categorical, one weight": (_categorical, LOGITS, ()),
    "Categorical, infinite logits": (_categorical, (INFINITE.double(), LOGITS[1]), (4,)),
}


def _inputs(name: str, edges: bool) -> tuple[Callable[..., Tensor], tuple[Tensor, ...]]:
    """The log_prob of a pool as a function of its members' parameters, the value and the weight, and these."""
    make, parameters, shape = CASES[name]
    weight = torch.sigmoid(_draw(*shape, seed=9))
    if edges and shape:
        weight.flatten()[0], weight.flatten()[-1] = 0.0, 1.0

    def log_prob(*inputs: Tensor) -> Tensor:
        members, y = make(*inputs[:-1])
        return log_linear_pool(members, [inputs[-1], 1 - inputs[-1]]).log_prob(y)

    return log_prob, (*parameters, weight)


@pytest.mark.parametrize("edges", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients(name: str, edges: bool, in_blocks: Callable[[bool], None]) -> None:
    log_prob, inputs = _inputs(name, edges)
    leaves = [t.clone().requires_grad_() for t in inputs]
    found = []
    for small in (False, True):
        in_blocks(small)
        value = log_prob(*leaves)
        found.append((value, *torch.autograd.grad(value.exp().sum(), leaves)))
        with torch.no_grad():
            torch.testing.assert_close(log_prob(*leaves), value, rtol=0, atol=0)
    torch.testing.assert_close(found[1], found[0], rtol=1e-12, atol=1e-12)
    assert all(t.isfinite().all() for t in found[1][1:])


@pytest.mark.parametrize("name", [name for name in CASES if "infinite" not in name])
def test_derivatives_of_every_mode_and_order(name: str, in_blocks: Callable[[bool], None]) -> None:
    log_prob, inputs = _inputs(name, edges=False)
    every = tuple(range(len(inputs)))
    batch = tuple(torch.stack([t, 0.9 * t]) for t in inputs)
    tangents = tuple(_draw(*t.shape, seed=20 + k) for k, t in enumerate(inputs))

    def total(*inputs: Tensor) -> Tensor:
        return log_prob(*inputs).exp().sum()

    ways: dict[str, Callable[[], Any]] = {
        "forward": lambda: jvp(log_prob, inputs, tangents),
        "functional": lambda: grad(total, every)(*inputs),
        "vectorised": lambda: vmap(log_prob)(*batch),
        "vectorised in part": lambda: vmap(log_prob, (0, *(None,) * (len(inputs) - 1)))(batch[0], *inputs[1:]),
        "vectorised gradient": lambda: vmap(grad(total, every))(*batch),
        "second": lambda: hessian(total, every)(*inputs),
        "second, backwards twice": lambda: torch.autograd.functional.hessian(total, inputs),
        "gradients in a batch": lambda: torch.autograd.functional.jacobian(log_prob, inputs, vectorize=True),
    }
    for way, compute in ways.items():
        in_blocks(False)
        expected = compute()
        in_blocks(True)
        torch.testing.assert_close(compute(), expected, rtol=1e-10, atol=1e-10, msg=lambda m, w=way: f"{w}: {m}")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_weight_one_is_the_member_to_the_last_bit(dtype: torch.dtype, in_blocks: Callable[[bool], None]) -> None:
    in_blocks(True)
    (m, n, a, b, y), row = ([t.to(dtype) for t in NORMAL], torch.tensor([1.0, 0.0, 1.0, 0.0], dtype=dtype))
    normals = [dist.Normal(m, a.exp()), dist.Normal(n, b.exp())]
    categoricals = [dist.Categorical(logits=t.to(dtype)) for t in (INFINITE, LOGITS[1])]
    labels = torch.tensor([1, 0, 1, 2])
    for (p, q), weight, value in ((normals, row[:, None], y), (categoricals, row, labels)):
        pool = log_linear_pool([p, q], [weight, 1 - weight])
        expected = torch.where(weight == 1, p.log_prob(value), q.log_prob(value))
        torch.testing.assert_close(pool.log_prob(value), expected, rtol=0, atol=0)
        assert pool.log_prob(value).dtype == dtype


def test_pool_is_a_distribution_with_one_graph(in_blocks: Callable[[bool], None]) -> None:
    """Gradients by the pool's own loc and scale, through them, and in any order."""
    in_blocks(True)
    m, n, a, b, y = NORMAL
    m = m.clone().requires_grad_()
    pool = log_linear_pool([dist.Normal(m, a.exp()), dist.Normal(n, b.exp())], [0.3, 0.7])
    by_log_prob, by_scale, by_loc = (
        torch.autograd.grad(t.sum(), m, retain_graph=True, allow_unused=True)[0]
        for t in (pool.log_prob(y), pool.scale, pool.loc)
    )
    both = pool.log_prob(y) + 2 * pool.loc
    torch.testing.assert_close(torch.autograd.grad(both.sum(), m)[0], by_log_prob + 2 * by_loc)
    torch.testing.assert_close(by_scale, torch.zeros_like(m))
    with pytest.raises(RuntimeError, match="second time"):  # its graph is freed, and no sooner
        pool.log_prob(y).sum().backward()
    alone = dist.Normal(pool.loc.detach().requires_grad_(), pool.scale.detach().requires_grad_())
    fresh = log_linear_pool([dist.Normal(m, a.exp()), dist.Normal(n, b.exp())], [0.3, 0.7])
    own, others = (torch.autograd.grad(p.log_prob(y).exp().sum(), (p.loc, p.scale)) for p in (fresh, alone))
    torch.testing.assert_close(own, others)
    for p, q in ((pool.expand((2, 4, 3)), alone.expand((2, 4, 3))), (pool.to_event(1), alone.to_event(1))):
        torch.testing.assert_close(p.log_prob(y), q.log_prob(y), rtol=0, atol=0)
    many = torch.stack([y, -y])
    torch.testing.assert_close(pool.log_prob(many), alone.log_prob(many), rtol=0, atol=0)
    with pytest.raises(ValueError, match="within the support"):
        pool.log_prob(y * math.nan)


def test_members_changed_in_place_are_noticed(in_blocks: Callable[[bool], None]) -> None:
    in_blocks(True)
    m, n, a, b, y = NORMAL
    m, a = m.clone().requires_grad_(), a.clone()
    scale = a.exp()
    pool = log_linear_pool([dist.Normal(m, scale), dist.Normal(n, b.exp())], [0.3, 0.7])
    scale.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        pool.log_prob(y).sum().backward()


def test_pool_is_pickled_without_its_members(in_blocks: Callable[[bool], None]) -> None:
    in_blocks(True)
    m, n, a, b, y = NORMAL
    pool = log_linear_pool([dist.Normal(m, a.exp()), dist.Normal(n, b.exp())], [0.3, 0.7])
    copy = pickle.loads(pickle.dumps(pool))
    assert isinstance(copy, dist.Normal)
    assert repr(copy) == repr(pool)
    torch.testing.assert_close(copy.log_prob(y), pool.log_prob(y), rtol=0, atol=0)


@pytest.mark.faults("zero times minus infinity")
@pytest.mark.parametrize("name", ["Normal", "Categorical"])
def test_nan_is_not_masked(name: str, in_blocks: Callable[[bool], None]) -> None:
    in_blocks(True)
    log_prob, inputs = _inputs(name, edges=True)
    broken = inputs[0].clone()
    broken[1] = math.nan
    result = log_prob(broken, *inputs[1:])
    assert result[1].isnan().all()
    assert result[2:].isfinite().all()
