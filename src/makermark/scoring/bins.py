"""Score bins that follow the scores of a set: fine where its trials are, and in the tails."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from makermark.scoring.kernels import Array
from makermark.scoring.layout import Layout, all_pairs, subset

CELLS = 1 << 16
MOST_BINS = 4096
FEWEST_BINS = 64
COUNTERS_BYTES = 1 << 27  # what the counters of a pass (blocks x bins x uint32) may take

TOP_KEY = 0x4000_0000  # the key of 2.0: above every cosine, rounded as it may be


def keys_of(scores: Array) -> Array:
    """int64 keys of float32 scores, in the same order; neighbouring floats are neighbours, -0.0 is 0.0."""
    bits = np.asarray(scores, np.float32).view(np.int32).astype(np.int64)
    return np.where(bits < 0, -(bits & 0x7FFF_FFFF), bits)


def scores_of(keys: Array) -> Array:
    """The float32 scores of keys."""
    bits = np.abs(keys).astype(np.uint32) | np.where(keys < 0, np.uint32(0x8000_0000), np.uint32(0))
    return bits.astype(np.uint32).view(np.float32)


@dataclass(frozen=True)
class Bins:
    """A cell is one of CELLS equal steps from the lowest score of a sample on; a bin is a run of cells.

    Scores beyond the sample's fall into the outermost cells, so that every score has a bin.
    """

    low: np.float32
    high: np.float32
    cells_per_unit: np.float32
    bin_of_cell: Array  # (CELLS,) uint16, ascending
    count: int

    def of(self, scores: Array) -> Array:
        """The bin of each score, in the arithmetic of `kernels.count`."""
        cells = (np.asarray(scores, np.float32) - self.low) * self.cells_per_unit
        bins: Array = self.bin_of_cell[np.clip(cells, 0, CELLS - 1).astype(np.int32)]
        return bins

    @cached_property
    def floors(self) -> Array:
        """(bins + 1,) keys: bin b holds the scores with floors[b] <= key < floors[b + 1]."""
        wanted = np.arange(1, self.count)
        low, high = np.full(len(wanted), -TOP_KEY), np.full(len(wanted), TOP_KEY)
        while np.any(low < high):
            middle = (low + high) // 2
            reached = self.of(scores_of(middle)) >= wanted
            low, high = np.where(reached, low, middle + 1), np.where(reached, middle, high)
        return np.concatenate([[-TOP_KEY], low, [TOP_KEY]])

    @cached_property
    def edges(self) -> Array:
        """(bins + 1,) scores for plots: as `floors`, but the outer ends are those of the sample."""
        edges = scores_of(self.floors).astype(np.float64)
        edges[0], edges[-1] = self.low, float(self.high) + 1 / float(self.cells_per_unit)
        return edges


def bins_for(layout: Layout, *, sample_utterances: int) -> Bins:
    """Bins of about equal weight, by the pairs among evenly spaced utterances of the sorted set.

    The weight of a score counts targets and non-targets alike (as quantiles), and both once more on a
    logit scale, so that error rates of 1e-4 are as well resolved as those of 50 %.
    """
    count = len(layout.system)
    picked = np.unique(np.linspace(0, count - 1, min(count, sample_utterances)).astype(np.int64))
    sample = subset(layout, picked)
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
    most = bin_count(len(layout.blocks))
    bin_of_cell = np.minimum(weight / max(weight[-1], 1e-9) * most, most - 1).astype(np.uint16)
    return Bins(low=low, high=high, cells_per_unit=cells_per_unit, bin_of_cell=bin_of_cell, count=most)


def bin_count(blocks: int) -> int:
    """The most bins, a power of two, whose counters stay within COUNTERS_BYTES; never below FEWEST_BINS."""
    bins = MOST_BINS
    while bins > FEWEST_BINS and blocks * bins * 4 > COUNTERS_BYTES:
        bins //= 2
    return bins
