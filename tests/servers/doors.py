"""Both WebSocket doors on ports of their own, around one shop, and a client that speaks to them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import tornado.httpserver
import tornado.netutil
import tornado.web
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.frames import Close

from koubou_panel.servers.access import Access
from koubou_panel.servers.credentials import derive_read_token
from koubou_panel.servers.feed import Feed
from koubou_panel.servers.guard import Guard, guard_application
from koubou_panel.servers.socket import SocketServer
from koubou_panel.servers.tornado_socket import ws_routes

TOKEN = "t" * 43
READ = derive_read_token(TOKEN)
DOORS = ["socket", "ws"]
SCRIPT = {"kind": "script", "spec": {"command": ["true"]}}


class Door:
    """An open door: its address, and the feed behind it."""

    def __init__(self, name: str, url: str, feed: Feed) -> None:
        self.name = name
        self.url = url
        self.feed = feed

    @property
    def port(self) -> int:
        return int(self.url.split(":")[2].split("/")[0])

    def connect(self, token: str | None = TOKEN, **options) -> connect:
        """A raw client; without a token it sends none."""
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        options = {"additional_headers": headers, "proxy": None, "max_size": None} | options
        return connect(self.url, **options)

    @asynccontextmanager
    async def client(self, token: str | None = TOKEN) -> AsyncIterator[Client]:
        """A client that has read the state it is sent first."""
        async with self.connect(token) as connection:
            client = Client(connection)
            client.state = await client.next("initial_state")
            yield client


class Client:
    """A client that says commands and reads messages."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.state: dict = {}
        self.seen: list[dict] = []

    async def say(self, command: str, **fields) -> None:
        await self.connection.send(json.dumps({"command": command} | fields))

    async def read(self, timeout: float = 10.0) -> dict:
        """The next message."""
        async with asyncio.timeout(timeout):
            message = json.loads(await self.connection.recv())
        self.seen.append(message)
        return message

    async def next(self, *types: str, timeout: float = 10.0) -> dict:
        """The next message of one of these types; others are kept in `seen`."""
        async with asyncio.timeout(timeout):
            while True:
                message = await self.read(timeout)
                if message["type"] in types:
                    return message

    async def ask(self, command: str, **fields) -> dict:
        """The reply to a command, told by its id."""
        await self.say(command, id="asked", **fields)
        async with asyncio.timeout(10):
            while True:
                message = await self.read()
                if message.get("id") == "asked":
                    return message


async def closes(connection) -> Close | None:
    """What the server closes a connection with."""
    async with asyncio.timeout(15):
        try:
            while True:
                await connection.recv()
        except ConnectionClosed as closed:
            return closed.rcvd


@asynccontextmanager
async def open_door(name: str, shop, *, limits=None, feed=None, **policy) -> AsyncIterator[Door]:
    """One of the doors around `shop`."""
    policy = {"token": TOKEN, "read_token": READ, "auth_by_frame": ("*",), "port": 1} | policy
    if name == "socket":
        server = SocketServer(shop, Access(**policy), port=0, limits=limits, feed=feed)
        port = await server.start()
        try:
            yield Door(name, f"ws://127.0.0.1:{port}/", server.feed)
        finally:
            await server.close()
        return
    sockets = tornado.netutil.bind_sockets(0, "127.0.0.1")
    port = sockets[0].getsockname()[1]
    guard = Guard(Access(**(policy | {"port": port})))
    feed = feed or Feed(shop)
    app = tornado.web.Application(ws_routes(lambda: feed, lambda: guard, limits=limits))
    guard_application(app, guard)
    http = tornado.httpserver.HTTPServer(app)
    http.add_sockets(sockets)
    try:
        yield Door(name, f"ws://127.0.0.1:{port}/ws", feed)
    finally:
        http.stop()
        await feed.close()
        await http.close_all_connections()
