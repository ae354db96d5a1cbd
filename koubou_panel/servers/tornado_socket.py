"""`/ws` on the dashboard's port: the same session and feed behind a Tornado route.

Tornado does the HTTP; the frames are those of the `websockets` library's sans-I/O protocol, so that both doors
answer bad input alike (Tornado's own WebSocket drops the connection without a code on invalid UTF-8).
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

from tornado.iostream import IOStream, SSLIOStream, StreamClosedError
from tornado.web import RequestHandler
from websockets.datastructures import Headers
from websockets.exceptions import ProtocolError
from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import Protocol, Side, State
from websockets.server import ServerProtocol

from koubou_panel.core.records import Channel
from koubou_panel.servers.access import Allow
from koubou_panel.servers.feed import Feed
from koubou_panel.servers.guard import Guard, request_verdict
from koubou_panel.servers.peer import MAX_MESSAGE_BYTES, Peer, caller_name, tune, verifier
from koubou_panel.wire.session import Limits

CHANNELS: frozenset[Channel] = frozenset({"system", "script"})
READ_BYTES = 64 * 1024
PIECE_BYTES = 64 * 1024
PING_EVERY_S = 20.0
CLOSE_TIMEOUT_S = 2.0


def ws_routes(
    feed: Callable[[], Feed],
    guard: Callable[[], Guard],
    *,
    path: str = "/ws",
    limits: Limits | None = None,
) -> list[tuple[str, type[RequestHandler], dict[str, Any]]]:
    """The Tornado routes of this door.

    Args:
        feed: gives the process's feed, when a connection comes.
        guard: gives the port's guard, which must stand before the whole application.
        path: where.
        limits: other than the protocol's own.

    """
    return [(path, SocketHandler, {"feed": feed, "guard": guard, "limits": limits})]


class SocketHandler(RequestHandler):
    """The upgrade, then the connection to its end."""

    koubou_waits_for_auth = True

    def initialize(self, feed: Callable[[], Feed], guard: Callable[[], Guard], limits: Limits | None) -> None:
        """Keep what the route was made with."""
        self._feed = feed
        self._guard = guard
        self._limits = limits

    async def get(self) -> None:
        """Upgrade, or say why not."""
        verdict = request_verdict(self.request)
        if verdict is None:
            self.set_status(403)
            await self.finish("No guard stands before this port.\n")
            return
        handshake = Request(self.request.path, Headers(list(self.request.headers.get_all())))
        response = ServerProtocol().accept(handshake)
        if response.status_code != 101:  # noqa: PLR2004 - Switching Protocols
            self.set_status(response.status_code)
            for name, value in response.headers.raw_items():
                if name.lower() not in ("date", "connection", "content-length"):
                    self.set_header(name, value)
            await self.finish(bytes(response.body or b""))
            return
        stream = self.detach()
        tune(stream.socket)
        line = Line(stream)
        line.write(response.serialize())
        feed = self._feed()
        peer = feed.join(
            line,
            role=verdict.role.value if isinstance(verdict, Allow) else None,
            verify=verifier(self._guard()),
            by=caller_name(verdict, self.request.remote_ip or ""),
            close=line.close,
            channels=CHANNELS,
            limits=self._limits,
        )
        try:
            await line.run(peer)
        finally:
            feed.leave(peer)
            stream.close()


class Line:
    """An upgraded Tornado stream: frames in to a `Peer`, and the port that its outbox writes to."""

    def __init__(self, stream: IOStream) -> None:
        """Speak WebSocket on `stream`."""
        self._stream = stream
        self._protocol = Protocol(Side.SERVER, state=State.OPEN, max_size=MAX_MESSAGE_BYTES)
        self._loop = asyncio.get_running_loop()
        self._unsent: deque[tuple[asyncio.Future[None], int]] = deque()
        self._message = bytearray()
        self._opcode = Opcode.TEXT
        self._heard_at = self._loop.time()
        self._is_receiving = False
        self._timer: asyncio.TimerHandle | None = None

    # -- the port ---------------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Write whole frames, unless the end has begun."""
        if self._protocol.state is State.OPEN:
            self._send(data)

    def backlog(self) -> int:
        """Bytes that the kernel has not taken yet."""
        if not self._stream.writing():
            self._unsent.clear()
        while self._unsent and self._unsent[0][0].done():
            self._unsent.popleft()
        return sum(size for _, size in self._unsent)

    def abort(self) -> None:
        """End the connection at once."""
        self._stream.close()

    def close(self, code: int, reason: str) -> None:
        """Begin the closing handshake."""
        if self._protocol.state is State.OPEN:
            self._protocol.send_close(code, reason)
            self._flush()

    # -- the connection ---------------------------------------------------------------------------------------

    async def run(self, peer: Peer) -> None:
        """Hand over what comes in, until the connection is gone."""
        pinger = self._loop.create_task(self._keep_alive())
        try:
            while True:
                data = await self._stream.read_bytes(READ_BYTES, partial=True)
                self._heard_at = self._loop.time()
                self._protocol.receive_data(data)
                events = self._protocol.events_received()
                self._flush()
                for event in events:
                    await self._take(cast("Frame", event), peer)
        except StreamClosedError:
            pass
        finally:
            pinger.cancel()
            if self._timer is not None:
                self._timer.cancel()

    async def _take(self, frame: Frame, peer: Peer) -> None:
        if frame.opcode in (Opcode.TEXT, Opcode.BINARY):
            self._opcode = frame.opcode
            self._message.clear()
        elif frame.opcode is not Opcode.CONT:
            return
        self._message += frame.data
        if not frame.fin:
            return
        body, message = bytes(self._message), ""
        self._message.clear()
        if self._opcode is Opcode.TEXT:
            try:
                message = body.decode()
            except UnicodeDecodeError as problem:
                if self._protocol.state is State.OPEN:
                    self._protocol.fail(CloseCode.INVALID_DATA, f"{problem.reason} at {problem.start}")
                    self._flush()
                return
        self._is_receiving = True
        await peer.receive(message if self._opcode is Opcode.TEXT else body)
        self._is_receiving = False

    def _send(self, data: bytes) -> None:
        with suppress(StreamClosedError):
            for at in range(0, len(data), PIECE_BYTES):
                piece = data[at : at + PIECE_BYTES]
                self._unsent.append((self._stream.write(piece), len(piece)))

    def _flush(self) -> None:
        """Write what the protocol itself has to say."""
        for data in self._protocol.data_to_send():
            if data:
                self._send(data)
            else:
                self._finish_writing()
        if self._protocol.state is not State.OPEN and self._timer is None:
            self._timer = self._loop.call_later(CLOSE_TIMEOUT_S, self._stream.close)

    def _finish_writing(self) -> None:
        # A client that still sends is heard out (its frames are dropped): closing now would reset the connection
        # and the close frame would be lost on the way.
        end = self._stream.close if self._protocol.close_rcvd is not None else self._half_close
        last = self._unsent[-1][0] if self._unsent else None
        if last is None or last.done():
            end()
        else:
            last.add_done_callback(lambda _: end())

    def _half_close(self) -> None:
        if not isinstance(self._stream, SSLIOStream):
            with suppress(OSError):
                self._stream.socket.shutdown(socket.SHUT_WR)

    async def _keep_alive(self) -> None:
        while True:
            await asyncio.sleep(PING_EVERY_S)
            if not self._is_receiving and self._loop.time() - self._heard_at > 2 * PING_EVERY_S:
                self.abort()
                return
            with suppress(ProtocolError, RuntimeError):
                self._protocol.send_ping(b"")
                self._flush()
