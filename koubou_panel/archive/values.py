"""Results and payloads of tasks, read by another process than the workshop's own."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from koubou_panel.archive.schema import connect
from koubou_panel.core.records import STATUSES, TaskId

_VALUE = """SELECT standing.status, standing.value FROM task JOIN standing ON standing.ord = task.ord
    WHERE task.task_id = ?"""

_PAYLOAD = "SELECT payload FROM task WHERE task_id = ?"


def read_value(path: Path, task_id: TaskId) -> bytes:
    """The opaque result of a task in the database at `path`; empty where it succeeded and has none.

    Raises:
        LookupError: it did not succeed; a retry runs without waiting for what it was to follow.
    """
    with closing(connect(path, writes=False)) as reader:
        row = reader.execute(_VALUE, (task_id,)).fetchone()
    status = "unknown" if row is None else STATUSES[row[0]]
    if row is None or status != "completed":
        raise LookupError(f"task {task_id}, whose result this one takes, is {status}; submit both again")
    return row[1] or b""


def read_payload(path: Path, task_id: TaskId) -> bytes:
    """What was submitted with a task in the database at `path`; empty where that is nothing.

    Raises:
        LookupError: there is no such task.
    """
    with closing(connect(path, writes=False)) as reader:
        row = reader.execute(_PAYLOAD, (task_id,)).fetchone()
    if row is None:
        raise LookupError(f"there is no task {task_id}, which has arguments of this one; submit it again")
    return row[0] or b""
