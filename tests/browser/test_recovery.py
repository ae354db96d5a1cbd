"""Never a dead page: it tells what it is cut off from, and comes back by itself."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from playwright.async_api import expect

from koubou_panel.home import Home
from koubou_panel.servers.credentials import load_or_create_token
from koubou_panel.servers.private import PrivateServer
from koubou_panel.shop.local import LocalShop
from koubou_panel.testing import open_inline_shop, open_shop, submit, until
from tests.browser.pages import open_dashboard, open_page, way_in
from tests.ports import free_port

CUT = (
    "ERR_CONNECTION_REFUSED",
    "WebSocket",
    "Lost websocket",
    "Failed to connect to Bokeh server",
    "ERR_EMPTY_RESPONSE",
    "ERR_CONNECTION_RESET",
    "not connected so cannot send",
)
# At once, though it was a moment ago; gives the texts that it is to bring back.
AGAIN = """() => {
  sessionStorage.removeItem("koubou-again")
  koubouAgain()
  return JSON.parse(sessionStorage.getItem("koubou-typed")).kept.map(([, text]) => text)
}"""


@asynccontextmanager
async def private_link(shop: LocalShop, home: Home) -> AsyncIterator[None]:
    """The workshop's private socket, open."""
    private = PrivateServer(shop, home.socket)
    await private.start()
    try:
        yield
    finally:
        await private.close()


@asynccontextmanager
async def dashboard_process(home: Home, port: int) -> AsyncIterator[None]:
    """The dashboard as a process of its own, serving."""
    ready, ready_write = os.pipe()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "koubou_panel.servers.dashboard", "--home", str(home.root)),
        *("--dashboard-port", str(port), "--ready-fd", str(ready_write)),
        pass_fds=(ready_write,),
    )
    os.close(ready_write)
    try:
        with os.fdopen(ready, "rb") as file:
            assert json.loads(await asyncio.to_thread(file.readline))["port"] == port
        yield
    finally:
        process.kill()
        await process.wait()


async def test_a_page_survives_the_dashboards_restart(chromium: object, tmp_path: Path) -> None:
    """Killed and started again, the dashboard finds its page back, signed in and current."""
    home, port = Home(tmp_path), free_port()
    home.prepare()
    token = load_or_create_token(home.runtime, environ={})
    async with open_inline_shop() as shop, private_link(shop, home):
        first = dashboard_process(home, port)
        await first.__aenter__()
        async with open_page(chromium, way_in(port, token), forgive=CUT) as watch:
            await watch.shows(".pill", "live")
            await first.__aexit__(None, None, None)
            await watch.shows(".pill", "stale")
            await submit(shop, name="meanwhile")
            async with dashboard_process(home, port):
                await watch.shows(".pill", "live")
                await watch.shows(".running .list .row", "meanwhile")


async def test_the_pill_tells_of_a_workshop_that_is_away(chromium: object, tmp_path: Path) -> None:
    """With the dashboard up and the workshop gone the page says so, with its age; and when it is back, live."""
    home, port = Home(tmp_path), free_port()
    home.prepare()
    token = load_or_create_token(home.runtime, environ={})
    async with open_inline_shop() as shop:
        link = private_link(shop, home)
        await link.__aenter__()
        async with dashboard_process(home, port), open_page(chromium, way_in(port, token)) as watch:
            await watch.shows(".pill", "live")
            await link.__aexit__(None, None, None)
            await watch.shows(".pill", "reconnecting")
            await submit(shop, name="unseen as yet")
            async with private_link(shop, home):
                await watch.shows(".pill", "live")
                await watch.shows(".running .list .row", "unseen as yet")


async def test_a_cut_connection_heals(chromium: object, tmp_path: Path) -> None:
    """When only the page's connection is cut, it is there again within seconds, and what changed is shown."""
    async with (
        open_inline_shop() as shop,
        open_dashboard(shop, tmp_path) as dashboard,
        open_page(chromium, way_in(dashboard.port), forgive=CUT) as watch,
    ):
        first = await submit(shop, name="before the cut")
        await watch.shows(".running .list .row", "before the cut")
        for connection in tuple(dashboard._server._tornado._clients):
            connection._socket.close()
        shop.engine.finish(first)
        await submit(shop, name="after the cut")
        await watch.shows(".running .list .row", "after the cut")
        await watch.tile("completed", "1")
        await watch.shows(".pill", "live")


async def test_a_new_token_ends_open_pages(chromium: object, tmp_path: Path) -> None:
    """When the token is changed an open page is cut off and asks for the new one; typed there, it is where it was."""
    async with (
        open_inline_shop() as shop,
        open_dashboard(shop, tmp_path) as dashboard,
        open_page(chromium, way_in(dashboard.port), forgive=(*CUT, "401")) as watch,
    ):
        page = watch.page
        await watch.shows(".pill", "live")
        await page.goto(page.url + "?page=services")
        await watch.shows(".pill", "live")
        dashboard.rotate("another-token-of-this-test")
        await watch.shows("body", "Access needs the token")
        await expect(page.get_by_label("token")).to_be_focused()
        for typed in ("not-the-token", "ein Schlüssel — keiner"):
            await page.keyboard.type(typed)
            await page.keyboard.press("Enter")
            await watch.shows("[role=alert]", "token")
            await page.get_by_label("token").fill("")
        await page.keyboard.type("another-token-of-this-test")
        await page.keyboard.press("Enter")
        await page.wait_for_selector(".services", state="visible")
        assert page.url.endswith("?page=services")


@asynccontextmanager
async def asleep(browser: object) -> AsyncIterator[None]:
    """The browser's pages stand still, as while the machine sleeps: only the clock on the wall goes on."""
    devtools = await browser.new_browser_cdp_session()
    found = (await devtools.send("SystemInfo.getProcessInfo"))["processInfo"]
    renderers = [process["id"] for process in found if process["type"] == "renderer"]
    assert renderers
    for pid in renderers:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in renderers:
            os.kill(pid, signal.SIGCONT)


async def typed(page: object) -> str:
    """What stands in the run dialog's command."""
    return await page.input_value("[name=command]")


@pytest.mark.alone
async def test_a_page_is_live_soon_after_a_sleep(chromium: object, tmp_path: Path) -> None:
    """A machine slept until its session was forgotten: awake it is loaded again at once, with what was typed."""
    async with (
        open_inline_shop() as shop,
        open_dashboard(shop, tmp_path) as dashboard,
        open_page(chromium, way_in(dashboard.port), forgive=CUT) as watch,
    ):
        await watch.shows(".pill", "live")
        page, application = watch.page, dashboard._server._tornado
        await page.goto(page.url + "?page=services&run=command")
        await page.fill("[name=command]", "echo 'not yet sent'")
        async with asleep(chromium):
            for connection in tuple(application._clients):
                connection._socket.close()
            await until(lambda: not dashboard._server.get_sessions("/overview"), 40)
            await submit(shop, name="while it slept")
        await until(lambda: dashboard._server.get_sessions("/overview"), 4)
        await watch.shows(".pill", "live")
        await page.wait_for_url(lambda url: url.endswith("?page=services&run=command"))
        await page.wait_for_selector(".rundialog[open] [name=command]")
        await until(lambda: typed(page))
        await expect(page.locator("[name=command]")).to_have_value("echo 'not yet sent'")
        await page.keyboard.press("Escape")
        await watch.go("Overview")
        await watch.shows(".running .list .row", "while it slept")


async def test_without_a_network_the_pill_says_so(chromium: object, tmp_path: Path) -> None:
    """Offline it counts the age of what is seen, and asks for nothing; a form over it says so; online it is live."""
    async with (
        open_inline_shop() as shop,
        open_dashboard(shop, tmp_path) as dashboard,
        open_page(chromium, way_in(dashboard.port), forgive=(*CUT, "ERR_INTERNET_DISCONNECTED")) as watch,
    ):
        await watch.shows(".pill", "live")
        await watch.page.click(".bar > .run")
        await watch.page.wait_for_selector(".rundialog[open] [name=command]")
        await expect(watch.page.locator(".rundialog .cut")).to_be_hidden()
        await watch.page.context.set_offline(True)
        for connection in tuple(dashboard._server._tornado._clients):
            connection._socket.close()
        await watch.shows(".pill", "reconnecting")
        await watch.shows(".rundialog .cut", "What you typed is kept")
        await watch.page.context.set_offline(False)
        await watch.shows(".pill", "live")
        await expect(watch.page.locator(".rundialog .cut")).to_be_hidden()


async def load_again(page: object) -> list[str]:
    """Have the page load itself again, as after a restart of its server; the texts that it brings back."""
    async with page.expect_navigation():
        return await page.evaluate(AGAIN)


async def test_what_was_typed_comes_back_to_its_own_field(chromium: object, tmp_path: Path) -> None:
    """Loaded again by itself, a page has each text where it was typed; what it said itself was not typed."""
    async with (
        open_shop(tmp_path, workers=1) as shop,
        open_dashboard(shop, tmp_path, home=shop.home, environ={}) as dashboard,
        open_page(chromium, way_in(dashboard.port), forgive=CUT) as watch,
    ):
        page, address = watch.page, watch.page.url
        command = page.get_by_label("A command to run")
        await command.fill("echo typed")
        assert await load_again(page) == ["echo typed"]
        await expect(command).to_have_value("echo typed")
        (shop.home.root / "settings.toml").write_text('model_url = "http://127.0.0.1:1/v1"\n')
        await page.goto(address + "?page=settings")
        await expect(page.locator("#setting-model_url")).to_have_value("http://127.0.0.1:1/v1")
        await page.fill("#setting-grace_s", "12")
        assert await load_again(page) == []
        await watch.shows(".pending .diff .plus", "grace_s = 12.0")
        await watch.shows(".pending h2", "1 change, not saved yet")
        await expect(page.locator("#setting-model_file")).to_have_value("")
        await page.goto(address + "?page=scripts&add=1")
        form = page.locator(".scripts .add")
        await form.get_by_text("How it runs").click()
        await form.get_by_label("Arguments before its parameters").fill("--fast")
        assert await load_again(page) == []
        await watch.shows(".add .banner", "that was not saved")
        await expect(form.get_by_label("What it is for")).to_have_value("")
        await expect(form.get_by_label("Arguments before its parameters")).to_have_value("--fast")
