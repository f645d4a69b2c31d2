"""ECAPA-TDNN over filter banks.

Axes: B batch, T frames, F bands, C channels. Signals are (B, C, T).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from makermark.foundation.errors import ParamsError
from makermark.models.backbones.base import (
    FILTER_BANKS,
    Backbone,
    Setting,
    check_front_end,
    mask_padding,
    normalise_over_time,
)
from makermark.models.backbones.pooling import build_pooling

SCALE = 8  # channel groups of a Res2Net convolution
DILATIONS = (2, 3, 4)  # of the blocks
SQUEEZE_CHANNELS = 128  # hidden channels of squeeze-and-excitation
MAX_AGGREGATED_CHANNELS = 1536  # channels of the frames before pooling


class Ecapa(Backbone):
    """ECAPA-TDNN (Desplanques, Thienpondt & Demuynck, Interspeech 2020).

    A convolution over 5 frames; three SE-Res2 blocks of dilation 2, 3 and 4, each with the sum of all previous
    outputs as input; a convolution over 1 frame from the concatenated block outputs to 1536 channels (at most
    3 `channels`); pooling (context-asp in the paper); a linear layer to `dim`, with batch normalisation before and
    after it. The paper uses 512 or 1024 `channels`; any multiple of 8 is valid. Time is not subsampled. Bands of
    the `front_end` are first normalised over each utterance's own frames (`normalise`, see `normalise_over_time`).
    """

    front_end = "fbank"
    supports_cuda_graph = True
    first_layer, last_convolution = "stem", "aggregate"
    min_frames = 2  # normalisation over time needs two

    def __init__(
        self, *, dim: int, width: int, front_end: str, normalise: str, channels: int, pooling: str
    ) -> None:
        super().__init__()
        self.front_end_name(front_end=front_end, normalise=normalise)
        self.statistics = normalise
        if channels < SCALE or channels % SCALE:
            raise ParamsError(f"backbone ecapa: channels is {channels}; it must be a multiple of {SCALE}")
        self.stem = nn.Conv1d(width, channels, kernel_size=5, padding=2)
        self.stem_norm = nn.BatchNorm1d(channels)
        self.blocks = nn.ModuleList(SERes2Block(channels, dilation=dilation) for dilation in DILATIONS)
        concatenated = len(DILATIONS) * channels
        self.aggregate = nn.Conv1d(concatenated, min(concatenated, MAX_AGGREGATED_CHANNELS), kernel_size=1)
        self.pooling = build_pooling(pooling, self.aggregate.out_channels)
        self.pooled_norm = nn.BatchNorm1d(self.pooling.out_width)
        self.embedding = nn.Linear(self.pooling.out_width, dim)
        self.embedding_norm = nn.BatchNorm1d(dim)

    @classmethod
    def front_end_name(cls, **settings: Setting) -> str:
        """Return the setting `front_end`. Raises ParamsError if it, or `normalise`, is unknown."""
        return check_front_end(settings, FILTER_BANKS, name="ecapa")

    def forward(self, features: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Embed log energies (B, T, F) as (B, dim), not normalised.

        With `lengths` (B,), in frames, padding does not change the result. Raises ValueError for lengths in training
        mode, and for an utterance shorter than `min_frames`.
        """
        self.check_lengths(features, lengths, name="ecapa")
        with torch.autocast(features.device.type, enabled=False):
            bands = normalise_over_time(features.float(), lengths, statistics=self.statistics)
        x = self.stem_norm(F.relu(self.stem(bands.transpose(1, 2))))
        outputs: list[Tensor] = []
        for block in self.blocks:
            outputs.append(block(x, lengths))
            x = x + outputs[-1]
        frames = F.relu(self.aggregate(torch.cat(outputs, dim=1))).transpose(
            1, 2
        )  # (B, T, aggregated channels)
        with torch.autocast(features.device.type, enabled=False):
            pooled = self.pooled_norm(self.pooling(frames.float(), lengths))
            embeddings: Tensor = self.embedding_norm(self.embedding(pooled))
        return embeddings


class SERes2Block(nn.Module):
    """A Res2 convolution between two convolutions over 1 frame, squeeze-and-excitation, and a shortcut."""

    def __init__(self, channels: int, *, dilation: int) -> None:
        super().__init__()
        self.before = nn.Conv1d(channels, channels, kernel_size=1)
        self.before_norm = nn.BatchNorm1d(channels)
        self.res2 = Res2Convolution(channels, dilation=dilation)
        self.after = nn.Conv1d(channels, channels, kernel_size=1)
        self.after_norm = nn.BatchNorm1d(channels)
        self.squeeze = nn.Linear(channels, SQUEEZE_CHANNELS)
        self.excite = nn.Linear(SQUEEZE_CHANNELS, channels)

    def forward(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        out = self.before_norm(F.relu(self.before(x)))
        out = self.res2(out, lengths)
        out = self.after_norm(F.relu(self.after(out)))
        gates = torch.sigmoid(self.excite(F.relu(self.squeeze(_channel_means(out, lengths)))))
        total: Tensor = x + out * gates[..., None].to(out.dtype)
        return total


class Res2Convolution(nn.Module):
    """Dilated convolutions over 3 frames in a chain of channel groups (Gao et al. 2021, Res2Net, eq. 1).

    For groups x_1 ... x_8: y_1 = x_1, y_2 = K_2(x_2) and y_i = K_i(x_i + y_{i-1}). The input of every convolution is
    zero in padding.
    """

    def __init__(self, channels: int, *, dilation: int) -> None:
        super().__init__()
        group = channels // SCALE
        self.convolutions = nn.ModuleList(
            nn.Conv1d(group, group, kernel_size=3, dilation=dilation, padding=dilation)
            for _ in range(SCALE - 1)
        )
        self.norms = nn.ModuleList(nn.BatchNorm1d(group) for _ in range(SCALE - 1))

    def forward(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        first, second, *others = mask_padding(x, lengths).chunk(SCALE, dim=1)
        outputs = [first]
        inputs = second
        for position, (convolution, norm) in enumerate(zip(self.convolutions, self.norms, strict=True)):
            outputs.append(norm(F.relu(convolution(inputs))))
            if position < len(others):
                inputs = others[position] + mask_padding(outputs[-1], lengths)
        return torch.cat(outputs, dim=1)


def _channel_means(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Return the mean (B, C) of each channel over an utterance's own frames."""
    if lengths is None:
        return x.mean(dim=2)
    return mask_padding(x, lengths).sum(dim=2) / lengths[:, None]
