"""How far EERs may move if other systems had been met: bootstrap over systems, from counted pairs.

Trials are not independent (each utterance and each system enters many), so that resampling trials
gives intervals far too narrow; systems are resampled instead (the subsets bootstrap of Bolle, Ratha &
Pankanti 2004). A system drawn m times is m systems with the same utterances. Its target trials weigh m,
and those with a system drawn n times weigh m n. Pairs across two copies of one system do not count:
as non-targets they would be false ones, as targets they would pair each utterance with itself.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np

from makermark.scoring.kernels import Array, compiled

TABLE_BYTES = 1 << 24  # what the table of accepted pairs (C x bins x C x float32) may take
FEWEST_BINS = 64
LEVELS = (0.025, 0.975)

Interval = tuple[float, float]


def intervals(
    counts: Array,
    blocks: Array,
    first: Array,
    second: Array,
    *,
    samples: int,
    seed: list[int],
    threads: int = 1,
) -> tuple[Interval | None, Interval | None]:
    """95 % percentile intervals of (micro, macro) EER, in percent, from rows `blocks` of counts (all, bins).

    first, second (all,): the two systems of each row, first <= second; among `blocks` numbered from 0
    without gaps. All systems are drawn `samples` times with replacement; a resample without trials of
    both kinds has no EER and is left out, and None stands for no resample left. Bins are merged until the
    table fits TABLE_BYTES (though FEWEST_BINS stay: 256 C^2 bytes, 134 MB for 724 systems); inside a bin
    the ROC is taken as straight. Memory: that table of C x bins x C float32, and 8 C bytes for each resample; no
    pair is looked at again. Resamples are shared among `threads`.
    """
    systems = int(second[blocks].max()) + 1
    if samples == 0 or systems < 2:
        return None, None
    bins = counts.shape[1]
    while bins > FEWEST_BINS and systems * systems * bins * 4 > TABLE_BYTES:
        bins //= 2
    accepted = np.zeros((systems, bins, systems), np.float32)
    accept(counts, blocks, first, second, accepted)
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(systems, np.full(systems, 1 / systems), size=samples).astype(np.float64)
    micro, macro = np.empty(samples), np.empty(samples)
    cuts = np.linspace(0, samples, threads + 1).astype(int).tolist()
    with ThreadPoolExecutor(threads) as pool:
        parts = [
            pool.submit(resample, accepted, drawn[a:b], micro[a:b], macro[a:b]) for a, b in pairwise(cuts)
        ]
        for part in parts:
            part.result()
    return percentiles(micro), percentiles(macro)


def percentiles(eers: Array) -> Interval | None:
    """The interval of resampled EERs (samples,), NaN left out."""
    eers = eers[~np.isnan(eers)]
    if len(eers) == 0:
        return None
    low, high = np.quantile(eers, LEVELS)
    return 100 * float(low), 100 * float(high)


@compiled
def accept(counts: Array, blocks: Array, first: Array, second: Array, accepted: Array) -> None:
    """Fill accepted (C, bins, C): pairs of two systems with a score in this bin or above.

    Rows `blocks` of counts (all, n * bins) belong to systems first, second (all,); n bins become one.
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
def weighted_nontargets(accepted: Array, weights: Array, a: int, k: int) -> float:
    """Non-target trials of system a accepted at bin k, each weighing as its other system does."""
    trials = 0.0
    for c in range(weights.shape[0]):
        trials += weights[c] * accepted[a, k, c]
    return float(trials - weights[a] * accepted[a, k, a])


@compiled
def accepted_trials(accepted: Array, weights: Array, a: int, k: int) -> tuple[float, float]:
    """(target, non-target) trials accepted at bin k: of system a, or of the whole set if a < 0."""
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
def weighted_eer(accepted: Array, weights: Array, a: int) -> float:
    """EER with weighted trials, of system a or (a < 0) of all; NaN without trials of both kinds."""
    targets, nontargets = accepted_trials(accepted, weights, a, 0)
    if targets == 0 or nontargets == 0:
        return np.nan
    below, above = 0, accepted.shape[1]  # accepting from `below` on: misses <= false accepts
    gap_below, gap_above, fa_below, fa_above = -1.0, 1.0, 1.0, 0.0
    while above - below > 1:
        middle = (below + above) // 2
        hit, false = accepted_trials(accepted, weights, a, middle)
        fa = false / nontargets
        gap = 1 - hit / targets - fa
        if gap <= 0:
            below, gap_below, fa_below = middle, gap, fa
        else:
            above, gap_above, fa_above = middle, gap, fa
    return fa_above + gap_above / (gap_above - gap_below) * (fa_below - fa_above)


@compiled
def resample(accepted: Array, multiplicities: Array, micro: Array, macro: Array) -> None:
    """Fill micro, macro (R,) with the EERs of the resamples, multiplicities (R, C)."""
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
