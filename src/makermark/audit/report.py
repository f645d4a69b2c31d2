"""The report of an audit for people: the same sections as Markdown and for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from makermark.audit.section import MAX_NAMES, Report, Section, join_names
from makermark.audit.shortcut_sections import list_shortcut_sections
from makermark.foundation.manifest import SPLITS

NO_FINDINGS = "No property of this corpus was found that would make a figure misleading."


def render_markdown(report: Report) -> str:
    """Return the report as Markdown."""
    parts = [f"# Audit of {report['corpus']}"]
    for section in list_sections(report):
        parts.append(f"## {section.title}")
        parts += [section.explanation] if section.explanation else []
        if section.rows:
            lines = [section.header, ["---"] * len(section.header), *section.rows]
            parts.append("\n".join(_markdown_line(line) for line in lines))
    return "\n\n".join(parts) + "\n"


def _markdown_line(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def render_terminal(report: Report) -> Group:
    """Return the report for rich.Console.print."""
    parts: list[Text | Table] = []
    for section in list_sections(report):
        parts.append(Text(section.title, style="bold"))
        parts += [Text(section.explanation)] if section.explanation else []
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


def list_sections(report: Report) -> Iterator[Section]:
    """Yield the sections in order: the splits, the findings, and the figures on which the findings are based."""
    yield _splits_section(report["splits"])
    yield _findings_section(report["findings"])
    yield _trials_section(report["trials"])
    if report["families"]["unseen_but_known"]:
        yield _known_families_section(report["families"]["unseen_but_known"])
    if report["families"]["aliases"]:
        yield _aliases_section(report["families"]["aliases"])
    if report["shortcuts"]:
        yield from list_shortcut_sections(report["shortcuts"])


def _splits_section(splits: Report) -> Section:
    names = ("utterances", "distinct_paths", "systems", "languages")
    rows = [[split, *(f"{counts[name]:,}" for name in names)] for split, counts in splits.items()]
    return Section("Splits", "", ["split", "rows", "distinct paths", "systems", "languages"], rows)


def _findings_section(findings: list[Report]) -> Section:
    rows = [[finding["check"], f"{finding['says']}. Remedy: {finding['remedy']}."] for finding in findings]
    return Section("Findings", "" if findings else NO_FINDINGS, ["check", "finding and remedy"], rows)


def _trials_section(trials: Report) -> Section:
    rows = []
    for split, result in trials.items():
        for kind, shares in result.items():
            effective = "-" if shares["effective"] is None else f"{shares['effective']:.1f}"
            largest = list(shares["share_percent"].items())[:MAX_NAMES]
            rows.append(
                [
                    split,
                    f"{len(shares['share_percent'])} {kind}",
                    effective,
                    f"{shares['target_trials']:,} of {shares['pairs']:,}",
                    ", ".join(f"{name} {share:.1f} %" for name, share in largest if share > 0) or "-",
                ]
            )
    return Section(
        "Shares of the target trials",
        "Every pair of utterances of a split is a trial. It is a target trial if both utterances have the same system "
        "(or family). Effective: the number of systems with equal shares that would have the same concentration (the "
        "inverse of the sum of squared shares).",
        ["split", "classes", "effective", "target trials", "largest shares"],
        rows,
    )


def _known_families_section(entries: list[Report]) -> Section:
    rows = [
        [
            entry["split"],
            entry["family"],
            f"{entry['rows']:,}",
            join_names(entry["systems"]),
            join_names(entry["in_train"]),
        ]
        for entry in entries
    ]
    return Section(
        "Unseen systems whose family occurs in train",
        "",
        ["split", "family", "rows", "unseen systems", "systems in train"],
        rows,
    )


def _aliases_section(aliases: Mapping[str, Mapping[str, list[str]]]) -> Section:
    rows = [
        [family, *(str(len(systems.get(split, []))) for split in SPLITS)]
        for family, systems in aliases.items()
    ]
    return Section(
        "Families with several systems", "Number of systems in each split.", ["family", *SPLITS], rows
    )
