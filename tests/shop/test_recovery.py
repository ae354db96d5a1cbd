"""What a start goes on from, also where an earlier start did not get as far as its first commit."""

from __future__ import annotations

import os
import sqlite3

import pytest

from koubou_panel.archive.sqlite import Archive, Batch
from koubou_panel.core.events import TaskStarted, TaskSubmitted
from koubou_panel.core.fold import evolve
from koubou_panel.core.records import Request, TaskId, WorkerId
from koubou_panel.core.state import State
from koubou_panel.engines.marks import Mark, create
from koubou_panel.shop.recovery import begin
from koubou_panel.testing import ManualClock

IDS = [TaskId(name) for name in "abc"]


@pytest.fixture
def archive():
    """What a workshop left that died with three claims on one worker."""
    state, batch = State("before"), Batch(payloads=dict.fromkeys(IDS, b""), new=set(IDS))
    for claim, task_id in enumerate(IDS):
        request = Request(task_id=task_id, kind="function", created_at=1.0)
        for fact in (
            TaskSubmitted(1.0, request, claim + 1),
            TaskStarted(2.0, task_id, 1, WorkerId("worker-1"), "here", claim),
        ):
            folded = evolve(state, fact)
            batch.facts.append(fact)
            batch.tasks[task_id] = folded.record
    archive = Archive.open(None)
    archive.commit([batch])
    yield archive
    archive.close()


@pytest.fixture
def marks(tmp_path):
    """The folder with the mark of that worker, which had begun the first of its claims alone."""
    fd = create(tmp_path / "worker-1.mark")
    mark = Mark(fd)
    mark.begin(0)
    mark.close()
    os.close(fd)
    return tmp_path


def test_a_start_that_cannot_store_loses_no_claim_that_never_began(archive, marks, monkeypatch):
    """The start after it has the same proof: what had begun is lost, the rest is pending again."""
    with monkeypatch.context() as full:
        full.setattr(archive, "commit", _is_full)
        with pytest.raises(sqlite3.OperationalError):
            begin(archive, marks, (1, 1), ManualClock())
    begin(archive, marks, (1, 1), ManualClock())
    assert [archive.get(task_id).status for task_id in IDS] == ["failed", "pending", "pending"]
    assert archive.get(IDS[0]).reason == "lost"


def test_a_start_that_has_stored_leaves_no_mark(archive, marks):
    """What a mark proved is in the archive then."""
    begin(archive, marks, (1, 1), ManualClock())
    assert list(marks.iterdir()) == []


def _is_full(batches):
    raise sqlite3.OperationalError("database or disk is full")
