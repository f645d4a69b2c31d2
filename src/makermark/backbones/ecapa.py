"""ECAPA-TDNN over log-mel filterbanks.

Legend of axes: B batch, T frames, F bands, C channels. Signals are (B, C, T).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from makermark.backbones.base import Backbone
from makermark.backbones.frames import normalise_over_time, silence
from makermark.backbones.pooling import build_pooling
from makermark.errors import ParamsError

SCALE = 8  # groups of channels in a Res2Net convolution
DILATIONS = (2, 3, 4)  # of the blocks
SQUEEZED = 128  # channels inside squeeze-and-excitation
AGGREGATED = 1536  # channels of the frames that are pooled, at most


class Ecapa(Backbone):
    """ECAPA-TDNN (Desplanques, Thienpondt & Demuynck, Interspeech 2020).

    A convolution over 5 frames, three squeeze-excited Res2 blocks of dilation 2, 3 and 4, each fed with the sum of
    everything before it, their outputs side by side through a convolution over 1 frame to 1536 channels (at most
    three times `channels`), pooling (the paper's: context-asp), and a linear layer to `dim`; batch normalisation
    before and after that layer. The paper has 512 or 1024 `channels`; any multiple of 8 will do. Time is not
    reduced. Every utterance's bands are first normalised to mean 0 and variance 1 over its own frames.
    """

    front_end = "fbank"
    capturable = True
    min_frames = 2  # the normalisation over time needs two; whoever has less repeats it

    def __init__(self, *, dim: int, width: int, channels: int, pooling: str) -> None:
        super().__init__()
        if channels < SCALE or channels % SCALE:
            raise ParamsError(f"backbone ecapa: channels is {channels}; it is a multiple of {SCALE}")
        self.stem = nn.Conv1d(width, channels, kernel_size=5, padding=2)
        self.stem_norm = nn.BatchNorm1d(channels)
        self.blocks = nn.ModuleList(SERes2Block(channels, dilation=dilation) for dilation in DILATIONS)
        together = len(DILATIONS) * channels
        self.aggregate = nn.Conv1d(together, min(together, AGGREGATED), kernel_size=1)
        self.pooling = build_pooling(pooling, self.aggregate.out_channels)
        self.pooled_norm = nn.BatchNorm1d(self.pooling.out_width)
        self.embedding = nn.Linear(self.pooling.out_width, dim)
        self.embedding_norm = nn.BatchNorm1d(dim)

    def forward(self, features: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Embed log-mels (B, T, F) as (B, dim), not normalised.

        With `lengths` (B,), in frames, what lies past an utterance's length changes nothing. Raises ValueError
        for lengths in training mode, and for an utterance shorter than `min_frames`.
        """
        self.refuse_lengths(features, lengths, name="ecapa")
        with torch.autocast(features.device.type, enabled=False):
            bands = normalise_over_time(features.float(), lengths)
        x = self.stem_norm(F.relu(self.stem(bands.transpose(1, 2))))
        outputs: list[Tensor] = []
        for block in self.blocks:
            outputs.append(block(x, lengths))
            x = x + outputs[-1]
        frames = F.relu(self.aggregate(torch.cat(outputs, dim=1))).transpose(1, 2)  # (B, T, aggregated)
        with torch.autocast(features.device.type, enabled=False):
            pooled = self.pooled_norm(self.pooling(frames.float(), lengths))
            embeddings: Tensor = self.embedding_norm(self.embedding(pooled))
        return embeddings


class SERes2Block(nn.Module):
    """A Res2 convolution between two convolutions over 1 frame, squeeze-and-excitation, plus a shortcut."""

    def __init__(self, channels: int, *, dilation: int) -> None:
        super().__init__()
        self.before = nn.Conv1d(channels, channels, kernel_size=1)
        self.before_norm = nn.BatchNorm1d(channels)
        self.res2 = Res2Convolution(channels, dilation=dilation)
        self.after = nn.Conv1d(channels, channels, kernel_size=1)
        self.after_norm = nn.BatchNorm1d(channels)
        self.squeeze = nn.Linear(channels, SQUEEZED)
        self.excite = nn.Linear(SQUEEZED, channels)

    def forward(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        out = self.before_norm(F.relu(self.before(x)))
        out = self.res2(out, lengths)
        out = self.after_norm(F.relu(self.after(out)))
        gates = torch.sigmoid(self.excite(F.relu(self.squeeze(_means(out, lengths)))))
        total: Tensor = x + out * gates[..., None].to(out.dtype)
        return total


class Res2Convolution(nn.Module):
    """Convolutions over 3 dilated frames in a chain of channel groups (Gao et al. 2021, Res2Net, eq. 1).

    Of groups x_1 ... x_8 the first passes; y_2 = K_2(x_2) and y_i = K_i(x_i + y_{i-1}). Past an utterance's length
    every convolution sees zeros.
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
        first, second, *others = silence(x, lengths).chunk(SCALE, dim=1)
        outputs = [first]
        given = second
        for position, (convolution, norm) in enumerate(zip(self.convolutions, self.norms, strict=True)):
            outputs.append(norm(F.relu(convolution(given))))
            if position < len(others):
                given = others[position] + silence(outputs[-1], lengths)
        return torch.cat(outputs, dim=1)


def _means(x: Tensor, lengths: Tensor | None) -> Tensor:
    """(B, C): the mean of each channel over the frames inside each length."""
    if lengths is None:
        return x.mean(dim=2)
    return silence(x, lengths).sum(dim=2) / lengths[:, None]
