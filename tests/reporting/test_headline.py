"""metrics/headline.json: a few figures, each the one of the file that defines it."""

import json
from pathlib import Path

import pytest

from makermark.foundation.errors import FilesError
from makermark.foundation.tracking import flatten_metrics
from makermark.reporting.headline import headline_metrics

REPOSITORY = Path(__file__).parents[2]
DETECTOR = {"auroc_percent": 90.0}
SCORE = {
    "dev": {"eer_micro_percent": 4.0, "utterances": 10},
    "test": {
        "eer_micro_percent": 9.0,
        "eer_micro_ci95_percent": [5.0, 14.0],
        "utterances": 20,
        "strata": {
            "seen_system_seen_language": {"eer_micro_percent": 1.0},
            "seen_system_unseen_language": {"eer_micro_percent": 2.0},
            "unseen_system_seen_language": {"eer_micro_percent": 3.0},
            "unseen_system_unseen_language": {"eer_micro_percent": 5.0},
        },
        "identification": {"head": {"accuracy_percent": 97.0}, "centroid": {"accuracy_percent": 98.0}},
        "out_of_domain": {"chosen_on_dev": "knn", "knn": DETECTOR, "msp": {"auroc_percent": 99.0}},
    },
}
TRACE = {
    "test": {
        "1s": {"seen_correct_percent": 0.0, "unseen_wrong_percent": 0.0, "cllr": 9.0},
        "whole": {"seen_correct_percent": 30.0, "unseen_wrong_percent": 12.0, "cllr": 0.1},
    }
}


def test_headline_has_the_figures_that_compare_experiments():
    assert flatten_metrics(headline_metrics(SCORE, TRACE)) == {
        "dev.eer_micro_percent": 4.0,
        "dev.utterances": 10,
        "test.eer_micro_percent": 9.0,
        "test.eer_micro_ci95_percent.low": 5.0,
        "test.eer_micro_ci95_percent.high": 14.0,
        "test.eer_seen_systems_percent": 1.0,
        "test.eer_unseen_systems_percent": 3.0,
        "test.identification_percent": 98.0,
        "test.unknown_auroc_percent": 90.0,
        "test.utterances": 20,
        "tracer.seen_correct_percent": 30.0,
        "tracer.unseen_wrong_percent": 12.0,
        "tracer.cllr": 0.1,
    }


def test_headline_of_a_corpus_without_unseen_systems_and_without_tracer_lacks_those_figures():
    test = SCORE["test"] | {
        "eer_micro_ci95_percent": None,
        "strata": {"seen_system_seen_language": {"eer_micro_percent": 1.0}},
        "identification": {},
        "out_of_domain": {"chosen_on_dev": None},
    }
    headline = headline_metrics(SCORE | {"test": test}, {"reason": "dev has no unseen system"})
    assert set(flatten_metrics(headline)) == {
        "dev.eer_micro_percent",
        "dev.utterances",
        "test.eer_micro_percent",
        "test.eer_seen_systems_percent",
        "test.utterances",
    }
    assert headline["test"]["eer_unseen_systems_percent"] is None
    assert set(headline["tracer"].values()) == {None}


@pytest.mark.parametrize("score", [{}, SCORE | {"test": {}}, SCORE | {"test": None}])
def test_metrics_of_another_version_are_an_error_with_the_remedy(score):
    with pytest.raises(FilesError, match=r"metrics/score\.json .*run the stages score and calibrate"):
        headline_metrics(score, TRACE)


def test_committed_headline_is_that_of_the_committed_metrics():
    score, trace, headline = (
        json.loads((REPOSITORY / f"metrics/{file}.json").read_text())
        for file in ("score", "trace", "headline")
    )
    assert headline == headline_metrics(score, trace)
