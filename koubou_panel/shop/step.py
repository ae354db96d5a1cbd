"""What goes through the hub: commands on their way in, and what one step did."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from msgspec import Struct

from koubou_panel.archive.batch import Batch
from koubou_panel.core.commands import Caller, Command, Report, RetryTask, SubmitTask
from koubou_panel.core.events import Event, Sample
from koubou_panel.core.plan import Instruction
from koubou_panel.core.records import Status, Task, TaskId
from koubou_panel.core.state import Folded
from koubou_panel.errors import Refused

Reply = Callable[[TaskId | Refused | None], None]
NOTHING_ENDED: Mapping[TaskId, Status] = MappingProxyType({})


class Ask(Struct, gc=False):
    """A command on its way in, with who asked and where the answer goes.

    `found` and `ended` are what the archive has of tasks that the command is about, as `Context` wants it.
    """

    command: Command
    caller: Caller
    reply: Reply
    found: Task | None = None
    ended: Mapping[TaskId, Status] = NOTHING_ENDED


@dataclass(slots=True)
class Step:
    """What one step did, and what waits for its commit."""

    batch: Batch
    folded: list[Folded] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    replies: list[tuple[Reply, TaskId | Refused | None]] = field(default_factory=list)
    instructions: list[Instruction] = field(default_factory=list)
    reports: list[Report] = field(default_factory=list)


def weight(item: Ask | Report | Event) -> int:
    """How much of a step an item takes: a submit that waits for many is as good as many."""
    if type(item) is Ask and type(item.command) is SubmitTask:
        return 1 + len(item.command.request.after) // 2
    return 1


def subject(command: Command) -> TaskId | None:
    """The task that a command which was done is answered with."""
    if type(command) is SubmitTask:
        return command.request.task_id
    if type(command) is RetryTask:
        return command.new_id
    return getattr(command, "task_id", None)
