"""Scoring of a set of embeddings: every pair of its utterances is a trial."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numba
import numpy as np

from makermark.foundation.arrays import AnyArray, BoolArray, IntArray
from makermark.foundation.errors import ScoringError
from makermark.scoring.pairs import eer_refinement, error_rates
from makermark.scoring.pairs.cpu import CpuPairCounter
from makermark.scoring.pairs.intervals import Interval, bootstrap_intervals
from makermark.scoring.pairs.tiling import Bins, Tiling, all_pairs, fit_bins, keys_to_scores, tile_embeddings

NOT_IN_JSON = ("det", "histogram", "per_system", "strata")


@dataclass(frozen=True)
class SystemMetrics:
    """EER of one system: its target trials against its trials with other systems.

    The EER is None if one kind of trial is missing.
    """

    system: str
    utterances: int
    eer_percent: float | None
    target_trials: int
    nontarget_trials: int


@dataclass(frozen=True, kw_only=True)
class PairMetrics:
    """Metrics over all trials of a set; None where one kind of trial is missing.

    A trial is an unordered pair of utterances. Its score is the cosine of their embeddings, in float32. In a target
    trial both utterances are of one system. In a stratum both utterances belong to that stratum.

    - EER: the ROC has one point per distinct score (accept scores at or above it). The EER is where the miss rate
      equals the false-accept rate on the straight line between neighbouring points. It is exact.
    - micro: over all trials. macro: the mean of the EERs of the `macro_systems` systems that have both kinds of trials.
      ci95: see `intervals`.
    - auc, min_dcf: see `error_rates`. The exact AUC differs from `auc` by at most `auc_error_bound`. The exact cost is
      at most `min_dcf_error_bound` below `min_dcf`. Both bounds are 0 for small sets.
    """

    eer_micro_percent: float | None = None
    eer_macro_percent: float | None = None
    eer_micro_ci95_percent: Interval | None = None
    eer_macro_ci95_percent: Interval | None = None
    eer_threshold: float | None = None  # lower edge (a cosine) of the score bin in which the rates cross
    auc: float | None = None
    auc_error_bound: float | None = None
    min_dcf: float | None = None
    min_dcf_error_bound: float | None = None
    utterances: int
    systems: int
    macro_systems: int
    target_trials: int
    nontarget_trials: int
    det: error_rates.DetCurve | None = None
    histogram: error_rates.ScoreHistogram | None = None
    per_system: tuple[SystemMetrics, ...]  # systems with an utterance in the set, sorted by name
    strata: Mapping[str, PairMetrics] = field(default_factory=dict)


def metrics_to_json(metrics: PairMetrics) -> dict[str, Any]:
    """Return the metrics as JSON values, without the fields NOT_IN_JSON; `strata` holds the same for every stratum."""
    values = {name: value for name, value in vars(metrics).items() if name not in NOT_IN_JSON}
    values = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
    if metrics.strata:
        values["strata"] = {name: metrics_to_json(stratum) for name, stratum in metrics.strata.items()}
    return values


def score_all_pairs(
    embeddings: AnyArray,
    systems: AnyArray,
    strata: AnyArray | None = None,
    *,
    bootstrap_samples: int,
    seed: int,
    p_target: float = 0.05,
    threads: int | None = None,
    device: str = "cpu",
    sample_utterances: int = 2048,
) -> PairMetrics:
    """Score all pairs of embeddings (N, D) with the system and optionally the stratum (N,) of every embedding.

    Neither the order of the rows nor the number of threads (`threads`, NUMBA_NUM_THREADS, or one per core) changes the
    result. Memory grows with N D and with the square of the number of systems, not with the number of pairs: two copies
    of the embeddings, `tiling.COUNTER_BYTES` (128 MB) for the counts of all pairs of systems, at most
    `eer_refinement.FINE_COUNTER_BYTES` (256 MB) while EERs are refined, and the table of `intervals`. For at most
    `sample_utterances` utterances, AUC and minDCF are exact too. In a larger set, a sample of this size determines the
    score bins.

    A larger set is counted on `device`: cpu, cuda, or auto (cuda if there is one). Scores on a GPU may differ from
    those on the CPU in the last bit of float32 (see `gpu`).

    Raises ScoringError for embeddings without a direction, for a set without target or without non-target trials (a
    stratum may lack either) and for more than `tiling.MAX_CHUNKS` systems times strata; ParamsError for a device that
    does not exist; ValueError for shapes that do not match and for a p_target outside (0, 1).
    """
    if not 0 < p_target < 1:
        raise ValueError(f"p_target is {p_target}; it must be between 0 and 1, both excluded")
    tiling = tile_embeddings(embeddings, systems, strata)
    check_trials(tiling)
    threads = threads or int(numba.config.NUMBA_NUM_THREADS)  # type: ignore[attr-defined]  # set at import
    bins = fit_bins(tiling, sample_utterances=sample_utterances)
    curves = eer_refinement.index_curves(tiling)
    is_small = len(tiling.system) <= sample_utterances
    counter = choose_pair_counter(tiling, bins, device=device, threads=threads, is_small=is_small)
    counts = counter.count()
    tallies = eer_refinement.sum_by_curve(curves, counts)
    pair_counts = PairCounts(
        tiling=tiling,
        curves=curves,
        counts=counts,
        tallies=tallies,
        bins=bins,
        brackets=eer_refinement.bracket_eers(counter, curves, counts, tallies, bins),
        pairs=all_pairs(tiling) if is_small else None,
    )
    whole, *parts = (
        compute_set_metrics(
            pair_counts,
            set_index,
            bootstrap_samples=bootstrap_samples,
            seed=seed,
            p_target=p_target,
            threads=threads,
        )
        for set_index in range(curves.sets)
    )
    return replace(whole, strata=dict(zip(tiling.strata, parts, strict=True)))


def choose_pair_counter(
    tiling: Tiling, bins: Bins, *, device: str, threads: int, is_small: bool
) -> eer_refinement.PairCounter:
    """Return the pair counter for `device`. A small set is always counted on the CPU."""
    if device != "cpu":
        from makermark.foundation.device import choose_device  # torch takes seconds to import
        from makermark.scoring.pairs.gpu import GpuPairCounter

        torch_device = choose_device(device)
        if torch_device.type == "cuda" and not is_small:
            return GpuPairCounter(tiling, bins, device=torch_device)
    return CpuPairCounter(tiling, bins, threads=threads)


def check_trials(tiling: Tiling) -> None:
    """Raise ScoringError unless the set has target and non-target trials."""
    utterances, systems = len(tiling.system), len(tiling.systems)
    if utterances == systems:
        raise ScoringError(
            f"no target trial: {utterances} utterances, one per system; score a set with two or more utterances of at "
            "least one system"
        )
    if systems == 1:
        raise ScoringError(
            f"no non-target trial: all {utterances} utterances are of system {tiling.systems[0]!r}; score a set "
            "with at least two systems"
        )


@dataclass(frozen=True)
class PairCounts:
    """Counted trials of a set with exact EER brackets (see `eer_refinement` for the fields)."""

    tiling: Tiling
    curves: eer_refinement.CurveIndex
    counts: AnyArray  # (blocks, bins)
    tallies: IntArray  # (curves, 2, bins)
    bins: Bins
    brackets: dict[int, error_rates.Bracket]  # by curve
    pairs: tuple[AnyArray, AnyArray, AnyArray] | None  # score and two rows of every pair, for a small set

    def eer(self, curve: int) -> float | None:
        """Return the EER of a curve in [0, 1], or None without trials of both kinds."""
        if curve not in self.brackets:
            return None
        nontargets, targets = (int(trials.sum()) for trials in self.tallies[curve])
        return self.brackets[curve].eer(targets, nontargets)

    def in_set(self, set_index: int) -> BoolArray:
        """Return whether every sorted row belongs to the set, (N,). Set 0 holds all rows, set 1 + t stratum t."""
        rows: BoolArray = (self.tiling.stratum == set_index - 1) | (set_index == 0)
        return rows

    def finest_tally(self, set_index: int) -> tuple[IntArray, IntArray, BoolArray]:
        """Return the target trials and the non-target trials of a set per bin, and whether the bin holds one score.

        The bins are the distinct scores of a small set, and otherwise the score bins.
        """
        if self.pairs is None:
            nontargets, targets = self.tallies[set_index]
            return targets, nontargets, np.diff(self.bins.floors) <= 1
        scores, first, second = self.pairs
        inside = self.in_set(set_index)[first] & self.in_set(set_index)[second]
        values, bins = np.unique(scores[inside], return_inverse=True)
        is_target = (self.tiling.system[first] == self.tiling.system[second])[inside]
        targets, nontargets = (
            np.bincount(bins[kind], minlength=len(values)) for kind in (is_target, ~is_target)
        )
        return targets, nontargets, np.ones(len(values), bool)


def compute_set_metrics(
    pair_counts: PairCounts,
    set_index: int,
    *,
    bootstrap_samples: int,
    seed: int,
    p_target: float,
    threads: int,
) -> PairMetrics:
    """Compute the metrics of one set: 0 for all utterances, 1 + t for stratum t."""
    nontargets, targets = pair_counts.tallies[set_index]
    systems = compute_system_metrics(pair_counts, set_index)
    eers = [system.eer_percent for system in systems if system.eer_percent is not None]
    micro = pair_counts.eer(set_index)
    metrics = PairMetrics(
        utterances=int(pair_counts.in_set(set_index).sum()),
        systems=len(systems),
        macro_systems=len(eers),
        target_trials=int(targets.sum()),
        nontarget_trials=int(nontargets.sum()),
        per_system=systems,
    )
    if micro is None:
        return metrics
    micro_ci95, macro_ci95 = compute_intervals(
        pair_counts, set_index, samples=bootstrap_samples, seed=seed, threads=threads
    )
    *tally, has_one_score = pair_counts.finest_tally(set_index)
    auc, auc_error = error_rates.area_under_roc(*tally, has_one_score=has_one_score)
    cost, cost_error = error_rates.min_dcf(*tally, has_one_score=has_one_score, p_target=p_target)
    edges = pair_counts.bins.edges
    return replace(
        metrics,
        eer_micro_percent=100 * micro,
        eer_macro_percent=float(np.mean(eers)),
        eer_micro_ci95_percent=micro_ci95,
        eer_macro_ci95_percent=macro_ci95,
        eer_threshold=float(keys_to_scores(np.array(pair_counts.brackets[set_index].low_key))),
        auc=auc,
        auc_error_bound=auc_error,
        min_dcf=cost,
        min_dcf_error_bound=cost_error,
        det=error_rates.det_curve(targets, nontargets, edges),
        histogram=error_rates.score_histogram(targets, nontargets, edges),
    )


def compute_system_metrics(pair_counts: PairCounts, set_index: int) -> tuple[SystemMetrics, ...]:
    """Compute the metrics of every system with an utterance in the set, sorted by name."""
    names = pair_counts.tiling.systems
    utterances = np.bincount(pair_counts.tiling.system[pair_counts.in_set(set_index)], minlength=len(names))
    metrics = []
    for system in np.flatnonzero(utterances).tolist():
        curve = pair_counts.curves.system_curve(set_index, system)
        eer = pair_counts.eer(curve)
        metrics.append(
            SystemMetrics(
                system=names[system],
                utterances=int(utterances[system]),
                eer_percent=None if eer is None else 100 * eer,
                target_trials=int(pair_counts.tallies[curve, 1].sum()),
                nontarget_trials=int(pair_counts.tallies[curve, 0].sum()),
            )
        )
    return tuple(metrics)


def compute_intervals(
    pair_counts: PairCounts, set_index: int, *, samples: int, seed: int, threads: int
) -> tuple[Interval | None, Interval | None]:
    """Compute the 95 % intervals of micro and macro EER, in percent, by a bootstrap over the systems of the set."""
    is_inside = (pair_counts.curves.set_of_block == set_index) | (set_index == 0)
    present = np.unique(pair_counts.tiling.system[pair_counts.in_set(set_index)])
    first, second = pair_counts.tiling.block_systems()
    return bootstrap_intervals(
        pair_counts.counts,
        np.flatnonzero(is_inside),
        np.searchsorted(present, first),
        np.searchsorted(present, second),
        samples=samples,
        seed=[seed, set_index],
        threads=threads,
    )
