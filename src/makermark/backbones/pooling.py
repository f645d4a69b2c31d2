"""Pooling: from the frames of an utterance to one vector, whatever network made the frames.

Contract: `pooling(frames (B, T, width), lengths (B,) or None) -> (B, pooling.out_width)`. Frames at and
past an utterance's length carry no weight; without `lengths` all frames count.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from makermark.backbones.frames import frame_mask
from makermark.errors import ParamsError

ATTENTION_WIDTH = 128  # between frames and scores of the channel-dependent attention, as published
SMALLEST_VARIANCE = 1e-5


class MeanPooling(nn.Module):
    """The mean over time."""

    def __init__(self, *, width: int) -> None:
        super().__init__()
        self.out_width = width

    def forward(self, frames: Tensor, lengths: Tensor | None = None) -> Tensor:
        if lengths is None:
            return frames.mean(dim=1)
        inside = frame_mask(lengths, frames.shape[1])[..., None]  # (B, T, 1)
        return frames.masked_fill(~inside, 0).sum(dim=1) / lengths[:, None]


class SelfAttentivePooling(nn.Module):
    """SAP (Cai, Chen & Li, Odyssey 2018, eq. 4-6): the mean over time, weighted by learned attention.

    w_t = softmax_t(u . tanh(W x_t + b)), output = sum_t w_t x_t.
    """

    def __init__(self, *, width: int) -> None:
        super().__init__()
        self.out_width = width
        self.attention = Attention(width)

    def forward(self, frames: Tensor, lengths: Tensor | None = None) -> Tensor:
        weights: Tensor = self.attention(frames, lengths)  # (B, 1, T)
        return (weights @ frames).squeeze(1)


class AttentiveStatisticsPooling(nn.Module):
    """ASP (Okabe, Koshinaka & Shinoda, Interspeech 2018, eq. 5-6): weighted mean and standard deviation.

    The attention is that of SAP. Variances below 1e-5 count as 1e-5, so that the root has a gradient.
    """

    def __init__(self, *, width: int) -> None:
        super().__init__()
        self.out_width = 2 * width
        self.attention = Attention(width)

    def forward(self, frames: Tensor, lengths: Tensor | None = None) -> Tensor:
        weights = self.attention(frames, lengths)  # (B, 1, T)
        mean = weights @ frames  # (B, 1, width)
        variance = weights @ (frames - mean).square()
        return _with_deviation(mean, variance).squeeze(1)


class ContextStatisticsPooling(nn.Module):
    """Channel- and context-dependent ASP (Desplanques, Thienpondt & Demuynck, Interspeech 2020, eq. 1-3).

    Every channel has weights of its own, from e_t = V tanh(W [x_t; m; s] + b) + k and a softmax over time, with m
    and s the plain mean and standard deviation of the utterance's frames. Output: weighted mean and standard
    deviation. Variances below 1e-5 count as 1e-5.
    """

    def __init__(self, *, width: int) -> None:
        super().__init__()
        self.out_width = 2 * width
        self.local = nn.Linear(width, ATTENTION_WIDTH)
        self.context = nn.Linear(2 * width, ATTENTION_WIDTH, bias=False)
        self.scores = nn.Linear(ATTENTION_WIDTH, width)

    def forward(self, frames: Tensor, lengths: Tensor | None = None) -> Tensor:
        inside = None if lengths is None else frame_mask(lengths, frames.shape[1])[..., None]  # (B, T, 1)
        scores = self.scores(torch.tanh(self.local(frames) + self.context(_plain(frames, inside))))
        if inside is not None:
            scores = scores.masked_fill(~inside, -torch.inf)
        shares = F.softmax(scores, dim=1)  # (B, T, width)
        mean = (shares * frames).sum(dim=1, keepdim=True)
        variance = (shares * (frames - mean).square()).sum(dim=1, keepdim=True)
        return _with_deviation(mean, variance).squeeze(1)


class Attention(nn.Module):
    """Weights (B, 1, T) over the frames of each utterance; they sum to 1, and are 0 past its length."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(width, width)
        self.query = nn.Parameter(torch.empty(width, 1))
        nn.init.xavier_normal_(self.query)

    def forward(self, frames: Tensor, lengths: Tensor | None) -> Tensor:
        scores = (torch.tanh(self.hidden(frames)) @ self.query).squeeze(2)  # (B, T)
        if lengths is not None:
            scores = scores.masked_fill(~frame_mask(lengths, frames.shape[1]), -torch.inf)
        return F.softmax(scores, dim=1).unsqueeze(1)


def _plain(frames: Tensor, inside: Tensor | None) -> Tensor:
    """(B, 1, 2 width): mean and standard deviation of the frames where `inside` (B, T, 1) is True."""
    if inside is None:
        variance, mean = torch.var_mean(frames, dim=1, correction=0, keepdim=True)
        return _with_deviation(mean, variance)
    count = inside.sum(dim=1, keepdim=True)
    mean = frames.masked_fill(~inside, 0).sum(dim=1, keepdim=True) / count
    centred = (frames - mean).masked_fill(~inside, 0)
    return _with_deviation(mean, centred.square().sum(dim=1, keepdim=True) / count)


def _with_deviation(mean: Tensor, variance: Tensor) -> Tensor:
    return torch.cat([mean, variance.clamp(min=SMALLEST_VARIANCE).sqrt()], dim=2)


Pooling = MeanPooling | SelfAttentivePooling | AttentiveStatisticsPooling | ContextStatisticsPooling

POOLINGS: dict[str, type[Pooling]] = {
    "sap": SelfAttentivePooling,
    "asp": AttentiveStatisticsPooling,
    "context-asp": ContextStatisticsPooling,
    "mean": MeanPooling,
}


def build_pooling(name: str, width: int) -> Pooling:
    """The pooling called `name` for frames of `width`; raises ParamsError listing the choices."""
    if name not in POOLINGS:
        raise ParamsError(f"unknown pooling {name!r}; it is one of {list(POOLINGS)}")
    return POOLINGS[name](width=width)
