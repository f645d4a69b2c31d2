"""Normalisation, grouping and precomputed gradients, worked by hand."""

import pytest
import torch

from makermark.foundation.errors import ParamsError
from makermark.models.losses.base import (
    check_non_negative,
    check_positive,
    group_by_system,
    l2_normalise,
    l2_norms,
    saturate,
    with_precomputed_grad,
)


@pytest.mark.parametrize("factor", [2e-12, 1e-6, 1.0, 1e6, 1e20, 1e37])
def test_rows_of_any_length_above_1e_12_are_normalised(factor: float) -> None:
    row = torch.tensor([[0.6, 0.8]])
    torch.testing.assert_close(l2_normalise(factor * row), row)
    torch.testing.assert_close(l2_norms(factor * row), torch.tensor([[factor]]), rtol=1e-6, atol=0)


@pytest.mark.parametrize("factor", [0.0, 1e-13, 9e-13])
def test_rows_shorter_than_1e_12_count_as_zero_and_pass_no_gradient(factor: float) -> None:
    """Such a row is rounding. Divided by its length it would have a direction, and gradients of 1e13."""
    row = (factor * torch.tensor([[0.6, 0.8]])).requires_grad_()
    unit = l2_normalise(row)
    (gradient,) = torch.autograd.grad(unit.sum(), row)
    assert not unit.any()
    assert not gradient.any()
    assert l2_norms(row).item() == torch.inf


def test_saturate_limits_the_value_and_passes_the_gradient() -> None:
    values = torch.tensor([1e50, -1e50, 3.5], dtype=torch.float64, requires_grad=True)
    limited = saturate(values, torch.float32)
    largest = torch.finfo(torch.float32).max
    assert limited.tolist() == [largest, -largest, 3.5]
    (gradient,) = torch.autograd.grad(limited.sum(), values)
    assert gradient.tolist() == [1, 1, 1]
    assert saturate(torch.tensor(torch.nan), torch.float32).isnan()


def test_rows_are_grouped_by_system() -> None:
    """Systems 4 and 7 have 2 and 3 rows; the smaller one starts over."""
    groups = group_by_system(torch.tensor([7, 4, 7, 7, 4]), loss="x")
    assert groups.systems.tolist() == [7, 4, 7, 7, 4]
    assert groups.group_index.tolist() == [1, 0, 1, 1, 0]
    assert groups.counts.tolist() == [2, 3]
    assert groups.ranks.tolist() == [0, 1, 2]
    assert groups.membership().tolist() == [
        [False, True],
        [True, False],
        [False, True],
        [False, True],
        [True, False],
    ]
    rows = groups.group_index.argsort(stable=True)[groups.sorted_index]
    assert rows.tolist() == [[1, 0], [4, 2], [1, 3]]
    own = groups.same_system_index().tolist()
    assert own == [[0, 2, 3], [1, 4, 1], [0, 2, 3], [0, 2, 3], [1, 4, 1]]
    assert group_by_system(groups, loss="x") is groups


def test_precomputed_gradient_is_scaled_by_the_gradient_of_the_loss() -> None:
    x = torch.zeros(3, requires_grad=True)
    loss = with_precomputed_grad(x, torch.tensor(5.0), torch.tensor([1.0, 2.0, 3.0]))
    assert loss.item() == 5.0
    (gradient,) = torch.autograd.grad(2 * loss, x)
    assert gradient.tolist() == [2.0, 4.0, 6.0]


def test_precomputed_gradient_cannot_be_differentiated_again() -> None:
    x = torch.zeros(3, requires_grad=True)
    loss = with_precomputed_grad(x, torch.tensor(5.0), torch.ones(3))
    (gradient,) = torch.autograd.grad(loss.square(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_settings_at_their_limits() -> None:
    check_non_negative("x", margin=0.0)
    check_positive("x", scale=1e-9)
    with pytest.raises(ParamsError, match=r"loss x: margin is -1e-09; it must be at least 0"):
        check_non_negative("x", margin=-1e-9)
    for value in (0.0, -1.0, float("nan")):
        with pytest.raises(ParamsError, match=r"loss x: scale is .*; it must be above 0"):
            check_positive("x", scale=value)
