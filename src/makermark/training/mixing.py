"""Mixup: inputs made of two utterances of a batch.

Legend of axes: B batch, T frames, F bands.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from makermark.backbones.base import as_float


class Mixture(NamedTuple):
    """How a batch is mixed with itself."""

    partner: Tensor  # (B,) int64: the row that each is mixed with
    share: Tensor  # (B,) float32: what is left of its own


def draw_mixture(size: int, *, alpha: float, rng: np.random.Generator) -> Mixture:
    """A random partner for each of `size` rows, and shares from Beta(alpha, alpha), one of its own for every pair."""
    partner = torch.from_numpy(rng.permutation(size))
    return Mixture(partner, torch.from_numpy(rng.beta(alpha, alpha, size).astype(np.float32)))


def mix(features: Tensor, mixture: Mixture) -> Tensor:
    """Features (B, T, F) mixed: share x_i + (1 - share) x_partner, float32. Zhang et al. 2018 (mixup), eq. 1."""
    x, share = as_float(features), mixture.share[:, None, None]
    return share * x + (1 - share) * x[mixture.partner]
