"""The table and the picture of a grid, and what `makermark results` says of known and unknown systems."""

import numpy as np
import pytest
from matplotlib.image import imread

from makermark.corpora.rows import STRATA
from makermark.reporting import open_set_lines, plot_detectors
from makermark.reporting.grid import Result, grid_markdown, placed, plot_grid


def score(percent, *, head=True):
    detector = {
        "auroc_percent": 90.0,
        "fpr95_percent": 40.0,
        "eerc_percent": 18.0,
        "auroc_ci95_percent": [80.0, 97.0],
        "fpr95_ci95_percent": None,
    }
    ways = {"head": {"accuracy_percent": 97.0}} if head else {}
    part = {
        "eer_micro_percent": percent,
        "eer_macro_percent": percent / 2,
        "eer_micro_ci95_percent": [percent - 1, percent + 2],
        "strata": {name: {"eer_micro_percent": percent + i} for i, name in enumerate(STRATA)},
        "identification": {**ways, "centroid": {"accuracy_percent": 95.0}},
        "out_of_domain": {"chosen_on_dev": "knn", "knn": detector},
    }
    return {"dev": part, "test": part}


def cells(line):
    return [cell.strip() for cell in line.split("|")[1:-1]]


def test_one_seed_shows_its_interval_and_several_their_spread():
    table = grid_markdown(
        [Result("ge2e", score(8.0, head=False), 100.0), Result("ge2e", score(10.0, head=False), 120.0),
         Result("softmax", score(9.0), None)]
    )  # fmt: skip
    header, _, ge2e, softmax = map(cells, table.splitlines()[:4])
    told = dict(zip(header, ge2e, strict=True))
    assert (told["arm"], told["seeds"], told["training, s"]) == ("ge2e", "2", "110")
    assert told["test EER"] == "9.0 ± 1.4"
    assert told["unseen/unseen"] == "12.0 ± 1.4"
    assert told["identification"] == "95.0 ± 0.0 (c)"
    told = dict(zip(header, softmax, strict=True))
    assert told["test EER"] == "9.0 [8.0, 11.0]"
    assert told["identification"] == "97.0"
    assert told["out of domain"] == "90.0 / 40.0 (knn)"
    assert told["training, s"] == "-"


def test_the_picture_has_a_dot_for_every_experiment(tmp_path):
    plot_grid(tmp_path / "grid.png", [Result("a", score(8.0), None), Result("b", score(5.0), None)])
    assert imread(tmp_path / "grid.png").ndim == 3


def test_results_say_what_is_known_and_how_the_unknown_are_found():
    identification, detection = open_set_lines(score(8.0))
    assert "97.0 % by the classifier head, 95.0 % by nearest centroid" in identification
    assert "by knn (chosen on dev): AUROC 90.0 % [80.0, 97.0], FPR at 95 % TPR 40.0 %, EERc" in detection


def test_without_unknown_systems_nothing_is_said_of_them():
    told = score(8.0)
    told["test"]["out_of_domain"]["chosen_on_dev"] = None
    assert len(open_set_lines(told)) == 1


@pytest.mark.parametrize("chosen", ["knn", None])
def test_detectors_are_drawn(tmp_path, chosen):
    unknown = np.array([0.0, 0.5, 1.0])
    curves = {name: (unknown, np.array([0.0, 0.9, 1.0])) for name in ("msp", "knn")}
    plot_detectors(tmp_path / "roc.png", curves, chosen=chosen, title="test")
    assert imread(tmp_path / "roc.png").ndim == 3


def test_sets_without_seen_or_without_unseen_systems_claim_nothing():
    bare = score(8.0)
    bare["test"] = {**bare["test"], "identification": {}, "out_of_domain": {"chosen_on_dev": None}}
    header, _, row = map(cells, grid_markdown([Result("ge2e", bare, None)]).splitlines()[:3])
    told = dict(zip(header, row, strict=True))
    assert (told["identification"], told["out of domain"]) == ("-", "-")
    assert open_set_lines(bare) == ["Identification of the seen systems of test: none there"]
    no_unseen = score(8.0)
    no_unseen["test"]["out_of_domain"]["knn"] = dict.fromkeys(no_unseen["test"]["out_of_domain"]["knn"])
    assert len(open_set_lines(no_unseen)) == 1


def test_a_table_goes_between_the_markers_of_a_page_and_the_rest_stays():
    page = placed("| new |", "# Title\n<!-- table -->\n| old |\n<!-- /table -->\nText.\n")
    assert page == "# Title\n<!-- table -->\n\n| new |\n<!-- /table -->\nText.\n"
    assert placed("| newer |", page).count("|") == 2
    assert placed("| new |", "a page without markers") == placed("| new |", "") == "| new |"
