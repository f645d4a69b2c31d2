"""Frechet distance between sets of vectors: how far apart the Gaussians of their means and covariances lie.

The distance has the square of the vectors' unit, so that it compares models only on vectors of length 1. It is
biased upwards for small sets, the more so the more dimensions: of two samples of one distribution, n vectors
each, the means alone lie 2 Tr(S) / n apart, and the covariances add to that. So every set's distance
between its own random halves stands beside (`floors`): a distance of that order tells nothing. Halves have half the
vectors, and for sets as large as the whole the bias is about half the floor. Distances between sets of different
sizes have different biases. Legend of axes: N vectors, D dimensions, K sets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.covariance import ledoit_wolf_shrinkage

from makermark.errors import ScoringError

Vectors = NDArray[np.floating[Any]]
Doubles = NDArray[np.float64]

LEDOIT_WOLF = "ledoit-wolf"


@dataclass(frozen=True)
class FrechetTable:
    """Distances (K, K) between named sets, symmetric with zeros on the diagonal, and what they are to be held against.

    `floors`: each set's distance between random halves of itself, mean over the halvings; None below 4 vectors.
    """

    names: list[str]
    counts: list[int]
    distances: Doubles
    floors: list[float | None]


class Gaussian(NamedTuple):
    """Mean (D,), symmetric root (D, D) of the covariance, and the covariance's trace."""

    mean: Doubles
    root: Doubles
    trace: float


def frechet_distance(a: Vectors, b: Vectors, *, shrinkage: float | str) -> float:
    """||m1 - m2||^2 + Tr(S1 + S2 - 2 (S1 S2)^1/2) of two sets (N1, D) and (N2, D) (Dowson & Landau 1982).

    S is the sample covariance (divisor N - 1), drawn towards its mean variance times the identity by the share
    `shrinkage`: 0 leaves it, 1 keeps the mean variance only, `ledoit-wolf` takes the share that Ledoit & Wolf (2004)
    estimate of each set. Where a set has not many times more vectors than dimensions, take the last.

    Tr (S1 S2)^1/2 is the sum of the singular values of S1^1/2 S2^1/2, with symmetric roots: real, symmetric in
    the sets, and exact to rounding for singular covariances too, where a root of the product S1 S2 fails.
    Raises ScoringError for vectors that are not finite and for sets of fewer than 2.
    """
    return _distance(_gaussian("a", a, shrinkage), _gaussian("b", b, shrinkage))


def frechet_matrix(
    vectors: Vectors, labels: NDArray[np.str_], *, shrinkage: float | str, halvings: int, seed: int
) -> FrechetTable:
    """Every label's vectors against every other's: `vectors` (N, D), `labels` (N,), such as systems."""
    if len(vectors) != len(labels):
        raise ValueError(f"{len(vectors)} vectors, but {len(labels)} labels")
    sets = {str(name): vectors[labels == name] for name in np.unique(labels)}
    return frechet_between(sets, shrinkage=shrinkage, halvings=halvings, seed=seed)


def frechet_between(
    sets: Mapping[str, Vectors], *, shrinkage: float | str, halvings: int, seed: int
) -> FrechetTable:
    """Every named set (N_k, D) against every other; sets may share vectors. Raises ScoringError as above."""
    names = list(sets)
    known = [_gaussian(name, sets[name], shrinkage) for name in names]
    distances = np.zeros((len(names), len(names)))
    for row, first in enumerate(known):
        for column in range(row):
            distances[row, column] = distances[column, row] = _distance(first, known[column])
    floors = [
        halves_distance(sets[name], shrinkage=shrinkage, halvings=halvings, seed=[seed, number])
        for number, name in enumerate(names)
    ]
    return FrechetTable(names, [len(sets[name]) for name in names], distances, floors)


def halves_distance(
    vectors: Vectors, *, shrinkage: float | str, halvings: int, seed: int | list[int]
) -> float | None:
    """The mean distance between random halves of one set, over `halvings`; None for fewer than 4 vectors."""
    if halvings < 1:
        raise ValueError(f"halvings is {halvings}; it is at least 1")
    half = len(vectors) // 2
    if half < 2:
        return None
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(halvings):
        order = rng.permutation(len(vectors))
        one, other = vectors[order[:half]], vectors[order[half : 2 * half]]
        found.append(frechet_distance(one, other, shrinkage=shrinkage))
    return float(np.mean(found))


def _gaussian(name: str, vectors: Vectors, shrinkage: float | str) -> Gaussian:
    if vectors.ndim != 2:
        raise ValueError(f"vectors of shape {vectors.shape}; they are (N, D)")
    if len(vectors) < 2:
        raise ScoringError(f"set {name} has {len(vectors)} vectors; a covariance needs 2 or more")
    exact = vectors.astype(np.float64)
    if not np.isfinite(exact).all():
        raise ScoringError(f"set {name} has vectors that are not finite; embed again")
    mean = exact.mean(axis=0)
    centred = exact - mean
    share = _share(centred, shrinkage)
    covariance = (1 - share) * (centred.T @ centred) / (len(exact) - 1)
    variance = float(np.square(centred).sum()) / (len(exact) - 1)
    covariance[np.diag_indices(len(mean))] += share * variance / len(mean)
    values, directions = np.linalg.eigh(covariance)
    root = (directions * np.sqrt(values.clip(min=0))) @ directions.T
    return Gaussian(mean, root, variance)


def _share(centred: Doubles, shrinkage: float | str) -> float:
    if shrinkage == LEDOIT_WOLF:
        return float(ledoit_wolf_shrinkage(centred, assume_centered=True))
    if isinstance(shrinkage, str) or not 0 <= shrinkage <= 1:
        raise ValueError(f"shrinkage is {shrinkage!r}; it is from 0 to 1, or {LEDOIT_WOLF}")
    return float(shrinkage)


def _distance(first: Gaussian, second: Gaussian) -> float:
    if len(first.mean) != len(second.mean):
        raise ValueError(f"vectors of {len(first.mean)} and of {len(second.mean)} dimensions")
    between = float(np.square(first.mean - second.mean).sum())
    common = float(np.linalg.svd(first.root @ second.root, compute_uv=False).sum())
    return max(0.0, between + first.trace + second.trace - 2 * common)
