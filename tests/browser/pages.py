"""A page in a real browser that notes what must not happen, and the dashboard that serves it."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from koubou_panel.core.ports import Shop
from koubou_panel.servers.credentials import mint_code
from koubou_panel.servers.dashboard import Dashboard
from koubou_panel.testing import until
from tests.browser.chromium import PATIENCE_MS

TOKEN = "the-token-of-this-test"
DESKTOP = {"viewport": {"width": 1440, "height": 900}}
PHONE = {
    "viewport": {"width": 390, "height": 844},
    "is_mobile": True,
    "has_touch": True,
    "device_scale_factor": 2,
}
TILES = ["pending", "running", "completed", "failed", "success", "workers"]


@dataclass
class Watch:
    """A page, and what went wrong on it."""

    page: object
    asked: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    async def text(self, selector: str) -> str:
        """The text of the first match, white space evened out."""
        return " ".join((await self.page.locator(selector).first.inner_text()).split())

    async def shows(self, selector: str, wanted: str, timeout: float = PATIENCE_MS / 1000) -> None:
        """Wait until the first match contains `wanted`."""
        found = ""

        async def is_shown() -> bool:
            nonlocal found
            if not await self.page.locator(selector).count():
                return False
            found = await self.text(selector)
            return wanted in found

        try:
            await until(is_shown, timeout)
        except AssertionError:
            raise AssertionError(f"{selector} never showed {wanted!r}; last: {found!r}") from None

    async def go(self, label: str) -> None:
        """Go to a page by its name: in the bar, or in the menu of a phone."""
        # Which links fit in the bar is known once a frame of this size has been painted.
        await self.page.evaluate(
            "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
        )
        link = self.page.locator(".pages > a", has_text=label)
        if await link.is_visible():
            await link.click()
            return
        more = self.page.locator(".pages > .more")
        opener = more if await more.is_visible() else self.page.locator(".menubutton")
        await opener.click()
        await self.page.locator(".moremenu a:visible, .allpages a:visible", has_text=label).click()

    async def tile(self, key: str, wanted: str) -> None:
        """Wait until a tile's number is `wanted`."""
        await self.shows(f".tile >> nth={TILES.index(key)} >> .value", wanted)


@asynccontextmanager
async def open_page(
    browser: object, url: str, *, forgive: tuple[str, ...] = (), script: str = "", **options: object
) -> AsyncIterator[Watch]:
    """A page that has shown its tiles. At its end it must have asked no other host, and logged no error.

    Args:
        browser: the Chromium.
        url: where it goes first.
        forgive: parts of messages that this test expects on the console.
        script: runs in the page before anything of its own.
        options: the context's: viewport, colour scheme, …

    """
    context = await browser.new_context(**(options or DESKTOP))
    context.set_default_timeout(PATIENCE_MS)
    if script:
        await context.add_init_script(script)
    page = await context.new_page()
    watch = Watch(page)
    host = "/".join(url.split("/")[:3])
    page.on("request", lambda request: watch.asked.append(request.url))
    page.on("websocket", lambda socket: watch.asked.append(socket.url.replace("ws://", "http://")))
    page.on("pageerror", lambda error: watch.wrong.append(f"error: {error}"))
    page.on("dialog", lambda dialog: watch.wrong.append(f"dialog: {dialog.message}"))
    page.on(
        "console",
        lambda message: (
            watch.wrong.append(f"{message.type}: {message.text}")
            if message.type in ("error", "warning")
            else None
        ),
    )
    try:
        await page.goto(url)
        await page.wait_for_selector(".tile")
        yield watch
    finally:
        await context.close()
    outside = [url for url in watch.asked if not url.startswith((host, "blob:" + host, "data:"))]
    assert outside == [], f"the page asked another host: {outside[:5]}"
    wrong = [line for line in watch.wrong if not any(part in line for part in forgive)]
    assert not wrong, f"the page logged errors: {wrong}"


@asynccontextmanager
async def open_dashboard(shop: Shop, folder: Path, **options: object) -> AsyncIterator[Dashboard]:
    """A dashboard in this process, on a free port, that forgets a closed page at once."""
    dashboard = Dashboard(shop, token=TOKEN, sessions=folder / "sessions", **({"linger_s": 3.0} | options))
    try:
        yield dashboard
    finally:
        await dashboard.close()


def way_in(port: int, token: str = TOKEN) -> str:
    """The link that opens the dashboard in a browser, once."""
    return f"http://127.0.0.1:{port}/login?code={mint_code(token, time.time())}"
