"""A map of the vectors on a plane: neighbours stay neighbours."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray

from makermark.errors import ScoringError

FEWEST_FOR_SPECTRAL = 10  # with fewer points UMAP's spectral start has no solution


def umap_map(
    vectors: NDArray[np.float32], *, seed: int, neighbours: int, min_dist: float
) -> NDArray[np.float32]:
    """Places (N, 2) of vectors (N, D) by UMAP (McInnes et al. 2018) on their cosines.

    The same vectors and seed give the same places on the same machine. `neighbours` is cut to N - 1.
    Distances between far groups and the axes mean nothing. Raises ScoringError for vectors without a
    direction.
    """
    lengths = np.linalg.norm(vectors, axis=1)
    broken = np.flatnonzero(~np.isfinite(lengths) | (lengths == 0))
    if len(broken):
        raise ScoringError(
            f"vector {broken[0]} is zero or not finite, as are {len(broken) - 1} others, and has no place on a "
            "map; embed again with a model that did not diverge"
        )
    if len(vectors) < 3:
        return np.stack([np.arange(len(vectors)), np.zeros(len(vectors))], axis=1).astype(np.float32)
    import umap  # costs seconds

    mapping = umap.UMAP(
        n_neighbors=min(neighbours, len(vectors) - 1),
        min_dist=min_dist,
        metric="cosine",
        random_state=seed,
        n_jobs=1,  # what a seed implies; said here, UMAP does not warn of it
        init="random" if len(vectors) < FEWEST_FOR_SPECTRAL else "spectral",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        places: NDArray[np.float32] = mapping.fit_transform(vectors).astype(np.float32)
    return places
