"""Tasks that were submitted before, by another process: their state, their results, and why there is none."""

from __future__ import annotations

import operator
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import CancelledError

import pytest

from koubou_panel import Workshop
from koubou_panel.errors import Refused, TaskFailure
from koubou_panel.notebook import results
from koubou_panel.notebook.task import LiveTask
from tests.gate import wait_for

LIMIT_S = 90.0
EARLIER = """
import sys, time
from koubou_panel import Workshop
class Point:
    def __init__(self, x): self.x = x
def make(x): return Point(x)
def fail(): print("about to fail"); raise LookupError("nothing here")
shop = Workshop(sys.argv[1], workers=1)
futures = [
    shop.submit(pow, 2, 10), shop.submit(make, 7), shop.submit(fail), shop.run("sh", "-c", "exit 3"), shop.run("true"),
]
sleeping = shop.submit(time.sleep, 60)
sleeping.cancel()
[future.exception() for future in futures]
print(*(future.task_id for future in (*futures, sleeping)))
"""


@pytest.fixture(scope="module")
def earlier(tmp_path_factory):
    """A home where another process had tasks and ended: (home, the tasks' ids)."""
    home = tmp_path_factory.mktemp("recall") / "home"
    ran = subprocess.run(
        [sys.executable, "-c", EARLIER, str(home)], capture_output=True, text=True, timeout=90, check=True
    )
    return home, ran.stdout.split()


@pytest.fixture(scope="module")
def shop(earlier):
    """The workshop of that home, opened again."""
    with Workshop(earlier[0], workers=1) as opened:
        yield opened


@pytest.fixture(scope="module")
def attached(shop, earlier):
    """Another handle, attached to it."""
    with Workshop(earlier[0]) as opened:
        yield opened


def test_results_outlive_the_process_that_asked_for_them(either, earlier):
    """A number, an object of a class that its notebook defined, and a command's nothing."""
    power, point, _, _, command, _ = earlier[1]
    assert either.result(power) == 1024
    assert either.result(point).x == 7
    assert either.result(command) is None


def test_what_failed_raises_as_it_did(either, earlier):
    """The exception with the worker's traceback; of a command how it ended."""
    _, _, failed, exited, _, _ = earlier[1]
    with pytest.raises(LookupError, match="nothing here") as raised:
        either.result(failed)
    assert "in fail" in str(raised.value.__cause__)
    assert either.future(failed).output == "about to fail\n"
    with pytest.raises(TaskFailure, match="code 3"):
        either.result(exited)


def test_a_cancelled_one_says_by_whom(either, earlier):
    """As its future did."""
    with pytest.raises(CancelledError, match="was cancelled by python:"):
        either.result(earlier[1][5])


@pytest.mark.parametrize("ask", [Workshop.result, Workshop.future, Workshop.task])
def test_an_unknown_task_is_refused(either, ask):
    """By its id, with the home that it is not in."""
    with pytest.raises(Refused, match=r"no task '0123456789abcd' in /.*home") as refused:
        ask(either, "0123456789abcd")
    assert refused.value.code == "not_found"


def test_one_that_has_not_ended_may_be_waited_for(either, gate):
    """For a while; the message says which it is."""
    task_id = either.submit(wait_for, gate).task_id
    with pytest.raises(TimeoutError, match=f"{task_id} has not ended after 0.01 s"):
        either.result(task_id, timeout=0.01)
    gate.touch()
    assert either.result(task_id, LIMIT_S) is None


def test_a_task_that_waits_has_one_future(either, gate):
    """Who asks for it is given the one that there is, and another handle's settles all the same."""
    future = either.submit(wait_for, gate)
    assert either.future(future.task_id) is future
    assert either.record(future.task_id), "it is there for others too"
    with Workshop(either.home.root) as other:
        others = other.future(future.task_id)
        gate.touch()
        assert others.result(LIMIT_S) is None


def test_a_shutdown_does_not_wait_for_others_tasks(either):
    """Their futures say that they were left."""
    long = either.run("sleep", "60")
    assert either.record(long.task_id), "it is there for others too"
    with Workshop(either.home.root) as other:
        left = other.future(long.task_id)
    assert isinstance(left.exception(LIMIT_S), TaskFailure)
    assert not long.done()
    long.cancel()


def test_a_result_that_was_removed_says_so(tmp_path):
    """With what to do, and not with a value that was never returned."""
    with Workshop(tmp_path / "home", workers=1) as shop:
        future = shop.submit_with(operator.add, 1, 2, options={"name": "sum"})
        assert future.result(LIMIT_S) == 3
    with sqlite3.connect(tmp_path / "home" / "koubou.db") as database:
        database.execute("UPDATE standing SET value = NULL")
    words = r"\(sum\) is not kept any more; `koubou retry`"
    with Workshop(tmp_path / "home", workers=1) as shop, pytest.raises(Refused, match=words):
        shop.result(future.task_id, LIMIT_S)


def test_a_result_is_one_object(either):
    """Whoever asks, and however often; an exception too."""
    future, bad = either.submit(list, (1, 2)), either.submit(operator.truediv, 1, 0)
    assert future.result(LIMIT_S) is future.result()
    assert future.exception() is None
    assert bad.exception(LIMIT_S) is bad.exception()


def test_a_live_task_is_read_anew(either, gate):
    """Its attributes are the record's of that moment; a mistyped one is told."""
    future = either.submit(_say_and_wait, gate)
    task = either.task(future.task_id)
    assert isinstance(task, LiveTask)
    assert task.status in ("pending", "in_progress")
    assert repr(task).startswith(f"<LiveTask {future.task_id} '_say_and_wait' ")
    gate.touch()
    assert future.result(LIMIT_S) is None
    assert (task.status, task.is_finished, task.output) == ("completed", True, "said\n")
    assert task.record == either.record(future.task_id)
    assert task.future.result(LIMIT_S) is None
    assert "usage" in dir(task)
    with pytest.raises(AttributeError, match="no attribute 'statuss'"):
        _ = task.statuss


def test_a_future_is_running_while_its_task_is(either, gate):
    """And shows so."""
    future = either.submit(_say_and_wait, gate)
    deadline = time.monotonic() + LIMIT_S
    while not future.running():
        assert time.monotonic() < deadline
    assert "running" in repr(future)
    gate.touch()
    future.result(LIMIT_S)
    assert not future.running()


def _say_and_wait(gate):
    print("said")  # noqa: T201 - it is looked for
    wait_for(gate)


@pytest.mark.parametrize("failures", [1, 2])
def test_a_result_that_cannot_be_read_at_once_is_asked_for_again(shop, monkeypatch, failures):
    """A disk that fails once or twice keeps nobody waiting for ever."""
    monkeypatch.setattr(results, "AGAIN_S", (0.01, 0.01))
    reads = failing_reads(shop, monkeypatch, lambda _, reads: len(reads) <= failures)
    assert shop.run("true").result(LIMIT_S) is None
    assert len(reads) == failures + 1


def test_a_result_that_cannot_be_read_at_all_is_an_error(shop, monkeypatch):
    """It says what to do; those that were read beside it come."""
    monkeypatch.setattr(results, "AGAIN_S", (0.01, 0.01))
    shop.pause()
    bad, good = shop.run("true"), shop.run("true")
    failing_reads(shop, monkeypatch, lambda task_ids, _: bad.task_id in task_ids)
    shop.resume()
    with pytest.raises(Refused, match=r"could not be read: disk I/O error; shop\.result") as refused:
        bad.result(LIMIT_S)
    assert refused.value.code == "storage"
    assert good.result(LIMIT_S) is None


def failing_reads(shop, monkeypatch, fails):
    """Have the archive's reads of values fail where `fails(task_ids, reads so far)`; give the reads as they come."""
    archive, reads = shop.shop._archive, []
    read = archive.values

    def values(task_ids):
        reads.append(task_ids)
        if fails(task_ids, reads):
            raise sqlite3.OperationalError("disk I/O error")
        return read(task_ids)

    monkeypatch.setattr(archive, "values", values)
    return reads
