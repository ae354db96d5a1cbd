"""The agents' port around a shop, and a client of REST for it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2

from koubou_panel.core.ports import Shop
from koubou_panel.servers.access import Access
from koubou_panel.servers.agents.server import AgentsServer
from koubou_panel.servers.credentials import derive_read_token

TOKEN = "t" * 43
READ = derive_read_token(TOKEN)
JSON = {"Content-Type": "application/json"}


class Door:
    """An open agents' port."""

    def __init__(self, server: AgentsServer, port: int) -> None:
        self.server = server
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    def client(self, token: str | None = TOKEN, **options) -> httpx2.AsyncClient:
        """A client of REST, with credentials."""
        headers = {"User-Agent": "curl/8.5.0"}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        return httpx2.AsyncClient(base_url=self.url, headers=headers, trust_env=False, timeout=90, **options)


@asynccontextmanager
async def open_door(shop: Shop, *, agent_tasks: int = 100, **policy) -> AsyncIterator[Door]:
    """The agents' port of `shop`, answering."""
    policy = {"token": TOKEN, "read_token": READ, "port": 1} | policy
    server = AgentsServer(shop, Access(**policy), port=0, agent_tasks=agent_tasks)
    port = await server.start()
    await server.ready.wait()
    try:
        yield Door(server, port)
    finally:
        await server.close()
