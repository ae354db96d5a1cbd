"""The agents' ASGI application: REST and MCP over one delegation, behind the guard."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from koubou_panel.core.ports import Shop
from koubou_panel.errors import Refused
from koubou_panel.servers.agents.delegate import Delegation
from koubou_panel.servers.agents.mcp import McpMount
from koubou_panel.servers.agents.metrics import Exposition
from koubou_panel.servers.agents.middleware import Guarded
from koubou_panel.servers.agents.rest import Rest
from koubou_panel.servers.agents.rest_http import failure
from koubou_panel.servers.guard import Guard


def make(shop: Shop, guard: Guard, *, agent_tasks: int = 100, ending: asyncio.Event | None = None) -> ASGIApp:
    """The application over `shop`, with `guard` before every request; an agent has at most `agent_tasks` in flight.

    Once `ending` is set, what is still open comes to its end: who waits is told how things stand.
    """
    ends = ending or asyncio.Event()
    delegation = Delegation(shop, agent_tasks=agent_tasks)
    exposition = Exposition(shop, time.time)
    mcp = McpMount(delegation)

    @asynccontextmanager
    async def running(_app: Starlette) -> AsyncIterator[None]:
        async with mcp.running():
            closing = asyncio.create_task(_end(mcp, ends))
            yield
            closing.cancel()
        exposition.close()
        delegation.close()

    app = Starlette(
        routes=[*Rest(delegation, exposition, ending=ends).routes(), mcp.route],
        lifespan=running,
        exception_handlers={HTTPException: _http_failure},
    )
    app.router.redirect_slashes = False
    return Guarded(app, guard, ending=ends)


async def _end(mcp: McpMount, ending: asyncio.Event) -> None:
    await ending.wait()
    await mcp.end()


async def _http_failure(request: Request, error: Exception) -> Response:
    """What the router itself refuses, in the words of the port."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    words = f"there is nothing at {request.url.path[:200]}; GET /openapi.json lists what there is"
    answer = failure(Refused("not_found", words if status == 404 else str(error)))  # noqa: PLR2004
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    return Response(answer.body, status, headers, answer.media)
