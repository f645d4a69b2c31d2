"""A few threads that hear clips, and a bounded line of those who wait for one."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")
Item = TypeVar("Item")
Answer = TypeVar("Answer")

TOGETHER = 4  # clips of 5 s so taken are done in half the time of one after another (benchmarks/README.md)


class LineFullError(Exception):
    """As many wait as may."""


class Line(Generic[Item, Answer]):
    """Work for `threads` threads, of which at most `waiting` pieces wait or are being done.

    Items that wait are served TOGETHER: `serve` gives an answer, or what to raise instead, for each.
    """

    def __init__(
        self, serve: Callable[[Sequence[Item]], Sequence[Answer | Exception]], *, threads: int, waiting: int
    ) -> None:
        self._serve = serve
        self._items: deque[tuple[Item, Future[Answer]]] = deque()
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
        self._enter()
        future = self._pool.submit(work)
        future.add_done_callback(self._leave)
        return await asyncio.wrap_future(future)

    async def answer(self, item: Item) -> Answer:
        """What `serve` answers to this item, heard together with those that wait beside it; otherwise as `run`."""
        self._enter()
        future: Future[Answer] = Future()
        future.add_done_callback(self._leave)
        self._items.append((item, future))
        self._pool.submit(self._serve_some)
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """Drop what waits, and end what runs."""
        self._pool.shutdown(cancel_futures=True)

    def _serve_some(self) -> None:
        some = self._next()
        if not some:
            return  # those before took them along
        try:
            answers = self._serve([item for item, _ in some])
        except Exception as error:
            answers = [error] * len(some)
        for (_, future), answer in zip(some, answers, strict=True):
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)

    def _next(self) -> list[tuple[Item, Future[Answer]]]:
        """Those whose turn it is, without any that gave up."""
        some: list[tuple[Item, Future[Answer]]] = []
        with self._lock:
            while self._items and len(some) < TOGETHER:
                item, future = self._items.popleft()
                if future.set_running_or_notify_cancel():
                    some.append((item, future))
        return some

    def _enter(self) -> None:
        with self._lock:
            if self._inside >= self._waiting:
                raise LineFullError
            self._inside += 1

    def _leave(self, _: object) -> None:
        with self._lock:
            self._inside -= 1


def _one_processor() -> None:
    """Several clips side by side, each on one processor, are done sooner than one after another on all of them."""
    import torch

    torch.set_num_threads(1)
