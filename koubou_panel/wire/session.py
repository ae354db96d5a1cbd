"""The server half of the protocol for one connection: texts in, effects out. Sans-I/O.

`receive` takes a frame in and gives what may begin at once: questions to the shop, which run side by side.
`advance` gives what the oldest frame leads to, as soon as its answer is there, so replies keep the order of the
commands. Whoever owns the connection carries out the effects and stops calling both while its reader lags.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from msgspec import Struct

from koubou_panel.core.records import FACT_CHANNELS, Channel, Role
from koubou_panel.errors import ProtocolFault, Refused
from koubou_panel.wire.commands import ClientFrame, read_frame
from koubou_panel.wire.desk import Desk
from koubou_panel.wire.effects import Answer, Call, Close, Effect, Send, View
from koubou_panel.wire.replies import CLOSE_UNAUTHORIZED, authenticate, handle

CLOSE_UNSUPPORTED = 1003
CLOSE_POLICY = 1008
STRANGER_CHARACTERS = 4_096


class Limits(Struct, frozen=True):
    """What one connection may do: commands a second, seconds over that before the end, seconds to `auth`."""

    commands_per_s: float = 200.0
    sustained_s: float = 10.0
    auth_s: float = 5.0


class Session:
    """One connection, as the workshop sees it. Times are seconds of a steady clock."""

    def __init__(
        self,
        view: View,
        *,
        role: Role | None,
        verify: Callable[[str], Role | None],
        now: float,
        channels: frozenset[Channel] = frozenset(),
        limits: Limits | None = None,
    ) -> None:
        """A session that begins at `now`.

        Args:
            view: the workshop.
            role: what the client may do; None while it has not shown a token.
            verify: gives the role that a token has, or None.
            now: the present.
            channels: subscribed from the start.
            limits: other than the protocol's own.

        """
        self._desk = Desk(view, role=role, verify=verify, channels=channels)
        self._limits = limits or Limits()
        self._gauge = Gauge(self._limits, now)
        self.deadline = None if role is not None else now + self._limits.auth_s

    @property
    def role(self) -> Role | None:
        """What the client may do; None while it has not shown a token, and is sent nothing."""
        return self._desk.role

    @property
    def channels(self) -> frozenset[Channel]:
        """What it follows, `output` apart."""
        return self._desk.channels

    @property
    def outstanding(self) -> int:
        """How many frames are not replied to yet."""
        return len(self._desk.turns)

    def open(self) -> list[Effect]:
        """What is said first: the state, or nothing to one who has still to show a token."""
        return [] if self.role is None else [Send(self._desk.view.initial_state())]

    def receive(self, text: str, now: float) -> list[Call | Close]:
        """Take in a text frame; what is given may begin at once, and `advance` may have something to say."""
        verdict = self._gauge.take(now)
        if verdict == "close":
            return [Close(CLOSE_POLICY, "too many commands")]
        frame = self._read(text)
        if verdict == "refuse":
            words = (
                f"more than {self._limits.commands_per_s:g} commands a second; this one was not carried out"
            )
            self._desk.refuse(frame, Refused("rate_limited", words))
        elif self.role is None:
            self._desk.later(lambda: authenticate(self._desk, frame))
        else:
            return list(handle(self._desk, frame))
        return []

    def _read(self, text: str) -> ClientFrame:
        """What a frame says; of a client that has shown no token only what may be an `auth` is worth the reading."""
        if self.role is None and len(text) > STRANGER_CHARACTERS:
            return ClientFrame(None, ProtocolFault("unauthorized", "too long for auth"))
        return read_frame(text)

    def receive_binary(self) -> Close:
        """What a binary frame leads to."""
        return Close(CLOSE_UNSUPPORTED, "text frames only")

    def expire(self, now: float) -> list[Effect]:
        """What the end of the time for `auth` leads to, if it has come."""
        if self.role is not None or self.deadline is None or now < self.deadline:
            return []
        return [Close(CLOSE_UNAUTHORIZED, "no token in time")]

    def settle(self, call: int, answer: Answer) -> None:
        """Take in the shop's answer to a `Call`."""
        self._desk.turns.settle(call, answer)

    def advance(self) -> list[Effect] | None:
        """What the oldest frame leads to, if it is answered; None if there is nothing to say now."""
        return self._desk.turns.advance()


class Gauge:
    """How fast commands come: a bucket of one second's worth, and how long it has been overrun."""

    def __init__(self, limits: Limits, now: float) -> None:
        """A full bucket."""
        self._limits = limits
        self._left = limits.commands_per_s
        self._at = now
        self._over_since = self._over_at = now - 2

    def take(self, now: float) -> Literal["pass", "refuse", "close"]:
        """Count a command; `close` once it has been too fast for too long, a pause of a second forgives."""
        rate = self._limits.commands_per_s
        self._left = min(rate, self._left + (now - self._at) * rate)
        self._at = now
        if self._left >= 1:
            self._left -= 1
            return "pass"
        if now - self._over_at > 1:
            self._over_since = now
        self._over_at = now
        return "close" if now - self._over_since >= self._limits.sustained_s else "refuse"


def fact_channels(channels: frozenset[Channel]) -> list[Channel]:
    """Those of `channels` that carry facts, in one order."""
    return [channel for channel in FACT_CHANNELS if channel in channels]
