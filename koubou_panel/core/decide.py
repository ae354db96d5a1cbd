"""`decide`: what follows from a command. It may be refused, and then nothing has happened.

Pure: the moment and the ids come in with the context. Events are returned in the order they are to be folded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from koubou_panel.core.catalogue import check_narrower, enable_script, remove_script, save_script
from koubou_panel.core.commands import (
    CancelTask,
    CloseShop,
    Command,
    DrainPool,
    EnableScript,
    PausePool,
    RemoveScript,
    RestartWorker,
    ResumePool,
    RetryTask,
    RunScript,
    SaveScript,
    ScaleWorkers,
    SendInput,
    SubmitTask,
)
from koubou_panel.core.events import (
    Event,
    PoolChanged,
    StopRequested,
    TaskCancelled,
    TaskSubmitted,
    WorkerRetired,
)
from koubou_panel.core.limit import check_limits
from koubou_panel.core.records import (
    Pool,
    Request,
    Status,
    Task,
    TaskId,
)
from koubou_panel.core.script import find_entry
from koubou_panel.core.state import State
from koubou_panel.core.suggest import unknown
from koubou_panel.errors import Refused

PRIORITIES = range(1, 11)
MAX_WORKERS = 256
MAX_RETRIES = 1_000
MAX_TIMEOUT_S = 1e9
MAX_AFTER = 1_000
MAX_WORDS = 200
MAX_LABELS = 64

_ENCODE = msgspec.msgpack.Encoder().encode
_NOT_STORABLE = (UnicodeError, OverflowError, TypeError, ValueError, RecursionError)


class Context(Struct, frozen=True, gc=False):
    """What a decision may know beside the state: the moment, who asks, and what the archive has.

    `found` is the task that the command is about; `ended` the status of tasks to wait for that left the state.
    """

    now: float
    by: str = ""
    role: str = "full"
    found: Task | None = None
    ended: Mapping[TaskId, Status] = {}


def decide(state: State, command: Command, context: Context) -> list[Event]:
    """The events that `command` leads to.

    Raises:
        Refused: it is impossible, or not allowed to this caller; nothing has happened.
    """
    check_role(command, context.role)
    return _COMMANDS[type(command)](state, command, context)


def check_role(command: Command, role: str) -> None:
    """Check that `role` may give `command`.

    Raises:
        Refused: code `forbidden`, saying what it takes.
    """
    if role == "full" or (role == "run" and type(command) is RunScript):
        return
    raise role_refusal(role, "run" if type(command) is RunScript else "full")


def role_refusal(role: str, need: str) -> Refused:
    """What somebody of `role` is told who asks for what takes the role `need`: every door says it in these words."""
    able = "read and run registered scripts" if role == "run" else "read"
    scope = "run" if need == "run" else "edit"
    words = f"this takes one that may {scope}: `koubou token add NAME --scope {scope}` makes it"
    return Refused("forbidden", f"this token may only {able}; {words}")


# -- commands -------------------------------------------------------------------------------------------------


def _submit(state: State, command: SubmitTask, context: Context) -> list[Event]:
    request = command.request
    if state.pool.closing:
        raise Refused("draining", "the workshop is shutting down and takes no new work; try again soon")
    if state.pool.draining:
        raise Refused("draining", "the workshop is drained and takes no new work; `koubou resume` ends that")
    if request.task_id in state.tasks:
        return []
    check_request(request)
    stamped = replace(request, created_at=context.now, submitted_by=request.submitted_by or context.by)
    waits_for, failed = _dependencies(state, request, context)
    submitted = TaskSubmitted(context.now, stamped, state.order + 1, waits_for)
    if failed is None:
        return [submitted]
    return [submitted, TaskCancelled(context.now, request.task_id, 0, "dependency", failed)]


def _dependencies(state: State, request: Request, context: Context) -> tuple[tuple[TaskId, ...], str | None]:
    """What `request` has still to wait for, and why it need not (one of them has failed), if that is so."""
    if not request.after:
        return (), None
    waits_for: list[TaskId] = []
    failed: str | None = None
    for task_id in dict.fromkeys(request.after):
        task = state.tasks.get(task_id)
        status = task.status if task is not None else context.ended.get(task_id)
        if status is None or task_id == request.task_id:
            raise Refused("not_found", f"no task {task_id[:64]!r} to wait for", field="after")
        if status in ("failed", "cancelled"):
            failed = failed or dependency_words(task_id, status, task)
        elif task is None and status != "completed":
            raise Refused("conflict", f"task {task_id} has just ended; try again", field="after")
        elif status != "completed":
            waits_for.append(task_id)
    return tuple(waits_for), failed


def dependency_words(task_id: TaskId, status: Status, task: Task | None) -> str:
    """Why a task is cancelled that waited for `task_id`, which ended with `status`."""
    if task is not None and task.reason == "dependency":
        return task.message  # of a chain, all say what became of its first
    if task is None:
        return f"not started: it was to follow task {task_id}, which is {status}"
    name = f"{task.request.name} ({task_id})" if task.request.name else f"task {task_id}"
    why = f": {task.message}" if task.message else ""
    return f"not started: it was to follow {name}, which {'was ' * (status == 'cancelled')}{status}{why}"[
        :500
    ]


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
    if len(request.after) > MAX_AFTER:
        raise Refused("invalid", f"a task can wait for at most {MAX_AFTER} others", field="after")
    _check_words(request)
    check_limits(request.limits)
    _check_storable(request)


def _check_words(request: Request) -> None:
    """Words about a task are in every list and in the memory of the workshop: they are short."""
    for field, text in (
        ("name", request.name),
        ("summary", request.summary),
        ("idempotency_key", request.idempotency_key),
    ):
        if text is not None and len(text) > MAX_WORDS:
            words = f"{field} must have at most {MAX_WORDS} characters, not {len(text)}"
            raise Refused("invalid", words, field=field)
    if len(request.labels) > MAX_LABELS:
        words = f"a task has at most {MAX_LABELS} labels, not {len(request.labels)}"
        raise Refused("invalid", words, field="labels")
    for key, value in request.labels.items():
        if len(key) > MAX_WORDS or len(value) > MAX_WORDS:
            words = f"a label and its value must have at most {MAX_WORDS} characters each"
            raise Refused("invalid", f"{words}, unlike {key[:40]!r}", field="labels")


def _check_storable(request: Request) -> None:
    """Refuse here what no archive could take: there it would fail every commit that it is part of."""
    try:
        _ENCODE((request.task_id, request.spec, request.name, request.summary, request.labels))
        _ENCODE((request.kind, request.submitted_by, request.idempotency_key, request.script_name))
    except _NOT_STORABLE as error:
        raise Refused("invalid", f"the request cannot be stored: {error}", field="spec") from None
    try:
        _ENCODE(request.parameters)
    except _NOT_STORABLE as error:
        raise Refused("invalid", f"parameters cannot be stored: {error}", field="parameters") from None


def _cancel(state: State, command: CancelTask, context: Context) -> list[Event]:
    task = state.tasks.get(command.task_id)
    if task is None or task.is_finished:
        # One that has left the state has ended, whatever the archive said when it was asked.
        known = task or _known(state, command.task_id, context)
        status = f" ({known.status})" if known.is_finished else ""
        raise Refused("conflict", f"task {command.task_id} has already ended{status}")
    by = f" by {context.by}" if context.by else ""
    if task.status == "pending":
        return [
            TaskCancelled(context.now, task.task_id, task.run, "user", f"cancelled{by} before it started")
        ]
    if command.only_pending:
        raise Refused(
            "conflict", f"task {task.task_id} has begun, and was to be cancelled only before it does"
        )
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
    if not task.is_finished and task.task_id in state.tasks:
        raise Refused("conflict", f"task {task.task_id} is still {task.status}; cancel it first")
    request = replace(
        (context.found or task).request,
        task_id=command.new_id,
        spec=task.request.spec if command.spec is None else command.spec,
        submitted_by=context.by,
        idempotency_key=None,
        rerun_of=task.task_id,
        after=(),  # asked for by name: it runs now, whatever became of what it once waited for
        fire_at=None,  # the due time of a schedule has one run
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


def _pause(state: State, command: PausePool, context: Context) -> list[Event]:  # noqa: ARG001 - one signature for all commands
    return _change_pool(state, replace(state.pool, paused=True), context)


def _drain(state: State, command: DrainPool, context: Context) -> list[Event]:  # noqa: ARG001 - one signature for all commands
    return _change_pool(state, replace(state.pool, draining=True), context)


def _resume(state: State, command: ResumePool, context: Context) -> list[Event]:  # noqa: ARG001 - one signature for all commands
    return _change_pool(state, replace(state.pool, paused=False, draining=False), context)


def _close(state: State, command: CloseShop, context: Context) -> list[Event]:  # noqa: ARG001 - one signature for all commands
    return _change_pool(state, replace(state.pool, closing=True), context)


def _restart_worker(state: State, command: RestartWorker, context: Context) -> list[Event]:
    worker = state.workers.get(command.worker_id)
    if worker is None:
        raise Refused("not_found", unknown("worker", command.worker_id, state.workers), field="worker_id")
    if worker.status == "unresponsive" and not command.at_once:
        words = (
            f"{worker.worker_id} does not answer, so it cannot be asked to end; restart it at once (--now): "
        )
        raise Refused("conflict", words + "what it runs is cancelled")
    if worker.status == "stopping" and not command.at_once:
        return []
    if command.at_once and command.task_id not in (None, worker.current_task):
        words = f"{worker.worker_id} does not run task {command.task_id} any more: look at what it runs now"
        raise Refused("conflict", words, field="task_id")
    return [WorkerRetired(context.now, worker.worker_id, context.by, command.at_once)]


def _run_script(state: State, command: RunScript, context: Context) -> list[Event]:
    entry = find_entry(state.scripts, command.name)
    if context.role == "run":
        check_narrower(entry.script, command)
    if command.request is None:
        raise Refused("internal", "a run of a script came without its request")
    return _submit(state, SubmitTask(command.request), context)


def _save_script(state: State, command: SaveScript, context: Context) -> list[Event]:
    return save_script(state, command, context.now, context.by)


def _enable_script(state: State, command: EnableScript, context: Context) -> list[Event]:
    return enable_script(state, command, context.now, context.by)


def _remove_script(state: State, command: RemoveScript, context: Context) -> list[Event]:
    return remove_script(state, command, context.now, context.by)


def _send_input(state: State, command: SendInput, context: Context) -> list[Event]:
    """Nothing happens to the state; it is only looked whether the task can take input."""
    task = _known(state, command.task_id, context)
    if task.status != "in_progress":
        raise Refused("conflict", f"task {task.task_id} is {task.status}: only a running task takes input")
    if not task.request.spec.get("stdin") and not task.request.spec.get("pty"):
        words = "takes no input; submit it with stdin (`koubou run -i`) or with a terminal (--pty)"
        raise Refused("conflict", f"task {task.task_id} {words}")
    return []


def _change_pool(state: State, pool: Pool, context: Context) -> list[Event]:
    return [] if pool == state.pool else [PoolChanged(context.now, pool, context.by)]


_COMMANDS: dict[type, Callable[..., list[Event]]] = {
    SubmitTask: _submit,
    CancelTask: _cancel,
    RetryTask: _retry,
    ScaleWorkers: _scale,
    PausePool: _pause,
    DrainPool: _drain,
    ResumePool: _resume,
    RestartWorker: _restart_worker,
    SendInput: _send_input,
    SaveScript: _save_script,
    EnableScript: _enable_script,
    RemoveScript: _remove_script,
    RunScript: _run_script,
    CloseShop: _close,
}
