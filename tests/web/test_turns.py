"""Requests start in the order in which they came, a few in each round of the event loop."""

from __future__ import annotations

import asyncio

import pytest

from s3seg.web.turns import Turns

pytestmark = pytest.mark.anyio


async def rounds(condition):
    """Count the rounds of the event loop until a condition holds."""
    count = 0
    while not condition():
        await asyncio.sleep(0)
        count += 1
        assert count < 1000
    return count


async def test_a_few_start_in_each_round_in_their_order():
    turns, started = Turns(), []
    for number in range(100):
        turns.take(lambda number=number: started.append(number))
    assert started == []
    sizes = []
    while len(started) < 100:
        before = len(started)
        await asyncio.sleep(0)
        sizes.append(len(started) - before)
    assert started == list(range(100))
    assert max(sizes) == 8


async def test_what_is_under_way_goes_on_while_others_wait_for_their_turn():
    turns, steps = Turns(), []

    async def several_steps():
        for step in range(10):
            steps.append(step)
            await asyncio.sleep(0)

    turns.take(lambda: asyncio.ensure_future(several_steps()))
    waiting = [0] * 1000
    for _ in waiting:
        turns.take(lambda: waiting.pop())
    await rounds(lambda: len(steps) == 10)
    assert len(waiting) > 1000 - 13 * 8


async def test_what_comes_while_others_wait_is_started_after_them():
    turns, started = Turns(), []
    for number in range(20):
        turns.take(lambda number=number: started.append(number))
    await asyncio.sleep(0)
    turns.take(lambda: started.append("late"))
    await rounds(lambda: "late" in started)
    assert started == [*range(20), "late"]


async def test_what_cannot_be_started_stops_nobody_else(caplog):
    turns, started = Turns(), []
    errors = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: errors.append(context["exception"]))

    def fail():
        raise ZeroDivisionError

    for start in (fail, *[lambda: started.append(1)] * 20):
        turns.take(start)
    await rounds(lambda: len(started) == 20)
    assert [type(error) for error in errors] == [ZeroDivisionError]
