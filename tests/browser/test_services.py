"""The Services page in a real browser."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from koubou_panel.core.events import ServiceChanged
from koubou_panel.core.records import Service
from koubou_panel.testing import open_shop, until
from tests.browser.pages import DESKTOP, PHONE, open_dashboard, open_page, way_in

SIZES = [pytest.param(DESKTOP, id="desktop"), pytest.param(PHONE, id="phone")]
FAILED = "it ended with code 3, 6 times in a minute. Its last lines:\n  no memory\n  <b>left</b>"


@pytest.mark.parametrize("options", SIZES)
async def test_services_are_shown_as_they_change(
    chromium: object, tmp_path: Path, options: dict[str, object]
) -> None:
    """The page has an address of its own; a service's failure shows at once, with its last lines, and has a way out."""
    asked: list[str] = []

    def restart(name: str) -> bool:
        asked.append(name)
        return True

    async with (
        open_shop(tmp_path, workers=1) as shop,
        open_dashboard(shop, tmp_path, label="demo", restart_service=restart) as dashboard,
        open_page(chromium, way_in(dashboard.port), **options) as watch,
    ):
        page = watch.page

        def note(name: str, state: str, **fields: object) -> None:
            shop.hub.note(ServiceChanged(time.time(), Service(name, state, **fields)))

        note("pool", "running", pid=41, started_at=time.time() - 300)
        note("model", "idle")
        note("dashboard", "running", pid=42, port=8080, started_at=time.time() - 300)
        await watch.shows(".bar .label", "demo".upper())
        await watch.go("Services")
        await page.wait_for_url(lambda url: url.endswith("/overview?page=services"))
        await page.wait_for_selector(".tiles", state="hidden")
        await watch.shows(".services .row >> nth=0", "Model server idle")
        await watch.shows(".services .row >> nth=2 >> .up", "5 min")
        note("pool", "failed", message=FAILED, restarts=5)
        await watch.shows(".services .row.failed", "failed")
        await watch.shows(".services .row.failed .about", "it ended with code 3, 6 times in a minute")
        await watch.shows(".services .row.failed .last", "no memory <b>left</b>")
        await watch.shows(".attention", "Worker pool failed")
        assert await page.evaluate("document.documentElement.scrollWidth") <= options["viewport"]["width"]
        bar = await page.locator(".bar").bounding_box()
        assert bar["height"] <= 48
        button = page.locator(".services .row.failed .restart")
        if options is PHONE:
            boxes = [await button.bounding_box(), await page.locator(".tabs a").first.bounding_box()]
            assert [box for box in boxes if box["height"] < 44] == []
        await button.click()
        await watch.shows(".services .row.failed .restart", "Sure?")
        await watch.shows(".services .row.failed .warning:visible", "restart together")
        assert asked == []
        await button.click()
        await until(lambda: asked == ["pool"])
        await page.reload()
        await watch.shows(".services .row.failed .about", "it ended with code 3")
        await watch.go("Overview")
        await page.wait_for_selector(".tiles")
        await page.wait_for_url(lambda url: url.endswith("/overview"))
        await page.go_back()
        await page.wait_for_selector(".services .row")
