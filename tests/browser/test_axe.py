"""axe-core finds nothing serious on any page: desktop and phone, dark and light.

axe-core is an npm package, which `make test` puts into the virtual environment.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import AsyncIterator
from functools import cache
from pathlib import Path

import pytest

from koubou_panel.core.events import ServiceChanged
from koubou_panel.core.records import Service
from koubou_panel.home import Home
from koubou_panel.testing import open_shop
from tests.browser.busy import Busy, fill
from tests.browser.pages import DESKTOP, PHONE, Watch, open_dashboard, open_page, way_in
from tests.browser.tour import stops

AXE = Path(sys.prefix) / "axe/node_modules/axe-core/axe.min.js"
SIZES = {"desktop": DESKTOP, "phone": PHONE}
THEMES = ("dark", "light")

pytestmark = pytest.mark.skipif(
    not AXE.exists() and os.environ.get("CI") != "true",
    reason="!!! NO AXE-CORE: `make axe` installs it",
)

# What serious means is axe's word. Each finding: the rule, what it is about, and the first places.
LOOK = """async rules => {
  const {violations} = await axe.run(document, {resultTypes: ["violations"], ...rules})
  return violations.filter(({impact}) => ["serious", "critical"].includes(impact)).map(({id, help, nodes}) =>
    `${id}: ${help}: ` + nodes.slice(0, 4).map(({target, html, any}) =>
      `${target.flat().join(" >> ")} ${html.slice(0, 140)} ${any[0]?.message.slice(0, 150) || ""}`).join(" | "))
}"""
ALL_RULES: dict[str, object] = {}
COLOURS: dict[str, object] = {"runOnly": ["color-contrast"]}


@cache
def source() -> str:
    """What axe-core is."""
    return AXE.read_text(encoding="utf-8")


async def findings(watch: Watch, place: str) -> AsyncIterator[str]:
    """What axe has against a place, in both themes: of the second one only its colours differ."""
    for theme, rules in zip(THEMES, (ALL_RULES, COLOURS), strict=True):
        await watch.page.evaluate("theme => { document.documentElement.dataset.theme = theme }", theme)
        for fault in await watch.page.evaluate(LOOK, rules):
            yield f"{place}, {theme}: {fault}"


async def look_at_all(watch: Watch, busy: Busy) -> list[str]:
    """What axe has against any place."""
    # A colour on its way from one to another is none that anybody reads.
    await watch.page.emulate_media(reduced_motion="reduce")
    await watch.page.evaluate(source())
    found = []
    async for place in stops(watch, (busy.running, busy.failed)):
        found += [fault async for fault in findings(watch, place)]
    return found


@pytest.mark.parametrize("size", SIZES)
async def test_axe_finds_nothing_serious(chromium: object, tmp_path: Path, size: str) -> None:
    """No page, form or task has a serious or critical fault, in either theme."""
    failed = Service(
        "model", "failed", restarts=5, message="it ended with code 3. Its last lines:\n  no memory"
    )
    async with open_shop(tmp_path) as shop, open_dashboard(shop, tmp_path, home=Home(tmp_path)) as dashboard:
        busy = await fill(shop)
        for service in (Service("pool", "running", pid=41, started_at=time.time()), failed):
            shop.hub.note(ServiceChanged(time.time(), service))
        async with open_page(chromium, way_in(dashboard.port), **SIZES[size]) as watch:
            assert await look_at_all(watch, busy) == []


async def test_axe_sees_what_is_wrong(chromium: object) -> None:
    """A page with faults of each severe kind is not passed: the silence above means something."""
    page = await chromium.new_page()
    await page.set_content(
        "<html lang=en><title>x</title><main><button></button><input><h1 style='color:#eee'>too pale</h1>"
    )
    await page.evaluate(source())
    found = {fault.partition(":")[0] for fault in await page.evaluate(LOOK, ALL_RULES)}
    assert found == {"button-name", "label", "color-contrast"}
