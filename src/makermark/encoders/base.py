"""What every pretrained speech encoder offers, and what is enough to build one without its weights.

Legend of axes: B batch, T samples, T' frames of 20 ms, H hidden size, L Transformer blocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

SAMPLE_RATE_HZ = 16000
HOP_SAMPLES = 320  # 50 frames per second, in all families listed here


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """An encoder without its weights; `asdict` of it is JSON, and stands in checkpoints.

    Hidden state 0 is the input of the first block, hidden state k the output of the k-th; the last one has
    passed the final normalisation where the family has one. Blocks above a fixed layer are not built.
    """

    config: dict[str, Any]  # the family's, as in config.json, with as many blocks as are used
    width: int  # H
    normalise: bool  # each waveform to mean 0 and variance 1, as the model's preprocessor asks
    weighted: bool  # give all hidden states instead of the highest
    final_norm: bool  # the highest state passes the final normalisation; not so below the last layer


class Encoder(nn.Module):
    """The contract: `encoder(waveforms (B, T), lengths (B,) or None) -> (states, frame lengths (B,) or None)`.

    Waveforms are float, full scale 1, at 16 kHz. `states` are one (B, T', H), or with `weighted` all L + 1.
    Without `lengths` every utterance fills all T samples. With them, what lies past a length changes nothing;
    frames past the returned frame lengths have no meaning. Every utterance has `min_samples` or more.
    """

    architecture: Architecture
    width: int  # H
    states: int  # how many are given: 1 or L + 1
    min_samples: int

    def freeze_front(self) -> None:
        """Train no longer the convolutions below the Transformer (`freeze: feature_encoder`)."""
        raise NotImplementedError

    def checkpoint_gradients(self) -> None:
        """From now on compute activations twice instead of keeping them, in training mode."""
        raise NotImplementedError


def prepared(waveforms: Tensor, lengths: Tensor | None, *, normalise: bool) -> Tensor:
    """Float32 waveforms (B, T), zero past each length, on request with mean 0 and variance 1 up to there.

    1e-7 is added to the variance, as the family's own preprocessor does.
    """
    waveforms = waveforms.float()
    if lengths is None:
        if not normalise:
            return waveforms
        variance, mean = torch.var_mean(waveforms, dim=1, correction=0, keepdim=True)
        return (waveforms - mean) * torch.rsqrt(variance + 1e-7)
    outside = ~inside(lengths, waveforms.shape[1])
    waveforms = waveforms.masked_fill(outside, 0)
    if not normalise:
        return waveforms
    mean = waveforms.sum(dim=1, keepdim=True) / lengths[:, None]
    centred = (waveforms - mean).masked_fill(outside, 0)
    variance = centred.square().sum(dim=1, keepdim=True) / lengths[:, None]
    return centred * torch.rsqrt(variance + 1e-7)


def inside(lengths: Tensor, samples: int) -> Tensor:
    """(B, samples) bool: True for what belongs to each utterance."""
    return torch.arange(samples, device=lengths.device) < lengths[:, None]
