"""A real workshop with its agents' port open, and the SDK's own client for it, on either protocol version."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import CallToolResult, Implementation

from koubou_panel.core.ports import Shop
from koubou_panel.servers.access import Access
from koubou_panel.servers.agents.server import AgentsServer
from koubou_panel.servers.credentials import derive_read_token

TOKEN = "t" * 43
READ = derive_read_token(TOKEN)
MODERN = "2026-07-28"
LEGACY = "2025-11-25"
VERSIONS = [MODERN, LEGACY]
MODES = {MODERN: MODERN, LEGACY: "legacy"}


class Door:
    """An open agents' port."""

    def __init__(self, server: AgentsServer, port: int) -> None:
        self.server = server
        self.port = port
        self.url = f"http://127.0.0.1:{port}/mcp"

    @asynccontextmanager
    async def client(
        self, version: str = MODERN, *, token: str = TOKEN, name: str = "tester", **options
    ) -> AsyncIterator[Client]:
        """The SDK's client, connected."""
        headers = {"Authorization": f"Bearer {token}"}
        info = Implementation(name=name, version="1")
        async with (
            httpx2.AsyncClient(headers=headers, timeout=httpx2.Timeout(30, read=60), trust_env=False) as http,
            Client(
                streamable_http_client(self.url, http_client=http),
                mode=MODES[version],
                client_info=info,
                **options,
            ) as client,
        ):
            yield client


@asynccontextmanager
async def open_door(shop: Shop, **options) -> AsyncIterator[Door]:
    """The agents' port of `shop`, answering."""
    access = Access(token=TOKEN, read_token=READ, port=1, **options)
    server = AgentsServer(shop, access, port=0)
    port = await server.start()
    try:
        async with asyncio.timeout(30):
            await server.ready.wait()
        yield Door(server, port)
    finally:
        await server.close()


def good(result: CallToolResult) -> dict:
    """What a tool answered: its structured content, which its text says too."""
    assert not result.is_error, result.content
    assert json.loads(result.content[0].text) == result.structured_content
    return result.structured_content


def bad(result: CallToolResult) -> dict:
    """What a tool refused with."""
    assert result.is_error, result.content
    return json.loads(result.content[0].text)["error"]
