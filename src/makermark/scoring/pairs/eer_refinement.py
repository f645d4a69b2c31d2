"""Exact EERs by repeated passes over all pairs.

The first pass counts every pair in coarse bins. Every later pass counts again, in fine bins, only the score intervals
that contain an EER, and only the blocks that have trials there. The passes end when every EER is exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from makermark.foundation.arrays import AnyArray, BoolArray, Float32Array, IntArray
from makermark.foundation.errors import ScoringError
from makermark.scoring.pairs.cpu import sum_blocks
from makermark.scoring.pairs.error_rates import Bracket, crossing_bin
from makermark.scoring.pairs.tiling import TOP_KEY, Bins, Tiling, keys_to_scores

FINE_COUNTER_BYTES = 1 << 28  # limit for all fine counters
MAX_FINE_COUNTERS = 1 << 16  # of one curve and kind of trial
MIN_FINE_COUNTERS = 1 << 6
# For each trial inside a bracket. More counters need more memory; with fewer, more curves need one more pass.
FINE_COUNTERS_PER_TRIAL = 16


@dataclass(frozen=True)
class CurveIndex:
    """The ROC curves that the pairs of every block belong to.

    Set 0 holds all utterances, set 1 + t those of stratum t. The curve of a whole set has the number of the set. The
    curves of single systems inside a set follow (`system_curve`).
    """

    sets: int
    systems: int
    of_block: IntArray  # (blocks, 6), -1 for none
    kinds: IntArray  # (blocks,): 1 target, 0 non-target
    set_of_block: IntArray  # (blocks,): set of the stratum if both sides are of that stratum, else 0

    @property
    def count(self) -> int:
        """Number of curves."""
        return self.sets * (1 + self.systems)

    def system_curve(self, set_index: int, system: int) -> int:
        """Return the curve of the trials of one system inside a set."""
        return self.sets + set_index * self.systems + system


def index_curves(tiling: Tiling) -> CurveIndex:
    """Assign every block to the curves of the whole set and of its one or two systems, and to those in its stratum."""
    first, second = tiling.block_systems()
    stratum, other = tiling.block_strata()
    sets, systems = 1 + len(tiling.strata), len(tiling.systems)
    set_of_block = np.where(stratum == other, stratum + 1, 0)
    of_block = np.full((len(first), 6), -1)
    for column, set_index in ((0, np.zeros_like(set_of_block)), (3, set_of_block)):
        inside = (column == 0) | (set_of_block > 0)
        of_block[:, column] = np.where(inside, set_index, -1)
        of_block[:, column + 1] = np.where(inside, sets + set_index * systems + first, -1)
        has_two = inside & (first != second)
        of_block[:, column + 2] = np.where(has_two, sets + set_index * systems + second, -1)
    kinds = (first == second).astype(np.int64)
    return CurveIndex(sets, systems, of_block, kinds, set_of_block)


@dataclass(frozen=True)
class RefinementRanges:
    """Score ranges that a refinement pass counts in fine bins, one entry per curve, (curves,) each.

    Curve c is refined where low_key[c] <= key <= high_key[c] (nowhere if low > high), in size[c] fine counters that
    span 2^shift[c] keys each (the keys of `tiling.scores_to_keys`).
    """

    low_key: IntArray
    high_key: IntArray
    shift: IntArray
    size: IntArray

    @property
    def low_score(self) -> Float32Array:
        """The scores (curves,) of `low_key`."""
        return keys_to_scores(self.low_key)

    @property
    def high_score(self) -> Float32Array:
        """The scores (curves,) of `high_key`."""
        return keys_to_scores(self.high_key)

    @property
    def offset(self) -> IntArray:
        """Index (curves,) of the first counter of every curve in one row of all counters."""
        return np.asarray(np.cumsum(self.size) - self.size)


class PairCounter(Protocol):
    """Counter of all pairs of a tiling, on the CPU or on a GPU. A pair has the same score in every call."""

    counter_copies: int  # copies of the fine counters that `refine` holds at the same time

    def count(self) -> AnyArray:
        """Return the number of pairs of every block in every bin, (blocks, bins) uint32."""

    def refine(self, todo: IntArray, curves: CurveIndex, ranges: RefinementRanges) -> IntArray:
        """Return the trials of the blocks `todo` in every fine counter, (2, counters): non-targets, targets."""


def sum_by_curve(curves: CurveIndex, counts: AnyArray) -> IntArray:
    """Return the trials (curves, 2, bins) of every curve: [:, 1] target, [:, 0] non-target."""
    tallies = np.zeros((curves.count, 2, counts.shape[1]), np.int64)
    sum_blocks(counts, curves.of_block, curves.kinds, tallies)
    return tallies


def bracket_eers(
    counter: PairCounter, curves: CurveIndex, counts: AnyArray, tallies: IntArray, bins: Bins
) -> dict[int, Bracket]:
    """Return an exact bracket (`Bracket.is_exact`) for every curve that has trials of both kinds."""
    floors = bins.floors
    totals = tallies.sum(axis=2)
    exact: dict[int, Bracket] = {}
    inexact: dict[int, Bracket] = {}
    bin_of_curve = np.zeros(curves.count, np.int64)
    for curve in np.flatnonzero(totals.min(axis=1) > 0).tolist():
        nontargets, targets = tallies[curve]
        whole = Bracket(-TOP_KEY, TOP_KEY, 0, 0, int(totals[curve, 1]), int(totals[curve, 0]))
        bin_of_curve[curve], bracket = narrow_bracket(whole, targets, nontargets, floors, totals[curve])
        (exact if bracket.is_exact() else inexact)[curve] = bracket
    while inexact:
        todo = blocks_to_refine(curves, counts, bin_of_curve, inexact)
        refined = refine(counter, curves, todo, inexact, totals)
        inexact = {curve: bracket for curve, bracket in refined.items() if not bracket.is_exact()}
        exact |= {curve: bracket for curve, bracket in refined.items() if bracket.is_exact()}
    return exact


def narrow_bracket(
    bracket: Bracket, targets: IntArray, nontargets: IntArray, floors: IntArray, totals: IntArray
) -> tuple[int, Bracket]:
    """Return the bin inside a bracket where its curve crosses, and that bin as a bracket.

    targets, nontargets (bins,): trials inside the bracket. floors (bins + 1,): keys of the bins. totals: non-target and
    target trials of the whole curve.
    """
    above = (bracket.targets_above, bracket.nontargets_above)
    k, above = crossing_bin(targets, nontargets, above=above, totals=(int(totals[1]), int(totals[0])))
    inside = int(targets[k]), int(nontargets[k])
    return k, Bracket(int(floors[k]), int(floors[k + 1]) - 1, *above, *inside)


def blocks_to_refine(
    curves: CurveIndex, counts: AnyArray, bin_of_curve: IntArray, inexact: dict[int, Bracket]
) -> IntArray:
    """Return the blocks that have a trial in the crossing bin of one of their inexact curves."""
    is_inexact: BoolArray = np.zeros(curves.count + 1, bool)  # the last entry stands for curve -1: none
    is_inexact[list(inexact)] = True
    needed = np.zeros(len(counts), bool)
    for curve in curves.of_block.T:
        needed |= is_inexact[curve] & (counts[np.arange(len(counts)), bin_of_curve[curve]] > 0)
    return np.flatnonzero(needed)


def refine(
    counter: PairCounter, curves: CurveIndex, todo: IntArray, inexact: dict[int, Bracket], totals: IntArray
) -> dict[int, Bracket]:
    """Pass once more over the blocks `todo`, and narrow every inexact bracket up to MAX_FINE_COUNTERS times.

    Raises ScoringError if the trials in a bracket differ from those counted before.
    """
    low_key, high_key = np.full(curves.count, 1), np.zeros(curves.count, np.int64)  # low > high: not refined
    trials = np.zeros(curves.count, np.int64)
    for curve, bracket in inexact.items():
        low_key[curve], high_key[curve] = bracket.low_key, bracket.high_key
        trials[curve] = bracket.targets_inside + bracket.nontargets_inside
    shift, size = choose_fine_counters(
        high_key - low_key, trials, max_bytes=FINE_COUNTER_BYTES // (2 * counter.counter_copies)
    )
    ranges = RefinementRanges(low_key, high_key, shift, size)
    counts = counter.refine(todo, curves, ranges)
    refined = {}
    for curve, bracket in inexact.items():
        floors = np.append(bracket.low_key + (np.arange(size[curve]) << shift[curve]), bracket.high_key + 1)
        start = ranges.offset[curve]
        nontargets, targets = counts[:, start : start + size[curve]]
        now = (targets.sum(), nontargets.sum())
        if now != (bracket.targets_inside, bracket.nontargets_inside):
            raise ScoringError(
                f"two passes disagree in a score interval: {bracket.targets_inside} and {now[0]} target trials, "
                f"{bracket.nontargets_inside} and {now[1]} non-target trials; this device gives a pair two scores; "
                "score on the CPU (device: cpu)"
            )
        refined[curve] = narrow_bracket(bracket, targets, nontargets, floors, totals[curve])[1]
    return refined


def choose_fine_counters(spans: IntArray, trials: IntArray, *, max_bytes: int) -> tuple[IntArray, IntArray]:
    """Return (shift, size) of every curve: it has `size` fine counters that span 2^shift keys each.

    spans (curves,): highest minus lowest key, negative for a curve that is not refined. trials (curves,): trials in
    that span. A curve has at most FINE_COUNTERS_PER_TRIAL counters per trial and at most MAX_FINE_COUNTERS. All curves
    together have at most `max_bytes` of int64 counters, unless every curve already has only MIN_FINE_COUNTERS.
    """
    most = np.clip(FINE_COUNTERS_PER_TRIAL * trials, MIN_FINE_COUNTERS, MAX_FINE_COUNTERS)
    while True:
        shift = np.zeros(len(spans), np.int64)
        while np.any(spans >> shift >= most):
            shift += spans >> shift >= most
        size = np.where(spans >= 0, (spans >> shift) + 1, 0)
        if most.max() == MIN_FINE_COUNTERS or size.sum() * 8 <= max_bytes:
            return shift, size
        most = np.maximum(most // 2, MIN_FINE_COUNTERS)
