"""Detectors of systems that are not among those of the training set.

**Polarity, here and everywhere: a higher score means "known"** (made by a training system). Each detector is a
function of the training set and of the utterances to judge; DETECTORS lists them.

Legend of axes: N training utterances, M judged ones, D dimensions, C training systems.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from makermark.scoring.fusion import unit

Numbers = NDArray[np.floating[Any]]

NEIGHBOURS = 10


@dataclass(frozen=True)
class Speech:
    """Utterances as a model sees them: vectors (N, D) and logits (N, C) over the training systems."""

    vectors: Numbers
    logits: Numbers
    systems: NDArray[np.str_]  # (N,) the true ones; a detector may look at those of the training set only


def msp(train: Speech, judged: Speech) -> Numbers:
    """The largest softmax probability (Hendrycks & Gimpel 2017)."""
    from scipy.special import softmax

    return np.asarray(softmax(judged.logits, axis=1).max(axis=1))


def max_logit(train: Speech, judged: Speech) -> Numbers:
    """The largest logit (Hendrycks et al. 2022)."""
    return np.asarray(judged.logits.max(axis=1))


def energy(train: Speech, judged: Speech) -> Numbers:
    """log sum exp of the logits, the negative free energy at temperature 1 (Liu et al. 2020)."""
    from scipy.special import logsumexp

    return np.asarray(logsumexp(judged.logits, axis=1))


def mahalanobis(train: Speech, judged: Speech) -> Numbers:
    """Minus the least squared Mahalanobis distance to the mean of a training system (Lee et al. 2018).

    One covariance, of the deviations within systems, shrunk after Ledoit and Wolf (2004).
    """
    from sklearn.covariance import LedoitWolf

    names, column = np.unique(train.systems, return_inverse=True)
    means = np.stack([train.vectors[column == number].mean(axis=0) for number in range(len(names))])
    shared = LedoitWolf(assume_centered=True).fit(train.vectors - means[column])
    whiten = np.linalg.cholesky(shared.precision_)  # precision = W W^T
    places, centres = judged.vectors @ whiten, means @ whiten
    squared = (places**2).sum(axis=1)[:, None] + (centres**2).sum(axis=1) - 2 * places @ centres.T
    return np.asarray(-squared.min(axis=1))


def knn(train: Speech, judged: Speech) -> Numbers:
    """Minus the distance to the NEIGHBOURS-th nearest training utterance, all at length 1 (Sun et al. 2022)."""
    from sklearn.neighbors import NearestNeighbors

    count = min(NEIGHBOURS, len(train.vectors))
    search = NearestNeighbors(n_neighbors=count, algorithm="brute").fit(unit(train.vectors))
    distances, _ = search.kneighbors(unit(judged.vectors))
    return np.asarray(-distances[:, -1])


def nsd(train: Speech, judged: Speech) -> Numbers:
    """Novel similarity detection (Xie et al. 2024, Generalized source tracing): energy times guided similarity.

    The energy of the judged utterance times the mean over the training set of (cosine times the training
    utterance's energy). Where the training vectors point everywhere, their mean says little.
    Published evaluations have read it upside down; here as everywhere higher is known.
    """
    guide = (unit(train.vectors) * energy(train, train)[:, None]).mean(axis=0)  # (D,)
    return np.asarray(energy(train, judged) * (unit(judged.vectors) @ guide))


Detector = Callable[[Speech, Speech], Numbers]

DETECTORS: dict[str, Detector] = {
    "msp": msp,
    "max_logit": max_logit,
    "energy": energy,
    "mahalanobis": mahalanobis,
    "knn": knn,
    "nsd": nsd,
}
OF_LOGITS = ("msp", "max_logit", "energy")  # those that do not look at the training set
