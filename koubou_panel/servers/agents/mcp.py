"""The workshop as an MCP server: tools, resources and prompts over one delegation."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from koubou_panel.servers.agents.delegate import Delegation
from koubou_panel.servers.agents.mcp_frame import Frame, Mount
from koubou_panel.servers.agents.mcp_prompts import add_prompts
from koubou_panel.servers.agents.mcp_resources import Changes, add_resources
from koubou_panel.servers.agents.mcp_sessions import IDLE_S, MAX_SESSIONS, MOST_EACH
from koubou_panel.servers.agents.mcp_tools import add_tools

INSTRUCTIONS = """\
This is a workshop on the user's own machine. It runs long work (commands, registered scripts, prompts to a local \
language model) in worker processes, and goes on when you leave.

Submit, keep the id, do something else, then `wait` for it. Submit independent tasks at once and wait for all of them \
together; say `after` where one needs another. Read output in pieces from `next_offset`. Refusals name the field at \
fault. Somebody may watch your tasks live on the workshop's page: give them names that say what they are for.
"""


def make_server(delegation: Delegation) -> Frame:
    """The server with all that it offers."""
    frame = Frame(
        "koubou-panel", title="Koubou Panel", version=version("koubou-panel"), instructions=INSTRUCTIONS
    )
    add_tools(frame, delegation)
    add_resources(frame, delegation.shop)
    add_prompts(frame, delegation)
    return frame


class McpMount(Mount):
    """The workshop's MCP server as a part of the agents' application."""

    def __init__(
        self,
        delegation: Delegation,
        *,
        idle_s: float = IDLE_S,
        max_sessions: int = MAX_SESSIONS,
        most_each: int = MOST_EACH,
    ) -> None:
        """Serve what `delegation` can do."""
        super().__init__(
            lambda: make_server(delegation), idle_s=idle_s, max_sessions=max_sessions, most_each=most_each
        )
        self._shop = delegation.shop

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Frame]:
        """Serve, and tell of changes, while this is entered; once."""
        async with super().running() as frame:
            unsubscribe = self._shop.subscribe(Changes(frame.notices))
            try:
                yield frame
            finally:
                unsubscribe()
