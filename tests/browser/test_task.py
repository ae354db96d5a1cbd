"""One task's view in a real browser: its progress, its curves, its output, and what is typed for it."""

import sys
from pathlib import Path

import pytest
from playwright.async_api import expect

from koubou_panel.core.commands import Caller, CancelTask
from koubou_panel.testing import ended, open_shop, submit, until
from tests.browser.pages import DESKTOP, PHONE, Watch, open_dashboard, open_page, way_in

WORKS = (
    "import sys, time\nfor n in range(101):\n sys.stderr.write(f'\\r{n:3d}%|bar| {n}/100 [00:01<00:09, 9.0it/s]')\n"
    " sys.stderr.flush(); sum(range(200_000)); time.sleep(0.15)\ntime.sleep(60)"
)
SIZES = [pytest.param(DESKTOP, id="desktop"), pytest.param(PHONE, id="phone")]
POINTS = """() => [...Bokeh.documents[0]._all_models.values()]
    .filter(m => m.type === "ColumnDataSource" && "rss" in m.data).map(m => m.data.rss.length)"""


async def number_of(watch: Watch, selector: str) -> int:
    """How far a progress bar is, in percent; -1 where it does not say."""
    return int(await watch.page.locator(selector).first.get_attribute("aria-valuenow") or -1)


@pytest.mark.parametrize("options", SIZES)
async def test_a_task_is_opened(chromium: object, tmp_path: Path, options: dict[str, object]) -> None:
    """Its bar moves, its curves grow, its output is read; closed, its figures are gone and the address is as before."""
    async with (
        open_shop(tmp_path, workers=1) as shop,
        open_dashboard(shop, tmp_path) as dashboard,
        open_page(chromium, way_in(dashboard.port), **options) as watch,
    ):
        page = watch.page
        task_id = await submit(shop, sys.executable, "-c", WORKS, name="moves on")
        await watch.shows(".running .list .row .meta", "/100")
        await page.click(".running .list a.text")
        await watch.shows(".taskcard h3", "moves on")
        await page.wait_for_url(lambda url: url.endswith(f"?task={task_id}"))
        first = await number_of(watch, ".taskcard .progress")
        await until(lambda: has_grown(watch, first))
        await watch.shows(".taskcard .facts", "Memory")
        await watch.shows(".k-printed .open", "%|bar|")
        drawer = await page.locator(".k-drawer").bounding_box()
        assert drawer["width"] == min(560, options["viewport"]["width"])
        assert await page.evaluate("document.documentElement.scrollWidth") <= options["viewport"]["width"]
        (points,) = await page.evaluate(POINTS)
        await until(lambda: has_more_points(watch, points))
        figures = page.locator(".k-curves .bk-Figure")
        assert [box["width"] > 100 for box in [await figures.nth(n).bounding_box() for n in range(3)]] == [
            True
        ] * 3
        if options is PHONE:
            pressable = [
                await page.locator(f".taskcard .{name}").bounding_box() for name in ("close", "cancel")
            ]
            assert [box for box in pressable if min(box["width"], box["height"]) < 44] == []
        await page.click(".taskcard .close")
        await page.wait_for_selector(".k-drawer", state="hidden")
        await page.wait_for_url(lambda url: url.endswith("/overview"))
        await until(lambda: has_no_curves(watch))


async def has_grown(watch: Watch, first: int) -> bool:
    """Whether the open task is further than it was."""
    return await number_of(watch, ".taskcard .progress") > max(0, first)


async def has_no_curves(watch: Watch) -> bool:
    """Whether the page holds no source of curves any more."""
    return await watch.page.evaluate(POINTS) == []


async def has_more_points(watch: Watch, before: int) -> bool:
    """Whether the open task's curves have more points than they had."""
    (now,) = await watch.page.evaluate(POINTS)
    return now > before


async def test_what_is_typed_reaches_the_task(chromium: object, tmp_path: Path) -> None:
    """A line typed on the page is read by the task, and what it answers is shown; its input can be ended."""
    async with (
        open_shop(tmp_path, workers=1) as shop,
        open_dashboard(shop, tmp_path) as dashboard,
        open_page(chromium, way_in(dashboard.port)) as watch,
    ):
        page = watch.page
        task_id = await submit(shop, spec={"command": ["cat"], "stdin": True}, name="echo")
        await watch.shows(".running .list .row", "echo")
        await page.click(".running .list a.text")
        await page.fill(".typing input", "<b>héllo</b>")
        await page.keyboard.press("Enter")
        await watch.shows(".k-printed .log", "<b>héllo</b>")
        await expect(page.locator(".typing input")).to_have_value("")
        await page.click(".typing .end")
        await page.click(".typing .end")
        await watch.shows(".taskcard .words", "completed")
        assert shop.state.tasks[task_id].status == "completed"
        await page.wait_for_selector(".typing", state="hidden")


async def test_an_address_opens_its_task(chromium: object, tmp_path: Path) -> None:
    """A task's address opens it, ended or not, after a reload too; back closes it; one that is none is told."""
    async with (
        open_shop(tmp_path, workers=1) as shop,
        open_dashboard(shop, tmp_path) as dashboard,
        open_page(chromium, way_in(dashboard.port)) as watch,
    ):
        page = watch.page
        task_id = await submit(
            shop, sys.executable, "-c", "print('last words'); raise SystemExit(3)", name="ended"
        )
        await watch.tile("failed", "1")
        await page.click(".ended a.top")
        await watch.shows(".taskcard .words", "exited with code 3")
        await page.reload()
        await page.wait_for_selector(".tile")
        await watch.shows(".taskcard .words", "exited with code 3")
        await watch.shows(".k-printed .log", "last words")
        await page.keyboard.press("Escape")
        await page.wait_for_selector(".k-drawer", state="hidden")
        await page.go_back()
        await watch.shows(".taskcard h3", "ended")
        await page.goto(page.url.replace(task_id, "nothing"))
        await watch.shows(".toast", "There is no task nothing here.")
        await until(lambda: page.url.endswith("/overview"))
        assert await page.locator(".k-drawer").is_hidden()


async def test_a_task_is_cancelled_from_its_view(chromium: object, tmp_path: Path) -> None:
    """Cancel in the view asks twice, and the same view then tells how it ended."""
    async with (
        open_shop(tmp_path, workers=1) as shop,
        open_dashboard(shop, tmp_path) as dashboard,
        open_page(chromium, way_in(dashboard.port)) as watch,
    ):
        await submit(shop, "sleep", "60", name="too long")
        await watch.shows(".running .list .row", "too long")
        await watch.page.click(".running .list a.text")
        await watch.page.click(".taskcard .cancel")
        await watch.shows(".taskcard .cancel", "Cancel?")
        await watch.page.click(".taskcard .cancel")
        await watch.shows(".taskcard .words", "cancelled by dashboard")
        await watch.shows(".taskcard .actions", "Run again")


@pytest.mark.parametrize("options", SIZES)
async def test_a_cancelled_task_is_read_like_any_other(
    chromium: object, tmp_path: Path, options: dict[str, object]
) -> None:
    """Its long name, how it ended and its actions stand one below the other, none of them cut."""
    async with (
        open_shop(tmp_path, workers=1) as shop,
        open_dashboard(shop, tmp_path) as dashboard,
        open_page(chromium, way_in(dashboard.port), **options) as watch,
    ):
        task_id = await submit(shop, "sh", "-c", "echo on; sleep 60", name="a rather long name " * 4)
        await until(lambda: shop.state.tasks[task_id].usage.output_bytes)
        await shop.do(CancelTask(task_id), Caller("test"))
        await watch.page.goto(watch.page.url.split("?")[0] + f"?task={task_id}")
        await watch.shows(".taskcard .words", "cancelled by test")
        card, *parts = [
            await watch.page.locator(selector).first.bounding_box()
            for selector in (".taskcard", ".taskcard h3", ".taskcard .words", ".taskcard .actions")
        ]
        lows = [part["y"] + part["height"] for part in parts]
        assert lows[0] <= parts[1]["y"]
        assert lows[1] <= parts[2]["y"]
        assert lows[2] <= card["y"] + card["height"]


async def test_a_phone_is_turned_while_a_task_is_open(chromium: object, tmp_path: Path) -> None:
    """Where the view covers the page that is out of reach, and where it stands beside it, it is not."""
    async with (
        open_shop(tmp_path, workers=1) as shop,
        open_dashboard(shop, tmp_path) as dashboard,
        open_page(chromium, way_in(dashboard.port), **PHONE) as watch,
    ):
        page, upright = watch.page, PHONE["viewport"]
        task_id = await submit(shop, "echo", "on", name="turned")
        await ended(shop, task_id)
        await page.goto(page.url.split("?")[0] + f"?task={task_id}")
        await watch.shows(".taskcard .words", "completed")
        for size, root in (
            (upright, "html.k-alone"),
            ({"width": upright["height"], "height": upright["width"]}, "html:not(.k-alone)"),
            (upright, "html.k-alone"),
        ):
            await page.set_viewport_size(size)
            await page.wait_for_selector(root)
            for part in (".k-main", ".bar > .bell"):
                assert await page.locator(part).evaluate("node => node.inert") is (root == "html.k-alone")
        await page.click(".taskcard .close")
        await page.wait_for_selector(".k-drawer", state="hidden")
        assert not await page.locator(".k-main").evaluate("node => node.inert")


async def test_what_was_begun_for_one_task_is_not_done_to_another(chromium: object, tmp_path: Path) -> None:
    """A typed line and a question that was not yet answered stay behind when another task is opened."""
    async with (
        open_shop(tmp_path, workers=2) as shop,
        open_dashboard(shop, tmp_path) as dashboard,
        open_page(chromium, way_in(dashboard.port)) as watch,
    ):
        page = watch.page
        names = ("one", "two")
        for name in names:
            await submit(shop, spec={"command": ["cat"], "stdin": True}, name=name)
        await watch.tile("running", "2")
        first, second = (page.locator(".running .list a.text", has_text=name) for name in names)
        await first.click()
        await watch.shows(".taskcard h3", "one")
        await page.fill(".typing input", "for one alone")
        await page.click(".typing .end")
        await page.click(".taskcard .cancel")
        await watch.shows(".taskcard .cancel", "Cancel?")
        await second.dispatch_event("click")
        await watch.shows(".taskcard h3", "two")
        assert await watch.text(".taskcard .cancel") == "Cancel"
        await watch.shows(".typing .end", "End")
        await expect(page.locator(".typing input")).to_have_value("")


TELLS = (
    "import sys, time\nprint('first line')\nfor n in range(400):\n sys.stdout.write(f'word{n} '); sys.stdout.flush()\n"
    " time.sleep(0.01)\nsys.stdout.write('THE END'); sys.stdout.flush(); sys.stdin.readline()"
)


@pytest.mark.parametrize("options", SIZES)
async def test_a_line_without_an_end_is_read_whole(
    chromium: object, tmp_path: Path, options: dict[str, object]
) -> None:
    """A long line that is still written is wrapped and followed to its end, and stays so once its task ended."""
    async with (
        open_shop(tmp_path, workers=1) as shop,
        open_dashboard(shop, tmp_path) as dashboard,
        open_page(chromium, way_in(dashboard.port), **options) as watch,
    ):
        page = watch.page
        spec = {"command": [sys.executable, "-c", TELLS], "stdin": True}
        task_id = await submit(shop, spec=spec, name="tells")
        await page.goto(page.url.split("?")[0] + f"?task={task_id}")
        await watch.shows(".k-printed .log", "THE END")
        await until(lambda: reads_to_the_end(watch))
        await shop.do(CancelTask(task_id), Caller("test"))
        await watch.shows(".taskcard .words", "cancelled")
        await until(lambda: reads_to_the_end(watch))
        await watch.shows(".k-printed .lines", "word399 THE END")


async def reads_to_the_end(watch: Watch) -> bool:
    """Whether the last line of the open task is wrapped within its card, and its end stands in sight."""
    log = watch.page.locator(".k-printed .log").first
    return await log.evaluate(
        """log => { const texts = [...log.querySelectorAll(".text")], text = texts[texts.length - 1]
        const range = document.createRange(); range.selectNodeContents(text)
        const boxes = [...range.getClientRects()], last = boxes[boxes.length - 1], seen = log.getBoundingClientRect()
        return boxes.length > 5 && text.scrollWidth <= text.clientWidth + 1
            && last.bottom <= seen.bottom + 1 && last.right <= seen.right + 1 }"""
    )
