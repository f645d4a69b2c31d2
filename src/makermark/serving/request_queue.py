"""A bounded queue of requests in front of a thread pool, with batching."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")
Item = TypeVar("Item")
Result = TypeVar("Result")

MAX_BATCH_ITEMS = (
    4  # a batch of four clips of 5 s takes half the time of four single clips (benchmarks/README.md)
)


class QueueFullError(Exception):
    """The queue holds as many requests as its capacity allows."""


class RequestQueue(Generic[Item, Result]):
    """Thread pool with at most `capacity` pending requests, waiting or running.

    Items given to `submit` are processed in batches of up to MAX_BATCH_ITEMS. `process_batch` returns one result, or
    one exception to raise, per item and in the same order.
    """

    def __init__(
        self,
        process_batch: Callable[[Sequence[Item]], Sequence[Result | Exception]],
        *,
        threads: int,
        capacity: int,
    ) -> None:
        self._process_batch = process_batch
        self._items: deque[tuple[Item, Future[Result]]] = deque()
        self._pool = ThreadPoolExecutor(
            threads, thread_name_prefix="makermark", initializer=_use_one_torch_thread
        )
        self._capacity, self._pending, self._lock = capacity, 0, threading.Lock()

    @property
    def pending(self) -> int:
        """Number of requests that wait or run."""
        return self._pending

    async def run(self, function: Callable[[], T]) -> T:
        """Run `function` in the pool and return its result.

        If the caller is cancelled, a function that has not started is dropped; a running one is completed.
        Raises QueueFullError at once if the queue is full.
        """
        self._enter()
        future = self._pool.submit(function)
        future.add_done_callback(self._leave)
        return await asyncio.wrap_future(future)

    async def submit(self, item: Item) -> Result:
        """Process `item` in a batch with other waiting items and return its result; otherwise as `run`."""
        self._enter()
        future: Future[Result] = Future()
        future.add_done_callback(self._leave)
        self._items.append((item, future))
        self._pool.submit(self._process_next_batch)
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """Cancel waiting requests and wait for running ones."""
        self._pool.shutdown(cancel_futures=True)

    def _process_next_batch(self) -> None:
        batch = self._take_batch()
        if not batch:
            return  # an earlier batch included this item
        try:
            results = self._process_batch([item for item, _ in batch])
        except Exception as error:
            results = [error] * len(batch)
        for (_, future), result in zip(batch, results, strict=True):
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)

    def _take_batch(self) -> list[tuple[Item, Future[Result]]]:
        """Remove and return the next items, without the cancelled ones."""
        batch: list[tuple[Item, Future[Result]]] = []
        with self._lock:
            while self._items and len(batch) < MAX_BATCH_ITEMS:
                item, future = self._items.popleft()
                if future.set_running_or_notify_cancel():
                    batch.append((item, future))
        return batch

    def _enter(self) -> None:
        with self._lock:
            if self._pending >= self._capacity:
                raise QueueFullError
            self._pending += 1

    def _leave(self, _: object) -> None:
        with self._lock:
            self._pending -= 1


def _use_one_torch_thread() -> None:
    """Limit PyTorch to one thread per worker: parallel clips on one core each finish sooner than serial ones on all."""
    import torch

    torch.set_num_threads(1)
