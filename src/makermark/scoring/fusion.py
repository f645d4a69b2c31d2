"""Fusion of several systems that embedded the same utterances.

Everything here ends in vectors whose cosine is the fused score, so that a fusion is scored by the same exact
functions as a single system. Legend of axes: S systems fused, N utterances, D dimensions (of each system its own).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.floating[Any]]
Weights = NDArray[np.float64]

PROJECTIONS = ("none", "lda", "pca")


def unit(vectors: Vectors) -> Vectors:
    """Rows of length 1; a row of zeros stays."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(length > 0, length, 1)


def concatenate(parts: Sequence[Vectors], weights: Sequence[float] | Weights | None = None) -> Vectors:
    """(N, sum of D): the embeddings at length 1 side by side, each times the root of its weight.

    The cosine of two rows is then the weighted mean of the parts' cosines: concatenation is score fusion with
    these weights (all equal if none are given), and the weights are at least 0.
    """
    shares = np.ones(len(parts)) if weights is None else np.asarray(weights, dtype=np.float64)
    if len(shares) != len(parts) or (shares < 0).any() or not shares.any():
        raise ValueError(f"weights {shares} for {len(parts)} systems; they are at least 0, and one is above")
    return np.concatenate([np.sqrt(w) * unit(part) for w, part in zip(shares, parts, strict=True)], axis=1)


def project(
    vectors: Vectors, *, fitted_on: Vectors, labels: NDArray[np.str_], projection: str, dim: int
) -> Vectors:
    """`vectors` (N, D) in fewer dimensions: `lda` or `pca` fitted on the training set, `none` leaves them.

    LDA is solved with Ledoit-Wolf shrinkage of the covariance within systems, which stays sound where
    dimensions outnumber what the utterances can tell; it has at most systems - 1 dimensions.
    """
    from sklearn.decomposition import PCA
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    if projection not in PROJECTIONS:
        raise ValueError(f"unknown projection {projection!r}; it is one of {list(PROJECTIONS)}")
    if projection == "none":
        return vectors
    if projection == "pca":
        pca = PCA(min(dim, *fitted_on.shape), svd_solver="full").fit(fitted_on)
        return np.asarray(pca.transform(vectors))
    most = min(dim, len(np.unique(labels)) - 1, fitted_on.shape[1])
    lda = LinearDiscriminantAnalysis(solver="eigen", shrinkage="auto", n_components=most)
    lda.fit(fitted_on, labels)  # this solver does not centre; a cosine is taken around the mean of train
    return np.asarray(lda.transform(vectors) - lda.transform(fitted_on).mean(axis=0))


def learn_weights(
    parts: Sequence[Vectors], systems: NDArray[np.str_], *, max_utterances: int, seed: int
) -> Weights:
    """(S,): the weights, at least 0 and summing to 1, of the parts' cosines that best tell targets on dev.

    Logistic regression (Brummer & du Preez 2006: linear fusion of scores) over every pair of at most
    `max_utterances` utterances, drawn where there are more, both kinds of trial weighing the same. Weights
    below 0 would let a system vote against itself, and are not allowed. Raises ValueError without both kinds.
    """
    from scipy.optimize import minimize
    from scipy.special import expit

    drawn = np.random.default_rng(seed).permutation(len(systems))[:max_utterances]
    first, second = np.triu_indices(len(drawn), k=1)
    cosines = np.stack([(d @ d.T)[first, second] for d in (unit(part[drawn]) for part in parts)], axis=1)
    is_target = systems[drawn][first] == systems[drawn][second]  # (trials,)
    targets = np.count_nonzero(is_target)
    if not 0 < targets < len(is_target):
        raise ValueError("a fusion is learnt from two or more systems of two or more utterances each")
    share = np.where(is_target, 0.5 / targets, 0.5 / (len(is_target) - targets))
    sign = np.where(is_target, 1.0, -1.0)

    def cost(x: Weights) -> tuple[float, Weights]:
        margin = sign * (cosines @ x[:-1] + x[-1])
        slope = -share * sign * expit(-margin)
        return float(share @ np.logaddexp(0, -margin)), np.append(cosines.T @ slope, slope.sum())

    start = np.append(np.ones(len(parts)), 0.0)
    found = minimize(
        cost, start, jac=True, method="L-BFGS-B", bounds=[(0, None)] * len(parts) + [(None, None)]
    )
    weights = np.asarray(found.x[:-1], dtype=np.float64)
    return weights / weights.sum() if weights.any() else np.full(len(parts), 1 / len(parts))
