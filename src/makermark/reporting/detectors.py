"""The picture of how detectors tell known from unknown systems."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from makermark.reporting.curves import legend_below
from makermark.reporting.style import COLOURS, LINES, save, tidy

Numbers = NDArray[np.floating]


def plot_detectors(
    path: Path, curves: Mapping[str, tuple[Numbers, Numbers]], *, chosen: str | None, title: str
) -> None:
    """ROC of each detector: shares (P,) in [0, 1] of unknown and of known utterances accepted.

    The detector that dev chose is drawn bold; the dotted line is where 95 % of the known are accepted.
    """
    figure = Figure(figsize=(5.6, 5.6))
    axes = figure.subplots()
    for number, (name, (unknown, known)) in enumerate(curves.items()):
        axes.plot(
            100 * unknown,
            100 * known,
            LINES[number % len(LINES)],
            color=COLOURS[number % len(COLOURS)],
            linewidth=3 if name == chosen else 1.3,
            label=f"{name} (chosen on dev)" if name == chosen else name,
        )
    axes.plot([0, 100], [0, 100], color="#999999", linewidth=0.8)
    axes.axhline(95, color="#555555", linewidth=0.8, linestyle=":")
    axes.set(
        xlim=(0, 100),
        ylim=(0, 100.5),
        xlabel="unknown utterances accepted, %",
        ylabel="known utterances accepted, %",
        title=title,
    )
    tidy(axes)
    legend_below(axes, columns=3)
    save(figure, path)
