"""Attributes other than the system that embeddings contain, and the EER with the language held constant."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from makermark.foundation.arrays import Float32Array, StrArray
from makermark.foundation.embeddings import EmbeddingTable
from makermark.foundation.errors import ScoringError
from makermark.scoring.pairs import score_all_pairs
from makermark.scoring.probes.linear import ProbeResult, check_embeddings, linear_probe


@dataclass(frozen=True)
class GroupedProbeResult:
    """Probes of the groups that have two or more classes, and the unweighted means over these groups."""

    groups: Mapping[str, ProbeResult]
    balanced_accuracy_percent: float
    chance_percent: float


def probe_within_groups(
    embeddings: Float32Array, labels: StrArray, groups: StrArray, **settings: Any
) -> GroupedProbeResult | None:
    """Probe embeddings (N, D) for labels (N,) inside each of the groups (N,), so that the probe cannot use the group.

    `settings` are those of `linear_probe`, per group. Returns None if no group has two classes.
    """
    check_embeddings(embeddings, labels)
    probes = {}
    for name in np.unique(groups):
        rows = groups == name
        try:
            probes[str(name)] = linear_probe(embeddings[rows], labels[rows], **settings)
        except ScoringError:  # fewer than two classes of the required size
            continue
    if not probes:
        return None
    return GroupedProbeResult(
        groups=probes,
        balanced_accuracy_percent=float(np.mean([p.balanced_accuracy_percent for p in probes.values()])),
        chance_percent=float(np.mean([p.chance_percent for p in probes.values()])),
    )


def probe_attributes(part: EmbeddingTable, **settings: Any) -> dict[str, Any]:
    """Probe the embeddings for language and voice; JSON values, None where there is only one class.

    `language` covers all utterances. `language_within_system` and `voice_within_system` are probed inside every system,
    so that the probe cannot use the system; they are means over the systems with two or more languages, or voices.
    Utterances without the label are left out. `settings` are those of `linear_probe`.

    Raises ScoringError for embeddings that are not finite.
    """
    check_embeddings(part.embeddings, part.systems)
    metrics: dict[str, Any] = {}
    for attribute, within_system in (("language", False), ("language", True), ("voice", True)):
        labelled = part.take(np.flatnonzero(part.labels[attribute].fillna("") != ""))
        labels = labelled.labels[attribute].to_numpy(dtype=str)
        if within_system:
            metrics[f"{attribute}_within_system"] = _probe_within_systems(labelled, labels, settings)
        else:
            metrics[attribute] = _probe_all(labelled, labels, settings)
    return metrics


def _probe_all(part: EmbeddingTable, labels: StrArray, settings: dict[str, Any]) -> dict[str, Any] | None:
    try:
        result = linear_probe(part.embeddings, labels, **settings)
    except ScoringError:  # fewer than two classes
        return None
    return {
        "balanced_accuracy_percent": result.balanced_accuracy_percent,
        "chance_percent": result.chance_percent,
        "classes": len(result.classes),
        "utterances_per_class": result.per_class,
        "left_out": result.left_out,
    }


def _probe_within_systems(
    part: EmbeddingTable, labels: StrArray, settings: dict[str, Any]
) -> dict[str, Any] | None:
    result = probe_within_groups(part.embeddings, labels, part.systems, **settings)
    if result is None:
        return None
    return {
        "balanced_accuracy_percent": result.balanced_accuracy_percent,
        "chance_percent": result.chance_percent,
        "systems": len(result.groups),
        "test_utterances": sum(probe.test_utterances for probe in result.groups.values()),
    }


def same_language_eer(part: EmbeddingTable, *, seed: int) -> dict[str, Any] | None:
    """Compute EERs over the pairs of utterances in one language; JSON values.

    `eer_percent` is the unweighted mean over the languages that have target and non-target pairs. `by_language` holds
    these languages. `eer_all_pairs_percent` is the EER over all pairs. Returns None if no language has both kinds.
    """
    labelled = part.take(np.flatnonzero(part.labels["language"].fillna("") != ""))
    if not len(labelled.embeddings):
        return None
    try:
        scores = score_all_pairs(
            labelled.embeddings,
            labelled.systems,
            labelled.labels["language"].to_numpy(dtype=str),
            bootstrap_samples=0,
            seed=seed,
        )
    except ScoringError:  # no target or no non-target trial at all
        return None
    by_language = {
        language: {
            "eer_percent": metrics.eer_micro_percent,
            "systems": metrics.systems,
            "target_trials": metrics.target_trials,
            "nontarget_trials": metrics.nontarget_trials,
        }
        for language, metrics in scores.strata.items()
        if metrics.eer_micro_percent is not None
    }
    if not by_language:
        return None
    return {
        "eer_percent": float(np.mean([metrics["eer_percent"] for metrics in by_language.values()])),
        "eer_all_pairs_percent": scores.eer_micro_percent,
        "languages": len(by_language),
        "by_language": by_language,
    }
