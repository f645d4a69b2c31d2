"""The confusion matrix of a probe."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from makermark.reporting.style import save

INCHES_PER_CLASS = 0.34
SMALLEST_SHARE_WRITTEN = 0.5  # percent


def plot_confusion(path: Path, confusion: NDArray[np.int64], classes: tuple[str, ...], *, title: str) -> None:
    """Draw counts (C, C), rows the true class, as shares of the row in percent."""
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
    for row, column in np.argwhere(shares >= SMALLEST_SHARE_WRITTEN):
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
    axes.set_xlabel("system that the probe said", fontsize=11)
    axes.set_ylabel("true system", fontsize=11)
    axes.set_title(title, fontsize=12)
    bar = figure.colorbar(image, ax=axes, fraction=0.046, pad=0.02)
    bar.set_label("% of the system's utterances", fontsize=10)
    save(figure, path)
