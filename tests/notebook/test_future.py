"""Futures of tasks: they are standard futures in all but how they are made."""

from __future__ import annotations

import pickle
import threading
from concurrent.futures import CancelledError, Future, as_completed, wait

import pytest

from koubou_panel.core.records import TaskId
from koubou_panel.home import Home
from koubou_panel.notebook.future import TaskFuture

LIMIT_S = 20.0


class Keeper:
    """A workshop as far as its futures know."""

    def __init__(self, path):
        self.home = Home(path)
        self.condition = threading.Condition()

    def cancel(self, task_id):
        """Nothing ends by itself."""

    def task(self, task_id):
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
