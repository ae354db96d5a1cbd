"""A workshop that notes something all the time: `python notes_server.py PORT`, until it is killed."""

from __future__ import annotations

import asyncio
import itertools
import sys
import time

from koubou_panel.core.events import SystemNoted
from koubou_panel.servers.access import Access
from koubou_panel.servers.socket import SocketServer
from koubou_panel.testing import open_inline_shop


async def main(port: int) -> None:
    """Serve, and say `ready`."""
    async with open_inline_shop(clock=time.time) as shop:
        server = SocketServer(shop, Access(token="t" * 43, port=port), port=port)
        await server.start()
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        for n in itertools.count():
            shop.hub.note(SystemNoted(time.time(), "tick", f"number {n}", {"n": n}))
            await asyncio.sleep(0.01)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
