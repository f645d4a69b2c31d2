"""The map of embeddings, coloured by system or by language."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from makermark.reporting.style import COLOURS, save

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
ROWS_OF_LEGEND = 32


def plot_map(
    path: Path,
    places: NDArray[np.float32],
    labels: NDArray[np.str_],
    *,
    unseen: Collection[str],
    what: str,
    title: str,
) -> None:
    """Draw places (N, 2) with a colour and marker for each label (N,): filled, or hollow where `unseen`.

    `what` says what the labels are, such as `system`.
    """
    figure = Figure(figsize=(8, 8))
    axes = figure.subplots()
    names = np.unique(labels).tolist()
    seen = [name for name in names if name not in unseen]
    never = [name for name in names if name in unseen]
    for group in (seen, never):
        for number, name in enumerate(group):
            draw(axes, places[labels == name], name=name, number=number, hollow=name in unseen)
    axes.set(
        xticks=[], yticks=[], title=title, xlabel="UMAP: neighbours lie together, far distances say nothing"
    )
    handles, texts = axes.get_legend_handles_labels()
    left = 1.02
    for heading, group, first in (("seen", seen, 0), ("unseen", never, len(seen))):
        if group:
            legend = figure.legend(
                handles[first : first + len(group)],
                texts[first : first + len(group)],
                title=f"{what}: {heading} in training",
                loc="upper left",
                bbox_to_anchor=(left, 1.0),
                bbox_transform=axes.transAxes,
                borderaxespad=0,
                ncols=1 + (len(group) - 1) // ROWS_OF_LEGEND,
                alignment="left",
                frameon=False,
                fontsize=9,
            )
            figure.draw_without_rendering()
            left = legend.get_window_extent().transformed(axes.transAxes.inverted()).x1 + 0.02
    save(figure, path)


def draw(axes: Axes, places: NDArray[np.float32], *, name: str, number: int, hollow: bool) -> None:
    """The points of one label. 7 colours and 8 markers both change with `number`: 56 labels differ."""
    colour = COLOURS[number % len(COLOURS)]
    axes.scatter(
        places[:, 0],
        places[:, 1],
        s=32,
        marker=MARKERS[number % len(MARKERS)],
        facecolors="none" if hollow else colour,
        edgecolors=colour if hollow else "white",
        linewidths=1.1 if hollow else 0.3,
        label=name,
    )
