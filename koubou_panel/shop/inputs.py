"""Input for a running task, on its way past the hub: nothing of it is stored."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from koubou_panel.core.commands import SendInput
from koubou_panel.core.records import Task, TaskId, WorkerId
from koubou_panel.errors import Refused
from koubou_panel.shop.step import Reply

MOST_INPUT_BYTES = 1 << 16


class InputEngine(Protocol):
    """What it takes of an engine."""

    def send_input(
        self,
        worker_id: WorkerId,
        task_id: TaskId,
        data: bytes,
        answer: Callable[[str], None],
        *,
        is_last: bool,
    ) -> None:
        """Send input to a run; `answer` is told once: nothing if it was taken, else why not."""


def check_input(command: SendInput) -> None:
    """Check what holds for any input.

    Raises:
        Refused: code `invalid`: it is too much at once.
    """
    if len(command.data) > MOST_INPUT_BYTES:
        words = f"at most {MOST_INPUT_BYTES} bytes of input at a time, not {len(command.data)}"
        raise Refused("invalid", words, field="text")


def hand_over(command: SendInput, task: Task | None, engine: InputEngine | None, reply: Reply) -> None:
    """Give input that was allowed to the run of `task`; `reply` is called once the process has taken it."""

    def answer(why: str) -> None:
        words = f"task {command.task_id} took no input: {why}"
        reply(Refused("conflict", words) if why else command.task_id)

    if engine is None or task is None or task.worker_id is None:
        answer("it is not running any more")
    else:
        engine.send_input(task.worker_id, command.task_id, command.data, answer, is_last=command.is_last)
