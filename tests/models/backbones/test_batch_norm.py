"""Batch normalisation of channels-last images: values, gradients and running statistics against float64."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from makermark.models.backbones.batch_norm import BatchNorm2d, channel_moments


def images_of(*shape: int, seed: int = 0) -> Tensor:
    """Images (B, C, F, T) in channels-last layout, with channels of different mean and deviation."""
    images = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    levels = torch.linspace(-2, 3, shape[1])[:, None, None]
    return (images * levels.exp() + levels).contiguous(memory_format=torch.channels_last)


def test_moments_of_many_positions_are_accurate() -> None:
    """192,000 positions: PyTorch's own statistics are off by more than a hundred times as much."""
    images = images_of(48, 16, 20, 200)
    exact = images.double()
    mean, variance = channel_moments(images)
    expected = exact.var(dim=(0, 2, 3), correction=0)
    torch.testing.assert_close(mean.double(), exact.mean(dim=(0, 2, 3)), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(variance.double(), expected, rtol=2e-6, atol=0)


@pytest.mark.parametrize("channels_last", [True, False])
def test_output_gradients_and_running_statistics_equal_float64(channels_last: bool) -> None:
    images = images_of(6, 8, 5, 40)
    if not channels_last:
        images = images.contiguous()
    norm = BatchNorm2d(8)
    nn.init.uniform_(norm.weight, 0.5, 1.5)
    nn.init.uniform_(norm.bias, -1, 1)
    reference = nn.BatchNorm2d(8).double()
    reference.load_state_dict(copy.deepcopy(norm.state_dict()))
    weights = torch.randn(images.shape, generator=torch.Generator().manual_seed(1))
    for _ in range(2):  # the second step starts from other running statistics
        x, exact = images.clone().requires_grad_(), images.double().requires_grad_()
        out, expected = norm(x), reference(exact)
        torch.testing.assert_close(out.double(), expected, rtol=1e-5, atol=1e-5)
        computed = torch.autograd.grad((out * weights).sum(), [x, *norm.parameters()])
        exact_gradients = torch.autograd.grad((expected * weights).sum(), [exact, *reference.parameters()])
        for gradient, exact_gradient in zip(computed, exact_gradients, strict=True):
            torch.testing.assert_close(gradient.double(), exact_gradient, rtol=1e-4, atol=1e-4)
        assert norm.state_dict().keys() == reference.state_dict().keys()
        for name, value in norm.state_dict().items():
            torch.testing.assert_close(
                value.double(), reference.state_dict()[name].double(), rtol=1e-5, atol=1e-6
            )
    with torch.no_grad():
        torch.testing.assert_close(
            norm.eval()(images).double(), reference.eval()(images.double()), rtol=1e-5, atol=1e-5
        )


def test_gradients_equal_finite_differences() -> None:
    norm = BatchNorm2d(3).double()
    images = images_of(2, 3, 2, 4).double().requires_grad_()
    assert torch.autograd.gradcheck(norm, images)


def test_bfloat16_images_have_statistics_in_float32() -> None:
    images = images_of(8, 4, 10, 100).bfloat16()
    norm = BatchNorm2d(4)
    out = norm(images)
    assert out.dtype == torch.bfloat16
    exact = images.double()
    torch.testing.assert_close(
        norm.running_mean.double(), 0.1 * exact.mean(dim=(0, 2, 3)), rtol=1e-5, atol=1e-6
    )
    torch.testing.assert_close(
        norm.running_var.double(), 0.9 + 0.1 * exact.var(dim=(0, 2, 3)), rtol=1e-5, atol=1e-6
    )
