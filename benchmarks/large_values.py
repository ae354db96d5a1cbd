"""What it takes to bring a large array to a task and back, beside executors that keep nothing.

One worker each, in turns: a workshop that another process holds, `ProcessPoolExecutor`, and joblib's loky. Prints one
JSON object; every figure is of a run over all pages of the array, for who takes it. All workers give way to other work
alike, as a workshop's do.

- `argument`, `result`: medians in seconds, by executor, and how many times the standard executor's time ours is;
  `cpu_ratio` is the same of processor time, of all processes together.
- `again`: as `argument`, for an array that was an argument before; `reference`: for the future of a large result.
- `workshop`: by how many MB the most memory of the workshop's own process grew; the most processor time that its loop
  used at a stretch, between two wake-ups of an `asyncio.sleep(1 ms)`; and how late such a one was at most. That is told
  by what else runs on a busy machine, so `idle_…` has the same while nothing crossed.
- `worker`: what the worker held before, at its most, and after, MB.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import psutil

import koubou_panel as kp

NICENESS = 5
PAGE = 4096


def touched(array):
    """A sum over every page."""
    return int(array.reshape(-1)[::PAGE].sum())


def made(size, seed):
    """An array of so many bytes, like no other."""
    import numpy as np

    array = np.zeros(size, dtype=np.uint8)
    array[::64] = seed
    return array


def pid():
    """The worker's process."""
    return os.getpid()


# -- the workshop's process -----------------------------------------------------------------------------------


def hold(home):
    """Hold a workshop until the end of input; for each line of it tell the memory and the longest pause since."""
    with kp.Workshop(home, workers=1) as shop:
        pauses = {"pause_ms": 0.0, "burst_ms": 0.0}
        shop.submit(pid).result()
        threading.Thread(target=lambda: shop.call(measure(pauses)), daemon=True).start()
        for _ in sys.stdin:
            told = {**pauses, **memory("self")}
            pauses.update(pause_ms=0.0, burst_ms=0.0)
            forget_most("self")
            print(json.dumps(told), flush=True)
        pauses.clear()


async def measure(pauses):
    """Keep the longest pause, and the longest work."""
    while pauses:
        begun, used = time.perf_counter(), time.thread_time()
        await asyncio.sleep(0.001)
        for name, took_s in (
            ("pause_ms", time.perf_counter() - begun - 0.001),
            ("burst_ms", time.thread_time() - used),
        ):
            if pauses:
                pauses[name] = max(pauses[name], took_s * 1000)


def memory(of):
    """What a process holds now and held at most, MB."""
    lines = Path(f"/proc/{of}/status").read_text(encoding="ascii").splitlines()
    found = dict(line.split(":", 1) for line in lines)
    return {"now_mb": int(found["VmRSS"].split()[0]) / 1024, "most_mb": int(found["VmHWM"].split()[0]) / 1024}


def forget_most(of):
    """Begin the most that a process held anew."""
    Path(f"/proc/{of}/clear_refs").write_text("5", encoding="ascii")


class Holder:
    """A workshop in a process of its own."""

    def __init__(self, home):
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--hold", str(home)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.ask()

    def ask(self):
        """What it held and how long it stood still since it was last asked."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self):
        """End it."""
        self.process.stdin.close()
        self.process.wait(60)


# -- crossing -------------------------------------------------------------------------------------------------


def timed(work):
    """How long that takes."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def give_way():
    """As a workshop's workers do: Linux shares the cores out by session first."""
    os.setsid()
    os.nice(NICENESS)
    autogroup = Path("/proc/self/autogroup")
    if autogroup.exists():
        autogroup.write_text(str(NICENESS), encoding="ascii")


def used_s():
    """Processor time of this process and all below it."""
    me = psutil.Process()
    return sum(sum(process.cpu_times()[:2]) for process in (me, *me.children(recursive=True)))


def crossings(executors, size, rounds):
    """Seconds by what crosses and by executor."""
    keys = [(what, name) for what in ("argument", "result") for name in executors]
    times, used = {key: [] for key in keys}, dict.fromkeys(keys, 0.0)

    def note(what, name, work):
        before = used_s()
        times[what, name].append(timed(work))
        used[what, name] += used_s() - before

    for number in range(rounds):
        for name, executor in executors.items():
            array = made(size, 2 * number + 1)
            note("argument", name, lambda: executor.submit(touched, array).result())  # noqa: B023 - called at once
            note("result", name, lambda: touched(executor.submit(made, size, 2 * number + 2).result()))  # noqa: B023
    return {key: statistics.median(found) for key, found in times.items()}, used


def run(size, rounds, folder):
    """All figures."""
    from joblib.externals.loky import get_reusable_executor

    holder = Holder(folder / "home")
    report = {"size_mb": size >> 20}
    with kp.Workshop(folder / "home") as shop, ProcessPoolExecutor(1, initializer=give_way) as pool:
        executors = {"koubou": shop, "standard": pool, "loky": get_reusable_executor(1, initializer=give_way)}
        for executor in executors.values():
            executor.submit(touched, made(PAGE, 1)).result()
        worker = shop.submit(pid).result()
        forget_most(worker)
        before = memory(worker)["now_mb"]
        holder.ask()
        time.sleep(2)
        idle = holder.ask()
        medians, used = crossings(executors, size, rounds)
        for what in ("argument", "result"):
            report[what] = {name: round(medians[what, name], 3) for name in executors}
            report[what]["ratio"] = round(medians[what, "koubou"] / medians[what, "standard"], 2)
            report[what]["cpu_ratio"] = round(used[what, "koubou"] / used[what, "standard"], 2)
        array, future = made(size, 99), shop.submit(made, size, 98)
        shop.submit(touched, array).result()
        future.result()
        times = [timed(lambda: shop.submit(touched, array).result()) for _ in range(rounds)]
        report["again"] = round(statistics.median(times), 3)
        times = [timed(lambda: shop.submit(touched, future).result()) for _ in range(rounds)]
        report["reference"] = round(statistics.median(times), 3)
        told = holder.ask()
        report["workshop"] = {
            "grew_mb": round(told["most_mb"] - idle["now_mb"], 1),
            "burst_ms": round(told["burst_ms"], 1),
            "idle_burst_ms": round(idle["burst_ms"], 1),
            "pause_ms": round(told["pause_ms"], 1),
            "idle_pause_ms": round(idle["pause_ms"], 1),
        }
        shop.submit(pid).result()
        report["worker"] = {"before_mb": round(before)} | {k: round(v) for k, v in memory(worker).items()}
        executors["loky"].shutdown()
    holder.close()
    report["archive_mb"] = round(
        sum(f.stat().st_size for f in (folder / "home").glob("koubou.db*")) / (1 << 20), 1
    )
    return report


def main():
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--hold", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.hold is not None:
        hold(given.hold)
        return
    with tempfile.TemporaryDirectory(prefix="koubou-large-") as folder:
        print(json.dumps(run(given.megabytes << 20, given.rounds, Path(folder)), indent=1))


if __name__ == "__main__":
    main()
