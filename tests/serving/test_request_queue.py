"""The request queue: batching, cancellation, capacity and errors."""

import asyncio
import threading
import time

import pytest

from makermark.serving.request_queue import MAX_BATCH_ITEMS, QueueFullError, RequestQueue


def test_request_queue_batches_waiting_items_and_returns_each_result_to_its_caller():
    batches, gate = [], threading.Event()

    def process(items):
        gate.wait(120)
        batches.append(list(items))
        return [ValueError(str(item)) if item == 5 else 10 * item for item in items]

    async def submit_all():
        queue = RequestQueue(process, threads=1, capacity=20)
        tasks = [asyncio.create_task(queue.submit(number)) for number in range(10)]
        await asyncio.sleep(0.2)
        assert queue.pending == 10
        gate.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert queue.pending == 0
        queue.close()
        return results

    results = asyncio.run(submit_all())
    assert isinstance(results.pop(5), ValueError)
    assert results == [10 * number for number in range(10) if number != 5]
    assert sorted(number for batch in batches for number in batch) == list(range(10))
    assert max(map(len, batches)) == MAX_BATCH_ITEMS


def test_request_queue_drops_cancelled_requests_and_rejects_requests_over_its_capacity():
    processed, gate = [], threading.Event()

    def process(items):
        gate.wait(120)
        processed.extend(items)
        return items

    async def submit_and_cancel():
        queue = RequestQueue(process, threads=1, capacity=3)
        first = asyncio.create_task(queue.submit("first"))
        await asyncio.sleep(0.1)
        cancelled_item = asyncio.create_task(queue.submit("cancelled"))
        cancelled_function = asyncio.create_task(queue.run(lambda: processed.append("function")))
        await asyncio.sleep(0.1)
        with pytest.raises(QueueFullError):
            await queue.submit("one too many")
        cancelled_item.cancel()
        cancelled_function.cancel()
        await asyncio.sleep(0.1)
        assert queue.pending == 1
        gate.set()
        assert await first == "first"
        queue.close()

    asyncio.run(submit_and_cancel())
    assert processed == ["first"]


def test_request_queue_raises_an_error_of_the_batch_for_every_item():
    async def submit_all():
        queue = RequestQueue(lambda items: 1 / 0, threads=2, capacity=10)
        results = await asyncio.gather(*(queue.submit(n) for n in range(6)), return_exceptions=True)
        assert await queue.run(lambda: time.monotonic()) > 0
        queue.close()
        return results

    assert [type(result) for result in asyncio.run(submit_all())] == [ZeroDivisionError] * 6
