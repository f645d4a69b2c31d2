"""A few threads that hear clips, and a bounded line of those who wait for one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class LineFullError(Exception):
    """As many wait as may."""


class Line:
    """Work for `threads` threads, of which at most `waiting` pieces wait or are being done."""

    def __init__(self, *, threads: int, waiting: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="makermark", initializer=_one_processor)
        self._waiting, self._inside, self._lock = waiting, 0, threading.Lock()

    @property
    def inside(self) -> int:
        """How many wait or are being served."""
        return self._inside

    async def run(self, work: Callable[[], T]) -> T:
        """What `work` gives, once it is its turn; raises LineFullError at once where the line is as long as may be.

        Where whoever waits gives up, work that has not begun is dropped, and what has begun is brought to its end.
        """
        with self._lock:
            if self._inside >= self._waiting:
                raise LineFullError
            self._inside += 1
        future = self._pool.submit(work)
        future.add_done_callback(self._leave)
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """Drop what waits, and end what runs."""
        self._pool.shutdown(cancel_futures=True)

    def _leave(self, _: Future[T]) -> None:
        with self._lock:
            self._inside -= 1


def _one_processor() -> None:
    """Several clips side by side, each on one processor, are done sooner than one after another on all of them."""
    import torch

    torch.set_num_threads(1)
