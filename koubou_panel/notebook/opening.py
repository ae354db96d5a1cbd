"""Attaches to the workshop that runs at a home, or holds one here."""

from __future__ import annotations

import asyncio
import os
import time
from functools import partial
from pathlib import Path

from koubou_panel import running, settings
from koubou_panel.errors import Refused
from koubou_panel.home import Home, HomeTaken
from koubou_panel.servers.own_model import OwnModel
from koubou_panel.servers.private import PrivateServer
from koubou_panel.shop.ended import is_supervised, why_ended
from koubou_panel.shop.kept import Retention
from koubou_panel.shop.local import LocalShop
from koubou_panel.shop.remote import RemoteShop

START_LIMIT_S = 30.0


def usual_home() -> Path:
    """The folder of the workshop that is meant where none is named; within a task, that of its own workshop."""
    own = running.home_of_worker()
    return own if own is not None and "KOUBOU_HOME" not in os.environ else settings.load(os.environ).home


class Held:
    """What goes with a workshop that is held here: the door for others, and the model that prompts may need."""

    def __init__(self, server: PrivateServer, model: OwnModel) -> None:
        """Both are open."""
        self._server = server
        self._model = model

    async def close(self) -> None:
        """Close both."""
        await self._model.close()
        await self._server.close()


Opened = tuple[RemoteShop, None] | tuple[LocalShop, Held]


async def opened(home: Home, *, by: str, workers: tuple[int, int] | None) -> Opened:
    """The workshop of `home`, with the server for others where it is held here.

    One that another process holds and is just closing, so that it takes no work any more, is waited for to be gone.

    Raises:
        HomeTaken: another process holds the home and does not answer.
        Refused: `version`: the workshop that runs is of another version.
    """
    home.prepare()
    deadline = time.monotonic() + START_LIMIT_S
    while True:
        is_late = time.monotonic() > deadline
        try:
            found = await _opened_once(home, by, workers)
        except HomeTaken:
            if is_late:
                raise
        else:
            if found[1] is not None or is_late or not await _is_leaving(found[0], home):
                return found
            await found[0].close()
        await asyncio.sleep(0.1)


async def _is_leaving(shop: RemoteShop, home: Home) -> bool:
    """Whether it ends, and for good: one with a supervisor may come back, and is followed."""
    return shop.state.pool.closing and not await asyncio.to_thread(is_supervised, home)


async def _opened_once(home: Home, by: str, workers: tuple[int, int] | None) -> Opened:
    try:
        return await RemoteShop.connect(home.socket, by=by, why_ended=partial(why_ended, home)), None
    except Refused as refusal:
        if refusal.code != "unavailable":  # somebody answers, and will answer the same next time
            raise
    home.lock()
    try:
        wanted = settings.load(os.environ, {"home": home.root})
        kept = Retention.of(wanted.values_days, wanted.values_gb)
        shop = await LocalShop.open(home, workers=workers, retention=kept)
    except BaseException:
        home.unlock()
        raise
    server = PrivateServer(shop, home.socket, home.is_in_place)
    await server.start()
    return shop, Held(server, OwnModel.of(shop, os.environ))
