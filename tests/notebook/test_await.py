"""Futures in coroutines: a notebook's cell awaits them, and its kernel's loop is never held up."""

from __future__ import annotations

import asyncio
import math
import time

import pytest

LIMIT_S = 90.0


async def test_a_future_can_be_awaited(either):
    """Its result, its exception, and again when it has ended long ago."""
    future = either.submit(pow, 2, 10)
    assert (await future, await future) == (1024, 1024)
    with pytest.raises(ValueError, match="math domain error") as raised:
        await either.submit(math.sqrt, -1)
    assert "kinds/function.py" in str(raised.value.__cause__)


async def test_the_standard_ways_to_await_many_work(either):
    """`gather`, `as_completed`, `wrap_future` and `wait_for`."""
    futures = [either.submit(pow, 2, n) for n in range(4)]
    assert await asyncio.gather(*futures) == [1, 2, 4, 8]
    assert sorted([await ended for ended in asyncio.as_completed(futures)]) == [1, 2, 4, 8]
    assert await asyncio.wrap_future(futures[3]) == 8
    assert await asyncio.wait_for(either.submit(pow, 2, 5), LIMIT_S) == 32


async def test_waiting_does_not_hold_up_the_loop(either):
    """Other coroutines go on while a task is awaited."""
    turns = 0

    async def turn():
        nonlocal turns
        while True:
            await asyncio.sleep(0.01)
            turns += 1

    turning = asyncio.ensure_future(turn())
    await either.submit(time.sleep, 0.5)
    turning.cancel()
    assert turns > 5


async def test_who_gives_up_waiting_cancels_the_task(either):
    """As asyncio has it: a coroutine that is cancelled cancels what it waits for; `shield` keeps it."""
    running = either.run("sleep", "60")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(running, 0.3)
    with pytest.raises(asyncio.CancelledError, match="was cancelled by python:"):
        await asyncio.to_thread(running.result, LIMIT_S)
    kept = either.submit(time.sleep, 0.5)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(kept)), 0.1)
    assert await kept is None


async def test_a_cancelled_task_ends_who_awaits_it(either):
    """As a cancelled asyncio task does."""
    future = either.run("sleep", "60")
    future.cancel()
    with pytest.raises(asyncio.CancelledError):
        await future
