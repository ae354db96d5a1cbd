"""What the workshop measures while it runs, off the loop: the host, the workers, and what each run uses.

Measuring must not cost what it measures: looks at the runs come as often as keeps their whole cost, the hub's work
included, below 0.4 % of a core.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar, cast

from koubou_panel import registry
from koubou_panel.core.agenda import Lane
from koubou_panel.core.commands import RunsSampled
from koubou_panel.core.events import MetricsSampled, WorkerSampled
from koubou_panel.core.limit import exceeded
from koubou_panel.core.ports import Sampler
from koubou_panel.core.records import Limits, Metrics, Task, WorkerId
from koubou_panel.engines.local import LocalEngine
from koubou_panel.samplers.gpu import GpuSampler
from koubou_panel.samplers.host import present
from koubou_panel.samplers.process import Looks, Tree, TreeSampler, Watch
from koubou_panel.samplers.system import SystemSampler
from koubou_panel.shop.clock import Clock
from koubou_panel.shop.hub import Hub

T = TypeVar("T")

SHARE = 0.004
RUNS_EVERY_S = (1.0, 10.0)
LIMITS_EVERY_S = (0.25, 2.0)
YOUNGEST_S = 1.0
AFTER_FAILURE_S = 5.0
SAME_PERCENT = 0.5
SAME_BYTES = 1 << 20

log = logging.getLogger(__name__)


class Pace:
    """How long to rest after work of some seconds of CPU, so that it stays below `SHARE` of a core."""

    def __init__(self, between_s: tuple[float, float]) -> None:
        """At least and at most so many seconds between two beginnings."""
        self._least_s, self._most_s = between_s
        self._cost_s = 0.0

    def rest_s(self, cost_s: float) -> float:
        """Seconds until the next one; what a single one cost is smoothed, most of it may be another's work."""
        self._cost_s += 0.3 * (cost_s - self._cost_s) if self._cost_s else cost_s
        return min(self._most_s, max(self._least_s, self._cost_s / SHARE))


class Sampling:
    """The workshop's measuring. Loop thread only; the looks themselves are on a thread of their own.

    Args:
        hub, engine: whose runs and workers are looked at, and who is told.
        folder: the folder whose file system is told of.
        clock: UTC seconds.

    """

    def __init__(self, *, hub: Hub, engine: LocalEngine, folder: Path, clock: Clock) -> None:
        """Measure nothing before `run`."""
        self._hub = hub
        self._engine = engine
        self._clock = clock
        self._gpu = GpuSampler()
        self._trees = TreeSampler()
        self._host = _Host([SystemSampler(folder), self._gpu, *_installed()])
        self._runs_pace = Pace(RUNS_EVERY_S)
        self._limits_pace = Pace(LIMITS_EVERY_S)
        self._told: dict[WorkerId, tuple[float, int]] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sampler")

    async def run(self) -> None:
        """Until cancelled."""
        try:
            await asyncio.gather(*map(_keep, (self._see_host, self._see_runs, self._see_limits)))
        finally:
            self._thread.shutdown(wait=False)

    async def _see_host(self) -> float:
        """Look at the host; seconds until the next time."""
        began = time.monotonic()
        values, _ = await self._off_loop(self._host.sample)
        now = self._clock()
        self._hub.note(MetricsSampled(now, Metrics(now, values)))
        return max(0.1, SystemSampler.every_s - (time.monotonic() - began))

    async def _see_runs(self) -> float:
        """Look at every worker and run; seconds until the next time, as its cost allows."""
        began = time.thread_time()
        trees = self._look_at()
        asking_s = time.thread_time() - began
        looks, looking_s = await self._off_loop(lambda: self._look(trees))
        began = time.thread_time()
        self._tell(looks)
        await asyncio.sleep(0)  # the hub's step has its turn before this goes on
        return self._runs_pace.rest_s(asking_s + looking_s + time.thread_time() - began)

    async def _see_limits(self) -> float:
        """Look at the runs that have limits, more often; told at once when one is passed."""
        trees = [tree for tree in self._look_at() if tree.watch and _is_watched(tree.watch.limits)]
        if not trees:
            return RUNS_EVERY_S[0]
        uses, looking_s = await self._off_loop(lambda: self._trees.look_again(trees))
        limits = {tree.watch.task_id: tree.watch.limits for tree in trees if tree.watch}
        over = [seen for seen in uses if exceeded(limits[seen[0]], seen[2])]
        if over:
            self._hub.report(RunsSampled(over))
        return self._limits_pace.rest_s(looking_s)

    async def _off_loop(self, look: Callable[[], T]) -> tuple[T, float]:
        return await asyncio.get_running_loop().run_in_executor(self._thread, _timed, look)

    def _look(self, trees: Sequence[Tree]) -> Looks:
        """On the sampling thread."""
        return self._trees.sample(trees, self._gpu.processes() if any(tree.watch for tree in trees) else None)

    def _look_at(self) -> list[Tree]:
        """Every worker that there is, with the run on it where that is certain."""
        workers, lanes, now = self._hub.state.workers, self._hub.agenda.lanes, self._clock()
        return [
            Tree(
                worker_id,
                guard,
                workers[worker_id].pid,
                self._watch(worker_id, now),
                _next_claim(lanes.get(worker_id)),
            )
            for worker_id, guard in self._engine.pids().items()
            if worker_id in workers
        ]

    def _watch(self, worker_id: WorkerId, now: float) -> Watch | None:
        """The run on a worker; None for one that is younger than a second, or has just followed another.

        What a worker holds, it does in order, and it tells of what has ended within 50 ms.
        """
        lane = self._hub.agenda.lanes.get(worker_id)
        task = self._hub.state.tasks.get(next(iter(lane.claims), "")) if lane is not None else None  # type: ignore[call-overload]
        if lane is None or task is None or task.status != "in_progress":
            return None
        since = task.started_at or now
        if len(lane.claims) > 1:
            since = max(since, lane.heard_at)
        age_s = now - since
        return None if age_s < YOUNGEST_S else _watch_of(task, age_s)

    def _tell(self, looks: Looks) -> None:
        if looks.uses:
            self._hub.report(RunsSampled(looks.uses))
        now = self._clock()
        for worker_id, use in looks.workers.items():
            if _is_news(self._told.get(worker_id), use):
                self._told[worker_id] = use
                self._hub.note(WorkerSampled(now, worker_id, *use))
        self._told = {name: use for name, use in self._told.items() if name in looks.workers}


async def _keep(see: Callable[[], Awaitable[float]]) -> None:
    """Look again and again. One that fails is told of and tried again: limits are kept by these looks."""
    while True:
        try:
            rest_s = await see()
        except Exception:
            log.exception("the workshop could not measure")
            rest_s = AFTER_FAILURE_S
        await asyncio.sleep(rest_s)


def _timed(look: Callable[[], T]) -> tuple[T, float]:
    """What is found, and the seconds of CPU that it takes."""
    began = time.thread_time()
    return look(), time.thread_time() - began


def _next_claim(lane: Lane | None) -> int | None:
    return None if lane is None or lane.claims else lane.given


def _watch_of(task: Task, age_s: float) -> Watch:
    request = task.request
    return Watch(
        task.task_id,
        task.run,
        registry.shares_worker(request.kind),
        age_s,
        request.limits,
        task.claim,
        present() - age_s,
    )


def _is_watched(limits: Limits) -> bool:
    """Whether any of them is found passed by looking."""
    return not (limits.memory_bytes is limits.cpu_s is limits.processes is None)


def _is_news(before: tuple[float, int] | None, now: tuple[float, int]) -> bool:
    """Whether a worker's use changed enough to be told: 200 workers that rest are not 200 events."""
    if before is None:
        return True
    return abs(now[0] - before[0]) >= SAME_PERCENT or abs(now[1] - before[1]) >= SAME_BYTES


def _installed() -> Iterable[Sampler]:
    """Samplers of third parties."""
    for name in registry.names("samplers"):
        sampler = cast("Sampler | None", registry.find("samplers", name))
        if sampler is not None:
            yield sampler


class _Host:
    """All samplers of the host, each as often as it says. On the sampling thread."""

    def __init__(self, samplers: Sequence[Sampler]) -> None:
        self._samplers = samplers
        self._due = dict.fromkeys((sampler.name for sampler in samplers), 0.0)
        self._values: dict[str, dict[str, object]] = {}

    def sample(self) -> dict[str, object]:
        """The last values of all."""
        now = time.monotonic()
        for sampler in self._samplers:
            if now < self._due[sampler.name]:
                continue
            self._due[sampler.name] = now + sampler.every_s - 0.1
            try:
                self._values[sampler.name] = sampler.sample()
            except Exception:
                log.exception("the sampler %s failed", sampler.name)
                self._values.pop(sampler.name, None)
        return {name: value for values in self._values.values() for name, value in values.items()}
