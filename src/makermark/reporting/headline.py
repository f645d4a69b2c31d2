"""The headline: the few figures that compare experiments, from the metrics of the stages `score` and `calibrate`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from makermark.foundation.errors import FilesError

SEEN_STRATUM, UNSEEN_STRATUM = "seen_system_seen_language", "unseen_system_seen_language"


def headline_metrics(score: Mapping[str, Any], trace: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of metrics/headline.json, from the contents of metrics/score.json and metrics/trace.json.

    A figure is None if the corpus does not have it (no unseen systems, for example), and those of the tracer are None
    if there is no tracer. docs/figures.md defines every figure. Raises FilesError for metrics that lack a figure.
    """
    try:
        return _select(score, trace)
    except (KeyError, TypeError) as error:
        raise FilesError(
            f"metrics/score.json or metrics/trace.json: not as this version writes them ({error}); run the stages "
            "score and calibrate"
        ) from error


def _select(score: Mapping[str, Any], trace: Mapping[str, Any]) -> dict[str, Any]:
    test, whole = score["test"], trace["test"]["whole"] if "test" in trace else {}
    low, high = test["eer_micro_ci95_percent"] or (None, None)
    return {
        "dev": {
            "eer_micro_percent": score["dev"]["eer_micro_percent"],
            "utterances": score["dev"]["utterances"],
        },
        "test": {
            "eer_micro_percent": test["eer_micro_percent"],
            "eer_micro_ci95_percent": {"low": low, "high": high},
            "eer_seen_systems_percent": _stratum_eer(test, SEEN_STRATUM),
            "eer_unseen_systems_percent": _stratum_eer(test, UNSEEN_STRATUM),
            "identification_percent": _identification(test),
            "unknown_auroc_percent": _unknown_auroc(test),
            "utterances": test["utterances"],
        },
        "tracer": {
            "seen_correct_percent": whole.get("seen_correct_percent"),
            "unseen_wrong_percent": whole.get("unseen_wrong_percent"),
            "cllr": whole.get("cllr"),
        },
    }


def _stratum_eer(test: Mapping[str, Any], name: str) -> float | None:
    stratum = test["strata"].get(name)
    return None if stratum is None else stratum["eer_micro_percent"]


def _identification(test: Mapping[str, Any]) -> float | None:
    """Return the closed-set accuracy by the nearest centroid, which exists with every loss."""
    centroid = test["identification"].get("centroid")
    return None if centroid is None else centroid["accuracy_percent"]


def _unknown_auroc(test: Mapping[str, Any]) -> float | None:
    """Return the AUROC of the detector of unknown systems that was chosen on dev."""
    chosen = test["out_of_domain"]["chosen_on_dev"]
    return None if chosen is None else test["out_of_domain"][chosen]["auroc_percent"]
