"""Result tables as Markdown and in the terminal."""

import copy
import io

import pytest
from rich.console import Console

from makermark.foundation.manifest import STRATA
from makermark.reporting.tables import results_markdown, results_table


def make_part(percent):
    return {
        "eer_micro_percent": percent,
        "eer_macro_percent": percent / 2,
        "eer_micro_ci95_percent": [percent - 1, percent + 2],
        "eer_macro_ci95_percent": [percent / 2 - 1, percent / 2 + 2],
        "utterances": 1020,
        "systems": 24,
    }


def make_split(percent):
    return {**make_part(percent), "strata": {name: make_part(percent + i) for i, name in enumerate(STRATA)}}


@pytest.fixture
def score():
    baselines = {
        name: {"dev": make_split(30.0), "test": make_split(32.0)} for name in ("logmel_stats", "untrained")
    }
    return {"dev": make_split(8.0), "test": make_split(10.126), "baselines": baselines}


def split_rows(markdown):
    """Return the cells of every row of a Markdown table."""
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in markdown.splitlines() if "|" in line]


def test_results_table_holds_every_eer_with_its_interval(score):
    header, _, *rows = split_rows(results_markdown(score))
    assert header == [
        "set", "system", "language", "utterances", "EER micro, %", "EER macro, %", "log-mel statistics",
        "untrained network",
    ]  # fmt: skip
    assert len(rows) == 10
    assert rows[5] == [
        "test", "all", "all", "1,020", "10.13 [9.13, 12.13]", "5.06 [4.06, 7.06]", "32.00/16.00", "32.00/16.00",
    ]  # fmt: skip
    assert [row[1:3] for row in rows[6:]] == [
        ["seen", "seen"], ["seen", "unseen"], ["unseen", "seen"], ["unseen", "unseen"],
    ]  # fmt: skip
    assert rows[9][4] == "13.13 [12.13, 15.13]"


def test_missing_eer_is_a_dash(score):
    without = dict.fromkeys(make_part(1.0)) | {"utterances": 30, "systems": 1}
    score["test"]["strata"][STRATA[3]] = without
    score["baselines"]["untrained"]["test"]["strata"][STRATA[3]] = without
    assert split_rows(results_markdown(score))[-1][3:] == ["30", "-", "-", "35.00/17.50", "-/-"]


def test_too_few_systems_have_no_interval(score):
    score["test"]["strata"][STRATA[3]]["systems"] = 2
    assert split_rows(results_markdown(score))[-1][4] == "13.13"


def test_merged_families_have_their_own_row(score):
    score["test"]["families"] = make_part(7.0)
    for baseline in score["baselines"].values():
        baseline["test"]["families"] = make_part(20.0)
    rows = split_rows(results_markdown(score))[2:]
    assert len(rows) == 11
    assert rows[6] == ["", "by family", "all", "1,020", "7.00 [6.00, 9.00]", "3.50 [2.50, 5.50]", "20.00/10.00",
                       "20.00/10.00"]  # fmt: skip


def test_systems_that_are_new_in_test_have_their_own_row(score):
    for part in (score, *score["baselines"].values()):
        part["test"]["new_in_test"] = make_part(7.0)
    rows = split_rows(results_markdown(score))[2:]
    assert len(rows) == 11
    assert rows[10] == ["", "new in test", "all", "1,020", "7.00 [6.00, 9.00]", "3.50 [2.50, 5.50]", "7.00/3.50",
                        "7.00/3.50"]  # fmt: skip


def test_systems_new_in_test_without_trials_have_no_row(score):
    for part in (score, *score["baselines"].values()):
        part["test"]["new_in_test"] = None
    assert len(split_rows(results_markdown(score))) == 2 + 10


def test_columns_within_which_pairs_are_scored_have_rows_and_a_legend(score):
    assert "Within a column" not in results_markdown(score)
    for part in (score, *score["baselines"].values()):
        part["test"]["within"] = {"voice": make_part(21.0)}
    rows = split_rows(results_markdown(score))[2:]
    assert rows[10] == ["", "within", "voice", "1,020", "21.00 [20.00, 23.00]", "10.50 [9.50, 12.50]",
                        "21.00/10.50", "21.00/10.50"]  # fmt: skip
    assert "the EER is the mean over values" in results_markdown(score)


def test_missing_stratum_has_no_row(score):
    score = copy.deepcopy(score)
    for scores in (score, *score["baselines"].values()):
        del scores["dev"]["strata"][STRATA[1]]
    assert len(split_rows(results_markdown(score))) == 2 + 9


@pytest.mark.parametrize("width", [80, 120])
def test_terminal_table_cuts_no_word_or_number(score, width):
    score["baselines"]["resemblyzer"] = score["baselines"]["untrained"]
    console = Console(width=width, file=io.StringIO())
    console.print(results_table(score))
    text = console.file.getvalue()
    assert "…" not in text
    for expected in (
        "10.1",
        "12.1]",
        "32.0/16.0",
        "stats",
        "utter-",
        "unseen",
        "untrained",
        "encoder",
    ):
        assert expected in text
    assert max(map(len, text.splitlines())) <= width


def test_rows_within_columns_do_not_widen_the_terminal_table(score):
    lines = results_lines(score)
    for part in (score, *score["baselines"].values()):
        part["test"]["within"] = {"language": make_part(8.0), "voice": make_part(8.0)}
    widened = results_lines(score)
    rows = [[line for line in table if "[" in line and "/" in line] for table in (lines, widened)]
    assert len(rows[1]) == len(rows[0]) + 2
    assert max(map(len, rows[1])) == max(map(len, rows[0]))
    assert any("within" in line and "lang-" in line for line in widened)


def results_lines(score):
    console = Console(width=80, file=io.StringIO())
    console.print(results_table(score))
    return console.file.getvalue().splitlines()


def test_row_of_the_terminal_table_is_one_line_of_80_columns(score):
    for split in ("dev", "test"):
        for part in (score[split], *score[split]["strata"].values()):
            for name in ("micro", "macro"):
                part[f"eer_{name}_percent"], part[f"eer_{name}_ci95_percent"] = 12.95, [10.04, 22.89]
    console = Console(width=80, file=io.StringIO())
    console.print(results_table(score))
    rows = [line for line in console.file.getvalue().splitlines() if "[10.0,22.9]" in line]
    assert len(rows) == 10
    assert all(row.split()[-6:-2] == ["12.9", "[10.0,22.9]"] * 2 for row in rows)
    assert max(map(len, rows)) <= 80
