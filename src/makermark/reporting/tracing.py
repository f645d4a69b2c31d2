"""Pictures of likelihood ratios: how often they mislead (Tippett), and whether probabilities come true."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from makermark.reporting.style import COLOURS, save, tidy
from makermark.scoring.calibration import Reliability, tippett

LOG10 = float(np.log(10.0))

Numbers = NDArray[np.floating[Any]]


def plot_tippett(path: Path, llrs: Numbers, target: NDArray[np.bool_], *, title: str) -> None:
    """Of LLRs (N,), natural logarithm: the share of trials with at least this ratio, for each kind of trial."""
    figure = Figure(figsize=(6.4, 4.4))
    axes = figure.subplots()
    kinds = {"made by this system": target, "made by another": ~target}
    for number, (name, of_kind) in enumerate(kinds.items()):
        values, at_least = tippett(llrs[of_kind])
        axes.step(values / LOG10, 100 * at_least, where="pre", color=COLOURS[number], linewidth=2, label=name)
    axes.axvline(0, color="#999999", linewidth=0.8)
    axes.set(
        xlabel="log10 of the likelihood ratio",
        ylabel="clips with at least this ratio, %",
        ylim=(0, 100),
        title=title,
    )
    tidy(axes)
    axes.legend(frameon=False)
    save(figure, path)


def plot_reliability(path: Path, curves: Mapping[str, Reliability], *, title: str) -> None:
    """Probabilities said against shares that came true; the size of a dot is the share of the clips in it."""
    figure = Figure(figsize=(5.2, 5.2))
    axes = figure.subplots()
    axes.plot([0, 100], [0, 100], color="#999999", linewidth=0.8, label="said = happened")
    for number, (name, curve) in enumerate(curves.items()):
        colour = COLOURS[number % len(COLOURS)]
        axes.plot(100 * curve.said, 100 * curve.happened, color=colour, linewidth=1, label=name)
        axes.scatter(
            100 * curve.said, 100 * curve.happened, s=300 * curve.weight / curve.weight.sum(), color=colour
        )
    axes.set(
        xlabel="largest probability said, %",
        ylabel="came true, %",
        xlim=(0, 100),
        ylim=(0, 100),
        aspect="equal",
        title=title,
    )
    tidy(axes)
    axes.legend(frameon=False)
    save(figure, path)
