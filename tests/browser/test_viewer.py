"""A task's whole output in a real browser: many lines, few nodes; search, keys, copying, download; and its fault."""

import sys
from pathlib import Path

import pytest

from koubou_panel.testing import ended, open_shop, submit, until
from tests.browser.pages import DESKTOP, PHONE, Watch, open_dashboard, open_page, way_in

LINES = 200_000
PRINTS = (
    f"for n in range({LINES}): print(f'\\x1b[3{{n % 8}}m{{n:07d}}\\x1b[0m epoch {{n // 1000}} and some more words')\n"
    "raise ValueError('no more')"
)
CURRENT = ".viewer .line.current"
SIZES = [pytest.param(DESKTOP, id="desktop"), pytest.param(PHONE, id="phone")]


async def sights(watch: Watch) -> str:
    """Which lines are said to be in sight."""
    return await watch.text(".viewer .where")


@pytest.mark.parametrize("options", SIZES)
async def test_a_long_output_is_read(chromium: object, tmp_path: Path, options: dict[str, object]) -> None:
    """It opens at its end, any place is reached with a few hundred nodes, and what is sought is found anywhere."""
    async with (
        open_shop(tmp_path, workers=1) as shop,
        open_dashboard(shop, tmp_path) as dashboard,
        open_page(chromium, way_in(dashboard.port), **options) as watch,
    ):
        page = watch.page
        task_id = await submit(shop, sys.executable, "-u", "-c", PRINTS, name="prints much")
        await ended(shop, task_id)
        await page.goto(page.url.split("?")[0] + f"?task={task_id}")
        # The traceback is printed too: five lines after the last one.
        await watch.shows(".viewer .where", "of 200,00")
        await watch.shows(".viewer .lines", "ValueError: no more")
        log = page.locator(".viewer .log")
        for key, wanted in (("Home", "lines 1–"), ("PageDown", "lines "), ("End", "–200,00")):
            await log.focus()
            await page.keyboard.press(key)
            await watch.shows(".viewer .where", wanted)
        await log.evaluate("log => { log.scrollTop = log.scrollHeight / 2 }")
        await watch.shows(".viewer .where", "lines 100,")
        await log.evaluate("log => { log.scrollTop = 0 }")
        await watch.shows(".viewer .where", "lines 1–")
        for _ in range(30):
            await log.evaluate("log => { log.scrollTop += 500 }")
        await until(lambda: is_past(watch, 100))
        assert await page.locator(".viewer .line").count() <= 520
        await page.fill(".viewer .find input", "0123456 EPOCH")
        await watch.shows(".viewer .told", "1 / 1")
        await watch.shows(".viewer .line.current", "0123456 epoch 123 and some more words")
        assert (
            await page.locator(".viewer .current mark").count() == 2
        )  # its two runs: the number has a colour
        await page.fill(".viewer .find input", "epoch 7 ")
        await watch.shows(".viewer .told", "/ 1,000")
        await page.keyboard.press("Shift+Enter")
        await watch.shows(".viewer .line.current", "epoch 7 ")
        if options is DESKTOP:
            wanted = [await page.locator(row).inner_text() for row in (CURRENT, f"{CURRENT} + .line")]
            assert await copied(watch) == wanted
        if options is PHONE:
            assert await page.evaluate("document.documentElement.scrollWidth") <= 390
            for part in await page.locator(
                ".viewer button:visible, .viewer a:visible, .viewer input:visible"
            ).all():
                box = await part.bounding_box()
                assert min(box["height"], box["width"]) >= 44, await part.evaluate("e => e.outerHTML")
        async with page.expect_download() as download:
            await page.click(".viewer .whole")
        whole = Path(await (await download.value).path()).read_text()
        assert whole.count("\n") > LINES
        await page.keyboard.press("Escape")
        await page.keyboard.press("Escape")
        await page.wait_for_selector(".k-drawer", state="hidden")


async def copied(watch: Watch) -> list[str]:
    """What the clipboard has once the found line and the next were selected with the mouse and copied."""
    page = watch.page
    await page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    start, stop = [
        await page.locator(f"{row} .text").bounding_box() for row in (CURRENT, f"{CURRENT} + .line")
    ]
    await page.mouse.move(start["x"] + 1, start["y"] + 6)
    await page.mouse.down()
    await page.mouse.move(stop["x"] + stop["width"] - 2, stop["y"] + stop["height"] - 6, steps=5)
    await page.mouse.up()
    await page.keyboard.press("Control+c")
    return (await page.evaluate("navigator.clipboard.readText()")).strip().split("\n")


async def is_past(watch: Watch, line: int) -> bool:
    """Whether what is in sight is beyond a line."""
    first = (await sights(watch)).partition("–")[0].removeprefix("lines ").replace(",", "")
    return first.isdigit() and int(first) > line


async def test_a_failed_function_is_read_from_its_error_on(chromium: object, tmp_path: Path) -> None:
    """The error stands first, its traceback opens below; it can be copied as lines, and its rerun is a link away."""
    async with (
        open_shop(tmp_path, workers=1) as shop,
        open_dashboard(shop, tmp_path) as dashboard,
        open_page(chromium, way_in(dashboard.port)) as watch,
    ):
        page = watch.page
        task_id = await submit(shop, "sh", "-c", "echo one; exit 3", name="fails")
        await ended(shop, task_id)
        await page.goto(page.url.split("?")[0] + f"?task={task_id}")
        await watch.shows(".taskcard .words", "failed after")
        await watch.shows(".taskcard .given", "sh -c 'echo one; exit 3'")
        await page.get_by_role("button", name="Copy as").click()
        await watch.shows(".copies .code", "shop.run('sh', '-c', 'echo one; exit 3'")
        await page.get_by_role("button", name="curl").click()
        await watch.shows(".copies .code", "curl -H")
        await page.get_by_role("button", name="Run again", exact=True).click()
        await watch.shows(".taskcard", "run again as")
        await page.get_by_role("link", name="run again as").click()
        await watch.shows(".taskcard", f"runs {task_id} again")
        await page.get_by_role("button", name="Edit and run again").click()
        await until(lambda: "run=again" in page.url)
