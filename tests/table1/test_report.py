"""Our figures beside the paper's: what stands in the table, on its corpus and on another."""

import dataclasses
from statistics import stdev

import pandas as pd
import pytest

from makermark.table1.cells import CORPUS, narrowed, paper
from makermark.table1.holding import Found
from makermark.table1.report import Row, markdown, write_report

CELLS = narrowed(paper(), losses=["aamsoftmax"], samplers=["random"])
COMMIT = "0123456789abcdef"


def found(dev, test, low=None, high=None, *, of_test=33_900):
    ends = (
        {}
        if low is None
        else {f"test.eer_micro_ci95_percent.{e}": v for e, v in (("low", low), ("high", high))}
    )
    counts = {"dev.utterances": 12_000.0, "test.utterances": float(of_test)}
    return Found(COMMIT, {"dev.eer_micro_percent": dev, "test.eer_micro_percent": test, **counts, **ends})


def rows(corpus):
    done = {
        "resnet34-aamsoftmax-random-10": {0: found(6.0, 5.0, 3.0, 8.0)},
        "resnet34-aamsoftmax-random-50": {0: found(5.0, 4.0, 2.5, 6.0), 1: found(6.0, 5.0, 3.5, 7.5)},
        "wav2vec2-aasist-aamsoftmax-random-10": {2: found(6.5, 30.0)},
    }
    return [Row(cell, corpus, done.get(cell.name, {})) for cell in CELLS]


def test_on_the_papers_corpus_the_difference_is_given():
    lines = markdown(rows(CORPUS)).splitlines()
    assert lines[0] == "# Table 1 on corpus mlaad-v5: 3 of 8 cells"
    assert (
        "| resnet34 | aamsoftmax | random | 10 | 6.00 | 6.64 | -0.64 | 5.00 | 5.29 | -0.29 "
        "| [3.00, 8.00] | 0 | 0123456789 |" in lines
    )
    spread = f"{stdev([5, 6]):.2f}"
    assert (
        f"| resnet34 | aamsoftmax | random | 50 | 5.50 ± {spread} | 5.57 | -0.07 | 4.50 ± {spread} | 4.63 | -0.13 "
        "| [2.50, 7.50] | 0 1 | 0123456789 |" in lines
    )
    assert "| resnet34 | aamsoftmax | random | 200 | - | 6.05 | - | - | 5.71 | - | - | - | - |" in lines


def test_over_other_trials_than_the_papers_the_difference_is_told_to_be_that():
    assert "other trials" not in markdown(rows(CORPUS))
    some = [
        *rows(CORPUS)[1:],
        Row(CELLS[0], CORPUS, {0: found(6.0, 5.0), 1: found(6.0, 5.0, of_test=33_791)}),
    ]
    told = markdown(some)
    assert "**The differences are over other trials than the paper's.**" in told
    assert "test has 33,791 utterances here and 33,900 there. Its trials" in told
    assert "dev has" not in told
    assert "other trials" not in markdown([dataclasses.replace(row, corpus="local") for row in some])


def test_a_run_that_does_not_say_its_utterances_is_told_without(tmp_path):
    silent = Found(COMMIT, {"dev.eer_micro_percent": 6.0, "test.eer_micro_percent": 5.0})
    write_report(tmp_path, [Row(CELLS[0], CORPUS, {0: silent})])
    assert "other trials" not in (tmp_path / "table1.md").read_text()
    assert pd.read_csv(tmp_path / "table1.csv")["test_utterances"].isna().all()


def test_on_another_corpus_the_papers_column_is_shown_as_what_it_is():
    told = markdown(rows("local"))
    assert "**The paper's columns are another corpus, MLAADv5; ours are corpus `local`.**" in told
    assert "| paper, on MLAADv5 |" in told
    assert "| 6.00 | 6.64 | - | 5.00 | 5.29 | - | [3.00, 8.00] | 0 |" in told


@pytest.mark.parametrize("corpus", [CORPUS, "local"])
def test_the_csv_holds_the_same_and_a_picture_lies_beside(tmp_path, corpus):
    paths = write_report(tmp_path, rows(corpus))
    assert [path.name for path in paths] == ["table1.md", "table1.csv", "table1.png"]
    table = pd.read_csv(tmp_path / "table1.csv", dtype={"seeds": str})
    assert list(table["paper_test_eer_percent"]) == [cell.test_eer_percent for cell in CELLS]
    done = table[table["dim"] == 50].iloc[0]
    assert (done["test_eer_percent"], done["test_ci95_high_percent"], done["seeds"]) == (4.5, 7.5, "0 1")
    assert done["commits"] == COMMIT
    assert (done["dev_utterances"], done["test_utterances"]) == (12_000, 33_900)
    assert table["dev_difference_points"].notna().sum() == (3 if corpus == CORPUS else 0)
    assert (tmp_path / "table1.png").read_bytes().startswith(b"\x89PNG")


def test_nothing_run_yet_is_a_table_of_the_paper_alone(tmp_path):
    write_report(tmp_path, [Row(cell, "local", {}) for cell in paper()])
    assert "0 of 48 cells" in (tmp_path / "table1.md").read_text()
    assert pd.read_csv(tmp_path / "table1.csv")["test_eer_percent"].isna().all()
