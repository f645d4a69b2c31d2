"""Every pair on this machine's processor: machine code (`kernels`) in several threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import Empty, SimpleQueue
from typing import TypeVar

import numpy as np

from makermark.scoring import kernels
from makermark.scoring.bins import Bins, scores_of
from makermark.scoring.kernels import Array
from makermark.scoring.layout import Layout
from makermark.scoring.passes import Curves, Open

BATCH_PAIRS = 1 << 21  # pairs that a thread takes at a time

Result = TypeVar("Result")


class Processor:
    """The pairs of a layout (see `passes.Pairs`)."""

    def __init__(self, layout: Layout, bins: Bins, *, threads: int) -> None:
        self._layout, self._bins, self.copies = layout, bins, threads

    def count(self) -> Array:
        """Every block has a row of its own, so that threads share nothing and no order of work shows."""
        layout, bins = self._layout, self._bins
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

        side_by_side(work, batches(layout, np.arange(len(layout.blocks))), threads=self.copies)
        return counts

    def refine(self, todo: Array, curves: Curves, within: Open) -> Array:
        """Every thread has counters of its own, added up at the end."""
        layout, width = self._layout, within.size.sum()

        def work(todo: Iterator[Array]) -> Array:
            counts = np.zeros((2, width), np.int64)
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
                    scores_of(within.low_key),
                    scores_of(within.high_key),
                    within.low_key,
                    within.shift,
                    within.offset,
                    counts,
                )
            return counts

        done = side_by_side(work, batches(layout, todo), threads=self.copies)
        return np.asarray(sum(done, np.zeros((2, width), np.int64)))


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
