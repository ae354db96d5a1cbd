"""The WebSocket port of the workshop process (8766): the `websockets` library around the feed."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress
from dataclasses import replace
from typing import cast

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.protocol import State

from koubou_panel.core.ports import Shop
from koubou_panel.servers.access import Access, Allow
from koubou_panel.servers.feed import Feed
from koubou_panel.servers.guard import Guard, connection_verdict, process_request
from koubou_panel.servers.peer import MAX_MESSAGE_BYTES, caller_name, tune, verifier
from koubou_panel.wire.session import Limits

CLOSE_TIMEOUT_S = 2.0
PING_EVERY_S = 20.0
WAITING_CONNECTIONS = 1024
MOST_STRANGERS = 256


class SocketServer:
    """The port; `start` opens it, `close` ends every connection. Loop thread only."""

    def __init__(
        self,
        shop: Shop,
        access: Access,
        *,
        host: str = "127.0.0.1",
        port: int = 8766,
        feed: Feed | None = None,
        tls: ssl.SSLContext | None = None,
        limits: Limits | None = None,
        ping_every_s: float | None = PING_EVERY_S,
    ) -> None:
        """A port that is still closed.

        Args:
            shop: what it shows.
            access: its policy; the port in it is set when the port is bound.
            host: the address to bind.
            port: 0 takes a free one.
            feed: shared with another door of this process; one of its own if not given.
            tls: to speak TLS.
            limits: other than the protocol's own.
            ping_every_s: who answers none for as long is gone; None to send none.

        """
        self._shop = shop
        self._access = access
        self._host = host
        self._port = port
        self._given_feed = feed
        self._tls = tls
        self._limits = limits
        self._ping_every_s = ping_every_s
        self._server: Server | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self.feed: Feed | None = feed
        self.guard = Guard(access)

    async def start(self) -> int:
        """Open the port and give its number.

        Raises:
            OSError: it is taken, or not to be bound.
        """
        feed = self.feed = self._given_feed or Feed(self._shop)
        check = process_request(self.guard)
        try:
            self._server = await serve(
                lambda connection: self._serve(feed, cast("BoundedConnection", connection)),
                self._host,
                self._port,
                process_request=check,
                compression=None,
                max_size=MAX_MESSAGE_BYTES,
                close_timeout=CLOSE_TIMEOUT_S,
                ping_interval=self._ping_every_s,
                ping_timeout=self._ping_every_s,
                server_header=None,
                ssl=self._tls,
                backlog=WAITING_CONNECTIONS,
                create_connection=make_connection(),
                start_serving=False,
            )
        except BaseException:
            if self._given_feed is None:
                await feed.close()
            raise
        port = int(self._server.sockets[0].getsockname()[1])
        self.guard.access = replace(self._access, port=port)
        await self._server.start_serving()
        return port

    async def close(self) -> None:
        """Close every connection (1001), then the port."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
        if self.feed is not None and self._given_feed is None:
            await self.feed.close()

    async def _serve(self, feed: Feed, connection: BoundedConnection) -> None:
        """One connection, to its end."""
        verdict = connection_verdict(connection)
        port = TransportPort(connection)
        tune(connection.transport.get_extra_info("socket"))

        def close(code: int, reason: str) -> None:
            task = asyncio.get_running_loop().create_task(connection.close(code, reason))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

        peer = feed.join(
            port,
            role=verdict.role.value if isinstance(verdict, Allow) else None,
            verify=verifier(self.guard),
            by=caller_name(verdict, connection.remote_address[0]),
            close=close,
            limits=self._limits,
        )
        try:
            with suppress(ConnectionClosed):
                while True:
                    if peer.is_open:
                        connection.know()
                    await peer.receive(await connection.recv())
        finally:
            feed.leave(peer)


class BoundedConnection(ServerConnection):
    """One connection. `strangers` holds those of its port that have not shown who they are, the oldest first.

    Any process of the machine can connect: without a bound it could use up the files that the workshop may open.
    """

    strangers: dict[BoundedConnection, None]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take in a stranger; where there are too many, who has been one for longest must go."""
        super().connection_made(transport)
        self.strangers[self] = None
        if len(self.strangers) > MOST_STRANGERS:
            oldest = next(iter(self.strangers))
            oldest.know()
            oldest.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self.know()
        super().connection_lost(exc)

    def know(self) -> None:
        """Count it among the strangers no more."""
        self.strangers.pop(self, None)


def make_connection() -> type[BoundedConnection]:
    """The connections of one port, whose strangers are counted together."""
    return type("PortConnection", (BoundedConnection,), {"strangers": {}})


class TransportPort:
    """A connection of the `websockets` library as an outbox sees it: whole frames go past the library."""

    def __init__(self, connection: ServerConnection) -> None:
        """A port onto this open connection."""
        self._connection = connection
        self._protocol = connection.protocol
        self._transport = cast("asyncio.WriteTransport", connection.transport)

    def write(self, data: bytes) -> None:
        """Write whole frames, unless the end has begun."""
        if self._protocol.state is State.OPEN:
            self._transport.write(data)

    def backlog(self) -> int:
        """Bytes that the kernel has not taken yet."""
        return self._transport.get_write_buffer_size()

    def abort(self) -> None:
        """End the connection at once."""
        self._transport.abort()
