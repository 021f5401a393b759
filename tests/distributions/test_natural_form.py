"""η, T, A, h and the mean parameters of every family, against log_prob, SciPy, quadrature and autograd."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pyro_probmix.distributions import (
    exponential_family,
    from_natural_parameters,
    index_select,
    log_base_measure,
    log_normalizer,
    mean_parameters,
    natural_parameters,
    sufficient_statistics,
)
from pyro_probmix.distributions.corrected import corrected
from pyro_probmix.distributions.exponential_family import FAMILIES, resolved
from tests.cases import CASES, NAMES, unmasked

BATCH = (3, 2)


def test_every_registered_family_has_a_row() -> None:
    described = {t for t in FAMILIES if t.__module__.startswith(("torch.", "pyro."))}
    assert described == {t for case in CASES.values() for t in case.types}


@pytest.mark.parametrize("name", NAMES)
def test_every_row_is_what_it_says(name: str) -> None:
    p = CASES[name].draw(BATCH)
    assert p.batch_shape == BATCH
    assert not CASES[name].types or type(p).__mro__[0] in CASES[name].types or isinstance(p, CASES[name].types)


@pytest.mark.parametrize("name", NAMES)
def test_grid_carries_the_total_mass(name: str) -> None:
    p = CASES[name].draw(BATCH)
    torch.testing.assert_close(
        CASES[name].log_integral(unmasked(p).log_prob, len(BATCH)),
        torch.zeros(BATCH).double(),
        atol=max(1e-9, CASES[name].precision),
        rtol=0,
    )


def inner_product(p: object, left: tuple[Tensor, ...], right: tuple[Tensor, ...]) -> Tensor:
    dims = exponential_family(p).natural_dims
    return sum(
        (a * b).sum(tuple(range(-dim, 0))) if dim else a * b for a, b, dim in zip(left, right, dims, strict=True)
    )


@pytest.mark.parametrize("name", NAMES)
def test_natural_form_is_log_prob(name: str) -> None:
    p = CASES[name].draw(BATCH)
    y = p.sample((7,))
    product = inner_product(p, natural_parameters(p), sufficient_statistics(p, y))
    log_prob = product - log_normalizer(p) + log_base_measure(p, y)
    tolerance = max(1e-8, CASES[name].precision)
    torch.testing.assert_close(log_prob, unmasked(p).log_prob(y), atol=tolerance, rtol=1e-8)
    assert log_normalizer(p).shape == BATCH
    assert log_base_measure(p, y).shape == (7, *BATCH)


@pytest.mark.parametrize("name", NAMES)
def test_shapes_are_the_batch_and_what_the_dims_say(name: str) -> None:
    p = CASES[name].draw(BATCH)
    form = exponential_family(p)
    for tensors, dims in (
        (form.parameters, form.parameter_dims),
        (natural_parameters(p), form.natural_dims),
        (mean_parameters(p), form.natural_dims),
    ):
        assert [t.shape[: t.dim() - d] for t, d in zip(tensors, dims, strict=True)] == [BATCH] * len(dims)


@pytest.mark.parametrize("name", NAMES)
def test_natural_parameters_lead_back(name: str) -> None:
    p = CASES[name].draw(BATCH)
    eta = natural_parameters(p)
    q = from_natural_parameters(p, eta)
    y = p.sample((5,))
    torch.testing.assert_close(q.log_prob(y), corrected(p).log_prob(y), atol=1e-9, rtol=1e-9)
    for ours, theirs in zip(natural_parameters(q), eta, strict=True):
        torch.testing.assert_close(ours, theirs)
    assert q.batch_shape == p.batch_shape
    assert q.event_shape == p.event_shape


@pytest.mark.parametrize("name", [name for name in NAMES if "Categorical" in name])
def test_logits_need_not_be_normalised(name: str) -> None:
    p = CASES[name].draw(BATCH)
    y = p.sample()
    (logits,) = natural_parameters(p)
    q = from_natural_parameters(p, (logits + 3,))
    torch.testing.assert_close(q.log_prob(y), p.log_prob(y))
    torch.testing.assert_close(natural_parameters(q)[0], logits)


@pytest.mark.parametrize("name", NAMES)
def test_mean_parameters_are_the_gradient_of_the_log_normalizer(name: str) -> None:
    p = CASES[name].draw(BATCH)
    form = exponential_family(p)
    eta = [t.detach().clone().requires_grad_() for t in natural_parameters(p)]
    gradients = torch.autograd.grad(form.log_normalizer(*form.from_natural(*eta)).sum(), eta)
    for gradient, mean in zip(gradients, mean_parameters(p), strict=True):
        torch.testing.assert_close(gradient, mean, atol=1e-8, rtol=1e-8)


@pytest.mark.parametrize("name", NAMES)
def test_mean_parameters_are_expected_statistics(name: str) -> None:
    case = CASES[name]
    p = case.draw((2,))
    dims = exponential_family(p).natural_dims
    for i, (mean, dim) in enumerate(zip(mean_parameters(p), dims, strict=True)):
        expected = case.expectation(p, lambda y, i=i: sufficient_statistics(p, y)[i], dim)
        torch.testing.assert_close(mean, expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_log_normalizer_has_the_right_derivatives_in_eta(name: str) -> None:
    p = CASES[name].draw(())
    form = exponential_family(p)
    eta = [t.detach().clone().requires_grad_() for t in natural_parameters(p)]

    def cumulant(*eta: Tensor) -> Tensor:
        return form.log_normalizer(*form.from_natural(*eta))

    assert torch.autograd.gradcheck(cumulant, eta)
    assert torch.autograd.gradgradcheck(cumulant, eta)


@pytest.mark.faults("wrong densities upstream")
@pytest.mark.parametrize("name", [name for name in NAMES if CASES[name].scipy])
def test_log_prob_is_that_of_scipy(name: str) -> None:
    case = CASES[name]
    for seed in range(3):
        p = case.draw((), seed)
        y = p.sample()
        fused = from_natural_parameters(p, natural_parameters(p))
        expected = float(case.scipy(p, y))
        assert float(fused.log_prob(y)) == pytest.approx(expected, rel=1e-8, abs=max(1e-8, case.precision))


@pytest.mark.parametrize("name", NAMES)
def test_index_select_takes_members_of_the_batch(name: str) -> None:
    case = CASES[name]
    p = case.draw(BATCH)
    y = p.sample()
    for dim, index in ((-1, [1, 0]), (-2, [2, 0, 0, 1]), (0, [1]), (1, [0, 1, 0])):
        q = index_select(p, dim, torch.tensor(index))
        left = dim % len(BATCH)
        chosen, expected = (t.index_select(left, torch.tensor(index)) for t in (y, corrected(p).log_prob(y)))
        if case.exact:
            assert torch.equal(q.log_prob(chosen), expected)
        torch.testing.assert_close(q.log_prob(chosen), expected)
        assert q.event_shape == p.event_shape
        for ours, theirs in zip(natural_parameters(q), natural_parameters(p), strict=True):
            assert torch.equal(ours, theirs.index_select(left, torch.tensor(index)))


@pytest.mark.parametrize("name", NAMES)
def test_index_select_is_differentiable(name: str) -> None:
    case, index = CASES[name], torch.tensor([2, 2, 0])
    parameters = [t.requires_grad_() for t in case.parameters(torch.Size([3]), torch.Generator().manual_seed(0))]
    p = case.make(*parameters)
    y = p.sample()
    selected = index_select(p, -1, index).log_prob(y[index]).sum()
    gathered = corrected(p).log_prob(y)[index].sum()
    ours, theirs = (
        torch.autograd.grad(t, parameters, allow_unused=True, retain_graph=True) for t in (selected, gathered)
    )
    assert ours[0].any()
    torch.testing.assert_close(ours, theirs)


@pytest.mark.faults("validation lost on the way")
@pytest.mark.parametrize("validate", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_validation_is_kept(name: str, validate: bool) -> None:
    from pyro_probmix.distributions.exponential_family import set_validation, validates

    p = resolved(CASES[name].draw((3,)))
    set_validation(p, validate)
    assert validates(index_select(p, -1, torch.tensor([1]))) is validate
    assert validates(from_natural_parameters(p, natural_parameters(p))) is validate
