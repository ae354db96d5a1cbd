"""The sessions of 2025-11-25: so many for each who asks, so that nobody closes that version to the others."""

from __future__ import annotations

import asyncio
import json

from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp_types import INVALID_REQUEST
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS
from starlette.types import Message, Receive, Scope, Send

from koubou_panel.servers.agents.rest_http import RETRY_AFTER_S, Reply, header, respond

IDLE_S = 15 * 60.0
FRESH_IDLE_S = 60.0
MAX_SESSIONS = 512
MOST_EACH = 32
MAX_BODY_BYTES = 1 << 20
TOO_LARGE, UNAVAILABLE = 413, 503


class Sessions:
    """What stands before the SDK's manager, which counts all sessions together. Loop thread only.

    Args:
        manager: the SDK's; a session that it makes ends after `fresh_idle_s` without a request.
        idle_s: but one that was used again only after so many.
        most_each: one more of the same asker ends the one that has been idle longest.
    """

    def __init__(
        self, manager: StreamableHTTPSessionManager, *, idle_s: float = IDLE_S, most_each: int = MOST_EACH
    ) -> None:
        """No session yet."""
        self._manager = manager
        self._idle_s = idle_s
        self._most_each = most_each
        self._used: dict[str, float] = {}

    async def handle(self, actor: str, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request of `actor`."""
        session_id = header(scope, b"mcp-session-id")
        version = header(scope, b"mcp-protocol-version")
        opens = not session_id and scope["method"] == "POST"
        if opens and (not version or version in HANDSHAKE_PROTOCOL_VERSIONS):
            await self._make_room(actor)
        elif self._owner(session_id) == actor:
            self._use(session_id)
        try:
            await self._manager.handle_request(scope, receive, _Answer(self, send).send)
        finally:
            if session_id in self._used:
                self._used[session_id] = asyncio.get_running_loop().time()

    def note(self, session_id: str) -> None:
        """A session was opened."""
        self._used.setdefault(session_id, asyncio.get_running_loop().time())

    def _owner(self, session_id: str) -> str | None:
        owner = self._manager._session_owners.get(session_id)  # noqa: SLF001 - the manager tells nobody
        return None if owner is None else owner["client_id"]

    def _use(self, session_id: str) -> None:
        """Who comes back to a session goes on with it: from here on it may be idle for longer."""
        self.note(session_id)
        transport = self._manager._server_instances.get(session_id)  # noqa: SLF001
        if transport is not None:
            transport._idle_timeout = self._idle_s  # noqa: SLF001

    async def _make_room(self, actor: str) -> None:
        """End as many of the asker's sessions as one more takes: those not in use first, the longest idle first."""
        known = self._manager._server_instances  # noqa: SLF001
        self._used = {one: at for one, at in self._used.items() if one in known}
        mine = [one for one in known if self._owner(one) == actor]
        mine.sort(key=lambda one: (known[one]._requests_in_flight > 0, self._used.get(one, 0.0)))  # noqa: SLF001
        for one in mine[: max(0, len(mine) + 1 - self._most_each)]:
            transport = known.get(one)
            if transport is not None:
                await self._manager._discard_session(one, transport)  # noqa: SLF001


class _Answer:
    """One answer on its way out, with what the SDK leaves out of it."""

    def __init__(self, sessions: Sessions, send: Send) -> None:
        self._sessions = sessions
        self._send = send
        self._is_ours = False

    async def send(self, message: Message) -> None:
        if self._is_ours:
            return
        if message["type"] == "http.response.start":
            for name, value in message["headers"]:
                if name.lower() == b"mcp-session-id":
                    self._sessions.note(value.decode("latin-1"))
            if message["status"] == TOO_LARGE:
                self._is_ours = True
                await respond(self._send, too_large())
                return
            if message["status"] == UNAVAILABLE:
                again = (b"retry-after", str(RETRY_AFTER_S).encode())
                message = {**message, "headers": [*message["headers"], again]}
        await self._send(message)


def too_large() -> Reply:
    """The answer to a body that is too large, as every other failure of the protocol."""
    error = {"code": INVALID_REQUEST, "message": f"the body is larger than {MAX_BODY_BYTES} bytes"}
    return Reply(json.dumps({"jsonrpc": "2.0", "id": None, "error": error}).encode(), TOO_LARGE)
