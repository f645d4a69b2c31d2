"""Frames of utterances of unequal length in one batch: which are real, what stands past them, their normalisation.

Legend of axes: B batch, T frames, F bands.
"""

from __future__ import annotations

import torch
from torch import Tensor


def frame_mask(lengths: Tensor, frames: int) -> Tensor:
    """(B, frames) bool: True for the frames that belong to each utterance."""
    return torch.arange(frames, device=lengths.device) < lengths[:, None]


def silence(x: Tensor, lengths: Tensor | None) -> Tensor:
    """(B, ..., T) with zeros past each utterance's length, as the padding of a convolution is past the last frame."""
    if lengths is None:
        return x
    inside = frame_mask(lengths, x.shape[-1])
    return x.masked_fill(~inside.view(len(x), *(1,) * (x.dim() - 2), -1), 0)


def silence_(x: Tensor, lengths: Tensor | None) -> Tensor:
    """As `silence`, in place unless a gradient is asked for. Neighbours in length have little past the shortest of
    them, and on a processor only that is touched (on other devices, to look at lengths is to wait for them)."""
    if lengths is None or x.requires_grad:
        return silence(x, lengths)
    shortest = min(int(lengths.min()), x.shape[-1]) if lengths.device.type == "cpu" else 0
    past = torch.arange(shortest, x.shape[-1], device=lengths.device) >= lengths[:, None]
    x[..., shortest:].masked_fill_(past.view(len(x), *(1,) * (x.dim() - 2), -1), 0)
    return x


def normalise_over_time(features: Tensor, lengths: Tensor | None) -> Tensor:
    """Give each band of each utterance in (B, T, F) mean 0 and variance 1 over its frames; 0 past its length.

    Instance normalisation (Ulyanov 2016) without affine parameters, 1e-5 added to the variance.
    """
    if lengths is None:
        variance, mean = torch.var_mean(features, dim=1, correction=0, keepdim=True)
        return (features - mean) * torch.rsqrt(variance + 1e-5)
    outside = ~frame_mask(lengths, features.shape[1])[..., None]  # (B, T, 1)
    count = lengths[:, None, None]
    mean = features.masked_fill(outside, 0).sum(dim=1, keepdim=True) / count
    centred = (features - mean).masked_fill(outside, 0)
    variance = centred.square().sum(dim=1, keepdim=True) / count
    return centred * torch.rsqrt(variance + 1e-5)
