"""Whose results come with the facts."""

from __future__ import annotations

import pytest

from koubou_panel.core.commands import CancelTask, SubmitTask
from koubou_panel.core.events import TaskCancelled, TaskCompleted, TaskFailed, TaskStarted
from koubou_panel.core.records import Request, TaskId, WorkerId
from koubou_panel.core.state import Folded
from koubou_panel.errors import Refused
from koubou_panel.wire.own import VALUE_BYTES, VALUES_BYTES, OwnTasks


def _submit(name: str) -> SubmitTask:
    return SubmitTask(Request(task_id=TaskId(name), kind="function", created_at=0.0))


def _completed(name: str, value: bytes = b"v") -> Folded:
    return Folded(TaskCompleted(1.0, TaskId(name), 1, value=value), 1, None)


@pytest.fixture
def own() -> OwnTasks:
    """A connection that has submitted `a` and `b`."""
    own = OwnTasks()
    own.add([_submit("a"), _submit("b"), CancelTask(TaskId("c"))])
    return own


def test_values_of_own_tasks_come_along(own) -> None:
    """Results and exceptions of what it submitted, once; not those of others."""
    failed = Folded(TaskFailed(1.0, TaskId("b"), 1, "exception", "no", value=b"e"), 1, None)
    assert own.ended([_completed("a"), failed, _completed("c")]) == {"a", "b"}
    assert len(own) == 0


def test_what_has_no_value_is_forgotten_too(own) -> None:
    """A cancelled task, and one without a result, have none to send; one that starts is still waited for."""
    cancelled = Folded(TaskCancelled(1.0, TaskId("a"), 1, "user", "cancelled"), 1, None)
    started = Folded(TaskStarted(1.0, TaskId("b"), 1, WorkerId("w"), "n", 0), 1, None)
    assert own.ended([cancelled, started]) == set()
    assert len(own) == 1
    assert own.ended([_completed("b", b"")]) == set()
    assert len(own) == 0


def test_large_values_are_asked_for(own) -> None:
    """One that is large does not come along, nor what would make a message of many large."""
    assert own.ended([_completed("a", bytes(VALUE_BYTES + 1)), _completed("b", bytes(VALUE_BYTES))]) == {"b"}
    names = [f"t{number}" for number in range(VALUES_BYTES // VALUE_BYTES + 1)]
    own.add(map(_submit, names))
    assert own.ended([_completed(name, bytes(VALUE_BYTES)) for name in names]) == set(names[:-1])


def test_what_became_no_task_is_forgotten(own) -> None:
    """A submission that was refused, or answered with a task that there was."""
    commands = [_submit("a"), CancelTask(TaskId("c")), _submit("b")]
    own.keep(commands, [Refused("invalid", "no"), None, TaskId("earlier")])
    assert len(own) == 0
