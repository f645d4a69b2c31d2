"""Thin ResNet-34 with squeeze-and-excitation, over log-mel filterbanks.

Legend of axes: B batch, T frames, F bands, C channels. Images are (B, C, F, T) in memory order B, F, T, C
(channels last), which on processors spares oneDNN a reordering before and after every convolution.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from makermark.backbones.base import Backbone
from makermark.backbones.excitation import excited_sum
from makermark.backbones.frames import normalise_over_time, silence_
from makermark.backbones.pooling import build_pooling

FILTERS = (16, 32, 64, 128)
BLOCKS = (3, 4, 6, 3)
STRIDES = (1, 2, 2, 1)  # of each stage's first block, over frequency and time alike
REDUCTION = 8  # of the channels inside squeeze-and-excitation


class ResNet34(Backbone):
    """The thin ResNet-34 of Chung et al. 2020 (In defence of metric learning for speaker recognition).

    Residual stages of 16-32-64-128 filters and 3-4-6-3 basic blocks (He 2016) with squeeze-and-excitation
    (Hu 2018); the first convolution is 7 x 7 with stride 2 over frequency and 1 over time. The mean over the
    remaining bands gives frames for the pooling, a linear layer makes `dim` numbers of the pooled vector.
    Every utterance's bands are first normalised to mean 0 and variance 1 over its own frames.
    """

    front_end = "fbank"
    capturable = True
    min_frames = 2  # the normalisation over time needs two; whoever has less repeats it

    def __init__(self, *, dim: int, pooling: str) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, FILTERS[0], kernel_size=7, stride=(2, 1), padding=3, bias=False)
        self.stem_norm = nn.BatchNorm2d(FILTERS[0])
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

    def forward(self, features: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Embed log-mels (B, T, F) as (B, dim), not normalised.

        With `lengths` (B,), in frames, what lies past an utterance's length changes nothing. That holds in
        evaluation mode only, since batch statistics would count the padding: in training mode lengths are
        refused. Raises ValueError for that, and for an utterance shorter than `min_frames`.
        """
        self.refuse_lengths(features, lengths, name="resnet34")
        with torch.autocast(features.device.type, enabled=False):
            bands = normalise_over_time(features.float(), lengths)
        images = bands.transpose(1, 2).contiguous().unsqueeze(3).permute(0, 3, 1, 2)  # (B, 1, F, T)
        x = silence_(self.stem_norm(F.relu_(self.stem(images))), lengths)
        for block in self.blocks:
            x, lengths = block(x, lengths)
        frames = x.mean(dim=2).transpose(1, 2)  # (B, T / 4, C)
        with torch.autocast(features.device.type, enabled=False):
            embeddings: Tensor = self.embedding(self.pooling(frames.float(), lengths))
        return embeddings


class SEBasicBlock(nn.Module):
    """Two 3 x 3 convolutions, their channels weighted by squeeze-and-excitation, plus a shortcut.

    The rectifier stands before the first normalisation, as in the reference implementation.
    """

    def __init__(self, inputs: int, filters: int, *, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv1 = nn.Conv2d(inputs, filters, kernel_size=3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(filters)
        self.conv2 = nn.Conv2d(filters, filters, kernel_size=3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(filters)
        self.squeeze = nn.Linear(filters, filters // REDUCTION)
        self.excite = nn.Linear(filters // REDUCTION, filters)
        self.shortcut = (
            nn.Identity() if stride == 1 and inputs == filters else Projection(inputs, filters, stride)
        )

    def forward(self, x: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Images (B, C, F, T), zero past each length, and the lengths; the same after the block."""
        if lengths is not None:
            lengths = (lengths + self.stride - 1).div(self.stride, rounding_mode="floor")
        out = silence_(self.norm1(F.relu_(self.conv1(x))), lengths)
        out = silence_(self.norm2(self.conv2(out)), lengths)
        places = out.new_full((1,), out.shape[3], dtype=torch.float32) if lengths is None else lengths
        joined = excited_sum(
            out, self.shortcut(x), self.squeeze, self.excite, places=places[:, None] * out.shape[2]
        )
        return silence_(joined, lengths), lengths


class Projection(nn.Sequential):
    """The shortcut where a block changes the number of channels or the resolution."""

    def __init__(self, inputs: int, filters: int, stride: int) -> None:
        super().__init__(
            nn.Conv2d(inputs, filters, kernel_size=1, stride=stride, bias=False), nn.BatchNorm2d(filters)
        )
