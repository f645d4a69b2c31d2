"""Explanation of test clips: attribution profiles of each system, deletion tests over many clips, and their plots.

Legend of axes: N clips, S systems, F bands, P parts of the time, K shares.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from makermark.examination.attribution.clip_explanation import prepare_clip
from makermark.examination.attribution.deletion_test import UNITS, DeletionResult, run_deletion_test
from makermark.examination.attribution.methods import (
    METHODS,
    AttributionMap,
    cosine_and_baseline,
    supported_methods,
)
from makermark.foundation.arrays import FloatArray, StrArray
from makermark.foundation.errors import ManifestError
from makermark.foundation.figures import (
    COLOURS,
    LINE_STYLES,
    TEXT_COLOUR,
    label_points,
    save_figure,
    style_axes,
)
from makermark.foundation.files import atomic_write
from makermark.foundation.manifest import Manifest
from makermark.foundation.progress import track
from makermark.tracing.evaluation import bootstrap_over_systems, weighted_mean
from makermark.tracing.tracer import Tracer

TIME_PARTS = 20  # equal parts of the time of a clip
END_PARTS = 2  # parts at the beginning and at the end that count as ends
TELEPHONE_BAND_HZ = (300.0, 3400.0)
PROFILE_METHOD = "integrated_gradients"
TICKS_KHZ = (0.3, 0.5, 1, 2, 3, 4, 6)
MIN_TICK_DISTANCE = 0.04  # of the width of the axis; of closer ticks only the higher one is shown
MAX_PROFILES = 24  # in a plot; of more systems those with the highest and the lowest shares are shown


@dataclass(frozen=True)
class ExplainedClips:
    """Clips, each explained for its true system.

    - systems (N,), bands_hz (F,)
    - band_profiles (N, F), time_profiles (N, P): integrated gradients summed over time and over bands, in units of the
      cosine
    - completeness_gaps (N,): as in Explanation
    - deletions: for each method and unit, one result per clip
    """

    systems: StrArray
    bands_hz: FloatArray
    band_profiles: FloatArray
    time_profiles: FloatArray
    completeness_gaps: FloatArray
    deletions: dict[tuple[str, str], list[DeletionResult]]


def explain_test(
    tracer: Tracer,
    manifest: Manifest,
    *,
    clips_per_system: int,
    longest_seconds: float,
    draws: int,
    seed: int,
) -> ExplainedClips:
    """Explain random test clips of the systems in the gallery; of each clip the first `longest_seconds`.

    Raises ManifestError if test has no such clip, AudioError for an unusable clip, AttributionError for a backbone that
    does not read filterbanks.
    """
    clips = draw_clips(tracer, manifest, clips_per_system=clips_per_system, seed=seed)
    band_profiles, time_profiles, gaps = [], [], []
    deletions: dict[tuple[str, str], list[DeletionResult]] = {}
    for number, row in enumerate(track(clips.itertuples(), description="explaining clips", total=len(clips))):
        path = manifest.audio_path(str(row.path))
        clip = prepare_clip(tracer, path, system=str(row.system), longest_s=longest_seconds)
        for method in supported_methods(clip.model):
            attribution = METHODS[method](clip.model, clip.bands)
            for unit in UNITS:
                deletions.setdefault((method, unit), []).append(
                    run_deletion_test(
                        clip.model, clip.bands, attribution, seed=[seed, number], unit=unit, draws=draws
                    )
                )
            if method == PROFILE_METHOD:
                cosine, baseline = cosine_and_baseline(clip.model, clip.bands)
                band_profiles.append(attribution.sum(axis=0, dtype=np.float64))
                time_profiles.append(sum_by_time_part(attribution))
                gaps.append(band_profiles[-1].sum() - (cosine - baseline))
    return ExplainedClips(
        systems=clips["system"].to_numpy(dtype=str),
        bands_hz=clip.bands_hz,
        band_profiles=np.stack(band_profiles),
        time_profiles=np.stack(time_profiles),
        completeness_gaps=np.array(gaps),
        deletions=deletions,
    )


def draw_clips(tracer: Tracer, manifest: Manifest, *, clips_per_system: int, seed: int) -> pd.DataFrame:
    """Draw at most `clips_per_system` rows of test for each system of the gallery; raises ManifestError without any."""
    rows = manifest.rows
    rows = rows[(rows["split"] == "test") & rows["system"].isin(tracer.gallery.systems)]
    if rows.empty:
        raise ManifestError("test has no utterance of a system of the gallery; there is nothing to explain")
    rng = np.random.default_rng(seed)
    drawn = [
        utterances.iloc[rng.permutation(len(utterances))[:clips_per_system]]
        for _, utterances in rows.groupby("system", sort=True)
    ]
    return pd.concat(drawn)


def sum_by_time_part(attribution: AttributionMap) -> FloatArray:
    """Sum an attribution (T, F) over bands and over each of TIME_PARTS equal parts of the time, (P,)."""
    part = np.arange(len(attribution)) * TIME_PARTS // len(attribution)
    by_frame = attribution.sum(axis=1, dtype=np.float64)
    return np.asarray(np.bincount(part, weights=by_frame, minlength=TIME_PARTS))


def to_percent(profiles: FloatArray) -> FloatArray:
    """Scale profiles (N, ...) so that the absolute values of each row sum to 100."""
    return np.asarray(100 * profiles / np.abs(profiles).sum(axis=1, keepdims=True))


def mean_system_profiles(systems: StrArray, profiles: FloatArray) -> tuple[list[str], FloatArray]:
    """Return the system names (S,) and the mean profiles (S, ...) of clips with profiles (N, ...), in percent."""
    names, column = np.unique(systems, return_inverse=True)
    percent = to_percent(profiles)
    return names.tolist(), np.stack([percent[column == index].mean(axis=0) for index in range(len(names))])


def explanation_metrics(explained: ExplainedClips, *, bootstrap_samples: int, seed: int) -> dict[str, Any]:
    """Return the content of metrics/explain.json.

    Areas under the deletion curves and comparisons with random deletions, with intervals over systems; for each system
    the share of the supporting attribution outside the telephone band and at the ends of the clip.
    """
    methods: dict[str, Any] = {}
    for (method, unit), deletions in explained.deletions.items():
        metrics = {name: weighted_mean(values) for name, values in _deletion_metrics(deletions).items()}
        methods.setdefault(method, {})[unit] = bootstrap_over_systems(
            metrics, explained.systems, samples=bootstrap_samples, seed=seed
        )
    outside, at_ends = support_outside_telephone_band(explained), support_at_ends(explained)
    by_system = {}
    for name in np.unique(explained.systems):
        own = explained.systems == name
        strongest = explained.band_profiles[own].mean(axis=0).argmax()
        by_system[str(name)] = {
            "strongest_band_hz": float(explained.bands_hz[strongest]),
            "outside_telephone_band_percent": float(outside[own].mean()),
            "at_ends_percent": float(at_ends[own].mean()),
        }
    return {
        "split": "test",
        "clips": len(explained.systems),
        "systems": len(by_system),
        "completeness_gap_largest": float(np.abs(explained.completeness_gaps).max()),
        **methods,
        "by_system": by_system,
    }


def support_outside_telephone_band(explained: ExplainedClips) -> FloatArray:
    """Return the share of the supporting attribution of each clip outside the telephone band, (N,) in percent."""
    low_hz, high_hz = TELEPHONE_BAND_HZ
    outside = (explained.bands_hz < low_hz) | (explained.bands_hz > high_hz)
    return np.asarray(to_percent(np.maximum(explained.band_profiles, 0))[:, outside].sum(axis=1))


def support_at_ends(explained: ExplainedClips) -> FloatArray:
    """Return the share of the supporting attribution of each clip in its first and last END_PARTS, (N,) in percent."""
    ends = np.r_[:END_PARTS, TIME_PARTS - END_PARTS : TIME_PARTS]
    return np.asarray(to_percent(np.maximum(explained.time_profiles, 0))[:, ends].sum(axis=1))


def mean_by_system(systems: StrArray, values: FloatArray) -> FloatArray:
    """Return the mean (S,) of the values (N,) of each system, in the order of the sorted names."""
    names, column = np.unique(systems, return_inverse=True)
    return np.asarray(np.bincount(column, weights=values, minlength=len(names)) / np.bincount(column))


def _deletion_metrics(deletions: list[DeletionResult]) -> dict[str, FloatArray]:
    """Return metrics of each clip, (N,); `fall_beyond_*` is the area of random deletions minus `area`."""
    area = np.array([deletion.area for deletion in deletions])
    regions = np.array([deletion.region_areas.mean() for deletion in deletions])
    moved = np.array([deletion.moved_areas.mean() for deletion in deletions])
    return {
        "area": area,
        "area_regions": regions,
        "area_moved": moved,
        "fall_beyond_regions": regions - area,
        "fall_beyond_moved": moved - area,
        "beats_regions_percent": 100.0 * (area < regions),
        "beats_moved_percent": 100.0 * (area < moved),
    }


def deletion_curves(explained: ExplainedClips) -> dict[str, tuple[FloatArray, dict[str, FloatArray]]]:
    """Return for each method and unit the deleted shares (K + 1,) and the mean cosines (K + 1,) of each deletion."""
    return {
        f"{method.replace('_', ' ')}, {unit}": (
            deletions[0].shares,
            {
                "highest attribution": np.mean([deletion.attributed for deletion in deletions], axis=0),
                "random region": np.mean([deletion.regions.mean(axis=0) for deletion in deletions], axis=0),
                "same shape, moved": np.mean([deletion.moved.mean(axis=0) for deletion in deletions], axis=0),
            },
        )
        for (method, unit), deletions in explained.deletions.items()
    }


def plot_band_profiles(
    path: Path,
    systems: Sequence[str],
    profiles: FloatArray,
    outside_percent: FloatArray,
    *,
    bands_hz: FloatArray,
    title: str,
) -> None:
    """Plot the attribution of each band, (S, F) in percent.

    outside_percent (S,), in bars beside it: the values of `support_outside_telephone_band`, by system.
    """
    bands = np.arange(len(bands_hz))
    positions = np.interp(1000 * np.array(TICKS_KHZ), bands_hz, bands)
    is_apart = np.append(np.diff(positions) >= MIN_TICK_DISTANCE * len(bands), True)
    labels = [f"{khz:g}" for khz, apart in zip(TICKS_KHZ, is_apart, strict=True) if apart]
    shown = Profiles(systems, profiles, ticks=(positions[is_apart], labels), xlabel="band, kHz")
    inside = np.flatnonzero((bands_hz >= TELEPHONE_BAND_HZ[0]) & (bands_hz <= TELEPHONE_BAND_HZ[1]))
    edges = (inside[0] - 0.5, inside[-1] + 0.5) if len(inside) else ()
    _plot_profiles(
        path,
        shown,
        outside_percent,
        edges=edges,
        region="telephone band" if edges else "",
        share_label="supporting attribution\noutside the telephone band, %",
        title=title,
    )


def plot_time_profiles(
    path: Path, systems: Sequence[str], profiles: FloatArray, at_ends_percent: FloatArray, *, title: str
) -> None:
    """Plot the attribution of each part of the time, (S, P) in percent.

    at_ends_percent (S,), in bars beside it: the values of `support_at_ends`, by system.
    """
    parts = profiles.shape[1]
    ticks = (np.linspace(-0.5, parts - 0.5, 5), [f"{percent:g}" for percent in np.linspace(0, 100, 5)])
    end = parts * END_PARTS / TIME_PARTS
    _plot_profiles(
        path,
        Profiles(systems, profiles, ticks=ticks, xlabel="time, % of the clip"),
        at_ends_percent,
        edges=(end - 0.5, parts - end - 0.5),
        region="without the ends",
        share_label="supporting attribution in the\nfirst and last tenth, %",
        even_percent=200 * END_PARTS / TIME_PARTS,
        title=title,
    )


class Profiles(NamedTuple):
    """Profiles (S, K) of systems in percent, and the ticks and the label of their horizontal axis."""

    systems: Sequence[str]
    values: FloatArray
    ticks: tuple[FloatArray, list[str]]
    xlabel: str


def _plot_profiles(
    path: Path,
    profiles: Profiles,
    shares: FloatArray,
    *,
    edges: Sequence[float],
    region: str,
    share_label: str,
    title: str,
    even_percent: float | None = None,
) -> None:
    """Plot profiles as a heat map, in the order of `shares` (S,), which are bars beside it.

    `edges` are the borders of the named `region` of the horizontal axis. `even_percent` is the share that an even
    distribution would give. Of more than MAX_PROFILES systems, those with the highest and the lowest shares are shown.
    """
    order = np.argsort(-np.asarray(shares), kind="stable")
    if len(order) > MAX_PROFILES:
        half = MAX_PROFILES // 2
        title += f": the {half} highest and the {half} lowest of {len(order)}"
        order = np.concatenate([order[:half], order[-half:]])
    rows = np.arange(len(order))
    figure = Figure(figsize=(7.6, 1.9 + 0.24 * len(order)), layout="constrained")
    heat, bars = figure.subplots(1, 2, width_ratios=(2.6, 1), sharey=True)
    limit = float(np.abs(profiles.values).max()) or 1.0
    image = heat.imshow(
        profiles.values[order], aspect="auto", cmap="PuOr_r", vmin=-limit, vmax=limit, interpolation="nearest"
    )
    for edge in edges:
        heat.axvline(edge, color="black", linewidth=1.2)
    if region:
        heat.text(
            float(np.mean(edges)), -0.65, f"\u2190 {region} \u2192", ha="center", va="bottom", fontsize=8.5
        )
    heat.set_xticks(*profiles.ticks, fontsize=9)
    heat.set_yticks(rows, [profiles.systems[index] for index in order], fontsize=9)
    heat.set_xlabel(profiles.xlabel, fontsize=10)
    heat.tick_params(axis="y", length=0)
    longest = max(float(np.max(shares)), even_percent or 0, 1)
    bars.barh(rows, np.asarray(shares)[order], color=COLOURS[0], height=0.7)
    for row, share in zip(rows, np.asarray(shares)[order], strict=True):
        inside = share > 0.15 * longest
        bars.text(
            share,
            row,
            f" {share:.0f} ",
            ha="right" if inside else "left",
            va="center",
            color="white" if inside else TEXT_COLOUR,
            fontsize=8.5,
        )
    if even_percent is not None:
        bars.axvline(even_percent, color=TEXT_COLOUR, linewidth=1, linestyle="--")
        bars.text(even_percent, -0.65, f"even: {even_percent:g}", ha="center", va="bottom", fontsize=8.5)
    bars.set_xlim(0, 1.1 * longest)
    bars.set_xlabel(share_label, fontsize=10)
    bars.tick_params(labelsize=9, labelleft=False, left=False)
    style_axes(bars)
    bars.grid(visible=False, axis="y")
    bar = figure.colorbar(image, ax=heat, location="bottom", fraction=0.05, pad=0.02, aspect=40)
    bar.set_label("% of the attribution: orange supports the system, purple opposes it", fontsize=9)
    bar.ax.tick_params(labelsize=8)
    figure.suptitle(title, fontsize=12)
    save_figure(figure, path)


def plot_deletion(
    path: Path, curves: Mapping[str, tuple[FloatArray, Mapping[str, FloatArray]]], *, title: str
) -> None:
    """Write one panel per method: mean cosine (K,) against the deleted share (K,), for each kind of deletion.

    The kinds are named in the first panel, beside their lines.
    """
    columns = min(len(curves), 2)
    rows = -(-len(curves) // columns)
    height = 0.6 + 2.7 * rows
    figure = Figure(figsize=(3.8 * columns, height))
    figure.subplots_adjust(
        left=0.09, right=0.98, bottom=0.5 / height, top=1 - 0.6 / height, hspace=0.32, wspace=0.08
    )
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for axes, (name, (shares, by_deletion)) in zip(panels.flat, curves.items(), strict=False):
        for number, (label, cosines) in enumerate(by_deletion.items()):
            axes.plot(
                100 * shares,
                cosines,
                LINE_STYLES[number % len(LINE_STYLES)],
                color=COLOURS[number % len(COLOURS)],
                marker=("o", "s", "^", "D")[number % 4],
                markersize=4,
                linewidth=2.4 if number == 0 else 1.5,
                label=label,
            )
        axes.set_title(name, fontsize=10)
        axes.tick_params(labelsize=9, labelbottom=True)
        style_axes(axes)
    for axes in list(panels.flat)[len(curves) :]:
        axes.remove()
    for axes in panels[:, 0]:
        axes.set_ylabel("cosine to the system", fontsize=10)
    figure.supxlabel("deleted share of the clip, %", fontsize=10, y=0.01)
    figure.suptitle(title, fontsize=12)
    _name_lines(panels[0, 0], next(iter(curves.values())))
    save_figure(figure, path)


def _name_lines(axes: Axes, curves: tuple[FloatArray, Mapping[str, FloatArray]]) -> None:
    """Write the name of each line beside the point at which the lines are furthest apart."""
    shares, by_name = curves
    values = np.stack(list(by_name.values()))  # (L, K)
    apart = np.diff(np.sort(values, axis=0), axis=0)
    column = int(apart.min(axis=0).argmax()) if len(apart) else len(shares) // 2
    fine = np.linspace(shares[0], shares[-1], 500)
    lines = [np.stack([100 * fine, np.interp(fine, shares, line)], axis=1) for line in values]
    label_points(
        axes,
        list(by_name),
        np.stack([np.full(len(values), 100 * shares[column]), values[:, column]], axis=1),
        avoid=np.vstack(lines),
        colours=[COLOURS[number % len(COLOURS)] for number in range(len(values))],
    )


def write_band_profiles(
    path: Path, systems: Sequence[str], profiles: FloatArray, bands_hz: FloatArray
) -> None:
    """Write the values of `plot_band_profiles` as CSV with the columns system, band_hz and percent."""
    rows = [
        f"{system},{band:.0f},{percent:.3f}"
        for system, profile in zip(systems, profiles, strict=True)
        for band, percent in zip(bands_hz, profile, strict=True)
    ]
    with atomic_write(path) as draft:
        draft.write_text("\n".join(["system,band_hz,percent", *rows, ""]), encoding="utf-8")
