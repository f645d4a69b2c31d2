"""What a set of embeddings says of known and unknown systems, from the training set beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from makermark.scoring.detectors import DETECTORS, OF_LOGITS, Numbers, Speech
from makermark.scoring.identification import centroid_logits, centroids, identify
from makermark.scoring.outofdomain import Rates, detect_all

CHOSEN = "chosen_on_dev"


class Evidence(NamedTuple):
    """Utterances of a set: vectors (N, D), systems (N,), and logits (N, C) of a classifier, if there is one.

    The classifier's C systems are those of the training set, sorted by name.
    """

    vectors: Numbers
    systems: NDArray[np.str_]
    logits: Numbers | None


def open_set(
    train: Evidence, judged: Evidence, *, bootstrap_samples: int, seed: int
) -> tuple[dict[str, Any], dict[str, Rates]]:
    """`identification` (by `head` where there is a classifier, by `centroid`) and `out_of_domain` as JSON values;
    and the rates of every detector.

    Detectors that look at logits take the classifier's, else scaled cosines to the centroids of the training
    systems; `out_of_domain.logits` says which: head or centroid.
    """
    names, directions = centroids(train.vectors, train.systems)
    by = {"head": judged.logits, "centroid": centroid_logits(judged.vectors, directions)}
    told = {
        way: asdict(found)
        for way, logits in by.items()
        if logits is not None and (found := identify(logits, names, judged.systems))
    }
    headed = train.logits is not None and judged.logits is not None
    seen, heard = (
        Speech(
            e.vectors,
            e.logits if headed and e.logits is not None else centroid_logits(e.vectors, directions),
            e.systems,
        )
        for e in (train, judged)
    )
    detected, rates = detect_all(seen, heard, bootstrap_samples=bootstrap_samples, seed=seed)
    return {
        "identification": told,
        "out_of_domain": {"logits": "head" if headed else "centroid", **detected},
    }, rates


def open_set_by_head(
    judged: Evidence, systems: Sequence[str], *, bootstrap_samples: int, seed: int
) -> tuple[dict[str, Any], dict[str, Rates]]:
    """As `open_set`, without the training set: what the classifier over `systems` (C,), sorted by name, says alone.

    Without a classifier (`judged.logits` is None) there are the counts of known and unknown utterances only.
    """
    names = np.asarray(systems, dtype=str)
    if judged.logits is None:
        known = int(np.isin(judged.systems, names).sum())
        counts = {"known_utterances": known, "unknown_utterances": len(judged.systems) - known}
        return {"identification": {}, "out_of_domain": {"logits": None, **counts, CHOSEN: None}}, {}
    found = identify(judged.logits, names, judged.systems)
    seen = Speech(np.empty((0, judged.vectors.shape[1])), np.empty((0, len(names))), names)
    detected, rates = detect_all(
        seen,
        Speech(judged.vectors, judged.logits, judged.systems),
        bootstrap_samples=bootstrap_samples,
        seed=seed,
        detectors={name: DETECTORS[name] for name in OF_LOGITS},
    )
    return {
        "identification": {"head": asdict(found)} if found else {},
        "out_of_domain": {"logits": "head", **detected, CHOSEN: None},
    }, rates


def choose_on_dev(dev: dict[str, Any], test: dict[str, Any]) -> None:
    """Note in both `out_of_domain` which detector has the best AUROC on dev: test must not choose its own."""
    reached = {name: dev["out_of_domain"][name]["auroc_percent"] for name in DETECTORS}
    best = max(reached, key=lambda name: -1.0 if reached[name] is None else reached[name])
    for part in (dev, test):
        part["out_of_domain"][CHOSEN] = None if reached[best] is None else best
