"""HTTP of the agents' port: uvicorn's, with bounds for who connects and sends no request.

uvicorn waits for a request's head for ever, and for as many as connect. Nobody has shown a token by then: any process
of the machine could use up the files that the workshop may open.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from contextlib import suppress
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from koubou_panel.errors import Refused
from koubou_panel.servers.agents.rest_http import failure

HEAD_S = 10.0
KEEP_ALIVE_S = 15
MOST_WAITING = 256
STUCK_S = 30

# What strangers send must not fill the log: of what uvicorn says about a connection only errors are heard.
_log = logging.getLogger("uvicorn.error.agents")
_log.setLevel(logging.ERROR)


class BoundedProtocol(H11Protocol):
    """One connection. It has `HEAD_S` seconds for each whole head; `waiting` holds those with no request in flight."""

    waiting: dict[BoundedProtocol, None]

    def __init__(self, *args: Any, **options: Any) -> None:
        """As uvicorn makes it."""
        super().__init__(*args, **options)
        self.logger = _log
        self.access_log = False
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for a head; where too many wait, who has waited longest must go."""
        super().connection_made(transport)
        sock = transport.get_extra_info("socket")
        if sock is not None and hasattr(socket, "TCP_USER_TIMEOUT"):
            # Who asks and never reads would hold its request in flight.
            with suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, STUCK_S * 1000)
        self._look()
        if len(self.waiting) > MOST_WAITING:
            next(iter(self.waiting))._drop()  # noqa: SLF001 - another one of these

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._end_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take in a piece, which completes a head or does not."""
        super().data_received(data)
        self._look()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        super().on_response_complete()
        self.waiting.pop(self, None)
        if self._is_waiting():
            self.waiting[self] = None

    def send_400_response(self, msg: str) -> None:
        """Say that this is no HTTP, in the words of the port, where an answer still fits."""
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.abort()
            return
        answer = failure(Refused("bad_request", msg))
        headers = [(b"content-type", answer.media.encode()), (b"connection", b"close")]
        events = (h11.Response(status_code=400, headers=headers), h11.Data(answer.body), h11.EndOfMessage())
        self.transport.write(b"".join(self.conn.send(event) for event in events))
        self.transport.close()

    def _unsupported_upgrade_warning(self) -> None:
        """What asks for a WebSocket here is answered as what it is without."""

    def _is_waiting(self) -> bool:
        if self.transport.is_closing():
            return False
        return self.cycle is None or self.cycle.response_complete  # type: ignore[redundant-expr]  # it begins as None

    def _look(self) -> None:
        """See whether a head is awaited now. More bytes of it give no more time."""
        if not self._is_waiting():
            self._end_waiting()
        elif self._deadline is None:
            self.waiting[self] = None
            self._deadline = self.loop.call_later(HEAD_S, self._drop)

    def _end_waiting(self) -> None:
        self.waiting.pop(self, None)
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _drop(self) -> None:
        self._end_waiting()
        self.transport.close()  # what was answered before still goes out


def make_protocol() -> type[BoundedProtocol]:
    """The protocol for one port, whose connections are counted together."""
    return type("PortProtocol", (BoundedProtocol,), {"waiting": {}})
