"""The passes over all pairs. The first counts every pair in coarse bins; what follows looks again at
the bins in which an EER lies, and only at the blocks that have trials there, until it is exact.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import TypeVar

import numpy as np

from makermark.scoring import kernels
from makermark.scoring.bins import TOP_KEY, Bins, scores_of
from makermark.scoring.kernels import Array
from makermark.scoring.layout import Layout
from makermark.scoring.rates import Bracket, crossing_bin

BATCH_PAIRS = 1 << 21  # pairs that a thread takes at a time
FINE_BYTES = 1 << 28  # what the fine counters of all threads may take
MOST_FINE = 1 << 16  # fine counters of one curve and kind
FEWEST_FINE = 1 << 6

Result = TypeVar("Result")


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


def count_pairs(layout: Layout, bins: Bins, *, threads: int) -> Array:
    """First pass: (blocks, bins) uint32, how many pairs of each block have a score in each bin.

    Every block has a row of its own, so that threads share nothing and no order of work shows.
    """
    counts = np.zeros((len(layout.blocks), bins.count), np.uint32)

    def work(todo: Iterator[Array]) -> None:
        for blocks in todo:
            kernels.count(
                layout.rows,
                layout.panels,
                layout.starts,
                layout.panel_starts,
                layout.blocks,
                blocks,
                bins.low,
                bins.cells_per_unit,
                bins.bin_of_cell,
                counts,
            )

    side_by_side(work, batches(layout, np.arange(len(layout.blocks))), threads=threads)
    return counts


def tally(curves: Curves, counts: Array) -> Array:
    """(curves, 2, bins) trials of each curve: [:, 1] target, [:, 0] non-target."""
    tallies = np.zeros((curves.count, 2, counts.shape[1]), np.int64)
    kernels.total(counts, curves.of_block, curves.kinds, tallies)
    return tallies


def settle(
    layout: Layout, curves: Curves, counts: Array, tallies: Array, bins: Bins, *, threads: int
) -> dict[int, Bracket]:
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
        finer = look_again(layout, curves, todo, unsettled, totals, threads=threads)
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
    layout: Layout,
    curves: Curves,
    todo: Array,
    unsettled: dict[int, Bracket],
    totals: Array,
    *,
    threads: int,
) -> dict[int, Bracket]:
    """One more pass over the blocks `todo`: every unsettled bracket narrowed up to MOST_FINE times."""
    low_key, high_key = np.full(curves.count, 1), np.zeros(curves.count, np.int64)  # low > high: not open
    for curve, bracket in unsettled.items():
        low_key[curve], high_key[curve] = bracket.low_key, bracket.high_key
    shift, size = fine_steps(high_key - low_key, most_bytes=FINE_BYTES // (2 * threads))
    offset = np.cumsum(size) - size

    def work(todo: Iterator[Array]) -> Array:
        counts = np.zeros((2, size.sum()), np.int64)
        for blocks in todo:
            kernels.refine(
                layout.rows,
                layout.panels,
                layout.starts,
                layout.panel_starts,
                layout.blocks,
                blocks,
                curves.of_block,
                curves.kinds,
                scores_of(low_key),
                scores_of(high_key),
                low_key,
                shift,
                offset,
                counts,
            )
        return counts

    counts = sum(
        side_by_side(work, batches(layout, todo), threads=threads), np.zeros((2, size.sum()), np.int64)
    )
    finer = {}
    for curve, bracket in unsettled.items():
        floors = np.append(bracket.low_key + (np.arange(size[curve]) << shift[curve]), bracket.high_key + 1)
        nontargets, targets = counts[:, offset[curve] : offset[curve] + size[curve]]
        finer[curve] = narrow(bracket, targets, nontargets, floors, totals[curve])[1]
    return finer


def fine_steps(spans: Array, *, most_bytes: int) -> tuple[Array, Array]:
    """(shift, size) of each curve: fine counters that span 2^shift keys each, and how many they are.

    spans (curves,): highest less lowest key, negative for a curve that wants none. No more than MOST_FINE
    for one curve, and most_bytes (of int64) for all, as long as FEWEST_FINE are left.
    """
    fine = MOST_FINE
    while True:
        shift = np.zeros(len(spans), np.int64)
        while np.any(spans >> shift >= fine):
            shift += spans >> shift >= fine
        size = np.where(spans >= 0, (spans >> shift) + 1, 0)
        if fine == FEWEST_FINE or size.sum() * 8 <= most_bytes:
            return shift, size
        fine //= 2


def batches(layout: Layout, blocks: Array) -> list[Array]:
    """Cut a list of blocks where about BATCH_PAIRS pairs are together."""
    done = np.cumsum(layout.block_pairs()[blocks]) // BATCH_PAIRS
    return np.split(blocks, np.flatnonzero(np.diff(done)) + 1)


def side_by_side(
    work: Callable[[Iterator[Array]], Result], todo: list[Array], *, threads: int
) -> list[Result]:
    """Call `work` in each thread with an iterator that hands every batch to one of them."""
    queue: SimpleQueue[Array] = SimpleQueue()
    for batch in todo:
        queue.put(batch)
    if threads == 1:
        return [work(drain(queue))]
    with ThreadPoolExecutor(threads) as pool:
        return [call.result() for call in [pool.submit(work, drain(queue)) for _ in range(threads)]]


def drain(queue: SimpleQueue[Array]) -> Iterator[Array]:
    """What is left in the queue, until it is empty."""
    while True:
        try:
            yield queue.get_nowait()
        except Empty:
            return
