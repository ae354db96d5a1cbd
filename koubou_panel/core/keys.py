"""Idempotency keys: whose they are, and whether what is sent again is what was sent. Pure."""

from __future__ import annotations

import msgspec

from koubou_panel.core.commands import RunScript, SubmitTask
from koubou_panel.core.records import Request, Task
from koubou_panel.errors import Refused

AGENTS = ("agent:", "rest", "mcp")
"""What the name of a caller begins with that is an agent."""
REMOTE = (*AGENTS, "ws:")
"""What the name of a caller begins with that came over a public door."""
COMPARED = (*REMOTE, "dashboard")
"""What the name of a caller begins with whose keys come from pages and programs that may send another thing again."""

_ENCODE = msgspec.msgpack.Encoder().encode
_DECODE = msgspec.msgpack.Decoder().decode


def scoped(key: str, by: str) -> str:
    """The key as it is kept: who came over a public door has keys of its own, who is on this machine shares them."""
    return f"{by}\n{key}" if by.startswith(REMOTE) else key


def kept_key(request: Request) -> str | None:
    """The key of a task as it is kept; None where it has none."""
    key = request.idempotency_key
    return None if key is None else scoped(key, request.submitted_by)


def key_of(command: object) -> str | None:
    """The key that a command came with."""
    if type(command) is SubmitTask:
        return command.request.idempotency_key
    return command.idempotency_key if type(command) is RunScript else None


def check_same(command: SubmitTask | RunScript, task: Task) -> None:
    """Check that `task`, which has the key of `command`, is what the command asks for.

    Raises:
        Refused: code `conflict`: it is something else.
    """
    request = task.request
    if isinstance(command, RunScript):
        is_same = (request.script_name, request.parameters) == (command.name, _stored(command.parameters))
    else:
        wanted = (command.request.kind, _stored(command.request.spec))
        is_same = request.script_name is None and wanted == (request.kind, _stored(request.spec))
    if not is_same:
        words = f"this key stands for task {task.task_id}, which was asked for with something else"
        raise Refused("conflict", f"{words}; take another key", field="idempotency_key")


def _stored(value: object) -> object:
    """As it comes back from the archive, where no tuple does."""
    try:
        return _DECODE(_ENCODE(value))
    except (UnicodeError, OverflowError, TypeError, ValueError, RecursionError):
        return value
