"""Results, as a worker reads them beside the workshop."""

from __future__ import annotations

from koubou_panel.archive.sqlite import Archive
from koubou_panel.archive.values import read_value


def test_a_committed_result_is_read_by_another(path, tasks):
    """While the workshop has the database open; nothing is there for a task without a result, or for none."""
    archive = Archive.open(path)
    made = [tasks.make(order) for order in (1, 2)]
    archive.commit([tasks.batch(*made)])
    ended = tasks.finish(made[0], 5.0)
    archive.commit([tasks.batch(touched=[ended], values={ended.task_id: b"\x00value"})])
    try:
        assert read_value(path, made[0].task_id) == b"\x00value"
        assert read_value(path, made[1].task_id) == b""
        assert read_value(path, "nonesuch") == b""
    finally:
        archive.close()
