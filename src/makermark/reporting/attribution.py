"""Pictures of what a network looked at: one clip, the profiles of systems, deletion curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from makermark.files import replacing
from makermark.reporting.style import COLOURS, LINES, save, tidy

Numbers = NDArray[np.floating[Any]]


def plot_attribution(
    path: Path, log_mel: Numbers, attribution: Numbers, *, times_s: Numbers, bands_hz: Numbers, title: str
) -> None:
    """A clip's filterbank (T, F) above its attribution (T, F): red speaks for the system, blue against."""
    figure = Figure(figsize=(9, 5.2))
    above, below = figure.subplots(2, 1, sharex=True)
    limit = float(np.quantile(np.abs(attribution), 0.995)) or 1.0
    _bands_by_time(above, log_mel, times_s, bands_hz, cmap="Greys")
    image = _bands_by_time(below, attribution, times_s, bands_hz, cmap="RdBu_r", vmin=-limit, vmax=limit)
    above.set_title(title, fontsize=12)
    below.set_xlabel("time, s")
    figure.colorbar(image, ax=[above, below], fraction=0.03, pad=0.02).set_label("attribution of a cell")
    save(figure, path)


def _bands_by_time(axes: Axes, values: Numbers, times_s: Numbers, bands_hz: Numbers, **look: Any) -> Any:
    ends = (float(times_s[0]), float(times_s[-1]), -0.5, len(bands_hz) - 0.5)
    image = axes.imshow(values.T, origin="lower", aspect="auto", extent=ends, interpolation="nearest", **look)
    axes.set_yticks(*_band_ticks(bands_hz))
    axes.set_ylabel("kHz")
    return image


def _band_ticks(bands_hz: Numbers) -> tuple[Numbers, list[str]]:
    """Places between bands, and their names in kHz."""
    wanted = np.array([0.3, 0.5, 1, 2, 3, 4, 6])
    return np.interp(1000 * wanted, bands_hz, np.arange(len(bands_hz))), [f"{khz:g}" for khz in wanted]


def plot_band_profiles(
    path: Path, systems: Sequence[str], profiles: Numbers, *, bands_hz: Numbers, title: str
) -> None:
    """Percent of each band in what was attributed, (S, F)."""
    _plot_profiles(path, systems, profiles, ticks=_band_ticks(bands_hz), xlabel="band, kHz", title=title)


def plot_time_profiles(path: Path, systems: Sequence[str], profiles: Numbers, *, title: str) -> None:
    """Percent of each part of the clip's time in what was attributed, (S, P)."""
    parts = profiles.shape[1]
    places = np.linspace(-0.5, parts - 0.5, 5)
    ticks = (places, [f"{percent:g}" for percent in np.linspace(0, 100, 5)])
    _plot_profiles(path, systems, profiles, ticks=ticks, xlabel="time, % of the clip", title=title)


def _plot_profiles(
    path: Path,
    systems: Sequence[str],
    profiles: Numbers,
    *,
    ticks: tuple[Numbers, list[str]],
    xlabel: str,
    title: str,
) -> None:
    figure = Figure(figsize=(8, 1.4 + 0.26 * len(systems)))
    axes = figure.subplots()
    limit = float(np.abs(profiles).max()) or 1.0
    image = axes.imshow(
        profiles, aspect="auto", cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest"
    )
    axes.set_xticks(*ticks)
    axes.set_yticks(range(len(systems)), systems, fontsize=9)
    axes.set_xlabel(xlabel)
    axes.set_title(title, fontsize=12)
    figure.colorbar(image, ax=axes, fraction=0.04, pad=0.02).set_label("% of what was attributed")
    save(figure, path)


def plot_deletion(
    path: Path, curves: Mapping[str, tuple[Numbers, Mapping[str, Numbers]]], *, title: str
) -> None:
    """A panel for each method: mean cosine (K,) against the share (K,) deleted, for each way to delete."""
    figure = Figure(figsize=(3.4 * len(curves), 3.6))
    panels = figure.subplots(1, len(curves), sharey=True, squeeze=False)[0]
    for axes, (name, (shares, ways)) in zip(panels, curves.items(), strict=True):
        for number, (way, cosines) in enumerate(ways.items()):
            axes.plot(
                100 * shares,
                cosines,
                LINES[number],
                color=COLOURS[number],
                marker="o",
                markersize=3,
                label=way,
            )
        axes.set_title(name, fontsize=10)
        axes.set_xlabel("deleted, %")
        tidy(axes)
    panels[0].set_ylabel("cosine to the system")
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="upper center", ncols=3, bbox_to_anchor=(0.5, 0.02)
    )
    figure.suptitle(title, fontsize=12, y=1.02)
    save(figure, path)


def write_band_profiles(path: Path, systems: Sequence[str], profiles: Numbers, bands_hz: Numbers) -> None:
    """The figures behind `plot_band_profiles` as CSV: system, band_hz, percent."""
    rows = [
        f"{system},{band:.0f},{percent:.3f}"
        for system, profile in zip(systems, profiles, strict=True)
        for band, percent in zip(bands_hz, profile, strict=True)
    ]
    with replacing(path) as draft:
        draft.write_text("\n".join(["system,band_hz,percent", *rows, ""]), encoding="utf-8")
