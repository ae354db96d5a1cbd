"""The one table of a task's life: status -> fact -> next status. The diagram in the docs is made from it."""

from __future__ import annotations

from koubou_panel.core.events import (
    StopRequested,
    TaskCancelled,
    TaskCompleted,
    TaskFact,
    TaskFailed,
    TaskReleased,
    TaskRetried,
    TaskReturned,
    TaskStarted,
)
from koubou_panel.core.records import STATUSES, Status
from koubou_panel.errors import CorruptStream

TRANSITIONS: dict[Status, dict[type[TaskFact], Status]] = {
    "pending": {
        TaskReleased: "pending",
        TaskStarted: "in_progress",
        TaskCancelled: "cancelled",
        TaskFailed: "failed",
    },
    "in_progress": {
        TaskCompleted: "completed",
        TaskFailed: "failed",
        TaskCancelled: "cancelled",
        TaskRetried: "pending",
        TaskReturned: "pending",
        StopRequested: "in_progress",
    },
    "completed": {},
    "failed": {},
    "cancelled": {},
}


def next_status(status: Status, fact: type[TaskFact]) -> Status:
    """The status after `fact`.

    Raises:
        CorruptStream: the table has no such step: a fact was lost, repeated, or made by a bug.
    """
    try:
        return TRANSITIONS[status][fact]
    except KeyError:
        raise CorruptStream(f"{fact.__name__} cannot follow {status}") from None


def mermaid() -> str:
    """The table as a Mermaid state diagram, for the docs."""
    lines = ["stateDiagram-v2", "    [*] --> pending: TaskSubmitted"]
    for status in STATUSES:
        lines += [f"    {status} --> {after}: {fact.__name__}" for fact, after in TRANSITIONS[status].items()]
        if not TRANSITIONS[status]:
            lines.append(f"    {status} --> [*]")
    return "\n".join(lines) + "\n"
