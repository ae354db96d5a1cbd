"""`shop.state` in a Panel server: each session its own, ended with it."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import panel as pn
import pytest
from bokeh.client import pull_session
from panel.models.tabulator import DataTabulator

from koubou_panel import Workshop
from koubou_panel.testing import until

APP = Path(__file__).parents[2] / "apps" / "own_panel.py"


@pytest.fixture
def shop(tmp_path):
    """A workshop held here."""
    with Workshop(tmp_path / "home", workers=1) as opened:
        yield opened


class Server:
    """A Panel server on this loop, as `panel serve` runs one."""

    def __init__(self, app) -> None:
        self._server = pn.serve(
            {"app": app},
            start=False,
            threaded=False,
            show=False,
            port=0,
            address="127.0.0.1",
            check_unused_sessions_milliseconds=50,
            unused_session_lifetime_milliseconds=50,
        )

    async def __aenter__(self):
        self._server.start()
        return self

    async def __aexit__(self, *args):
        await until(lambda: not self._server.get_sessions("/app"))
        self._server.stop()
        await self._server._http.close_all_connections()

    async def visit(self):
        """A browser's session."""
        return await Visit().open(f"http://127.0.0.1:{self._server.port}/app")


class Visit:
    """A session of Bokeh's own client, on a thread of its own: it has a loop there."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1)

    async def open(self, url):
        """Load the page."""
        loop = asyncio.get_running_loop()
        self._session = await loop.run_in_executor(self._thread, partial(pull_session, url=url))
        self.document = self._session.document
        return self

    async def close(self):
        """Leave it."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._session.close)
        self._thread.shutdown()


async def test_each_session_has_its_own_and_leaves_nothing(shop) -> None:
    """Twenty sessions opened and closed leave no subscriber, no model and no door."""
    seen = []

    def app():
        state = shop.state
        assert shop.state is state
        seen.append(id(state))
        return pn.pane.Str(pn.bind(str, state.param.completed))

    hub = shop.shop.hub
    before = hub.subscribers
    async with Server(app) as server:
        visits = await asyncio.gather(*(server.visit() for _ in range(20)))
        assert hub.subscribers == before + 1  # one door, shared by all
        (door,) = shop.hops._made.values()
        assert door.subscribers == len(shop._states) == len(set(seen)) == 20
        await asyncio.gather(*(visit.close() for visit in visits))
        await until(lambda: hub.subscribers == before)
        assert door.subscribers == len(shop._states) == len(shop.hops) == 0


async def test_what_changes_is_in_the_sessions_document(shop) -> None:
    """A bound pane's text changes in the document that its browser follows, without anything asked."""
    told = []

    def app():
        pn.state.curdoc.on_change(lambda event: told.append(str(getattr(event, "new", ""))))
        return pn.pane.Str(pn.bind("{} done".format, shop.state.param.completed))

    async with Server(app) as server:
        visit = await server.visit()
        shop.submit(pow, 2, 3).result(20)
        await until(lambda: any("1 done" in text for text in told))
        await visit.close()


async def test_the_example_shows_the_workshop(shop, monkeypatch) -> None:
    """The app of the docs runs as it stands, and its table has what was done."""
    monkeypatch.setenv("KOUBOU_HOME", str(shop.home.root))
    shop.run("true", name="<b>bold</b>").result(20)
    async with Server(str(APP)) as server:
        visit = await server.visit()
        (table,) = visit.document.select({"type": DataTabulator})
        assert list(table.source.data["task"]) == ["<b>bold</b>"]
        assert list(table.source.data["status"]) == ["completed"]
        await visit.close()
    for made in pn.state.cache.values():
        await asyncio.to_thread(made[0].shutdown)
    pn.state.cache.clear()
