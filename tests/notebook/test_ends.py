"""Futures at the edges: callbacks, an early cancel, requests that cannot be sent, a handle that is shut."""

from __future__ import annotations

import asyncio
import operator
import os
import sys
import threading
import time
from concurrent.futures import CancelledError, wait

import pytest
from msgspec.structs import replace

from koubou_panel import TaskFailure, TaskLost, Workshop
from koubou_panel.core.events import PoolChanged
from koubou_panel.errors import Refused
from koubou_panel.home import Home
from koubou_panel.notebook import sender
from koubou_panel.notebook.loop_thread import LoopThread
from koubou_panel.servers.private import PrivateServer
from koubou_panel.testing import open_inline_shop
from tests.gate import wait_for

LIMIT_S = 90.0
WORKERS = 1


def in_callback(either, gate, function):
    """What `function` gives or raises in a callback of a future, called with that."""
    future = either.submit(wait_for, gate)
    found = []
    called = threading.Event()

    def call(ended):
        try:
            found.append(function(ended))
        except Exception as error:  # noqa: BLE001 - it is looked at
            found.append(error)
        called.set()

    future.add_done_callback(call)
    gate.touch()
    assert called.wait(LIMIT_S)
    return found[0]


def test_a_callback_may_look_at_the_task(either, gate):
    """The record is there, in its end; the workshop goes on."""
    assert in_callback(either, gate, lambda ended: ended.task.status) == "completed"
    assert either.submit(pow, 2, 3).result(LIMIT_S) == 8


@pytest.mark.parametrize(
    "wait",
    [
        lambda shop: shop.output("0123456789abcd"),
        lambda shop: shop.pause(),
        lambda shop: shop.shutdown(),
        lambda shop: shop.submit(pow, 2, 2).result(),
    ],
)
def test_a_callback_may_not_wait(either, gate, wait):
    """What would wait for the thread that it is on says so; the workshop goes on."""
    error = in_callback(either, gate, lambda _: wait(either))
    assert isinstance(error, RuntimeError)
    assert "another thread" in str(error)
    assert either.submit(pow, 2, 3).result(LIMIT_S) == 8


@pytest.mark.parametrize("stop", [lambda: sys.exit(3), lambda: _raise(KeyboardInterrupt())])
def test_a_callback_that_exits_ends_nothing(tmp_path, stop):
    """What a task raised, `result` raises in its callback too: the workshop goes on, and can be shut down."""
    shop = Workshop(tmp_path / "home", workers=1)
    future = shop.submit(stop)
    future.add_done_callback(lambda ended: ended.result())
    assert isinstance(future.exception(LIMIT_S), (SystemExit, KeyboardInterrupt))
    assert shop.submit(pow, 2, 3).result(LIMIT_S) == 8
    shop.shutdown()


def _raise(error):
    raise error


def test_the_thread_goes_on_where_a_callback_of_its_loop_exits():
    """Before its end, in the very turn in which it is to end, and in what is cancelled then."""
    thread = LoopThread()

    async def lasting():
        try:
            await asyncio.Event().wait()
        finally:
            sys.exit(4)

    async def last():
        asyncio.current_task().add_done_callback(lambda _: sys.exit(5))

    thread.loop.call_soon_threadsafe(sys.exit, 3)
    thread.start(lasting())
    thread.start(asyncio.sleep(0)).result(LIMIT_S)
    thread.end(last())
    assert thread._ended.result(LIMIT_S) is None
    assert thread.loop.is_closed()


def test_a_dependent_is_cancelled_right_after_its_submit(either, gate):
    """However early it is asked, the task does not run, and what it was to follow does."""
    first = either.submit(wait_for, gate)
    second = either.submit(operator.is_, first, None)
    third = either.submit(operator.is_, second, None)
    assert second.cancel()
    with pytest.raises(CancelledError):
        second.result(LIMIT_S)
    with pytest.raises(TaskFailure, match="cancelled"):
        third.result(LIMIT_S)
    gate.touch()
    assert first.result(LIMIT_S) is None


def test_any_of_many_is_cancelled_right_after_its_submit(either, monkeypatch):
    """Also the last of more than are sent at once."""
    monkeypatch.setattr(sender, "DRAIN_ITEMS", 1)
    blocking = either.run("sleep", "60")
    futures = [either.submit(pow, 2, 2) for _ in range(500)]
    for future in (*reversed(futures), blocking):
        assert future.cancel()
    for future in futures:
        with pytest.raises(CancelledError):
            future.result(LIMIT_S)


def test_many_are_cancelled_by_few_commands(either, monkeypatch):
    """As when the interrupt of a large `map` cancels what is left of it."""
    asked = []

    async def noted(commands, caller, do_many=either.shop.do_many):
        asked.append(len(commands))
        return await do_many(commands, caller)

    blocking = either.run("sleep", "60")
    futures = [either.submit(time.sleep, 60) for _ in range(700)]
    assert either.record(futures[-1].task_id) is not None
    monkeypatch.setattr(either.shop, "do_many", noted)
    hold = threading.Event()
    either._seat.thread.loop.call_soon_threadsafe(hold.wait, LIMIT_S)
    for future in (*futures, blocking):
        future.cancel()
    hold.set()
    assert wait([*futures, blocking], LIMIT_S).not_done == set()
    assert asked == [500, 201]


def test_a_task_can_be_looked_up_right_after_its_submit(either):
    """However early it is asked, and after however many others: it is there."""
    seat = either._seat

    async def submitted_and_found(count):
        futures = [either.submit(pow, 2, 2) for _ in range(count)]
        return await seat.find(futures[-1].task_id)

    for count in (1, 1200):
        assert seat.thread.call(submitted_and_found(count)) is not None


def test_a_workshop_stays_in_its_process(shop):
    """A task that takes it along, as an argument or a global name, is told what to do instead."""
    for submit in (lambda: shop.submit(id, shop), lambda: shop.submit(lambda: shop.home)):
        with pytest.raises(Refused, match=r"opens its own: koubou_panel\.Workshop\(\)"):
            submit().result(LIMIT_S)


@pytest.mark.parametrize("options", [{"name": "a\ud800"}, {"memory": 2**70}])
def test_a_request_that_cannot_be_sent_is_refused_alone(either, options):
    """Its neighbours are not held up."""
    before = [either.submit(pow, 2, 2) for _ in range(3)]
    bad = either.submit_with(pow, 2, 2, options=options)
    after = [either.submit(pow, 2, 2) for _ in range(3)]
    assert [future.result(LIMIT_S) for future in before + after] == [4] * 6
    with pytest.raises(Refused) as refused:
        bad.result(LIMIT_S)
    assert refused.value.code == "invalid"


def test_a_size_beyond_any_machine_is_refused_at_once(shop):
    """As a text, where it is given."""
    with pytest.raises(ValueError, match="memory must be at most 8192 TB"):
        shop.submit_with(pow, 2, 2, options={"memory": "999999999T"})


def test_a_failure_to_send_is_told_to_all_it_concerns(attached, monkeypatch):
    """Whatever goes wrong on the way, nobody waits for ever."""

    async def fail(commands, caller):
        raise KeyError("a mistake")

    with monkeypatch.context() as patch:
        patch.setattr(attached.shop, "do_many", fail)
        first = attached.submit(pow, 2, 2)
        futures = [first, attached.submit(pow, first, 2)]
        for future in futures:
            with pytest.raises(KeyError, match="a mistake"):
                future.result(LIMIT_S)
    assert attached.submit(pow, 2, 2).result(LIMIT_S) == 4


def test_a_shut_handle_leaves_nobody_waiting(shop, home):
    """What had not ended says so, its task goes on, and its last known record can be read."""
    with Workshop(home) as other:
        ended = other.submit(pow, 2, 2)
        assert ended.result(LIMIT_S) == 4
        future = other.submit(time.sleep, 1)
        follower = other.submit(operator.is_, future, None)
        heard = []
        future.add_done_callback(heard.append)
        other.leave()
    for left in (future, follower):
        with pytest.raises(TaskFailure, match="was shut down") as raised:
            left.result(0)
        assert raised.value.task_id == left.task_id
        assert left.cancel() is False
        assert not left.cancelled()
    assert heard == [future]
    assert (ended.task.status, ended.cancel()) == ("completed", False)
    with pytest.raises(RuntimeError, match="was shut down"):
        other.pause()
    with pytest.raises(RuntimeError, match="was shut down"):
        other.cancel(future.task_id)
    assert shop.submit_with(pow, 2, 2, options={"after": follower.task_id}).result(LIMIT_S) == 4


def test_the_end_of_a_workshop_leaves_nobody_waiting(tmp_path):
    """A workshop that is ended under its tasks ends their futures too."""
    shop = Workshop(tmp_path / "home", workers=1)
    running, pending = shop.run("sleep", "60"), shop.submit(pow, 2, 2)
    shop.leave()
    for future in (running, pending):
        assert isinstance(future.exception(LIMIT_S), TaskFailure)
    assert pending.task.status == "pending"


def test_a_shutdown_cancels_what_has_not_begun(shop, home):
    """What runs goes on, though nobody waits for it; other handles' tasks are left alone."""
    others = shop.submit_with(pow, 2, 2, options={"after": (slow := shop.run("sleep", "0.3"))})
    with Workshop(home) as other:
        other.pause()
        futures = [other.run("sleep", "60") for _ in range(3)]
        other.future(others.task_id)
        other.shutdown(wait=False, cancel_futures=True)
        shop.resume()
        assert wait(futures, LIMIT_S).not_done == set()
        assert all(future.cancelled() for future in futures)
        with pytest.raises(RuntimeError, match="after shutdown"):
            other.submit(pow, 2, 2)
    assert (slow.result(LIMIT_S), others.result(LIMIT_S)) == (None, 4)


def test_a_shutdown_without_waiting_ends_with_the_last_task(tmp_path, gate):
    """Until then its tasks can be asked about, as of any executor; then the home is free."""
    shop = Workshop(tmp_path / "home", workers=1)
    running = shop.submit(wait_for, gate)
    shop.shutdown(wait=False)
    assert running.task.status in ("pending", "in_progress")
    gate.touch()
    assert running.result(LIMIT_S) is None
    shop.shutdown()
    with Workshop(tmp_path / "home", workers=1) as again:
        assert not again.is_attached


async def test_one_that_is_closing_is_waited_for(tmp_path):
    """It takes no work any more: who opens the home just then is to have one that does."""
    home = Home(tmp_path / "home")
    home.prepare()
    home.lock()
    async with open_inline_shop() as shop:
        server = PrivateServer(shop, home.socket)
        await server.start()
        shop.hub.note(PoolChanged(0.0, replace(shop.state.pool, closing=True), "test"))
        await shop.hub.stored()
        opening = asyncio.ensure_future(asyncio.to_thread(Workshop, home.root))
        await asyncio.wait({opening}, timeout=0.5)
        assert not opening.done()
        await server.close()
    home.unlock()
    opened = await opening
    assert not opened.is_attached
    await asyncio.to_thread(opened.shutdown)


def test_a_function_that_ends_its_process_is_lost_with_it(either):
    """Where the standard library's pool would be broken; the next task has another worker."""
    with pytest.raises(TaskLost, match="exited with code 5"):
        either.submit(os._exit, 5).result(LIMIT_S)
    assert either.submit(pow, 2, 3).result(LIMIT_S) == 8
