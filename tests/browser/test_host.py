"""The System and the Settings page in a real browser, over a real workshop."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from playwright.async_api import expect

from koubou_panel.testing import open_shop, until
from tests.browser.pages import DESKTOP, PHONE, Watch, open_dashboard, open_page, way_in

SIZES = [pytest.param(DESKTOP, id="desktop"), pytest.param(PHONE, id="phone")]


@asynccontextmanager
async def open_host(
    chromium: object, folder: Path, options: dict[str, object], asked: list[str]
) -> AsyncIterator[tuple[Watch, Path]]:
    """A page over a workshop with a home, and that home's settings file."""

    def restart(name: str) -> bool:
        asked.append(name)
        return True

    async with (
        open_shop(folder, workers=1) as shop,
        open_dashboard(shop, folder, home=shop.home, environ={}, restart_service=restart) as dashboard,
        open_page(chromium, way_in(dashboard.port), **options) as watch,
    ):
        yield watch, shop.home.root / "settings.toml"


async def is_too_wide(watch: Watch, options: dict[str, object]) -> bool:
    """Whether the page has to be scrolled sideways."""
    return await watch.page.evaluate("document.documentElement.scrollWidth") > options["viewport"]["width"]


async def see_the_host(watch: Watch, options: dict[str, object]) -> None:
    """Live and over a day, by an address; on a phone one figure at a time."""
    page = watch.page
    await watch.go("System")
    await watch.shows(".cores .percent", "%")
    await watch.shows(".systemhead", "of memory")
    await watch.shows(".ownuse tbody", "This program")
    if options is PHONE:
        await page.click(".figures button:text-is('Memory')")
        await page.wait_for_selector(".charthead h2:text-is('Memory and disk, percent'):visible")
        await page.wait_for_selector(".charthead h2:text-is('Load')", state="hidden")
        button = await page.locator(".spans button").first.bounding_box()
        assert button["height"] >= 44
    await page.click(".spans button:text-is('24 h')")
    await page.wait_for_selector(".spans button[aria-pressed=true]:text-is('24 h')")
    await page.wait_for_url(lambda url: url.endswith("?page=system&span=24h"))
    assert not await is_too_wide(watch, options)
    await page.reload()
    await page.wait_for_selector(".spans button[aria-pressed=true]:text-is('24 h')")
    await page.go_back()
    await page.wait_for_selector(".spans button[aria-pressed=true]:text-is('15 min')")


async def change_a_setting(watch: Watch, options: dict[str, object], file: Path, asked: list[str]) -> None:
    """Its fault at the field, the difference before the save, the restart, and the way back."""
    page = watch.page
    await page.fill("#setting-agents_port", "99999")
    await watch.shows(".setting .amiss:visible", "must be a port")
    await expect(page.locator(".pending .save")).to_be_disabled()
    await page.fill("#setting-agents_port", "")
    await page.wait_for_selector(".pending", state="hidden")
    await page.fill("#setting-model", "small <b>one</b>")
    await watch.shows(".pending .diff .plus", 'model = "small <b>one</b>"')
    assert not file.exists()
    assert not await is_too_wide(watch, options)
    await page.click(".pending .save")
    await watch.shows(".told .said", "Saved.")
    assert file.read_text() == 'model = "small <b>one</b>"\n'
    await page.click(".told .restart")
    assert asked == []
    await page.click(".told .restart")
    await until(lambda: asked == ["pool"])
    if options is PHONE:
        boxes = [await page.locator(name).first.bounding_box() for name in (".told .undo", "#setting-model")]
        assert [box for box in boxes if box["height"] < 44] == []
    await page.click(".told .undo")
    await watch.shows(".told .said", "as it was before")
    assert file.read_text() == ""


async def meet_another_writer(watch: Watch, file: Path) -> None:
    """A file that was changed meanwhile is not overwritten before it was looked at again; a default is one click."""
    page = watch.page
    await page.fill("#setting-grace_s", "7")
    await watch.shows(".pending .diff .plus", "grace_s = 7.0")
    file.write_text("grace_s = 9\n")
    await page.click(".pending .save")
    await watch.shows(".told .said", "meanwhile")
    await watch.shows(".pending .diff .minus", "grace_s = 9")
    await page.click(".pending .save")
    await watch.shows(".told .said", "Saved.")
    await page.click(".setting .back:visible")
    await watch.shows(".pending .diff .minus", "grace_s = 7.0")
    await page.click(".pending .drop")
    await page.wait_for_selector(".pending", state="hidden")
    assert file.read_text() == "grace_s = 7.0\n"


@pytest.mark.parametrize("options", SIZES)
async def test_the_host_and_the_settings(
    chromium: object, tmp_path: Path, options: dict[str, object]
) -> None:
    """The host is seen live and over a day; a setting is mended, looked at, saved and taken back."""
    asked: list[str] = []
    async with open_host(chromium, tmp_path, options, asked) as (watch, file):
        await see_the_host(watch, options)
        await watch.go("Settings")
        await change_a_setting(watch, options, file, asked)
        await meet_another_writer(watch, file)
