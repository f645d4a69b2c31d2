"""Detectors of systems that are not in the training set.

**Polarity: a higher score means "known"** (made by a system of the training set). A detector is a function of the
training set and of the evaluated utterances. DETECTORS lists all detectors.

Axes: N training utterances, M evaluated utterances, D dimensions, C training systems.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from makermark.foundation.arrays import RealArray, StrArray
from makermark.foundation.embeddings import l2_normalise

KNN_NEIGHBOURS = 10


@dataclass(frozen=True)
class DetectorInput:
    """Utterances as a model represents them: embeddings (N, D) and logits (N, C) over the training systems."""

    embeddings: RealArray
    logits: RealArray
    systems: StrArray  # (N,) true systems; a detector may use those of the training set only


def msp(train: DetectorInput, evaluated: DetectorInput) -> RealArray:
    """Return the maximum softmax probability (Hendrycks & Gimpel 2017)."""
    from scipy.special import softmax

    return np.asarray(softmax(evaluated.logits, axis=1).max(axis=1))


def max_logit(train: DetectorInput, evaluated: DetectorInput) -> RealArray:
    """Return the maximum logit (Hendrycks et al. 2022)."""
    return np.asarray(evaluated.logits.max(axis=1))


def energy(train: DetectorInput, evaluated: DetectorInput) -> RealArray:
    """Return the negative free energy at temperature 1, log sum_c exp(logit_c) (Liu et al. 2020, eq. 4)."""
    from scipy.special import logsumexp

    return np.asarray(logsumexp(evaluated.logits, axis=1))


def mahalanobis(train: DetectorInput, evaluated: DetectorInput) -> RealArray:
    """Return max_c -(x - m_c)^T S^-1 (x - m_c) over the training systems c (Lee et al. 2018, eq. 2).

    m_c is the mean of system c. S is one covariance for all systems, that of the deviations from the mean of the own
    system, shrunk after Ledoit & Wolf (2004).
    """
    from sklearn.covariance import LedoitWolf

    names, column = np.unique(train.systems, return_inverse=True)
    means = np.stack([train.embeddings[column == number].mean(axis=0) for number in range(len(names))])
    covariance = LedoitWolf(assume_centered=True).fit(train.embeddings - means[column])
    whitening = np.linalg.cholesky(covariance.precision_)  # precision = W W^T
    points, centres = evaluated.embeddings @ whitening, means @ whitening
    squared = (points**2).sum(axis=1)[:, None] + (centres**2).sum(axis=1) - 2 * points @ centres.T
    return np.asarray(-squared.min(axis=1))


def knn(train: DetectorInput, evaluated: DetectorInput) -> RealArray:
    """Return minus the distance to the KNN_NEIGHBOURS-th nearest L2-normalised training embedding (Sun et al. 2022)."""
    from sklearn.neighbors import NearestNeighbors

    count = min(KNN_NEIGHBOURS, len(train.embeddings))
    search = NearestNeighbors(n_neighbors=count, algorithm="brute").fit(l2_normalise(train.embeddings))
    distances, _ = search.kneighbors(l2_normalise(evaluated.embeddings))
    return np.asarray(-distances[:, -1])


def nsd(train: DetectorInput, evaluated: DetectorInput) -> RealArray:
    """Return the score of novel similarity detection (Xie et al. 2024, "Generalized source tracing").

    The score is the energy of the evaluated utterance times the mean, over the training set, of (cosine to the training
    utterance times the energy of the training utterance). The mean carries little information if the training
    embeddings point in all directions. Some published evaluations invert the polarity; here higher means known.
    """
    guide = (l2_normalise(train.embeddings) * energy(train, train)[:, None]).mean(axis=0)  # (D,)
    return np.asarray(energy(train, evaluated) * (l2_normalise(evaluated.embeddings) @ guide))


Detector = Callable[[DetectorInput, DetectorInput], RealArray]

DETECTORS: dict[str, Detector] = {
    "msp": msp,
    "max_logit": max_logit,
    "energy": energy,
    "mahalanobis": mahalanobis,
    "knn": knn,
    "nsd": nsd,
}
LOGIT_DETECTORS = ("msp", "max_logit", "energy")  # those that do not use the training set
