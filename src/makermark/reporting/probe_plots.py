"""Plots of probed embeddings: confusion matrix, map by UMAP, heat map of Frechet distances, and the training curves."""

from __future__ import annotations

import atexit
import shutil
import tempfile
import warnings
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from scipy.cluster.hierarchy import fcluster, linkage

from makermark.foundation.arrays import Float32Array, IntArray, StrArray
from makermark.foundation.errors import ScoringError
from makermark.foundation.figures import (
    COLOURS,
    GREY,
    add_legend,
    label_points,
    save_figure,
    style_axes,
)
from makermark.foundation.files import atomic_write

if TYPE_CHECKING:
    from makermark.scoring.frechet import FrechetTable

INCHES_PER_CLASS = 0.34
MIN_LABELLED_PERCENT = 0.5  # smaller shares have no text
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
PANEL_COLUMNS = 4
MAP_NOTE = "UMAP: neighbours lie together; far distances have no meaning"
MAX_NAMED_SYSTEMS = 40  # with more systems, neighbouring ones share a label
LABEL_GROUP_EXTENT = 0.08  # largest distance inside a label, as a share of the map's longer side
MIN_SPECTRAL_POINTS = 10  # UMAP's spectral initialisation fails for fewer points


class Style(NamedTuple):
    """Colour and marker of the points of a family."""

    colour: str
    marker: str


def plot_confusion(path: Path, confusion: IntArray, classes: tuple[str, ...], *, title: str) -> None:
    """Plot counts (C, C), rows the true class, as percentages of the row."""
    shares = 100 * confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    side = max(4.0, INCHES_PER_CLASS * len(classes))
    figure = Figure(figsize=(side, side))
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
    ticks = range(len(classes))
    axes.set_xticks(ticks, classes, rotation=90, fontsize=9)
    axes.set_yticks(ticks, classes, fontsize=9)
    axes.set_xticks(np.arange(len(classes) + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(len(classes) + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="#e4e4e4", linewidth=0.5)
    axes.tick_params(which="minor", length=0)
    for row, column in np.argwhere(shares >= MIN_LABELLED_PERCENT):
        share = shares[row, column]
        axes.text(
            column,
            row,
            f"{share:.0f}",
            ha="center",
            va="center",
            fontsize=8,
            color="white" if share > 55 else "black",
        )
    axes.set_xlabel("predicted system", fontsize=11)
    axes.set_ylabel("true system", fontsize=11)
    axes.set_title(title, fontsize=12)
    bar = figure.colorbar(image, ax=axes, fraction=0.046, pad=0.02)
    bar.set_label("% of the system's utterances", fontsize=10)
    save_figure(figure, path)


def write_confusion_csv(path: Path, confusion: IntArray, classes: Sequence[str]) -> None:
    """Write a confusion matrix (C, C), rows the true class, as CSV: actual, predicted, one line per utterance."""
    names = np.array(classes, dtype=object)
    actual, predicted = np.indices(confusion.shape).reshape(2, -1)
    counts = confusion.ravel()
    table = pd.DataFrame(
        {"actual": names[np.repeat(actual, counts)], "predicted": names[np.repeat(predicted, counts)]}
    )
    with atomic_write(path) as draft:
        table.to_csv(draft, index=False, lineterminator="\n")


def project_umap(embeddings: Float32Array, *, seed: int, neighbours: int, min_dist: float) -> Float32Array:
    """Return points (N, 2) of embeddings (N, D) by UMAP with cosine distances (McInnes et al. 2018).

    The same embeddings and seed give the same points on one machine. `neighbours` is limited to N - 1. The axes and the
    distances between far groups have no meaning.

    Raises ScoringError for embeddings without a direction (zero or not finite).
    """
    norms = np.linalg.norm(embeddings, axis=1)
    invalid = np.flatnonzero(~np.isfinite(norms) | (norms == 0))
    if len(invalid):
        raise ScoringError(
            f"embedding {invalid[0]} and {len(invalid) - 1} others are zero or not finite and cannot be projected; "
            "embed again with a model whose training did not diverge"
        )
    if len(embeddings) < 3:
        return np.stack([np.arange(len(embeddings)), np.zeros(len(embeddings))], axis=1).astype(np.float32)
    with warnings.catch_warnings():
        # the import warns that TensorFlow is absent, and a fit that the set is small
        warnings.simplefilter("ignore")
        projection = _import_umap().UMAP(
            n_neighbors=min(neighbours, len(embeddings) - 1),
            min_dist=min_dist,
            metric="cosine",
            random_state=seed,
            n_jobs=1,  # implied by a seed; set explicitly, so that UMAP does not warn
            init="random" if len(embeddings) < MIN_SPECTRAL_POINTS else "spectral",
        )
        points: Float32Array = projection.fit_transform(embeddings).astype(np.float32)
    return points


def _import_umap() -> Any:
    """Import UMAP, which takes seconds and needs a writable folder for Numba's cache: here, if no other is writable.

    The functions that a fit compiles are cached: UMAP would compile them in every process, which takes half a minute.
    """
    try:
        import umap
    except RuntimeError:
        import numba

        folder = tempfile.mkdtemp(prefix="makermark-numba-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        numba.config.CACHE_DIR = folder  # type: ignore[attr-defined]  # set at import
        import umap
    from umap import distances, layouts, umap_, utils

    from makermark.scoring.pairs.cpu import enable_cache

    for function in (
        distances.cosine,
        umap_.smooth_knn_dist,
        umap_.compute_membership_strengths,
        utils.fast_knn_indices,
        layouts._get_optimize_layout_euclidean_single_epoch_fn(parallel=False),
    ):
        enable_cache(function)
    return umap


def plot_system_map(
    path: Path,
    points: Float32Array,
    systems: StrArray,
    families: StrArray,
    *,
    unseen: Collection[str],
    title: str,
) -> None:
    """Plot points (N, 2) with the name of every system at its points; families (N,) have colours and markers.

    Systems in `unseen` have hollow markers. The most frequent families have a colour of their own, the others are grey.
    Above MAX_NAMED_SYSTEMS systems, those that lie close together share a label: the shortest name and how many more.
    """
    names = np.unique(systems).tolist()
    centres = np.stack([central_point(points[systems == name]) for name in names])
    labels = [[number] for number in range(len(names))]
    if len(names) > MAX_NAMED_SYSTEMS:
        labels = group_neighbours(
            centres, max_distance=LABEL_GROUP_EXTENT * float(np.ptp(points, axis=0).max())
        )
    side = 7.4 * max(1.0, (len(labels) / 30) ** 0.5)
    figure = Figure(figsize=(side, 0.9 * side))
    figure.subplots_adjust(left=0.01, right=0.99, bottom=0.01, top=0.99)
    axes = figure.subplots()
    styles = family_styles(families)
    for name in names:
        cloud = points[systems == name]
        style = styles[families[systems == name][0]]
        draw_cloud(axes, cloud, name=name, style=style, hollow=name in unseen)
    axes.set(xticks=[], yticks=[])
    axes.set_title(title, fontsize=12)
    axes.margins(0.11)
    label_points(
        axes,
        [label_of_group([names[number] for number in group]) for group in labels],
        np.stack([central_point(centres[group]) for group in labels]),
        avoid=points,
        fontsize=8.5,
    )
    keys: dict[str, Line2D] = {
        family: Line2D([], [], linestyle="", color=style.colour, marker=style.marker, markersize=6)
        for family, style in styles.items()
        if style.colour != GREY
    }
    others = [family for family, style in styles.items() if style.colour == GREY]
    if others:
        heading = others[0] if len(others) == 1 else f"{len(others)} other families"
        keys[heading] = Line2D(
            [], [], linestyle="", color=GREY, marker=styles[others[0]].marker, markersize=6
        )
    keys["filled: seen in training"] = Line2D([], [], linestyle="", marker="o", color="black", markersize=6)
    if any(name in unseen for name in names):
        keys["hollow: unseen in training"] = Line2D(
            [], [], linestyle="", marker="o", color="black", markersize=6, fillstyle="none"
        )
    axes.set_xlabel(MAP_NOTE, fontsize=9)
    add_legend(
        axes,
        list(keys.values()),
        list(keys),
        loc="upper center",
        bbox_to_anchor=(0.5, -0.04),
        ncols=4,
        frameon=False,
        fontsize=9,
        columnspacing=1.4,
        handletextpad=0.3,
    )
    save_figure(figure, path)


def family_styles(families: StrArray) -> dict[str, Style]:
    """Return a colour and a marker for each family, the most frequent first; families without a colour are grey."""
    names, counts = np.unique(families, return_counts=True)
    ordered = names[np.argsort(-counts, kind="stable")].tolist()
    palette = [*COLOURS, *[GREY] * max(len(ordered) - len(COLOURS), 0)]
    return {
        name: Style(palette[number], MARKERS[min(number, len(MARKERS) - 1)])
        for number, name in enumerate(ordered)
    }


def central_point(points: Float32Array) -> Float32Array:
    """Return the one of points (N, 2) that is nearest to their median."""
    nearest: Float32Array = points[np.linalg.norm(points - np.median(points, axis=0), axis=1).argmin()]
    return nearest


def group_neighbours(centres: Float32Array, *, max_distance: float) -> list[list[int]]:
    """Return groups of row numbers of `centres` (C, 2), no two rows of a group further apart than `max_distance`."""
    groups = fcluster(linkage(centres, method="complete"), max_distance, criterion="distance")
    return [np.flatnonzero(groups == group).tolist() for group in np.unique(groups)]


def label_of_group(names: Sequence[str]) -> str:
    """Return the label of systems that lie close together on a map."""
    shortest = min(names, key=lambda name: (len(name), name))
    return shortest if len(names) == 1 else f"{shortest} and {len(names) - 1} more"


def plot_label_panels(
    path: Path,
    points: Float32Array,
    labels: StrArray,
    *,
    unseen: Collection[str],
    title: str,
) -> None:
    """Plot points (N, 2) in one panel per label: the points of the label in colour, all others in grey.

    Labels in `unseen` come last, with hollow markers.
    """
    names = sorted(np.unique(labels).tolist(), key=lambda name: (name in unseen, name))
    columns = min(PANEL_COLUMNS, len(names))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(max(1.87 * columns, 3.6), 0.75 + 1.95 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, name in zip(panels, names, strict=False):
        own = labels == name
        axes.scatter(*points[~own].T, s=3, color="#cccccc", linewidths=0)
        style = Style(COLOURS[1] if name in unseen else COLOURS[0], "o")
        draw_cloud(axes, points[own], name=name, style=style, hollow=name in unseen, size=12)
        axes.set(xticks=[], yticks=[])
        axes.margins(0.06)
        axes.spines[:].set_color("#bbbbbb")
        axes.set_title(f"{name}, {'unseen' if name in unseen else 'seen'} ({own.sum()})", fontsize=10)
    for axes in panels[len(names) :]:
        axes.remove()
    figure.suptitle(title, fontsize=12)
    figure.supxlabel(f"In brackets: number of utterances. {MAP_NOTE}", fontsize=9)
    save_figure(figure, path)


def draw_cloud(
    axes: Axes, points: Float32Array, *, name: str, style: Style, hollow: bool, size: float = 26
) -> PathCollection:
    """Draw and return the points (N, 2) of one label."""
    return axes.scatter(
        points[:, 0],
        points[:, 1],
        s=size,
        marker=style.marker,
        facecolors="none" if hollow else style.colour,
        edgecolors=style.colour if hollow else "white",
        linewidths=0.9 if hollow else 0.3,
        label=name,
    )


def plot_frechet(path: Path, table: FrechetTable, *, title: str) -> None:
    """Plot a heat map with the floors on the diagonal: a cell as light as its diagonal shows no difference."""
    values = table.distances.copy()
    np.fill_diagonal(values, [np.nan if floor is None else floor for floor in table.floors])
    side = 2.5 + 0.22 * len(table.names)
    figure = Figure(figsize=(side + 1, side))
    axes = figure.subplots()
    image = axes.imshow(values, cmap="cividis_r", vmin=0)
    figure.colorbar(image, ax=axes, shrink=0.8, label="Frechet distance; diagonal: between halves")
    axes.set_xticks(range(len(table.names)), table.names, rotation=90, fontsize=7)
    axes.set_yticks(range(len(table.names)), table.names, fontsize=7)
    axes.set_title(title)
    save_figure(figure, path)


def mark_best(axes: Axes, history: Sequence[Mapping[str, float]]) -> None:
    """Mark the epoch with the lowest dev EER."""
    evaluated = [epoch for epoch in history if "dev_eer_percent" in epoch]
    if evaluated:
        best = min(evaluated, key=lambda epoch: epoch["dev_eer_percent"])
        text = f"best: {best['dev_eer_percent']:.2f} % after epoch {best['epoch']:.0f}"
        axes.set_title(text, fontsize=10, loc="right")
        axes.plot(best["epoch"], best["dev_eer_percent"], "o", markersize=11, fillstyle="none", color="black")


def plot_training(path: Path, history: Sequence[Mapping[str, float]], *, title: str) -> None:
    """Plot loss, dev EER and learning rate over the epochs (one entry of `history` per epoch)."""
    figure = Figure(figsize=(7.5, 7.5), layout="constrained")
    panels = figure.subplots(3, sharex=True, height_ratios=(2, 2, 1))
    series = (
        ("loss", "training loss"),
        ("dev_eer_percent", "dev EER, %"),
        ("learning_rate", "learning rate"),
    )
    for axes, (name, label), colour in zip(panels, series, COLOURS, strict=False):
        points = [(epoch["epoch"], epoch[name]) for epoch in history if name in epoch]
        marker = "o" if len(points) < len(history) or len(points) == 1 else ""
        axes.plot(*np.array(points).reshape(-1, 2).T, marker=marker, color=colour, linewidth=1.8)
        axes.set(ylabel=label, ylim=(0, None) if name != "loss" else None)
        style_axes(axes)
    mark_best(panels[1], history)
    panels[0].set_title(title)
    panels[-1].set_xlabel("epoch")
    panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    panels[-1].ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
    figure.align_ylabels()
    save_figure(figure, path)
