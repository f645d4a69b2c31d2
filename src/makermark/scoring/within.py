"""EERs inside the values of a column: only two utterances with the same value of the column are a trial.

A column may be the language, the voice or the recording session. Utterances of one value share it, so that only the
system differs between them. The EER of a value is over all pairs of its utterances. The EER within the column is the
mean over its values: every value counts the same, however many trials it has.

The interval of the mean resamples systems, as `pairs.intervals` does, and leaves the values as they are. A system that
is drawn m times has the weight m in every value. In a resample, a value with fewer than two of its systems has no EER
and is left out of the mean.

Axes: N utterances, C systems, V values, R resamples.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numba
import numpy as np
from scipy.special import ndtr, stdtrit

from makermark.foundation.arrays import AnyArray, Float32Array, FloatArray, IntArray, StrArray
from makermark.scoring.pairs import PairMetrics, score_all_pairs
from makermark.scoring.pairs.cpu import CpuPairCounter
from makermark.scoring.pairs.intervals import (
    MIN_INTERVAL_SYSTEMS,
    TAIL,
    Interval,
    accumulate_accepted,
    resample,
)
from makermark.scoring.pairs.tiling import fit_bins, tile_embeddings

MAX_BOOTSTRAP_BINS = 1024
SAMPLE_UTTERANCES = 2048  # that determine the bins of a larger value


@dataclass(frozen=True, kw_only=True)
class ValueMetrics:
    """EERs of one value: micro over all its trials, macro the mean over its systems.

    The intervals are None for fewer than MIN_INTERVAL_SYSTEMS systems.
    """

    eer_micro_percent: float | None
    eer_macro_percent: float | None
    eer_micro_ci95_percent: Interval | None
    eer_macro_ci95_percent: Interval | None
    utterances: int
    systems: int
    target_trials: int
    nontarget_trials: int


@dataclass(frozen=True, kw_only=True)
class WithinMetrics:
    """Means over `values`, the values with target and non-target trials, sorted; None without such a value.

    utterances, target_trials, nontarget_trials: sums over `values`. systems: distinct systems in them.
    """

    eer_micro_percent: float | None = None
    eer_macro_percent: float | None = None
    eer_micro_ci95_percent: Interval | None = None
    eer_macro_ci95_percent: Interval | None = None
    utterances: int = 0
    systems: int = 0
    target_trials: int = 0
    nontarget_trials: int = 0
    min_utterances: int
    values: Mapping[str, ValueMetrics] = field(default_factory=dict)


def within_to_json(metrics: WithinMetrics) -> dict[str, Any]:
    """Return the metrics as JSON values."""
    return _lists(asdict(metrics))


def _lists(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _lists(value) if isinstance(value, dict) else list(value) if isinstance(value, tuple) else value
        for name, value in values.items()
    }


def score_within(
    embeddings: AnyArray,
    systems: StrArray,
    column: StrArray,
    *,
    min_utterances: int = 1,
    bootstrap_samples: int,
    seed: int,
    threads: int | None = None,
) -> WithinMetrics:
    """Score the pairs of embeddings (N, D) with the same value in `column` (N,), by their `systems` (N,).

    Rows with an empty value are left out. A system with fewer than `min_utterances` utterances in a value is left out
    of that value. Neither the order of the rows nor the number of threads changes the result. Raises ScoringError for
    embeddings without a direction.
    """
    threads = threads or int(numba.config.NUMBA_NUM_THREADS)  # type: ignore[attr-defined]  # set at import
    rows_of = select_rows(systems, column, min_utterances=min_utterances)
    if not rows_of:
        return WithinMetrics(min_utterances=min_utterances)
    values = {
        value: score_value(
            embeddings[rows],
            systems[rows],
            bootstrap_samples=bootstrap_samples,
            seed=seed,
            threads=threads,
        )
        for value, rows in rows_of.items()
    }
    micro_ci95, macro_ci95 = mean_intervals(
        embeddings, systems, list(rows_of.values()), samples=bootstrap_samples, seed=seed, threads=threads
    )
    scored = np.concatenate(list(rows_of.values()))
    return WithinMetrics(
        eer_micro_percent=float(np.mean([value.eer_micro_percent for value in values.values()])),
        eer_macro_percent=float(np.mean([value.eer_macro_percent for value in values.values()])),
        eer_micro_ci95_percent=micro_ci95,
        eer_macro_ci95_percent=macro_ci95,
        utterances=len(scored),
        systems=len(np.unique(systems[scored])),
        target_trials=sum(value.target_trials for value in values.values()),
        nontarget_trials=sum(value.nontarget_trials for value in values.values()),
        min_utterances=min_utterances,
        values=values,
    )


def select_rows(systems: StrArray, column: StrArray, *, min_utterances: int) -> dict[str, IntArray]:
    """Return the rows of every value that has trials of both kinds, sorted by value."""
    rows_of = {}
    for value in np.unique(column[column != ""]).tolist():
        rows = np.flatnonzero(column == value)
        _, numbers, counts = np.unique(systems[rows], return_inverse=True, return_counts=True)
        rows = rows[counts[numbers] >= min_utterances]
        counts = counts[counts >= min_utterances]
        if len(counts) > 1 and counts.max() > 1:
            rows_of[value] = rows
    return rows_of


def score_value(
    embeddings: AnyArray, systems: StrArray, *, bootstrap_samples: int, seed: int, threads: int
) -> ValueMetrics:
    """Score all pairs of the utterances of one value."""
    has_interval = len(np.unique(systems)) >= MIN_INTERVAL_SYSTEMS
    pairs: PairMetrics = score_all_pairs(
        embeddings,
        systems,
        bootstrap_samples=bootstrap_samples if has_interval else 0,
        seed=seed,
        threads=threads,
    )
    return ValueMetrics(**{name: getattr(pairs, name) for name in ValueMetrics.__dataclass_fields__})


def mean_intervals(
    embeddings: AnyArray,
    systems: StrArray,
    rows_of_value: list[IntArray],
    *,
    samples: int,
    seed: int,
    threads: int,
) -> tuple[Interval | None, Interval | None]:
    """Return the 95 % intervals, in percent, of the means over values of the micro and the macro EER.

    None for fewer than MIN_INTERVAL_SYSTEMS systems, and if no resample has trials of both kinds.
    """
    names, system = np.unique(systems[np.concatenate(rows_of_value)], return_inverse=True)
    parts = np.split(system, np.cumsum([len(rows) for rows in rows_of_value])[:-1])
    if samples == 0 or len(names) < MIN_INTERVAL_SYSTEMS:
        return None, None
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=samples).astype(np.float64)
    eers = np.stack(
        [
            resampled_value(embeddings[rows], part, drawn, threads=threads)
            for rows, part in zip(rows_of_value, parts, strict=True)
        ]
    )  # (V, 2, R)
    levels = mean_quantile_levels(
        systems=len(names), cells=sum(len(np.unique(part)) for part in parts), values=len(parts)
    )
    micro, macro = mean_of_values(eers)
    return mean_interval(micro, levels), mean_interval(macro, levels)


def resampled_value(embeddings: AnyArray, system: IntArray, drawn: FloatArray, *, threads: int) -> FloatArray:
    """Return the micro and the macro EER (2, R), in [0, 1], of one value in every resample; NaN where it has none.

    drawn (R, C): how often every system is drawn. system (N,): the column of `drawn` of every utterance.
    """
    present, numbers = np.unique(system, return_inverse=True)
    tiling = tile_embeddings(embeddings, np.char.zfill(numbers.astype(str), 6), None)  # sorted as the numbers
    counts = CpuPairCounter(
        tiling, fit_bins(tiling, sample_utterances=SAMPLE_UTTERANCES), threads=threads
    ).count()
    bins = min(counts.shape[1], MAX_BOOTSTRAP_BINS)
    accepted: Float32Array = np.zeros((len(present), bins, len(present)), np.float32)
    accumulate_accepted(counts, np.arange(len(counts)), *tiling.block_systems(), accepted)
    eers = np.empty((2, len(drawn)))
    resample(accepted, np.ascontiguousarray(drawn[:, present]), eers[0], eers[1])
    return eers


def mean_of_values(eers: FloatArray) -> FloatArray:
    """Return the mean over the first axis without NaN; NaN where all are NaN."""
    defined = ~np.isnan(eers)
    total = np.where(defined, eers, 0).sum(axis=0)
    count = defined.sum(axis=0)
    mean: FloatArray = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return mean


def mean_quantile_levels(*, systems: int, cells: int, values: int) -> tuple[float, float]:
    """Return the quantiles of the resampled means that are the ends of a 95 % interval.

    `pairs.intervals.quantile_levels` for one value. With V values and N pairs of a value and one of its systems
    (`cells`), every value loses one degree of freedom to its own mean: the standard error of the bootstrap is too small
    by the factor sqrt((N - V) / N), and t has min(C - 1, N - V) degrees of freedom.
    """
    freedom = min(systems - 1, cells - values)
    low = float(ndtr(np.sqrt(cells / (cells - values)) * stdtrit(freedom, TAIL)))
    return low, 1 - low


def mean_interval(eers: FloatArray, levels: tuple[float, float]) -> Interval | None:
    """Return the interval, in percent, between two quantiles of EERs (R,) in [0, 1]; NaN are left out."""
    eers = eers[~np.isnan(eers)]
    if len(eers) == 0:
        return None
    low, high = np.quantile(eers, levels)
    return 100 * float(low), 100 * float(high)
