"""Going on from what is stored: after a start, and after a step that could not be stored."""

from __future__ import annotations

import sqlite3

from koubou_panel.core.fold import State
from koubou_panel.core.records import TaskId
from koubou_panel.errors import Refused


def waited_for(state: State) -> list[TaskId]:
    """The tasks that pending ones wait for and that have left the state: the archive knows how they ended."""
    waiting = (task.waits_for for task in state.tasks.values() if task.status == "pending" and task.waits_for)
    return list({task_id for others in waiting for task_id in others if task_id not in state.tasks})


def is_of_storage(error: BaseException | None) -> bool:
    """Whether a step failed by the disk or the database, not by a bug of ours."""
    return isinstance(error, OSError | sqlite3.OperationalError)


def not_stored(error: BaseException | None) -> Refused:
    """What those are told whose command was in a step that failed by `error`, or came while it was mended."""
    if is_of_storage(error):
        return Refused(
            "storage",
            f"the workshop could not store this ({error}); it was not taken in. If the disk of the home is full, free "
            "some space: it goes on by itself",
        )
    return Refused("internal", f"the workshop failed ({error}); nothing was taken in; try again")
