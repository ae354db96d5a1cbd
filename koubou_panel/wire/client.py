"""The client half of the protocol: it makes one ordered stream out of connections that come and go. Sans-I/O.

The shell connects, sends what `connected` gives, hands every text to `receive`, and after a cut waits as long as
`disconnected` says. Whoever reads the stream sees each fact once and in order; where that cannot be, it sees a
fresh `initial_state` and starts again from it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Literal

import msgspec
from msgspec import Struct

from koubou_panel.core.records import FACT_CHANNELS, Channel
from koubou_panel.errors import ProtocolFault

FIRST_DELAY_S = 0.2
LONGEST_DELAY_S = 15.0
CHANNEL_OF: dict[str, Channel] = {
    "task_update": "task",
    "worker_update": "worker",
    "system_event": "system",
    "script_status": "script",
    "script_update": "script",
    "alert": "alert",
}

Message = dict[str, Any]
_DECODER = msgspec.json.Decoder(dict[str, Any])


class Received(Struct, frozen=True):
    """What a text led to: messages for the reader of the stream, and texts to send."""

    messages: list[Message]
    send: list[str]


_NOTHING = Received([], [])


class Follower:
    """One stream of the channels it was made for, over any number of connections."""

    def __init__(
        self,
        channels: Iterable[Channel] = FACT_CHANNELS,
        *,
        outputs: Iterable[str] = (),
        token: str | None = None,
    ) -> None:
        """A follower that has seen nothing yet.

        Args:
            channels: whose facts and samples the stream carries, `output` apart.
            outputs: ids of tasks whose output it carries.
            token: sent as the first frame; None where the handshake has shown it, or none is needed.

        """
        self.channels = tuple(channel for channel in FACT_CHANNELS if channel in set(channels))
        self.outputs: dict[str, int | None] = dict.fromkeys(outputs)
        self.epoch: str | None = None
        self.seq: dict[Channel, int] = {}
        self.refusal: str | None = None
        self._token = token
        self._phase: Literal["cut", "greeting", "resuming", "live"] = "cut"
        self._attempts = 0

    @property
    def is_live(self) -> bool:
        """Whether it is connected and has missed nothing."""
        return self._phase == "live"

    def connected(self) -> list[str]:
        """What to send first on a new connection."""
        self._phase = "greeting"
        return [] if self._token is None else [_command("auth", token=self._token)]

    def disconnected(self, jitter: float) -> float:
        """Seconds to wait before the next connection: 0.2 doubling to 15, less up to half by `jitter` (0-1)."""
        self._phase = "cut"
        delay_s = min(LONGEST_DELAY_S, FIRST_DELAY_S * 2.0 ** min(self._attempts, 10))
        self._attempts += 1
        return delay_s * (1 - jitter / 2)

    def receive(self, text: str | bytes) -> Received:
        """Take in a frame.

        Raises:
            ProtocolFault: it is none of this protocol; the connection is no good.
        """
        try:
            message = _DECODER.decode(text)
        except msgspec.MsgspecError as problem:
            raise ProtocolFault("bad_json", f"this is no Koubou workshop: {problem}") from None
        kind = message.get("type")
        channel = CHANNEL_OF.get(kind) if isinstance(kind, str) else None
        if channel is not None:
            return self._fact(channel, message)
        match kind:
            case "initial_state":
                return self._state(message)
            case "resumed":
                self._settle()
                return _NOTHING
            case "authenticated":
                return _NOTHING
            case "output" if message.get("task_id") in self.outputs:
                self.outputs[message["task_id"]] = message["data"]["end"]
            case "error" if message["data"].get("code") == "unauthorized":
                self.refusal = message["data"].get("message", "unauthorized")
        return Received([message], [])

    # -- inside -----------------------------------------------------------------------------------------------

    def _settle(self) -> None:
        self._phase = "live"
        self._attempts = 0

    def _state(self, message: Message) -> Received:
        data = message["data"]
        if self._phase == "greeting" and data["epoch"] == self.epoch:
            self._phase = "resuming"
            return Received([], [self._resume(), *self._follow_outputs()])
        greets = self._phase == "greeting"
        self._settle()
        self.epoch = data["epoch"]
        self.seq = {channel: data["seq"].get(channel, 0) for channel in self.channels}
        if not greets:
            return Received([message], [])
        wanted = [_command("subscribe", channel=channel, since=seq) for channel, seq in self.seq.items()]
        return Received([message], [*wanted, *self._follow_outputs()])

    def _fact(self, channel: Channel, message: Message) -> Received:
        if channel not in self.seq or self._phase == "greeting":
            return _NOTHING
        seq, last = message["seq"], self.seq[channel]
        if seq <= last:
            return _NOTHING
        if seq == last + 1:
            self.seq[channel] = seq
            return Received([message], [])
        if self._phase == "resuming":
            return _NOTHING
        self._phase = "resuming"
        return Received([], [self._resume()])

    def _resume(self) -> str:
        return _command("resume", epoch=self.epoch, since=self.seq)

    def _follow_outputs(self) -> list[str]:
        return [
            _command(
                "subscribe", channel="output", task_id=task_id, **({} if end is None else {"since": end})
            )
            for task_id, end in self.outputs.items()
        ]


def _command(name: str, **fields: object) -> str:
    return json.dumps({"command": name, **fields})
