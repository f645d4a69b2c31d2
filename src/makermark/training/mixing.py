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
    """A batch mixed with itself."""

    features: Tensor  # (B, T, F) float32: share x_i + (1 - share) x_partner
    partner: Tensor  # (B,) int64: the row that each is mixed with
    share: Tensor  # (B,) float32: what is left of its own


def mix(features: Tensor, *, alpha: float, rng: np.random.Generator) -> Mixture:
    """Mix every row of features (B, T, F) with a random partner, shares from Beta(alpha, alpha).

    Zhang et al. 2018 (mixup), eq. 1; a share of its own for every pair.
    """
    partner = torch.from_numpy(rng.permutation(len(features)))
    share = torch.from_numpy(rng.beta(alpha, alpha, len(features)).astype(np.float32))
    x, part = as_float(features), share[:, None, None]
    return Mixture(part * x + (1 - part) * x[partner], partner, share)
