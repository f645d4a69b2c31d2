"""Batch normalisation of channels-last images on a CPU, with accurate statistics.

Axes: B batch, C channels, F bands, T frames.
"""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable


class BatchNorm2d(nn.BatchNorm2d):
    """`torch.nn.BatchNorm2d` whose batch statistics have the accuracy of a pairwise sum on a CPU too.

    For channels-last images on a CPU, PyTorch 2.11 adds all positions of a channel one after the other in float32.
    With 200,000 positions the variance is then wrong in the fourth digit, and the gradient of the thin ResNet-34
    differs by 7 % from that in float64; with the statistics of this class, by 0.6 % (benchmarks/layout.py).
    """

    def forward(self, images: Tensor) -> Tensor:
        """Normalise images (B, C, F, T)."""
        if not self.training or images.device.type != "cpu":
            return super().forward(images)
        assert self.momentum is not None
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        out: Tensor
        out, mean, variance = _BatchNorm.apply(images, self.weight, self.bias, self.eps)  # type: ignore[no-untyped-call]
        count = images.numel() // images.shape[1]
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)
        return out


class _Context(Protocol):
    """Context of `backward`."""

    saved_tensors: tuple[Tensor, ...]
    eps: float


class _BatchNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx, images: Tensor, weight: Tensor, bias: Tensor, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        mean, variance = channel_moments(images)
        out = F.batch_norm(images, mean, variance, weight, bias, training=False, eps=eps)
        ctx.save_for_backward(images, weight, mean, (variance + eps).rsqrt())
        ctx.mark_non_differentiable(mean, variance)
        ctx.eps = eps  # type: ignore[attr-defined]
        return out, mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: _Context, grad_output: Tensor, *unused: Tensor) -> tuple[Tensor | None, ...]:
        images, weight, mean, inverse_deviation = ctx.saved_tensors
        gradients: tuple[Tensor, ...] = torch.ops.aten.native_batch_norm_backward(
            grad_output,
            images,
            weight,
            None,
            None,
            mean,
            inverse_deviation,
            True,
            ctx.eps,
            [True, True, True],
        )
        return (*gradients, None)


def channel_moments(images: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and biased variance (C,) of images (B, C, F, T), in float32, or in float64 for float64 images."""
    rows = images.permute(0, 2, 3, 1).flatten(0, 1)  # (B F, T, C); a view of channels-last images
    count = rows.shape[0] * rows.shape[1]
    wide = rows if rows.dtype == torch.float64 else rows.float()
    mean = wide.sum(dim=1).sum(dim=0) / count
    return mean, (wide - mean).square_().sum(dim=1).sum(dim=0) / count
