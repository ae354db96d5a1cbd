"""An MCP server on a port of its own behind the guard, and the SDK's own client for it, on either protocol version."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
import uvicorn
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import CallToolResult, Implementation
from starlette.applications import Starlette

from koubou_panel.core.ports import Shop
from koubou_panel.servers import child
from koubou_panel.servers.access import Access
from koubou_panel.servers.agents.delegate import Delegation
from koubou_panel.servers.agents.mcp import McpMount
from koubou_panel.servers.agents.mcp_frame import Frame, Mount
from koubou_panel.servers.agents.middleware import Guarded
from koubou_panel.servers.credentials import derive_read_token
from koubou_panel.servers.guard import Guard
from koubou_panel.testing import until

TOKEN = "t" * 43
READ = derive_read_token(TOKEN)
MODERN = "2026-07-28"
LEGACY = "2025-11-25"
VERSIONS = [MODERN, LEGACY]
MODES = {MODERN: "auto", LEGACY: "legacy"}


class Door:
    """An open port, what serves there, and clients for it."""

    def __init__(self, port: int, mount: Mount | None = None) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}/mcp"
        self.mount = mount
        self.frame: Frame | None = None
        self.shop: Shop | None = None
        self.delegation: Delegation | None = None

    def waits(self) -> int:
        """How many wait for a task."""
        return len(self.delegation._watches)

    def sessions(self) -> int:
        """How many sessions there are."""
        return len(self.mount.manager._server_instances)

    def http(self, token: str | None = TOKEN) -> httpx2.AsyncClient:
        """A plain HTTP client that presents `token`."""
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return httpx2.AsyncClient(headers=headers, timeout=httpx2.Timeout(30, read=60), trust_env=False)

    @asynccontextmanager
    async def client(
        self, version: str = MODERN, *, token: str | None = TOKEN, name: str = "tester", **options
    ) -> AsyncIterator[Client]:
        """The SDK's client, connected."""
        info = Implementation(name=name, version="1")
        async with self.http(token) as http:
            transport = streamable_http_client(self.url, http_client=http)
            async with Client(transport, mode=MODES[version], client_info=info, **options) as client:
                yield client


@asynccontextmanager
async def serve(mount: Mount, **options) -> AsyncIterator[Door]:
    """Serve `mount` as the agents' port does: uvicorn in this loop, the guard before everything."""
    sock = child.bind("127.0.0.1", 0, flag="--agents-port")
    port = sock.getsockname()[1]
    access = Access(token=TOKEN, read_token=READ, port=port, **options)
    door = Door(port, mount)

    @asynccontextmanager
    async def running(_app: Starlette) -> AsyncIterator[None]:
        async with mount.running() as frame:
            door.frame = frame
            yield

    app = Guarded(Starlette(routes=[mount.route], lifespan=running), Guard(access))
    config = uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    server.capture_signals = contextlib.nullcontext
    serving = asyncio.create_task(server.serve(sockets=[sock]))
    try:
        await until(lambda: server.started)
        yield door
    finally:
        server.should_exit = True
        await serving
        sock.close()


@asynccontextmanager
async def open_door(shop: Shop, *, agent_tasks: int = 100, **options) -> AsyncIterator[Door]:
    """The MCP server of `shop`."""
    delegation = Delegation(shop, agent_tasks=agent_tasks)
    try:
        async with serve(McpMount(delegation, **options)) as door:
            door.shop, door.delegation = shop, delegation
            yield door
    finally:
        delegation.close()


def good(result: CallToolResult) -> dict:
    """What a tool answered: its structured content, which its text says too."""
    assert not result.is_error, result.content
    assert json.loads(result.content[0].text) == result.structured_content
    return result.structured_content


def bad(result: CallToolResult) -> dict:
    """What a tool refused with."""
    assert result.is_error, result.content
    return json.loads(result.content[0].text)["error"]
