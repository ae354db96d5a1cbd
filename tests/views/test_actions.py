"""A browser's message becomes the command that it asks for, or nothing."""

import pytest

from koubou_panel.core.commands import (
    CancelTask,
    DrainPool,
    PausePool,
    RestartWorker,
    ResumePool,
    RetryTask,
    ScaleWorkers,
    SendInput,
)
from koubou_panel.views.actions import MOST_TYPED, command_of

TASK = "2pwhe5r7000000"


def ask(kind: object, **message: object) -> object:
    """What a message asks for."""
    return command_of(kind, {"type": kind, **message}, lambda: "new")


@pytest.mark.parametrize(
    ("message", "command"),
    [
        ({"kind": "cancel", "task_id": TASK}, CancelTask(TASK)),
        ({"kind": "retry", "task_id": TASK}, RetryTask(TASK, "new")),
        ({"kind": "scale", "min": 0, "max": 4}, ScaleWorkers(0, 4)),
        ({"kind": "pause"}, PausePool()),
        ({"kind": "resume"}, ResumePool()),
        ({"kind": "drain"}, DrainPool()),
        ({"kind": "restart", "worker_id": "w"}, RestartWorker("w", at_once=False)),
        ({"kind": "restart", "worker_id": "w", "at_once": True}, RestartWorker("w", at_once=True)),
        (
            {"kind": "restart", "worker_id": "w", "at_once": True, "task_id": TASK},
            RestartWorker("w", at_once=True, task_id=TASK),
        ),
        ({"kind": "restart", "worker_id": "w", "task_id": TASK}, RestartWorker("w", at_once=False)),
        ({"kind": "input", "task_id": TASK, "text": "né"}, SendInput(TASK, "né\n".encode())),
        ({"kind": "input", "task_id": TASK, "text": "a\ud800"}, SendInput(TASK, b"a?\n")),
        ({"kind": "input", "task_id": TASK, "text": "", "last": True}, SendInput(TASK, b"", is_last=True)),
    ],
)
def test_each_click_asks_for_its_command(message: dict[str, object], command: object) -> None:
    """Each well-formed message is the command that its button names."""
    assert ask(**message) == command


@pytest.mark.parametrize(
    "message",
    [
        {"kind": "x"},
        {"kind": "cancel"},
        {"kind": "retry", "task_id": 5},
        {"kind": "scale", "min": 1},
        {"kind": "scale", "min": True, "max": 3},
        {"kind": "scale", "min": 1, "max": None},
        {"kind": "scale", "min": 1.5, "max": 2},
        {"kind": "scale", "min": -1, "max": 2},
        {"kind": "scale", "min": 0, "max": 10**30},
        {"kind": "cancel", "task_id": "t"},
        {"kind": "cancel", "task_id": "\udfff" * 14},
        {"kind": "restart", "worker_id": "\udfff"},
        {"kind": "restart", "worker_id": None},
        {"kind": "input", "task_id": TASK},
        {"kind": "input", "text": "x"},
        {"kind": "input", "task_id": TASK, "text": "x" * (MOST_TYPED + 1)},
    ],
)
def test_what_makes_no_sense_asks_for_nothing(message: dict[str, object]) -> None:
    """A message with a part missing, or of another type, is no command."""
    assert ask(**message) is None


@pytest.mark.parametrize("yes", ["true", 1, "yes", None])
def test_only_true_cancels_what_runs(yes: object) -> None:
    """A restart is at once only where the browser says exactly that."""
    assert ask("restart", worker_id="w", at_once=yes) == RestartWorker("w", at_once=False)
