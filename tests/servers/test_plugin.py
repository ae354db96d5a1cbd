"""The dashboard under `panel serve`: with the plug-in behind the guard, without it one line of advice."""

import asyncio
import json
import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tornado.httpclient import AsyncHTTPClient, HTTPResponse
from websockets.asyncio.client import connect

from koubou_panel.home import Home
from koubou_panel.servers.credentials import load_or_create_token, rotate_token
from koubou_panel.servers.private import PrivateServer
from koubou_panel.testing import open_inline_shop, until

APP = Path(__file__).resolve().parents[2] / "apps" / "dashboard.py"
PLUGIN = ("--plugins", "koubou_panel.servers.plugin")


@asynccontextmanager
async def panel_serve(home: Home, *flags: str) -> AsyncIterator[tuple[int, str]]:
    """`panel serve apps/dashboard.py` on a free port: the port, and what it has printed by then."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "panel", "serve", str(APP), "--port", str(port), *flags),
        env=os.environ | {"KOUBOU_HOME": str(home.root)},
        cwd=home.root,
        stderr=asyncio.subprocess.PIPE,
    )
    said = b""
    try:
        while b"Bokeh app running" not in said:
            line = await asyncio.wait_for(process.stderr.readline(), 30)
            assert line, said.decode()
            said += line
        reading = asyncio.create_task(process.stderr.read())
        yield port, said.decode()
    finally:
        process.terminate()
        await process.wait()
        await reading


@asynccontextmanager
async def open_home(folder: Path) -> AsyncIterator[Home]:
    """A home with a workshop behind its private socket."""
    home = Home(folder)
    home.prepare()
    async with open_inline_shop() as shop:
        private = PrivateServer(shop, home.socket)
        await private.start()
        try:
            yield home
        finally:
            await private.close()


async def get(port: int, path: str, **headers: str) -> HTTPResponse:
    """A GET, redirects followed."""
    client = AsyncHTTPClient(force_instance=True)
    return await client.fetch(f"http://127.0.0.1:{port}{path}", headers=headers, raise_error=False)


async def test_with_the_plugin_it_is_the_dashboard(tmp_path: Path) -> None:
    """Guarded on every path, with `/ws`, signed sessions and the script policy."""
    async with open_home(tmp_path) as home, panel_serve(home, *PLUGIN) as (port, said):
        bearer = {"Authorization": f"Bearer {load_or_create_token(home.runtime, environ={})}"}
        for path in ("/dashboard", "/ws", "/healthz", "/static/js/bokeh.min.js", "/dashboard/ws"):
            assert (await get(port, path)).code == 401

        async def is_attached() -> bool:
            return json.loads((await get(port, "/healthz", **bearer)).body)["link"] == "live"

        await until(is_attached)
        page = await get(port, "/dashboard", **bearer)
        assert 'class="k-page"' in page.body.decode()
        assert "'nonce-" in page.headers["Content-Security-Policy"]
        assert re.search(r'"token":"[^".]+\.[^"]+"', page.body.decode())
        async with connect(f"ws://127.0.0.1:{port}/ws", additional_headers=bearer, compression=None) as ws:
            assert json.loads(await ws.recv())["type"] == "initial_state"
        way_in = re.search(r"/login\?code=\S+", said)
        assert way_in
        assert "Signed in" in (await get(port, way_in[0])).body.decode()


async def test_without_a_workshop_it_says_how_to_start_one(tmp_path: Path) -> None:
    """Where no workshop answers the page says so, asks again by itself, and `/ws` is not there yet."""
    home = Home(tmp_path)
    home.prepare()
    async with panel_serve(home, *PLUGIN) as (port, _):
        bearer = {"Authorization": f"Bearer {load_or_create_token(home.runtime, environ={})}"}
        page = (await get(port, "/dashboard", **bearer)).body.decode()
        assert "koubou up" in page
        assert 'http-equiv="refresh"' in page
        assert (await get(port, "/ws", **bearer)).code == 503


async def test_without_the_plugin_a_visitor_gets_one_line(tmp_path: Path) -> None:
    """A bare `panel serve` shows nothing of the workshop to who has no token, and says how to start it right."""
    async with open_home(tmp_path) as home, panel_serve(home) as (port, _):
        bearer = {"Authorization": f"Bearer {load_or_create_token(home.runtime, environ={})}"}
        page = (await get(port, "/dashboard")).body.decode()
        assert "--plugins koubou_panel.servers.plugin" in page
        assert 'class="k-page"' not in page
        foreign = (await get(port, "/dashboard", Host="evil.example", **bearer)).body.decode()
        assert 'class="k-page"' not in foreign

        async def is_shown() -> bool:
            return 'class="k-page"' in (await get(port, "/dashboard", **bearer)).body.decode()

        await until(is_shown)


def page_socket(port: int, page: str, **headers: str) -> connect:
    """The WebSocket of a page that was loaded, as its own script opens it."""
    found = re.search(r'"token":"([^"]+)"', page)
    assert found
    return connect(
        f"ws://127.0.0.1:{port}/dashboard/ws",
        subprotocols=["bokeh", found[1]],
        additional_headers=headers,
        compression=None,
    )


async def test_a_new_token_ends_what_the_old_one_opened(tmp_path: Path) -> None:
    """Within seconds of a rotation the old token, its cookies, its pages and its connections are at their end."""
    async with open_home(tmp_path) as home, panel_serve(home, *PLUGIN) as (port, said):
        old = {"Authorization": f"Bearer {load_or_create_token(home.runtime, environ={})}"}

        async def is_attached() -> bool:
            return json.loads((await get(port, "/healthz", **old)).body)["link"] == "live"

        await until(is_attached)
        way_in = re.search(r"/login\?code=\S+", said)
        assert way_in
        signed_in = await AsyncHTTPClient(force_instance=True).fetch(
            f"http://127.0.0.1:{port}{way_in[0]}", follow_redirects=False, raise_error=False
        )
        cookie = {"Cookie": signed_in.headers["Set-Cookie"].partition(";")[0]}
        page = (await get(port, "/dashboard", **cookie)).body.decode()
        async with (
            connect(f"ws://127.0.0.1:{port}/ws", additional_headers=old, compression=None) as feed,
            page_socket(port, page, **cookie) as shown,
        ):
            new = {"Authorization": f"Bearer {rotate_token(home.runtime)}"}
            for socket in (feed, shown):
                await asyncio.wait_for(socket.wait_closed(), 10)
                assert socket.close_code == 4401
        for stale in (old, cookie):
            assert (await get(port, "/dashboard", **stale)).code == 401
        assert (await get(port, "/dashboard", **new)).code == 200


async def test_without_the_plugin_a_new_token_counts_too(tmp_path: Path) -> None:
    """A bare `panel serve` lets the old token in no more, and empties the pages that it opened."""
    async with open_home(tmp_path) as home, panel_serve(home) as (port, _):
        old = {"Authorization": f"Bearer {load_or_create_token(home.runtime, environ={})}"}

        async def page(headers: dict[str, str]) -> str:
            return (await get(port, "/dashboard", **headers)).body.decode()

        async def is_shown() -> bool:
            return 'class="k-page"' in await page(old)

        await until(is_shown)
        async with page_socket(port, await page(old)) as shown:
            new = {"Authorization": f"Bearer {rotate_token(home.runtime)}"}

            async def is_emptied() -> bool:
                said = await asyncio.wait_for(shown.recv(), 10)
                return "RootRemoved" in str(said)

            await until(is_emptied)
        assert 'class="k-page"' not in await page(old)
        assert 'class="k-page"' in await page(new)
