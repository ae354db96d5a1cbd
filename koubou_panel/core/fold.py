"""`evolve(state, event)`: the only way state changes, the same in the workshop and in every replica of it.

It depends on nothing but its two arguments and never says no. A fact that cannot follow the state is a bug
and raises `CorruptStream`; a sample that comes late is dropped.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from koubou_panel.core.catalogue import fold_script
from koubou_panel.core.events import (
    SCRIPT_FACTS,
    Event,
    Fact,
    MetricsSampled,
    OutputGrew,
    PoolChanged,
    ScriptFact,
    ServiceChanged,
    StopRequested,
    SystemNoted,
    TaskCancelled,
    TaskCompleted,
    TaskFact,
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
    WorkerSampled,
    WorkerStarted,
    WorkerStopped,
)
from koubou_panel.core.lifecycle import next_status
from koubou_panel.core.records import (
    Progress,
    Task,
    TaskId,
    Usage,
    Use,
    Worker,
    WorkerId,
)
from koubou_panel.core.script import Entry
from koubou_panel.core.state import CRASHES, KEEP_FINISHED, KEEP_NOTES, Folded, State, without_payload
from koubou_panel.errors import CorruptStream


def evolve(state: State, event: Event) -> Folded | None:
    """Fold `event` into `state`. Loop thread only.

    Returns: for a fact, the fact with its `seq` and record; for a sample, None.

    Raises:
        CorruptStream: the fact cannot follow this state.
    """
    return _FOLDS[type(event)](state, event)


def _task(state: State, fact: TaskFact, task_id: TaskId) -> Task:
    task = state.tasks.get(task_id)
    if task is None:
        raise CorruptStream(f"{type(fact).__name__} about an unknown task {task_id}")
    return task


def _number(state: State, fact: Fact, record: Task | Worker | Entry | None) -> Folded:
    seq = state.seq[fact.channel] = state.seq[fact.channel] + 1
    return Folded(fact, seq, record)


def _move(state: State, fact: TaskFact, before: Task, after: Task) -> Folded:
    if before.status != after.status:
        state.counts[before.status] -= 1
        state.counts[after.status] += 1
    state.tasks[after.request.task_id] = after
    return _number(state, fact, after)


def _submitted(state: State, fact: TaskSubmitted) -> Folded:
    task_id = fact.request.task_id
    if task_id in state.tasks:
        raise CorruptStream(f"task {task_id} was submitted twice")
    task = Task(request=fact.request, order=fact.order, waits_for=fact.waits_for)
    state.order = max(state.order, fact.order)
    state.counts["pending"] += 1
    state.tasks[task_id] = task
    return _number(state, fact, task)


def _released(state: State, fact: TaskReleased) -> Folded:
    task = _task(state, fact, fact.task_id)
    after = replace(task, status=next_status(task.status, TaskReleased), waits_for=())
    return _move(state, fact, task, after)


def _started(state: State, fact: TaskStarted) -> Folded:
    task = _task(state, fact, fact.task_id)
    after = replace(
        task,
        status=next_status(task.status, TaskStarted),
        run=fact.run,
        worker_id=fact.worker_id,
        node=fact.node,
        claim=fact.claim,
        started_at=fact.at,
        not_before=None,
    )
    if task.message or task.error is not None:
        after = replace(after, message="", error=None)  # they were the end of the run before
    return _move(state, fact, task, after)


def _returned(state: State, fact: TaskReturned) -> Folded:
    task = _task(state, fact, fact.task_id)
    after = replace(
        task,
        status=next_status(task.status, TaskReturned),
        run=task.run - 1,
        worker_id=None,
        node=None,
        started_at=None,
        stopping=None,
        stopping_by=None,
        use=None,
    )
    return _move(state, fact, task, after)


def _retried(state: State, fact: TaskRetried) -> Folded:
    task = _task(state, fact, fact.task_id)
    after = replace(
        task,
        status=next_status(task.status, TaskRetried),
        message=fact.message,
        worker_id=None,
        node=None,
        started_at=None,
        stopping=None,
        stopping_by=None,
        not_before=fact.not_before,
        failures=task.failures + (1 if fact.counts else 0),
        crashes=task.crashes + 1 if fact.crashed else 0,
        error=fact.error,
        progress=None,
        use=None,
        usage=Usage(output_bytes=task.usage.output_bytes),
    )
    return _move(state, fact, task, after)


def _stop_requested(state: State, fact: StopRequested) -> Folded:
    task = _task(state, fact, fact.task_id)
    after = replace(
        task,
        status=next_status(task.status, StopRequested),
        stopping=fact.cause,
        stopping_by=fact.by or None,
    )
    return _move(state, fact, task, after)


def _completed(state: State, fact: TaskCompleted) -> Folded:
    task = _task(state, fact, fact.task_id)
    after = replace(
        task,
        request=without_payload(task).request,
        status=next_status(task.status, TaskCompleted),
        message="",
        error=None,
        exit_code=fact.exit_code,
        result=fact.result,
        usage=fact.usage,
        use=None,
        finished_at=fact.at,
        stopping=None,
    )
    _credit(state, task.worker_id, failed=False)
    return _finish(state, fact, task, after)


def _failed(state: State, fact: TaskFailed) -> Folded:
    task = _task(state, fact, fact.task_id)
    after = replace(
        task,
        request=without_payload(task).request,
        status=next_status(task.status, TaskFailed),
        reason=fact.reason,
        message=fact.message,
        exit_code=fact.exit_code,
        error=fact.error,
        usage=fact.usage,
        use=None,
        finished_at=fact.at,
        stopping=None,
    )
    _credit(state, task.worker_id, failed=True)
    return _finish(state, fact, task, after)


def _cancelled(state: State, fact: TaskCancelled) -> Folded:
    task = _task(state, fact, fact.task_id)
    after = replace(
        task,
        request=without_payload(task).request,
        status=next_status(task.status, TaskCancelled),
        reason=fact.reason,
        message=fact.message,
        usage=fact.usage,
        use=None,
        waits_for=(),
        finished_at=fact.at,
        stopping=None,
    )
    return _finish(state, fact, task, after)


def _finish(state: State, fact: TaskFact, before: Task, after: Task) -> Folded:
    state.finished.append(after.request.task_id)
    folded = _move(state, fact, before, after)
    if len(state.finished) > KEEP_FINISHED:
        del state.tasks[state.finished.popleft()]
    return folded


def _credit(state: State, worker_id: WorkerId | None, *, failed: bool) -> None:
    completed, bad = state.worker_totals
    state.worker_totals = (completed, bad + 1) if failed else (completed + 1, bad)
    worker = state.workers.get(worker_id) if worker_id else None
    if worker is None:
        return
    if failed:
        state.workers[worker.worker_id] = replace(worker, failed=worker.failed + 1)
    else:
        state.workers[worker.worker_id] = replace(worker, completed=worker.completed + 1)


def _worker_started(state: State, fact: WorkerStarted) -> Folded:
    worker = Worker(worker_id=fact.worker_id, started_at=fact.at, node=fact.node, changed_at=fact.at)
    state.workers[fact.worker_id] = worker
    return _number(state, fact, worker)


def _worker_changed(state: State, fact: WorkerChanged) -> Folded:
    worker = state.workers.get(fact.worker_id)
    if worker is None:
        raise CorruptStream(f"WorkerChanged about an unknown worker {fact.worker_id}")
    after = replace(
        worker,
        status=fact.status,
        current_task=fact.current_task,
        pid=worker.pid if fact.pid is None else fact.pid,
        changed_at=worker.changed_at if fact.status == worker.status else fact.at,
    )
    state.workers[fact.worker_id] = after
    return _number(state, fact, after)


def _worker_retired(state: State, fact: WorkerRetired) -> Folded:
    worker = state.workers.get(fact.worker_id)
    if worker is None:
        raise CorruptStream(f"WorkerRetired about an unknown worker {fact.worker_id}")
    ended_by = (fact.by or "koubou") if fact.at_once else worker.ended_by
    after = replace(worker, status="stopping", changed_at=fact.at, ended_by=ended_by)
    state.workers[fact.worker_id] = after
    return _number(state, fact, after)


def _worker_stopped(state: State, fact: WorkerStopped) -> Folded:
    worker = state.workers.pop(fact.worker_id, None)
    if worker is None:
        raise CorruptStream(f"WorkerStopped about an unknown worker {fact.worker_id}")
    return _number(state, fact, replace(worker, status="offline", current_task=None))


def _pool_changed(state: State, fact: PoolChanged) -> Folded:
    state.pool = fact.pool
    return _number(state, fact, None)


def _noted(state: State, fact: SystemNoted) -> Folded:
    notes = state.notes
    if len(notes) == KEEP_NOTES and notes[0].event in CRASHES and not _tells_of_a_crash([*notes, fact][1:]):
        del notes[1]
    notes.append(fact)
    return _number(state, fact, None)


def _tells_of_a_crash(notes: list[SystemNoted]) -> bool:
    return any(note.event in CRASHES for note in notes)


def _service_changed(state: State, fact: ServiceChanged) -> Folded:
    state.services[fact.service.name] = fact.service
    return _number(state, fact, None)


def _of_script(state: State, fact: ScriptFact) -> Folded:
    return _number(state, fact, fold_script(state, fact))


def _progressed(state: State, sample: TaskProgressed) -> None:
    task = state.tasks.get(sample.task_id)
    if task is not None and task.run == sample.run and task.status == "in_progress":
        # One without any field says that it is no longer known.
        state.tasks[sample.task_id] = replace(
            task, progress=sample.progress if sample.progress != Progress() else None
        )


def _grew(state: State, sample: OutputGrew) -> None:
    task = state.tasks.get(sample.task_id)
    if task is not None and task.run == sample.run and task.status == "in_progress":
        usage = replace(task.usage, output_bytes=sample.size)
        state.tasks[sample.task_id] = replace(task, usage=usage)


def _tasks_sampled(state: State, sample: TasksSampled) -> None:
    for task_id, run, use in sample.uses:
        task = state.tasks.get(task_id)
        if task is not None and task.run == run and task.status == "in_progress":
            state.tasks[task_id] = replace(task, use=use, usage=peak_usage(task.usage, use))


def peak_usage(usage: Usage, use: Use) -> Usage:
    """`usage` of a run so far, with what it uses now: totals as they stand, peaks if it is one."""
    gpu_bytes = use.gpu_memory_bytes
    return replace(
        usage,
        cpu_s=max(usage.cpu_s or 0.0, use.cpu_s),
        peak_rss_bytes=max(usage.peak_rss_bytes or 0, use.rss_bytes),
        read_bytes=max(usage.read_bytes or 0, use.read_bytes),
        written_bytes=max(usage.written_bytes or 0, use.written_bytes),
        peak_threads=max(usage.peak_threads or 0, use.threads),
        peak_processes=max(usage.peak_processes or 0, use.processes),
        peak_gpu_memory_bytes=(
            usage.peak_gpu_memory_bytes
            if gpu_bytes is None
            else max(usage.peak_gpu_memory_bytes or 0, gpu_bytes)
        ),
    )


def _worker_sampled(state: State, sample: WorkerSampled) -> None:
    worker = state.workers.get(sample.worker_id)
    if worker is not None:
        state.workers[sample.worker_id] = replace(
            worker, cpu_percent=sample.cpu_percent, rss_bytes=sample.rss_bytes
        )


def _metrics_sampled(state: State, sample: MetricsSampled) -> None:
    state.metrics.append(sample.metrics)


_FOLDS: dict[type, Callable[..., Folded | None]] = {
    TaskSubmitted: _submitted,
    TaskReleased: _released,
    TaskStarted: _started,
    TaskReturned: _returned,
    TaskRetried: _retried,
    TaskCompleted: _completed,
    TaskFailed: _failed,
    StopRequested: _stop_requested,
    TaskCancelled: _cancelled,
    WorkerStarted: _worker_started,
    WorkerChanged: _worker_changed,
    WorkerRetired: _worker_retired,
    WorkerStopped: _worker_stopped,
    PoolChanged: _pool_changed,
    SystemNoted: _noted,
    ServiceChanged: _service_changed,
    **dict.fromkeys(SCRIPT_FACTS, _of_script),
    TaskProgressed: _progressed,
    OutputGrew: _grew,
    TasksSampled: _tasks_sampled,
    WorkerSampled: _worker_sampled,
    MetricsSampled: _metrics_sampled,
}
