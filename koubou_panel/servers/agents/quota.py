"""How many unfinished tasks each agent has, counted from facts, and the limit on them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from koubou_panel.core.events import Sample, TaskCancelled, TaskCompleted, TaskFailed, TaskSubmitted
from koubou_panel.core.records import Task, TaskId
from koubou_panel.core.state import Folded, State
from koubou_panel.errors import Refused

AGENTS = ("agent:", "rest", "mcp")
"""What the name of a caller begins with that is an agent: only their tasks are counted."""

_ENDS = frozenset((TaskCompleted, TaskFailed, TaskCancelled))


class Quota:
    """The limit on tasks in flight, agent by agent. A subscriber of the shop; loop thread only.

    Tasks that are on their way into the workshop count too, so that a burst cannot pass the limit.

    Args:
        most: how many unfinished tasks one agent may have.
    """

    def __init__(self, most: int) -> None:
        """To be subscribed."""
        self.most = most
        self._unfinished: dict[str, set[TaskId]] = {}
        self._coming: dict[str, int] = {}

    def count(self, by: str) -> int:
        """How many tasks of `by` have not ended, with those that are on their way."""
        return len(self._unfinished.get(by, ())) + self._coming.get(by, 0)

    @contextmanager
    def one_more(self, by: str) -> Iterator[None]:
        """Count one task of `by` as on its way, for as long as it is being submitted.

        Raises:
            Refused: code `limit`: it has as many as it may have.
        """
        if self.count(by) >= self.most:
            words = f"{by} has {self.most} tasks that have not ended, which is the limit"
            raise Refused("limit", f"{words}; wait for one to end, or cancel one")
        self._coming[by] = self._coming.get(by, 0) + 1
        try:
            yield
        finally:
            left = self._coming.pop(by) - 1
            if left:
                self._coming[by] = left

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
