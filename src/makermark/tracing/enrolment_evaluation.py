"""Evaluation of enrolment: test systems that are not in the gallery are enrolled one at a time."""

from __future__ import annotations

from typing import Any

import numpy as np

from makermark.foundation.arrays import StrArray
from makermark.tracing.bundle import WHOLE_UTTERANCE, ClipSet
from makermark.tracing.decision import ONE_SYSTEM
from makermark.tracing.evaluation import bootstrap_over_systems, weighted_mean
from makermark.tracing.tracer import Tracer

PER_SYSTEM = ("identification", "named", "others_identification_loss")  # metrics reported for each system


def evaluate_enrolment(
    tracer: Tracer, test: ClipSet, *, clips: int, draws: int, bootstrap_samples: int, seed: int
) -> dict[str, Any]:
    """Enroll each unseen system of test in turn from `clips` random whole utterances, `draws` times.

    Measures, before and after enrolment, how often the top-scoring system is the true one and how often the conclusion
    names the true system: on the other utterances of the enrolled system, and on those of the systems already in the
    gallery. Intervals are over the enrolled systems.
    """
    whole = test.of_length(WHOLE_UTTERANCE)
    known = whole.select(np.isin(whole.systems, tracer.gallery.systems))
    before_identification, before_named = _success_percent(tracer, known)
    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    for system in sorted(set(whole.systems) - set(tracer.gallery.systems)):
        own = np.flatnonzero(whole.systems == system)
        if len(own) <= clips:
            continue
        for _ in range(draws):
            drawn = rng.choice(own, size=clips, replace=False)
            trials = whole.select(np.isin(np.arange(len(whole.systems)), np.setdiff1d(own, drawn)))
            after = _enroll(tracer, whole, drawn)
            others_identification, others_named = _success_percent(after, known)
            identification, named = _success_percent(after, trials)
            rows.append(
                {
                    "system": system,
                    "named_wrongly_before": _named_percent(tracer, trials),
                    "identification": identification,
                    "named": named,
                    "others_identification_loss": before_identification - others_identification,
                    "others_named_loss": before_named - others_named,
                }
            )
    if not rows:
        return {"systems": 0}
    systems = np.array([row["system"] for row in rows], dtype=str)
    by_system = _average_by_system(rows, systems)
    metrics = {
        f"{name}_percent": weighted_mean(np.array([row[name] for row in rows], dtype=np.float64))
        for name in rows[0]
        if name != "system"
    }
    return {
        "systems": len(by_system),
        "clips": clips,
        "draws": draws,
        "others_identification_before_percent": before_identification,
        "others_named_before_percent": before_named,
        "identification_before_percent": 0.0,  # a system outside the gallery cannot be identified
        **bootstrap_over_systems(metrics, systems, samples=bootstrap_samples, seed=seed),
        "others_identification_worst_loss_percent": max(row["others_identification_loss"] for row in rows),
        "by_system": by_system,
    }


def _enroll(tracer: Tracer, whole: ClipSet, drawn: Any) -> Tracer:
    """Return a tracer with the system of the utterances `drawn` (row numbers of `whole`)."""
    names = [f"clip-{number}" for number in range(len(drawn))]
    row = whole.rows.iloc[drawn[0]]
    gallery = tracer.gallery.with_system(
        str(row["system"]), whole.embeddings[drawn], names, family=str(row["family"] or "")
    )
    return tracer.with_gallery(gallery)


def _average_by_system(rows: list[dict[str, Any]], systems: StrArray) -> dict[str, dict[str, float]]:
    return {
        str(system): {
            f"{name}_percent": float(np.mean([row[name] for row in rows if row["system"] == system]))
            for name in PER_SYSTEM
        }
        for system in np.unique(systems)
    }


def _success_percent(tracer: Tracer, clips: ClipSet) -> tuple[float, float]:
    """Return the percentages of clips whose top-scoring system is the true one, and whose true system is named."""
    decisions = tracer.decide(clips.embeddings, clips.speech_seconds)
    systems = np.array(tracer.gallery.systems, dtype=str)
    name_is_correct = np.array(decisions.names, dtype=str) == clips.systems
    one_system = np.array(decisions.conclusions, dtype=str) == ONE_SYSTEM
    identified = systems[decisions.llrs.argmax(axis=1)] == clips.systems
    return 100 * float(np.mean(identified)), 100 * float(np.mean(name_is_correct & one_system))


def _named_percent(tracer: Tracer, clips: ClipSet) -> float:
    """Return the percentage of clips for which some system is named."""
    decisions = tracer.decide(clips.embeddings, clips.speech_seconds)
    return 100 * float(np.mean(np.array(decisions.conclusions, dtype=str) == ONE_SYSTEM))
