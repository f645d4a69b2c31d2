"""What a tracer knows, what it cannot tell, and how often it named the right system on test, as sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from makermark.tracing.tracer import Tracer

BUILT_IN_CORPUS = "local"


def describe_tracer_scope(tracer: Tracer) -> str:
    """Return the sentences of `describe_scope` for a tracer."""
    metadata = tracer.metadata
    return describe_scope(
        str(metadata.params.get("corpus", "")),
        systems=len(metadata.systems),
        enrolled=len(tracer.gallery.enrolled().systems),
    )


def describe_scope(corpus: str, *, systems: int, enrolled: int = 0) -> str:
    """Return what a model of `systems` training systems knows and what it cannot tell.

    `corpus` is the value in params.yaml, empty if it is not recorded.
    """
    source = (
        "the built-in corpus" if corpus == BUILT_IN_CORPUS else f"the corpus {corpus or '(not recorded)'}"
    )
    added = f" and {enrolled} enrolled" if enrolled else ""
    return (
        f"The model was trained on {systems} systems of {source}. It compares a clip with these{added}, and with "
        "nothing else: it cannot tell speech that is not synthetic, or a system far from its own, from these."
    )


def describe_test_rates(test: Mapping[str, Any]) -> str:
    """Return how often whole utterances of test were named, with 95 % intervals.

    `test` holds the metrics of `evaluate_tracer`; if it is empty, the sentence says so.
    """
    if "whole" not in test:
        return "How often this tracer is right was not recorded with it. To record it, run the calibrate stage again."
    metrics = test["whole"]

    def percent(name: str) -> str:
        value, interval = metrics[f"{name}_percent"], metrics[f"{name}_percent_ci95"]
        return f"{value:.0f} %" + (f" [{interval[0]:.0f}, {interval[1]:.0f}]" if interval else "")

    parts = []
    if metrics["seen_clips"]:
        parts.append(
            f"of the utterances by {_systems(metrics['seen_systems'], 'known')}, {percent('seen_correct')} get the "
            f"right system, {percent('seen_family')} the right family, {percent('seen_wrong')} a wrong name, and "
            f"{percent('seen_unknown')} are called unknown"
        )
    if metrics["unseen_clips"]:
        parts.append(
            f"of the utterances by {_systems(metrics['unseen_systems'], 'unknown')}, {percent('unseen_wrong')} get a "
            f"wrong name, {percent('unseen_family')} the right family, and {percent('unseen_unknown')} are called "
            "unknown"
        )
    return f"On test, without enrolled systems: {'; '.join(parts)}."


def _systems(count: int, kind: str) -> str:
    return f"{count} {kind} system{'s' if count != 1 else ''}"
