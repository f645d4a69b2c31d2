"""Confidence intervals of EERs: a bootstrap over systems, from counted pairs.

Trials are not independent, because every utterance and every system takes part in many. Intervals from resampled trials
are therefore far too narrow. Systems are resampled instead (the subsets bootstrap of Bolle, Ratha & Pankanti 2004). A
system that is drawn m times counts as m systems with the same utterances: its target trials have the weight m, and its
trials with a system that is drawn n times have the weight m n. Pairs across two copies of one system are omitted. As
non-target trials they would be wrong, and as target trials they would pair every utterance with itself.

The interval is the expanded percentile interval (Hesterberg 2015, "What Teachers Should Know About the Bootstrap", The
American Statistician 69(4), 371-386). The plain percentile interval is too narrow for few systems, because a bootstrap
estimates a standard error that is too small by the factor sqrt((C - 1) / C) and takes normal instead of t quantiles.
`quantile_levels` corrects both. It does not correct a set in which one system dominates.
benchmarks/interval_coverage.py measures how often the intervals contain the true EER.

`scoring.open_set_metrics` and `tracing.evaluation` resample systems for other metrics.

The EER of a resample is computed by compiled code from weighted counts (`weighted_eer`), because a set has thousands of
resamples times systems. `error_rates` describes the other forms of the EER.

Axes: C systems, R resamples.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
from scipy.special import ndtr, stdtrit

from makermark.foundation.arrays import AnyArray, Float32Array, FloatArray, IntArray
from makermark.scoring.pairs.cpu import compiled

TABLE_BYTES = 1 << 24  # limit for the table of accepted pairs (C x bins x C x float32)
MIN_BINS = 64
MIN_INTERVAL_SYSTEMS = 5  # with fewer, tables and plots show no interval: it would not be informative
TAIL = 0.025  # the share of each tail outside a 95 % interval

Interval = tuple[float, float]


def quantile_levels(systems: int) -> tuple[float, float]:
    """Return the quantiles of a bootstrap over this number of systems that are the ends of a 95 % interval.

    Expanded percentile interval (Hesterberg 2015): the lower level is Phi(sqrt(C / (C - 1)) t), with t the 2.5 %
    quantile of Student's distribution with C - 1 degrees of freedom; the upper level is 1 minus the lower one. They
    approach 0.025 and 0.975 for many systems. For two systems they are so close to 0 and 1 that the interval spans all
    resamples. Raises ValueError for fewer than two systems, which have no variance.
    """
    if systems < 2:
        raise ValueError(f"{systems} system(s): an interval over systems needs at least 2")
    low = float(ndtr(np.sqrt(systems / (systems - 1)) * stdtrit(systems - 1, TAIL)))
    return low, 1 - low


def bootstrap_intervals(
    counts: AnyArray,
    blocks: IntArray,
    first: IntArray,
    second: IntArray,
    *,
    samples: int,
    seed: list[int],
    threads: int = 1,
) -> tuple[Interval | None, Interval | None]:
    """Return the 95 % intervals of the micro and the macro EER, in percent; see `resampled_eers`.

    The interval is None for fewer than two systems, and if no resample has trials of both kinds.
    """
    systems = int(second[blocks].max()) + 1
    if samples == 0 or systems < 2:
        return None, None
    micro, macro = resampled_eers(counts, blocks, first, second, samples=samples, seed=seed, threads=threads)
    return percentile_interval(micro, systems), percentile_interval(macro, systems)


def resampled_eers(
    counts: AnyArray,
    blocks: IntArray,
    first: IntArray,
    second: IntArray,
    *,
    samples: int,
    seed: list[int],
    threads: int = 1,
) -> tuple[FloatArray, FloatArray]:
    """Return the micro and the macro EER (R,), in [0, 1], of every resample of the systems.

    The pairs are the rows `blocks` of counts (all, bins). first, second (all,) are the two systems of every row, with
    first <= second; among `blocks` they are numbered from 0 without gaps.

    All systems are drawn `samples` times with replacement. The EERs of a resample without trials of both kinds are NaN.
    Bins are merged until the table fits into TABLE_BYTES, but MIN_BINS remain (256 C^2 bytes, 134 MB for 724 systems);
    inside a bin the ROC is taken as straight.

    Memory: the table of C x bins x C float32, and 8 C bytes per resample. Resamples are shared among `threads`.
    """
    systems = int(second[blocks].max()) + 1
    bins = counts.shape[1]
    while bins > MIN_BINS and systems * systems * bins * 4 > TABLE_BYTES:
        bins //= 2
    accepted = np.zeros((systems, bins, systems), np.float32)
    accumulate_accepted(counts, blocks, first, second, accepted)
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(systems, np.full(systems, 1 / systems), size=samples).astype(np.float64)
    micro, macro = np.empty(samples), np.empty(samples)
    cuts = np.linspace(0, samples, threads + 1).astype(int).tolist()
    with ThreadPoolExecutor(threads) as pool:
        calls = [
            pool.submit(resample, accepted, weights[a:b], micro[a:b], macro[a:b]) for a, b in pairwise(cuts)
        ]
        for call in calls:
            call.result()
    return micro, macro


def percentile_interval(eers: FloatArray, systems: int) -> Interval | None:
    """Return the interval, in percent, of EERs (R,) in [0, 1] from a bootstrap over `systems`; NaN are left out."""
    eers = eers[~np.isnan(eers)]
    if len(eers) == 0:
        return None
    low, high = np.quantile(eers, quantile_levels(systems))
    return 100 * float(low), 100 * float(high)


@compiled
def accumulate_accepted(
    counts: AnyArray, blocks: IntArray, first: IntArray, second: IntArray, accepted: Float32Array
) -> None:
    """Add to accepted (C, bins, C) the pairs of two systems that have a score in this bin or above.

    Rows `blocks` of counts (B, n * bins) belong to the systems first, second (B,). Each n neighbouring bins of counts
    are one bin of accepted.
    """
    bins = accepted.shape[1]
    merged = counts.shape[1] // bins
    for block in blocks:
        a, c = first[block], second[block]
        above = 0
        for k in range(bins - 1, -1, -1):
            for n in range(k * merged, (k + 1) * merged):
                above += counts[block, n]
            accepted[a, k, c] += above
            if a != c:
                accepted[c, k, a] += above


@compiled
def weighted_nontargets(accepted: Float32Array, weights: FloatArray, a: int, k: int) -> float:
    """Return the non-target trials of system a accepted at bin k, weighted by their other system."""
    trials = 0.0
    for c in range(weights.shape[0]):
        trials += weights[c] * accepted[a, k, c]
    return float(trials - weights[a] * accepted[a, k, a])


@compiled
def accepted_trials(accepted: Float32Array, weights: FloatArray, a: int, k: int) -> tuple[float, float]:
    """Return the (target, non-target) trials accepted at bin k, of system a, or of the whole set if a < 0."""
    bins = accepted.shape[1]
    if k == bins:
        return 0.0, 0.0
    if a >= 0:
        return accepted[a, k, a], weighted_nontargets(accepted, weights, a, k)
    targets, nontargets = 0.0, 0.0
    for c in range(weights.shape[0]):
        if weights[c] > 0:
            targets += weights[c] * accepted[c, k, c]
            nontargets += 0.5 * weights[c] * weighted_nontargets(accepted, weights, c, k)
    return targets, nontargets


@compiled
def weighted_eer(accepted: Float32Array, weights: FloatArray, a: int) -> float:
    """Return the EER of weighted trials, of system a, or of all if a < 0; NaN without trials of both kinds."""
    targets, nontargets = accepted_trials(accepted, weights, a, 0)
    if targets == 0 or nontargets == 0:
        return np.nan
    below, above = 0, accepted.shape[1]  # accepting from bin `below` on: miss rate <= false-accept rate
    gap_below, gap_above, fa_below, fa_above = -1.0, 1.0, 1.0, 0.0
    while above - below > 1:
        middle = (below + above) // 2
        accepted_targets, accepted_nontargets = accepted_trials(accepted, weights, a, middle)
        fa = accepted_nontargets / nontargets
        gap = 1 - accepted_targets / targets - fa
        if gap <= 0:
            below, gap_below, fa_below = middle, gap, fa
        else:
            above, gap_above, fa_above = middle, gap, fa
    return fa_above + gap_above / (gap_above - gap_below) * (fa_below - fa_above)


@compiled
def resample(
    accepted: Float32Array, multiplicities: FloatArray, micro: FloatArray, macro: FloatArray
) -> None:
    """Write the EERs of the resamples, multiplicities (R, C), into micro, macro (R,)."""
    for r in range(multiplicities.shape[0]):
        weights = multiplicities[r]
        micro[r] = weighted_eer(accepted, weights, -1)
        total, drawn = 0.0, 0.0
        for a in range(weights.shape[0]):
            if weights[a] > 0:
                eer = weighted_eer(accepted, weights, a)
                if not np.isnan(eer):
                    total += weights[a] * eer
                    drawn += weights[a]
        macro[r] = total / drawn if drawn > 0 else np.nan
