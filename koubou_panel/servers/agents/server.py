"""The agents' port of the workshop process: an ASGI application served by uvicorn in the shop's own loop.

The port is bound at once, so that a taken one is told at the start; what speaks HTTP is loaded after that, off the
loop, and who connects meanwhile waits for a moment.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from dataclasses import replace
from importlib import import_module

from koubou_panel.core.ports import Shop
from koubou_panel.servers import child
from koubou_panel.servers.access import Access
from koubou_panel.servers.guard import Guard

PORT_FLAG = "--agents-port"
END_S = 2

log = logging.getLogger(__name__)


class AgentsServer:
    """The port; `start` opens it, `close` ends every connection. Loop thread only.

    Args:
        shop: what it serves.
        access: its policy; the port in it is set when the port is bound.
        host: the address to bind.
        port: 0 takes a free one.
        agent_tasks: how many unfinished tasks one agent may have.
    """

    def __init__(
        self,
        shop: Shop,
        access: Access,
        *,
        host: str = "127.0.0.1",
        port: int = 8765,
        agent_tasks: int = 100,
    ) -> None:
        """A port that is still closed."""
        self._agent_tasks = agent_tasks
        self._shop = shop
        self._access = access
        self._host = host
        self._port = port
        self.guard = Guard(access)
        self.ready = asyncio.Event()
        self._ending = asyncio.Event()
        self._work: asyncio.Task[None] | None = None

    async def start(self) -> int:
        """Open the port and give its number; `ready` is set once requests are answered.

        Raises:
            CannotStart: it is taken, or not to be bound.
        """
        sock = child.bind(self._host, self._port, flag=PORT_FLAG)
        self._port = int(sock.getsockname()[1])
        self.guard.access = replace(self._access, port=self._port)
        self._work = asyncio.create_task(self._serve(sock))
        return self._port

    async def close(self) -> None:
        """Answer no more."""
        self._ending.set()
        if self._work is not None:
            if (
                not self.ready.is_set()
            ):  # what speaks HTTP is still being loaded, and nobody needs it any more
                self._work.cancel()
            await asyncio.wait({self._work})

    async def _serve(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        try:
            app = await loop.run_in_executor(None, import_module, "koubou_panel.servers.agents.app")
            if self._ending.is_set():
                return
            import uvicorn

            from koubou_panel.servers.agents.protocol import KEEP_ALIVE_S, make_protocol

            config = uvicorn.Config(
                app.make(self._shop, self.guard, agent_tasks=self._agent_tasks, ending=self._ending),
                log_config=None,
                access_log=False,
                http=make_protocol(),
                ws="none",
                server_header=False,
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=END_S,
            )
            server = uvicorn.Server(config)
            server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign, assignment]
            startup = server.startup

            async def started(sockets: list[socket.socket] | None = None) -> None:
                await startup(sockets)
                self.ready.set()

            server.startup = started  # type: ignore[method-assign]
            serving = loop.create_task(server.serve(sockets=[sock]))
            await self._ending.wait()
            server.should_exit = True
            await serving
        except Exception:
            log.exception("the agents' port is closed")
        finally:
            sock.close()
