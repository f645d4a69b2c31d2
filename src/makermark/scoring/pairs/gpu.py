"""Counter of all pairs on a GPU, with plain torch operations: matrix product, bucketize, bincount.

A GPU tile is some rows of one chunk times the columns of whole chunks. Both passes use the same tiles. Every matrix
product is therefore computed in the same way, and a pair has the same score in both passes. The score is the float32
matrix product of the device. It may differ from the score on the CPU in the last bit, and so may the scores of two
pairs of equal embeddings in tiles of different shapes. Everything after the score is exact integer arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from makermark.foundation.arrays import AnyArray, BoolArray, IntArray
from makermark.scoring.pairs.eer_refinement import CurveIndex, RefinementRanges
from makermark.scoring.pairs.tiling import Bins, Tiling, keys_to_scores

TILE_PAIRS = 1 << 26  # 268 MB of scores, and as much for their bins
MAX_REFINED_SCORES = 1 << 22  # refined at a time; about 300 bytes each


class GpuTile(NamedTuple):
    """One matrix product: rows row:end_row of chunk `chunk` by all columns of the chunks first:end (first >= chunk)."""

    chunk: int
    first: int
    end: int
    row: int
    end_row: int


class GpuPairCounter:
    """`eer_refinement.PairCounter` on a torch device.

    GPU memory: the embeddings, the counters (int64: twice `tiling.COUNTER_BYTES`), and about 1 GB for a tile of
    `tile_pairs`, or 2.5 GB if all its scores fall into one bin.
    """

    counter_copies = 1

    def __init__(
        self, tiling: Tiling, bins: Bins, *, device: torch.device, tile_pairs: int = TILE_PAIRS
    ) -> None:
        self._device, self._starts, self._bins = device, tiling.starts, bins
        self._blocks = len(tiling.blocks)
        self._rows = self._to_device(tiling.rows[: len(tiling.system)])  # (N, D)
        chunks = np.repeat(np.arange(len(tiling.starts) - 1), np.diff(tiling.starts))
        self._chunk = self._to_device(chunks, "int32")  # (N,)
        self._edges = self._to_device(
            keys_to_scores(bins.floors[1:-1])
        )  # (bins - 1,) lower edges but the first
        self._tiles = cut_gpu_tiles(tiling.starts, max_pairs=tile_pairs)

    def count(self) -> AnyArray:
        """Count every pair in its bin."""
        counts = torch.zeros(self._blocks, self._bins.count, dtype=torch.int64, device=self._device)
        with full_float32_precision():
            for tile in self._tiles:
                blocks, index, _ = self._score_tile(tile)
                tile_counts = torch.bincount(index, minlength=len(blocks) * self._bins.count + 1)[:-1]
                counts[blocks.start : blocks.stop] += tile_counts.view(len(blocks), -1)
        return counts.cpu().numpy().astype(np.uint32)

    def refine(self, todo: IntArray, curves: CurveIndex, ranges: RefinementRanges) -> IntArray:
        """Count the blocks `todo` in fine bins."""
        needed = np.zeros(self._blocks, bool)
        needed[todo] = True
        is_open = self._to_device(self._open_bins(curves, ranges))  # (blocks * bins,)
        kinds, of_block = self._to_device(curves.kinds), self._to_device(curves.of_block)
        # One more entry for curve -1 (none), which is never refined.
        low, high, shift, offset = (
            self._to_device(np.append(values, last))
            for values, last in (
                (ranges.low_key, 1),
                (ranges.high_key, 0),
                (ranges.shift, 0),
                (ranges.offset, 0),
            )
        )
        width = int(ranges.size.sum())
        counts = torch.zeros(2 * width, dtype=torch.int64, device=self._device)
        with full_float32_precision():
            for tile in self._tiles:
                if not needed[slice(*self._block_range(tile))].any():
                    continue
                blocks, index, scores = self._score_tile(tile)
                inside = is_open.new_zeros(len(blocks) * self._bins.count + 1)
                inside[:-1] = is_open[blocks.start * self._bins.count : blocks.stop * self._bins.count]
                hits = inside.index_select(0, index).nonzero().squeeze(1)
                for hit in torch.split(hits, MAX_REFINED_SCORES):
                    block = blocks.start + index[hit] // self._bins.count
                    key = scores_to_keys(scores[hit])[:, None]
                    curve = of_block[block]  # (hits, 6)
                    counter = (
                        (kinds[block] * width)[:, None] + offset[curve] + ((key - low[curve]) >> shift[curve])
                    )
                    counter = counter[(low[curve] <= key) & (key <= high[curve])]
                    counts.scatter_add_(0, counter, torch.ones_like(counter))
        return counts.view(2, width).cpu().numpy()

    def _score_tile(self, tile: GpuTile) -> tuple[range, Tensor, Tensor]:
        """Return the blocks of a tile, and the index (block of these, bin) and the score of all its pairs, flat.

        Scores that are no pair (both sides equal, or swapped) have the index after the last.
        """
        blocks, bins = range(*self._block_range(tile)), self._bins.count
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

    def _block_range(self, tile: GpuTile) -> tuple[int, int]:
        """Return the first block of a tile and the block after its last, in the order of `Tiling.blocks`."""
        chunks = len(self._starts) - 1
        first = tile.chunk * chunks - tile.chunk * (tile.chunk - 1) // 2 + tile.first - tile.chunk
        return first, first + tile.end - tile.first

    def _open_bins(self, curves: CurveIndex, ranges: RefinementRanges) -> BoolArray:
        """Return whether a curve of the block is refined in the bin, (blocks * bins,)."""
        is_open = np.zeros((self._blocks, self._bins.count), bool)
        bin_of_curve = self._bins.assign(ranges.low_score)
        for curve in curves.of_block.T:
            block = np.flatnonzero((curve >= 0) & (ranges.size[curve] > 0))
            is_open[block, bin_of_curve[curve[block]]] = True
        return is_open.ravel()

    def _to_device(self, values: AnyArray, dtype: str | None = None) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values, dtype=dtype)).to(self._device)


def cut_gpu_tiles(starts: IntArray, *, max_pairs: int) -> list[GpuTile]:
    """Return tiles of about `max_pairs` scores that hold every pair once; chunks begin at `starts` (chunks + 1,)."""
    tiles = []
    for chunk in range(len(starts) - 1):
        row, end_row = int(starts[chunk]), int(starts[chunk + 1])
        first = chunk
        while first < len(starts) - 1:
            widest = starts[first] + max_pairs // (end_row - row)
            end = max(first + 1, int(np.searchsorted(starts, widest, side="right")) - 1)
            height = max(1, max_pairs // int(starts[end] - starts[first]))
            tiles += [
                GpuTile(chunk, first, end, r, min(r + height, end_row)) for r in range(row, end_row, height)
            ]
            first = end
    return tiles


def scores_to_keys(scores: Tensor) -> Tensor:
    """Return the keys of `tiling.scores_to_keys` as a tensor."""
    bits = scores.view(torch.int32).long()
    return torch.where(bits < 0, -(bits & 0x7FFF_FFFF), bits)


@contextmanager
def full_float32_precision() -> Iterator[None]:
    """Context in which float32 matrix products use neither TF32 nor bfloat16, whatever the program has set."""
    backends = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)  # type: ignore[attr-defined]  # exists
    before = [backend.fp32_precision for backend in backends]
    try:
        for backend in backends:
            backend.fp32_precision = "ieee"
        yield
    finally:
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision
