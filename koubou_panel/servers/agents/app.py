"""The agents' ASGI application: what it serves, behind the guard."""

from __future__ import annotations

from importlib.metadata import version

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from koubou_panel.core.ports import Shop
from koubou_panel.servers.agents.middleware import Guarded
from koubou_panel.servers.guard import Guard


def make(shop: Shop, guard: Guard) -> ASGIApp:
    """The application over `shop`, with `guard` before every request."""

    async def health(_request: Request) -> JSONResponse:
        return JSONResponse(
            {"status": "healthy", "version": version("koubou-panel"), "epoch": shop.state.epoch}
        )

    return Guarded(Starlette(routes=[Route("/health", health)]), guard)
