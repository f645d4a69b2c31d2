"""Score a set of vectors: every pair of its utterances is a trial."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numba
import numpy as np

from makermark.errors import ScoringError
from makermark.scoring import passes, rates
from makermark.scoring.bins import Bins, bins_for, scores_of
from makermark.scoring.intervals import Interval, intervals
from makermark.scoring.kernels import Array
from makermark.scoring.layout import Layout, all_pairs, lay_out
from makermark.scoring.processor import Processor
from makermark.scoring.results import SetScores, SystemScore


def score_set(
    vectors: Array,
    systems: Array,
    strata: Array | None = None,
    *,
    bootstrap_samples: int,
    seed: int,
    p_target: float = 0.05,
    threads: int | None = None,
    device: str = "cpu",
    sample_utterances: int = 2048,
) -> SetScores:
    """Score vectors (N, D) with the system and, if given, the stratum (N,) of each.

    Neither the order of rows nor the number of threads (NUMBA_NUM_THREADS, or one per core) matters to
    the result. Memory grows with N D and with the square of the number of systems, not with the number
    of pairs: beside two copies of the vectors, `bins.COUNTERS_BYTES` (128 MB) for the counts of all pairs of
    systems, `passes.FINE_BYTES` (256 MB) at most where curves are settled, and what `intervals` states. Up to
    `sample_utterances` utterances AUC and minDCF are exact too; of a larger set, so many decide how finely
    scores are binned.

    Of a larger set every pair is looked at on `device`: cpu, cuda, or auto (cuda where there is one). A GPU's
    products may differ from the processor's in the last bit of float32 (see `accelerator`).

    Raises ScoringError for vectors without a direction, for a set without target or without non-target
    trials (a stratum may lack either) and for more than `layout.MOST_CHUNKS` systems times strata;
    ParamsError for a device that is not there; ValueError for shapes that do not fit and a p_target outside (0, 1).
    """
    if not 0 < p_target < 1:
        raise ValueError(f"p_target {p_target} is no probability between 0 and 1")
    layout = lay_out(vectors, systems, strata)
    check_trials(layout)
    threads = threads or int(numba.config.NUMBA_NUM_THREADS)  # type: ignore[attr-defined]  # set as it loads
    bins = bins_for(layout, sample_utterances=sample_utterances)
    curves = passes.curves_of(layout)
    small = len(layout.system) <= sample_utterances
    every_pair = pairs_of(layout, bins, device=device, threads=threads, small=small)
    counts = every_pair.count()
    tallies = passes.tally(curves, counts)
    counted = Counted(
        layout=layout,
        curves=curves,
        counts=counts,
        tallies=tallies,
        bins=bins,
        brackets=passes.settle(every_pair, curves, counts, tallies, bins),
        pairs=all_pairs(layout) if small else None,
    )
    whole, *parts = (
        score_one(
            counted, which, bootstrap_samples=bootstrap_samples, seed=seed, p_target=p_target, threads=threads
        )
        for which in range(curves.sets)
    )
    return replace(whole, strata=dict(zip(layout.strata, parts, strict=True)))


def pairs_of(layout: Layout, bins: Bins, *, device: str, threads: int, small: bool) -> passes.Pairs:
    """What looks at the pairs: the processor in machine code, or, unless the set is `small`, a GPU through torch."""
    if device != "cpu":
        from makermark.device import choose_device  # torch takes seconds to import
        from makermark.scoring.accelerator import Accelerator

        chosen = choose_device(device)
        if chosen.type == "cuda" and not small:
            return Accelerator(layout, bins, device=chosen)
    return Processor(layout, bins, threads=threads)


def check_trials(layout: Layout) -> None:
    """Raise ScoringError unless the set has target and non-target trials."""
    utterances, systems = len(layout.system), len(layout.systems)
    if utterances == systems:
        raise ScoringError(
            f"no target trial: {utterances} utterances, each of another system; score a set with two or more "
            "utterances of at least one system"
        )
    if systems == 1:
        raise ScoringError(
            f"no non-target trial: all {utterances} utterances are of system {layout.systems[0]!r}; score a set "
            "with at least two systems"
        )


@dataclass(frozen=True)
class Counted:
    """A set after its passes (see `passes` for the fields)."""

    layout: Layout
    curves: passes.Curves
    counts: Array  # (blocks, bins)
    tallies: Array  # (curves, 2, bins)
    bins: Bins
    brackets: dict[int, rates.Bracket]  # by curve
    pairs: tuple[Array, Array, Array] | None  # of a small set: every score and its two rows

    def eer(self, curve: int) -> float | None:
        """The EER of a curve in [0, 1]; None without trials of both kinds."""
        if curve not in self.brackets:
            return None
        nontargets, targets = (int(trials.sum()) for trials in self.tallies[curve])
        return self.brackets[curve].eer(targets, nontargets)

    def rows(self, which: int) -> Array:
        """(N,) whether a sorted row belongs to set `which`: 0 all, 1 + t stratum t."""
        rows: Array = (self.layout.stratum == which - 1) | (which == 0)
        return rows

    def finest(self, which: int) -> tuple[Array, Array, Array]:
        """Target and non-target trials of a set in each bin, and whether the bin holds but one score:
        bins are the distinct scores if the set is small, else those counted."""
        if self.pairs is None:
            nontargets, targets = self.tallies[which]
            return targets, nontargets, np.diff(self.bins.floors) <= 1
        scores, first, second = self.pairs
        inside = self.rows(which)[first] & self.rows(which)[second]
        values, bins = np.unique(scores[inside], return_inverse=True)
        is_target = (self.layout.system[first] == self.layout.system[second])[inside]
        targets, nontargets = (
            np.bincount(bins[kind], minlength=len(values)) for kind in (is_target, ~is_target)
        )
        return targets, nontargets, np.ones(len(values), bool)


def score_one(
    counted: Counted, which: int, *, bootstrap_samples: int, seed: int, p_target: float, threads: int
) -> SetScores:
    """The scores of set `which`: 0 all, 1 + t stratum t."""
    nontargets, targets = counted.tallies[which]
    systems = systems_of(counted, which)
    eers = [system.eer_percent for system in systems if system.eer_percent is not None]
    micro = counted.eer(which)
    scores = SetScores(
        utterances=int(counted.rows(which).sum()),
        systems=len(systems),
        macro_systems=len(eers),
        target_trials=int(targets.sum()),
        nontarget_trials=int(nontargets.sum()),
        eer_micro_percent=None,
        eer_macro_percent=None,
        eer_micro_ci95_percent=None,
        eer_macro_ci95_percent=None,
        eer_threshold=None,
        auc=None,
        auc_error_bound=None,
        min_dcf=None,
        min_dcf_error_bound=None,
        det=None,
        histogram=None,
        per_system=systems,
    )
    if micro is None:
        return scores
    micro_ci95, macro_ci95 = intervals_of(
        counted, which, samples=bootstrap_samples, seed=seed, threads=threads
    )
    *finest, one_score = counted.finest(which)
    auc, auc_error = rates.area(*finest, one_score=one_score)
    cost, cost_error = rates.min_dcf(*finest, one_score=one_score, p_target=p_target)
    edges = counted.bins.edges
    return replace(
        scores,
        eer_micro_percent=100 * micro,
        eer_macro_percent=float(np.mean(eers)),
        eer_micro_ci95_percent=micro_ci95,
        eer_macro_ci95_percent=macro_ci95,
        eer_threshold=float(scores_of(np.array(counted.brackets[which].low_key))),
        auc=auc,
        auc_error_bound=auc_error,
        min_dcf=cost,
        min_dcf_error_bound=cost_error,
        det=rates.det(targets, nontargets, edges),
        histogram=rates.histogram(targets, nontargets, edges),
    )


def systems_of(counted: Counted, which: int) -> tuple[SystemScore, ...]:
    """The score of each system with an utterance in the set, by name."""
    names = counted.layout.systems
    utterances = np.bincount(counted.layout.system[counted.rows(which)], minlength=len(names))
    found = []
    for system in np.flatnonzero(utterances).tolist():
        curve = counted.curves.of_system(which, system)
        eer = counted.eer(curve)
        found.append(
            SystemScore(
                system=names[system],
                utterances=int(utterances[system]),
                eer_percent=None if eer is None else 100 * eer,
                target_trials=int(counted.tallies[curve, 1].sum()),
                nontarget_trials=int(counted.tallies[curve, 0].sum()),
            )
        )
    return tuple(found)


def intervals_of(
    counted: Counted, which: int, *, samples: int, seed: int, threads: int
) -> tuple[Interval | None, Interval | None]:
    """The 95 % intervals of a set's micro and macro EER, in percent, over its own systems."""
    inside = (counted.curves.set_of_block == which) | (which == 0)
    present = np.unique(counted.layout.system[counted.rows(which)])
    first, second = counted.layout.block_systems()
    return intervals(
        counted.counts,
        np.flatnonzero(inside),
        np.searchsorted(present, first),
        np.searchsorted(present, second),
        samples=samples,
        seed=[seed, which],
        threads=threads,
    )
