"""Where a step's crops come from: cut on the host out of the memory-mapped cache, or on the device out of a copy there.

Both take the same crops: chance is drawn on the host in either case.

Legend of axes: N utterances, B batch, T frames, F bands.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from makermark.features.cache import FeatureCache

Rows = NDArray[np.int64]
FEATURES_ON = ("auto", "host", "device")


class Crops(Protocol):
    """What a training step needs: `draw` on the host, then `cut` with what it gave on the device."""

    def draw(self, batch: Rows, rng: np.random.Generator) -> tuple[Tensor, ...]: ...

    def cut(self, drawn: tuple[Tensor, ...]) -> Tensor: ...


class HostCrops:
    """Cuts the crops of `frames` frames on the host; the device gets them whole."""

    def __init__(self, cache: FeatureCache, rows: Rows, *, frames: int) -> None:
        self._cache, self._rows, self._frames = cache, rows, frames

    def draw(self, batch: Rows, rng: np.random.Generator) -> tuple[Tensor, ...]:
        """The crops (B, T, F) of the utterances at positions `batch` of the rows, in the cache's dtype."""
        return (torch.from_numpy(self._cache.crops(self._rows[batch], frames=self._frames, rng=rng)),)

    def cut(self, drawn: tuple[Tensor, ...]) -> Tensor:
        """Those crops."""
        return drawn[0]


class DeviceCrops:
    """Keeps all frames of the rows on the device, and cuts there; the device gets two numbers for each crop."""

    def __init__(self, cache: FeatureCache, rows: Rows, *, frames: int, device: torch.device) -> None:
        self._cache, self._rows = cache, rows
        lengths = cache.frames[rows].astype(np.int64)
        self._frames = torch.arange(frames, device=device)
        self._lengths = torch.from_numpy(lengths).to(device)  # (N,)
        self._first = torch.from_numpy(np.cumsum(lengths) - lengths).to(device)  # (N,)
        self._values = torch.empty(
            (int(lengths.sum()), cache.width), dtype=getattr(torch, cache.dtype.name), device=device
        )
        for row, first, length in zip(rows, np.cumsum(lengths) - lengths, lengths, strict=True):
            self._values[first : first + length] = torch.from_numpy(cache.whole(int(row)).copy())

    def draw(self, batch: Rows, rng: np.random.Generator) -> tuple[Tensor, ...]:
        """(B,) positions in the rows, and (B,) the frame at which each crop begins."""
        starts = self._cache.starts(self._rows[batch], frames=len(self._frames), rng=rng)
        return torch.from_numpy(batch), torch.from_numpy(starts)

    def cut(self, drawn: tuple[Tensor, ...]) -> Tensor:
        """The crops (B, T, F) at those places; past an utterance's end it begins again."""
        positions, starts = drawn
        within = (starts[:, None] + self._frames) % self._lengths[positions, None]  # (B, T)
        return self._values[self._first[positions, None] + within]


class AmongCopies:
    """Crops of rows (K N,): of N utterances, and then of each of their copies in the same order. For each utterance of
    a batch of positions below N one of the K is drawn, all alike."""

    def __init__(self, crops: Crops, *, utterances: int, variants: int) -> None:
        self._crops, self._utterances, self._variants = crops, utterances, variants

    def draw(self, batch: Rows, rng: np.random.Generator) -> tuple[Tensor, ...]:
        """What the crops themselves draw at those positions."""
        chosen = rng.integers(self._variants, size=len(batch))
        return self._crops.draw(batch + self._utterances * chosen, rng)

    def cut(self, drawn: tuple[Tensor, ...]) -> Tensor:
        """Those crops."""
        return self._crops.cut(drawn)


def crops_from(
    features_on: str, cache: FeatureCache, rows: Rows, *, frames: int, device: torch.device
) -> HostCrops | DeviceCrops:
    """Crops of one of FEATURES_ON; `auto` keeps the features on a CUDA device where they take a quarter of what is free
    there or less, and otherwise on the host."""
    if features_on == "auto":
        held = int(cache.frames[rows].sum(dtype=np.int64)) * cache.width * cache.dtype.itemsize
        fits = device.type == "cuda" and 4 * held <= torch.cuda.mem_get_info(device)[0]
        features_on = "device" if fits else "host"
    if features_on == "device":
        return DeviceCrops(cache, rows, frames=frames, device=device)
    return HostCrops(cache, rows, frames=frames)
