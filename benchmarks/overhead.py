"""What being watched costs: a command that computes, an idle workshop, and the sampling of 200 tasks that sleep.

Prints one JSON object; every figure has the bound that it is held to beside it.

- `command`: the same command below a workshop and bare, in turns; the ratio of the seconds that it takes from its own
  first to its own last step, by the clock (`ratio`) and of processor time (`cpu_ratio`), medians of all pairs. While it
  runs bare, every process of the workshop is stopped (SIGSTOP).
- `idle`: processor time of all processes of `koubou up`, dashboard too, while no page is open and nothing runs, as
  percent of one core.
- `sampling`: 200 tasks that sleep, on 200 workers (some 6 GB of memory): processor time of the workshop's own process
  with its sampling less the same without, in turns, as percent of one core. The pulses of 200 workers are told apart.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import psutil

import koubou_panel as kp
from koubou_panel.core.commands import Caller
from koubou_panel.shop.sampling import Sampling
from koubou_panel.testing import open_shop, submission, until

WORK = """
import json, time
def work(steps):
    total = 0
    for step in range(steps):
        total += step * step % 7
    return total
work(1000)
wall, cpu = time.perf_counter(), time.process_time()
work(STEPS)
print(json.dumps([time.perf_counter() - wall, time.process_time() - cpu]))
"""
STEPS_A_SECOND = 12_000_000
SETTLE_S = 15.0


# -- a command that computes ----------------------------------------------------------------------------------


def of_command(pairs, seconds):
    """How much longer a command takes when it is watched."""
    command = [sys.executable, "-c", WORK.replace("STEPS", str(int(STEPS_A_SECOND * seconds)))]
    watched, bare = [], []
    with workshop() as (home, processes), kp.Workshop(home) as shop:
        told(shop.run(*command))
        for pair in range(pairs):
            for turn in (0, 1):
                if (pair + turn) % 2:
                    watched.append(told(shop.run(*command)))
                else:
                    bare.append(stopped(processes, command))
    ratios = [
        [ours / theirs for ours, theirs in zip(*both, strict=True)]
        for both in zip(watched, bare, strict=True)
    ]
    wall, cpu = (statistics.median(column) for column in zip(*ratios, strict=True))
    return {
        "pairs": pairs,
        "seconds": round(statistics.median(wall for wall, _ in bare), 2),
        "ratio": round(wall, 4),
        "cpu_ratio": round(cpu, 4),
        "at_most": 1.02,
    }


def told(future):
    """The two durations that a watched command printed."""
    future.result()
    return json.loads(future.task.result)


def stopped(processes, command):
    """The two durations of a bare command, while nothing of the workshop runs."""
    held = processes()
    for process in held:
        process.send_signal(signal.SIGSTOP)
    try:
        return json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    finally:
        for process in reversed(held):
            process.send_signal(signal.SIGCONT)


# -- an idle workshop -----------------------------------------------------------------------------------------


def of_idle(seconds):
    """What a workshop costs that nobody uses."""
    with workshop() as (_, processes):
        time.sleep(SETTLE_S)
        held = processes()
        before = [cpu_s(process.pid) for process in held]
        time.sleep(seconds)
        spent = [cpu_s(process.pid) - then for process, then in zip(held, before, strict=True)]
    return {
        "seconds": seconds,
        "processes": len(held),
        "percent": percent(sum(spent), seconds),
        "at_most": 1.0,
    }


# -- 200 tasks that sleep -------------------------------------------------------------------------------------


async def of_sampling(tasks, seconds, rounds):
    """What looking at many tasks costs, and what their workers do by themselves."""
    with_it, without, pulses = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        async with open_shop(Path(folder) / "home", workers=tasks, wait_ready=False) as shop:
            await until(lambda: sum(w.status == "idle" for w in shop.state.workers.values()) == tasks, 300)
            commands = [submission(shop, "sleep", "3600") for _ in range(tasks)]
            await shop.do_many(commands, Caller("benchmark"))
            await until(lambda: shop.state.counts["in_progress"] == tasks, 60)
            own = shop._background[0]  # noqa: SLF001 - no door of the shop stops its sampling
            own.cancel()
            workers = [worker.pid for worker in shop.state.workers.values()]
            for _ in range(rounds):
                for spent, is_sampled in ((with_it, True), (without, False)):
                    sampling = asyncio.ensure_future(sampled(shop)) if is_sampled else None
                    await asyncio.sleep(SETTLE_S if is_sampled else 2.0)
                    before = time.process_time(), sum(map(cpu_s, workers))
                    await asyncio.sleep(seconds)
                    spent.append(time.process_time() - before[0])
                    pulses.append(sum(map(cpu_s, workers)) - before[1])
                    if sampling is not None:
                        sampling.cancel()
    extra = statistics.median(a - b for a, b in zip(with_it, without, strict=True))
    return {
        "tasks": tasks,
        "percent": percent(extra, seconds),
        "at_most": 1.0,
        "workshop_without_percent": percent(statistics.median(without), seconds),
        "workers_percent": percent(statistics.median(pulses), seconds),
    }


async def sampled(shop):
    """The shop's own sampling."""
    await Sampling(hub=shop.hub, engine=shop.engine, folder=shop.home.root, clock=shop.clock).run()


# -- shared ---------------------------------------------------------------------------------------------------


@contextmanager
def workshop():
    """`koubou up` in a home of its own: the home, and a function that lists its processes."""
    with tempfile.TemporaryDirectory() as home:
        argv = [str(Path(sys.executable).with_name("koubou")), "up", "--no-browser"]
        argv += ["--dashboard-port", "0", "--socket-port", "0", "--agents-port", "0", "--home", home]
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        root = psutil.Process(process.pid)
        try:
            assert process.stdout.readline(), "koubou up did not start"
            yield home, lambda: [root, *root.children(recursive=True)]
        finally:
            process.terminate()
            process.wait()


def cpu_s(pid):
    """Seconds of processor time of a process's threads, to the nanosecond."""
    total = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        total += int((thread / "schedstat").read_text().split()[0])
    return total / 1e9


def percent(spent_s, seconds):
    """Of one core."""
    return round(100 * spent_s / seconds, 3)


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-p", "--pairs", type=int, default=15)
    parser.add_argument("-s", "--seconds", type=float, default=2.0, help="that the command computes")
    parser.add_argument("-i", "--idle", type=float, default=30.0, help="seconds of the idle workshop")
    parser.add_argument("-n", "--tasks", type=int, default=200)
    parser.add_argument("-r", "--rounds", type=int, default=3)
    parser.add_argument("--only", choices=["command", "idle", "sampling"])
    options = parser.parse_args()
    parts = {
        "command": lambda: of_command(options.pairs, options.seconds),
        "idle": lambda: of_idle(options.idle),
        "sampling": lambda: asyncio.run(of_sampling(options.tasks, options.idle, options.rounds)),
    }
    figures = {"benchmark": "overhead", "load_1m": round(os.getloadavg()[0], 2)}
    for name, measure in parts.items():
        if options.only in (None, name):
            figures[name] = measure()
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
