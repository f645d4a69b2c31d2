"""Every pair on a GPU, in torch's own operations: a matrix product, a search for the bin, a count.

A tile is some rows of one chunk times the columns of whole chunks. Both passes cut the same tiles, so that each product
is computed in the same way and a pair has the same score in both. That score is what the device's matrix product gives
in float32: it may differ from the processor's in the last bit, and so may the scores of two pairs of equal vectors in
tiles of different shapes. Everything after the score is exact, in whole numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from makermark.scoring.bins import Bins, scores_of
from makermark.scoring.kernels import Array
from makermark.scoring.layout import Layout
from makermark.scoring.passes import Curves, Open

TILE_PAIRS = 1 << 26  # 268 MB of scores, and as much for their bins
HITS = 1 << 22  # scores looked at finely at a time: about 300 bytes each


class Tile(NamedTuple):
    """Rows row:end_row, of chunk `chunk`, times the columns of chunks first:end; first >= chunk."""

    chunk: int
    first: int
    end: int
    row: int
    end_row: int


class Accelerator:
    """The pairs of a layout (see `passes.Pairs`) on a torch device.

    Memory there: the vectors, the counters (int64: twice `bins.COUNTERS_BYTES`), and about 1 GB for a tile of
    `tile_pairs`, 2.5 GB where all its scores share a bin.
    """

    copies = 1

    def __init__(
        self, layout: Layout, bins: Bins, *, device: torch.device, tile_pairs: int = TILE_PAIRS
    ) -> None:
        self._device, self._starts, self._bins = device, layout.starts, bins
        self._blocks = len(layout.blocks)
        self._rows = self._put(layout.rows[: len(layout.system)])  # (N, D)
        self._chunk = self._put(np.repeat(np.arange(len(layout.starts) - 1), np.diff(layout.starts)), "int32")
        self._edges = self._put(
            scores_of(bins.floors[1:-1])
        )  # (bins - 1,): where each bin but the first begins
        self._tiles = tiles(layout.starts, most_pairs=tile_pairs)

    def count(self) -> Array:
        counts = torch.zeros(self._blocks, self._bins.count, dtype=torch.int64, device=self._device)
        with full_precision():
            for tile in self._tiles:
                blocks, index, _ = self._look(tile)
                found = torch.bincount(index, minlength=len(blocks) * self._bins.count + 1)[:-1]
                counts[blocks.start : blocks.stop] += found.view(len(blocks), -1)
        return counts.cpu().numpy().astype(np.uint32)

    def refine(self, todo: Array, curves: Curves, within: Open) -> Array:
        wanted = np.zeros(self._blocks, bool)
        wanted[todo] = True
        is_open = self._put(self._open_bins(curves, within))  # (blocks * bins,)
        kinds, of_block = self._put(curves.kinds), self._put(curves.of_block)
        # curve -1, none, is the last: closed
        low, high, shift, offset = (
            self._put(np.append(values, last))
            for values, last in (
                (within.low_key, 1),
                (within.high_key, 0),
                (within.shift, 0),
                (within.offset, 0),
            )
        )
        width = int(within.size.sum())
        counts = torch.zeros(2 * width, dtype=torch.int64, device=self._device)
        with full_precision():
            for tile in self._tiles:
                if not wanted[slice(*self._span(tile))].any():
                    continue
                blocks, index, scores = self._look(tile)
                inside = is_open.new_zeros(len(blocks) * self._bins.count + 1)
                inside[:-1] = is_open[blocks.start * self._bins.count : blocks.stop * self._bins.count]
                hits = inside.index_select(0, index).nonzero().squeeze(1)
                for hit in torch.split(hits, HITS):
                    block = blocks.start + index[hit] // self._bins.count
                    key = keys_of(scores[hit])[:, None]
                    curve = of_block[block]  # (hits, 6)
                    place = (
                        (kinds[block] * width)[:, None] + offset[curve] + ((key - low[curve]) >> shift[curve])
                    )
                    place = place[(low[curve] <= key) & (key <= high[curve])]
                    counts.scatter_add_(0, place, torch.ones_like(place))
        return counts.view(2, width).cpu().numpy()

    def _look(self, tile: Tile) -> tuple[range, Tensor, Tensor]:
        """The blocks of a tile; and of each of its scores, in one row, the place (block of these, bin) and the score.

        Scores that are no pair (the two sides the same, or swapped) have the place after the last.
        """
        blocks, bins = range(*self._span(tile)), self._bins.count
        column, end = max(int(self._starts[tile.first]), tile.row), int(self._starts[tile.end])
        scores = self._rows[tile.row : tile.end_row] @ self._rows[column:end].T
        index = torch.bucketize(scores, self._edges, right=True, out_int32=True)
        if len(blocks) > 1:
            index += (self._chunk[column:end] - tile.first) * bins
        if tile.first == tile.chunk:
            row, other = (
                torch.arange(*ends, device=self._device) for ends in ((tile.row, tile.end_row), (column, end))
            )
            index.masked_fill_(row[:, None] >= other, len(blocks) * bins)
        return blocks, index.view(-1), scores.view(-1)

    def _span(self, tile: Tile) -> tuple[int, int]:
        """First block of a tile and the one after its last: blocks stand in the order of `layout.blocks`."""
        chunks = len(self._starts) - 1
        first = tile.chunk * chunks - tile.chunk * (tile.chunk - 1) // 2 + tile.first - tile.chunk
        return first, first + tile.end - tile.first

    def _open_bins(self, curves: Curves, within: Open) -> Array:
        """(blocks * bins,): whether a curve of the block is open in the bin."""
        is_open = np.zeros((self._blocks, self._bins.count), bool)
        bin_of_curve = self._bins.of(scores_of(within.low_key))
        for curve in curves.of_block.T:
            block = np.flatnonzero((curve >= 0) & (within.size[curve] > 0))
            is_open[block, bin_of_curve[curve[block]]] = True
        return is_open.ravel()

    def _put(self, values: Array, dtype: str | None = None) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values, dtype=dtype)).to(self._device)


def tiles(starts: Array, *, most_pairs: int) -> list[Tile]:
    """Tiles of about `most_pairs` scores that hold every pair once, for chunks that begin at `starts` (chunks + 1,)."""
    cut = []
    for chunk in range(len(starts) - 1):
        row, end_row = int(starts[chunk]), int(starts[chunk + 1])
        first = chunk
        while first < len(starts) - 1:
            widest = starts[first] + most_pairs // (end_row - row)
            end = max(first + 1, int(np.searchsorted(starts, widest, side="right")) - 1)
            height = max(1, most_pairs // int(starts[end] - starts[first]))
            cut += [Tile(chunk, first, end, r, min(r + height, end_row)) for r in range(row, end_row, height)]
            first = end
    return cut


def keys_of(scores: Tensor) -> Tensor:
    """As `bins.keys_of`."""
    bits = scores.view(torch.int32).long()
    return torch.where(bits < 0, -(bits & 0x7FFF_FFFF), bits)


@contextmanager
def full_precision() -> Iterator[None]:
    """Products of float32 in float32, whatever the program chose for its own: no TF32, no bfloat16."""
    backends = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)  # type: ignore[attr-defined]  # is there
    before = [backend.fp32_precision for backend in backends]
    try:
        for backend in backends:
            backend.fp32_precision = "ieee"
        yield
    finally:
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision
