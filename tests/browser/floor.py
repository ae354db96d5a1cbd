"""One workshop, one browser and one page for all tests of a module: each of them goes where it has to.

A module takes it as its fixture `floor`, a desktop's and then a phone's:

    from tests.browser.floor import clean_page, make_floor
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import pytest_asyncio

from koubou_panel.shop.local import LocalShop
from koubou_panel.testing import open_shop
from tests.browser.pages import DESKTOP, PHONE, Watch, open_dashboard, open_page, way_in
from tests.browser.tour import settle, turn_to

SIZES = {"desktop": DESKTOP, "phone": PHONE}
ASLEEP = ("sleep", "600")
DROP = """([node, name, text]) => {
  const data = new DataTransfer()
  data.items.add(new File([text], name))
  for (const type of ["dragover", "drop"]) {
    node.dispatchEvent(new DragEvent(type, {dataTransfer: data, bubbles: true, cancelable: true, composed: true}))
  }
}"""


@dataclass
class Floor:
    """A real workshop, and its page in a real browser."""

    shop: LocalShop
    watch: Watch
    size: str
    folder: Path
    restarted: list[str] = field(default_factory=list)

    @property
    def page(self) -> object:
        """The browser's page."""
        return self.watch.page

    @property
    def is_phone(self) -> bool:
        """Whether it is 390 px wide."""
        return self.size == "phone"

    async def go(self, page: str = "", **values: str) -> None:
        """To a page of the dashboard, and wait until it is drawn."""
        await turn_to(self.watch, page, **values)

    async def open_task(self, task_id: str, page: str = "") -> None:
        """A task's own view."""
        values = {"page": page} if page else {}
        await turn_to(self.watch, **values, task=task_id)
        await self.page.wait_for_selector(".taskcard", state="visible")

    async def fits(self) -> None:
        """Nothing is wider than the screen."""
        wide = SIZES[self.size]["viewport"]["width"]
        assert await self.page.evaluate("document.documentElement.scrollWidth") <= wide

    async def drop(self, place: str, name: str, text: str) -> None:
        """Drop a file there."""
        node = await self.page.locator(place).element_handle()
        await self.page.evaluate(DROP, [node, name, text])

    async def settled(self) -> None:
        """As much is drawn as a moment ago."""
        await settle(self.watch)


@pytest_asyncio.fixture(name="floor", scope="module", loop_scope="module", params=list(SIZES))
async def make_floor(
    request: pytest.FixtureRequest, chromium: object, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Floor]:
    """The workshop, the browser and the page of this module, in this size."""
    folder, restarted = tmp_path_factory.mktemp("floor"), []
    options = SIZES[request.param] | {"permissions": ["clipboard-read", "clipboard-write"]}
    async with (
        open_shop(folder) as shop,
        open_dashboard(
            shop,
            folder,
            home=shop.home,
            environ={},
            restart_service=lambda name: not restarted.append(name),
            linger_s=60.0,  # a page that is cut off for a moment on a busy machine goes on, as a visitor's does
        ) as dashboard,
        open_page(chromium, way_in(dashboard.port), **options) as watch,
    ):
        yield Floor(shop, watch, request.param, folder, restarted)


@pytest.fixture(autouse=True)
def clean_page(floor: Floor) -> Iterator[None]:
    """What a test has the page log is that test's fault."""
    yield
    wrong, floor.watch.wrong[:] = list(floor.watch.wrong), []
    assert not wrong, f"the page logged errors: {wrong}"
