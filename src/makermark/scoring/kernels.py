"""Machine code over tiles of pairs: the only loops of makermark that visit every pair.

A tile is 4 rows times one panel of WIDTH columns. A score is the sum over dimensions 0, 1, 2, ...
in that order, whatever the tile, its place and the number of threads: a pair has one score, bit for
bit, in every pass, and the same score with its two utterances swapped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
import numpy.typing as npt

WIDTH = 64  # columns of a panel: WIDTH x 50 dimensions of float32 stay in a 32 KiB first-level cache
ROWS = 4  # rows of a tile: ROWS x WIDTH sums, each loaded and stored once per 4 dimensions
DEPTH = 4  # dimensions summed at a time; D is padded with zeros to a multiple

Array = npt.NDArray[Any]
Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """Compile, keep the result on disk, and let threads run it side by side."""
    return cast("Function", numba.njit(function, nogil=True, cache=True))


def compiled_fused(function: Function) -> Function:
    """As `compiled`; a product and the sum it enters may be rounded once (fused multiply-add)."""
    return cast("Function", numba.njit(function, nogil=True, cache=True, fastmath={"contract"}))


@compiled_fused
def multiply(rows: Array, r: int, panel: Array, scores: Array) -> None:
    """scores (4, WIDTH) = rows[r : r + 4] (4, D) times panel (D, WIDTH), all float32.

    Spelt out so that the compiler holds 16 factors in registers and works on whole vectors of columns.
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
    rows: Array,
    panels: Array,
    starts: Array,
    panel_starts: Array,
    blocks: Array,
    scores: Array,
    first: Array,
    second: Array,
) -> None:
    """Write the score of every pair, and its two rows, block after block: (pairs,) each."""
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
def count(
    rows: Array,
    panels: Array,
    starts: Array,
    panel_starts: Array,
    blocks: Array,
    todo: Array,
    low: np.float32,
    cells_per_unit: np.float32,
    bin_of_cell: Array,
    counts: Array,
) -> None:
    """Add every pair of the blocks `todo` to its bin: counts (blocks, bins), a row per block.

    The bin of a score is bin_of_cell[int((score - low) * cells_per_unit)], the cell clipped to the
    table; a difference and then a product leave the compiler nothing to fuse, so that NumPy
    (`Bins.of`) finds the same bin.
    """
    tile = np.empty((ROWS, WIDTH), np.float32)
    cells = np.empty((ROWS, WIDTH), np.uint16)
    bottom, top = np.float32(0), np.float32(bin_of_cell.shape[0] - 1)
    for block in todo:
        a, b = blocks[block, 0], blocks[block, 1]
        counted = counts[block]
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
                        counted[bin_of_cell[cells[i - r, j]]] += np.uint32(1)


@compiled
def refine(
    rows: Array,
    panels: Array,
    starts: Array,
    panel_starts: Array,
    blocks: Array,
    todo: Array,
    curves: Array,
    kinds: Array,
    low_score: Array,
    high_score: Array,
    low_key: Array,
    shift: Array,
    offset: Array,
    counts: Array,
) -> None:
    """Count again, finely, the pairs whose score lies where a curve is not settled.

    curves (blocks, 6): the curves that a block's pairs enter, -1 for none; kinds (blocks,): 1 for target.
    Curve c is open in low_score[c] <= score <= high_score[c] (nothing if low > high); its fine counts
    stand in counts[kind, offset[c]:], one for each 2^shift[c] neighbouring float32 values from
    low_key[c] on (see `keys_of`).
    """
    tile = np.empty((ROWS, WIDTH), np.float32)
    bits = tile.view(np.int32)
    hits = np.empty((ROWS, WIDTH), np.uint8)
    open_curves = np.empty(curves.shape[1], np.int64)
    for block in todo:
        a, b = blocks[block, 0], blocks[block, 1]
        counted = counts[kinds[block]]
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
                    some = np.uint8(0)
                    for j in range(WIDTH):
                        some |= hits[i - r, j]
                    if some == 0:
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
                                counted[offset[c] + ((key - low_key[c]) >> shift[c])] += 1


@compiled
def total(counts: Array, curves: Array, kinds: Array, tallies: Array) -> None:
    """Add counts (blocks, bins) up to tallies (curves, 2, bins): [:, 1] target, [:, 0] non-target."""
    for block in range(counts.shape[0]):
        for c in curves[block]:
            if c >= 0:
                tally = tallies[c, kinds[block]]
                for k in range(counts.shape[1]):
                    tally[k] += counts[block, k]
