"""The export format `json`."""

from __future__ import annotations

import io

from koubou_panel.core.records import Request, Task, TaskId
from koubou_panel.exporters import json as json_format
from koubou_panel.wire.records import task_record


def test_document_comes_back_as_it_was_written() -> None:
    """What is written can be read: nested values, text of any language, no number for what is none."""
    document = {
        "tasks": [],
        "metrics": [{"at": None, "cpu_percent": 1.5, "cores": [1, 2]}],
        "name": "工房 \x00",
    }
    file = io.BytesIO()
    json_format.write(document, file)
    assert file.getvalue().endswith(b"}\n")
    file.seek(0)
    assert json_format.read(file) == document


def test_records_become_objects_and_nan_null() -> None:
    """Records are written with their fields; a number that JSON does not know is null."""
    task = Task(request=Request(task_id=TaskId("t"), kind="script", created_at=0.0), order=1)
    file = io.BytesIO()
    json_format.write({"task": task_record(task), "x": float("nan")}, file)
    file.seek(0)
    found = json_format.read(file)
    assert found["task"]["status"] == "pending"
    assert found["x"] is None
