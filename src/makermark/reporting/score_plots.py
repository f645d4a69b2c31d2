"""Plots of evaluated embeddings: DET curves and score histograms of all pairs, and ROC curves of detectors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.special import ndtri

from makermark.foundation.arrays import FloatArray, IntArray, RealArray
from makermark.foundation.figures import COLOURS, GREY, LINE_STYLES, add_legend, save_figure, style_axes
from makermark.foundation.files import atomic_write

if TYPE_CHECKING:
    from makermark.scoring.evaluation import EvaluationResult

MODEL = "model"
TICKS_PERCENT = (0.01, 0.1, 0.5, 1, 2, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 98, 99, 99.5, 99.9, 99.99)
MAX_PERCENT = 80.0  # upper end of the axes; higher error rates are of no practical use


def plot_pair_scores(plots: Path, evaluations: Mapping[str, EvaluationResult]) -> None:
    """Plot the DET curves of every split (PNG and CSV), and the score histograms of the model.

    det.csv holds all curves. `dvc plots` draws one line per file: det_SPLIT.csv holds that of the model.
    `evaluations` holds the results of the model and of its baselines by name.
    """
    curves = {
        (split, name): (det.false_accept_rate, det.miss_rate)
        for name, evaluation in evaluations.items()
        for split, pairs in evaluation.pairs.items()
        if (det := pairs.det)
    }
    write_det_csv(plots / "det.csv", curves)
    for split, model in evaluations[MODEL].pairs.items():
        split_curves = {name: rates for (part, name), rates in curves.items() if part == split}
        write_det_csv(plots / f"det_{split}.csv", {(split, MODEL): split_curves[MODEL]})
        plot_det(
            plots / f"det_{split}.png", split_curves, title=f"Detection error trade-off, {split}, all pairs"
        )
        if model.histogram:
            plot_histograms(
                plots / f"scores_{split}.png",
                edges=model.histogram.edges,
                targets=model.histogram.targets,
                nontargets=model.histogram.nontargets,
                threshold=model.eer_threshold,
                title=f"Cosine of every pair, {split}",
            )


def plot_detector_rocs(plots: Path, evaluation: EvaluationResult, split: str) -> None:
    """Plot the ROC of every detector on one split; the detector chosen on dev has a bold line."""
    plot_detectors(
        plots / f"detectors_{split}.png",
        {name: (rates.unknown, rates.known) for name, rates in evaluation.rates[split].items()},
        chosen=evaluation.metrics[split]["out_of_domain"]["chosen_on_dev"],
        title=f"Detection of unseen systems, {split}",
    )


def write_det_csv(path: Path, curves: Mapping[tuple[str, str], tuple[FloatArray, FloatArray]]) -> None:
    """Write DET points as CSV with the columns set, model, false_accept_percent, miss_percent.

    `curves` holds false-accept and miss rates (P,) in [0, 1] by (set, model).
    """
    parts = [
        pd.DataFrame(
            {
                "set": split,
                "model": model,
                "false_accept_percent": 100 * false_accept,
                "miss_percent": 100 * miss,
            }
        )
        for (split, model), (false_accept, miss) in curves.items()
    ]
    with atomic_write(path) as draft:
        pd.concat(parts).to_csv(draft, index=False, float_format="%.6g", lineterminator="\n")


def plot_det(path: Path, curves: Mapping[str, tuple[FloatArray, FloatArray]], *, title: str) -> None:
    """Plot detection error trade-off curves (Martin et al. 1997), one line per name.

    `curves` holds false-accept and miss rates (P,) in [0, 1]. The axes are probits, on which normally distributed
    scores give straight lines. The EER is where a line meets the diagonal.
    """
    figure = Figure(figsize=(6.4, 6.4))
    axes = figure.subplots()
    lowest = max(0.01, min(lowest_percent(rates) for curve in curves.values() for rates in curve))
    low, high = ndtri(lowest / 100), ndtri(MAX_PERCENT / 100)
    (equal,) = axes.plot([low, high], [low, high], color=GREY, linewidth=0.8)
    handles: dict[str, Artist] = {}
    for number, (name, (false_accept, miss)) in enumerate(curves.items()):
        (handles[name],) = axes.plot(
            probit(false_accept),
            probit(miss),
            LINE_STYLES[number % len(LINE_STYLES)],
            color=COLOURS[number % len(COLOURS)],
            linewidth=2,
            label=name,
        )
    ticks = [tick for tick in TICKS_PERCENT if lowest <= tick <= MAX_PERCENT]
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(ndtri(np.array(ticks) / 100), [f"{tick:g}" for tick in ticks])
    axes.set(
        xlim=(low, high),
        ylim=(low, high),
        aspect="equal",
        xlabel="false-accept rate, % of the pairs of two systems",
        ylabel="miss rate, % of the pairs of one system",
        title=title,
    )
    style_axes(axes)
    legend_below(axes, {**handles, "miss rate = false-accept rate": equal}, columns=2)
    save_figure(figure, path)


def lowest_percent(rates: FloatArray) -> float:
    """Return the lowest rate above zero, in percent, limited to 5 so that the axes have a minimum length."""
    positive = rates[rates > 0]
    return min(5.0, 100 * float(positive.min())) if len(positive) else 5.0


def probit(rates: FloatArray) -> FloatArray:
    """Return normal quantiles of rates; 0 and 1 fall outside the axes."""
    quantiles: FloatArray = ndtri(np.clip(rates, 1e-9, 1 - 1e-9))
    return quantiles


def plot_histograms(
    path: Path,
    *,
    edges: FloatArray,
    targets: IntArray,
    nontargets: IntArray,
    threshold: float | None,
    title: str,
) -> None:
    """Plot the score densities of both kinds of trials, from counts (K,) between edges (K + 1,).

    `threshold` is the score at which the error rates are equal. Bins have no width if all scores are nearly equal, as
    with an untrained network; their density is drawn as 0.
    """
    figure = Figure(figsize=(7.5, 4.2))
    axes = figure.subplots()
    kinds = (
        ("two systems (non-target)", nontargets, COLOURS[1]),
        ("one system (target)", targets, COLOURS[0]),
    )
    handles: dict[str, Artist] = {}
    for name, counts, colour in kinds:
        share, widths = counts / max(counts.sum(), 1), np.diff(edges)
        density = np.divide(share, widths, out=np.zeros_like(share), where=widths > 0)
        axes.stairs(density, edges, fill=True, color=colour, alpha=0.3)
        text = f"{name}: {counts.sum():,} pairs"
        handles[text] = axes.stairs(density, edges, color=colour, linewidth=1.5)
    if threshold is not None:
        handles[f"EER threshold {threshold:.2f}"] = axes.axvline(
            threshold, color="black", linestyle="--", linewidth=1
        )
    axes.set(xlabel="cosine of the pair", ylabel="density", title=title, ylim=(0, None))
    style_axes(axes)
    legend_below(axes, handles, columns=2)
    save_figure(figure, path)


def legend_below(axes: Axes, handles: Mapping[str, Artist], *, columns: int) -> None:
    """Put the legend of the handles, by name, below the axis labels, outside the data."""
    add_legend(
        axes,
        list(handles.values()),
        list(handles),
        loc="upper center",
        bbox_to_anchor=(0.5, -0.13),
        ncols=columns,
        frameon=False,
    )


def plot_detectors(
    path: Path, curves: Mapping[str, tuple[RealArray, RealArray]], *, chosen: str | None, title: str
) -> None:
    """Plot the ROC of every detector, from the shares (P,) of unknown and of known utterances accepted.

    The detector `chosen` on dev has a bold line. The dotted line marks 95 % of the known utterances accepted.
    """
    figure = Figure(figsize=(5.6, 5.6))
    axes = figure.subplots()
    handles: dict[str, Artist] = {}
    for number, (name, (unknown, known)) in enumerate(curves.items()):
        text = f"{name} (chosen on dev)" if name == chosen else name
        (handles[text],) = axes.plot(
            100 * unknown,
            100 * known,
            LINE_STYLES[number % len(LINE_STYLES)],
            color=COLOURS[number % len(COLOURS)],
            linewidth=3 if name == chosen else 1.3,
            label=name,
        )
    axes.plot([0, 100], [0, 100], color=GREY, linewidth=0.8)
    axes.axhline(95, color="#555555", linewidth=0.8, linestyle=":")
    axes.set(
        xlim=(0, 100),
        ylim=(0, 100.5),
        xlabel="unknown utterances accepted, %",
        ylabel="known utterances accepted, %",
        title=title,
    )
    style_axes(axes)
    legend_below(axes, handles, columns=3)
    save_figure(figure, path)
