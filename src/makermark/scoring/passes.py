"""The passes over all pairs. The first counts every pair in coarse bins; what follows looks again at
the bins in which an EER lies, and only at the blocks that have trials there, until it is exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from makermark.errors import ScoringError
from makermark.scoring import kernels
from makermark.scoring.bins import TOP_KEY, Bins
from makermark.scoring.kernels import Array
from makermark.scoring.layout import Layout
from makermark.scoring.rates import Bracket, crossing_bin

FINE_BYTES = 1 << 28  # what the fine counters may take
MOST_FINE = 1 << 16  # fine counters of one curve and kind
FEWEST_FINE = 1 << 6
FINE_PER_TRIAL = 16  # of those inside a bracket: more cost memory, fewer leave more curves to one more pass


@dataclass(frozen=True)
class Curves:
    """Which ROC curves the pairs of each block enter.

    Sets are numbered 0 for all utterances, 1 + t for stratum t. The curve of a whole set has the set's
    number; that of one system inside a set comes after them (`of_system`).
    """

    sets: int
    systems: int
    of_block: Array  # (blocks, 6), -1 for none
    kinds: Array  # (blocks,): 1 target, 0 non-target
    set_of_block: Array  # (blocks,): the stratum's set if both sides are of that stratum, else 0

    @property
    def count(self) -> int:
        return self.sets * (1 + self.systems)

    def of_system(self, which: int, system: int) -> int:
        """The curve of a system's trials inside a set."""
        return self.sets + which * self.systems + system


def curves_of(layout: Layout) -> Curves:
    """Every pair enters the set's curve and those of its one or two systems; so again in its stratum."""
    first, second = layout.block_systems()
    stratum, other = layout.block_strata()
    sets, systems = 1 + len(layout.strata), len(layout.systems)
    set_of_block = np.where(stratum == other, stratum + 1, 0)
    of_block = np.full((len(first), 6), -1)
    for column, which in ((0, np.zeros_like(set_of_block)), (3, set_of_block)):
        inside = (column == 0) | (set_of_block > 0)
        of_block[:, column] = np.where(inside, which, -1)
        of_block[:, column + 1] = np.where(inside, sets + which * systems + first, -1)
        of_block[:, column + 2] = np.where(inside & (first != second), sets + which * systems + second, -1)
    kinds = (first == second).astype(np.int64)
    return Curves(sets, systems, of_block, kinds, set_of_block)


@dataclass(frozen=True)
class Open:
    """Where the curves are not settled, (curves,) each: curve c where low_key[c] <= key <= high_key[c] (nothing if
    low > high), in size[c] fine counters that span 2^shift[c] keys each (the keys of `bins.keys_of`)."""

    low_key: Array
    high_key: Array
    shift: Array
    size: Array

    @property
    def offset(self) -> Array:
        """(curves,): the first counter of each curve, where all stand in one row."""
        return np.asarray(np.cumsum(self.size) - self.size)


class Pairs(Protocol):
    """What looks at every pair of a layout: this machine's processor, or a GPU. A pair has one score in all calls."""

    copies: int  # of the fine counters, held by `refine` at a time

    def count(self) -> Array:
        """(blocks, bins) uint32: how many pairs of each block have a score in each bin."""

    def refine(self, todo: Array, curves: Curves, within: Open) -> Array:
        """(2, counters) int64: the non-target and target trials of the blocks `todo` in each fine counter."""


def tally(curves: Curves, counts: Array) -> Array:
    """(curves, 2, bins) trials of each curve: [:, 1] target, [:, 0] non-target."""
    tallies = np.zeros((curves.count, 2, counts.shape[1]), np.int64)
    kernels.total(counts, curves.of_block, curves.kinds, tallies)
    return tallies


def settle(pairs: Pairs, curves: Curves, counts: Array, tallies: Array, bins: Bins) -> dict[int, Bracket]:
    """The settled bracket of every curve that has trials of both kinds: from it the EER is exact."""
    floors = bins.floors
    totals = tallies.sum(axis=2)
    settled: dict[int, Bracket] = {}
    unsettled: dict[int, Bracket] = {}
    bin_of_curve = np.zeros(curves.count, np.int64)
    for curve in np.flatnonzero(totals.min(axis=1) > 0).tolist():
        nontargets, targets = tallies[curve]
        whole = Bracket(-TOP_KEY, TOP_KEY, 0, 0, int(totals[curve, 1]), int(totals[curve, 0]))
        bin_of_curve[curve], bracket = narrow(whole, targets, nontargets, floors, totals[curve])
        (settled if bracket.settled() else unsettled)[curve] = bracket
    while unsettled:
        todo = blocks_inside(curves, counts, bin_of_curve, unsettled)
        finer = look_again(pairs, curves, todo, unsettled, totals)
        unsettled = {curve: bracket for curve, bracket in finer.items() if not bracket.settled()}
        settled |= {curve: bracket for curve, bracket in finer.items() if bracket.settled()}
    return settled


def narrow(
    bracket: Bracket, targets: Array, nontargets: Array, floors: Array, totals: Array
) -> tuple[int, Bracket]:
    """The bin inside a bracket where its curve crosses, and that bin as a bracket.

    targets, nontargets (bins,); floors (bins + 1,) keys; totals: (non-target, target) trials of the curve.
    """
    above = (bracket.targets_above, bracket.nontargets_above)
    k, above = crossing_bin(targets, nontargets, above=above, totals=(int(totals[1]), int(totals[0])))
    inside = int(targets[k]), int(nontargets[k])
    return k, Bracket(int(floors[k]), int(floors[k + 1]) - 1, *above, *inside)


def blocks_inside(curves: Curves, counts: Array, bin_of_curve: Array, unsettled: dict[int, Bracket]) -> Array:
    """The blocks that have a trial in the bin where an unsettled curve of theirs crosses."""
    is_open = np.zeros(curves.count + 1, bool)  # the last stands for curve -1: none
    is_open[list(unsettled)] = True
    wanted = np.zeros(len(counts), bool)
    for curve in curves.of_block.T:
        wanted |= is_open[curve] & (counts[np.arange(len(counts)), bin_of_curve[curve]] > 0)
    return np.flatnonzero(wanted)


def look_again(
    pairs: Pairs, curves: Curves, todo: Array, unsettled: dict[int, Bracket], totals: Array
) -> dict[int, Bracket]:
    """One more pass over the blocks `todo`: every unsettled bracket narrowed up to MOST_FINE times.

    Raises ScoringError where the pairs are not those that were counted before.
    """
    low_key, high_key = np.full(curves.count, 1), np.zeros(curves.count, np.int64)  # low > high: not open
    trials = np.zeros(curves.count, np.int64)
    for curve, bracket in unsettled.items():
        low_key[curve], high_key[curve] = bracket.low_key, bracket.high_key
        trials[curve] = bracket.targets_inside + bracket.nontargets_inside
    shift, size = fine_steps(high_key - low_key, trials, most_bytes=FINE_BYTES // (2 * pairs.copies))
    within = Open(low_key, high_key, shift, size)
    counts = pairs.refine(todo, curves, within)
    finer = {}
    for curve, bracket in unsettled.items():
        floors = np.append(bracket.low_key + (np.arange(size[curve]) << shift[curve]), bracket.high_key + 1)
        start = within.offset[curve]
        nontargets, targets = counts[:, start : start + size[curve]]
        found, before = targets.sum(), bracket.targets_inside
        if (found, nontargets.sum()) != (before, bracket.nontargets_inside):
            raise ScoringError(
                f"{found} targets lie where {before} were counted before, or so non-targets: this device gives one "
                "pair two scores; score on the processor (device: cpu)"
            )
        finer[curve] = narrow(bracket, targets, nontargets, floors, totals[curve])[1]
    return finer


def fine_steps(spans: Array, trials: Array, *, most_bytes: int) -> tuple[Array, Array]:
    """(shift, size) of each curve: fine counters that span 2^shift keys each, and how many they are.

    spans (curves,): highest less lowest key, negative for a curve that wants none; trials (curves,) between them. No
    more than FINE_PER_TRIAL for a trial and MOST_FINE for one curve, and most_bytes (of int64) for all, as long as
    FEWEST_FINE are left.
    """
    fine = np.clip(FINE_PER_TRIAL * trials, FEWEST_FINE, MOST_FINE)
    while True:
        shift = np.zeros(len(spans), np.int64)
        while np.any(spans >> shift >= fine):
            shift += spans >> shift >= fine
        size = np.where(spans >= 0, (spans >> shift) + 1, 0)
        if fine.max() == FEWEST_FINE or size.sum() * 8 <= most_bytes:
            return shift, size
        fine = np.maximum(fine // 2, FEWEST_FINE)
