"""Tasks and workers as they stand on every public face: the protocol's records, plain and complete.

Times are ISO 8601 in UTC with `Z`, three decimals; every field is present, null where there is nothing to say.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache

from msgspec import Struct

from koubou_panel.core.curve import Curve
from koubou_panel.core.records import NO_LIMITS, Fault, Limits, Pool, Progress, Request, Task, Use, Worker

SUMMARY_CHARS = 100


class ProgressRecord(Struct, gc=False):
    """How far a run is, every field present."""

    fraction: float | None
    done: float | None
    total: float | None
    unit: str
    eta_s: float | None
    message: str
    rate_per_s: float | None


class LimitsRecord(Struct, gc=False):
    """What a run may use, every field present; null: as much as there is."""

    memory_bytes: int | None
    cpu_s: float | None
    processes: int | None
    output_bytes: int | None


class UseRecord(Struct, gc=False):
    """What a run's process tree uses at this moment, every field present."""

    cpu_percent: float
    rss_bytes: int
    cpu_s: float
    read_bytes: int
    written_bytes: int
    threads: int
    processes: int
    gpu_percent: float | None
    gpu_memory_bytes: int | None


class PoolRecord(Struct, gc=False):
    """How many workers are wanted, and whether work is taken and started."""

    min_workers: int
    max_workers: int
    paused: bool
    draining: bool
    closing: bool


class TaskRecord(Struct, gc=False):
    """The task record of the protocol: `task_update`, `get_task`, `list_tasks`, `koubou ps|show --json`.

    `wait_s` is null until the task started; `duration_s` until it ended. What it used is what it used so far while
    it runs.
    """

    task_id: str
    name: str
    kind: str
    status: str
    reason: str | None
    message: str
    summary: str
    priority: int
    labels: dict[str, str]
    submitted_by: str
    created_at: str | None
    started_at: str | None
    finished_at: str | None
    wait_s: float | None
    duration_s: float | None
    run: int
    retries: int
    timeout_s: float | None
    on_crash: str
    assigned_to: str | None
    node: str | None
    exit_code: int | None
    result: str | None
    error: Fault | None
    progress: ProgressRecord | None
    output_bytes: int
    peak_rss_bytes: int | None
    cpu_s: float | None
    script_name: str | None
    rerun_of: str | None
    after: tuple[str, ...]
    waits_for: tuple[str, ...]
    limits: LimitsRecord
    read_bytes: int | None
    written_bytes: int | None
    peak_threads: int | None
    peak_processes: int | None
    peak_gpu_memory_bytes: int | None
    use: UseRecord | None
    prompt_tokens: int | None
    completion_tokens: int | None
    first_token_s: float | None
    tokens_per_s: float | None
    parameters: dict[str, object] | None
    fire_at: str | None


class WorkerRecord(Struct, gc=False):
    """A worker, as in `worker_update` and in `active_workers`."""

    worker_id: str
    status: str
    current_task: str | None
    node: str
    pid: int | None
    cpu_percent: float | None
    rss_bytes: int | None
    started_at: str | None
    completed: int
    failed: int
    changed_at: str | None


class ActiveTask(Struct, gc=False):
    """An entry of `active_tasks`; `type` says what `kind` says, for clients of the first system."""

    task_id: str
    summary: str
    type: str
    kind: str
    status: str
    assigned_to: str | None
    priority: int
    created_at: str | None
    progress: ProgressRecord | None


def iso(at: float | None) -> str | None:
    """UTC seconds as `2026-01-02T03:04:05.678Z`; None stays None."""
    if at is None:
        return None
    second, ms = divmod(round(at * 1000), 1000)
    return f"{_second(second)}.{ms:03d}Z"


@lru_cache(256)
def _second(at: int) -> str:
    # Most times of a fact lie in one of a few seconds, and a datetime costs more than the rest of a message.
    return datetime.fromtimestamp(at, UTC).isoformat()[:-6]


def progress_record(progress: Progress | None) -> ProgressRecord | None:
    """`progress` with every field."""
    if progress is None:
        return None
    return ProgressRecord(
        progress.fraction,
        progress.done,
        progress.total,
        progress.unit,
        progress.eta_s,
        progress.message,
        progress.rate_per_s,
    )


_UNLIMITED = LimitsRecord(None, None, None, None)


def limits_record(limits: Limits) -> LimitsRecord:
    """`limits` with every field."""
    if limits == NO_LIMITS:
        return _UNLIMITED
    return LimitsRecord(limits.memory_bytes, limits.cpu_s, limits.processes, limits.output_bytes)


def use_record(use: Use | None) -> UseRecord | None:
    """`use` with every field."""
    if use is None:
        return None
    return UseRecord(
        use.cpu_percent,
        use.rss_bytes,
        use.cpu_s,
        use.read_bytes,
        use.written_bytes,
        use.threads,
        use.processes,
        use.gpu_percent,
        use.gpu_memory_bytes,
    )


def curve_record(curve: Curve) -> dict[str, list[object]]:
    """A run's use over time: columns of one length, by name, with moments in `at`."""
    columns: dict[str, list[object]] = {**curve.points()}  # type: ignore[dict-item]
    return columns | {"at": [iso(at) for at in curve.at]}


def pool_record(pool: Pool) -> PoolRecord:
    """The protocol's record of the pool."""
    return PoolRecord(pool.min_workers, pool.max_workers, pool.paused, pool.draining, pool.closing)


def task_record(task: Task) -> TaskRecord:
    """The protocol's record of `task`."""
    request, usage = task.request, task.usage
    started, finished = task.started_at, task.finished_at
    duration_s = usage.duration_s
    if duration_s is None and started is not None and finished is not None:
        duration_s = _seconds(finished - started)
    return TaskRecord(
        request.task_id,
        request.name,
        request.kind,
        task.status,
        task.reason,
        task.message,
        request.summary,
        request.priority,
        request.labels,
        request.submitted_by,
        iso(request.created_at),
        iso(started),
        iso(finished),
        None if started is None else _seconds(started - request.created_at),
        duration_s,
        task.run,
        request.retries,
        request.timeout_s,
        request.on_crash,
        task.worker_id,
        task.node,
        task.exit_code,
        task.result,
        task.error,
        progress_record(task.progress),
        usage.output_bytes,
        usage.peak_rss_bytes,
        usage.cpu_s,
        request.script_name,
        request.rerun_of,
        request.after,
        task.waits_for,
        limits_record(request.limits),
        usage.read_bytes,
        usage.written_bytes,
        usage.peak_threads,
        usage.peak_processes,
        usage.peak_gpu_memory_bytes,
        use_record(task.use),
        usage.prompt_tokens,
        usage.completion_tokens,
        usage.first_token_s,
        usage.tokens_per_s,
        None if request.script_name is None else request.parameters,
        iso(request.fire_at),
    )


def spec_record(request: Request) -> dict[str, object]:
    """What a task is asked to do, whole; of its variables the names alone: their values may be secrets."""
    env = request.spec.get("env")
    return dict(request.spec) | ({"env": sorted(env)} if isinstance(env, dict) else {})


def _seconds(span: float) -> float:
    return round(max(0.0, span), 6)


def worker_record(worker: Worker) -> WorkerRecord:
    """The protocol's record of `worker`."""
    return WorkerRecord(
        worker.worker_id,
        worker.status,
        worker.current_task,
        worker.node,
        worker.pid,
        worker.cpu_percent,
        worker.rss_bytes,
        iso(worker.started_at),
        worker.completed,
        worker.failed,
        iso(worker.changed_at),
    )


def active_task(task: Task) -> ActiveTask:
    """The entry of `active_tasks` for `task`."""
    request = task.request
    return ActiveTask(
        request.task_id,
        (request.summary or request.name)[:SUMMARY_CHARS],
        request.kind,
        request.kind,
        task.status,
        task.worker_id,
        request.priority,
        iso(request.created_at),
        progress_record(task.progress),
    )
