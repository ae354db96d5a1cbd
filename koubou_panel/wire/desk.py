"""Where one connection of the public wire stands, and how its commands are replied to in their order."""

from __future__ import annotations

from collections.abc import Callable

from koubou_panel.core.records import Channel, Role, TaskId
from koubou_panel.errors import ProtocolFault, Refused
from koubou_panel.wire.commands import ClientFrame
from koubou_panel.wire.effects import Answer, Call, Effect, Question, Send, View
from koubou_panel.wire.messages import error, message
from koubou_panel.wire.turns import Turns


class Desk:
    """Where a connection stands: what it may do and what it follows."""

    def __init__(
        self,
        view: View,
        *,
        role: Role | None,
        verify: Callable[[str], Role | None],
        channels: frozenset[Channel],
    ) -> None:
        """A connection with this role, None while it has not shown a token."""
        self.view = view
        self.role = role
        self.verify = verify
        self.channels = channels
        self.followed: set[TaskId] = set()
        self.turns = Turns()

    def say(self, type_: str, frame: ClientFrame, **fields: object) -> Send:
        """A reply."""
        return Send(message(type_, self.view.utc(), id=frame.id, **fields))

    def fault(self, frame: ClientFrame, fault: Refused | ProtocolFault) -> Send:
        """The `error` message of a fault."""
        at = self.view.utc()
        return Send(
            error(fault.code, fault.message, at, id=frame.id, field=fault.field, nearest=fault.nearest)
        )

    def refuse(self, frame: ClientFrame, fault: Refused | ProtocolFault) -> list[Call]:
        """Reply with an error when the turn comes."""
        self.turns.later(lambda: [self.fault(frame, fault)])
        return []

    def later(self, finish: Callable[[], list[Effect]]) -> list[Call]:
        """Reply when the turn comes."""
        self.turns.later(finish)
        return []

    def ask(
        self, frame: ClientFrame, question: Question, finish: Callable[[Answer], list[Effect]]
    ) -> list[Call]:
        """Ask the shop now and reply when the turn comes; a refusal becomes an `error`."""

        def reply(answer: Answer) -> list[Effect]:
            return [self.fault(frame, answer)] if isinstance(answer, Refused) else finish(answer)

        return [self.turns.ask(question, reply)]
