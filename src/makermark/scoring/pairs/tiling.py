"""A set prepared for the pass over all pairs: embeddings in tiles, and score bins that follow its score distribution.

The embeddings are validated, L2-normalised, sorted and cut into chunks. The bins are narrow where the trials are dense,
and in the tails.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

from makermark.foundation.arrays import AnyArray, Float32Array, FloatArray, IntArray
from makermark.foundation.errors import ScoringError
from makermark.scoring.pairs.cpu import DEPTH, ROWS, WIDTH, gather

MAX_CHUNK_UTTERANCES = 65_535  # so that the pairs of two chunks fit into a uint32 counter
MAX_CHUNKS = 2048  # 2.1 million pairs of chunks: half a gigabyte of counters at the fewest bins

CELLS = 1 << 16
MAX_BINS = 4096
MIN_BINS = 64
COUNTER_BYTES = 1 << 27  # limit for the counters of a pass (blocks x bins x uint32)

TOP_KEY = 0x4000_0000  # the key of 2.0: above every cosine, including its rounding error


@dataclass(frozen=True)
class Tiling:
    """N embeddings sorted by system and stratum, then by their bytes, so that the input order has no effect.

    A chunk is a run of utterances of one system and one stratum. A block is a pair of chunks. The blocks together hold
    every unordered pair of utterances once.
    """

    systems: tuple[str, ...]  # sorted
    strata: tuple[str, ...]  # sorted; empty for a set without strata
    system: IntArray  # (N,) index into systems, of every sorted row
    stratum: IntArray  # (N,) index into strata; -1 for a set without strata
    rows: Float32Array  # (N + 3, D padded), L2-normalised; the last three rows are zeros
    panels: Float32Array  # (panels, D padded, WIDTH): the same embeddings as columns, chunk by chunk
    starts: IntArray  # (chunks + 1,) first row of every chunk
    panel_starts: IntArray  # (chunks + 1,) first panel of every chunk
    blocks: IntArray  # (blocks, 2) chunk pairs a <= b

    @property
    def arrays(self) -> tuple[Float32Array, Float32Array, IntArray, IntArray, IntArray]:
        """The first arguments of the kernels in cpu.py."""
        return self.rows, self.panels, self.starts, self.panel_starts, self.blocks

    def block_systems(self) -> tuple[IntArray, IntArray]:
        """Return the systems of the two sides of every block, (blocks,) twice."""
        system = self.system[self.starts[:-1]]
        return system[self.blocks[:, 0]], system[self.blocks[:, 1]]

    def block_strata(self) -> tuple[IntArray, IntArray]:
        """Return the strata of the two sides of every block, (blocks,) twice."""
        stratum = self.stratum[self.starts[:-1]]
        return stratum[self.blocks[:, 0]], stratum[self.blocks[:, 1]]

    def block_pairs(self) -> IntArray:
        """Return the number of pairs in every block, (blocks,)."""
        length = np.diff(self.starts)
        a, b = self.blocks.T
        pairs: IntArray = np.where(a == b, length[a] * (length[a] - 1) // 2, length[a] * length[b])
        return pairs


def tile_embeddings(embeddings: AnyArray, systems: AnyArray, strata: AnyArray | None) -> Tiling:
    """Validate and tile embeddings (N, D) with the system and optionally the stratum of every row, (N,).

    float16 and float64 embeddings are first converted to float32. Raises ScoringError for an embedding without a
    direction (not finite, or all zeros) and for too many systems, and ValueError for shapes that do not match.
    """
    embeddings = np.asarray(embeddings)
    names, system = np.unique(np.asarray(systems, dtype=str), return_inverse=True)
    stratum_names, stratum = names[:0], np.full(len(system), -1)
    if strata is not None:
        stratum_names, stratum = np.unique(np.asarray(strata, dtype=str), return_inverse=True)
    if embeddings.ndim != 2 or embeddings.shape[1] == 0:
        raise ValueError(f"embeddings have shape {embeddings.shape}; the shape must be (N, D) with D > 0")
    if not len(embeddings) == len(system) == len(stratum):
        raise ValueError(
            f"{len(embeddings)} embeddings, {len(system)} systems and {len(stratum)} strata; pass one of each per row"
        )
    rows = normalise_rows(embeddings, systems=names[system])
    by_bytes = np.argsort(rows.view(f"V{rows.shape[1] * 4}").ravel(), kind="stable")
    order = by_bytes[np.lexsort((stratum[by_bytes], system[by_bytes]))]
    return cut_tiles(
        rows[order],
        system=system[order],
        stratum=stratum[order],
        systems=tuple(names.tolist()),
        strata=tuple(stratum_names.tolist()),
    )


def normalise_rows(embeddings: AnyArray, *, systems: AnyArray) -> Float32Array:
    """Return every row divided by its Euclidean norm: (N, D) float32 without -0.0.

    Unlike `embeddings.l2_normalise`, the norm is computed in float64, the result is float32, and a row without a
    direction is an error: raises ScoringError.
    """
    with np.errstate(over="ignore"):
        embeddings = embeddings.astype(np.float32, copy=False)
    norms = np.sqrt(np.einsum("nd,nd->n", embeddings, embeddings, dtype=np.float64))
    unusable = np.flatnonzero(~np.isfinite(norms) | (norms == 0))
    if len(unusable):
        row = unusable[0]
        problem = "is all zeros" if norms[row] == 0 else "holds NaN or infinity"
        raise ScoringError(
            f"{len(unusable)} of {len(embeddings)} embeddings have no direction: row {row} (system "
            f"{str(systems[row])!r}) {problem}; embed again, or leave these utterances out"
        )
    rows = np.empty(embeddings.shape, np.float32)
    np.divide(embeddings, norms[:, None], out=rows, casting="same_kind")
    rows += 0.0
    return rows


def cut_tiles(
    sorted_rows: Float32Array,
    *,
    system: IntArray,
    stratum: IntArray,
    systems: tuple[str, ...],
    strata: tuple[str, ...],
) -> Tiling:
    """Cut sorted rows (N, D) into chunks and panels. Raises ScoringError for too many systems."""
    count, dimensions = sorted_rows.shape
    rows = np.zeros((count + ROWS - 1, -(-dimensions // DEPTH) * DEPTH), np.float32)
    rows[:count, :dimensions] = sorted_rows
    longest = min(max(1024, -(-count // 32)), MAX_CHUNK_UTTERANCES)
    starts = chunk_starts(system, stratum, longest=longest)
    if len(starts) - 1 > MAX_CHUNKS:
        raise ScoringError(
            f"{len(systems)} systems in {max(1, len(strata))} strata are {len(starts) - 1} groups; the counters of "
            f"at most {MAX_CHUNKS} fit in memory; score fewer systems at once, or without strata"
        )
    widths = -(-np.diff(starts) // WIDTH)
    panel_starts = np.concatenate([[0], np.cumsum(widths)])
    panels = np.zeros((panel_starts[-1], rows.shape[1], WIDTH), np.float32)
    for chunk, (start, end) in enumerate(pairwise(starts)):
        for panel, column in enumerate(range(start, end, WIDTH), panel_starts[chunk]):
            width = min(WIDTH, end - column)
            panels[panel, :, :width] = rows[column : column + width].T
    return Tiling(
        systems=systems,
        strata=strata,
        system=system,
        stratum=stratum,
        rows=rows,
        panels=panels,
        starts=starts,
        panel_starts=panel_starts,
        blocks=np.stack(np.triu_indices(len(starts) - 1), axis=1),
    )


def chunk_starts(system: IntArray, stratum: IntArray, *, longest: int) -> IntArray:
    """Return the first row of every chunk, and the number of rows last.

    A chunk ends where its system or stratum ends, or after `longest` rows.
    """
    change = (np.diff(system) != 0) | (np.diff(stratum) != 0)
    groups = [0, *(np.flatnonzero(change) + 1).tolist(), len(system)]
    pieces = [range(start, end, longest) for start, end in pairwise(groups)]
    return np.array([row for piece in pieces for row in piece] + [len(system)], dtype=np.int64)


def select_rows(tiling: Tiling, rows: IntArray) -> Tiling:
    """Return the tiling of some of the sorted rows (ascending)."""
    dimensions = tiling.rows.shape[1]
    return cut_tiles(
        tiling.rows[rows, :dimensions],
        system=tiling.system[rows],
        stratum=tiling.stratum[rows],
        systems=tiling.systems,
        strata=tiling.strata,
    )


def all_pairs(tiling: Tiling) -> tuple[Float32Array, AnyArray, AnyArray]:
    """Return the score and the two sorted rows (int32) of every pair, (pairs,) each; for small sets and samples."""
    pairs = int(tiling.block_pairs().sum())
    scores, first, second = np.empty(pairs, np.float32), np.empty(pairs, np.int32), np.empty(pairs, np.int32)
    gather(*tiling.arrays, scores, first, second)
    return scores, first, second


def scores_to_keys(scores: AnyArray) -> IntArray:
    """Return int64 keys of float32 scores: same order, neighbouring floats have neighbouring keys, -0.0 equals 0.0."""
    bits = np.asarray(scores, np.float32).view(np.int32).astype(np.int64)
    return np.where(bits < 0, -(bits & 0x7FFF_FFFF), bits)


def keys_to_scores(keys: IntArray) -> Float32Array:
    """Return the float32 scores of keys."""
    bits = np.abs(keys).astype(np.uint32) | np.where(keys < 0, np.uint32(0x8000_0000), np.uint32(0))
    return bits.astype(np.uint32).view(np.float32)


@dataclass(frozen=True)
class Bins:
    """Score bins. A cell is one of CELLS equal steps from `low` to `high`; a bin is a run of cells.

    `low` and `high` are the extreme scores of a sample. Scores beyond them fall into the outermost cells, so that every
    score has a bin.
    """

    low: np.float32
    high: np.float32
    cells_per_unit: np.float32
    bin_of_cell: AnyArray  # (CELLS,) uint16, ascending
    count: int

    def assign(self, scores: AnyArray) -> AnyArray:
        """Return the bin of every score, in the arithmetic of `cpu.count_pairs`."""
        cells = (np.asarray(scores, np.float32) - self.low) * self.cells_per_unit
        bins: AnyArray = self.bin_of_cell[np.clip(cells, 0, CELLS - 1).astype(np.int32)]
        return bins

    @cached_property
    def floors(self) -> IntArray:
        """Keys (bins + 1,): bin b holds the scores with floors[b] <= key < floors[b + 1]."""
        targets = np.arange(1, self.count)
        low, high = np.full(len(targets), -TOP_KEY), np.full(len(targets), TOP_KEY)
        while np.any(low < high):
            middle = (low + high) // 2
            reached = self.assign(keys_to_scores(middle)) >= targets
            low, high = np.where(reached, low, middle + 1), np.where(reached, middle, high)
        return np.concatenate([[-TOP_KEY], low, [TOP_KEY]])

    @cached_property
    def edges(self) -> FloatArray:
        """Scores (bins + 1,) for plots: as `floors`, but the outer edges are the extremes of the sample."""
        edges = keys_to_scores(self.floors).astype(np.float64)
        edges[0], edges[-1] = self.low, float(self.high) + 1 / float(self.cells_per_unit)
        return edges


def fit_bins(tiling: Tiling, *, sample_utterances: int) -> Bins:
    """Return bins of about equal weight, fitted to the pairs among evenly spaced utterances of the sorted set.

    The weight of a score is its quantile among targets plus its quantile among non-targets, plus the same two on a
    logit scale. Error rates of 1e-4 are thus resolved as well as error rates of 50 %.
    """
    count = len(tiling.system)
    sampled = np.unique(np.linspace(0, count - 1, min(count, sample_utterances)).astype(np.int64))
    sample = select_rows(tiling, sampled)
    scores, first, second = all_pairs(sample)
    is_target = sample.system[first] == sample.system[second]
    low, high = scores.min(), scores.max()
    cells_per_unit = np.float32(CELLS / max(float(high) - float(low), 1e-6))
    cells = np.clip((scores - low) * cells_per_unit, 0, CELLS - 1).astype(np.int32)
    weight = np.zeros(CELLS)
    for kind in (cells[is_target], cells[~is_target]):
        if len(kind):
            below = np.cumsum(np.bincount(kind, minlength=CELLS)) / len(kind)
            floor = 0.5 / len(kind)
            logit = np.log((below + floor) / (1 - below + floor))
            weight += below + (logit - logit[0]) / max(logit[-1] - logit[0], 1e-9)
    weight = np.concatenate([[0.0], weight[:-1]])
    bins = choose_bin_count(len(tiling.blocks))
    bin_of_cell = np.minimum(weight / max(weight[-1], 1e-9) * bins, bins - 1).astype(np.uint16)
    return Bins(low=low, high=high, cells_per_unit=cells_per_unit, bin_of_cell=bin_of_cell, count=bins)


def choose_bin_count(blocks: int) -> int:
    """Return the largest power of two from MIN_BINS to MAX_BINS whose counters fit into COUNTER_BYTES."""
    bins = MAX_BINS
    while bins > MIN_BINS and blocks * bins * 4 > COUNTER_BYTES:
        bins //= 2
    return bins
