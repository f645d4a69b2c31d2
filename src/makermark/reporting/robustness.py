"""The conditions side by side: a table, and a picture in which the weak places stand out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from makermark.reporting.style import save

Told = Mapping[str, Any]

INCHES_PER_ROW = 0.27


class Column(NamedTuple):
    """A figure, its heading, the value at which it is worst, and whether its interval is written."""

    name: str
    heading: str
    best: float
    worst: float
    decimals: int = 1
    interval: bool = False


COLUMNS = (
    Column("eer_micro_percent", "EER micro, %", 0, 50, interval=True),
    Column("eer_macro_percent", "EER macro, %", 0, 50),
    Column("identification_percent", "identified, %", 100, 0, interval=True),
    Column("cllr", "Cllr", 0, 1, decimals=2, interval=True),
    Column("min_cllr", "min Cllr", 0, 1, decimals=2),
    Column("seen_correct_percent", "seen: named, %", 100, 0, decimals=0),
    Column("seen_family_percent", "seen: family, %", 100, 0, decimals=0),
    Column("seen_unknown_percent", "seen: unknown, %", 0, 100, decimals=0),
    Column("seen_wrong_percent", "seen: wrong, %", 0, 100, decimals=0),
    Column("unseen_wrong_percent", "unseen: wrong, %", 0, 100, decimals=0),
)
SHORTCUT_COLUMNS = (
    Column("clean_gallery_identification_percent", "clean gallery, %", 100, 0, interval=True),
    Column("alike_gallery_identification_percent", "gallery alike, %", 100, 0, interval=True),
    Column("stays_percent", "stays, %", 100, 0, decimals=0),
)
EXPLANATION = (
    "{utterances} utterances of test, {utterances_per_system} of each of {systems} systems. EER: every pair of them, "
    "both under the condition. The rest: clips under the condition against a tracer learned and calibrated on clean "
    "speech; identified: how often the likeliest system is the true one, of {seen_utterances} clips of systems it "
    "knows; Cllr above 1: worse than saying nothing. [95 % interval by bootstrap over systems]"
)
SHORTCUTS = (
    "Identification of known systems by the nearest of the centroids of some training utterances, clean ones, or ones "
    "under the same condition as the clips; stays: share of the clean accuracy, gallery and clips alike."
)


def robustness_markdown(told: Told, meanings: Mapping[str, str]) -> str:
    """Both tables as Markdown, from what metrics/robustness.json holds; `meanings` of the conditions by name."""
    parts = [_table(told["conditions"], COLUMNS, meanings), EXPLANATION.format(**told)]
    if told["shortcuts"]:
        parts += [_table(told["shortcuts"], SHORTCUT_COLUMNS, meanings), SHORTCUTS]
    return "\n\n".join(parts) + "\n"


def _table(rows: Told, columns: tuple[Column, ...], meanings: Mapping[str, str]) -> str:
    lines = [["condition", "", *(column.heading for column in columns)]]
    lines.append(["---", "---", *("---:" for _ in columns)])
    lines += [[name, meanings[name], *(_cell(of, column) for column in columns)] for name, of in rows.items()]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(of: Told, column: Column) -> str:
    value = of[column.name]
    if value is None:
        return "-"
    text = f"{value:.{column.decimals}f}"
    interval = of[f"{column.name}_ci95"] if column.interval else None
    if interval is None:
        return text
    return f"{text} [{', '.join(f'{end:.{column.decimals}f}' for end in interval)}]"


def plot_robustness(path: Path, told: Told, *, title: str) -> None:
    """Conditions by figures; the darker a cell, the worse, from the best a figure can be to its worst."""
    conditions = told["conditions"]
    values = np.array(
        [
            [np.nan if of[column.name] is None else of[column.name] for column in COLUMNS]
            for of in conditions.values()
        ],
        dtype=float,
    )
    best, worst = (np.array([getattr(column, end) for column in COLUMNS]) for end in ("best", "worst"))
    bad = np.clip((values - best) / (worst - best), 0, 1)
    figure = Figure(figsize=(9.4, INCHES_PER_ROW * len(conditions) + 1.6))
    axes = figure.subplots()
    axes.imshow(np.ma.masked_invalid(bad), cmap="Oranges", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(len(COLUMNS)), [column.heading for column in COLUMNS], rotation=30, ha="left")
    axes.xaxis.tick_top()
    axes.set_yticks(range(len(conditions)), list(conditions))
    axes.tick_params(length=0, labelsize=9)
    axes.spines[:].set_visible(False)
    for row, column in np.ndindex(*values.shape):
        if np.isfinite(values[row, column]):
            text = f"{values[row, column]:.{COLUMNS[column].decimals}f}"
            colour = "white" if bad[row, column] > 0.65 else "black"
            axes.text(column, row, text, ha="center", va="center", fontsize=8, color=colour)
    groups = [of["group"] for of in conditions.values()]
    for row in range(1, len(groups)):
        if groups[row] != groups[row - 1]:
            axes.axhline(row - 0.5, color="#555555", linewidth=0.8)
    axes.set_title(title, fontsize=11, pad=14)
    save(figure, path)
