"""The dashboard's port: pages, health and `/ws` behind the guard; and the process that serves them."""

import asyncio
import json
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tornado.httpclient import AsyncHTTPClient, HTTPRequest, HTTPResponse
from websockets.asyncio.client import connect

from koubou_panel.core.ports import Shop
from koubou_panel.core.script import MAX_TEXT_BYTES
from koubou_panel.home import Home
from koubou_panel.servers.credentials import load_or_create_token, mint_code
from koubou_panel.servers.dashboard import MESSAGE_BYTES, Dashboard
from koubou_panel.servers.private import PrivateServer
from koubou_panel.testing import open_inline_shop, submit

TOKEN = "the-token-of-this-test"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


@asynccontextmanager
async def open_dashboard(shop: Shop, folder: Path, **options: object) -> AsyncIterator[Dashboard]:
    """A dashboard in this process, on a free port."""
    dashboard = Dashboard(shop, token=TOKEN, sessions=folder / "sessions", **options)
    try:
        yield dashboard
    finally:
        await dashboard.close()


async def get(dashboard: Dashboard, path: str, **headers: str) -> HTTPResponse:
    """A GET, redirects not followed."""
    request = HTTPRequest(
        f"http://127.0.0.1:{dashboard.port}{path}",
        headers=headers,
        follow_redirects=False,
        decompress_response=True,
    )
    return await AsyncHTTPClient(force_instance=True).fetch(request, raise_error=False)


def test_a_page_may_send_the_longest_text() -> None:
    """However its characters are written, the message is not so long that the connection is cut."""
    for text in ("\0" * MAX_TEXT_BYTES, "\u5de5" * (MAX_TEXT_BYTES // 3), '"' * MAX_TEXT_BYTES):
        assert len(json.dumps({"type": "ask", "text": text})) < MESSAGE_BYTES


async def test_the_page_is_served_to_who_has_the_token(tmp_path: Path) -> None:
    """With the token the page comes, complete with its frame; `/` leads to it."""
    async with open_inline_shop() as shop, open_dashboard(shop, tmp_path) as dashboard:
        root = await get(dashboard, "/", **BEARER)
        assert (root.code, root.headers["Location"]) == (302, "/overview")
        page = await get(dashboard, "/overview", **BEARER)
        assert page.code == 200
        assert f'data-boot="{dashboard.boot_id}"' in page.body.decode()
        assert page.body.decode().count('class="k-') > 10


@pytest.mark.parametrize(
    "path", ["/", "/overview", "/healthz", "/ws", "/static/js/bokeh.min.js", "/overview/ws"]
)
async def test_nothing_is_served_without_credentials(tmp_path: Path, path: str) -> None:
    """Every path, static files too, asks for credentials."""
    async with open_inline_shop() as shop, open_dashboard(shop, tmp_path) as dashboard:
        assert (await get(dashboard, path)).code == 401
        assert (await get(dashboard, path, Host="evil.example", **BEARER)).code == 403
        assert (await get(dashboard, path, Origin="http://evil.example", **BEARER)).code == 403


async def test_a_login_code_opens_the_page_in_a_browser(tmp_path: Path) -> None:
    """The link that `koubou up` prints gives a cookie, and the cookie opens the page."""
    async with open_inline_shop() as shop, open_dashboard(shop, tmp_path) as dashboard:
        import time

        login = await get(dashboard, f"/login?code={mint_code(TOKEN, time.time())}")
        cookie = login.headers["Set-Cookie"].partition(";")[0]
        assert (await get(dashboard, "/overview", Cookie=cookie)).code == 200
        dashboard.rotate("another-token-of-this-test")
        assert (await get(dashboard, "/overview", Cookie=cookie)).code == 401


async def test_only_the_pages_own_scripts_run(tmp_path: Path) -> None:
    """The script policy names a nonce, new for each page, and each script of the page has it."""
    async with open_inline_shop() as shop, open_dashboard(shop, tmp_path) as dashboard:
        nonces = set()
        for _ in range(2):
            page = await get(dashboard, "/overview", **BEARER)
            policy = page.headers["Content-Security-Policy"]
            found = re.search(r"'nonce-([\w-]+)'", policy)
            assert found
            nonces.add(found[1])
            scripts_from = re.search(r"script-src ([^;]*)", policy)
            assert scripts_from
            assert "'unsafe-inline'" not in scripts_from[1]
            scripts = re.findall(r"<script[^>]*>", page.body.decode())
            assert len(scripts) > 5
            assert all(f'nonce="{found[1]}"' in script for script in scripts)
        assert len(nonces) == 2


async def test_no_header_or_cookie_is_put_into_the_page(tmp_path: Path) -> None:
    """The session token in the page is signed, and carries none of what the request carried."""
    import base64

    async with open_inline_shop() as shop, open_dashboard(shop, tmp_path) as dashboard:
        page = (await get(dashboard, "/overview", Cookie="secret=1234", **BEARER)).body.decode()
        token = re.search(r'"token":"([^"]+)"', page)
        assert token
        payload, _, signature = token[1].partition(".")
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        assert signature
        assert not claims.get("headers")
        assert not claims.get("cookies")
        assert TOKEN not in page
        assert "1234" not in str(claims)


async def test_health_tells_which_process_this_is(tmp_path: Path) -> None:
    """`/healthz` has the boot id that the page compares, and how fresh the replica is."""
    async with open_inline_shop() as shop, open_dashboard(shop, tmp_path) as dashboard:
        health = json.loads((await get(dashboard, "/healthz", **BEARER)).body)
        assert health == {"boot": dashboard.boot_id, "status": "ok", "link": "live", "lag_s": 0.0}


async def test_the_public_protocol_is_on_the_same_port(tmp_path: Path) -> None:
    """`/ws` speaks the protocol: the first message is the state."""
    async with open_inline_shop() as shop, open_dashboard(shop, tmp_path) as dashboard:
        await submit(shop)
        url = f"ws://127.0.0.1:{dashboard.port}/ws"
        async with connect(url, additional_headers=BEARER, compression=None) as ws:
            state = json.loads(await ws.recv())
            assert state["type"] == "initial_state"
            assert state["data"]["tasks"]["in_progress"] == 1


async def test_warming_up_asks_for_the_page(tmp_path: Path) -> None:
    """Warming up makes one page, as a visitor would."""
    async with open_inline_shop() as shop, open_dashboard(shop, tmp_path) as dashboard:
        before = shop.hub.subscribers
        await dashboard.warm_up()
        assert shop.hub.subscribers == before + 1


# -- the process ----------------------------------------------------------------------------------------------


@asynccontextmanager
async def dashboard_process(
    home: Home, *flags: str
) -> AsyncIterator[tuple[asyncio.subprocess.Process, dict, int]]:
    """The dashboard's process, what it announced, and the end of its life pipe."""
    ready, ready_write = os.pipe()
    life, life_write = os.pipe()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "koubou_panel.servers.dashboard", "--home", str(home.root)),
        *("--ready-fd", str(ready_write), "--life-fd", str(life), *flags),
        pass_fds=(ready_write, life),
    )
    os.close(ready_write)
    os.close(life)
    line = await asyncio.to_thread(_read_line, ready)
    try:
        yield process, json.loads(line), life_write
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def _read_line(fd: int) -> bytes:
    with os.fdopen(fd, "rb") as file:
        return file.readline()


@asynccontextmanager
async def open_home(folder: Path) -> AsyncIterator[Home]:
    """A home with a workshop behind its private socket."""
    home = Home(folder)
    home.prepare()
    load_or_create_token(home.runtime, environ={})
    async with open_inline_shop() as shop:
        private = PrivateServer(shop, home.socket)
        await private.start()
        try:
            yield home
        finally:
            await private.close()


async def test_the_process_serves_and_ends(tmp_path: Path) -> None:
    """The process announces its port, serves there, and ends by TERM within a moment."""
    async with (
        open_home(tmp_path) as home,
        dashboard_process(home, "--dashboard-port", "0") as (process, told, life),
    ):
        token = load_or_create_token(home.runtime, environ={})
        answer = await AsyncHTTPClient(force_instance=True).fetch(
            f"http://127.0.0.1:{told['port']}/healthz", headers={"Authorization": f"Bearer {token}"}
        )
        assert json.loads(answer.body)["link"] == "live"
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 5) == 0
        os.close(life)


async def test_the_process_ends_with_its_parent(tmp_path: Path) -> None:
    """When the life pipe ends, so does the process."""
    async with (
        open_home(tmp_path) as home,
        dashboard_process(home, "--dashboard-port", "0") as (process, _, life),
    ):
        os.close(life)
        assert await asyncio.wait_for(process.wait(), 5) == 0


async def test_a_taken_port_is_73(tmp_path: Path) -> None:
    """A port that is taken is told to the supervisor, with exit code 73."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        async with (
            open_home(tmp_path) as home,
            dashboard_process(home, "--dashboard-port", str(port)) as (process, told, life),
        ):
            assert await asyncio.wait_for(process.wait(), 5) == 73
            assert told["exit"] == 73
            assert str(port) in told["error"]
            os.close(life)
