"""The audit for people: the terminal shows whole words at any width, Markdown stays a table whatever names hold."""

import io

import pandas as pd
import pytest
from rich.console import Console

from makermark.auditing import audit
from makermark.reporting.audit import LARGEST, audit_markdown, audit_terminal


@pytest.fixture(scope="module")
def report():
    """Ten systems, of which test has one more often than the others; vits|x has a name that Markdown would break."""
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
    heard = {
        "files": 1234, "unusable_files": 2, "unusable": [], "systems": 10, "chance_percent": 10.0,
        "properties": properties, "together_balanced_accuracy_percent": 50.0,
        "medians": {"vits|x": {"sample_rate_hz": 16000.0, "bandwidth_hz": 8e3, "level_dbfs": -26.04,
                               "leading_silence_s": 0.1, "duration_s": 3.0}},
    }  # fmt: skip
    return audit(rows.assign(family=families), corpus="mine", shortcuts=heard)


def test_every_table_in_markdown_keeps_its_columns(report):
    for block in audit_markdown(report).split("\n\n"):
        if block.startswith("|"):
            widths = {line.replace("\\|", "").count("|") for line in block.splitlines()}
            assert len(widths) == 1


def test_markdown_holds_each_finding_and_the_figures_behind(report):
    text = audit_markdown(report)
    assert [found["check"] for found in report["findings"]] == ["trials", "shortcuts"]
    for found in report["findings"]:
        assert f"{found['says']}. Remedy: {found['remedy']}.".replace("|", "\\|") in text
    assert "| level_dbfs | 43.2 % | 0.50 |" in text
    assert "1,234 files of 10 systems; 2 more cannot be used; chance is 10.0 %" in text
    assert "| vits\\|x | 16,000 | 8,000 | -26.0 | 0.10 | 3.00 |" in text


def test_only_the_largest_shares_are_named(report):
    (line,) = (
        line for line in audit_markdown(report).splitlines() if line.startswith("| test | 10 systems |")
    )
    assert line.count(" %") == LARGEST
    assert "vits\\|x 98.5 %" in line  # 1770 of 1797 pairs


@pytest.mark.parametrize("width", [80, 120])
def test_the_terminal_shows_names_as_they_are_and_cuts_nothing(report, width):
    console = Console(width=width, file=io.StringIO())
    console.print(audit_terminal(report), highlight=False)
    text = console.file.getvalue()
    assert "…" not in text
    assert "[bold]one" in text
    assert max(map(len, text.splitlines())) <= width
    assert "vits|x makes 98.5 % of the target trials of test" in " ".join(text.split())
