"""All pairs on the CPU: compiled kernels over tiles of pairs, and the counter that runs them in several threads.

The kernels are the only loops of makermark that visit every pair. A tile is ROWS rows times one panel of WIDTH columns.
A score is the sum over dimensions 0, 1, 2, ... in that order, in every tile, at every position and for any number of
threads. A pair therefore has the same score, bit for bit, in every pass, and the same score with its two utterances
swapped.

Axes: N utterances (rows), D dimensions padded to a multiple of DEPTH.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numba
import numpy as np

from makermark.foundation.arrays import AnyArray, IntArray

if TYPE_CHECKING:
    from makermark.scoring.pairs.eer_refinement import CurveIndex, RefinementRanges
    from makermark.scoring.pairs.tiling import Bins, Tiling

WIDTH = 64  # columns of a panel: WIDTH x 50 dimensions of float32 fit into a 32 KiB first-level cache
ROWS = 4  # rows of a tile: ROWS x WIDTH sums, each loaded and stored once per DEPTH dimensions
DEPTH = 4  # dimensions summed per step; D is padded with zeros to a multiple

BATCH_PAIRS = 1 << 21  # pairs that a thread takes at a time

Function = TypeVar("Function", bound=Callable[..., Any])
Result = TypeVar("Result")


def compiled(function: Function) -> Function:
    """Compile a function with Numba, cache the machine code on disk, and release the GIL while it runs."""
    return cast("Function", _njit(function))


def compiled_fused(function: Function) -> Function:
    """Compile as `compiled` does, and allow fused multiply-add: a product and its sum are rounded once."""
    return cast("Function", _njit(function, fastmath={"contract"}))


def _njit(function: Callable[..., Any], **options: Any) -> Any:
    dispatcher = numba.njit(function, nogil=True, **options)
    enable_cache(dispatcher)
    return dispatcher


def enable_cache(dispatcher: Any) -> None:
    """Let Numba store the machine code, if possible: folders may be read-only, as in containers, and disks full."""
    try:
        dispatcher.enable_caching()
    except RuntimeError:  # Numba finds no folder for its cache, neither beside the package nor in the home
        return
    save = dispatcher._cache.save_overload

    def try_to_save(*arguments: Any) -> None:
        with suppress(OSError):
            save(*arguments)

    dispatcher._cache.save_overload = try_to_save


@compiled_fused
def multiply(rows: AnyArray, r: int, panel: AnyArray, scores: AnyArray) -> None:
    """Write rows[r : r + 4] (4, D) times panel (D, WIDTH) into scores (4, WIDTH); all are float32.

    The loop is unrolled by hand: the compiler then holds 16 factors in registers and vectorises over the columns.
    """
    for k in range(ROWS):
        for j in range(WIDTH):
            scores[k, j] = 0.0
    for d in range(0, rows.shape[1], DEPTH):
        a0, a1, a2, a3 = rows[r, d], rows[r, d + 1], rows[r, d + 2], rows[r, d + 3]
        b0, b1, b2, b3 = rows[r + 1, d], rows[r + 1, d + 1], rows[r + 1, d + 2], rows[r + 1, d + 3]
        c0, c1, c2, c3 = rows[r + 2, d], rows[r + 2, d + 1], rows[r + 2, d + 2], rows[r + 2, d + 3]
        e0, e1, e2, e3 = rows[r + 3, d], rows[r + 3, d + 1], rows[r + 3, d + 2], rows[r + 3, d + 3]
        for j in range(WIDTH):
            y0, y1, y2, y3 = panel[d, j], panel[d + 1, j], panel[d + 2, j], panel[d + 3, j]
            scores[0, j] = (((scores[0, j] + a0 * y0) + a1 * y1) + a2 * y2) + a3 * y3
            scores[1, j] = (((scores[1, j] + b0 * y0) + b1 * y1) + b2 * y2) + b3 * y3
            scores[2, j] = (((scores[2, j] + c0 * y0) + c1 * y1) + c2 * y2) + c3 * y3
            scores[3, j] = (((scores[3, j] + e0 * y0) + e1 * y1) + e2 * y2) + e3 * y3


@compiled
def gather(
    rows: AnyArray,
    panels: AnyArray,
    starts: AnyArray,
    panel_starts: AnyArray,
    blocks: AnyArray,
    scores: AnyArray,
    first: AnyArray,
    second: AnyArray,
) -> None:
    """Write the score and the two rows of every pair, block after block, into scores, first, second (pairs,)."""
    tile = np.empty((ROWS, WIDTH), np.float32)
    written = 0
    for block in range(blocks.shape[0]):
        a, b = blocks[block, 0], blocks[block, 1]
        for p in range(panel_starts[b], panel_starts[b + 1]):
            column = starts[b] + (p - panel_starts[b]) * WIDTH
            width = min(WIDTH, starts[b + 1] - column)
            for r in range(starts[a], min(starts[a + 1], column + width), ROWS):
                multiply(rows, r, panels[p], tile)
                for i in range(r, min(r + ROWS, starts[a + 1])):
                    for j in range(max(0, i + 1 - column), width):
                        scores[written] = tile[i - r, j]
                        first[written] = i
                        second[written] = column + j
                        written += 1


@compiled
def count_pairs(
    rows: AnyArray,
    panels: AnyArray,
    starts: AnyArray,
    panel_starts: AnyArray,
    blocks: AnyArray,
    todo: AnyArray,
    low: np.float32,
    cells_per_unit: np.float32,
    bin_of_cell: AnyArray,
    counts: AnyArray,
) -> None:
    """Count every pair of the blocks `todo` in its score bin: counts (blocks, bins), one row per block.

    The bin of a score is bin_of_cell[int((score - low) * cells_per_unit)], with the cell clipped to the table. A
    difference followed by a product leaves the compiler nothing to fuse, so that NumPy (`Bins.assign`) finds the same
    bin.
    """
    tile = np.empty((ROWS, WIDTH), np.float32)
    cells = np.empty((ROWS, WIDTH), np.uint16)
    bottom, top = np.float32(0), np.float32(bin_of_cell.shape[0] - 1)
    for block in todo:
        a, b = blocks[block, 0], blocks[block, 1]
        block_counts = counts[block]
        for p in range(panel_starts[b], panel_starts[b + 1]):
            column = starts[b] + (p - panel_starts[b]) * WIDTH
            width = min(WIDTH, starts[b + 1] - column)
            for r in range(starts[a], min(starts[a + 1], column + width), ROWS):
                multiply(rows, r, panels[p], tile)
                for k in range(ROWS):
                    for j in range(WIDTH):
                        cell = min(max((tile[k, j] - low) * cells_per_unit, bottom), top)
                        cells[k, j] = np.uint16(np.int32(cell))
                for i in range(r, min(r + ROWS, starts[a + 1])):
                    for j in range(max(0, i + 1 - column), width):
                        block_counts[bin_of_cell[cells[i - r, j]]] += np.uint32(1)


@compiled
def refine_pairs(
    rows: AnyArray,
    panels: AnyArray,
    starts: AnyArray,
    panel_starts: AnyArray,
    blocks: AnyArray,
    todo: AnyArray,
    curves: AnyArray,
    kinds: AnyArray,
    low_score: AnyArray,
    high_score: AnyArray,
    low_key: AnyArray,
    shift: AnyArray,
    offset: AnyArray,
    counts: AnyArray,
) -> None:
    """Count the pairs of the blocks `todo` again, in fine bins, where the EER of a curve is not yet exact.

    curves (blocks, 6): the curves that the pairs of a block belong to, -1 for none. kinds (blocks,): 1 for target,
    0 for non-target. Curve c is refined in low_score[c] <= score <= high_score[c] (nowhere if low > high). Its fine
    counters are counts[kind, offset[c]:], one per 2^shift[c] neighbouring float32 values from low_key[c] on (see
    `tiling.scores_to_keys`).
    """
    tile = np.empty((ROWS, WIDTH), np.float32)
    bits = tile.view(np.int32)
    hits = np.empty((ROWS, WIDTH), np.uint8)
    open_curves = np.empty(curves.shape[1], np.int64)
    for block in todo:
        a, b = blocks[block, 0], blocks[block, 1]
        fine_counts = counts[kinds[block]]
        number = 0
        for c in curves[block]:
            if c >= 0 and low_score[c] <= high_score[c]:
                open_curves[number] = c
                number += 1
        for p in range(panel_starts[b], panel_starts[b + 1]):
            column = starts[b] + (p - panel_starts[b]) * WIDTH
            width = min(WIDTH, starts[b + 1] - column)
            for r in range(starts[a], min(starts[a + 1], column + width), ROWS):
                multiply(rows, r, panels[p], tile)
                hits[:] = 0
                for n in range(number):
                    low, high = low_score[open_curves[n]], high_score[open_curves[n]]
                    for k in range(ROWS):
                        for j in range(WIDTH):
                            hits[k, j] |= np.uint8((tile[k, j] >= low) & (tile[k, j] <= high))
                for i in range(r, min(r + ROWS, starts[a + 1])):
                    any_hit = np.uint8(0)
                    for j in range(WIDTH):
                        any_hit |= hits[i - r, j]
                    if any_hit == 0:
                        continue
                    for j in range(max(0, i + 1 - column), width):
                        if hits[i - r, j] == 0:
                            continue
                        score, key = tile[i - r, j], np.int64(bits[i - r, j])
                        if key < 0:
                            key = -(key & 0x7FFFFFFF)
                        for n in range(number):
                            c = open_curves[n]
                            if low_score[c] <= score <= high_score[c]:
                                fine_counts[offset[c] + ((key - low_key[c]) >> shift[c])] += 1


@compiled
def sum_blocks(counts: AnyArray, curves: AnyArray, kinds: AnyArray, totals: AnyArray) -> None:
    """Add counts (blocks, bins) to totals (curves, 2, bins): [:, 1] target, [:, 0] non-target trials."""
    for block in range(counts.shape[0]):
        for c in curves[block]:
            if c >= 0:
                curve_totals = totals[c, kinds[block]]
                for k in range(counts.shape[1]):
                    curve_totals[k] += counts[block, k]


class CpuPairCounter:
    """`eer_refinement.PairCounter` on the CPU."""

    def __init__(self, tiling: Tiling, bins: Bins, *, threads: int) -> None:
        self._tiling, self._bins, self.counter_copies = tiling, bins, threads

    def count(self) -> AnyArray:
        """Count every pair in its bin. Every block has its own row, so that threads share no counter."""
        tiling, bins = self._tiling, self._bins
        counts = np.zeros((len(tiling.blocks), bins.count), np.uint32)

        def count_batches(batches: Iterator[IntArray]) -> None:
            for blocks in batches:
                count_pairs(
                    *tiling.arrays,
                    blocks,
                    bins.low,
                    bins.cells_per_unit,
                    bins.bin_of_cell,
                    counts,
                )

        all_blocks = np.arange(len(tiling.blocks))
        run_in_threads(count_batches, split_blocks(tiling, all_blocks), threads=self.counter_copies)
        return counts

    def refine(self, todo: IntArray, curves: CurveIndex, ranges: RefinementRanges) -> IntArray:
        """Count the blocks `todo` in fine bins. Every thread has its own counters; they are summed at the end."""
        tiling, width = self._tiling, ranges.size.sum()

        def refine_batches(batches: Iterator[IntArray]) -> IntArray:
            counts = np.zeros((2, width), np.int64)
            for blocks in batches:
                refine_pairs(
                    *tiling.arrays,
                    blocks,
                    curves.of_block,
                    curves.kinds,
                    ranges.low_score,
                    ranges.high_score,
                    ranges.low_key,
                    ranges.shift,
                    ranges.offset,
                    counts,
                )
            return counts

        parts = run_in_threads(refine_batches, split_blocks(tiling, todo), threads=self.counter_copies)
        return np.asarray(sum(parts, np.zeros((2, width), np.int64)))


def split_blocks(tiling: Tiling, blocks: IntArray) -> list[IntArray]:
    """Split a list of blocks into batches of about BATCH_PAIRS pairs."""
    batch = np.cumsum(tiling.block_pairs()[blocks]) // BATCH_PAIRS
    return np.split(blocks, np.flatnonzero(np.diff(batch)) + 1)


def run_in_threads(
    function: Callable[[Iterator[IntArray]], Result], batches: list[IntArray], *, threads: int
) -> list[Result]:
    """Call `function` once per thread, with an iterator that gives every batch to exactly one thread."""
    queue: SimpleQueue[IntArray] = SimpleQueue()
    for batch in batches:
        queue.put(batch)
    if threads == 1:
        return [function(drain(queue))]
    with ThreadPoolExecutor(threads) as pool:
        return [call.result() for call in [pool.submit(function, drain(queue)) for _ in range(threads)]]


def drain(queue: SimpleQueue[IntArray]) -> Iterator[IntArray]:
    """Yield the items of a queue until it is empty."""
    while True:
        try:
            yield queue.get_nowait()
        except Empty:
            return
