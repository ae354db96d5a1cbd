"""How many unfinished tasks each agent has, counted from facts, and the limit on them."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from koubou_panel.core.commands import Caller, Command, RetryTask, RunScript, SubmitTask
from koubou_panel.core.events import Sample, TaskCancelled, TaskCompleted, TaskFailed, TaskSubmitted
from koubou_panel.core.keys import AGENTS
from koubou_panel.core.records import Task, TaskId
from koubou_panel.core.state import Folded, State
from koubou_panel.errors import Refused

_ENDS = frozenset((TaskCompleted, TaskFailed, TaskCancelled))
_MAKE = frozenset((SubmitTask, RunScript, RetryTask))


class Quota:
    """The limit on tasks in flight, agent by agent, whichever door each came by. Loop thread only.

    The hub tells it each fact before the next command is decided, so that no burst passes the limit.

    Args:
        most: how many unfinished tasks one agent may have; None: as many as it likes.
    """

    def __init__(self, most: int | None) -> None:
        """To be told what happens."""
        self.most: int = sys.maxsize if most is None else most
        self._unfinished: dict[str, set[TaskId]] = {}

    def count(self, by: str) -> int:
        """How many tasks of `by` have not ended."""
        return len(self._unfinished.get(by, ()))

    def check(self, command: Command, caller: Caller) -> None:
        """Check that `caller` may have one more task, if `command` makes one.

        Raises:
            Refused: code `limit`: it has as many as it may have.
        """
        if not caller.from_network or type(command) not in _MAKE:
            return
        if caller.by.startswith(AGENTS) and self.count(caller.by) >= self.most:
            words = f"{caller.by} has {self.most} tasks that have not ended, which is the limit"
            raise Refused("limit", f"{words}; wait for one to end, or cancel one")

    def on_reset(self, state: State) -> None:
        """Count anew."""
        self._unfinished = {}
        for task in state.tasks.values():
            if not task.is_finished and task.request.submitted_by.startswith(AGENTS):
                self._unfinished.setdefault(task.request.submitted_by, set()).add(task.task_id)

    def on_facts(self, folded: Sequence[Folded]) -> None:
        """Count what was submitted and what ended."""
        for fact, _, record in folded:  # on the way of every task: no more is looked at than must be
            kind = type(fact)
            if kind is TaskSubmitted or (kind in _ENDS and self._unfinished):
                by = record.request.submitted_by  # type: ignore[union-attr]
                if by.startswith(AGENTS):
                    self._note(by, record)  # type: ignore[arg-type]

    def on_samples(self, samples: Sequence[Sample]) -> None:
        """A sample ends nothing."""

    def _note(self, by: str, task: Task) -> None:
        if not task.is_finished:
            self._unfinished.setdefault(by, set()).add(task.task_id)
            return
        left = self._unfinished.get(by)
        if left is not None:
            left.discard(task.task_id)
            if not left:
                del self._unfinished[by]
