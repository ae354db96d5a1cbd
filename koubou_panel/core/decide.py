"""`decide`: what follows from a command or a report. It may refuse a command; a stale report gives nothing.

Pure: the moment and the ids come in with the context. Events are returned in the order they are to be folded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import msgspec
from msgspec.structs import replace

from koubou_panel.core.commands import (
    CancelTask,
    Command,
    DrainPool,
    Report,
    RetryTask,
    RunEnded,
    RunProgressed,
    RunsReturned,
    ScaleWorkers,
    ShutDown,
    SubmitTask,
    WorkerDied,
    WorkerReady,
)
from koubou_panel.core.events import (
    Event,
    OutputGrew,
    PoolChanged,
    StopRequested,
    TaskCancelled,
    TaskCompleted,
    TaskFailed,
    TaskProgressed,
    TaskRetried,
    TaskReturned,
    TaskSubmitted,
    WorkerChanged,
    WorkerStopped,
)
from koubou_panel.core.fold import State
from koubou_panel.core.records import Fault, Outcome, Pool, Reason, Request, Task, TaskId, Usage
from koubou_panel.core.retry import delay_s, loops, may_fail_again
from koubou_panel.errors import Refused

PRIORITIES = range(1, 11)
MAX_WORKERS = 256
MAX_RETRIES = 1_000
MAX_TIMEOUT_S = 1e9

_ENCODE = msgspec.msgpack.Encoder().encode


@dataclass(frozen=True, slots=True)
class Context:
    """What a decision may know beside the state: the moment, who asks, and the task as the archive has it."""

    now: float
    by: str = ""
    role: str = "full"
    found: Task | None = None


def decide(state: State, command: Command, context: Context) -> list[Event]:
    """The events that `command` leads to.

    Raises:
        Refused: it is impossible, or not allowed to this caller; nothing has happened.
    """
    if context.role != "full":
        raise Refused("forbidden", "this token may only read; use the full token")
    return _COMMANDS[type(command)](state, command, context)


def conclude(state: State, report: Report, now: float) -> list[Event]:
    """The events that an engine's report leads to; none if the report is about a run that is over."""
    return _REPORTS[type(report)](state, report, now)


# -- commands -------------------------------------------------------------------------------------------------


def _submit(state: State, command: SubmitTask, context: Context) -> list[Event]:
    request = command.request
    if state.pool.draining:
        raise Refused("draining", "the workshop is shutting down and takes no new work; try again soon")
    if request.task_id in state.tasks:
        return []
    check_request(request)
    stamped = replace(request, created_at=context.now, submitted_by=request.submitted_by or context.by)
    return [TaskSubmitted(context.now, stamped, state.order + 1)]


def check_request(request: Request) -> None:
    """Check what holds for every kind of task.

    Raises:
        Refused: code `invalid`, naming the field and its range.
    """
    if request.priority not in PRIORITIES:
        raise Refused("invalid", f"priority must be 1 to 10, not {request.priority}", field="priority")
    if request.timeout_s is not None and not 0 < request.timeout_s < MAX_TIMEOUT_S:
        raise Refused("invalid", "timeout_s must be a finite number of seconds above 0", field="timeout_s")
    if not 0 <= request.retries <= MAX_RETRIES:
        raise Refused("invalid", f"retries must be 0 to {MAX_RETRIES}", field="retries")
    _check_storable(request)


def _check_storable(request: Request) -> None:
    """Refuse here what no archive could take: there it would fail every commit that it is part of."""
    try:
        _ENCODE((request.task_id, request.spec, request.name, request.summary, request.labels))
        _ENCODE((request.kind, request.submitted_by, request.idempotency_key, request.script_name))
    except (UnicodeError, OverflowError, TypeError, ValueError, RecursionError) as error:
        raise Refused("invalid", f"the request cannot be stored: {error}", field="spec") from None


def _cancel(state: State, command: CancelTask, context: Context) -> list[Event]:
    task = _known(state, command.task_id, context)
    if task.is_finished:
        raise Refused("conflict", f"task {task.task_id} has already ended ({task.status})")
    by = f" by {context.by}" if context.by else ""
    if task.status == "pending":
        return [
            TaskCancelled(context.now, task.task_id, task.run, "user", f"cancelled{by} before it started")
        ]
    if task.stopping is not None:
        return []
    return [StopRequested(context.now, task.task_id, task.run, "user", context.by)]


def _known(state: State, task_id: TaskId, context: Context) -> Task:
    task = state.tasks.get(task_id) or context.found
    if task is None:
        raise Refused("not_found", f"no task {task_id}")
    return task


def _retry(state: State, command: RetryTask, context: Context) -> list[Event]:
    task = _known(state, command.task_id, context)
    if not task.is_finished:
        raise Refused("conflict", f"task {task.task_id} is still {task.status}; cancel it first")
    request = replace(
        (context.found or task).request,
        task_id=command.new_id,
        spec=task.request.spec if command.spec is None else command.spec,
        submitted_by=context.by,
        idempotency_key=None,
        rerun_of=task.task_id,
    )
    return _submit(state, SubmitTask(request), context)


def _scale(state: State, command: ScaleWorkers, context: Context) -> list[Event]:
    if not 0 <= command.min_workers <= command.max_workers <= MAX_WORKERS or command.max_workers < 1:
        raise Refused(
            "invalid",
            f"workers must be MIN:MAX with 0 <= MIN <= MAX and MAX 1 to {MAX_WORKERS}",
            field="max_workers",
        )
    pool = replace(state.pool, min_workers=command.min_workers, max_workers=command.max_workers)
    return _change_pool(state, pool, context)


def _drain(state: State, command: DrainPool, context: Context) -> list[Event]:  # noqa: ARG001 - one signature for all commands
    return _change_pool(state, replace(state.pool, draining=True), context)


def _change_pool(state: State, pool: Pool, context: Context) -> list[Event]:
    return [] if pool == state.pool else [PoolChanged(context.now, pool, context.by)]


# -- reports --------------------------------------------------------------------------------------------------


def _owned(state: State, task_id: TaskId, run: int, worker_id: str) -> Task | None:
    """The task, if this very run of it is still going on this very worker: the fence against stale reports."""
    task = state.tasks.get(task_id)
    if task is None or task.status != "in_progress" or task.run != run or task.worker_id != worker_id:
        return None
    return task


def _ready(state: State, report: WorkerReady, now: float) -> list[Event]:
    worker = state.workers.get(report.worker_id)
    if worker is None or worker.status != "starting":
        return []
    return [WorkerChanged(now, report.worker_id, "idle", None, report.pid)]


def _ended(state: State, report: RunEnded, now: float) -> list[Event]:
    outcome = report.outcome
    task = _owned(state, outcome.task_id, outcome.run, report.worker_id)
    return [] if task is None else [end_run(task, outcome, now)]


def end_run(task: Task, outcome: Outcome, now: float) -> Event:
    """The one fact that ends the present run of `task`."""
    if outcome.reason is None:
        return TaskCompleted(
            now, outcome.task_id, outcome.run, outcome.exit_code, outcome.result, outcome.value, outcome.usage
        )
    if task.stopping == "user":
        by = f" by {task.stopping_by}" if task.stopping_by else ""
        return TaskCancelled(now, task.task_id, task.run, "user", f"cancelled{by}", outcome.usage)
    if task.stopping == "shutdown":
        return _shut_down(task, outcome, now)
    if task.stopping == "timeout":
        limit = task.request.timeout_s or 0
        outcome = replace(
            outcome, reason="timeout", message=f"reached its time-out of {limit:g} s", error=None
        )
    return _fail(task, outcome, now)


def _shut_down(task: Task, outcome: Outcome, now: float) -> Event:
    message = "interrupted by a shutdown of the workshop"
    if task.request.on_crash == "retry":
        return TaskRetried(now, task.task_id, task.run, "shutdown", message, now, crashed=False, counts=False)
    return TaskCancelled(now, task.task_id, task.run, "shutdown", message, outcome.usage)


def _fail(task: Task, outcome: Outcome, now: float) -> Event:
    reason: Reason = outcome.reason or "exit"
    message = outcome.message
    crashed = reason in ("killed", "memory", "lost")
    reruns_crash = crashed and task.request.on_crash == "retry"
    if reruns_crash and loops(task):
        reason, message = "crash_loop", f"crashed {task.crashes + 1} times in a row; last: {message}"
    elif reruns_crash or (reason not in ("start", "lost") and may_fail_again(task)):
        counts = reason != "lost"
        return TaskRetried(
            now, task.task_id, task.run, reason, message, now + delay_s(task), crashed, counts, outcome.error
        )
    return TaskFailed(
        now,
        task.task_id,
        task.run,
        reason,
        message,
        outcome.exit_code,
        outcome.value,
        outcome.error,
        outcome.usage,
    )


def _returned(state: State, report: RunsReturned, now: float) -> list[Event]:
    known = [state.tasks[task_id] for task_id in report.task_ids if task_id in state.tasks]
    return _give_back_all(
        [task for task in known if task.status == "in_progress" and task.worker_id == report.worker_id], now
    )


def _give_back_all(tasks: list[Task], now: float) -> list[Event]:
    """The last claim first: each goes to the head of the queue, which is then in its old order."""
    return [give_back(task, now) for task in sorted(tasks, key=lambda task: task.claim, reverse=True)]


def give_back(task: Task, now: float) -> Event:
    """The fact that ends a claim that never began: cancelled if that was asked, else pending again."""
    if task.stopping == "user":
        return TaskCancelled(now, task.task_id, task.run, "user", "cancelled before it started")
    return TaskReturned(now, task.task_id, task.run)


def _died(state: State, report: WorkerDied, now: float) -> list[Event]:
    owned = [
        task
        for task in state.tasks.values()
        if task.status == "in_progress" and task.worker_id == report.worker_id
    ]
    begun = sorted((task for task in owned if task.claim < report.begun), key=lambda task: task.claim)
    known = report.worker_id in state.workers  # a reload after a failed commit may have left it out
    return [
        *(end_run(task, _cut_off(task, report), now) for task in begun),
        *_give_back_all([task for task in owned if task.claim >= report.begun], now),
        *([WorkerStopped(now, report.worker_id, report.message)] if known else []),
    ]


def _cut_off(task: Task, report: WorkerDied) -> Outcome:
    reason: Reason = "killed" if report.signal is not None else "exit"
    return Outcome(
        task.task_id,
        task.run,
        reason,
        report.message,
        report.exit_code if report.signal is None else 128 + report.signal,
        error=Fault("WorkerDied", report.message),
        usage=Usage(output_bytes=task.usage.output_bytes),
    )


def lose(task: Task, now: float) -> Event:
    """The fact that ends a run whose workshop died under it."""
    outcome = Outcome(
        task.task_id,
        task.run,
        "lost",
        "interrupted: the workshop stopped while it ran",
        usage=Usage(output_bytes=task.usage.output_bytes),
    )
    if task.stopping is not None:
        outcome = replace(outcome, reason="killed")
    return end_run(task, outcome, now)


def _shutdown(state: State, report: ShutDown, now: float) -> list[Event]:
    return [
        StopRequested(now, task.task_id, task.run, "shutdown", report.by)
        for task in state.tasks.values()
        if task.status == "in_progress" and task.stopping is None
    ]


def _progressed(state: State, report: RunProgressed, now: float) -> list[Event]:
    task = state.tasks.get(report.task_id)
    if task is None or task.run != report.run or task.status != "in_progress":
        return []
    events: list[Event] = []
    if report.progress is not None:
        events.append(TaskProgressed(now, report.task_id, report.run, report.progress))
    if report.output_bytes is not None:
        events.append(OutputGrew(now, report.task_id, report.run, report.output_bytes))
    return events


_COMMANDS: dict[type, Callable[..., list[Event]]] = {
    SubmitTask: _submit,
    CancelTask: _cancel,
    RetryTask: _retry,
    ScaleWorkers: _scale,
    DrainPool: _drain,
}
_REPORTS: dict[type, Callable[..., list[Event]]] = {
    WorkerReady: _ready,
    WorkerDied: _died,
    RunEnded: _ended,
    RunsReturned: _returned,
    RunProgressed: _progressed,
    ShutDown: _shutdown,
}

__all__ = ["Context", "check_request", "conclude", "decide", "end_run", "give_back", "lose"]
