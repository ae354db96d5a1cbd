"""What a session sees of the workshop, what it asks of it, and what it wants done: the sans-I/O border."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from msgspec import Struct

from koubou_panel.core.commands import Command
from koubou_panel.core.curve import Curve
from koubou_panel.core.ports import OutputPage, TaskPage, TaskQuery
from koubou_panel.core.records import Channel, Task, TaskId
from koubou_panel.core.state import State
from koubou_panel.errors import Refused
from koubou_panel.wire.messages import MessageId


class View(Protocol):
    """What a session may see of the workshop. The facts up to `head` have been sent to who follows."""

    @property
    def state(self) -> State:
        """The state."""

    @property
    def head(self) -> Mapping[Channel, int]:
        """The last `seq` of each channel."""

    def holds(self, epoch: str, place: Mapping[Channel, int]) -> bool:
        """Whether every fact after `place` can still be told."""

    def initial_state(self, id: MessageId | None = None) -> bytes:
        """The `initial_state` message of this moment."""

    def connections(self) -> int:
        """How many are connected."""

    def utc(self) -> float:
        """UTC seconds."""

    def next_id(self) -> TaskId:
        """A new task's id."""


# -- effects --------------------------------------------------------------------------------------------------


class Send(Struct, frozen=True):
    """Send this message."""

    message: bytes


class Rewind(Struct, frozen=True):
    """Send every fact after `since` again, up to the present; then what `then` makes of the place reached."""

    since: dict[Channel, int]
    then: Callable[[Mapping[Channel, int]], bytes]


class Follow(Struct, frozen=True):
    """Send what this task prints, from byte `offset` on (negative: that many before the end)."""

    task_id: TaskId
    offset: int


class Unfollow(Struct, frozen=True):
    """Send what this task prints no more."""

    task_id: TaskId


class Close(Struct, frozen=True):
    """Close the connection."""

    code: int
    reason: str


Effect = Send | Rewind | Follow | Unfollow | Close


# -- questions to the shop ------------------------------------------------------------------------------------


class Do(Struct, frozen=True):
    """Carry out a command. Answer: the task it is about, or None."""

    command: Command


class Get(Struct, frozen=True):
    """Answer: the task, or None."""

    task_id: TaskId


class Find(Struct, frozen=True):
    """Answer: a `TaskPage`."""

    query: TaskQuery


class Read(Struct, frozen=True):
    """Answer: an `OutputPage`; None if there is no such task."""

    task_id: TaskId
    offset: int
    limit: int


class GetCurve(Struct, frozen=True):
    """Answer: a `Curve`, empty for a task that was never looked at; None if there is no such task."""

    task_id: TaskId


Question = Do | Get | Find | Read | GetCurve
Answer = Task | TaskPage | OutputPage | Curve | Refused | None


class Call(Struct, frozen=True):
    """Ask the shop; then hand the answer to `Session.settle` with this `call`."""

    call: int
    question: Question
