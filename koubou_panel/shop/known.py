"""What a command that is sent again is known by, without a look at the archive: keys, and ids of what ended lately."""

from __future__ import annotations

from koubou_panel.core.commands import Command, RetryTask, RunScript, SubmitTask
from koubou_panel.core.ids import made_at
from koubou_panel.core.records import TaskId

FRESH_S = 10.0


class Known:
    """The task of each idempotency key, and the tasks that ended within `FRESH_S` seconds or a little more.

    The state lets a task go once 2,000 others have ended after it: that may be a fifth of a second. Loop thread only.
    """

    def __init__(self, keys: dict[str, TaskId], now: float) -> None:
        """With the keys that are stored; what ended before `now` is for the archive to say."""
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

    def task_of(self, command: Command) -> TaskId | None:
        """The task that a command has made already, where the state alone does not tell."""
        if type(command) is SubmitTask:
            key = command.request.idempotency_key
            if key is not None and key in self.keys:
                return self.keys[key]
            task_id = command.request.task_id
        elif type(command) is RunScript:
            if command.idempotency_key is not None and command.idempotency_key in self.keys:
                return self.keys[command.idempotency_key]
            task_id = command.task_id
        elif type(command) is RetryTask:
            task_id = command.new_id
        else:
            return None
        return task_id if task_id in self else None

    def is_certain(self, task_id: TaskId, now: float) -> bool:
        """Whether a task of this id would be in the state or here, if there was one."""
        return max(self._since, now - FRESH_S) <= made_at(task_id) <= now
