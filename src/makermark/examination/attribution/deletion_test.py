"""Deletion test of an attribution: delete the highest-attributed cells and compare with random deletions.

If the attribution is right, the similarity falls further than with as many cells deleted elsewhere. Legend of axes:
T frames, F bands, K shares, R random draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from makermark.examination.attribution.methods import SimilarityModel
from makermark.foundation.arrays import BoolArray, Float32Array, FloatArray

SHARES = (0.05, 0.1, 0.2, 0.3, 0.5)
UNITS = ("cells", "frames")
BATCH_FRAMES = 4000  # frames in one forward pass


@dataclass(frozen=True)
class DeletionResult:
    """Cosines of one clip with shares of it deleted; a deleted cell has the mean value of its band.

    - shares (K + 1,): deleted shares of the cells or frames, from 0
    - attributed (K + 1,): the highest attributions are deleted first
    - regions (R, K + 1): as many cells are deleted in one random region: a rectangle of random shape, or frames
    - moved (R, K + 1): the cells deleted for `attributed`, shifted cyclically along time (and frequency) by a random
      offset: the same shape elsewhere
    """

    shares: FloatArray
    attributed: FloatArray
    regions: FloatArray
    moved: FloatArray

    @property
    def area(self) -> float:
        """Mean cosine under the curve of `attributed`; lower is better."""
        return float(mean_under_curve(self.shares, self.attributed))

    @property
    def region_areas(self) -> FloatArray:
        """Mean cosines under the curves of `regions`, (R,)."""
        return mean_under_curve(self.shares, self.regions)

    @property
    def moved_areas(self) -> FloatArray:
        """Mean cosines under the curves of `moved`, (R,)."""
        return mean_under_curve(self.shares, self.moved)


def mean_under_curve(shares: FloatArray, cosines: FloatArray) -> FloatArray:
    """Return the mean height of curves (..., K + 1) over shares (K + 1,), by the trapezoidal rule."""
    mean: FloatArray = np.trapezoid(cosines, shares, axis=-1) / (shares[-1] - shares[0])
    return mean


def run_deletion_test(
    model: SimilarityModel,
    bands: Tensor,
    attribution: Float32Array | FloatArray,
    *,
    seed: int | Sequence[int],
    unit: str = "cells",
    shares: Sequence[float] = SHARES,
    draws: int = 8,
) -> DeletionResult:
    """Delete parts of `bands` (1, T, F): those with the highest `attribution` (T, F), and random ones.

    `unit` is what is deleted: `cells`, or `frames` in order of their summed attributions.
    """
    if unit not in UNITS:
        raise ValueError(f"unit {unit!r} is not one of {UNITS}")
    rng = np.random.default_rng(seed)
    masks = [np.zeros(attribution.shape, dtype=bool)]
    masks += [highest_mask(attribution, share, unit=unit) for share in shares]
    for _ in range(draws):
        masks += [random_region_mask(attribution.shape, share, unit=unit, rng=rng) for share in shares]
    for _ in range(draws):
        offset = (rng.integers(attribution.shape[0]), rng.integers(attribution.shape[1]))
        masks += [np.roll(mask, offset, axis=(0, 1)) for mask in masks[1 : 1 + len(shares)]]
    cosines = cosines_after_deletion(model, bands, masks)
    whole, attributed, random = cosines[:1], cosines[1 : 1 + len(shares)], cosines[1 + len(shares) :]
    regions, moved = np.pad(
        random.reshape(2, draws, len(shares)), ((0, 0), (0, 0), (1, 0)), constant_values=whole[0]
    )
    return DeletionResult(np.array([0.0, *shares]), np.concatenate([whole, attributed]), regions, moved)


def cosines_after_deletion(model: SimilarityModel, bands: Tensor, masks: Sequence[BoolArray]) -> FloatArray:
    """Return the cosine (len(masks),) of `bands` (1, T, F) with the cells of each mask (T, F) at their band's mean."""
    batch_size = max(1, BATCH_FRAMES // bands.shape[1])
    parts = []
    with torch.inference_mode():
        for first in range(0, len(masks), batch_size):
            batch = torch.from_numpy(np.stack(masks[first : first + batch_size])).to(bands.device)
            parts.append(model(bands.masked_fill(batch, 0.0)).cpu().numpy())
    return np.concatenate(parts).astype(np.float64)


def highest_mask(attribution: Float32Array | FloatArray, share: float, *, unit: str) -> BoolArray:
    """Return a mask (T, F) of the `share` of cells or frames with the highest attribution (T, F).

    Of equal attributions the earlier one is chosen.
    """
    values = attribution.sum(axis=1) if unit == "frames" else attribution.ravel()
    chosen = np.zeros(len(values), dtype=bool)
    chosen[np.argsort(-values, kind="stable")[: _count(share, len(values))]] = True
    if unit == "frames":
        return np.repeat(chosen[:, None], attribution.shape[1], axis=1)
    return chosen.reshape(attribution.shape)


def random_region_mask(
    shape: tuple[int, ...], share: float, *, unit: str, rng: np.random.Generator
) -> BoolArray:
    """Return a mask (T, F) of one region with as many cells or frames as `highest_mask` chooses.

    Frames form one run. Cells form a rectangle: its height is drawn first, and its last frame may be incomplete.
    """
    frames, bands = shape
    count = _count(share, frames if unit == "frames" else frames * bands)
    height = bands
    if unit == "cells":
        height = int(rng.integers(min(bands, -(-count // frames)), min(bands, count) + 1))
    else:
        count *= bands
    width = -(-count // height)
    first_frame, first_band = rng.integers(frames - width + 1), rng.integers(bands - height + 1)
    mask = np.zeros(shape, dtype=bool)
    rectangle = np.zeros(width * height, dtype=bool)
    rectangle[:count] = True
    mask[first_frame : first_frame + width, first_band : first_band + height] = rectangle.reshape(
        width, height
    )
    return mask


def _count(share: float, total: int) -> int:
    return min(total, max(1, round(share * total)))
