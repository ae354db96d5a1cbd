"""The agents' ASGI application: what it serves, behind the guard."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from koubou_panel.core.ports import Shop
from koubou_panel.servers.agents.delegate import Delegation
from koubou_panel.servers.agents.mcp import make_server
from koubou_panel.servers.agents.mcp_frame import Mount
from koubou_panel.servers.agents.middleware import Guarded
from koubou_panel.servers.guard import Guard


def make(shop: Shop, guard: Guard, *, agent_tasks: int = 100) -> ASGIApp:
    """The application over `shop`, with `guard` before every request; an agent has at most `agent_tasks` in flight."""
    delegation = Delegation(shop, agent_tasks=agent_tasks)
    mcp = Mount(lambda: make_server(delegation))

    async def health(_request: Request) -> JSONResponse:
        return JSONResponse(
            {"status": "healthy", "version": version("koubou-panel"), "epoch": shop.state.epoch}
        )

    @asynccontextmanager
    async def running(_app: Starlette) -> AsyncIterator[None]:
        async with mcp.running():
            yield
        delegation.close()

    return Guarded(Starlette(routes=[Route("/health", health), mcp.route], lifespan=running), guard)
