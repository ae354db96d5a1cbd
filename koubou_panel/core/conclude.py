"""`conclude`: what follows from an engine's report. A stale one leads to nothing; none is refused aloud.

Pure: the moment comes in. Events are returned in the order they are to be folded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from msgspec.structs import replace

from koubou_panel.core.catalogue import fire
from koubou_panel.core.commands import (
    Report,
    RunEnded,
    RunProgressed,
    RunsReturned,
    RunsSampled,
    ScheduleDue,
    ShutDown,
    WorkerDied,
    WorkerHeard,
    WorkerReady,
    WorkerSilent,
)
from koubou_panel.core.events import (
    Event,
    OutputGrew,
    StopRequested,
    TaskCancelled,
    TaskCompleted,
    TaskFailed,
    TaskProgressed,
    TaskRetried,
    TaskReturned,
    TasksSampled,
    WorkerChanged,
    WorkerStopped,
)
from koubou_panel.core.limit import exceeded, explain_kill, limit_words
from koubou_panel.core.records import (
    Fault,
    Outcome,
    Reason,
    Task,
    TaskId,
    Usage,
    Use,
    WorkerStatus,
)
from koubou_panel.core.retry import delay_s, loops, may_fail_again
from koubou_panel.core.state import State

N = TypeVar("N", int, float)

#: SIGHUP, SIGINT, SIGKILL and SIGTERM: somebody sends them; no crash does.
SENT = frozenset((1, 2, 9, 15))


def conclude(state: State, report: Report, now: float) -> list[Event]:
    """The events that an engine's report leads to; none if the report is about a run that is over."""
    return _REPORTS[type(report)](state, report, now)


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


def _silent(state: State, report: WorkerSilent, now: float) -> list[Event]:
    worker = state.workers.get(report.worker_id)
    if worker is None or worker.status in ("unresponsive", "stopping"):
        return []
    return [WorkerChanged(now, worker.worker_id, "unresponsive", worker.current_task)]


def _heard(state: State, report: WorkerHeard, now: float) -> list[Event]:
    worker = state.workers.get(report.worker_id)
    if worker is None or worker.status != "unresponsive":
        return []
    status: WorkerStatus = "busy" if worker.current_task else "idle"
    return [WorkerChanged(now, worker.worker_id, status, worker.current_task)]


def _ended(state: State, report: RunEnded, now: float) -> list[Event]:
    outcome = report.outcome
    task = _owned(state, outcome.task_id, outcome.run, report.worker_id)
    if task is None:
        return []
    if outcome.reason is not None:
        task = _ended_with_worker(state, task)
    return [end_run(task, explain_kill(outcome, task, state.metrics, now), now)]


def _ended_with_worker(state: State, task: Task) -> Task:
    """`task`; where somebody had its worker ended at once, as one that this person has cancelled."""
    worker = state.workers.get(task.worker_id) if task.worker_id else None
    if worker is None or worker.ended_by is None or task.stopping is not None:
        return task
    return replace(task, stopping="user", stopping_by=worker.ended_by)


def end_run(task: Task, outcome: Outcome, now: float) -> Event:
    """The one fact that ends the present run of `task`."""
    if task.use is not None:
        outcome = replace(outcome, usage=_with_samples(outcome.usage, task.usage))
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
    elif task.stopping is not None:
        reason, message = limit_words(task.stopping, task.request.limits)
        outcome = replace(outcome, reason=reason, message=message, error=None)
    return _fail(task, outcome, now)


def _with_samples(usage: Usage, sampled: Usage) -> Usage:
    """What a run's worker told of it at its end, with the totals and peaks that were seen of its whole tree."""
    return replace(
        usage,
        cpu_s=_larger(usage.cpu_s, sampled.cpu_s),
        peak_rss_bytes=_larger(usage.peak_rss_bytes, sampled.peak_rss_bytes),
        read_bytes=_larger(usage.read_bytes, sampled.read_bytes),
        written_bytes=_larger(usage.written_bytes, sampled.written_bytes),
        peak_threads=_larger(usage.peak_threads, sampled.peak_threads),
        peak_processes=_larger(usage.peak_processes, sampled.peak_processes),
        peak_gpu_memory_bytes=_larger(usage.peak_gpu_memory_bytes, sampled.peak_gpu_memory_bytes),
    )


def _larger(one: N | None, other: N | None) -> N | None:
    if one is None or other is None:
        return other if one is None else one
    return max(one, other)


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
    owned = [task for task in _running(state) if task.worker_id == report.worker_id]
    begun = sorted((task for task in owned if task.claim < report.begun), key=lambda task: task.claim)
    begun = [_ended_with_worker(state, task) for task in begun]
    known = report.worker_id in state.workers  # a reload after a failed commit may have left it out
    return [
        *(
            end_run(task, explain_kill(_cut_off(task, report), task, state.metrics, now), now)
            for task in begun
        ),
        *_give_back_all([task for task in owned if task.claim >= report.begun], now),
        *([WorkerStopped(now, report.worker_id, report.message)] if known else []),
    ]


def loss_words(report: WorkerDied) -> str:
    """Why the run that a worker died in has ended: a signal that no crash sends was for the worker, not the task."""
    if report.signal not in SENT or report.expected or not report.message.startswith("killed by"):
        return report.message
    return f"its worker was {report.message}; the task was lost with it"


def _cut_off(task: Task, report: WorkerDied) -> Outcome:
    reason: Reason = "killed" if report.signal is not None else "exit"
    return Outcome(
        task.task_id,
        task.run,
        reason,
        loss_words(report),
        report.exit_code if report.signal is None else 128 + report.signal,
        error=Fault("WorkerDied", loss_words(report)),
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
        for task in _running(state)
        if task.stopping is None
    ]


def _running(state: State) -> Iterator[Task]:
    """The tasks in progress. They come before most that wait: the look ends with the last of them."""
    left = state.counts["in_progress"]
    for task in state.tasks.values():
        if not left:
            return
        if task.status == "in_progress":
            left -= 1
            yield task


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


def _sampled(state: State, report: RunsSampled, now: float) -> list[Event]:
    """What is used now; and whoever is over a limit of its own is to end."""
    running: list[tuple[TaskId, int, Use]] = []
    over: list[Event] = []
    for task_id, run, use in report.uses:
        task = state.tasks.get(task_id)
        if task is None or task.run != run or task.status != "in_progress":
            continue
        running.append((task_id, run, use))
        cause = exceeded(task.request.limits, use)
        if cause is not None and task.stopping is None:
            over.append(StopRequested(now, task_id, run, cause))
    return [TasksSampled(now, running), *over] if running else []


_REPORTS: dict[type, Callable[..., list[Event]]] = {
    WorkerReady: _ready,
    WorkerSilent: _silent,
    WorkerHeard: _heard,
    WorkerDied: _died,
    RunEnded: _ended,
    RunsReturned: _returned,
    RunProgressed: _progressed,
    RunsSampled: _sampled,
    ScheduleDue: fire,
    ShutDown: _shutdown,
}
