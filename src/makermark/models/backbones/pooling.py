"""Registry of poolings, from the frames of an utterance to one vector of fixed size.

Contract: `pooling(frames (B, T, width), lengths (B,) or None) -> (B, pooling.out_width)`. Frames past an
utterance's length have no weight; without `lengths` all frames count.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from makermark.foundation.errors import ParamsError
from makermark.models.backbones.base import frame_mask

ATTENTION_WIDTH = 128  # hidden units of the channel-dependent attention, as published
MIN_VARIANCE = 1e-5


class MeanPooling(nn.Module):
    """Mean over time."""

    def __init__(self, *, width: int) -> None:
        super().__init__()
        self.out_width = width

    def forward(self, frames: Tensor, lengths: Tensor | None = None) -> Tensor:
        if lengths is None:
            return frames.mean(dim=1)
        mask = frame_mask(lengths, frames.shape[1])[..., None]  # (B, T, 1)
        return frames.masked_fill(~mask, 0).sum(dim=1) / lengths[:, None]


class SelfAttentivePooling(nn.Module):
    """Self-attentive pooling, SAP: mean over time with learned weights (Cai et al., Odyssey 2018, eq. 4-6).

    w_t = softmax over t of u . tanh(W x_t + b); output = sum over t of w_t x_t.
    """

    def __init__(self, *, width: int) -> None:
        super().__init__()
        self.out_width = width
        self.attention = Attention(width)

    def forward(self, frames: Tensor, lengths: Tensor | None = None) -> Tensor:
        weights: Tensor = self.attention(frames, lengths)  # (B, 1, T)
        return (weights @ frames).squeeze(1)


class AttentiveStatisticsPooling(nn.Module):
    """Attentive statistics pooling, ASP: weighted mean and standard deviation.

    Okabe, Koshinaka & Shinoda, Interspeech 2018, eq. 5-6. The attention is that of SAP. Variances are clamped to at
    least 1e-5, so that the square root has a finite gradient.
    """

    def __init__(self, *, width: int) -> None:
        super().__init__()
        self.out_width = 2 * width
        self.attention = Attention(width)

    def forward(self, frames: Tensor, lengths: Tensor | None = None) -> Tensor:
        weights = self.attention(frames, lengths)  # (B, 1, T)
        mean = weights @ frames  # (B, 1, width)
        variance = weights @ (frames - mean).square()
        return _mean_and_deviation(mean, variance).squeeze(1)


class ContextStatisticsPooling(nn.Module):
    """Channel- and context-dependent ASP (Desplanques, Thienpondt & Demuynck, Interspeech 2020, eq. 1-3).

    Each channel has its own weights: softmax over t of V tanh(W [x_t; m; s] + b) + k, with m and s the mean and the
    standard deviation of the utterance's frames. Output: weighted mean and standard deviation. Variances are clamped
    to at least 1e-5.
    """

    def __init__(self, *, width: int) -> None:
        super().__init__()
        self.out_width = 2 * width
        self.local = nn.Linear(width, ATTENTION_WIDTH)
        self.context = nn.Linear(2 * width, ATTENTION_WIDTH, bias=False)
        self.scores = nn.Linear(ATTENTION_WIDTH, width)

    def forward(self, frames: Tensor, lengths: Tensor | None = None) -> Tensor:
        mask = None if lengths is None else frame_mask(lengths, frames.shape[1])[..., None]  # (B, T, 1)
        scores = self.scores(torch.tanh(self.local(frames) + self.context(_statistics(frames, mask))))
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf)
        weights = F.softmax(scores, dim=1)  # (B, T, width)
        mean = (weights * frames).sum(dim=1, keepdim=True)
        variance = (weights * (frames - mean).square()).sum(dim=1, keepdim=True)
        return _mean_and_deviation(mean, variance).squeeze(1)


class Attention(nn.Module):
    """Attention weights (B, 1, T) over the frames of each utterance; they sum to 1 and are 0 in padding."""

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


def _statistics(frames: Tensor, mask: Tensor | None) -> Tensor:
    """Return mean and standard deviation (B, 1, 2 width) over the frames where the mask (B, T, 1) is True."""
    if mask is None:
        variance, mean = torch.var_mean(frames, dim=1, correction=0, keepdim=True)
        return _mean_and_deviation(mean, variance)
    count = mask.sum(dim=1, keepdim=True)
    mean = frames.masked_fill(~mask, 0).sum(dim=1, keepdim=True) / count
    centred = (frames - mean).masked_fill(~mask, 0)
    return _mean_and_deviation(mean, centred.square().sum(dim=1, keepdim=True) / count)


def _mean_and_deviation(mean: Tensor, variance: Tensor) -> Tensor:
    return torch.cat([mean, variance.clamp(min=MIN_VARIANCE).sqrt()], dim=2)


Pooling = MeanPooling | SelfAttentivePooling | AttentiveStatisticsPooling | ContextStatisticsPooling

POOLINGS: dict[str, type[Pooling]] = {
    "sap": SelfAttentivePooling,
    "asp": AttentiveStatisticsPooling,
    "context-asp": ContextStatisticsPooling,
    "mean": MeanPooling,
}


def build_pooling(name: str, width: int) -> Pooling:
    """Build the pooling `name` for frames of `width` values. Raises ParamsError for an unknown name."""
    if name not in POOLINGS:
        raise ParamsError(f"unknown pooling {name!r}; it must be one of {list(POOLINGS)}")
    return POOLINGS[name](width=width)
