"""The report of an audit: full words on the terminal at any width, valid Markdown tables for any names."""

import io

import pandas as pd
import pytest
from rich.console import Console

from makermark.audit import audit
from makermark.audit.report import MAX_NAMES, render_markdown, render_terminal


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
    properties = {"level_dbfs": {"balanced_accuracy_percent": 43.21, "eta_squared": 0.5, "remedy": "none"}}
    shortcuts = {
        "files": 1234, "unusable_files": 2, "unusable": [], "systems": 10, "chance_percent": 10.0,
        "properties": properties, "together_balanced_accuracy_percent": 50.0,
        "medians": {"vits|x": {"sample_rate_hz": 16000.0, "bandwidth_hz": 8e3, "level_dbfs": -26.04,
                               "leading_silence_s": 0.1, "duration_s": 3.0}},
    }  # fmt: skip
    return audit(rows.assign(family=families), corpus="mine", shortcuts=shortcuts)


def test_markdown_tables_have_a_constant_number_of_columns(report):
    for block in render_markdown(report).split("\n\n"):
        if block.startswith("|"):
            widths = {line.replace("\\|", "").count("|") for line in block.splitlines()}
            assert len(widths) == 1


def test_markdown_has_all_findings_and_figures(report):
    text = render_markdown(report)
    assert [finding["check"] for finding in report["findings"]] == ["trials", "shortcuts"]
    for finding in report["findings"]:
        assert f"{finding['says']}. Remedy: {finding['remedy']}.".replace("|", "\\|") in text
    assert "| level_dbfs | 43.2 % | 0.50 |" in text
    assert "1,234 files of 10 systems; 2 more are unusable; chance is 10.0 %" in text
    assert "| vits\\|x | 16,000 | 8,000 | -26.0 | 0.10 | 3.00 |" in text


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
