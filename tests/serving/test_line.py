"""The line of those who wait: who is served together, who is dropped, and that none is lost."""

import asyncio
import threading
import time

import pytest

from makermark.serving.line import TOGETHER, Line, LineFullError


def test_those_who_wait_are_served_together_and_each_gets_its_own():
    groups, gate = [], threading.Event()

    def serve(items):
        gate.wait(10)
        groups.append(list(items))
        return [ValueError(str(item)) if item == 5 else 10 * item for item in items]

    async def ask():
        line = Line(serve, threads=1, waiting=20)
        asked = [asyncio.create_task(line.answer(number)) for number in range(10)]
        await asyncio.sleep(0.2)
        assert line.inside == 10
        gate.set()
        answers = await asyncio.gather(*asked, return_exceptions=True)
        assert line.inside == 0
        line.close()
        return answers

    answers = asyncio.run(ask())
    assert isinstance(answers.pop(5), ValueError)
    assert answers == [10 * number for number in range(10) if number != 5]
    assert sorted(number for group in groups for number in group) == list(range(10))
    assert max(map(len, groups)) == TOGETHER


def test_who_gives_up_is_not_served_and_leaves_the_line():
    served, gate = [], threading.Event()

    def serve(items):
        gate.wait(10)
        served.extend(items)
        return items

    async def ask():
        line = Line(serve, threads=1, waiting=3)
        first = asyncio.create_task(line.answer("first"))
        await asyncio.sleep(0.1)
        late = asyncio.create_task(line.answer("late"))
        work = asyncio.create_task(line.run(lambda: served.append("work")))
        await asyncio.sleep(0.1)
        with pytest.raises(LineFullError):
            await line.answer("one too many")
        late.cancel()
        work.cancel()
        await asyncio.sleep(0.1)
        assert line.inside == 1
        gate.set()
        assert await first == "first"
        line.close()

    asyncio.run(ask())
    assert served == ["first"]


def test_an_error_in_serving_reaches_all_who_were_served():
    async def ask():
        line = Line(lambda items: 1 / 0, threads=2, waiting=10)
        answers = await asyncio.gather(*(line.answer(n) for n in range(6)), return_exceptions=True)
        assert await line.run(lambda: time.monotonic()) > 0
        line.close()
        return answers

    assert [type(answer) for answer in asyncio.run(ask())] == [ZeroDivisionError] * 6
