"""What a workshop measures of its runs: on the record, as a curve, for its limits, and at what pace."""

from __future__ import annotations

import asyncio
import builtins
import subprocess
import sys
import time
from pathlib import Path

import pytest

from koubou_panel.core.curve import Curve, decode_curve
from koubou_panel.core.events import TasksSampled, WorkerSampled
from koubou_panel.core.records import Limits, TaskId, Use
from koubou_panel.notebook.workshop import Workshop
from koubou_panel.samplers.process import Looks
from koubou_panel.shop import sampling as module
from koubou_panel.shop.curves import Curves
from koubou_panel.shop.sampling import Pace
from koubou_panel.testing import Collector, ended, open_shop, submit, until

MB = 1024 * 1024

# Works and holds 60 MB until it is told to end; a child of it does the same, so that the tree is more than its root.
HOG = f"""
import subprocess, sys, time, pathlib
if len(sys.argv) == 2:
    subprocess.Popen([sys.executable, *sys.orig_argv[1:3], sys.argv[1], "child"])
held = bytearray(b"x" * {60 * MB})
while not pathlib.Path(sys.argv[1]).exists():
    until = time.process_time() + 0.02
    while time.process_time() < until: pass
    time.sleep(0.02)
"""


async def test_a_command_has_a_curve_while_it_runs_and_afterwards(tmp_path):
    """Its tree's memory, share and processes are told live; peaks stay on its record and the curve in the archive."""
    async with open_shop(tmp_path / "home", workers=1) as shop:
        heard = Collector()
        shop.subscribe(heard)
        task_id = await submit(shop, sys.executable, "-c", HOG, str(tmp_path / "end"))
        await until(lambda: _is_at_work(shop.state.tasks[task_id].use))
        await until(lambda: len(shop.hub.curves.get(task_id, 1) or ()) >= 3)
        live = await shop.curve(task_id)
        assert isinstance(live, Curve)
        assert max(live.rss_bytes) > 120 * MB
        assert any(
            name == task_id for s in heard.samples if isinstance(s, TasksSampled) for name, _, _ in s.uses
        )
        (tmp_path / "end").touch()
        await ended(shop, task_id)
        usage = shop.state.tasks[task_id].usage
        assert usage.peak_rss_bytes > 120 * MB
        assert usage.peak_processes == 2
        assert usage.cpu_s > 0.05
        assert shop.hub.curves.get(task_id, 1) is None
        await until(lambda: _is_stored(shop, task_id))
        kept = await shop.curve(task_id)
        assert kept.at[: len(live)] == live.at
    async with open_shop(tmp_path / "home", workers=1, wait_ready=False) as shop:
        assert await shop.curve(task_id) == kept


def _is_at_work(use):
    """Whether both processes were seen, with what they hold, computing."""
    return use is not None and use.processes == 2 and use.rss_bytes > 120 * MB and use.cpu_percent > 5


async def _is_stored(shop, task_id):
    return await shop.curve(task_id) is not None


async def test_a_short_command_has_no_curve(tmp_path):
    """What ends within a second is never looked at, and costs nothing."""
    async with open_shop(tmp_path / "home", workers=1) as shop:
        task_id = await submit(shop, "true")
        await ended(shop, task_id)
        assert await shop.curve(task_id) is None
        assert shop.state.tasks[task_id].usage.peak_processes is None


async def test_a_run_that_passes_its_memory_limit_is_stopped(tmp_path):
    """The looks between samples find it, and the reason is said."""
    async with open_shop(tmp_path / "home", workers=1) as shop:
        task_id = await submit(
            shop, sys.executable, "-c", HOG, str(tmp_path / "end"), limits=Limits(memory_bytes=50 * MB)
        )
        await ended(shop, task_id)
        assert shop.state.tasks[task_id].reason == "memory"


async def test_a_worker_is_told_of_when_it_changes(tmp_path):
    """Workers that rest are told once, not each second."""
    async with open_shop(tmp_path / "home", workers=1) as shop:
        heard = Collector()
        shop.subscribe(heard)
        await until(lambda: any(worker.rss_bytes for worker in shop.state.workers.values()))
        (name,) = shop.state.workers
        told = module.Sampling(hub=shop.hub, engine=shop.engine, folder=tmp_path, clock=time.time)
        heard.samples.clear()
        for use in [(0.0, 50 * MB), (0.1, 50 * MB + 9), (30.0, 50 * MB), (30.1, 90 * MB)]:
            told._tell(Looks({name: use}, []))
        await until(lambda: len(_told_of(heard)) >= 3)
        assert _told_of(heard)[-3:] == [(0.0, 50 * MB), (30.0, 50 * MB), (30.1, 90 * MB)]


def _told_of(heard):
    return [(s.cpu_percent, s.rss_bytes) for s in heard.samples if isinstance(s, WorkerSampled)]


async def test_a_function_has_its_own_peaks(tmp_path):
    """What its worker holds while it runs is on the record of a function that is looked at."""
    with Workshop(tmp_path / "home", workers=1) as shop:
        future = shop.submit(_hold, str(tmp_path / "end"))
        await until(lambda: (future.task.usage.peak_rss_bytes or 0) > 55 * MB)
        (tmp_path / "end").touch()
        await asyncio.get_running_loop().run_in_executor(None, future.result)
        usage = future.task.usage
        assert usage.peak_rss_bytes > 55 * MB
        assert usage.peak_processes >= 1
        assert usage.cpu_s > 0


async def test_a_function_is_not_ended_for_what_others_left(tmp_path):
    """What an earlier function keeps in their worker, memory and processes, counts for no limit of the next."""
    with Workshop(tmp_path / "home", workers=1) as shop:
        left = shop.submit(_leave, 300 * MB, 3)
        future = shop.submit_with(time.sleep, 2.6, options={"memory": "100M", "processes": 1})
        await asyncio.get_running_loop().run_in_executor(None, future.result)
        assert len(left.result()) == 3
        assert future.task.usage.peak_rss_bytes < 50 * MB
        assert future.task.usage.peak_processes == 1


def _leave(count, processes):
    builtins.left_by_a_test = (
        bytearray(b"x") * count,
        [subprocess.Popen(["sleep", "60"]) for _ in range(processes)],
    )
    return [process.pid for process in builtins.left_by_a_test[1]]


def _hold(path):
    held = bytearray(b"x" * (60 * MB))
    while not Path(path).exists():
        time.sleep(0.02)
    return len(held)


class Odd:
    """A sampler of a third party."""

    name = "odd"
    every_s = 0.0

    def __init__(self):
        self.fails = False

    def sample(self):
        """A value, or a fault."""
        return {"odd_count": 1 / (not self.fails)}


def test_a_sampler_that_fails_costs_only_its_own_values(caplog):
    """The others are told; what it told before is not shown on as if it were true."""
    odd, even = Odd(), Odd()
    even.name, even.sample = "even", lambda: {"even_count": 2}
    host = module._Host([odd, even])
    assert host.sample() == {"odd_count": 1.0, "even_count": 2}
    odd.fails = True
    assert host.sample() == {"even_count": 2}
    assert "the sampler odd failed" in caplog.text


def test_a_sampler_is_asked_as_often_as_it_says():
    """Between two of its samples its last values stand."""
    odd = Odd()
    odd.every_s = 3_600.0
    host = module._Host([odd])
    host.sample()
    odd.fails = True
    assert host.sample() == {"odd_count": 1.0}


def test_samplers_of_third_parties_are_taken_in(monkeypatch):
    """They come by the entry points of `koubou_panel.samplers`."""
    monkeypatch.setattr(module.registry, "names", lambda family: [family])
    monkeypatch.setattr(module.registry, "find", lambda family, name: (family, name))
    assert list(module._installed()) == [("samplers", "samplers")]


async def test_a_look_that_fails_is_not_the_last(monkeypatch, caplog):
    """A fault is told in the log, and the next look comes all the same."""
    monkeypatch.setattr(module, "AFTER_FAILURE_S", 0.0)
    looks = []

    async def see():
        looks.append(1)
        if len(looks) == 1:
            raise OSError("too many open files")
        return 0.0

    keeping = asyncio.ensure_future(module._keep(see))
    await until(lambda: len(looks) >= 3)
    keeping.cancel()
    assert "could not measure" in caplog.text


@pytest.mark.parametrize(("cost_s", "rest_s"), [(0.0, 1.0), (0.002, 1.0), (0.01, 2.5), (0.5, 10.0)])
def test_the_pace_keeps_the_share(cost_s, rest_s):
    """Rest is long enough that work is 0.4 % of a core, within its bounds."""
    pace = Pace((1.0, 10.0))
    assert pace.rest_s(cost_s) == pytest.approx(rest_s)


def test_a_single_dear_look_is_no_pace():
    """One that was held up stretches the next rest a little, not to its whole length."""
    pace = Pace((1.0, 10.0))
    for _ in range(20):
        pace.rest_s(0.003)
    assert pace.rest_s(0.02) < 2.5


def test_curves_belong_to_runs():
    """Another run of a task begins anew; a single sample makes no curve."""
    curves = Curves()
    task_id = TaskId("t")
    for at, run in [(1.0, 1), (2.0, 1), (3.0, 2)]:
        curves.add(TasksSampled(at, [(task_id, run, Use(1.0, 2, 3.0))]))
    assert curves.get(task_id, 2).at == [3.0]
    assert curves.end(task_id, 2) is None
    curves.add(TasksSampled(4.0, [(task_id, 2, Use(1.0, 2, 3.0))]))
    curves.add(TasksSampled(5.0, [(task_id, 2, Use(1.0, 2, 3.0))]))
    assert decode_curve(curves.end(task_id, 2)).at == [4.0, 5.0]
    assert curves.end(task_id, 2) is None


def test_a_run_that_was_not_looked_at_has_no_curve():
    """The curve of the run before it is not its own: neither live nor stored."""
    curves = Curves()
    for at in (1.0, 2.0, 3.0):
        curves.add(TasksSampled(at, [(TaskId("t"), 1, Use(1.0, 2, 3.0))]))
    assert curves.get(TaskId("t"), 2) is None
    assert curves.end(TaskId("t"), 2) is None
    assert curves.end(TaskId("t"), 1) is None
