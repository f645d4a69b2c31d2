"""Where a clip lies among the gallery, on a plane. Legend of axes: N utterances, D dimensions, W windows, S systems."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from makermark.tracing import Gallery

MOST_POINTS = 3000  # of the gallery


@dataclass(frozen=True)
class Plane:
    """Places on the two principal components of the gallery in which each system counts alike.

    - points (N, 2), systems (N,): of the gallery, drawn at random where it is large
    - clip (2,), windows (W, 2), in the order of time
    - shown_percent: of the gallery's variance
    """

    points: NDArray[np.float32]
    systems: NDArray[np.str_]
    clip: NDArray[np.float32]
    windows: NDArray[np.float32]
    shown_percent: float


def place(
    gallery: Gallery, vector: NDArray[np.float32], windows: NDArray[np.float32], *, seed: int = 0
) -> Plane:
    """A clip's vector (D,) and those of its windows (W, D) on the plane of the gallery."""
    systems = gallery.clips["system"].to_numpy(dtype=str)
    _, which, counts = np.unique(systems, return_inverse=True, return_counts=True)
    weights = 1 / (counts[which] * len(counts))  # (N,), together 1
    centre = weights @ gallery.vectors
    spread = (gallery.vectors - centre).astype(np.float64)
    values, directions = np.linalg.eigh((spread * weights[:, None]).T @ spread)  # rising
    axes = directions[:, ::-1][:, :2]  # (D, 2)
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), range(axes.shape[1])])
    kept = np.arange(len(systems))
    if len(kept) > MOST_POINTS:
        kept = np.sort(np.random.default_rng(seed).choice(kept, size=MOST_POINTS, replace=False))
    return Plane(
        points=(spread[kept] @ axes).astype(np.float32),
        systems=systems[kept],
        clip=((vector - centre) @ axes).astype(np.float32),
        windows=((windows.reshape(-1, len(centre)) - centre) @ axes).astype(np.float32),
        shown_percent=float(100 * values[::-1][:2].sum() / max(values.sum(), 1e-12)),
    )
