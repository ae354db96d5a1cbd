"""What may be said of a task in Python beside its arguments, and the commands to the workers."""

from __future__ import annotations

import time

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
        future.result(20)
        assert future.task.request.limits == limits


def test_every_option_reaches_the_task(either):
    """Name, priority, retries and the rest are those of the request."""
    options = {"name": "n", "priority": 9, "timeout_s": 5, "retries": 2, "on_crash": "retry"}
    future = either.submit_with(pow, 2, 3, options=options | {"labels": {"a": "b"}})
    assert future.result(20) == 8
    request = future.task.request
    assert {name: getattr(request, name) for name in options} == options
    assert request.labels == {"a": "b"}


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
        ({"labels": {"a": 1}}, TypeError, "labels"),
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
        either.run("true", **options).result(20)
    assert refused.value.field == field


def test_pause_starts_nothing_until_resume(either):
    """A paused workshop takes work and keeps it."""
    either.pause()
    future = either.submit(pow, 2, 3)
    either.call(until(lambda: either.shop.state.counts["pending"] == 1))
    assert either.shop.state.pool.paused
    assert either.shop.state.counts["in_progress"] == 0
    either.resume()
    assert future.result(20) == 8


def test_drain_waits_and_takes_nothing(either):
    """What runs goes on to its end; new work is refused until the workshop is resumed."""
    running = either.submit(time.sleep, 0.3)
    either.call(until(lambda: either.shop.state.counts["in_progress"] == 1))
    with pytest.raises(TimeoutError):
        either.drain(timeout=0.01)
    either.drain(timeout=20)
    assert running.result(5) is None
    with pytest.raises(Refused, match="drained") as refused:
        either.submit(pow, 2, 3).result(20)
    assert refused.value.code == "draining"
    either.resume()
    assert either.submit(pow, 2, 3).result(20) == 8


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
