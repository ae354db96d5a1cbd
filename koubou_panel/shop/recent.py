"""The tasks that ended lately: so a command that is sent again is known for what it is, at no look at the archive."""

from __future__ import annotations

from koubou_panel.core.ids import made_at
from koubou_panel.core.records import TaskId

FRESH_S = 10.0


class Recent:
    """The ids of tasks that ended within `FRESH_S` seconds, and of some that ended before. Loop thread only.

    The state lets a task go once 2,000 others have ended after it: that may be a fifth of a second.
    """

    def __init__(self, now: float) -> None:
        """None yet; what ended before `now` is for the archive to say."""
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

    def is_certain(self, task_id: TaskId, now: float) -> bool:
        """Whether a task of this id would be in the state or here, if there was one."""
        return max(self._since, now - FRESH_S) <= made_at(task_id) <= now
