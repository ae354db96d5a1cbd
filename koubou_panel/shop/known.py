"""What a command that is sent again is known by, without a look at the archive: keys, and ids of what ended lately."""

from __future__ import annotations

from collections.abc import Mapping

from koubou_panel.core.commands import Command, RetryTask, RunScript, SubmitTask
from koubou_panel.core.ids import made_at
from koubou_panel.core.keys import COMPARED, REMOTE, check_same, kept_key, key_of, scoped
from koubou_panel.core.records import Request, Task, TaskId
from koubou_panel.errors import Refused

FRESH_S = 10.0


class Known:
    """The task of each idempotency key, and the tasks that ended within `FRESH_S` seconds or a little more.

    The state lets a task go once 2,000 others have ended after it: that may be a fifth of a second. Loop thread only.
    """

    def __init__(self, keys: dict[str, TaskId], now: float) -> None:
        """With the keys as they are kept; what ended before `now` is for the archive to say."""
        self.keys = keys
        self.ended: set[TaskId] = set()
        self._before: set[TaskId] = set()
        self._since = self._turned_at = now

    def turn(self, now: float) -> None:
        """Forget what ended long ago, from time to time."""
        if now - self._turned_at > FRESH_S:
            self._before, self.ended = self.ended, set()
            self._turned_at = now

    def __contains__(self, task_id: TaskId) -> bool:
        """Whether the task has ended lately."""
        return task_id in self.ended or task_id in self._before

    def keep(self, request: Request) -> None:
        """Remember the key of a task that was submitted."""
        key = kept_key(request)
        if key is not None:
            self.keys[key] = request.task_id

    def by_key(self, command: Command, by: str) -> TaskId | None:
        """The task that may have the key of `command`, which `by` gives."""
        key = key_of(command)
        if key is None:
            return None
        # Keys that were stored before each caller had its own are kept as they came.
        return self.keys.get(scoped(key, by)) or self.keys.get(key)

    def task_of(
        self, command: Command, by: str, tasks: Mapping[TaskId, Task], found: Task | None
    ) -> TaskId | None:
        """The task that a command of `by` has made already, where the state alone does not tell.

        Args:
            command: what is asked for.
            by: who asks.
            tasks: those that the state holds.
            found: what the archive has of the task with the command's key.

        Raises:
            Refused: `conflict`: its key stands for something else that `by` asked for.
        """
        first = self.by_key(command, by)
        if first is not None and self._is_made(command, by, first, tasks.get(first) or found):
            return first
        if type(command) is SubmitTask:
            task_id = command.request.task_id
        elif type(command) is RunScript:
            task_id = command.task_id
        elif type(command) is RetryTask:
            task_id = command.new_id
        else:
            return None
        return task_id if task_id in self else None

    def _is_made(self, command: Command, by: str, first: TaskId, task: Task | None) -> bool:
        """Whether `first` is what the command made; over a public door or a page it must have asked for the same."""
        if not by.startswith(COMPARED):
            return True
        if task is None or task.task_id != first:
            words = f"task {first} of this key has just ended; try again"
            raise Refused("conflict", words, field="idempotency_key")
        if by.startswith(REMOTE) and task.request.submitted_by != by:
            return False
        check_same(command, task)  # type: ignore[arg-type]
        return True

    def is_certain(self, task_id: TaskId, now: float) -> bool:
        """Whether a task of this id would be in the state or here, if there was one."""
        return max(self._since, now - FRESH_S) <= made_at(task_id) <= now
