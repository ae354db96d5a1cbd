"""What may be said of a task in Python beside its arguments, and the commands to the workers."""

from __future__ import annotations

import time

import numpy as np
import pytest

from koubou_panel import Limits
from koubou_panel.errors import Refused
from koubou_panel.testing import until

GB = 1 << 30
WORKERS = 1


@pytest.mark.parametrize(
    ("options", "limits"),
    [
        ({"limits": Limits(memory_bytes=2 * GB, processes=3)}, Limits(memory_bytes=2 * GB, processes=3)),
        ({"memory": "2G", "cpu_s": 1.5}, Limits(memory_bytes=2 * GB, cpu_s=1.5)),
        (
            {"memory": 2 * GB, "processes": 4, "output": "64 MB"},
            Limits(memory_bytes=2 * GB, processes=4, output_bytes=64 << 20),
        ),
        ({"limits": Limits(cpu_s=9.0), "cpu_s": 2}, Limits(cpu_s=2.0)),
    ],
)
def test_limits_are_part_of_the_request(either, options, limits):
    """As `Limits`, or one by one; sizes as numbers or texts; the single one wins."""
    for future in (either.submit_with(pow, 2, 3, options=options), either.run("true", **options)):
        future.result(90)
        assert future.task.request.limits == limits


def test_every_option_reaches_the_task(either):
    """Name, priority, retries and the rest are those of the request."""
    options = {"name": "n", "priority": 9, "timeout_s": 5, "retries": 2, "on_crash": "retry"}
    future = either.submit_with(pow, 2, 3, options=options | {"labels": {"a": "b"}})
    assert future.result(90) == 8
    request = future.task.request
    assert {name: getattr(request, name) for name in options} == options
    assert request.labels == {"a": "b"}
    task = future.task
    assert {name: getattr(task, name) for name in options} == options
    assert (task.labels, task.kind, task.label) == ({"a": "b"}, "function", "n")
    assert {"name", "label", "labels"} <= set(dir(task))


def solve(x, **kwargs):
    """What it is called with."""
    return x, kwargs


def test_a_function_may_have_an_argument_of_that_name(either):
    """As `scipy.optimize.minimize(f, x0, options={...})` has: it is the function's."""
    kwargs = {"options": {"maxiter": 5}, "fn": 1, "self": 2}
    assert either.submit(solve, 1, **kwargs).result(90) == (1, kwargs)


def test_a_wrong_option_leaves_no_file(shop, home):
    """It is refused before a large argument is written."""
    before = sorted((home / "values").glob("*"))
    with pytest.raises(TypeError, match="did you mean 'priority'"):
        shop.submit_with(len, bytes(3 << 20), options={"prioritty": 1})
    assert sorted((home / "values").glob("*")) == before


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"prioritty": 1}, TypeError, "did you mean 'priority'"),
        ({"memmory": "2G"}, TypeError, "did you mean 'memory'"),
        ({"memory": "2 gigs"}, ValueError, "memory must be a size such as 512M or 2G, not '2 gigs'"),
        ({"output": "0"}, ValueError, "output must be a size"),
        ({"memory": 1.5}, TypeError, "memory: expected"),
        ({"cpu_s": "5"}, TypeError, "cpu_s: expected"),
        ({"limits": {"memory": 5}}, TypeError, "limits"),
        ({"limits": "2G"}, TypeError, "limits: expected"),
        ({"limits": Limits(memory_bytes="2G")}, TypeError, "limits.memory_bytes: expected"),
        ({"retries": "2"}, TypeError, "retries: expected"),
        ({"on_crash": "again"}, TypeError, "on_crash: invalid"),
        ({"labels": {"seed": 1}}, TypeError, "write {'seed': '1'}"),
        ({"labels": {1: "a"}}, TypeError, "write {'1': 'a'}"),
        ({"labels": "a"}, TypeError, "labels is a dict"),
    ],
)
def test_a_wrong_option_is_refused_at_once(shop, options, error, said):
    """Where it is said, with what would be right; nothing is submitted."""
    with pytest.raises(error, match=said):
        shop.submit_with(pow, 2, 3, options=options)
    with pytest.raises(error, match=said):
        shop.run("true", **options)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"memory": 1000}, "limits.memory_bytes"),
        ({"cpu_s": -1}, "limits.cpu_s"),
        ({"processes": 0}, "limits.processes"),
    ],
)
def test_a_limit_out_of_range_is_refused(either, options, field):
    """The workshop says which, and what can be."""
    with pytest.raises(Refused, match=r"must be .* to ") as refused:
        either.run("true", **options).result(90)
    assert refused.value.field == field


def test_pause_starts_nothing_until_resume(either):
    """A paused workshop takes work and keeps it."""
    either.pause()
    future = either.submit(pow, 2, 3)
    either.call(until(lambda: either.shop.state.counts["pending"] == 1))
    assert either.shop.state.pool.paused
    assert either.shop.state.counts["in_progress"] == 0
    either.resume()
    assert future.result(90) == 8


def test_drain_waits_and_takes_nothing(either):
    """What runs goes on to its end; new work is refused until the workshop is resumed."""
    running = either.submit(time.sleep, 1)
    either.call(until(lambda: either.shop.state.counts["in_progress"] == 1))
    with pytest.raises(TimeoutError):
        either.drain(timeout=0.01)
    either.drain(timeout=90)
    assert running.result(90) is None
    with pytest.raises(Refused, match="drained") as refused:
        either.submit(pow, 2, 3).result(90)
    assert refused.value.code == "draining"
    either.resume()
    assert either.submit(pow, 2, 3).result(90) == 8


def test_drain_need_not_wait(either):
    """Without `wait` it returns at once."""
    future = either.submit(time.sleep, 60)
    either.call(until(lambda: either.shop.state.counts["in_progress"] == 1))
    either.drain(wait=False)
    assert not future.done()
    either.resume()
    future.cancel()


def test_scale_sets_the_bounds(either):
    """One number is both bounds; impossible ones are refused."""
    either.scale(1, 2)
    assert (either.shop.state.pool.min_workers, either.shop.state.pool.max_workers) == (1, 2)
    either.scale(1)
    assert (either.shop.state.pool.min_workers, either.shop.state.pool.max_workers) == (1, 1)
    with pytest.raises(Refused, match="MIN:MAX"):
        either.scale(3, 1)


@pytest.mark.parametrize(
    ("act", "error", "words"),
    [
        (lambda shop, task: shop.output(task, limit="a"), TypeError, "limit must be a whole number, not 'a'"),
        (lambda shop, task: shop.output(task, limit=1.5), TypeError, "limit must be a whole number, not 1.5"),
        (lambda shop, task: shop.output(task, limit=-1), ValueError, "limit must be 0 or more"),
        (lambda shop, task: shop.output(task, limit=3), ValueError, "limit must be 4 bytes or more"),
        (lambda shop, task: shop.output(task, offset="x"), TypeError, "offset must be a whole number"),
        (lambda shop, _: shop.scale("x"), TypeError, "least must be a whole number, not 'x'"),
        (lambda shop, _: shop.scale(1, 1.5), TypeError, "most must be a whole number, not 1.5"),
        (lambda shop, task: shop.send_input(task, 5), TypeError, "input is bytes or a text, not 5"),
        (lambda shop, _: shop.send_input(5, "x"), TypeError, "a task is named by its id"),
        (lambda shop, task: task.send_input(None), TypeError, "input is bytes or a text, not None"),
    ],
)
def test_a_wrong_argument_is_told_at_the_call(either, act, error, words):
    """In words, whoever holds the workshop; nothing of it is sent."""
    task = either.submit(pow, 2, 3)
    task.result(90)
    with pytest.raises(error, match=words):
        act(either, task)


def test_a_number_of_numpy_is_a_number(attached):
    """As what an array holds or counts."""
    task = attached.run("echo", "hello")
    task.result(90)
    assert attached.output(task, np.int64(1), np.int32(9)) == "ello\n"


def test_no_more_output_comes_than_was_asked_for(either):
    """None of it for a limit of 0, no character by half; a task that is not there is refused all the same."""
    task = either.run("echo", "hé日x")
    task.result(90)
    texts = [either.output(task, limit=most) for most in (0, 4, 5, 6, 7)]
    assert texts == ["", "hé", "hé", "hé日", "hé日x"]
    with pytest.raises(Refused, match="no task"):
        either.output("2mzb5z2cbkkfsg", limit=0)
