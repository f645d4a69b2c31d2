"""What the network looked at over many clips: profiles of each system, and whether what is highlighted matters.

Legend of axes: N clips, S systems, F bands, P parts of time, K shares.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import rich.console
import rich.progress
from numpy.typing import NDArray

from makermark.attributing import METHODS, UNITS, Deletion, Map, delete, methods_for, whole_and_baseline
from makermark.corpora.rows import Manifest
from makermark.errors import ManifestError
from makermark.tracing.explaining import lay_out
from makermark.tracing.measuring import Figure, over_systems
from makermark.tracing.tracer import Tracer

PARTS = 20  # of the time of a clip
EDGES = 2  # parts at either end
TELEPHONE_HZ = (300.0, 3400.0)
BY_GRADIENTS = "integrated_gradients"

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Explained:
    """Clips, each explained for the system that made it.

    - systems (N,), bands_hz (F,)
    - bands (N, F), times (N, P): attributions by integrated gradients, summed over time and over bands, in cosine
    - gaps (N,): completeness_gap of each
    - deletions: of each method and unit, one per clip
    """

    systems: NDArray[np.str_]
    bands_hz: Numbers
    bands: Numbers
    times: Numbers
    gaps: Numbers
    deletions: dict[tuple[str, str], list[Deletion]]


def explain_test(
    tracer: Tracer,
    manifest: Manifest,
    *,
    clips_per_system: int,
    longest_seconds: float,
    draws: int,
    seed: int,
) -> Explained:
    """Explain clips of test by systems of the gallery, drawn by `seed`, each from its beginning on.

    Raises ManifestError where test has none, AudioError for a clip that cannot be heard, AttributionError for a network
    that cannot be explained.
    """
    chosen = chosen_clips(tracer, manifest, clips_per_system=clips_per_system, seed=seed)
    bands, times, gaps = [], [], []
    deletions: dict[tuple[str, str], list[Deletion]] = {}
    for number, row in enumerate(_shown(chosen)):
        path = manifest.file(str(row.path))
        clip = lay_out(tracer, path, system=str(row.system), longest_s=longest_seconds)
        for method in methods_for(clip.likeness):
            attribution = METHODS[method](clip.likeness, clip.bands)
            for unit in UNITS:
                deletions.setdefault((method, unit), []).append(
                    delete(
                        clip.likeness, clip.bands, attribution, seed=[seed, number], unit=unit, draws=draws
                    )
                )
            if method == BY_GRADIENTS:
                whole, baseline = whole_and_baseline(clip.likeness, clip.bands)
                bands.append(attribution.sum(axis=0, dtype=np.float64))
                times.append(by_part(attribution))
                gaps.append(bands[-1].sum() - (whole - baseline))
    return Explained(
        systems=chosen["system"].to_numpy(dtype=str),
        bands_hz=clip.bands_hz,
        bands=np.stack(bands),
        times=np.stack(times),
        gaps=np.array(gaps),
        deletions=deletions,
    )


def chosen_clips(tracer: Tracer, manifest: Manifest, *, clips_per_system: int, seed: int) -> pd.DataFrame:
    """`clips_per_system` rows of test, or all there are, of each system of the gallery."""
    rows = manifest.rows
    rows = rows[(rows["split"] == "test") & rows["system"].isin(tracer.gallery.systems)]
    if rows.empty:
        raise ManifestError(
            "test has no utterance by a system of the gallery, so there is nothing to explain"
        )
    rng = np.random.default_rng(seed)
    drawn = [
        some.iloc[rng.permutation(len(some))[:clips_per_system]]
        for _, some in rows.groupby("system", sort=True)
    ]
    return pd.concat(drawn)


def by_part(attribution: Map) -> Numbers:
    """(P,): an attribution (T, F) summed over bands and over each of PARTS equal parts of the time."""
    part = np.arange(len(attribution)) * PARTS // len(attribution)
    return np.asarray(np.bincount(part, weights=attribution.sum(axis=1, dtype=np.float64), minlength=PARTS))


def _shown(clips: pd.DataFrame) -> Iterator[Any]:
    console = rich.console.Console(stderr=True)
    with rich.progress.Progress(console=console, disable=not sys.stderr.isatty()) as progress:
        yield from progress.track(clips.itertuples(), total=len(clips), description="explaining")


def shares_of(profiles: Numbers) -> Numbers:
    """Profiles (N, ...) with absolute values that sum to 100 in each row."""
    return np.asarray(100 * profiles / np.abs(profiles).sum(axis=1, keepdims=True))


def of_systems(explained: Explained, profiles: Numbers) -> tuple[list[str], Numbers]:
    """The systems, and the mean (S, ...) over their clips of profiles (N, ...), in percent as `shares_of` says."""
    names, column = np.unique(explained.systems, return_inverse=True)
    shares = shares_of(profiles)
    return names.tolist(), np.stack([shares[column == s].mean(axis=0) for s in range(len(names))])


def figures_of(explained: Explained, *, bootstrap_samples: int, seed: int) -> dict[str, Any]:
    """What metrics/explain.json holds: areas under the deletion curves and how often they beat chance, with intervals
    over systems; of each system, how much of what speaks for it lies outside the telephone band, and at the ends."""
    draws = {"samples": bootstrap_samples, "seed": seed}
    methods: dict[str, Any] = {}
    for (method, unit), deletions in explained.deletions.items():
        measured = {name: _mean_of(values) for name, values in _measured(deletions).items()}
        methods.setdefault(method, {})[unit] = over_systems(measured, explained.systems, **draws)
    positive = {"bands": np.maximum(explained.bands, 0), "times": np.maximum(explained.times, 0)}
    beyond = (explained.bands_hz < TELEPHONE_HZ[0]) | (explained.bands_hz > TELEPHONE_HZ[1])
    ends = np.r_[:EDGES, PARTS - EDGES : PARTS]
    outside = shares_of(positive["bands"])[:, beyond].sum(axis=1)
    at_ends = shares_of(positive["times"])[:, ends].sum(axis=1)
    return {
        "split": "test",
        "clips": len(explained.systems),
        "systems": len(np.unique(explained.systems)),
        "completeness_gap_largest": float(np.abs(explained.gaps).max()),
        **methods,
        "by_system": {
            str(name): {
                "strongest_band_hz": float(explained.bands_hz[explained.bands[of].mean(axis=0).argmax()]),
                "outside_telephone_band_percent": float(outside[of].mean()),
                "at_ends_percent": float(at_ends[of].mean()),
            }
            for name in np.unique(explained.systems)
            if (of := explained.systems == name).any()
        },
    }


def _mean_of(values: Numbers) -> Figure:
    return lambda weights: float(np.average(values, weights=weights))


def _measured(deletions: list[Deletion]) -> dict[str, Numbers]:
    """(N,) each. `fall`: how much further the mean cosine falls than with as much deleted elsewhere."""
    area = np.array([each.area for each in deletions])
    regions = np.array([each.region_areas.mean() for each in deletions])
    moved = np.array([each.moved_areas.mean() for each in deletions])
    return {
        "area": area,
        "area_regions": regions,
        "area_moved": moved,
        "fall_beyond_regions": regions - area,
        "fall_beyond_moved": moved - area,
        "beats_regions_percent": 100.0 * (area < regions),
        "beats_moved_percent": 100.0 * (area < moved),
    }


def curves_of(explained: Explained) -> dict[str, tuple[Numbers, dict[str, Numbers]]]:
    """By method and unit: shares (K + 1,) deleted, and mean cosines (K + 1,) over clips for each way to delete."""
    return {
        f"{method.replace('_', ' ')}, {unit}": (
            deletions[0].shares,
            {
                "highest attribution": np.mean([each.attributed for each in deletions], axis=0),
                "random region": np.mean([each.regions.mean(axis=0) for each in deletions], axis=0),
                "same form, moved": np.mean([each.moved.mean(axis=0) for each in deletions], axis=0),
            },
        )
        for (method, unit), deletions in explained.deletions.items()
    }
