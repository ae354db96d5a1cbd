"""The guard before an ASGI application: REST, MCP and whatever is mounted beside them, every verb and path."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from koubou_panel.servers.access import Allow, Refuse, Request
from koubou_panel.servers.guard import Guard, refusal

VERDICT = "koubou"


class Guarded:
    """`app` behind `guard`; what lets a request in stands in its scope under `VERDICT`."""

    def __init__(self, app: ASGIApp, guard: Guard) -> None:
        """Stand before `app`."""
        self._app = app
        self._guard = guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it here."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        verdict = self._guard.check(request_of(scope))
        if isinstance(verdict, Allow):
            await self._app({**scope, VERDICT: verdict}, receive, send)
            return
        refuse = verdict if isinstance(verdict, Refuse) else Refuse(401, "unauthorized", "Send credentials.")
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        answer = refusal(refuse)
        headers = [("content-type", f"{answer.content_type}; charset=utf-8"), *answer.headers]
        pairs = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers]
        await send({"type": "http.response.start", "status": answer.status, "headers": pairs})
        await send({"type": "http.response.body", "body": answer.text.encode()})


def request_of(scope: Scope) -> Request:
    """What the guard needs of an ASGI scope."""

    def every(name: bytes) -> tuple[str, ...]:
        return tuple(value.decode("latin-1") for key, value in scope["headers"] if key == name)

    client = scope.get("client")
    return Request(
        method=scope.get("method", "GET"),
        path=scope["path"],
        host=every(b"host"),
        peer=client[0] if client else "",
        origin=every(b"origin"),
        authorization=every(b"authorization"),
        websocket=scope["type"] == "websocket",
    )
