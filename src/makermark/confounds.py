"""What else than the system the embeddings hold, and what of their EER remains where the language is held constant."""

from __future__ import annotations

from typing import Any

import numpy as np

from makermark.errors import ScoringError
from makermark.probing import linear_probe, probe_within
from makermark.probing.linear import check
from makermark.scoring import score_set
from makermark.vectors import Embeddings


def readable(part: Embeddings, **settings: Any) -> dict[str, Any]:
    """How well one linear layer reads language and voice, against chance: JSON values, None where there is one class.

    `language` over all utterances. `language_within_system` and `voice_within_system` inside each system, so that it is
    not the system that is read: the mean over systems with two languages, or voices, or more. Utterances without the
    label are left out. `settings` are those of `linear_probe`. Raises ScoringError for vectors that are not finite.
    """
    check(part.vectors, part.systems)
    told: dict[str, Any] = {}
    for what, within in (("language", False), ("language", True), ("voice", True)):
        labelled = np.flatnonzero(part.labels[what].fillna("") != "")
        some = part.take(labelled)
        labels = some.labels[what].to_numpy(dtype=str)
        if within:
            told[f"{what}_within_system"] = _within(some, labels, settings)
        else:
            told[what] = _over_all(some, labels, settings)
    return told


def _over_all(part: Embeddings, labels: Any, settings: dict[str, Any]) -> dict[str, Any] | None:
    try:
        result = linear_probe(part.vectors, labels, **settings)
    except ScoringError:  # fewer than two classes
        return None
    return {
        "balanced_accuracy_percent": result.balanced_accuracy_percent,
        "chance_percent": result.chance_percent,
        "classes": len(result.classes),
        "utterances_per_class": result.per_class,
        "left_out": result.left_out,
    }


def _within(part: Embeddings, labels: Any, settings: dict[str, Any]) -> dict[str, Any] | None:
    result = probe_within(part.vectors, labels, part.systems, **settings)
    if result is None:
        return None
    return {
        "balanced_accuracy_percent": result.balanced_accuracy_percent,
        "chance_percent": result.chance_percent,
        "systems": len(result.groups),
        "test_utterances": sum(probe.test_utterances for probe in result.groups.values()),
    }


def language_held(part: Embeddings, *, seed: int) -> dict[str, Any] | None:
    """EERs over the pairs of utterances in one language: the mean over languages with target and non-target pairs, each
    alike, and each of them, beside the EER over all pairs. None where no language has both kinds."""
    some = part.take(np.flatnonzero(part.labels["language"].fillna("") != ""))
    if not len(some.vectors):
        return None
    try:
        scores = score_set(
            some.vectors,
            some.systems,
            some.labels["language"].to_numpy(dtype=str),
            bootstrap_samples=0,
            seed=seed,
        )
    except ScoringError:  # no target or no non-target trial at all
        return None
    of_language = {
        language: {
            "eer_percent": one.eer_micro_percent,
            "systems": one.systems,
            "target_trials": one.target_trials,
            "nontarget_trials": one.nontarget_trials,
        }
        for language, one in scores.strata.items()
        if one.eer_micro_percent is not None
    }
    if not of_language:
        return None
    return {
        "eer_percent": float(np.mean([one["eer_percent"] for one in of_language.values()])),
        "eer_all_pairs_percent": scores.eer_micro_percent,
        "languages": len(of_language),
        "by_language": of_language,
    }
