"""Curves: errors against errors (DET), scores, and the course of a training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from scipy.special import ndtri

from makermark.reporting.style import COLOURS, LINES, save, tidy

Numbers = NDArray[np.float64]

TICKS_PERCENT = (0.01, 0.1, 0.5, 1, 2, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 98, 99, 99.5, 99.9, 99.99)
HIGHEST_PERCENT = 80.0  # beyond it nobody operates


def plot_det(path: Path, curves: Mapping[str, tuple[Numbers, Numbers]], *, title: str) -> None:
    """Detection error trade-off (Martin et al. 1997): one line for each name.

    `curves` gives false-accept and miss rates (P,) in [0, 1]. The axes are probits, on which scores
    that are normally distributed give straight lines; the EER is where a line meets the diagonal.
    """
    figure = Figure(figsize=(6.4, 6.4))
    axes = figure.subplots()
    lowest = max(0.01, min(lowest_percent(rates) for curve in curves.values() for rates in curve))
    low, high = ndtri(lowest / 100), ndtri(HIGHEST_PERCENT / 100)
    axes.plot([low, high], [low, high], color="#999999", linewidth=0.8, label="miss = false accept")
    for number, (name, (false_accept, miss)) in enumerate(curves.items()):
        axes.plot(
            probit(false_accept),
            probit(miss),
            LINES[number % len(LINES)],
            color=COLOURS[number % len(COLOURS)],
            linewidth=2,
            label=name,
        )
    ticks = [tick for tick in TICKS_PERCENT if lowest <= tick <= HIGHEST_PERCENT]
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(ndtri(np.array(ticks) / 100), [f"{tick:g}" for tick in ticks])
    axes.set(
        xlim=(low, high),
        ylim=(low, high),
        aspect="equal",
        xlabel="false accepts, % of the pairs of two systems",
        ylabel="misses, % of the pairs of one system",
        title=title,
    )
    tidy(axes)
    legend_below(axes, columns=2)
    save(figure, path)


def lowest_percent(rates: Numbers) -> float:
    """The lowest rate above zero, in percent, and at most 5 so that the axes have room."""
    above = rates[rates > 0]
    return min(5.0, 100 * float(above.min())) if len(above) else 5.0


def probit(rates: Numbers) -> Numbers:
    """Normal quantiles of rates; 0 and 1 are drawn beyond the edge of the picture."""
    quantiles: Numbers = ndtri(np.clip(rates, 1e-9, 1 - 1e-9))
    return quantiles


def plot_histograms(
    path: Path,
    *,
    edges: Numbers,
    targets: NDArray[np.int64],
    nontargets: NDArray[np.int64],
    threshold: float | None,
    title: str,
) -> None:
    """Densities of the scores of both kinds of trials, from counts (K,) between edges (K + 1,).

    `threshold` is where the error rates are equal.
    """
    figure = Figure(figsize=(7.5, 4.2))
    axes = figure.subplots()
    kinds = (
        ("two systems (non-target)", nontargets, COLOURS[1]),
        ("one system (target)", targets, COLOURS[0]),
    )
    for name, counts, colour in kinds:
        density = counts / max(counts.sum(), 1) / np.diff(edges)
        axes.stairs(density, edges, fill=True, color=colour, alpha=0.3)
        axes.stairs(density, edges, color=colour, linewidth=1.5, label=f"{name}: {counts.sum():,} pairs")
    if threshold is not None:
        axes.axvline(
            threshold, color="black", linestyle="--", linewidth=1, label=f"equal errors at {threshold:.2f}"
        )
    axes.set(xlabel="cosine of the pair", ylabel="density", title=title, ylim=(0, None))
    tidy(axes)
    legend_below(axes, columns=2)
    save(figure, path)


def legend_below(axes: Axes, *, columns: int) -> None:
    """The legend under the axis labels, where it hides no data."""
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=columns, frameon=False)


def mark_best(axes: Axes, history: Sequence[Mapping[str, float]]) -> None:
    """Write the lowest dev EER beside its point."""
    evaluated = [epoch for epoch in history if "dev_eer_percent" in epoch]
    if evaluated:
        best = min(evaluated, key=lambda epoch: epoch["dev_eer_percent"])
        text = f"best: {best['dev_eer_percent']:.2f} % after epoch {best['epoch']:.0f}"
        axes.set_title(text, fontsize=10, loc="right")
        axes.plot(best["epoch"], best["dev_eer_percent"], "o", markersize=11, fillstyle="none", color="black")


def plot_training(path: Path, history: Sequence[Mapping[str, float]], *, title: str) -> None:
    """Loss, dev EER and learning rate over the epochs of a training (one entry of `history` each)."""
    figure = Figure(figsize=(7.5, 7.5), layout="constrained")
    panels = figure.subplots(3, sharex=True, height_ratios=(2, 2, 1))
    shown = (("loss", "training loss"), ("dev_eer_percent", "dev EER, %"), ("learning_rate", "learning rate"))
    for axes, (name, label), colour in zip(panels, shown, COLOURS, strict=False):
        points = [(epoch["epoch"], epoch[name]) for epoch in history if name in epoch]
        marker = "o" if len(points) < len(history) or len(points) == 1 else ""
        axes.plot(*np.array(points).reshape(-1, 2).T, marker=marker, color=colour, linewidth=1.8)
        axes.set(ylabel=label, ylim=(0, None) if name != "loss" else None)
        tidy(axes)
    mark_best(panels[1], history)
    panels[0].set_title(title)
    panels[-1].set_xlabel("epoch")
    panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    panels[-1].ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
    figure.align_ylabels()
    save(figure, path)
