"""The reproduced table, on the paper's corpus and on another."""

import dataclasses
from statistics import stdev

import pandas as pd
import pytest

from makermark.experiments.table1.paper_table import CORPUS, read_paper_table, select_cells
from makermark.experiments.table1.report import Row, markdown, write_report
from makermark.experiments.table1.runs import RunResult

CELLS = select_cells(read_paper_table(), losses=["aamsoftmax"], samplers=["random"])
COMMIT = "0123456789abcdef"


def result(dev, test, low=None, high=None, *, test_utterances=33_900):
    ends = (
        {}
        if low is None
        else {f"test.eer_micro_ci95_percent.{e}": v for e, v in (("low", low), ("high", high))}
    )
    counts = {"dev.utterances": 12_000.0, "test.utterances": float(test_utterances)}
    return RunResult(COMMIT, {"dev.eer_micro_percent": dev, "test.eer_micro_percent": test, **counts, **ends})


def rows(corpus):
    results = {
        "resnet34-aamsoftmax-random-10": {0: result(6.0, 5.0, 3.0, 8.0)},
        "resnet34-aamsoftmax-random-50": {0: result(5.0, 4.0, 2.5, 6.0), 1: result(6.0, 5.0, 3.5, 7.5)},
        "wav2vec2-aasist-aamsoftmax-random-10": {2: result(6.5, 30.0)},
    }
    return [Row(cell, corpus, results.get(cell.name, {})) for cell in CELLS]


def test_markdown_has_differences_on_the_papers_corpus():
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


def test_markdown_notes_other_trials_than_the_papers():
    assert "other trials" not in markdown(rows(CORPUS))
    changed = [
        *rows(CORPUS)[1:],
        Row(CELLS[0], CORPUS, {0: result(6.0, 5.0), 1: result(6.0, 5.0, test_utterances=33_791)}),
    ]
    text = markdown(changed)
    assert "**The differences are over other trials than the paper's.**" in text
    assert "test has 33,791 utterances, 33,900 in the paper. The paper's trials" in text
    assert "dev has" not in text
    assert "other trials" not in markdown([dataclasses.replace(row, corpus="local") for row in changed])


def test_write_report_accepts_a_result_without_the_number_of_utterances(tmp_path):
    without_count = RunResult(COMMIT, {"dev.eer_micro_percent": 6.0, "test.eer_micro_percent": 5.0})
    write_report(tmp_path, [Row(CELLS[0], CORPUS, {0: without_count})])
    assert "other trials" not in (tmp_path / "table1.md").read_text()
    assert pd.read_csv(tmp_path / "table1.csv")["test_utterances"].isna().all()


def test_markdown_has_no_differences_on_another_corpus():
    text = markdown(rows("local"))
    assert "**The paper's columns are for another corpus, MLAADv5; ours are for corpus `local`.**" in text
    assert "| paper, on MLAADv5 |" in text
    assert "| 6.00 | 6.64 | - | 5.00 | 5.29 | - | [3.00, 8.00] | 0 |" in text


@pytest.mark.parametrize("corpus", [CORPUS, "local"])
def test_write_report_writes_csv_and_plot(tmp_path, corpus):
    paths = write_report(tmp_path, rows(corpus))
    assert [path.name for path in paths] == ["table1.md", "table1.csv", "table1.png"]
    table = pd.read_csv(tmp_path / "table1.csv", dtype={"seeds": str})
    assert list(table["paper_test_eer_percent"]) == [cell.test_eer_percent for cell in CELLS]
    row = table[table["dim"] == 50].iloc[0]
    assert (row["test_eer_percent"], row["test_ci95_high_percent"], row["seeds"]) == (4.5, 7.5, "0 1")
    assert row["commits"] == COMMIT
    assert (row["dev_utterances"], row["test_utterances"]) == (12_000, 33_900)
    assert table["dev_difference_points"].notna().sum() == (3 if corpus == CORPUS else 0)
    assert (tmp_path / "table1.png").read_bytes().startswith(b"\x89PNG")


def test_write_report_without_results_has_the_papers_figures_only(tmp_path):
    write_report(tmp_path, [Row(cell, "local", {}) for cell in read_paper_table()])
    assert "0 of 48 cells" in (tmp_path / "table1.md").read_text()
    assert pd.read_csv(tmp_path / "table1.csv")["test_eer_percent"].isna().all()
