"""Random crops for training: cut on the host from the mapped cache, or on the device from a copy of the features.

Both yield the same crops: random numbers are drawn on the host in either case.

Legend of axes: N utterances, K variants of each, B batch, T frames, F bands.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from makermark.features.cache import FeatureCache
from makermark.foundation.arrays import IntArray


class Crops(Protocol):
    """A source of crops: `draw` runs on the host, `cut` on the device with the tensors that `draw` returned."""

    def draw(self, batch: IntArray, rng: np.random.Generator) -> tuple[Tensor, ...]: ...

    def cut(self, drawn: tuple[Tensor, ...]) -> Tensor: ...


class HostCrops:
    """Crops of `frames` frames, cut on the host and copied to the device."""

    def __init__(self, cache: FeatureCache, rows: IntArray, *, frames: int) -> None:
        self._cache, self._rows, self._frames = cache, rows, frames

    def draw(self, batch: IntArray, rng: np.random.Generator) -> tuple[Tensor, ...]:
        """Return the crops (B, T, F) of the utterances at positions `batch` of the rows, in the cache's dtype."""
        return (torch.from_numpy(self._cache.read_crops(self._rows[batch], frames=self._frames, rng=rng)),)

    def cut(self, drawn: tuple[Tensor, ...]) -> Tensor:
        """Return these crops."""
        return drawn[0]


class DeviceCrops:
    """Crops cut on the device, which holds all frames of the rows; the host sends two numbers per crop."""

    def __init__(self, cache: FeatureCache, rows: IntArray, *, frames: int, device: torch.device) -> None:
        self._cache, self._rows = cache, rows
        lengths = cache.frames[rows].astype(np.int64)
        starts = np.cumsum(lengths) - lengths
        self._frames = torch.arange(frames, device=device)
        self._lengths = torch.from_numpy(lengths).to(device)  # (N,)
        self._first = torch.from_numpy(starts).to(device)  # (N,)
        self._values = torch.empty(
            (int(lengths.sum()), cache.width), dtype=getattr(torch, cache.dtype.name), device=device
        )
        for row, start, length in zip(rows, starts, lengths, strict=True):
            self._values[start : start + length] = torch.from_numpy(cache.read_utterance(int(row)).copy())

    def draw(self, batch: IntArray, rng: np.random.Generator) -> tuple[Tensor, ...]:
        """Return `batch` (B,) and the first frame (B,) of each crop."""
        starts = self._cache.draw_crop_starts(self._rows[batch], frames=len(self._frames), rng=rng)
        return torch.from_numpy(batch), torch.from_numpy(starts)

    def cut(self, drawn: tuple[Tensor, ...]) -> Tensor:
        """Return the crops (B, T, F); an utterance shorter than a crop is repeated."""
        positions, starts = drawn
        frames = (starts[:, None] + self._frames) % self._lengths[positions, None]  # (B, T)
        return self._values[self._first[positions, None] + frames]


class VariantCrops:
    """Crops of a random variant of each utterance.

    The rows (K N,) of `crops` are N utterances, then each augmented copy of all of them in the same order. For each
    utterance of a batch, itself is drawn with probability `clean_fraction`, otherwise one of its K - 1 copies.
    """

    def __init__(self, crops: Crops, *, utterances: int, variants: int, clean_fraction: float) -> None:
        self._crops, self._utterances, self._variants = crops, utterances, variants
        self._clean_fraction = clean_fraction

    def draw(self, batch: IntArray, rng: np.random.Generator) -> tuple[Tensor, ...]:
        """Draw variants of the utterances at positions `batch`, below N, and their crops."""
        copies = rng.integers(1, self._variants, size=len(batch))
        variants = np.where(rng.random(len(batch)) < self._clean_fraction, 0, copies)
        return self._crops.draw(batch + self._utterances * variants, rng)

    def cut(self, drawn: tuple[Tensor, ...]) -> Tensor:
        """Return these crops."""
        return self._crops.cut(drawn)


def build_crops(
    features_on: str, cache: FeatureCache, rows: IntArray, *, frames: int, device: torch.device
) -> HostCrops | DeviceCrops:
    """Build the crops for `features_on`: `host`, `device` or `auto`.

    `auto` copies the features to a CUDA device if they take a quarter of its free memory or less.
    """
    if features_on == "auto":
        size_bytes = int(cache.frames[rows].sum(dtype=np.int64)) * cache.width * cache.dtype.itemsize
        fits = device.type == "cuda" and 4 * size_bytes <= torch.cuda.mem_get_info(device)[0]
        features_on = "device" if fits else "host"
    if features_on == "device":
        return DeviceCrops(cache, rows, frames=frames, device=device)
    return HostCrops(cache, rows, frames=frames)
