"""The results of finished tasks, read by another process than the workshop's own."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from koubou_panel.archive.schema import connect
from koubou_panel.core.records import TaskId

_VALUE = "SELECT standing.value FROM task JOIN standing ON standing.ord = task.ord WHERE task.task_id = ?"


def read_value(path: Path, task_id: TaskId) -> bytes:
    """The opaque result of a task in the database at `path`; empty where there is none."""
    with closing(connect(path, writes=False)) as reader:
        row = reader.execute(_VALUE, (task_id,)).fetchone()
    return (row and row[0]) or b""
