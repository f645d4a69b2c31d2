"""Does the highlighted part matter? Delete it, and see how much further the likeness falls than elsewhere.

Legend of axes: T frames, F bands, K shares, N draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from makermark.attributing.likeness import Likeness

SHARES = (0.05, 0.1, 0.2, 0.3, 0.5)
UNITS = ("cells", "frames")
TOGETHER = 4000  # frames in one pass

Numbers = NDArray[np.float64]
Mask = NDArray[np.bool_]  # (T, F)


@dataclass(frozen=True)
class Deletion:
    """Cosines of one clip with shares of it deleted, that is at their band's mean over the clip.

    - shares (K + 1,): from 0, of the cells, or of the frames
    - attributed (K + 1,): the highest attributions deleted first
    - regions (N, K + 1): as much deleted, in one piece at a random place: a rectangle of random form, or frames
    - moved (N, K + 1): what was deleted for `attributed`, moved along time (and across bands) by a random way, around
      the edges: the same form elsewhere
    """

    shares: Numbers
    attributed: Numbers
    regions: Numbers
    moved: Numbers

    @property
    def area(self) -> float:
        """Under the curve of `attributed`, over the width of the shares: the mean cosine, the lower the better."""
        return float(mean_height(self.shares, self.attributed))

    @property
    def region_areas(self) -> Numbers:
        """(N,), under those of `regions`."""
        return mean_height(self.shares, self.regions)

    @property
    def moved_areas(self) -> Numbers:
        """(N,), under those of `moved`."""
        return mean_height(self.shares, self.moved)

    @property
    def beats_regions(self) -> float:
        """The share of draws of `regions` whose area is larger, 0 to 1; 0.5 is what an attribution at random gets."""
        return float(np.mean(self.region_areas > self.area))

    @property
    def beats_moved(self) -> float:
        """The same of `moved`."""
        return float(np.mean(self.moved_areas > self.area))


def mean_height(shares: Numbers, cosines: Numbers) -> Numbers:
    """Of curves (..., K + 1) over shares (K + 1,), by trapezia."""
    height: Numbers = np.trapezoid(cosines, shares, axis=-1) / (shares[-1] - shares[0])
    return height


def delete(
    likeness: Likeness,
    bands: Tensor,
    attribution: NDArray[np.floating[Any]],
    *,
    seed: int | Sequence[int],
    unit: str = "cells",
    shares: Sequence[float] = SHARES,
    draws: int = 8,
) -> Deletion:
    """Delete parts of bands (1, T, F): those of highest `attribution` (T, F), against random ones.

    `unit` is what is deleted: `cells`, or whole `frames` by the sum of their attributions.
    """
    if unit not in UNITS:
        raise ValueError(f"unit {unit!r} is none of {UNITS}")
    rng = np.random.default_rng(seed)
    masks = [np.zeros(attribution.shape, dtype=bool)]
    masks += [highest(attribution, share, unit=unit) for share in shares]
    for _ in range(draws):
        masks += [region(attribution.shape, share, unit=unit, rng=rng) for share in shares]
    for _ in range(draws):
        way = (rng.integers(attribution.shape[0]), rng.integers(attribution.shape[1]))
        masks += [np.roll(mask, way, axis=(0, 1)) for mask in masks[1 : 1 + len(shares)]]
    cosines = cosines_without(likeness, bands, masks)
    whole, attributed, others = cosines[:1], cosines[1 : 1 + len(shares)], cosines[1 + len(shares) :]
    regions, moved = np.pad(
        others.reshape(2, draws, len(shares)), ((0, 0), (0, 0), (1, 0)), constant_values=whole[0]
    )
    return Deletion(np.array([0.0, *shares]), np.concatenate([whole, attributed]), regions, moved)


def cosines_without(likeness: Likeness, bands: Tensor, masks: Sequence[Mask]) -> Numbers:
    """(len(masks),): the likeness of bands (1, T, F) with the cells of each mask at their band's mean."""
    together = max(1, TOGETHER // bands.shape[1])
    found = []
    with torch.inference_mode():
        for first in range(0, len(masks), together):
            some = torch.from_numpy(np.stack(masks[first : first + together])).to(bands.device)
            found.append(likeness(bands.masked_fill(some, 0.0)).cpu().numpy())
    return np.concatenate(found).astype(np.float64)


def highest(attribution: NDArray[np.floating[Any]], share: float, *, unit: str) -> Mask:
    """(T, F): the `share` of cells, or of frames, with the highest attribution (T, F); the earlier one of equals."""
    values = attribution.sum(axis=1) if unit == "frames" else attribution.ravel()
    chosen = np.zeros(len(values), dtype=bool)
    chosen[np.argsort(-values, kind="stable")[: _count(share, len(values))]] = True
    if unit == "frames":
        return np.repeat(chosen[:, None], attribution.shape[1], axis=1)
    return chosen.reshape(attribution.shape)


def region(shape: tuple[int, ...], share: float, *, unit: str, rng: np.random.Generator) -> Mask:
    """(T, F): as many cells, or frames, as `highest` chooses, in one piece: a run of frames, or a rectangle whose
    height is drawn first and whose last frame may be cut."""
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
    piece = np.zeros(width * height, dtype=bool)
    piece[:count] = True
    mask[first_frame : first_frame + width, first_band : first_band + height] = piece.reshape(width, height)
    return mask


def _count(share: float, whole: int) -> int:
    return min(whole, max(1, round(share * whole)))
