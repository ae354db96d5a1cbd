"""The guard before an ASGI application: REST, MCP and whatever is mounted beside them, every verb and path."""

from __future__ import annotations

import asyncio
from http import HTTPStatus

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from koubou_panel.errors import Refused
from koubou_panel.servers.access import Allow, Refuse, Request
from koubou_panel.servers.agents.rest_http import VERDICT, failure, respond
from koubou_panel.servers.guard import Guard

__all__ = ["VERDICT", "Guarded", "request_of"]

_CHALLENGE = ("WWW-Authenticate", 'Bearer realm="koubou"')
_CREDENTIALS = Refuse(401, "unauthorized", "Send credentials: `Authorization: Bearer TOKEN`.")
_GONE = Refuse(401, "unauthorized", "This token was revoked meanwhile: ask for another.")
_CLOSING = Refuse(503, "unavailable", "The workshop is closing: what was stored goes on when it is back.")


class Guarded:
    """`app` behind `guard`; what lets a request in stands in its scope under `VERDICT`.

    Args:
        app: what is guarded.
        guard: the port's guard.
        ending: set when the port is about to close.
    """

    def __init__(self, app: ASGIApp, guard: Guard, *, ending: asyncio.Event | None = None) -> None:
        """Stand before `app`."""
        self._ending = ending or asyncio.Event()
        self._app = app
        self._guard = guard
        self._open: dict[asyncio.Task[object], Request] = {}
        self._cut: set[asyncio.Task[object]] = set()
        guard.on_change = self.look_again

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it here."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        request = request_of(scope)
        verdict = self._guard.check(request)
        if isinstance(verdict, Allow) and scope["type"] == "http":
            await self._pass(request, {**scope, VERDICT: verdict}, receive, send)
        elif scope["type"] == "websocket":  # none is served here
            await send({"type": "websocket.close", "code": 1008})
        else:
            await _refuse(verdict if isinstance(verdict, Refuse) else _CREDENTIALS, scope, send)

    def look_again(self) -> None:
        """Cut off every request that the guard would let in no more: its token was revoked, or changed."""
        for task, request in tuple(self._open.items()):
            if not isinstance(self._guard.check(request), Allow):
                self._cut.add(task)
                task.cancel()

    async def _pass(self, request: Request, scope: Scope, receive: Receive, send: Send) -> None:
        has_begun = is_whole = False

        async def sending(message: Message) -> None:
            nonlocal has_begun, is_whole
            has_begun = True
            is_whole = message["type"] == "http.response.body" and not message.get("more_body", False)
            await send(message)

        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a server runs each request in a task
        self._open[task] = request
        try:
            await self._app(scope, receive, sending)
        except asyncio.CancelledError:
            # The server itself cuts off what is still open when a closing port has waited long enough.
            if task not in self._cut and not self._ending.is_set():
                raise
            task.uncancel()
            if not has_begun:
                await _refuse(_GONE if task in self._cut else _CLOSING, scope, send)
            elif not is_whole:
                await send({"type": "http.response.body", "body": b""})
        finally:
            self._open.pop(task, None)
            self._cut.discard(task)


async def _refuse(refuse: Refuse, scope: Scope, send: Send) -> None:
    """Answer in the words of the port: JSON, as every failure on it."""
    answer = failure(Refused(refuse.code, refuse.message))._replace(status=refuse.status)
    if refuse.status == HTTPStatus.UNAUTHORIZED:
        answer = answer._replace(headers=(_CHALLENGE,))
    await respond(send, answer, with_body=scope.get("method") != "HEAD")


def request_of(scope: Scope) -> Request:
    """What the guard needs of an ASGI scope."""
    found: dict[bytes, list[str]] = {b"host": [], b"origin": [], b"authorization": []}
    for name, value in scope["headers"]:
        if name in found:
            found[name].append(value.decode("latin-1"))
    client = scope.get("client")
    return Request(
        method=scope.get("method", "GET"),
        path=scope["path"],
        host=tuple(found[b"host"]),
        peer=client[0] if client else "",
        origin=tuple(found[b"origin"]),
        authorization=tuple(found[b"authorization"]),
        websocket=scope["type"] == "websocket",
    )
