"""Results, as a worker reads them beside the workshop."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from koubou_panel.archive.sqlite import Archive
from koubou_panel.archive.values import read_value


def test_a_committed_result_is_read_by_another(path, tasks):
    """While the workshop has the database open; a task that succeeded without a result has an empty one."""
    archive = Archive.open(path)
    made = [tasks.make(order) for order in (1, 2)]
    archive.commit([tasks.batch(*made)])
    ended = tasks.finish(made[0], 5.0)
    silent = tasks.finish(made[1], 6.0)
    archive.commit([tasks.batch(touched=[ended, silent], values={ended.task_id: b"\x00value"})])
    try:
        assert read_value(path, made[0].task_id) == b"\x00value"
        assert read_value(path, made[1].task_id) == b""
    finally:
        archive.close()


@pytest.mark.parametrize("status", ["cancelled", "failed", "pending", "unknown"])
def test_what_did_not_succeed_has_no_result(path, tasks, status):
    """Neither nothing nor an error's value is taken for the result: it is said which task is missing, and why."""
    archive = Archive.open(path)
    made = tasks.make(1)
    if status != "unknown":
        archive.commit([tasks.batch(made)])
    if status in ("cancelled", "failed"):
        ended = replace(tasks.finish(made, 5.0), status=status)
        archive.commit([tasks.batch(touched=[ended], values={ended.task_id: b"an error"})])
    try:
        with pytest.raises(LookupError, match=f"task {made.task_id}, whose result .* is {status}"):
            read_value(path, made.task_id)
    finally:
        archive.close()
