"""The workshop's records as Param models: watch them, show them, never write them.

A `Mirror` makes them and is the only one that may set them: once a frame, all changed parameters of a model in one
`tell`. Times are UTC seconds, sizes bytes, durations seconds; None is "not known" or "not yet".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice

import param
from param.parameterized import batch_call_watchers

from koubou_panel.core.ports import Link
from koubou_panel.core.records import (
    STATUSES,
    Limits,
    Metrics,
    Progress,
    Service,
    Task,
    TaskId,
    Usage,
    Use,
    Worker,
)
from koubou_panel.core.state import State
from koubou_panel.reactive.series import KEEP_S, Throughput

WORKER_STATUSES = ["starting", "idle", "busy", "paused", "unresponsive", "stopping", "offline"]
SHOW_WAITING = 3
SHOW_SCALING = 5
RATE_S = 60
RECOVERED_S = 600.0
SERVICE_STATES = ["starting", "running", "restarting", "stopping", "stopped", "failed", "idle"]
LINK_STATUSES = ["live", "reconnecting", "stale", "closed"]

_NOT_TOLD = Progress()
_LOOK_AT_MOST = 5_000
_SCALING = ("scaled_up", "scaled_down", "scaling_held")


class Model(param.Parameterized):
    """A record of the workshop, which the mirror alone sets."""

    # Not Param's `constant`: to set one of those, `edit_constant` looks at every parameter of the model.
    _is_closed = False

    def __init__(self, **values: object) -> None:
        super().__init__(**values)  # type: ignore[no-untyped-call]
        self._is_closed = True

    def __setattr__(self, name: str, value: object) -> None:
        """Refuse new values of parameters from all but the mirror (`param.trigger` sets the same again).

        Raises:
            TypeError: it is one.
        """
        if self._is_closed and name in self.param and value is not getattr(self, name):
            words = f"{type(self).__name__}.{name} tells how the workshop stands, and cannot be set"
            raise TypeError(f"{words}: a `Workshop` has methods that change it, such as scale() and cancel()")
        super().__setattr__(name, value)

    def tell(self, values: Mapping[str, object]) -> None:
        """Set what has changed, and call who watches it. For the mirror alone."""
        with batch_call_watchers(self):
            self.__dict__["_is_closed"] = False
            try:
                self.param.update(**values)
            finally:
                self.__dict__["_is_closed"] = True

    def __repr__(self) -> str:
        """One line: what it is of, and how that stands."""
        return f"<{type(self).__name__} {self._words()}>"

    __str__ = __repr__

    def _words(self) -> str:
        raise NotImplementedError


class TaskModel(Model):
    """One task that runs, that is among the next to start, or that ended not long ago."""

    task_id = param.String(doc="the task's id")
    kind = param.String(doc="`script`, `function`, …")
    label = param.String(doc="its name, its summary where it has none")
    summary = param.String(doc="what it is asked to do, in one line")
    spec = param.Dict(default={}, instantiate=False, doc="what it is asked to do, whole")
    status: param.Selector[str] = param.Selector(
        default="pending", objects=list(STATUSES), doc="pending, in_progress, completed, failed or cancelled"
    )
    reason = param.String(default=None, allow_None=True, doc="why it failed or was cancelled, as one word")
    message = param.String(doc="the reason in words")
    run = param.Integer(doc="number of the present or last attempt; 0 before the first")
    worker_id = param.String(default=None, allow_None=True, doc="who runs or ran it")
    created_at = param.Number(default=0.0, doc="when it was submitted, UTC seconds")
    started_at = param.Number(default=None, allow_None=True, doc="when its last run began, UTC seconds")
    finished_at = param.Number(default=None, allow_None=True, doc="when it ended for good, UTC seconds")
    stopping = param.Boolean(doc="its end was asked for and is awaited")
    fraction = param.Number(default=None, allow_None=True, doc="how far the run is, 0 to 1")
    done = param.Number(default=None, allow_None=True, doc="how much is done, in `unit`")
    total = param.Number(default=None, allow_None=True, doc="how much there is to do, in `unit`")
    unit = param.String(doc="the unit of `done` and `total`")
    rate_per_s = param.Number(default=None, allow_None=True, doc="`unit` done in a second")
    eta_s = param.Number(default=None, allow_None=True, doc="seconds left, when the run last told of it")
    eta_at = param.Number(
        default=None, allow_None=True, doc="when the run will end, as it last told, UTC seconds"
    )
    note = param.String(doc="what the run last said about its progress")
    waits_for = param.List(doc="(id, label) of the tasks that must succeed before it starts")
    not_before = param.Number(default=None, allow_None=True, doc="when its retry may start, UTC seconds")
    retries = param.Integer(doc="how many further attempts it has")
    timeout_s = param.Number(default=None, allow_None=True, doc="seconds that a run may take")
    limits = param.ClassSelector(class_=Limits, allow_None=True, instantiate=False, doc="what it may use")
    use = param.ClassSelector(
        class_=Use, allow_None=True, instantiate=False, doc="what its process tree uses now"
    )
    usage = param.ClassSelector(
        class_=Usage, allow_None=True, instantiate=False, doc="what the run has used in all, and at most"
    )
    takes_input = param.Boolean(doc="what is typed can be sent to it while it runs")
    traceback = param.String(doc="where its code failed")
    output_bytes = param.Integer(doc="bytes in its output log")
    exit_code = param.Integer(default=None, allow_None=True, doc="what its command ended with")
    duration_s = param.Number(default=None, allow_None=True, doc="seconds that the finished run took")

    @property
    def is_finished(self) -> bool:
        """Whether the task has ended for good."""
        return self.status not in ("pending", "in_progress")

    def _words(self) -> str:
        done = "" if self.is_finished or self.fraction is None else f" {self.fraction:.0%}"
        return f"{self.task_id} {self.label!r:.80} {self.status}{f' ({self.reason})' if self.reason else ''}{done}"


class WorkerModel(Model):
    """One worker: a slot that runs one task at a time, in a process of its own."""

    worker_id = param.String(doc="its name: `worker-1`, …")
    status: param.Selector[str] = param.Selector(
        default="starting", objects=WORKER_STATUSES, doc=", ".join(WORKER_STATUSES)
    )
    pid = param.Integer(default=None, allow_None=True, doc="its process")
    node = param.String(doc="the machine it is on")
    started_at = param.Number(default=0.0, doc="UTC seconds")
    changed_at = param.Number(
        default=None, allow_None=True, doc="since when its status is what it is, UTC seconds"
    )
    current_task = param.String(default=None, allow_None=True, doc="the id of the task it runs")
    current_label = param.String(doc="that task's label")
    completed = param.Integer(doc="tasks that it completed")
    failed = param.Integer(doc="tasks that failed on it")
    cpu_percent = param.Number(
        default=None, allow_None=True, doc="its process tree's, of one core: 200 is two cores"
    )
    rss_bytes = param.Integer(default=None, allow_None=True, doc="its process tree's resident memory, bytes")

    def _words(self) -> str:
        return f"{self.worker_id} {self.status}{f' {self.current_label!r:.80}' if self.current_label else ''}"


class ServiceModel(Model):
    """One of the workshop's services, as its supervisor says; `idle`: it is started when it is needed."""

    name_of = param.String(doc="model, agents, pool, websocket or dashboard")
    state: param.Selector[str] = param.Selector(default="starting", objects=SERVICE_STATES)
    port = param.Integer(default=None, allow_None=True)
    pid = param.Integer(default=None, allow_None=True)
    started_at = param.Number(default=None, allow_None=True)
    restarts = param.Integer()
    message = param.String(doc="what it is; why it is not running, with its last lines")

    def _words(self) -> str:
        return f"{self.name_of} {self.state}"


class MetricsModel(Model):
    """The last sample of the host; one a second while something is going on."""

    at = param.Number(default=None, allow_None=True, doc="when it was taken, UTC seconds")
    cpu_percent = param.Number(default=None, allow_None=True, doc="of all cores together, 0 to 100")
    memory_percent = param.Number(default=None, allow_None=True, doc="of the memory, 0 to 100")
    memory_used_bytes = param.Number(default=None, allow_None=True)
    memory_total_bytes = param.Number(default=None, allow_None=True)
    disk_percent = param.Number(
        default=None, allow_None=True, doc="of the disk that the home is on, 0 to 100"
    )
    load_1m = param.Number(default=None, allow_None=True, doc="the load average of the last minute")
    values = param.Dict(default={}, doc="every value of the sample by metric name, the unit in the name")

    def _words(self) -> str:
        if self.at is None:
            return "of no sample yet"
        told = {"cpu": self.cpu_percent, "memory": self.memory_percent, "disk": self.disk_percent}
        return " ".join(f"{name} {value:.0f} %" for name, value in told.items() if value is not None)


class ShopModel(Model):
    """The workshop as a whole: counts of all tasks there ever were, the pool, and how fresh all this is."""

    epoch = param.String(doc="names one run of the workshop")
    pending = param.Integer(doc="tasks that wait")
    in_progress = param.Integer(doc="tasks that run")
    completed = param.Integer(doc="tasks that succeeded, ever")
    failed = param.Integer(doc="tasks that failed, ever")
    cancelled = param.Integer(doc="tasks that were cancelled, ever")
    workers_total = param.Integer(doc="workers that there are")
    workers_busy = param.Integer(doc="workers that run a task")
    workers_idle = param.Integer(doc="workers that wait for one")
    workers_lost = param.Integer(doc="workers that do not answer")
    min_workers = param.Integer(doc="the least that the pool is to have")
    max_workers = param.Integer(doc="the most that it may have")
    paused = param.Boolean(doc="no task is started")
    draining = param.Boolean(doc="no task is taken or started")
    closing = param.Boolean(doc="the workshop ends")
    scaling = param.List(doc="the pool's last decisions about its size, the latest first: (at, words)")
    recovered = param.String(doc="what the last crash left, for ten minutes after it; else empty")
    completed_per_minute = param.Integer(doc="completed in the last 60 s")
    failed_per_minute = param.Integer(doc="failed in the last 60 s")
    success_percent = param.Number(default=None, allow_None=True, doc="of those that ended in 15 minutes")
    oldest_pending_at = param.Number(
        default=None, allow_None=True, doc="since when the first in line waits, UTC seconds"
    )
    link_status: param.Selector[str] = param.Selector(
        default="live", objects=LINK_STATUSES, doc="live, reconnecting, stale or closed"
    )
    link_lag_s = param.Number(default=0.0, doc="seconds since the last word from the workshop")
    tasks = param.List(
        item_type=TaskModel, doc="the newest tasks, the latest submitted first; at most as many as asked for"
    )
    running = param.List(
        item_type=TaskModel, doc="what runs, the longest first; at most as many as asked for"
    )
    waiting = param.List(item_type=TaskModel, doc="the first of those that wait, in order of submission")
    finished = param.List(item_type=TaskModel, doc="what ended last, the latest first")
    workers = param.List(item_type=WorkerModel, doc="every worker, by name")
    services = param.List(item_type=ServiceModel, doc="every service; none where no supervisor tells of any")
    metrics = param.ClassSelector(class_=MetricsModel, doc="the last sample of the host")

    def _words(self) -> str:
        counts = ", ".join(f"{getattr(self, status)} {status}" for status in STATUSES)
        return f"{counts}; {self.workers_busy} of {self.workers_total} workers busy; {self.link_status}"


def label_of(task: Task) -> str:
    """What a task is called: its name, its summary where it has none."""
    return task.label


def task_values(task: Task, tasks: Mapping[TaskId, Task], *, told_at: float) -> dict[str, object]:
    """A task's record as the parameters of its `TaskModel`.

    Args:
        task: the record.
        tasks: tells what the tasks are called that it waits for.
        told_at: when its run last told how far it is.

    """
    return _standing(task) | _asked(task, tasks) | _progress(task, told_at)


def _standing(task: Task) -> dict[str, object]:
    """What became of it so far."""
    return {
        "status": task.status,
        "reason": task.reason,
        "message": task.message,
        "run": task.run,
        "worker_id": task.worker_id,
        "started_at": task.started_at,
        "finished_at": task.finished_at,
        "not_before": task.not_before,
        "stopping": task.stopping is not None,
        "use": task.use,
        "usage": task.usage,
        "traceback": task.error.traceback if task.error else "",
        "output_bytes": task.usage.output_bytes,
        "exit_code": task.exit_code,
        "duration_s": run_seconds(task),
    }


def _asked(task: Task, tasks: Mapping[TaskId, Task]) -> dict[str, object]:
    """What was asked for, and what must come before it."""
    request = task.request
    return {
        "task_id": request.task_id,
        "kind": request.kind,
        "label": label_of(task),
        "summary": request.summary,
        "spec": request.spec,
        "created_at": request.created_at,
        "retries": request.retries,
        "timeout_s": request.timeout_s,
        "limits": request.limits,
        "takes_input": bool(request.spec.get("stdin") or request.spec.get("pty")),
        "waits_for": [
            (first, _label_in(tasks, first)) for first in task.waits_for if _is_awaited(tasks, first)
        ],
    }


def _progress(task: Task, told_at: float) -> dict[str, object]:
    """How far its run is; nothing known where it has not said."""
    progress = task.progress or _NOT_TOLD
    return {
        "fraction": progress.fraction,
        "done": progress.done,
        "total": progress.total,
        "unit": progress.unit,
        "rate_per_s": progress.rate_per_s,
        "eta_s": progress.eta_s,
        "eta_at": None if progress.eta_s is None else told_at + progress.eta_s,
        "note": progress.message,
    }


def _label_in(tasks: Mapping[TaskId, Task], task_id: TaskId) -> str:
    task = tasks.get(task_id)
    return label_of(task) if task is not None else task_id


def _is_awaited(tasks: Mapping[TaskId, Task], task_id: TaskId) -> bool:
    task = tasks.get(task_id)
    return task is None or task.status != "completed"


def worker_values(worker: Worker, tasks: Mapping[TaskId, Task]) -> dict[str, object]:
    """A worker's record as the parameters of its `WorkerModel`; `tasks` tells what its task is called."""
    task = tasks.get(worker.current_task) if worker.current_task else None
    return {
        "worker_id": worker.worker_id,
        "status": worker.status,
        "pid": worker.pid,
        "node": worker.node,
        "started_at": worker.started_at,
        "changed_at": worker.changed_at,
        "current_task": worker.current_task,
        "current_label": label_of(task) if task is not None else "",
        "completed": worker.completed,
        "failed": worker.failed,
        "cpu_percent": worker.cpu_percent,
        "rss_bytes": worker.rss_bytes,
    }


def service_values(service: Service) -> dict[str, object]:
    """A service's record as the parameters of its `ServiceModel`."""
    return {
        "name_of": service.name,
        "state": service.state,
        "port": service.port,
        "pid": service.pid,
        "started_at": service.started_at,
        "restarts": service.restarts,
        "message": service.message,
    }


def metrics_values(metrics: Metrics) -> dict[str, object]:
    """A sample of the host as the parameters of a `MetricsModel`."""
    return {
        "at": metrics.at,
        "cpu_percent": percent(metrics, "cpu_percent"),
        "memory_percent": percent(metrics, "memory_percent"),
        "memory_used_bytes": percent(metrics, "memory_used_bytes"),
        "memory_total_bytes": percent(metrics, "memory_total_bytes"),
        "disk_percent": percent(metrics, "disk_percent"),
        "load_1m": percent(metrics, "load_1m"),
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


def shop_values(
    state: State, throughput: Throughput, *, waiting: Sequence[Task], link: Link, now: float
) -> dict[str, object]:
    """The state as the parameters of a `ShopModel`, but for its lists of models. `waiting` is `first_in_line`."""
    statuses = [worker.status for worker in state.workers.values()]
    completed, failed = throughput.last(RATE_S)
    ended_well, ended_badly = throughput.last(KEEP_S)
    ended = ended_well + ended_badly
    counts: Mapping[str, object] = dict(state.counts.items())
    return {
        **counts,
        "epoch": state.epoch,
        "workers_total": len(statuses),
        "workers_busy": statuses.count("busy"),
        "workers_idle": statuses.count("idle"),
        "workers_lost": statuses.count("unresponsive"),
        "min_workers": state.pool.min_workers,
        "max_workers": state.pool.max_workers,
        "paused": state.pool.paused,
        "draining": state.pool.draining,
        "closing": state.pool.closing,
        "scaling": _scaling(state),
        "recovered": _recovered(state, now),
        "completed_per_minute": completed,
        "failed_per_minute": failed,
        "success_percent": 100 * ended_well / ended if ended else None,
        "oldest_pending_at": waiting[0].request.created_at if waiting else None,
        "link_status": link.status,
        "link_lag_s": link.lag_s,
    }


def first_in_line(state: State) -> list[Task]:
    """The first few that wait. Finished tasks may stand before them, so the look has an end."""
    if not state.counts["pending"]:
        return []
    looked_at = islice(state.tasks.values(), _LOOK_AT_MOST)
    return list(islice((task for task in looked_at if task.status == "pending"), SHOW_WAITING))


def _scaling(state: State) -> list[tuple[float, str]]:
    """What the pool last decided about its size, the latest first; said again and again is said once."""
    found: list[tuple[float, str]] = []
    for note in reversed(state.notes):
        if note.event in _SCALING and (not found or found[-1][1] != note.details):
            found.append((note.at, note.details))
            if len(found) == SHOW_SCALING:
                break
    return found


def _recovered(state: State, now: float) -> str:
    """What the last crash left: the words of the note that the workshop made when it came back."""
    for note in reversed(state.notes):
        if note.at < now - RECOVERED_S:
            break
        if note.event in ("recovered", "storage_recovered"):
            return note.details
    return ""
