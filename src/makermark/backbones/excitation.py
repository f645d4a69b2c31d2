"""The end of a residual block with squeeze-and-excitation, in as few passes over its images as PyTorch allows.

Legend of axes: B batch, C channels, F bands, T frames, R channels of the squeezed vector.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable


def excited_sum(
    images: Tensor, shortcut: Tensor, squeeze: nn.Linear, excite: nn.Linear, *, places: Tensor
) -> Tensor:
    """relu(images * gates + shortcut), all (B, C, F, T) in memory order B, F, T, C; with one gate per channel,
    gates = sigmoid(excite(relu(squeeze(means)))) (Hu 2018, eq. 2-4).

    `places` (B or 1, 1) is what a channel's sum is divided by to give its mean: F x T, or fewer where the rest is
    padding, which must be zero. Differentiable once. Autograd of the same five lines would hold the mean's gradient as
    an image and add images where this adds vectors: a step of the thin ResNet-34 in bfloat16 would take a tenth longer
    (benchmarks/README.md).
    """
    with torch.autocast(images.device.type, enabled=False):
        out: Tensor = _ExcitedSum.apply(  # type: ignore[no-untyped-call]
            images, shortcut, places, squeeze.weight, squeeze.bias, excite.weight, excite.bias
        )
    return out


class _Saved(FunctionCtx):
    """What forward keeps for backward."""

    saved_tensors: tuple[Tensor, ...]


class _ExcitedSum(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx,
        images: Tensor,
        shortcut: Tensor,
        places: Tensor,
        w1: Tensor,
        b1: Tensor,
        w2: Tensor,
        b2: Tensor,
    ) -> Tensor:
        means = _sums(_lines(images), images.shape[1]).to(w1.dtype) / places  # (B, C)
        hidden = torch.relu(torch.addmm(b1, means, w1.T))  # (B, R)
        gates = torch.sigmoid(torch.addmm(b2, hidden, w2.T))  # (B, C)
        lines = torch.addcmul(_lines(shortcut), _lines(images), _line(gates, like=images)).relu_()
        out = _images(lines, images.shape)
        ctx.save_for_backward(images, out, places, means, hidden, gates, w1, w2)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: _Saved, gradient: Tensor) -> tuple[Tensor | None, ...]:
        images, out, places, means, hidden, gates, w1, w2 = ctx.saved_tensors
        of_sum = torch.ops.aten.threshold_backward(
            gradient, out, 0
        )  # no view: autograd may add to it in place
        of_images = _lines(of_sum) * _lines(images)
        of_gates = _sums(of_images, images.shape[1]).to(w1.dtype)  # (B, C)
        of_excited = of_gates * gates * (1 - gates)
        of_squeezed = (of_excited @ w2) * (hidden > 0)  # (B, R)
        of_means = (of_squeezed @ w1) / places  # (B, C)
        torch.addcmul(_line(of_means, like=images), _lines(of_sum), _line(gates, like=images), out=of_images)
        return (
            _images(of_images, images.shape),
            of_sum,
            None,
            of_squeezed.T @ means,
            of_squeezed.sum(dim=0),
            of_excited.T @ hidden,
            of_excited.sum(dim=0),
        )


def _lines(images: Tensor) -> Tensor:
    """(B, F, T C) of (B, C, F, T): a view of images in their usual memory order."""
    batch, channels, bands, frames = images.shape
    return images.permute(0, 2, 3, 1).reshape(batch, bands, frames * channels)


def _images(lines: Tensor, shape: torch.Size) -> Tensor:
    """The inverse of `_lines`."""
    batch, channels, bands, frames = shape
    return lines.view(batch, bands, frames, channels).permute(0, 3, 1, 2)


def _line(vectors: Tensor, *, like: Tensor) -> Tensor:
    """(B, 1, T C): vectors (B, C) at every frame, so that PyTorch's inner loop runs over a line, not over C numbers."""
    batch, channels, _, frames = like.shape
    return (
        vectors.to(like.dtype)[:, None].expand(batch, frames, channels).reshape(batch, 1, frames * channels)
    )


def _sums(lines: Tensor, channels: int) -> Tensor:
    """(B, C): the sum of each channel of (B, F, T C)."""
    return lines.view(len(lines), -1, channels).sum(dim=1)
