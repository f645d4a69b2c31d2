"""The audit of a corpus for people: the same sections as Markdown and on the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

Report = Mapping[str, Any]

LARGEST = 6  # systems and families named per split
NOTHING = "Nothing was found that would make a figure misleading."


class Section(NamedTuple):
    """A title, a sentence or none, and a table (no rows: no table)."""

    title: str
    says: str
    header: list[str]
    rows: list[list[str]]


def audit_markdown(report: Report) -> str:
    """The report as Markdown."""
    parts = [f"# Audit of {report['corpus']}"]
    for section in sections(report):
        parts.append(f"## {section.title}")
        parts += [section.says] if section.says else []
        if section.rows:
            lines = [section.header, ["---"] * len(section.header), *section.rows]
            parts.append(
                "\n".join(
                    "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines
                )
            )
    return "\n\n".join(parts) + "\n"


def audit_terminal(report: Report) -> Group:
    """The report for rich.Console.print."""
    parts: list[Text | Table] = []
    for section in sections(report):
        parts.append(Text(section.title, style="bold"))
        parts += [Text(section.says)] if section.says else []
        if section.rows:
            table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
            for name in section.header:
                table.add_column(name, overflow="fold")
            for row in section.rows:
                table.add_row(*map(Text, row))
            parts.append(table)
        else:
            parts.append(Text())
    return Group(*parts)


def sections(report: Report) -> Iterator[Section]:
    """What is shown, in order: the splits, what was found, and the figures behind it."""
    yield Section(
        "Splits",
        "",
        ["split", "rows", "distinct paths", "systems", "languages"],
        [
            [split, *(f"{each[name]:,}" for name in ("utterances", "distinct_paths", "systems", "languages"))]
            for split, each in report["splits"].items()
        ],
    )
    findings = report["findings"]
    yield Section(
        "Findings",
        "" if findings else NOTHING,
        ["check", "what, and what to do"],
        [[each["check"], f"{each['says']}. Remedy: {each['remedy']}."] for each in findings],
    )
    yield _trials(report["trials"])
    if report["families"]["unseen_but_known"]:
        yield _known_families(report["families"]["unseen_but_known"])
    if report["families"]["aliases"]:
        yield _aliases(report["families"]["aliases"])
    if report["shortcuts"]:
        yield _properties(report["shortcuts"])
        yield _medians(report["shortcuts"])


def _trials(trials: Report) -> Section:
    rows = []
    for split, found in trials.items():
        for kind, each in found.items():
            effective = "-" if each["effective"] is None else f"{each['effective']:.1f}"
            largest = list(each["share_percent"].items())[:LARGEST]
            rows.append(
                [
                    split,
                    f"{len(each['share_percent'])} {kind}",
                    effective,
                    f"{each['target_trials']:,} of {each['pairs']:,}",
                    ", ".join(f"{name} {share:.1f} %" for name, share in largest if share > 0) or "-",
                ]
            )
    return Section(
        "Who makes the target trials",
        "Every pair of a split is a trial, a target trial if one system (or family) made both. Effective: how many "
        "makers of equal shares would weigh as much (the inverse of the sum of squared shares).",
        ["split", "makers", "effective", "target trials", "largest shares"],
        rows,
    )


def _known_families(known: list[Report]) -> Section:
    return Section(
        "Unseen systems of families that train has",
        "",
        ["split", "family", "rows", "counted as unseen", "in train"],
        [
            [
                each["split"],
                each["family"],
                f"{each['rows']:,}",
                _names(each["systems"]),
                _names(each["in_train"]),
            ]
            for each in known
        ],
    )


def _aliases(aliases: Mapping[str, Mapping[str, list[str]]]) -> Section:
    splits = ("train", "dev", "test")
    return Section(
        "Families of several systems",
        "How many of their systems stand in each split.",
        ["family", *splits],
        [
            [family, *(str(len(of_split.get(split, []))) for split in splits)]
            for family, of_split in aliases.items()
        ],
    )


def _properties(found: Report) -> Section:
    rows = [
        [name, f"{each['balanced_accuracy_percent']:.1f} %", f"{each['eta_squared']:.2f}"]
        for name, each in found["properties"].items()
    ]
    together = found["together_balanced_accuracy_percent"]
    unusable = f"; {found['unusable_files']} more cannot be used" if found["unusable_files"] else ""
    return Section(
        "What plain properties of the audio tell of the system",
        f"{found['files']:,} files of {found['systems']} systems{unusable}; chance is {found['chance_percent']:.1f} %. "
        "Balanced accuracy of a decision tree that sees one property alone, of a forest that sees all "
        "(cross-validated); eta squared: the share of the property's variance that lies between systems.",
        ["property", "balanced accuracy", "eta squared"],
        [*rows, ["all together", f"{together:.1f} %", ""]],
    )


def _medians(found: Report) -> Section:
    decimals = {
        "sample_rate_hz": 0,
        "bandwidth_hz": 0,
        "level_dbfs": 1,
        "leading_silence_s": 2,
        "duration_s": 2,
    }
    return Section(
        "Medians by system",
        "",
        ["system", *(name.replace("_", " ") for name in decimals)],
        [
            [system, *(f"{each[name]:,.{places}f}" for name, places in decimals.items())]
            for system, each in found["medians"].items()
        ],
    )


def _names(systems: list[str]) -> str:
    shown = ", ".join(systems[:LARGEST])
    return shown if len(systems) <= LARGEST else f"{shown} and {len(systems) - LARGEST} more"
