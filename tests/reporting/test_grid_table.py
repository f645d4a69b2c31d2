"""Table and plot of a grid, and the open-set sentences of `makermark results`."""

import numpy as np
import pytest
from matplotlib.image import imread

from makermark.foundation.manifest import STRATA
from makermark.reporting.grid import GridResult, grid_markdown, insert_table, plot_grid
from makermark.reporting.score_plots import plot_detectors
from makermark.reporting.tables import describe_open_set


def make_score(percent, *, head=True):
    """Return the content of a metrics/score.json."""
    detector = {
        "auroc_percent": 90.0,
        "fpr95_percent": 40.0,
        "eerc_percent": 18.0,
        "auroc_ci95_percent": [80.0, 97.0],
        "fpr95_ci95_percent": None,
    }
    methods = {"head": {"accuracy_percent": 97.0}} if head else {}
    part = {
        "eer_micro_percent": percent,
        "eer_macro_percent": percent / 2,
        "eer_micro_ci95_percent": [percent - 1, percent + 2],
        "strata": {name: {"eer_micro_percent": percent + i} for i, name in enumerate(STRATA)},
        "identification": {**methods, "centroid": {"accuracy_percent": 95.0}},
        "out_of_domain": {"chosen_on_dev": "knn", "knn": detector},
    }
    return {"dev": part, "test": part}


def split_cells(line):
    """Return the cells of a Markdown table row."""
    return [cell.strip() for cell in line.split("|")[1:-1]]


def test_grid_table_shows_interval_of_one_seed_and_spread_of_several():
    table = grid_markdown(
        [
            GridResult("ge2e", make_score(8.0, head=False), 100.0),
            GridResult("ge2e", make_score(10.0, head=False), 120.0),
            GridResult("softmax", make_score(9.0), None),
        ]
    )
    header, _, ge2e, softmax = map(split_cells, table.splitlines()[:4])
    row_by_column = dict(zip(header, ge2e, strict=True))
    assert (row_by_column["arm"], row_by_column["seeds"], row_by_column["training, s"]) == (
        "ge2e",
        "2",
        "110",
    )
    assert row_by_column["test EER"] == "9.0 ± 1.4"
    assert row_by_column["unseen/unseen"] == "12.0 ± 1.4"
    assert row_by_column["identification"] == "95.0 ± 0.0 (c)"
    row_by_column = dict(zip(header, softmax, strict=True))
    assert row_by_column["test EER"] == "9.0 [8.0, 11.0]"
    assert row_by_column["identification"] == "97.0"
    assert row_by_column["out of domain"] == "90.0 / 40.0 (knn)"
    assert row_by_column["training, s"] == "-"


def test_grid_plot_is_written(tmp_path):
    plot_grid(
        tmp_path / "grid.png",
        [GridResult("a", make_score(8.0), None), GridResult("b", make_score(5.0), None)],
    )
    assert imread(tmp_path / "grid.png").ndim == 3


def test_open_set_description_has_identification_and_detection():
    identification, detection = describe_open_set(make_score(8.0))
    assert (
        "97.0 % by the classifier head, 95.0 % by the nearest centroid (closed set: none rejected)"
        in identification
    )
    assert "by knn (chosen on dev): AUROC 90.0 % [80.0, 97.0], FPR at 95 % TPR 40.0 %, EERc" in detection


def test_open_set_description_without_chosen_detector_has_one_line():
    without = make_score(8.0)
    without["test"]["out_of_domain"]["chosen_on_dev"] = None
    assert len(describe_open_set(without)) == 1


@pytest.mark.parametrize("chosen", ["knn", None])
def test_detector_plot_is_written(tmp_path, chosen):
    unknown = np.array([0.0, 0.5, 1.0])
    curves = {name: (unknown, np.array([0.0, 0.9, 1.0])) for name in ("msp", "knn")}
    plot_detectors(tmp_path / "roc.png", curves, chosen=chosen, title="test")
    assert imread(tmp_path / "roc.png").ndim == 3


def test_tables_of_sets_without_seen_or_unseen_systems_have_dashes():
    bare = make_score(8.0)
    bare["test"] = {**bare["test"], "identification": {}, "out_of_domain": {"chosen_on_dev": None}}
    header, _, row = map(split_cells, grid_markdown([GridResult("ge2e", bare, None)]).splitlines()[:3])
    row_by_column = dict(zip(header, row, strict=True))
    assert (row_by_column["identification"], row_by_column["out of domain"]) == ("-", "-")
    assert describe_open_set(bare) == ["Identification of the seen systems of test: test has no seen system"]
    no_unseen = make_score(8.0)
    no_unseen["test"]["out_of_domain"]["knn"] = dict.fromkeys(no_unseen["test"]["out_of_domain"]["knn"])
    assert len(describe_open_set(no_unseen)) == 1


def test_insert_table_replaces_the_text_between_the_markers():
    page = insert_table("| new |", "# Title\n<!-- table -->\n| old |\n<!-- /table -->\nText.\n")
    assert page == "# Title\n<!-- table -->\n\n| new |\n<!-- /table -->\nText.\n"
    assert insert_table("| newer |", page).count("|") == 2
    assert insert_table("| new |", "a page without markers") == insert_table("| new |", "") == "| new |"
