"""Who wants to know that a resource changed, and telling them: on both protocol versions, never more than asked for.

On 2026-07-28 a client listens on a stream of its own; on 2025-11-25 it subscribes within its session. Either way it is
told that something changed, not what: several changes in a row are one notice, so nothing piles up for a slow reader.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from mcp.server.connection import Connection
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.subscriptions import InMemorySubscriptionBus, ResourcesListChanged, ResourceUpdated
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS, EmptyResult, SubscribeRequestParams, UnsubscribeRequestParams

GAP_S = 0.5
MOST_URIS = 200
LIST = ""
"""What stands for the list of resources among the addresses that are wanted."""


class Notices:
    """The notices of one server. Loop thread only.

    Args:
        is_known: whether there is, or can be, a resource of this address.
    """

    def __init__(self, is_known: Callable[[str], bool]) -> None:
        """Nobody wants to know anything yet."""
        self.bus = InMemorySubscriptionBus()
        self.wanted: Counter[str] = Counter()
        self._is_known = is_known
        self._changed: dict[str, None] = {}
        self._sessions: dict[Connection, _Session] = {}
        self._telling: asyncio.Task[None] | None = None

    @property
    def sessions(self) -> int:
        """How many sessions of 2025-11-25 subscribe to something."""
        return len(self._sessions)

    def touch(self, uri: str) -> None:
        """Say that the resource at `uri` (or `LIST`) changed; whoever wants to know is told soon."""
        if uri not in self.wanted:
            return
        self._changed[uri] = None
        if self._telling is None:
            self._telling = asyncio.get_running_loop().create_task(self._tell())

    def touch_all(self) -> None:
        """Say that everything may have changed."""
        for uri in list(self.wanted):
            self.touch(uri)

    def close(self) -> None:
        """Tell nobody any more."""
        if self._telling is not None:
            self._telling.cancel()
        for session in list(self._sessions.values()):
            session.close()

    async def _tell(self) -> None:
        """Tell of what changed, and go on until nothing does for a moment."""
        try:
            while self._changed:
                changed, self._changed = self._changed, {}
                for uri in changed:
                    for session in self._sessions.values():
                        session.touch(uri)
                    await self.bus.publish(ResourceUpdated(uri) if uri else ResourcesListChanged())
                await asyncio.sleep(GAP_S)
        finally:
            self._telling = None

    @contextmanager
    def _wanting(self, uris: Iterable[str]) -> Iterator[None]:
        uris = list(uris)
        self.wanted.update(uris)
        try:
            yield
        finally:
            self._want_no_more(uris)

    def _want_no_more(self, uris: Iterable[str]) -> None:
        self.wanted.subtract(uris)
        for uri in uris:
            if not self.wanted[uri]:
                del self.wanted[uri]

    # -- 2026-07-28: a stream that listens --------------------------------------------------------------------

    async def middleware(self, ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
        """Know what a stream listens to, for as long as it does."""
        if ctx.method != "subscriptions/listen":
            return await call_next(ctx)
        with self._wanting(_listened(ctx)):
            return await call_next(ctx)

    # -- 2025-11-25: a session that subscribes ----------------------------------------------------------------

    async def subscribe(
        self, ctx: ServerRequestContext[Any, Any], params: SubscribeRequestParams
    ) -> EmptyResult:
        """Tell this session when the resource changes."""
        uri = str(params.uri)
        if not self._is_known(uri):
            raise MCPError(INVALID_PARAMS, f"Unknown resource: {uri[:200]}", {"uri": uri[:200]})
        # The SDK gives handlers no other way to what lives as long as the session.
        connection = ctx.session._connection  # noqa: SLF001
        session = self._sessions.get(connection)
        if session is None:
            session = self._sessions[connection] = _Session(connection)
            connection.exit_stack.callback(self._forget, connection)
        if uri not in session.uris:
            if len(session.uris) >= MOST_URIS:
                raise _too_many()
            session.uris.add(uri)
            self.wanted[uri] += 1
        return EmptyResult()

    async def unsubscribe(
        self, ctx: ServerRequestContext[Any, Any], params: UnsubscribeRequestParams
    ) -> EmptyResult:
        """Tell this session no more."""
        uri = str(params.uri)
        session = self._sessions.get(ctx.session._connection)  # noqa: SLF001 - as in `subscribe`
        if session is not None and uri in session.uris:
            session.uris.discard(uri)
            self._want_no_more([uri])
        return EmptyResult()

    def _forget(self, connection: Connection) -> None:
        session = self._sessions.pop(connection)
        session.close()
        self._want_no_more(session.uris)


class _Session:
    """A session that subscribes: what to, and what it is still to be told. One that does not read holds up no other."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.uris: set[str] = set()
        self._changed: dict[str, None] = {}
        self._telling: asyncio.Task[None] | None = None

    def touch(self, uri: str) -> None:
        if uri in self.uris:
            self._changed[uri] = None
            if self._telling is None:
                self._telling = asyncio.get_running_loop().create_task(self._tell())

    def close(self) -> None:
        if self._telling is not None:
            self._telling.cancel()

    async def _tell(self) -> None:
        try:
            while self._changed:
                uri = next(iter(self._changed))
                del self._changed[uri]
                await self._connection.send_resource_updated(uri)
        finally:
            self._telling = None


def _listened(ctx: ServerRequestContext[Any, Any]) -> list[str]:
    """What a request to listen names; what is wrong with it is for the SDK to say."""
    asked: Any = (ctx.params or {}).get("notifications")
    if not isinstance(asked, dict):
        return []
    uris = asked.get("resourceSubscriptions")
    uris = [uri for uri in uris if isinstance(uri, str)] if isinstance(uris, list) else []
    if len(uris) > MOST_URIS:
        raise _too_many()
    return [*dict.fromkeys(uris), *([LIST] if asked.get("resourcesListChanged") is True else [])]


def _too_many() -> MCPError:
    return MCPError(INVALID_PARAMS, f"Subscribe to at most {MOST_URIS} resources at once")
