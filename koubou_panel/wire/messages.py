"""Facts, samples and the whole state as messages of the public wire: JSON, encoded once for all readers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from itertools import islice

import msgspec
from msgspec import Struct

from koubou_panel.core.events import (
    SCRIPT_FACTS,
    Fact,
    MetricsSampled,
    PoolChanged,
    Sample,
    ServiceChanged,
    StopRequested,
    SystemNoted,
    TaskCancelled,
    TaskCompleted,
    TaskFailed,
    TaskProgressed,
    TaskReleased,
    TaskRetried,
    TaskReturned,
    TasksSampled,
    TaskStarted,
    TaskSubmitted,
    WorkerChanged,
    WorkerRetired,
    WorkerStarted,
    WorkerStopped,
)
from koubou_panel.core.records import Channel, Pool, Task, Worker
from koubou_panel.core.script import Entry
from koubou_panel.core.state import Folded, State
from koubou_panel.wire.records import (
    ActiveTask,
    TaskRecord,
    WorkerRecord,
    active_task,
    iso,
    pool_record,
    progress_record,
    task_record,
    use_record,
    worker_record,
)
from koubou_panel.wire.script import (
    ScriptStatus,
    ScriptUpdate,
    script_message,
    script_record,
    service_record,
    service_words,
)

PROTOCOL = 1
ACTIVE_TASKS = 500
SCRIPTS = 1_000  # many clients take no message above 1 MiB

MessageId = str | int
_ENCODER = msgspec.json.Encoder()


class TaskDetails(Struct, gc=False):
    """What happened to a task, in words, and what a reader of the first system looks for."""

    message: str
    run: int
    assigned_to: str | None
    reason: str | None


class WorkerDetails(Struct, gc=False):
    """What happened to a worker, in words."""

    message: str
    current_task: str | None


class TaskUpdate(Struct, gc=False):
    """The message of a task's fact."""

    type: str
    task_id: str
    status: str
    details: TaskDetails
    seq: int
    timestamp: str | None
    data: TaskRecord


class WorkerUpdate(Struct, gc=False):
    """The message of a worker's fact."""

    type: str
    worker_id: str
    status: str
    details: WorkerDetails
    seq: int
    timestamp: str | None
    data: WorkerRecord


class SystemEvent(Struct, gc=False):
    """The message of a fact about the workshop itself."""

    type: str
    event: str
    details: dict[str, object]
    seq: int
    timestamp: str | None
    data: dict[str, object]


def encode(message: object) -> bytes:
    """`message` as JSON; text that is no valid Unicode (a file's name) is kept as escapes."""
    try:
        return _ENCODER.encode(message)
    except UnicodeEncodeError:
        return json.dumps(msgspec.to_builtins(message)).encode()


def message(type_: str, at: float, *, id: MessageId | None = None, **fields: object) -> bytes:
    """A message of this type; `id` is left out where there is none."""
    body: dict[str, object] = {"type": type_, "timestamp": iso(at)}
    if id is not None:
        body["id"] = id
    return encode(body | fields)


def error(
    code: str,
    text: str,
    at: float,
    *,
    id: MessageId | None = None,
    field: str | None = None,
    nearest: str | None = None,
) -> bytes:
    """An `error` message; `id` stands at the top level and in `data`."""
    data: dict[str, object] = {"code": code, "message": text}
    extras = {"field": field, "nearest": nearest, "id": id}
    return message("error", at, id=id, data=data | {k: v for k, v in extras.items() if v is not None})


# -- the state as a whole -------------------------------------------------------------------------------------


def task_counts(state: State) -> dict[str, int]:
    """How many tasks there are, by status."""
    return {str(status): count for status, count in state.counts.items()}


def worker_totals(state: State) -> dict[str, int]:
    """How many workers there are, and what they did."""
    statuses = [worker.status for worker in state.workers.values()]
    completed, failed = state.worker_totals
    return {
        "total_workers": len(statuses),
        "busy_workers": statuses.count("busy"),
        "idle_workers": statuses.count("idle"),
        "total_completed": completed,
        "total_failed": failed,
    }


def system_data(state: State) -> dict[str, object] | None:
    """The last sample of the host, with what the first system's clients look for; None before the first."""
    if not state.metrics:
        return None
    held = (state.tasks.get(worker.current_task) for worker in state.workers.values() if worker.current_task)
    return {
        "cpu_percent": None,
        "memory_percent": None,
        "disk_percent": None,
        **state.metrics[-1].values,
        "active_scripts": sum(task is not None and _is_script_run(task) for task in held),
        "total_executions": state.executions,
    }


def _is_script_run(task: Task) -> bool:
    return task.request.script_name is not None and task.status == "in_progress"


def active_tasks(state: State, limit: int = ACTIVE_TASKS) -> list[ActiveTask]:
    """What is in progress, then what is pending, in the order of submission; at most `limit`."""
    running: list[ActiveTask] = []
    pending: list[ActiveTask] = []
    left = state.counts["in_progress"]
    for task in state.tasks.values():
        if task.status == "in_progress":
            running.append(active_task(task))
            left -= 1
        elif task.status == "pending" and len(pending) < limit:
            pending.append(active_task(task))
        if left <= 0 and len(running) + len(pending) >= limit:
            break
    return (running + pending)[:limit]


_SCRIPTS: dict[str, tuple[Entry, msgspec.Raw]] = {}


def _script_of(entry: Entry) -> msgspec.Raw:
    """A script's record, encoded once as long as the script stands as it does: each client that comes asks for it."""
    held = _SCRIPTS.get(entry.name)
    if held is not None and held[0] is entry:
        return held[1]
    if len(_SCRIPTS) >= 2 * SCRIPTS:
        _SCRIPTS.clear()
    record = msgspec.Raw(encode(script_record(entry)))
    _SCRIPTS[entry.name] = (entry, record)
    return record


def initial_state(
    state: State, seq: Mapping[Channel, int], at: float, *, id: MessageId | None = None
) -> bytes:
    """The `initial_state` message: facts after `seq` follow."""
    data: dict[str, object] = {
        "protocol": PROTOCOL,
        "epoch": state.epoch,
        "seq": dict(seq),
        "tasks": task_counts(state),
        "workers": worker_totals(state),
        "active_workers": [worker_record(worker) for worker in state.workers.values()],
        "active_tasks": active_tasks(state),
        "scripts": [_script_of(entry) for entry in islice(state.scripts.values(), SCRIPTS)],
        "services": [service_record(service) for service in state.services.values()],
        "system": system_data(state),
        "pool": pool_record(state.pool),
    }
    return message("initial_state", at, id=id, data=data)


def stats_data(state: State, connections: int) -> dict[str, object]:
    """What `stats` and `periodic_stats` carry."""
    return {
        "tasks": task_counts(state),
        "workers": worker_totals(state),
        "active_connections": connections,
    }


# -- events ---------------------------------------------------------------------------------------------------


def message_of(folded: Folded) -> tuple[Channel, bytes]:
    """The channel and the message of a fact."""
    fact, seq, record = folded
    body: TaskUpdate | WorkerUpdate | SystemEvent | ScriptStatus | ScriptUpdate
    if type(record) is Task:
        words, reason = _TASK_WORDS[type(fact)](fact)
        details = TaskDetails(words, record.run, record.worker_id, reason)
        body = TaskUpdate(
            "task_update",
            record.request.task_id,
            record.status,
            details,
            seq,
            iso(fact.at),
            task_record(record),
        )
    elif type(record) is Worker:
        said = WorkerDetails(_worker_words(fact), record.current_task)
        body = WorkerUpdate(
            "worker_update", record.worker_id, record.status, said, seq, iso(fact.at), worker_record(record)
        )
    elif isinstance(fact, SCRIPT_FACTS):
        body = script_message(fact, seq, record if isinstance(record, Entry) else None)
    else:
        body = _system_event(fact, seq)
    return fact.channel, encode(body)


def message_of_sample(sample: Sample, state: State) -> tuple[Channel, str, bytes] | None:
    """The channel, the key under which a newer one replaces it, and the message; None if none is sent.

    A `TasksSampled` is told run by run: it must hold one.
    """
    if type(sample) is TaskProgressed:
        body = message(
            "task_progress", sample.at, task_id=sample.task_id, data=progress_record(sample.progress)
        )
        return "task", sample.task_id, body
    if type(sample) is TasksSampled:
        ((task_id, _, use),) = sample.uses
        return "task", task_id, message("task_usage", sample.at, task_id=task_id, data=use_record(use))
    if type(sample) is MetricsSampled:
        return "system", "system_metrics", message("system_metrics", sample.at, data=system_data(state))
    return None


_TASK_WORDS: dict[type, Callable[..., tuple[str, str | None]]] = {
    TaskSubmitted: lambda fact: (_queued_words(len(fact.waits_for)), None),
    TaskReleased: lambda fact: ("may start: what it waited for has succeeded", None),  # noqa: ARG005 - one signature for all
    TaskStarted: lambda fact: (f"started on {fact.worker_id}", None),
    TaskReturned: lambda fact: ("back in the queue: it had not begun", None),  # noqa: ARG005
    TaskRetried: lambda fact: (f"runs again: {fact.message}", fact.reason),
    TaskCompleted: lambda fact: ("completed", None),  # noqa: ARG005
    TaskFailed: lambda fact: (fact.message, fact.reason),
    StopRequested: lambda fact: (f"asked to stop{f' by {fact.by}' if fact.by else ''}", fact.cause),
    TaskCancelled: lambda fact: (fact.message, fact.reason),
}


def _queued_words(count: int) -> str:
    return f"queued: waits for {count} task{'s' * (count > 1)}" if count else "queued"


def _worker_words(fact: Fact) -> str:
    if type(fact) is WorkerStarted:
        return "starting"
    if type(fact) is WorkerStopped:
        return fact.message
    if type(fact) is WorkerRetired:
        when = "at once" if fact.at_once else "when it has ended what it runs"
        return f"ends {when}{f', asked by {fact.by}' if fact.by else ''}"
    if type(fact) is WorkerChanged and fact.current_task is not None:
        return f"runs {fact.current_task}"
    return fact.status if type(fact) is WorkerChanged else ""


def pool_words(pool: Pool) -> str:
    """How the pool stands, for people."""
    if pool.closing:
        return "shutting down: no work is taken or started"
    if pool.draining:
        return "draining: no work is taken or started"
    bounds = f"workers {pool.min_workers}:{pool.max_workers}"
    return f"{bounds}, paused: no work is started" if pool.paused else bounds


def _system_event(fact: Fact, seq: int) -> SystemEvent:
    data: dict[str, object]
    details: dict[str, object]
    if type(fact) is PoolChanged:
        data = msgspec.structs.asdict(pool_record(fact.pool)) | {"by": fact.by}
        details = {"message": pool_words(fact.pool), **data}
        return SystemEvent("system_event", "pool_changed", details, seq, iso(fact.at), data)
    if type(fact) is ServiceChanged:
        data = msgspec.structs.asdict(service_record(fact.service))
        details = {name: data[name] for name in ("name", "state", "port", "pid", "restarts")}
        details = {"message": service_words(fact.service), **details}
        return SystemEvent("system_event", "service_changed", details, seq, iso(fact.at), data)
    if type(fact) is SystemNoted:
        details = {"message": fact.details, **fact.data}
        return SystemEvent("system_event", fact.event, details, seq, iso(fact.at), fact.data)
    return SystemEvent("system_event", type(fact).__name__, {}, seq, iso(fact.at), {})
