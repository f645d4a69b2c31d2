"""Fusion of several models that embedded the same utterances.

Every function returns embeddings whose cosine is the fused score. A fusion is therefore scored by the same functions as
a single model.

Axes: S fused models, N utterances, D dimensions (one D per model).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from makermark.foundation.arrays import FloatArray, RealArray, StrArray
from makermark.foundation.embeddings import l2_normalise

PROJECTIONS = ("none", "lda", "pca")


def concatenate(parts: Sequence[RealArray], weights: Sequence[float] | FloatArray | None = None) -> RealArray:
    """Return the L2-normalised embeddings side by side, scaled by the square roots of their weights: (N, sum of D).

    The cosine of two rows is then the weighted mean of the cosines of the parts. Concatenation is thus score fusion
    with these weights (equal by default). Raises ValueError for weights below 0 or all 0.
    """
    shares = np.ones(len(parts)) if weights is None else np.asarray(weights, dtype=np.float64)
    if len(shares) != len(parts) or (shares < 0).any() or not shares.any():
        raise ValueError(
            f"weights {shares} for {len(parts)} models; pass one weight per model, all at least 0 and one above 0"
        )
    scaled = [np.sqrt(share) * l2_normalise(part) for share, part in zip(shares, parts, strict=True)]
    return np.concatenate(scaled, axis=1)


def project(
    embeddings: RealArray, *, fitted_on: RealArray, labels: StrArray, projection: str, dim: int
) -> RealArray:
    """Return `embeddings` (N, D) in at most `dim` dimensions, by `lda` or `pca` fitted on the training set.

    `none` returns the embeddings unchanged. LDA uses the covariance within systems with Ledoit-Wolf shrinkage, so that
    it is stable for more dimensions than utterances. It has at most (systems - 1) dimensions. Raises ValueError for an
    unknown projection.
    """
    from sklearn.decomposition import PCA
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    if projection not in PROJECTIONS:
        raise ValueError(f"unknown projection {projection!r}; choose one of {list(PROJECTIONS)}")
    if projection == "none":
        return embeddings
    if projection == "pca":
        pca = PCA(min(dim, *fitted_on.shape), svd_solver="full").fit(fitted_on)
        return np.asarray(pca.transform(embeddings))
    components = min(dim, len(np.unique(labels)) - 1, fitted_on.shape[1])
    lda = LinearDiscriminantAnalysis(solver="eigen", shrinkage="auto", n_components=components)
    lda.fit(fitted_on, labels)
    # This solver does not centre its output; the cosine is taken around the mean of the training set.
    return np.asarray(lda.transform(embeddings) - lda.transform(fitted_on).mean(axis=0))


def fit_fusion_weights(
    parts: Sequence[RealArray], systems: StrArray, *, max_utterances: int, seed: int
) -> FloatArray:
    """Fit the weights (S,) of the models' cosines on dev; they are at least 0 and sum to 1.

    Logistic regression on the cosines (linear fusion of scores, Brummer & du Preez 2006) over every pair of at most
    `max_utterances` utterances, drawn at random if there are more. Both kinds of trial have the same total weight.
    Negative weights are excluded, because a model would then vote against its own scores.

    Raises ValueError without trials of both kinds.
    """
    from scipy.optimize import minimize
    from scipy.special import expit

    drawn = np.random.default_rng(seed).permutation(len(systems))[:max_utterances]
    first, second = np.triu_indices(len(drawn), k=1)
    normalised = (l2_normalise(part[drawn]) for part in parts)
    cosines = np.stack([(rows @ rows.T)[first, second] for rows in normalised], axis=1)  # (trials, S)
    is_target = systems[drawn][first] == systems[drawn][second]  # (trials,)
    targets = np.count_nonzero(is_target)
    if not 0 < targets < len(is_target):
        raise ValueError(
            "fusion weights need target and non-target trials; pass two or more systems of two or more utterances each"
        )
    share = np.where(is_target, 0.5 / targets, 0.5 / (len(is_target) - targets))
    sign = np.where(is_target, 1.0, -1.0)

    def cost_and_gradient(x: FloatArray) -> tuple[float, FloatArray]:
        margin = sign * (cosines @ x[:-1] + x[-1])
        slope = -share * sign * expit(-margin)
        return float(share @ np.logaddexp(0, -margin)), np.append(cosines.T @ slope, slope.sum())

    start = np.append(np.ones(len(parts)), 0.0)
    bounds = [(0, None)] * len(parts) + [(None, None)]
    optimum = minimize(cost_and_gradient, start, jac=True, method="L-BFGS-B", bounds=bounds)
    weights = np.asarray(optimum.x[:-1], dtype=np.float64)
    return weights / weights.sum() if weights.any() else np.full(len(parts), 1 / len(parts))
