"""Thin ResNet-34 with squeeze-and-excitation over filter banks.

Axes: B batch, T frames, F bands, C channels, R channels of the squeezed vector. Images are (B, C, F, T) in
channels-last memory format, in which a band is one contiguous row of T x C values: it saves a reordering before and
after every convolution on a CPU.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

from makermark.foundation.errors import ParamsError
from makermark.models.backbones.base import (
    FILTER_BANKS,
    Backbone,
    Setting,
    check_front_end,
    mask_padding_,
    normalise_over_time,
)
from makermark.models.backbones.batch_norm import BatchNorm2d
from makermark.models.backbones.pooling import build_pooling

FILTERS = (16, 32, 64, 128)
BLOCKS = (3, 4, 6, 3)
STRIDES = (1, 2, 2, 1)  # of each stage's first block, over frequency and time
REDUCTION = 8  # of channels inside squeeze-and-excitation
STEM_ORDERS = ("norm-relu", "relu-norm")


class ResNet34(Backbone):
    """Thin ResNet-34 (Chung et al. 2020, In defence of metric learning for speaker recognition).

    Four stages of 16, 32, 64 and 128 filters with 3, 4, 6 and 3 basic blocks (He et al. 2016) with
    squeeze-and-excitation (Hu et al. 2018). The first convolution is 7 x 7 with stride 2 over frequency and 1 over
    time. The mean over the remaining bands gives the frames for pooling; a linear layer maps the pooled vector to
    `dim`. Bands of the `front_end` are first normalised over each utterance's own frames (`normalise`, see
    `normalise_over_time`).

    `stem_order` is the order of what follows the first convolution: `norm-relu`, as in `ResNetSE34L` of the paper's
    code (voxceleb_trainer), or `relu-norm`, as in its `ResNetSE34V2`. The blocks are the same in both. Raises
    ParamsError for any other order.
    """

    front_end = "fbank"
    supports_cuda_graph = True
    first_layer, last_convolution = "stem", f"blocks.{sum(BLOCKS) - 1}"
    min_frames = 2  # normalisation over time needs two

    def __init__(self, *, dim: int, front_end: str, normalise: str, pooling: str, stem_order: str) -> None:
        super().__init__()
        self.front_end_name(front_end=front_end, normalise=normalise)
        self.statistics = normalise
        if stem_order not in STEM_ORDERS:
            raise ParamsError(f"unknown stem_order {stem_order!r}; it must be one of {list(STEM_ORDERS)}")
        self.norm_first = stem_order == "norm-relu"
        self.stem = nn.Conv2d(1, FILTERS[0], kernel_size=7, stride=(2, 1), padding=3, bias=False)
        self.stem_norm = BatchNorm2d(FILTERS[0])
        self.blocks = nn.ModuleList()
        channels = FILTERS[0]
        for filters, count, stride in zip(FILTERS, BLOCKS, STRIDES, strict=True):
            for position in range(count):
                self.blocks.append(SEBasicBlock(channels, filters, stride=stride if position == 0 else 1))
                channels = filters
        self.pooling = build_pooling(pooling, channels)
        self.embedding = nn.Linear(self.pooling.out_width, dim)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    @classmethod
    def front_end_name(cls, **settings: Setting) -> str:
        """Return the setting `front_end`. Raises ParamsError if it, or `normalise`, is unknown."""
        return check_front_end(settings, FILTER_BANKS, name="resnet34")

    def forward(self, features: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Embed log energies (B, T, F) as (B, dim), not normalised.

        With `lengths` (B,), in frames, padding does not change the result. Raises ValueError for lengths in training
        mode, where batch statistics would count the padding, and for an utterance shorter than `min_frames`.
        """
        self.check_lengths(features, lengths, name="resnet34")
        with torch.autocast(features.device.type, enabled=False):
            bands = normalise_over_time(features.float(), lengths, statistics=self.statistics)
        images = bands.transpose(1, 2).contiguous().unsqueeze(3).permute(0, 3, 1, 2)  # (B, 1, F, T)
        x = self.stem(images)
        x = F.relu_(self.stem_norm(x)) if self.norm_first else self.stem_norm(F.relu_(x))
        x = mask_padding_(x, lengths)
        for block in self.blocks:
            x, lengths = block(x, lengths)
        frames = x.mean(dim=2).transpose(1, 2)  # (B, T / 4, C)
        with torch.autocast(features.device.type, enabled=False):
            embeddings: Tensor = self.embedding(self.pooling(frames.float(), lengths))
        return embeddings


class SEBasicBlock(nn.Module):
    """Two 3 x 3 convolutions with squeeze-and-excitation, and a shortcut.

    The ReLU comes before the first normalisation, as in the reference implementation.
    """

    def __init__(self, inputs: int, filters: int, *, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv1 = nn.Conv2d(inputs, filters, kernel_size=3, stride=stride, padding=1, bias=False)
        self.norm1 = BatchNorm2d(filters)
        self.conv2 = nn.Conv2d(filters, filters, kernel_size=3, padding=1, bias=False)
        self.norm2 = BatchNorm2d(filters)
        self.squeeze = nn.Linear(filters, filters // REDUCTION)
        self.excite = nn.Linear(filters // REDUCTION, filters)
        self.shortcut = (
            nn.Identity()
            if stride == 1 and inputs == filters
            else ProjectionShortcut(inputs, filters, stride)
        )

    def forward(self, x: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Map images (B, C, F, T), zero in padding, and lengths to those after the block."""
        if lengths is not None:
            lengths = (lengths + self.stride - 1).div(self.stride, rounding_mode="floor")
        out = mask_padding_(self.norm1(F.relu_(self.conv1(x))), lengths)
        out = mask_padding_(self.norm2(self.conv2(out)), lengths)
        frames = out.new_full((1,), out.shape[3], dtype=torch.float32) if lengths is None else lengths
        positions = frames[:, None] * out.shape[2]
        total = squeeze_excite_add(out, self.shortcut(x), self.squeeze, self.excite, positions=positions)
        return mask_padding_(total, lengths), lengths


class ProjectionShortcut(nn.Sequential):
    """The shortcut of a block that changes the number of channels or the resolution."""

    def __init__(self, inputs: int, filters: int, stride: int) -> None:
        super().__init__(
            nn.Conv2d(inputs, filters, kernel_size=1, stride=stride, bias=False), BatchNorm2d(filters)
        )


def squeeze_excite_add(
    images: Tensor, shortcut: Tensor, squeeze: nn.Linear, excite: nn.Linear, *, positions: Tensor
) -> Tensor:
    """Return relu(images * gates + shortcut) (B, C, F, T), the end of a residual block, as one autograd function.

    There is one gate per channel: gates = sigmoid(excite(relu(squeeze(means)))) (Hu et al. 2018, eq. 2-4).
    `positions` (B or 1, 1) divides the sum of a channel to give its mean: F x T, or fewer where the rest is padding,
    which must be zero. Once differentiable.

    The backward pass is written out because autograd of the same five lines would store the gradient of the mean as
    an image: a training step of the thin ResNet-34 in bfloat16 would take a tenth longer (benchmarks/README.md).
    """
    with torch.autocast(images.device.type, enabled=False):
        out: Tensor = _SqueezeExciteAdd.apply(  # type: ignore[no-untyped-call]
            images, shortcut, positions, squeeze.weight, squeeze.bias, excite.weight, excite.bias
        )
    return out


class _Saved(FunctionCtx):
    """Context of `backward`."""

    saved_tensors: tuple[Tensor, ...]


class _SqueezeExciteAdd(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx,
        images: Tensor,
        shortcut: Tensor,
        positions: Tensor,
        w1: Tensor,
        b1: Tensor,
        w2: Tensor,
        b2: Tensor,
    ) -> Tensor:
        means = _channel_sums(_as_rows(images), images.shape[1]).to(w1.dtype) / positions  # (B, C)
        hidden = torch.relu(torch.addmm(b1, means, w1.T))  # (B, R)
        gates = torch.sigmoid(torch.addmm(b2, hidden, w2.T))  # (B, C)
        rows = torch.addcmul(_as_rows(shortcut), _as_rows(images), _expand_row(gates, like=images)).relu_()
        out = _as_images(rows, images.shape)
        ctx.save_for_backward(images, out, positions, means, hidden, gates, w1, w2)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: _Saved, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        images, out, positions, means, hidden, gates, w1, w2 = ctx.saved_tensors
        # The gradient of the shortcut; not a view, since autograd may add to it in place.
        grad_sum = torch.ops.aten.threshold_backward(grad_output, out, 0)
        grad_images = _as_rows(grad_sum) * _as_rows(images)
        grad_gates = _channel_sums(grad_images, images.shape[1]).to(w1.dtype)  # (B, C)
        grad_excited = grad_gates * gates * (1 - gates)
        grad_squeezed = (grad_excited @ w2) * (hidden > 0)  # (B, R)
        grad_means = (grad_squeezed @ w1) / positions  # (B, C)
        torch.addcmul(
            _expand_row(grad_means, like=images),
            _as_rows(grad_sum),
            _expand_row(gates, like=images),
            out=grad_images,
        )
        return (
            _as_images(grad_images, images.shape),
            grad_sum,
            None,
            grad_squeezed.T @ means,
            grad_squeezed.sum(dim=0),
            grad_excited.T @ hidden,
            grad_excited.sum(dim=0),
        )


def _as_rows(images: Tensor) -> Tensor:
    """View channels-last images (B, C, F, T) as rows (B, F, T C)."""
    batch, channels, bands, frames = images.shape
    return images.permute(0, 2, 3, 1).reshape(batch, bands, frames * channels)


def _as_images(rows: Tensor, shape: torch.Size) -> Tensor:
    """Return the inverse of `_as_rows`."""
    batch, channels, bands, frames = shape
    return rows.view(batch, bands, frames, channels).permute(0, 3, 1, 2)


def _expand_row(values: Tensor, *, like: Tensor) -> Tensor:
    """Repeat values (B, C) at every frame: (B, 1, T C). PyTorch's inner loop then runs over a row, not over C."""
    batch, channels, _, frames = like.shape
    return values.to(like.dtype)[:, None].expand(batch, frames, channels).reshape(batch, 1, frames * channels)


def _channel_sums(rows: Tensor, channels: int) -> Tensor:
    """Return the sum of each channel (B, C) of rows (B, F, T C)."""
    return rows.view(len(rows), -1, channels).sum(dim=1)
