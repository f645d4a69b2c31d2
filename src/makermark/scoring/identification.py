"""Closed-set identification: which of the training systems made an utterance, if it is one of them.

Legend of axes: N utterances, D dimensions, C training systems.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from makermark.scoring.fusion import unit

Numbers = NDArray[np.floating[Any]]
Names = NDArray[np.str_]

COSINE_SCALE = 10.0  # of cosines to centroids where a softmax or an energy is taken of them


@dataclass(frozen=True)
class Identification:
    """Over the utterances of known systems: accuracy, its mean over systems, and the mean F1 over systems."""

    accuracy_percent: float
    balanced_accuracy_percent: float
    macro_f1_percent: float
    utterances: int
    systems: int


def centroids(vectors: Numbers, systems: Names) -> tuple[Names, Numbers]:
    """Names (C,) and directions (C, D), of length 1: of each system, the mean of its vectors at length 1."""
    names, column = np.unique(systems, return_inverse=True)
    sums = np.zeros((len(names), vectors.shape[1]))
    np.add.at(sums, column, unit(vectors))
    return names, unit(sums)


def centroid_logits(vectors: Numbers, directions: Numbers) -> Numbers:
    """(N, C): COSINE_SCALE times the cosine to each centroid, for models without a classifier of their own."""
    return np.asarray(COSINE_SCALE * (unit(vectors) @ directions.T))


def identify(logits: Numbers, systems: Sequence[str] | Names, truth: Names) -> Identification | None:
    """How often the largest of the logits (N, C) over `systems` (C,) names the `truth` (N,).

    Utterances of other systems are left out; None if there are no others.
    """
    from sklearn.metrics import f1_score, recall_score

    known = np.isin(truth, systems)
    if not known.any():
        return None
    said = np.asarray(systems, dtype=str)[logits[known].argmax(axis=1)]
    right = truth[known]
    present = np.unique(right)
    of_systems = {"labels": present, "average": "macro", "zero_division": 0.0}
    return Identification(
        accuracy_percent=100 * float(np.mean(said == right)),
        balanced_accuracy_percent=100 * float(recall_score(right, said, **of_systems)),
        macro_f1_percent=100 * float(f1_score(right, said, **of_systems)),
        utterances=int(known.sum()),
        systems=len(present),
    )
