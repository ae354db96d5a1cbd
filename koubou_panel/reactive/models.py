"""The workshop's records as Param models: watch them, show them, never write them.

A `Mirror` makes them and is the only one that sets them: once a frame, all changed parameters of a model in one
`param.update`. Times are UTC seconds, sizes bytes, durations seconds; None is "not known" or "not yet".
"""

from __future__ import annotations

from collections.abc import Mapping

import param

from koubou_panel.core.records import STATUSES, Metrics, Task, TaskId, Worker

WORKER_STATUSES = ["starting", "idle", "busy", "paused", "unresponsive", "stopping", "offline"]
LINK_STATUSES = ["live", "reconnecting", "stale", "closed"]


class _Model(param.Parameterized):
    def __init__(self, **values: object) -> None:
        super().__init__(**values)  # type: ignore[no-untyped-call]


class TaskModel(_Model):
    """One task that runs, or that ended not long ago."""

    task_id = param.String(doc="the task's id")
    kind = param.String(doc="`script`, `function`, …")
    label = param.String(doc="its name, its summary where it has none")
    summary = param.String(doc="what it is asked to do, in one line")
    status: param.Selector[str] = param.Selector(default="pending", objects=list(STATUSES))
    reason = param.String(default=None, allow_None=True, doc="why it failed or was cancelled, as one word")
    message = param.String(doc="the reason in words")
    run = param.Integer(doc="number of the present or last attempt; 0 before the first")
    worker_id = param.String(default=None, allow_None=True, doc="who runs or ran it")
    created_at = param.Number(default=0.0)
    started_at = param.Number(default=None, allow_None=True)
    finished_at = param.Number(default=None, allow_None=True)
    stopping = param.Boolean(doc="its end was asked for and is awaited")
    fraction = param.Number(default=None, allow_None=True, doc="how far the run is, 0 to 1")
    done = param.Number(default=None, allow_None=True)
    total = param.Number(default=None, allow_None=True)
    unit = param.String(doc="the unit of `done` and `total`")
    eta_s = param.Number(default=None, allow_None=True, doc="seconds left, as the run itself sees it")
    note = param.String(doc="what the run last said about its progress")
    output_bytes = param.Integer(doc="bytes in its output log")
    exit_code = param.Integer(default=None, allow_None=True)
    duration_s = param.Number(default=None, allow_None=True, doc="seconds that the finished run took")

    @property
    def is_finished(self) -> bool:
        """Whether the task has ended for good."""
        return self.status not in ("pending", "in_progress")


class WorkerModel(_Model):
    """One worker: a slot that runs one task at a time, in a process of its own."""

    worker_id = param.String()
    status: param.Selector[str] = param.Selector(default="starting", objects=WORKER_STATUSES)
    pid = param.Integer(default=None, allow_None=True)
    node = param.String(doc="the machine it is on")
    started_at = param.Number(default=0.0)
    current_task = param.String(default=None, allow_None=True, doc="the id of the task it runs")
    current_label = param.String(doc="that task's label")
    completed = param.Integer()
    failed = param.Integer()
    cpu_percent = param.Number(default=None, allow_None=True, doc="its process tree's, of one core")
    rss_bytes = param.Integer(default=None, allow_None=True, doc="its process tree's resident memory")


class MetricsModel(_Model):
    """The last sample of the host."""

    at = param.Number(default=None, allow_None=True)
    cpu_percent = param.Number(default=None, allow_None=True)
    memory_percent = param.Number(default=None, allow_None=True)
    disk_percent = param.Number(default=None, allow_None=True)
    values = param.Dict(default={}, doc="every value of the sample by metric name, the unit in the name")


class ShopModel(_Model):
    """The workshop as a whole: counts of all tasks there ever were, the pool, and how fresh all this is."""

    epoch = param.String(doc="names one run of the workshop")
    pending = param.Integer()
    in_progress = param.Integer()
    completed = param.Integer()
    failed = param.Integer()
    cancelled = param.Integer()
    workers_total = param.Integer()
    workers_busy = param.Integer()
    workers_idle = param.Integer()
    workers_lost = param.Integer(doc="workers that do not answer")
    min_workers = param.Integer()
    max_workers = param.Integer()
    paused = param.Boolean()
    draining = param.Boolean()
    recovered = param.String(doc="what the last crash left, for ten minutes after it; else empty")
    completed_per_minute = param.Integer(doc="completed in the last 60 s")
    failed_per_minute = param.Integer(doc="failed in the last 60 s")
    success_percent = param.Number(default=None, allow_None=True, doc="of those that ended in 15 minutes")
    oldest_pending_at = param.Number(default=None, allow_None=True, doc="since when the first in line waits")
    link_status: param.Selector[str] = param.Selector(default="live", objects=LINK_STATUSES)
    link_lag_s = param.Number(default=0.0, doc="seconds since the last word from the workshop")
    running = param.List(
        item_type=TaskModel, doc="what runs, the longest first; at most as many as asked for"
    )
    finished = param.List(item_type=TaskModel, doc="what ended last, the latest first")
    workers = param.List(item_type=WorkerModel, doc="every worker, by name")
    metrics = param.ClassSelector(class_=MetricsModel)


def label_of(task: Task) -> str:
    """What a task is called: its name, its summary where it has none."""
    return task.request.name or task.request.summary or task.request.kind


def task_values(task: Task) -> dict[str, object]:
    """A task's record as the parameters of its `TaskModel`."""
    request, usage, progress = task.request, task.usage, task.progress
    values: dict[str, object] = {
        "task_id": request.task_id,
        "kind": request.kind,
        "label": label_of(task),
        "summary": request.summary,
        "status": task.status,
        "reason": task.reason,
        "message": task.message,
        "run": task.run,
        "worker_id": task.worker_id,
        "created_at": request.created_at,
        "started_at": task.started_at,
        "finished_at": task.finished_at,
        "stopping": task.stopping is not None,
        "output_bytes": usage.output_bytes,
        "exit_code": task.exit_code,
        "duration_s": run_seconds(task),
    }
    if progress is not None:
        values |= {
            "fraction": progress.fraction,
            "done": progress.done,
            "total": progress.total,
            "unit": progress.unit,
            "eta_s": progress.eta_s,
            "note": progress.message,
        }
    return values


def worker_values(worker: Worker, tasks: Mapping[TaskId, Task]) -> dict[str, object]:
    """A worker's record as the parameters of its `WorkerModel`; `tasks` tells what its task is called."""
    task = tasks.get(worker.current_task) if worker.current_task else None
    return {
        "worker_id": worker.worker_id,
        "status": worker.status,
        "pid": worker.pid,
        "node": worker.node,
        "started_at": worker.started_at,
        "current_task": worker.current_task,
        "current_label": label_of(task) if task is not None else "",
        "completed": worker.completed,
        "failed": worker.failed,
        "cpu_percent": worker.cpu_percent,
        "rss_bytes": worker.rss_bytes,
    }


def metrics_values(metrics: Metrics) -> dict[str, object]:
    """A sample of the host as the parameters of a `MetricsModel`."""
    return {
        "at": metrics.at,
        "cpu_percent": percent(metrics, "cpu_percent"),
        "memory_percent": percent(metrics, "memory_percent"),
        "disk_percent": percent(metrics, "disk_percent"),
        "values": metrics.values,
    }


def percent(metrics: Metrics, name: str) -> float | None:
    """One number of a sample, None where it holds none."""
    value = metrics.values.get(name)
    return float(value) if isinstance(value, int | float) else None


def run_seconds(task: Task) -> float | None:
    """How long a finished run took: as its worker measured it, else from its claim to its end."""
    if task.usage.duration_s is not None:
        return task.usage.duration_s
    if task.started_at is None or task.finished_at is None:
        return None
    return max(0.0, task.finished_at - task.started_at)
