"""The Scripts page in a real browser: a script from its adding to its removal, with its editor."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from playwright.async_api import expect

from koubou_panel.core.commands import Caller
from koubou_panel.shop.local import LocalShop
from koubou_panel.testing import open_shop, until
from tests.browser.pages import DESKTOP, PHONE, Watch, open_dashboard, open_page, way_in

SIZES = [pytest.param(DESKTOP, id="desktop"), pytest.param(PHONE, id="phone")]
TEXT = "echo hello\nfor n in 1 2 3; do\n    echo $n\ndone\n"
NAME = "say <b>hello"
DRAFTS = "Object.keys(localStorage).filter(key => key.startsWith('koubou-draft')).length"


class Walk:
    """What a person does on the page."""

    def __init__(self, watch: Watch, shop: LocalShop, options: dict[str, object]) -> None:
        """On this page, of this shop."""
        self.watch, self.page, self.shop = watch, watch.page, shop
        self._width = options["viewport"]["width"]
        self._tasks = set()
        self.page.on("dialog", self._leave)

    def _leave(self, dialog: object) -> None:
        """Answer the browser's own question that one wants to leave."""
        task = asyncio.get_running_loop().create_task(dialog.accept())
        self._tasks.add(task)

    async def go(self, query: str) -> None:
        """Go to an address of the page."""
        await self.page.goto(self.page.url.split("?")[0] + query)

    async def click(self, place: str, text: str, *, sure: bool = False) -> None:
        """Click what says so; a second time where it asks whether one is sure."""
        button = self.page.locator(f"{place} >> text={text}").first
        await button.click()
        if sure:
            await self.page.locator(f"{place} >> text=/Sure|Remove it/").first.click()

    def field(self, label: str) -> object:
        """The field of that label."""
        return self.page.locator(".scripts").get_by_label(label, exact=True)

    async def fits(self) -> None:
        """Nothing is wider than the screen."""
        assert await self.page.evaluate("document.documentElement.scrollWidth") <= self._width

    async def type(self, *keys: str) -> None:
        """Type at the end of the text: a word of several letters is a key only where it has a `+` or is one's name."""
        await self.page.locator(".code .ace_content").click()
        await self.page.keyboard.press("Control+End")
        for key in keys:
            if "+" in key or key in ("Tab", "Enter"):
                await self.page.keyboard.press(key)
            else:
                await self.page.keyboard.type(key)

    async def text(self) -> str:
        """The text that the workshop has."""
        return (await self.shop.read_script("hello")).text


@pytest.mark.parametrize("options", SIZES)
async def test_a_script_lives_on_the_page(
    chromium: object, tmp_path: Path, options: dict[str, object]
) -> None:
    """Added, edited, saved over somebody else's text, compared, restored, drafted, disabled, removed."""
    async with (
        open_shop(tmp_path, workers=1) as shop,
        open_dashboard(shop, tmp_path) as dashboard,
        open_page(chromium, way_in(dashboard.port), forgive=("dialog: ",), **options) as watch,
    ):
        walk = Walk(watch, shop, options)
        await add(walk)
        await edit(walk)
        await conflict(walk)
        await versions(walk)
        await draft(walk)
        await end(walk)


async def add(walk: Walk) -> None:
    """What is wrong is told at its field; the next times are shown before anything is saved."""
    watch, page = walk.watch, walk.page
    await walk.go("?page=scripts")
    await watch.shows(".catalogue .empty", "No script yet")
    await walk.click(".catalogue header", "Add a script")
    await walk.click(".add footer", "Add it")
    await watch.shows(".add .field.wide .wrong", "absolute path")
    await walk.click(".add .radios", "A text of its own")
    await walk.field("Name").fill(NAME)
    await walk.field("Language").select_option("sh")
    await walk.field("Text").fill(TEXT)
    await walk.click(".add fieldset .radios", "Every so often")
    await walk.field("Every").fill("0")
    await watch.shows(".add fieldset .field .wrong >> nth=0", "every must be 1 second to 366 days")
    await walk.field("Every").fill("6h")
    await page.wait_for_selector(".preview li >> nth=4")
    await walk.fits()
    await walk.click(".add footer", "Add it")
    await watch.shows(".add .field .wrong >> nth=0", "name must be 1 to 100 letters")
    await walk.field("Name").fill("hello")
    await walk.click(".add footer", "Add it")
    await watch.shows(".detail h1", "hello")
    await page.wait_for_url(lambda url: "script=hello" in url)
    await watch.shows(".defined", "every 6h")
    await walk.fits()


async def edit(walk: Walk) -> None:
    """Tab indents, Shift+Tab takes it back, what was undone is undone, Ctrl+S saves."""
    watch, page = walk.watch, walk.page
    await walk.click(".actions2", "Edit the text")
    await page.wait_for_selector(".code[data-ready='1']")
    await page.wait_for_selector(".ace_keyword")
    await walk.type("wrong", "Control+z", "Tab", "# in", "Enter", "Shift+Tab", "# kept", "Enter")
    await watch.shows(".editor .state", "Not saved")
    await page.keyboard.press("Control+s")
    await watch.shows(".editor .state", "Saved")
    assert await walk.text() == TEXT + "    # in\n# kept\n"
    assert await page.evaluate(DRAFTS) == 0
    area = page.locator(".code textarea")
    await expect(area).to_have_attribute("aria-label", "Text of hello, line 7")
    await walk.fits()


async def conflict(walk: Walk) -> None:
    """Whoever saves second overwrites nothing, sees both, and can put theirs on top."""
    watch, page, shop = walk.watch, walk.page, walk.shop
    await walk.type("echo mine")
    await watch.shows(".editor .state", "Not saved")
    base = (await shop.read_script("hello")).version
    await shop.save_script_text("hello", "echo theirs\n", base, Caller("them"))
    await watch.shows(".notes", "Somebody else has saved this text")
    await page.keyboard.press("Control+s")
    await watch.shows(".notes .banner.bad", "nothing was overwritten")
    await watch.shows(".diff td.text.removed", "−echo theirs")
    await watch.shows(".diff td.text.added", "+echo hello")
    assert await walk.text() == "echo theirs\n"
    await walk.fits()
    await walk.click(".notes .banner.bad", "Keep mine", sure=True)
    await watch.shows(".editor .state", "Saved")
    assert (await walk.text()).endswith("# kept\necho mine")


async def versions(walk: Walk) -> None:
    """They say who and when; two are compared; one is restored."""
    watch, page = walk.watch, walk.page
    await walk.click(".editor header", "Versions")
    theirs = page.locator(".versions li", has_text="them").first
    await theirs.wait_for()
    await watch.shows(".versions li >> nth=0", "present")
    await theirs.locator("text=What differs").click()
    await watch.shows(".diff .sums", "lines added")
    await walk.fits()
    await theirs.locator("text=Restore").click()
    await theirs.locator("text=Sure?").click()
    await watch.shows(".ace_text-layer", "echo theirs")
    assert await walk.text() == "echo theirs\n"


async def draft(walk: Walk) -> None:
    """What was typed and not saved is there again after the page was loaded anew, and is asked about."""
    watch, page = walk.watch, walk.page
    await walk.type("echo draft", "Enter")
    await until(lambda: page.evaluate(DRAFTS))
    await page.reload()
    await watch.shows(".notes", "There is a draft of yours")
    # Who looks away without an answer is asked again.
    await walk.click(".editor header", "Back")
    await watch.shows(".detail .line1", "unsaved draft")
    await walk.click(".detail .line1", "unsaved draft")
    await watch.shows(".notes", "There is a draft of yours")
    await page.wait_for_selector(".code[data-ready='1']")
    await walk.click(".notes", "Go on with the draft")
    await watch.shows(".ace_text-layer", "echo draft")
    await page.click(".editor header .primary")
    await watch.shows(".editor .state", "Saved")
    assert await walk.text() == "echo theirs\necho draft\n"
    assert await page.evaluate(DRAFTS) == 0


async def end(walk: Walk) -> None:
    """Its schedule is switched off; it is removed after a question; its name is gone from the list."""
    watch, page, shop = walk.watch, walk.page, walk.shop
    await walk.click(".editor header", "Back")
    await page.locator(".actions2 .switch").click()
    await until(lambda: not shop.state.scripts["hello"].script.is_enabled)
    await page.wait_for_selector(".actions2 .switch[aria-checked=false]")
    await walk.click(".defined", "Change")
    await walk.click(".defined", "How it runs")
    await walk.field("Time-out").fill("soon")
    await walk.click(".defined footer", "Save")
    await watch.shows(".defined .field .wrong:visible", "a span of time such as 30s")
    await walk.field("Time-out").fill("15m")
    await walk.click(".defined footer", "Save")
    await page.wait_for_selector(".defined .change", state="hidden")
    await watch.shows(".defined dl", "15m")
    await walk.click(".actions2", "Remove", sure=True)
    await watch.shows(".catalogue .empty", "No script yet")
    assert shop.state.scripts == {}
    await walk.fits()
