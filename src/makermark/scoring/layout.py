"""The utterances of a set, laid out for the pass over all pairs: checked, of unit length, sorted, cut."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from makermark.errors import ScoringError
from makermark.scoring.kernels import DEPTH, ROWS, WIDTH, Array, gather

LONGEST_CHUNK = 65_535  # so that the pairs of two chunks fit a uint32 counter
MOST_CHUNKS = 2048  # 2.1 million pairs of chunks: half a gigabyte of counters at the fewest bins


@dataclass(frozen=True)
class Layout:
    """N utterances sorted by system and stratum, then by their bytes, so that the order given is forgotten.

    A chunk is a run of utterances of one system and one stratum; a block is a pair of chunks, and
    the blocks together hold every unordered pair of utterances once.
    """

    systems: tuple[str, ...]  # sorted
    strata: tuple[str, ...]  # sorted; empty where the set has none
    system: Array  # (N,) index into systems, of each sorted row
    stratum: Array  # (N,) index into strata, -1 where the set has none
    rows: Array  # (N + 3, D padded) float32, unit length; the last three are zeros
    panels: Array  # (panels, D padded, WIDTH) float32: the same vectors as columns, chunk by chunk
    starts: Array  # (chunks + 1,) first row of each chunk
    panel_starts: Array  # (chunks + 1,) first panel of each chunk
    blocks: Array  # (blocks, 2) chunk pairs a <= b

    def block_systems(self) -> tuple[Array, Array]:
        """Systems of the two sides of each block: (blocks,) twice."""
        system = self.system[self.starts[:-1]]
        return system[self.blocks[:, 0]], system[self.blocks[:, 1]]

    def block_strata(self) -> tuple[Array, Array]:
        """Strata of the two sides of each block: (blocks,) twice."""
        stratum = self.stratum[self.starts[:-1]]
        return stratum[self.blocks[:, 0]], stratum[self.blocks[:, 1]]

    def block_pairs(self) -> Array:
        """Pairs in each block: (blocks,)."""
        length = np.diff(self.starts)
        a, b = self.blocks.T
        pairs: Array = np.where(a == b, length[a] * (length[a] - 1) // 2, length[a] * length[b])
        return pairs


def lay_out(vectors: Array, systems: Array, strata: Array | None) -> Layout:
    """Check and lay out vectors (N, D) with the system and, if given, the stratum of each row.

    float16 and float64 vectors are converted to float32 before anything else. Raises ScoringError for
    a vector without a direction (not finite, or all zeros) and for too many systems.
    """
    vectors = np.asarray(vectors)
    names, system = np.unique(np.asarray(systems, dtype=str), return_inverse=True)
    stratum_names, stratum = names[:0], np.full(len(system), -1)
    if strata is not None:
        stratum_names, stratum = np.unique(np.asarray(strata, dtype=str), return_inverse=True)
    if vectors.ndim != 2 or vectors.shape[1] == 0:
        raise ValueError(f"vectors have shape {vectors.shape}; (utterances, dimensions) is wanted")
    if not len(vectors) == len(system) == len(stratum):
        raise ValueError(f"{len(vectors)} vectors, {len(system)} systems and {len(stratum)} strata")
    unit = unit_length(vectors, systems=names[system])
    by_bytes = np.argsort(unit.view(f"V{unit.shape[1] * 4}").ravel(), kind="stable")
    order = by_bytes[np.lexsort((stratum[by_bytes], system[by_bytes]))]
    return cut(
        unit[order],
        system=system[order],
        stratum=stratum[order],
        systems=tuple(names.tolist()),
        strata=tuple(stratum_names.tolist()),
    )


def unit_length(vectors: Array, *, systems: Array) -> npt.NDArray[np.float32]:
    """Each row divided by its Euclidean norm (reckoned in float64): (N, D) float32, no -0.0."""
    with np.errstate(over="ignore"):
        vectors = vectors.astype(np.float32, copy=False)
    norms = np.sqrt(np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64))
    unusable = np.flatnonzero(~np.isfinite(norms) | (norms == 0))
    if len(unusable):
        row = unusable[0]
        what = "is all zeros" if norms[row] == 0 else "holds NaN or infinity"
        raise ScoringError(
            f"{len(unusable)} of {len(vectors)} vectors have no direction: row {row} (system {str(systems[row])!r}) "
            f"{what}; embed again, or leave these utterances out"
        )
    unit = np.empty(vectors.shape, np.float32)
    np.divide(vectors, norms[:, None], out=unit, casting="same_kind")
    unit += 0.0
    return unit


def cut(
    unit: Array,
    *,
    system: Array,
    stratum: Array,
    systems: tuple[str, ...],
    strata: tuple[str, ...],
) -> Layout:
    """Cut sorted rows into chunks and panels; raises ScoringError for too many systems."""
    count, dimensions = unit.shape
    rows = np.zeros((count + ROWS - 1, -(-dimensions // DEPTH) * DEPTH), np.float32)
    rows[:count, :dimensions] = unit
    longest = min(max(1024, -(-count // 32)), LONGEST_CHUNK)
    starts = chunk_starts(system, stratum, longest=longest)
    if len(starts) - 1 > MOST_CHUNKS:
        raise ScoringError(
            f"{len(systems)} systems in {max(1, len(strata))} strata are {len(starts) - 1} groups; the counters of "
            f"{MOST_CHUNKS} at most fit in memory; score fewer systems at once, or without strata"
        )
    widths = -(-np.diff(starts) // WIDTH)
    panel_starts = np.concatenate([[0], np.cumsum(widths)])
    panels = np.zeros((panel_starts[-1], rows.shape[1], WIDTH), np.float32)
    for chunk, (start, end) in enumerate(pairwise(starts)):
        for panel, column in enumerate(range(start, end, WIDTH), panel_starts[chunk]):
            width = min(WIDTH, end - column)
            panels[panel, :, :width] = rows[column : column + width].T
    return Layout(
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


def chunk_starts(system: Array, stratum: Array, *, longest: int) -> Array:
    """First row of every chunk, and the number of rows: a chunk ends with its group or at `longest`."""
    change = (np.diff(system) != 0) | (np.diff(stratum) != 0)
    groups = [0, *(np.flatnonzero(change) + 1).tolist(), len(system)]
    pieces = [range(start, end, longest) for start, end in pairwise(groups)]
    return np.array([row for piece in pieces for row in piece] + [len(system)], dtype=np.int64)


def subset(layout: Layout, rows: Array) -> Layout:
    """The layout of some of the sorted rows (ascending)."""
    dimensions = layout.rows.shape[1]
    return cut(
        layout.rows[rows, :dimensions],
        system=layout.system[rows],
        stratum=layout.stratum[rows],
        systems=layout.systems,
        strata=layout.strata,
    )


def all_pairs(layout: Layout) -> tuple[Array, Array, Array]:
    """The score and the two sorted rows of every pair, (pairs,) each: for small sets and samples only."""
    pairs = int(layout.block_pairs().sum())
    scores, first, second = np.empty(pairs, np.float32), np.empty(pairs, np.int32), np.empty(pairs, np.int32)
    gather(
        layout.rows,
        layout.panels,
        layout.starts,
        layout.panel_starts,
        layout.blocks,
        scores,
        first,
        second,
    )
    return scores, first, second
