"""Futures of tasks: they are standard futures in all but how they are made."""

from __future__ import annotations

import asyncio
import pickle
import threading
from concurrent.futures import CancelledError, Future, as_completed, wait

import pytest

from koubou_panel.core.records import TaskId
from koubou_panel.errors import Refused
from koubou_panel.home import Home
from koubou_panel.notebook.future import TaskFuture
from koubou_panel.notebook.shared_lock import SharedLock
from koubou_panel.testing import until

LIMIT_S = 90.0


class CannotBeOpened:
    """A value whose opening raises this."""

    def __init__(self, error):
        self.error = error

    def __reduce__(self):
        """Opened by raising."""
        return _raise, (self.error,)


def _raise(error):
    raise error


async def _awaited(future):
    return await future


class Keeper:
    """A workshop as far as its futures know."""

    def __init__(self, path):
        self.home = Home(path)
        self.condition = SharedLock()

    def cancel(self, task_id):
        """Nothing ends by itself."""

    def record(self, task_id):
        """Nothing is known."""

    def check_may_wait(self):
        """Any thread may."""


@pytest.fixture
def keeper(tmp_path):
    """Whoever made the futures."""
    return Keeper(tmp_path)


def futures_of(keeper, count):
    """So many futures, none settled."""
    return [TaskFuture(TaskId(str(number)), keeper) for number in range(count)]


def test_it_has_what_a_standard_future_has(keeper):
    """A Python whose futures hold something more is noticed: `Future.__init__` is not called."""
    (future,) = futures_of(keeper, 1)
    assert set(vars(Future())) <= set(vars(future))


def test_the_standard_ways_to_wait_for_many_work(keeper):
    """`wait` and `as_completed` take any number of futures of one workshop while another thread settles them."""
    futures = futures_of(keeper, 200)
    settling = threading.Thread(target=lambda: [future.settle(pickle.dumps((True, 7))) for future in futures])
    settling.start()
    assert [future.result() for future in as_completed(futures, LIMIT_S)] == [7] * 200
    assert wait(futures, LIMIT_S).not_done == set()
    settling.join()


def test_each_waiting_thread_wakes_for_its_own_future(keeper):
    """A thread that waits for one future is not disturbed when others end, and one that waits too long is told."""
    futures = futures_of(keeper, 20)
    found = {}
    threads = [
        threading.Thread(target=lambda n=n: found.update({n: futures[n].result(LIMIT_S)})) for n in range(19)
    ]
    for thread in threads:
        thread.start()
    for number, future in enumerate(futures[:19]):
        future.settle(pickle.dumps((True, number)))
    for thread in threads:
        thread.join(LIMIT_S)
    assert found == {number: number for number in range(19)}
    with pytest.raises(TimeoutError):
        futures[19].result(0.01)
    with pytest.raises(TimeoutError):
        futures[19].exception(0)
    assert not futures[19]._waiters


async def test_no_callback_is_lost_to_a_thread_that_waits(keeper):
    """A thread that was waiting and goes on while callbacks are being called takes none of them away."""
    (future,) = futures_of(keeper, 1)
    is_done, called = threading.Event(), []
    waiting = threading.Thread(target=lambda: (future.result(LIMIT_S), is_done.set()))
    waiting.start()
    await until(lambda: future._waiters)
    future.add_done_callback(lambda _: called.append(is_done.wait(LIMIT_S)))
    future.add_done_callback(lambda _: called.append("second"))
    future.add_done_callback(lambda _: called.append("third"))
    future.settle(pickle.dumps((True, 7)))
    waiting.join(LIMIT_S)
    assert called == [True, "second", "third"]


async def test_a_callback_may_wait_for_who_waits_for_the_result(keeper):
    """However early it was added: those that wait wake first, as the standard library has it."""
    (future,) = futures_of(keeper, 1)
    go_on, called, found = threading.Event(), [], []
    future.add_done_callback(lambda _: called.append(go_on.wait(LIMIT_S)))
    waiting = [threading.Thread(target=lambda: found.append(future.result(LIMIT_S))) for _ in range(3)]
    for thread in waiting:
        thread.start()
    await until(lambda: len(future._waiters) == 3)
    settling = threading.Thread(target=lambda: future.settle(pickle.dumps((True, 7))))
    settling.start()
    for thread in waiting:
        thread.join(LIMIT_S)
    assert (called, found, future._waiters) == ([], [7, 7, 7], [])
    go_on.set()
    settling.join(LIMIT_S)
    assert called == [True]


class Interrupted:
    """A lock at which whoever waits is interrupted."""

    def acquire(self, timeout=0):
        """Taken at once, or never."""
        if timeout:
            raise KeyboardInterrupt


def test_one_that_waited_in_vain_leaves_nothing_behind(keeper, monkeypatch):
    """Nor does one that was interrupted; others' callbacks are left alone."""
    (future,) = futures_of(keeper, 1)
    future.add_done_callback(print)
    with pytest.raises(TimeoutError):
        future.result(0.01)
    monkeypatch.setattr("koubou_panel.notebook.future.allocate_lock", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        future.result()
    assert (future._waiters, future._done_callbacks) == ([], [print])


def test_an_interrupt_in_wait_does_not_keep_others_from_ending(keeper, monkeypatch):
    """One that comes while `wait` looks at its many futures leaves none of them held."""
    futures = futures_of(keeper, 3)
    taken, acquire = [], SharedLock.acquire

    def interrupted(self, *args):
        taken.append(acquire(self, *args))
        if len(taken) == 2:
            raise KeyboardInterrupt
        return True

    monkeypatch.setattr(SharedLock, "acquire", interrupted)
    with pytest.raises(KeyboardInterrupt):
        wait(futures, LIMIT_S)
    settling = threading.Thread(
        target=lambda: [future.settle(pickle.dumps((True, 7))) for future in futures], daemon=True
    )
    settling.start()
    settling.join(LIMIT_S)
    assert [future.done() for future in futures] == [True, True, True]


def test_nothing_ends_while_a_call_looks(keeper):
    """`wait` counts what has ended and then asks to be told of the rest: nothing may end in between."""
    (future,) = futures_of(keeper, 1)
    settling = threading.Thread(target=lambda: future.settle(pickle.dumps((True, 7))))

    future._condition.acquire()
    settling.start()
    settling.join(0.05)
    assert not future.done()
    future._condition.release()
    settling.join(LIMIT_S)
    assert future.result(0) == 7


@pytest.mark.parametrize("error", [OSError("too many open files"), ImportError("no module")])
async def test_an_awaited_result_that_cannot_be_opened_says_so(keeper, error):
    """Who awaits it, by any way, is told, and does not wait for ever."""
    future, other = futures_of(keeper, 2)
    for one in (future, other):
        one.settle(pickle.dumps((True, CannotBeOpened(error))))
    with pytest.raises(type(error), match=str(error)):
        await asyncio.wait_for(_awaited(future), LIMIT_S)
    with pytest.raises(type(error), match=str(error)):
        await asyncio.wait_for(asyncio.wrap_future(other), LIMIT_S)


async def test_an_awaited_stop_iteration_is_told_as_a_generator_tells_it(keeper):
    """No coroutine may raise it."""
    (future,) = futures_of(keeper, 1)
    future.settle(pickle.dumps((False, (StopIteration(7), ""))), succeeded=False)
    with pytest.raises(RuntimeError, match="StopIteration"):
        await asyncio.wait_for(_awaited(future), LIMIT_S)


def test_the_exception_of_what_cannot_be_opened_is_why(keeper):
    """It is what `result` raises, and not None."""
    (future,) = futures_of(keeper, 1)
    error = ImportError("no module")
    future.settle(pickle.dumps((True, CannotBeOpened(error))))
    assert repr(future.exception(0)) == repr(error)


def test_a_callback_may_ask_for_the_result_of_a_cancelled_future(keeper):
    """The end of a cancelled future is known before its callbacks are called."""
    (future,) = futures_of(keeper, 1)
    raised = []

    def ask(ended):
        try:
            ended.result()
        except CancelledError as error:
            raised.append(error)

    future.add_done_callback(ask)
    future.settle_cancelled()
    assert len(raised) == 1
    with pytest.raises(CancelledError):
        future.result()


def test_a_callback_that_exits_is_told_in_the_log(keeper, caplog):
    """As any that fails: the next is called, and the thread that settles futures goes on."""
    (future,) = futures_of(keeper, 1)
    called = []
    future.add_done_callback(lambda ended: ended.result())
    future.add_done_callback(called.append)
    future.settle(pickle.dumps((False, (SystemExit(3), ""))), succeeded=False)
    assert called == [future]
    assert "exception calling callback" in caplog.text


def test_what_it_is_can_be_written_though_nobody_is_there_to_ask(keeper, monkeypatch):
    """A list of futures is shown, and logged, also where the workshop has ended."""

    def ended(task_id):
        raise Refused("unavailable", "the workshop has ended")

    monkeypatch.setattr(keeper, "record", ended)
    (future,) = futures_of(keeper, 1)
    assert repr(future) == "<TaskFuture 0 pending>"
    assert not future.running()
