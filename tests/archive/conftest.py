"""Archives to test with, and tasks to put into them."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from koubou_panel.archive.sqlite import Archive, Batch
from koubou_panel.core.records import Request, Task, TaskId


@pytest.fixture
def path(tmp_path):
    """Where a database may be made."""
    return tmp_path / "koubou.db"


@pytest.fixture(params=["file", "memory"])
def archive(request, path):
    """An empty archive of each sort: what holds for one holds for the other."""
    opened = Archive.open(path if request.param == "file" else None)
    yield opened
    opened.close()


class Tasks:
    """Makes records and batches of them."""

    @staticmethod
    def make(order, *, kind="script", name="", summary="", key=None, payload=b"", **fields):
        """The task at place `order`; its id is made from it."""
        task_id = TaskId(f"task-{order:06}")
        request = Request(
            task_id=task_id,
            kind=kind,
            created_at=1_000.0 + order,
            spec={"command": ["true"]},
            payload=payload,
            name=name,
            summary=summary,
            idempotency_key=key,
        )
        return Task(request=request, order=order, **fields)

    @staticmethod
    def finish(task, at, status="completed", **fields):
        """The task as it ended; the fold lets the payload go."""
        request = replace(task.request, payload=b"")
        return replace(task, request=request, status=status, finished_at=at, **fields)

    @staticmethod
    def batch(*new, touched=(), **fields):
        """A batch with these new tasks, and records of known ones."""
        return Batch(
            tasks={task.task_id: task for task in (*new, *touched)},
            new={task.task_id for task in new},
            payloads={task.task_id: task.request.payload for task in new},
            **fields,
        )


@pytest.fixture
def tasks():
    """A maker of tasks and batches."""
    return Tasks
