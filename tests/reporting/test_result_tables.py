import copy
import io

import pytest
from rich.console import Console

from makermark.corpora.rows import STRATA
from makermark.reporting import results_markdown, results_table


def part(percent):
    return {
        "eer_micro_percent": percent,
        "eer_macro_percent": percent / 2,
        "eer_micro_ci95_percent": [percent - 1, percent + 2],
        "eer_macro_ci95_percent": [percent / 2 - 1, percent / 2 + 2],
        "utterances": 1020,
        "systems": 24,
    }


def scored(percent):
    return {**part(percent), "strata": {name: part(percent + i) for i, name in enumerate(STRATA)}}


@pytest.fixture
def score():
    baselines = {name: {"dev": scored(30.0), "test": scored(32.0)} for name in ("logmel_stats", "untrained")}
    return {"dev": scored(8.0), "test": scored(10.126), "baselines": baselines}


def rows_of(markdown):
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in markdown.splitlines() if "|" in line]


def test_a_reader_finds_every_figure_with_its_interval(score):
    header, _, *rows = rows_of(results_markdown(score))
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


def test_a_figure_that_does_not_exist_is_a_dash(score):
    without = dict.fromkeys(part(1.0)) | {"utterances": 30, "systems": 1}
    score["test"]["strata"][STRATA[3]] = without
    score["baselines"]["untrained"]["test"]["strata"][STRATA[3]] = without
    assert rows_of(results_markdown(score))[-1][3:] == ["30", "-", "-", "35.00/17.50", "-/-"]


def test_too_few_systems_show_no_interval(score):
    score["test"]["strata"][STRATA[3]]["systems"] = 2
    assert rows_of(results_markdown(score))[-1][4] == "13.13"


def test_where_aliases_are_merged_a_row_of_its_own_says_so(score):
    score["test"]["families"] = part(7.0)
    for baseline in score["baselines"].values():
        baseline["test"]["families"] = part(20.0)
    rows = rows_of(results_markdown(score))[2:]
    assert len(rows) == 11
    assert rows[6] == ["", "by family", "all", "1,020", "7.00 [6.00, 9.00]", "3.50 [2.50, 5.50]", "20.00/10.00",
                       "20.00/10.00"]  # fmt: skip


def test_a_stratum_that_a_corpus_lacks_has_no_row(score):
    score = copy.deepcopy(score)
    for scores in (score, *score["baselines"].values()):
        del scores["dev"]["strata"][STRATA[1]]
    assert len(rows_of(results_markdown(score))) == 2 + 9


@pytest.mark.parametrize("width", [80, 120])
def test_the_terminal_shows_whole_words_and_figures(score, width):
    score["baselines"]["resemblyzer"] = score["baselines"]["untrained"]
    console = Console(width=width, file=io.StringIO())
    console.print(results_table(score))
    text = console.file.getvalue()
    assert "…" not in text
    for expected in (
        "10.1",
        "12.1]",
        "32.0/16.0",
        "statistics",
        "utterances",
        "unseen",
        "untrained",
        "encoder",
    ):
        assert expected in text
    assert max(map(len, text.splitlines())) <= width
