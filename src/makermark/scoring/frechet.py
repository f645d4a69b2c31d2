"""Frechet distance between sets of embeddings, each modelled as one Gaussian.

The distance has the square of the embeddings' unit. It therefore compares models only on L2-normalised embeddings.

The estimate is biased upwards for small sets, and more so in many dimensions. For two samples of one distribution with
n embeddings each, the squared distance of the means alone has the expectation 2 Tr(S) / n, and the covariance term adds
to it. Every set therefore has a floor: the distance between random halves of the set. A distance of the size of the
floor shows no difference. A half has half the embeddings, so that the bias between two whole sets is about half the
floor. Distances between sets of different sizes have different biases.

Axes: N embeddings, D dimensions, K sets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.covariance import ledoit_wolf_shrinkage

from makermark.foundation.arrays import FloatArray, StrArray
from makermark.foundation.embeddings import EmbeddingTable, l2_normalise
from makermark.foundation.errors import ScoringError

LEDOIT_WOLF = "ledoit-wolf"


@dataclass(frozen=True)
class FrechetTable:
    """Frechet distances (K, K) between named sets: symmetric, with zeros on the diagonal.

    `floors` holds the distance between random halves of each set, averaged over the halvings. It is None for a set of
    fewer than 4 embeddings.
    """

    names: list[str]
    counts: list[int]
    distances: FloatArray
    floors: list[float | None]


@dataclass(frozen=True)
class CorpusFrechetDistances:
    """Frechet distances of one corpus.

    `sets` compares train with the seen and the unseen systems of dev and of test. `systems` compares the systems of one
    split.
    """

    sets: FrechetTable
    systems: FrechetTable


class Gaussian(NamedTuple):
    """Mean (D,), symmetric square root (D, D) of the covariance, and trace of the covariance."""

    mean: FloatArray
    root: FloatArray
    trace: float


def corpus_frechet_distances(
    embeddings: EmbeddingTable, *, split: str, halvings: int, seed: int
) -> CorpusFrechetDistances:
    """Compute the distances between the sets of a corpus and between the systems of `split`.

    Sets and systems with fewer than 2 embeddings are left out. Embeddings are L2-normalised. Covariances are shrunk
    (Ledoit & Wolf 2004), because many sets have fewer embeddings than dimensions.
    """
    sets = {"train": embeddings.select_split("train")}
    for part in ("dev", "test"):
        subset = embeddings.select_split(part)
        seen = subset.labels["system_seen"].to_numpy(dtype=bool)
        sets |= {
            f"{part}_seen": subset.take(seen.nonzero()[0]),
            f"{part}_unseen": subset.take((~seen).nonzero()[0]),
        }
    chosen = embeddings.select_split(split)
    sizes = chosen.labels["system"].map(chosen.labels["system"].value_counts()).to_numpy()
    chosen = chosen.take(np.flatnonzero(sizes > 1))
    normalised = {
        name: l2_normalise(part.embeddings) for name, part in sets.items() if len(part.embeddings) > 1
    }
    return CorpusFrechetDistances(
        sets=frechet_distances_between_sets(normalised, shrinkage=LEDOIT_WOLF, halvings=halvings, seed=seed),
        systems=frechet_distances_between_labels(
            l2_normalise(chosen.embeddings),
            chosen.systems,
            shrinkage=LEDOIT_WOLF,
            halvings=halvings,
            seed=seed,
        ),
    )


def frechet_table_to_json(table: FrechetTable) -> dict[str, Any]:
    """Return the table as JSON values: the size, the floor and the distances of every set."""
    return {
        name: {
            "utterances": count,
            "floor": floor,
            "to": {other: float(d) for other, d in zip(table.names, row, strict=True) if other != name},
        }
        for name, count, floor, row in zip(
            table.names, table.counts, table.floors, table.distances, strict=True
        )
    }


def frechet_distance(
    a: NDArray[np.floating[Any]], b: NDArray[np.floating[Any]], *, shrinkage: float | str
) -> float:
    """Return the Frechet distance of two sets (N1, D) and (N2, D) (Dowson & Landau 1982).

    ||m1 - m2||^2 + Tr(S1 + S2 - 2 (S1 S2)^(1/2)), where S is the sample covariance (divisor N - 1) shrunk towards its
    mean variance times the identity: (1 - s) S + s (Tr(S) / D) I. `shrinkage` is s in [0, 1], or `ledoit-wolf` for the
    s that Ledoit & Wolf (2004) estimate for each set. Use `ledoit-wolf` unless a set has many times more embeddings
    than dimensions.

    Tr (S1 S2)^(1/2) is computed as the sum of the singular values of S1^(1/2) S2^(1/2) with symmetric roots. This is
    real, symmetric in the two sets, and stable for singular covariances, where a matrix root of S1 S2 is not.

    Raises ScoringError for embeddings that are not finite and for sets of fewer than 2 embeddings.
    """
    return _distance(_fit_gaussian("a", a, shrinkage), _fit_gaussian("b", b, shrinkage))


def frechet_distances_between_labels(
    embeddings: NDArray[np.floating[Any]],
    labels: StrArray,
    *,
    shrinkage: float | str,
    halvings: int,
    seed: int,
) -> FrechetTable:
    """Compute the distances between the labels (N,), such as systems, of embeddings (N, D).

    Raises ValueError if the lengths differ, and ScoringError as `frechet_distance` does.
    """
    if len(embeddings) != len(labels):
        raise ValueError(
            f"{len(embeddings)} embeddings, but {len(labels)} labels; pass one label per embedding"
        )
    sets = {str(name): embeddings[labels == name] for name in np.unique(labels)}
    return frechet_distances_between_sets(sets, shrinkage=shrinkage, halvings=halvings, seed=seed)


def frechet_distances_between_sets(
    sets: Mapping[str, NDArray[np.floating[Any]]], *, shrinkage: float | str, halvings: int, seed: int
) -> FrechetTable:
    """Compute the distances between named sets (N_k, D); sets may share embeddings.

    Raises ScoringError as `frechet_distance` does.
    """
    names = list(sets)
    gaussians = [_fit_gaussian(name, sets[name], shrinkage) for name in names]
    distances = np.zeros((len(names), len(names)))
    for row, first in enumerate(gaussians):
        for column in range(row):
            distances[row, column] = distances[column, row] = _distance(first, gaussians[column])
    floors = [
        halves_distance(sets[name], shrinkage=shrinkage, halvings=halvings, seed=[seed, number])
        for number, name in enumerate(names)
    ]
    return FrechetTable(names, [len(sets[name]) for name in names], distances, floors)


def halves_distance(
    embeddings: NDArray[np.floating[Any]], *, shrinkage: float | str, halvings: int, seed: int | list[int]
) -> float | None:
    """Return the mean distance between random halves of one set, or None for fewer than 4 embeddings.

    Raises ValueError if `halvings` is below 1.
    """
    if halvings < 1:
        raise ValueError(f"halvings is {halvings}; it must be 1 or more")
    half = len(embeddings) // 2
    if half < 2:
        return None
    rng = np.random.default_rng(seed)
    distances = []
    for _ in range(halvings):
        order = rng.permutation(len(embeddings))
        first, second = embeddings[order[:half]], embeddings[order[half : 2 * half]]
        distances.append(frechet_distance(first, second, shrinkage=shrinkage))
    return float(np.mean(distances))


def _fit_gaussian(name: str, embeddings: NDArray[np.floating[Any]], shrinkage: float | str) -> Gaussian:
    if embeddings.ndim != 2:
        raise ValueError(f"embeddings of set {name} have shape {embeddings.shape}; the shape must be (N, D)")
    if len(embeddings) < 2:
        raise ScoringError(
            f"set {name} has {len(embeddings)} embeddings; a covariance needs 2 or more, leave the set out"
        )
    exact = embeddings.astype(np.float64)
    if not np.isfinite(exact).all():
        raise ScoringError(f"set {name} has embeddings that are not finite; run the embed stage again")
    mean = exact.mean(axis=0)
    centred = exact - mean
    share = _shrinkage_share(centred, shrinkage)
    covariance = (1 - share) * (centred.T @ centred) / (len(exact) - 1)
    variance = float(np.square(centred).sum()) / (len(exact) - 1)
    covariance[np.diag_indices(len(mean))] += share * variance / len(mean)
    values, directions = np.linalg.eigh(covariance)
    root = (directions * np.sqrt(values.clip(min=0))) @ directions.T
    return Gaussian(mean, root, variance)


def _shrinkage_share(centred: FloatArray, shrinkage: float | str) -> float:
    if shrinkage == LEDOIT_WOLF:
        return float(ledoit_wolf_shrinkage(centred, assume_centered=True))
    if isinstance(shrinkage, str) or not 0 <= shrinkage <= 1:
        raise ValueError(f"shrinkage is {shrinkage!r}; use a number from 0 to 1, or {LEDOIT_WOLF!r}")
    return float(shrinkage)


def _distance(first: Gaussian, second: Gaussian) -> float:
    if len(first.mean) != len(second.mean):
        raise ValueError(
            f"embeddings have {len(first.mean)} and {len(second.mean)} dimensions; compare embeddings of one model"
        )
    between = float(np.square(first.mean - second.mean).sum())
    common = float(np.linalg.svd(first.root @ second.root, compute_uv=False).sum())
    return max(0.0, between + first.trace + second.trace - 2 * common)
