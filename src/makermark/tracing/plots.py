"""Plots of the tracer: Tippett plot, reliability, and its metrics under all conditions as tables and plot."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from makermark.features.augmentation.conditions import CLEAN, SHORTCUT
from makermark.foundation.arrays import BoolArray, FloatArray
from makermark.foundation.figures import COLOURS, GREY, save_figure, style_axes
from makermark.scoring.calibration import ReliabilityBins, tippett_curve
from makermark.tracing.decision import LOG10
from makermark.tracing.evaluation import ReliabilityCurve

INCHES_PER_ROW = 0.2
RELIABILITY_COLUMNS = 4
NOTE_COLOUR = "#555555"
RELIABILITY_NOTE = (
    "posterior probability of the answer, %\n"
    "Dots: known and unknown systems weighted by the prior. Lines: 95 % interval over systems. "
    "Bars: clips, not weighted."
)
GROUP_TITLES = {
    "codec": "Codecs and telephone",
    "noise": "Noise",
    "room": "Rooms and replay",
    "rate and level": "Sample rate and level",
    SHORTCUT: "Without possible shortcuts",
}


class Column(NamedTuple):
    """A metric, its heading, and whether its interval is shown."""

    name: str
    heading: str
    decimals: int = 1
    interval: bool = False


COLUMNS = (
    Column("eer_micro_percent", "EER micro, %", interval=True),
    Column("eer_macro_percent", "EER macro, %"),
    Column("identification_percent", "identified, %", interval=True),
    Column("cllr", "Cllr", decimals=2, interval=True),
    Column("min_cllr", "min Cllr", decimals=2),
    Column("seen_correct_percent", "seen: correct, %", decimals=0),
    Column("seen_family_percent", "seen: family, %", decimals=0),
    Column("seen_unknown_percent", "seen: unknown, %", decimals=0),
    Column("seen_wrong_percent", "seen: wrong, %", decimals=0),
    Column("unseen_wrong_percent", "unseen: wrong, %", decimals=0),
)
SHORTCUT_COLUMNS = (
    Column("clean_gallery_identification_percent", "clean gallery, %", interval=True),
    Column("alike_gallery_identification_percent", "gallery under the condition, %", interval=True),
    Column("stays_percent", "remaining, %", decimals=0),
)
NOTES = (
    "{utterances} utterances of test: {utterances_per_system} of each of {systems} systems. EER: over all pairs of "
    "these utterances, both under the condition. Other columns: clips under the condition, traced with a tracer that "
    "was trained and calibrated on clean speech. Identified: share of the {seen_utterances} clips of known systems "
    "whose top-scoring system is the true one. A Cllr above 1 is worse than no information. In brackets: 95 % "
    "interval, bootstrap over systems."
)
SHORTCUT_NOTES = (
    "Identification of known systems by the nearest centroid of some training utterances: clean ones, or ones under "
    "the same condition as the clips. Remaining: accuracy with gallery and clips under the condition, as a share of "
    "the clean accuracy."
)


def plot_tippett(path: Path, llrs: FloatArray, target: BoolArray, *, title: str) -> None:
    """Write a Tippett plot: the share of target and of non-target trials with at least a given likelihood ratio.

    `llrs` (N,) are natural logarithms; `target` (N,) marks target trials.
    """
    figure = Figure(figsize=(6.4, 4.4))
    axes = figure.subplots()
    trials = {"made by this system": target, "made by another system": ~target}
    for (label, mask), colour in zip(trials.items(), COLOURS, strict=False):
        values, at_least = tippett_curve(llrs[mask])
        axes.step(values / LOG10, 100 * at_least, where="pre", color=colour, linewidth=2, label=label)
    axes.axvline(0, color=GREY, linewidth=0.8)
    axes.set(
        xlabel="log10 of the likelihood ratio",
        ylabel="trials with at least this ratio, %",
        ylim=(0, 100),
        title=title,
    )
    style_axes(axes)
    axes.legend(frameon=False)
    save_figure(figure, path)


def plot_reliability(path: Path, curves: Mapping[str, ReliabilityCurve], *, title: str) -> None:
    """Write a reliability diagram with one panel per name, and the number of clips of each bin beneath.

    Vertical lines are the 95 % intervals; a hollow dot is a bin without an interval.
    """
    columns = min(RELIABILITY_COLUMNS, len(curves))
    rows = -(-len(curves) // columns)
    figure = Figure(figsize=(max(2.0 * columns, 4.0), 0.8 + 3.7 * rows), layout="constrained")
    panels = figure.subplots(2 * rows, columns, squeeze=False, sharex=True, height_ratios=(3, 1.2) * rows)
    lowest = min((float(curve.bins.lower.min()) for curve in curves.values()), default=0.0)
    for number, (name, curve) in enumerate(curves.items()):
        row, column = divmod(number, columns)
        upper, lower = panels[2 * row, column], panels[2 * row + 1, column]
        _draw_reliability(upper, curve, lowest)
        _draw_bin_counts(lower, curve.bins)
        upper.set_title(f"{name}: {curve.bins.trials.sum()} clips", fontsize=10)
        upper.tick_params(labelleft=column == 0, labelsize=9)
        lower.tick_params(labelbottom=True, labelleft=column == 0, labelsize=9)
        lower.set_xlim(100 * lowest, 100)
    for empty in range(len(curves), rows * columns):
        row, column = divmod(empty, columns)
        panels[2 * row, column].remove()
        panels[2 * row + 1, column].remove()
    most = max((int(curve.bins.trials.max()) for curve in curves.values()), default=1)
    for axes in panels[1::2].flat:
        axes.set_ylim(0, 1.3 * most)
    for row in range(rows):
        panels[2 * row, 0].set_ylabel("right answers, %", fontsize=10)
        panels[2 * row + 1, 0].set_ylabel("clips", fontsize=10)
    first = panels[0, 0]
    first.text(0.04, 0.96, "too cautious", transform=first.transAxes, va="top", fontsize=9, color=NOTE_COLOUR)
    first.text(
        0.96, 0.04, "too confident", transform=first.transAxes, ha="right", fontsize=9, color=NOTE_COLOUR
    )
    for text, y, colour in (("right", 0.93, COLOURS[0]), ("wrong", 0.72, COLOURS[1])):
        panels[1, 0].text(
            0.97, y, text, transform=panels[1, 0].transAxes, ha="right", va="top", fontsize=8.5, color=colour
        )
    figure.supxlabel(RELIABILITY_NOTE, fontsize=9)
    figure.suptitle(title, fontsize=12)
    save_figure(figure, path)


def _draw_reliability(axes: Axes, curve: ReliabilityCurve, lowest: float) -> None:
    predicted, observed = 100 * curve.bins.predicted, 100 * curve.bins.observed
    has_interval = np.isfinite(curve.interval_percent[:, 0])
    axes.plot([100 * lowest, 100], [100 * lowest, 100], color=GREY, linewidth=0.9)
    axes.vlines(predicted, *curve.interval_percent.T, color=COLOURS[0], linewidth=2.2, alpha=0.55)
    axes.plot(predicted, observed, color=COLOURS[0], linewidth=0.8)
    for marked, colour in ((has_interval, COLOURS[0]), (~has_interval, "white")):
        axes.plot(
            predicted[marked], observed[marked], "o", markersize=5, color=COLOURS[0], markerfacecolor=colour
        )
    axes.set_ylim(-3, 103)
    style_axes(axes)


def _draw_bin_counts(axes: Axes, bins: ReliabilityBins) -> None:
    """Draw the number of clips in each bin, the right answers below the wrong ones."""
    settings: dict[str, Any] = {"width": 100 * (bins.upper - bins.lower) * 0.86}
    middle, wrong = 50 * (bins.lower + bins.upper), bins.trials - bins.hits
    axes.bar(middle, bins.hits, color=COLOURS[0], **settings)
    axes.bar(middle, wrong, bottom=bins.hits, color=COLOURS[1], **settings)
    for x, count in zip(middle, bins.trials, strict=True):
        axes.text(x, count, f"{count}", ha="center", va="bottom", fontsize=7.5)
    style_axes(axes)


def robustness_markdown(metrics: Mapping[str, Any], descriptions: Mapping[str, str]) -> str:
    """Return both tables as Markdown, from the content of metrics/robustness.json.

    `descriptions` explains each condition, by name.
    """
    parts = [_markdown_table(metrics["conditions"], COLUMNS, descriptions), NOTES.format(**metrics)]
    if metrics["shortcuts"]:
        parts += [_markdown_table(metrics["shortcuts"], SHORTCUT_COLUMNS, descriptions), SHORTCUT_NOTES]
    return "\n\n".join(parts) + "\n"


def _markdown_table(
    rows: Mapping[str, Any], columns: tuple[Column, ...], descriptions: Mapping[str, str]
) -> str:
    lines = [["condition", "", *(column.heading for column in columns)]]
    lines.append(["---", "---", *("---:" for _ in columns)])
    lines += [
        [name, descriptions[name], *(_format_cell(row, column) for column in columns)]
        for name, row in rows.items()
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _format_cell(row: Mapping[str, Any], column: Column) -> str:
    value = row[column.name]
    if value is None:
        return "-"
    text = f"{value:.{column.decimals}f}"
    interval = row[f"{column.name}_ci95"] if column.interval else None
    if interval is None:
        return text
    return f"{text} [{', '.join(f'{end:.{column.decimals}f}' for end in interval)}]"


def robustness_csv(metrics: Mapping[str, Any], descriptions: Mapping[str, str]) -> str:
    """Return all figures of the conditions as CSV: one line per condition, and two columns per interval."""
    rows = []
    for name, row in metrics["conditions"].items():
        line: dict[str, Any] = {
            "condition": name, "group": row["group"], "description": descriptions[name]
        }  # fmt: skip
        for metric, value in row.items():
            if metric.endswith("_ci95"):
                line |= dict(zip((f"{metric}_low", f"{metric}_high"), value or (None, None), strict=True))
            elif metric != "group":
                line[metric] = value
        rows.append(line)
    return str(pd.DataFrame(rows).to_csv(index=False, lineterminator="\n"))


def plot_robustness(path: Path, metrics: Mapping[str, Any], *, title: str) -> None:
    """Plot the identification under each condition, as its fall from clean speech, and the Cllr beside it.

    The conditions are in their groups, in the order of their identification. Thin lines are 95 % intervals.
    """
    conditions = metrics["conditions"]
    clean = conditions[CLEAN]
    lines = _robustness_lines(conditions)
    figure = Figure(figsize=(7.6, INCHES_PER_ROW * len(lines) + 1.5), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    for axes, metric, colour in ((left, "identification_percent", COLOURS[0]), (right, "cllr", COLOURS[1])):
        if clean[metric] is not None:
            axes.axvline(clean[metric], color=NOTE_COLOUR, linewidth=1)
        for y, name in enumerate(lines):
            value = conditions[name][metric] if name in conditions else None
            if value is None:
                continue
            if clean[metric] is not None:
                axes.plot(
                    [clean[metric], value],
                    [y, y],
                    color=colour,
                    linewidth=4,
                    alpha=0.35,
                    solid_capstyle="butt",
                )
            if interval := conditions[name][f"{metric}_ci95"]:
                axes.plot(interval, [y, y], color=colour, linewidth=0.9)
            axes.plot(value, y, "o", color=colour, markersize=5)
        style_axes(axes)
        axes.grid(visible=False, axis="y")
        axes.tick_params(labelsize=9)
    right.axvline(1, color="black", linewidth=1, linestyle="--")
    left.set(xlim=(0, 103), ylim=(len(lines) - 0.4, -1.3))
    right.set_xlim(left=0)
    left.set_yticks(range(len(lines)), lines, fontsize=9)
    for axes in (left, right):
        axes.tick_params(axis="y", length=0)
    for name, label in zip(lines, left.get_yticklabels(), strict=True):
        if name not in conditions:
            label.set_fontweight("bold")
    for axes, x, text, alignment in (
        (left, clean["identification_percent"], "clean", "right"),
        (right, clean["cllr"], "clean", "left"),
        (right, 1, "> 1: worse than none", "left"),
    ):
        if x is not None:
            axes.text(x, -0.6, f" {text} ", ha=alignment, fontsize=8.5, color=NOTE_COLOUR)
    left.set_xlabel("clips by known systems\nwith the right top-scoring system, %", fontsize=10)
    right.set_xlabel("cost of the likelihood ratios,\nCllr in bits", fontsize=10)
    figure.suptitle(title, fontsize=12)
    save_figure(figure, path)


def _robustness_lines(conditions: Mapping[str, Any]) -> list[str]:
    """Return the lines of the plot: the title of each group, followed by its conditions, best first."""
    lines: list[str] = []
    groups = {row["group"]: None for name, row in conditions.items() if name != CLEAN}
    for group in groups:
        names = [name for name, row in conditions.items() if row["group"] == group and name != CLEAN]
        values = {name: conditions[name]["identification_percent"] for name in names}
        names.sort(key=lambda name: -1 if values[name] is None else values[name], reverse=True)
        lines += [GROUP_TITLES.get(group, group), *names]
    return lines
