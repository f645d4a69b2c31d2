"""The report of an audit: full words on the terminal at any width, valid Markdown tables for any names."""

import io

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from makermark.audit import audit
from makermark.audit.audio_properties import MEASUREMENTS
from makermark.audit.findings import DESCRIBE
from makermark.audit.report import MAX_NAMES, render_markdown, render_terminal
from makermark.audit.shortcut_sections import list_shortcut_sections
from makermark.audit.shortcuts import predict_systems


@pytest.fixture(scope="module")
def report():
    """A report on ten systems; one has most utterances of test and a name with a character special in Markdown."""
    names = [f"system number {i}" for i in range(9)] + ["vits|x"]
    rows = pd.DataFrame(
        [("train", name, f"{i}-{n}") for i, name in enumerate(names) for n in range(3)]
        + [
            ("test", name, f"{i}-{n + 3}") for i, name in enumerate(names) for n in range(60 if i == 9 else 3)
        ],
        columns=["split", "system", "path"],
    )
    families = rows["system"].where(rows["system"] == "vits|x", "[bold]one")
    return audit(rows.assign(family=families), corpus="mine", shortcuts=shortcuts_of(names))


def shortcuts_of(names):
    """The last two of the systems end at 4 and at 5 kHz; two systems with few files are left out."""
    systems = np.repeat(names, 12)
    table = pd.DataFrame(dict.fromkeys(MEASUREMENTS, 16.0), index=range(len(systems)))
    table["bandwidth_hz"] = np.repeat([8000.0] * 8 + [4000.0, 5000.0], 12)
    return {
        "files": 1234, "unusable_files": 2, "unusable": [], "left_out": {"x": 4, "y": 1}, "folds": 5,
        "sentences_apart": True, "seed": 0,
        **predict_systems(table, systems, np.arange(len(systems)), seed=0),
        "medians": {str(name): values.to_dict() for name, values in table.groupby(systems).median().iterrows()},
    }  # fmt: skip


def test_markdown_tables_have_a_constant_number_of_columns(report):
    for block in render_markdown(report).split("\n\n"):
        if block.startswith("|"):
            widths = {line.replace("\\|", "").count("|") for line in block.splitlines()}
            assert len(widths) == 1


def test_markdown_has_all_findings_and_figures(report):
    text = render_markdown(report)
    assert [finding["check"] for finding in report["findings"]] == ["trials", "shortcuts", "shortcuts"]
    for finding in report["findings"]:
        assert f"{finding['says']}. Remedy: {finding['remedy']}.".replace("|", "\\|") in text
    assert (
        "1,234 files; 2 more are unusable. 10 systems are predicted; chance is 10.0 %. Left out, because of fewer than "
        "5 texts: 2 systems." in text
    )
    assert "| level | 10.0 % | 10.0 to 10.0 % | 1.0 | 0.00 |" in text
    assert "| - pauses | 10.0 % | 10.0 to 10.0 % | 1.0 | 0.00 |" in text
    assert "| vits\\|x | 100 % | bandwidth | 100 % | bandwidth 5,000 Hz |" in text
    assert "| bandwidth 4,000 Hz | 100 % | 100 % | system number 8 |" in text
    assert "| vits\\|x | 16 | 5,000 | 16.0 | 16.000 | 16.000 | 16.0 | 16.00 |" in text


def test_findings_name_the_properties_and_the_systems_that_they_separate(report):
    """Bandwidth tells two of the systems, and one of the eight others: 3 of 10."""
    alone, together = (finding["says"] for finding in report["findings"] if finding["check"] == "shortcuts")
    assert report["shortcuts"]["properties"]["bandwidth"]["ratio_to_chance"] == pytest.approx(3, abs=0.3)
    assert alone.startswith("bandwidth alone predicts the system with a balanced accuracy of ")
    assert "vits|x (bandwidth 5,000 Hz)" in alone
    assert "system number 8 (bandwidth 4,000 Hz)" in alone
    assert together.startswith("sample rate, bandwidth, level, silence, duration together predict the system")


def test_equalised_properties_are_no_finding(report):
    """Of the same corpus without differences, the table of properties stays, and no system is named."""
    names = list(report["shortcuts"]["medians"])
    table = pd.DataFrame(dict.fromkeys(MEASUREMENTS, 1.0), index=range(120))
    equal = predict_systems(table, np.repeat(names, 12), np.arange(120), seed=0)
    titles = [section.title for section in list_shortcut_sections(report["shortcuts"] | equal)]
    assert titles == ["Prediction of the system from simple properties of the audio", "Medians by system"]
    assert list(DESCRIBE["shortcuts"]({"shortcuts": report["shortcuts"] | equal})) == []


def test_only_the_largest_shares_are_named(report):
    (line,) = (
        line for line in render_markdown(report).splitlines() if line.startswith("| test | 10 systems |")
    )
    assert line.count(" %") == MAX_NAMES
    assert "vits\\|x 98.5 %" in line  # 1770 of 1797 pairs


@pytest.mark.parametrize("width", [80, 120])
def test_terminal_output_shows_full_names_at_any_width(report, width):
    console = Console(width=width, file=io.StringIO())
    console.print(render_terminal(report), highlight=False)
    text = console.file.getvalue()
    assert "…" not in text
    assert "[bold]one" in text
    assert max(map(len, text.splitlines())) <= width
    assert "vits|x makes 98.5 % of the target trials of test" in " ".join(text.split())
