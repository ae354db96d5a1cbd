"""A mirror: one audience's own Param models of a shop, set once a frame.

Facts and samples only mark what is dirty; `flush` sets each dirty model once. A mirror looks at what runs and at
what ended lately, never at the whole queue: a hundred thousand pending tasks cost it nothing. Nothing is shared
between mirrors (a process-wide model keeps its watchers' sessions alive), and `close` leaves nothing behind.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from math import isnan

from koubou_panel.core.events import (
    MetricsSampled,
    OutputGrew,
    Sample,
    TaskCancelled,
    TaskCompleted,
    TaskFailed,
    TaskProgressed,
    TaskRetried,
    TaskReturned,
    TasksSampled,
    TaskStarted,
    WorkerSampled,
)
from koubou_panel.core.ports import Shop
from koubou_panel.core.records import Channel, Metrics, Task, TaskId, Use, Worker
from koubou_panel.core.state import KEEP_FINISHED, Folded, State
from koubou_panel.reactive.models import (
    MetricsModel,
    Model,
    ServiceModel,
    ShopModel,
    TaskModel,
    WorkerModel,
    first_in_line,
    metrics_values,
    run_seconds,
    service_values,
    shop_values,
    task_values,
    worker_values,
)
from koubou_panel.reactive.series import KEEP_S, Second, Throughput

SHOW_RUNNING = 24
SHOW_FINISHED = 30
KEEP_ENDED = 1_000
KEEP_USES = 900

_ENDS = (TaskCompleted, TaskFailed, TaskCancelled)
_LEAVES = (TaskRetried, TaskReturned)
_USUAL = TaskModel.param.values()


@dataclass(slots=True)
class Changes:
    """What one flush set, and what came into the series.

    `tasks`, `workers`, `services` and `shop` name the models and parameters that changed; `seconds` and `metrics` are
    new steps of the series, oldest first; `ended` are the tasks that ended since (at most the last thousand); `uses` is
    what the pinned task used, (at, run, use).
    `reset` says that everything was replaced: series begin anew.
    """

    reset: bool = False
    tasks: set[str] = field(default_factory=set)
    workers: set[str] = field(default_factory=set)
    services: set[str] = field(default_factory=set)
    shop: set[str] = field(default_factory=set)
    seconds: list[Second] = field(default_factory=list)
    metrics: list[Metrics] = field(default_factory=list)
    ended: list[Task] = field(default_factory=list)
    uses: list[tuple[float, int, Use]] = field(default_factory=list)


class Mirror:
    """One audience's models of a shop. Loop thread only.

    Args:
        shop: what is mirrored.
        on_dirty: called once when something waits for the next `flush`.
        now: gives UTC seconds.
        running: how many running tasks have a model at most.
        finished: how many ended ones have.
        newest: how many of those that were submitted last have.

    """

    def __init__(
        self,
        shop: Shop,
        *,
        on_dirty: Callable[[], None] | None = None,
        now: Callable[[], float] = time.time,
        running: int = SHOW_RUNNING,
        finished: int = SHOW_FINISHED,
        newest: int = 0,
    ) -> None:
        """Follow `shop` from now on; the models are filled at once."""
        self._host = MetricsModel()
        self.model = ShopModel(metrics=self._host)
        self.metrics: deque[Metrics] = deque(maxlen=KEEP_S)
        self.throughput = Throughput(now())
        self._shop = shop
        self._on_dirty: Callable[[], None] | None = None
        self._now = now
        self._running_limit = running
        self._finished_limit = finished
        self._newest_limit = newest
        self._is_dirty = False
        self._is_reset = False
        self._seen: dict[Channel, int] = {}
        self._active: dict[TaskId, None] = {}
        self._dirty_tasks: set[str] = set()
        self._dirty_workers: set[str] = set()
        self.recent: deque[Task] = deque(maxlen=KEEP_ENDED)
        self._ended: deque[Task] = deque(maxlen=KEEP_ENDED)
        self._new_metrics: deque[Metrics] = deque(maxlen=KEEP_S)
        self._tasks: dict[str, TaskModel] = {}
        self._workers: dict[str, WorkerModel] = {}
        self._services: dict[str, ServiceModel] = {}
        self._values: dict[str, dict[str, object]] = {}
        self._told_at: dict[str, float] = {}
        self._pinned: Task | None = None
        self._uses: deque[tuple[float, int, Use]] = deque(maxlen=KEEP_USES)
        self._unsubscribe: Callable[[], None] | None = shop.subscribe(self)
        self.flush()
        self._on_dirty = on_dirty

    @property
    def is_dirty(self) -> bool:
        """Whether a `flush` would find something new beside the passing of time."""
        return self._is_dirty

    @property
    def task_models(self) -> dict[str, TaskModel]:
        """The models of the tasks that are shown, by id."""
        return self._tasks

    def close(self) -> None:
        """Stop following. The models stay as they are."""
        unsubscribe, self._unsubscribe = self._unsubscribe, None
        self._on_dirty = None
        if unsubscribe is not None:
            unsubscribe()

    def pin(self, task: Task | None) -> TaskModel | None:
        """Keep a model of this task, wherever it is in its life, until another is pinned; give it as it stands."""
        self._pinned = task
        self._uses.clear()
        if task is None:
            return None
        self._set_task(self._shop.state.tasks.get(task.request.task_id, task), self._shop.state, Changes())
        return self._tasks[task.request.task_id]

    # -- what the shop tells ----------------------------------------------------------------------------------

    def on_reset(self, state: State) -> None:
        """Begin anew from `state`."""
        self._seen = dict(state.seq)
        active = [task for task in state.tasks.values() if task.status == "in_progress"]
        active.sort(key=lambda task: task.started_at or 0.0)
        self._active = dict.fromkeys(task.task_id for task in active)
        known = [state.tasks[task_id] for task_id in state.finished if task_id in state.tasks]
        self.recent.clear()
        self.recent.extend(known)
        self._ended.clear()
        is_cut = len(state.finished) >= KEEP_FINISHED and bool(known)
        since = (known[0].finished_at or 0.0) if is_cut else 0.0
        self.throughput = Throughput(self._now(), known_since=since)
        for task in known:
            self._count(task)
        self._new_metrics.clear()
        self.metrics.clear()
        self.metrics.extend(state.metrics)
        self._dirty_tasks.update(self._tasks)
        self._dirty_workers.update(self._workers)
        self._uses.clear()
        self._is_reset = True
        self._soil()

    def on_facts(self, folded: Sequence[Folded]) -> None:
        """Take in facts: what runs, what ended, what must be looked at again."""
        active, dirty = self._active, self._dirty_tasks
        for fact, seq, record in folded:
            channel = fact.channel
            if seq <= self._seen[channel]:  # was in the state that this mirror began from
                continue
            if isinstance(record, Task):
                task_id = record.request.task_id
                if isinstance(fact, TaskStarted):
                    active[task_id] = None
                elif isinstance(fact, _LEAVES):
                    active.pop(task_id, None)
                elif isinstance(fact, _ENDS):
                    self._end(record)
                dirty.add(task_id)
            elif isinstance(record, Worker):
                self._dirty_workers.add(record.worker_id)
        self._soil()

    def on_samples(self, samples: Sequence[Sample]) -> None:
        """Take in samples."""
        for sample in samples:
            if isinstance(sample, MetricsSampled):
                self._new_metrics.append(sample.metrics)
            elif isinstance(sample, WorkerSampled):
                self._dirty_workers.add(sample.worker_id)
            elif isinstance(sample, TasksSampled):
                self._take_uses(sample)
            elif isinstance(sample, (TaskProgressed, OutputGrew)):
                self._dirty_tasks.add(sample.task_id)
                if isinstance(sample, TaskProgressed):
                    self._told_at[sample.task_id] = sample.at
        self._soil()

    def _take_uses(self, sample: TasksSampled) -> None:
        pinned = self._pinned.request.task_id if self._pinned else None
        for task_id, run, use in sample.uses:
            self._dirty_tasks.add(task_id)
            if task_id == pinned:
                self._uses.append((sample.at, run, use))

    def backfill(self, metrics: Iterable[Metrics]) -> None:
        """Put older samples of the host (from the archive) before those that are known."""
        known = [*self.metrics, *self._new_metrics]
        first = known[0].at if known else float("inf")
        older = [sample for sample in metrics if sample.at < first]
        if older:
            self.metrics.clear()
            self.metrics.extend([*older, *known])
            self._new_metrics.clear()
            self._is_reset = True
            self._soil()

    def tasks_of_late(self) -> list[Task]:
        """The tasks that ended lately, that run, and that wait; nothing where a thousand would not be all."""
        state = self._shop.state
        if state.counts["pending"] + len(self._active) > KEEP_ENDED or len(self.recent) == KEEP_ENDED:
            return []
        return [*self.recent, *(task for task in state.tasks.values() if not task.is_finished)]

    def _end(self, task: Task) -> None:
        self._active.pop(task.request.task_id, None)
        self.recent.append(task)
        self._ended.append(task)
        self._count(task)

    def _count(self, task: Task) -> None:
        if task.finished_at is not None and task.status in ("completed", "failed"):
            self.throughput.add(
                task.finished_at, failed=task.status == "failed", duration_s=run_seconds(task)
            )

    def _soil(self) -> None:
        if not self._is_dirty:
            self._is_dirty = True
            if self._on_dirty is not None:
                self._on_dirty()

    # -- what the audience sees -------------------------------------------------------------------------------

    def flush(self) -> Changes:
        """Set every dirty model once, and give what changed."""
        now = self._now()
        changes = Changes(reset=self._is_reset)
        self._is_dirty = self._is_reset = False
        state = self._shop.state
        self._flush_series(now, changes)
        waiting = first_in_line(state)
        values = shop_values(state, self.throughput, waiting=waiting, link=self._shop.link, now=now)
        values["workers"] = self._flush_workers(state, changes)
        values["services"] = self._flush_services(state, changes)
        values |= self._flush_tasks(state, waiting, changes)
        changes.shop = self._set(self.model, "shop", values)
        changes.ended, changes.uses = list(self._ended), list(self._uses)
        self._ended.clear()
        self._uses.clear()
        return changes

    def skip(self) -> None:
        """Set the models though nobody looks, so that what waits does not grow; the next flush replaces all."""
        changes = self.flush()
        self._ended.extend(changes.ended)
        self._uses.extend(changes.uses)
        self._is_reset = True
        self._soil()

    def _flush_series(self, now: float, changes: Changes) -> None:
        changes.seconds = self.throughput.advance(now)
        changes.metrics = list(self._new_metrics)
        self._new_metrics.clear()
        self.metrics.extend(changes.metrics)
        if self.metrics:
            self._set(self._host, "metrics", metrics_values(self.metrics[-1]))

    def _flush_workers(self, state: State, changes: Changes) -> list[WorkerModel]:
        for worker_id, worker in state.workers.items():
            model = self._workers.get(worker_id)
            if model is None:
                model = self._workers[worker_id] = WorkerModel()
            elif worker_id not in self._dirty_workers:
                continue
            if self._set(model, f"worker {worker_id}", worker_values(worker, state.tasks)):
                changes.workers.add(worker_id)
        for gone in self._workers.keys() - state.workers.keys():
            del self._workers[gone]
            self._values.pop(f"worker {gone}", None)
            changes.workers.add(gone)
        self._dirty_workers.clear()
        return [self._workers[worker_id] for worker_id in sorted(self._workers, key=_natural)]

    def _flush_services(self, state: State, changes: Changes) -> list[ServiceModel]:
        for name, service in state.services.items():
            model = self._services.setdefault(name, ServiceModel())
            if self._set(model, f"service {name}", service_values(service)):
                changes.services.add(name)
        for gone in self._services.keys() - state.services.keys():
            del self._services[gone]
            self._values.pop(f"service {gone}", None)
            changes.services.add(gone)
        return list(self._services.values())

    def _flush_tasks(self, state: State, waiting: list[Task], changes: Changes) -> dict[str, object]:
        """Set the models of the tasks that are shown; give the lists of them by the shop's parameters."""
        lists = {
            "running": [state.tasks[task_id] for task_id in self._shown(state) if task_id in state.tasks],
            "finished": list(islice(reversed(self.recent), self._finished_limit)),
            "waiting": waiting,
            "tasks": list(islice(reversed(state.tasks.values()), self._newest_limit)),
        }
        pinned = self._pinned
        pins = [] if pinned is None else [state.tasks.get(pinned.request.task_id, pinned)]
        shown = {
            task.request.task_id: task
            for task in (*lists["tasks"], *lists["finished"], *lists["waiting"], *lists["running"], *pins)
        }
        self._dirty_tasks.update(task.request.task_id for task in lists["waiting"] if task.waits_for)
        for task in shown.values():
            self._set_task(task, state, changes)
        for gone in self._tasks.keys() - shown.keys():
            del self._tasks[gone]
            self._values.pop(f"task {gone}", None)
        for gone in self._told_at.keys() - shown.keys():
            del self._told_at[gone]
        self._dirty_tasks.clear()
        return {name: [self._tasks[task.request.task_id] for task in tasks] for name, tasks in lists.items()}

    def _set_task(self, task: Task, state: State, changes: Changes) -> None:
        task_id = task.request.task_id
        model = self._tasks.get(task_id)
        if model is not None and task_id not in self._dirty_tasks:
            return
        told_at = self._told_at.setdefault(task_id, self._now()) if task.progress else 0.0
        values = task_values(task, state.tasks, told_at=told_at)
        if model is None:
            # With its values: Param makes a copy of each parameter that is set later, which takes ten times as long.
            self._tasks[task_id] = TaskModel(**_unusual(values))
            self._values[f"task {task_id}"] = values
            changes.tasks.add(task_id)
        elif self._set(model, f"task {task_id}", values):
            changes.tasks.add(task_id)

    def _shown(self, state: State) -> list[TaskId]:
        """The running tasks to show: those that workers are at, then the claimed ones, the oldest first."""
        if len(self._active) <= self._running_limit:
            return list(self._active)
        at_work = (worker.current_task for worker in state.workers.values())
        chosen = {task_id: None for task_id in at_work if task_id is not None and task_id in self._active}
        chosen |= dict.fromkeys(islice(self._active, self._running_limit))
        return list(chosen)[: self._running_limit]

    def _set(self, model: Model, key: str, values: dict[str, object]) -> set[str]:
        """Set what differs from the last time, in one update; give the names of it."""
        before = self._values.get(key)
        changed = (
            values if before is None else {k: v for k, v in values.items() if _differs(before.get(k), v)}
        )
        if changed:
            self._values[key] = values if before is None else before | values
            model.tell(changed)
        return set(changed)


def _unusual(values: dict[str, object]) -> dict[str, object]:
    """What differs from what a new model has anyway: each parameter that is set costs Param 30 µs."""
    return {name: value for name, value in values.items() if _differs(_USUAL[name], value)}


def _differs(before: object, after: object) -> bool:
    if isinstance(before, float) and isinstance(after, float) and isnan(before) and isnan(after):
        return False
    return before is not after and before != after


def _natural(worker_id: str) -> tuple[str, int, str]:
    """Sorts worker-2 before worker-10."""
    head = worker_id.rstrip("0123456789")
    tail = worker_id[len(head) :]
    return head, int(tail or 0), worker_id
