"""Whose results a client of the private link waits for: they come with the facts, not asked for. Sans-I/O.

Asking is a second round trip, which a short call would spend most of its time on. A value that does not come along
(it is large, or the link was cut meanwhile) is asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from koubou_panel.core.commands import Command, SubmitTask
from koubou_panel.core.events import TaskCancelled, TaskCompleted, TaskFailed
from koubou_panel.core.records import TaskId
from koubou_panel.core.state import Folded

VALUE_BYTES = 64 * 1024
VALUES_BYTES = 1 << 20


class OwnTasks:
    """The tasks that one connection has submitted and that have not ended."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        """None yet."""
        self._waiting: set[TaskId] = set()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, commands: Iterable[Command]) -> None:
        """These commands are about to be carried out for the connection."""
        self._waiting.update(c.request.task_id for c in commands if type(c) is SubmitTask)

    def keep(self, commands: Iterable[Command], answers: Iterable[object]) -> None:
        """Forget those of `commands` that became no task: refused, or answered with a task that there was."""
        for command, answer in zip(commands, answers, strict=True):
            if type(command) is SubmitTask and answer != command.request.task_id:
                self._waiting.discard(command.request.task_id)

    def ended(self, folded: Sequence[Folded]) -> set[TaskId]:
        """Those that end with `folded` and whose values are small enough to be sent along; all ended are forgotten."""
        found: set[TaskId] = set()
        if not self._waiting:
            return found
        room = VALUES_BYTES
        for fact, _, _ in folded:
            if not isinstance(fact, TaskCompleted | TaskFailed | TaskCancelled):
                continue
            task_id = fact.task_id
            if task_id not in self._waiting:
                continue
            self._waiting.discard(task_id)
            size = len(getattr(fact, "value", b""))
            if 0 < size <= min(VALUE_BYTES, room):
                found.add(task_id)
                room -= size
        return found
