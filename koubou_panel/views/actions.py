"""What a click asks of the workshop. A browser's message is a stranger's word: what makes no sense is no command."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from koubou_panel.core.commands import (
    CancelTask,
    Command,
    DrainPool,
    PausePool,
    RestartWorker,
    ResumePool,
    RetryTask,
    ScaleWorkers,
    SendInput,
)
from koubou_panel.core.ids import is_task_id
from koubou_panel.core.records import TaskId, WorkerId
from koubou_panel.settings import MAX_WORKERS

MOST_TYPED = 16_384

Message = Mapping[str, object]


def command_of(kind: str, message: Message, next_id: Callable[[], TaskId]) -> Command | None:
    """The command that a message of this kind asks for; None where it asks for none.

    Args:
        kind: the message's type.
        message: what came with it.
        next_id: gives the id of a task that is to be submitted.

    """
    if kind == "retry":
        task_id = _task_id(message)
        return None if task_id is None else RetryTask(task_id, next_id())
    make = _COMMANDS.get(kind)
    return None if make is None else make(message)


def _task_id(message: Message) -> TaskId | None:
    task_id = message.get("task_id")
    return TaskId(task_id) if isinstance(task_id, str) and is_task_id(task_id) else None


def _cancel(message: Message) -> CancelTask | None:
    task_id = _task_id(message)
    return None if task_id is None else CancelTask(task_id)


def _scale(message: Message) -> ScaleWorkers | None:
    least, most = (_workers(message.get(name)) for name in ("min", "max"))
    return None if least is None or most is None else ScaleWorkers(least, most)


def _workers(count: object) -> int | None:
    if isinstance(count, bool) or not isinstance(count, int):
        return None
    return count if 0 <= count <= MAX_WORKERS else None


def _restart(message: Message) -> RestartWorker | None:
    worker_id = message.get("worker_id")
    if not isinstance(worker_id, str) or not worker_id.isprintable():
        return None
    at_once = message.get("at_once") is True
    return RestartWorker(WorkerId(worker_id), at_once, _task_id(message) if at_once else None)


def _input(message: Message) -> SendInput | None:
    """A line as it was typed, or the end of all input."""
    task_id, text = _task_id(message), message.get("text")
    if task_id is None or not isinstance(text, str) or len(text) > MOST_TYPED:
        return None
    is_last = message.get("last") is True
    return SendInput(task_id, b"" if is_last else f"{text}\n".encode(errors="replace"), is_last)


_COMMANDS: dict[str, Callable[[Message], Command | None]] = {
    "cancel": _cancel,
    "scale": _scale,
    "restart": _restart,
    "input": _input,
    "pause": lambda _: PausePool(),
    "resume": lambda _: ResumePool(),
    "drain": lambda _: DrainPool(),
}
