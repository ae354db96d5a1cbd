"""The Overview in a real browser, over real tasks."""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from playwright.async_api import expect

from koubou_panel.core.commands import Caller, CancelTask
from koubou_panel.shop.local import LocalShop
from koubou_panel.testing import ended, open_shop, submit, until
from tests.browser.pages import DESKTOP, PHONE, Watch, open_dashboard, open_page, way_in

WAITS = (sys.executable, "-c", "import time; print('at work', flush=True); time.sleep(60)")
# Each stops half way until the file of its argument, if it has one, is there: then it has been seen on its way.
HALF_WAY = " while n == 47 and sys.argv[1:] and not os.path.exists(sys.argv[1]): time.sleep(0.02)\n"
SAYS = (
    "import os,sys,time\nfor n in range(60):\n print(f'line {n}', flush=True)\n time.sleep(0.05)\n" + HALF_WAY
)
BARS = (
    "import os,sys,time\nfor n in range(101):\n sys.stderr.write(f'\\r{n:3d}%|bar| {n}/100'); sys.stderr.flush()\n"
    " time.sleep(0.02)\n" + HALF_WAY + "time.sleep(60)"
)
# What of the tiles is cut short, cut off below, or lies over what stands above it.
CUT = """tiles => tiles.flatMap(tile => {
  const [label, number, sub] = [".label", ".number", ".sub"].map(part => tile.querySelector(part))
  const box = (node) => node.getBoundingClientRect(), inside = tile.getBoundingClientRect()
  const room = document.createRange()
  room.selectNodeContents(sub)
  const isWhole = inside.height <= 64 && sub.scrollWidth <= sub.clientWidth && sub.scrollHeight <= sub.clientHeight
    && room.getBoundingClientRect().bottom <= inside.bottom
  const isApart = box(label).bottom <= box(number).top && box(number).bottom <= box(sub).top
  return isWhole && isApart ? [] : [tile.innerText]
})"""


@asynccontextmanager
async def visit(chromium: object, folder: Path, **options: object) -> AsyncIterator[tuple[LocalShop, Watch]]:
    """A real workshop, and its page in the browser."""
    async with (
        open_shop(folder) as shop,
        open_dashboard(shop, folder) as dashboard,
        open_page(chromium, way_in(dashboard.port), **options) as watch,
    ):
        yield shop, watch


async def test_tiles_show_true_numbers(chromium: object, tmp_path: Path) -> None:
    """After real tasks the tiles show what became of them."""
    async with visit(chromium, tmp_path) as (shop, watch):
        await watch.shows(".first", "Nothing has run yet")
        for code in (0, 0, 0, 3):
            await submit(shop, sys.executable, "-c", f"raise SystemExit({code})", name=f"ends with {code}")
        await watch.tile("completed", "3")
        await watch.tile("failed", "1")
        await watch.tile("success", "75.0")
        await watch.tile("workers", "2")
        await watch.tile("pending", "0")
        await watch.shows(".attention", "1 task failed in the last 10 minutes")
        asked = "status:failed since:10m".replace(":", "%3A").replace(" ", "+")
        assert (await watch.page.locator(".attention a.go").get_attribute("href")).endswith(f"q={asked}")
        tiles = [await tile.get_attribute("href") for tile in await watch.page.locator("a.tile").all()]
        assert [tile.split("?")[1].split("&")[0] for tile in tiles] == [*["page=tasks"] * 5, "page=workers"]
        await watch.shows(".ended .row.fail", "exited with code 3")
        assert await watch.page.locator(".k-first").is_hidden()
        await watch.page.click(".attention .away")
        await watch.page.wait_for_selector(".attention", state="hidden")
        await watch.page.reload()
        await watch.tile("failed", "1")
        assert await watch.page.locator(".attention").is_hidden()
        await submit(shop, "false")
        await watch.shows(".attention", "2 tasks failed in the last 10 minutes")


async def test_cancel_ends_a_running_task(chromium: object, tmp_path: Path) -> None:
    """A click, and a second to be sure, ends a task; the page shows its end when the workshop has said so."""
    async with visit(chromium, tmp_path) as (shop, watch):
        task_id = await submit(shop, *WAITS, name="long one")
        await watch.shows(".running .list .row", "long one")
        await watch.tile("running", "1")
        button = watch.page.locator(".running .cancel")
        await expect(button).to_have_attribute("aria-label", "Cancel long one")
        await button.click()
        await watch.shows(".running .cancel", "Cancel?")
        await expect(button).to_have_attribute("aria-label", "Confirm: cancel long one")
        assert shop.state.tasks[task_id].stopping is None
        await watch.page.click(".running .cancel")
        await watch.shows(".ended .row", "cancelled by dashboard")
        assert shop.state.tasks[task_id].status == "cancelled"
        await watch.tile("running", "0")


async def test_ended_rows_are_alike(chromium: object, tmp_path: Path) -> None:
    """A cancelled task's row is laid out like a completed one's: same left and right edge, same height, no box."""
    look = """rows => rows.map(row => {
      const at = (part) => row.querySelector(part).getBoundingClientRect(), style = getComputedStyle(row)
      return [style.display, style.borderLeftWidth, row.offsetHeight,
              at(".icon").left, at(".name").left, at(".time").right]
    })"""
    async with visit(chromium, tmp_path) as (shop, watch):
        task_id = await submit(shop, *WAITS, name="stopped")
        await watch.tile("running", "1")
        await shop.do(CancelTask(task_id), Caller("test"))
        await watch.shows(".ended .row", "stopped")
        await submit(shop, sys.executable, "-c", "pass", name="went well")
        await watch.shows(".ended .row", "went well")
        completed, cancelled = await watch.page.locator(".ended .row").evaluate_all(look)
        assert cancelled == completed


async def test_retry_runs_a_failed_task_again(chromium: object, tmp_path: Path) -> None:
    """Retry on a failed task submits it again: once, however quickly one clicks; so does Run again in its own view."""
    async with visit(chromium, tmp_path) as (shop, watch):
        task_id = await submit(shop, sys.executable, "-c", "raise SystemExit(1)", name="fails")
        await watch.tile("failed", "1")
        await watch.page.click(".ended .retry", click_count=3)
        await watch.tile("failed", "2")
        await watch.page.locator(f".ended .row a[href*='{task_id}']").click()
        await watch.page.get_by_role("button", name="Run again", exact=True).click(click_count=3)
        await watch.tile("failed", "3")
        await shop.hub.stored()
        assert len(shop.state.tasks) == 3


async def test_output_appears_as_it_is_printed(chromium: object, tmp_path: Path) -> None:
    """Lines of a running task come one after the other; a progress bar stays on one line and moves."""
    async with visit(chromium, tmp_path) as (shop, watch):
        lines, bar = tmp_path / "lines", tmp_path / "bar"
        await submit(shop, sys.executable, "-c", SAYS, str(lines), name="talks")
        await watch.shows(".output .log", "line 3")
        assert shop.state.counts["in_progress"] == 1
        lines.touch()
        await watch.shows(".output .log", "line 59")
        await submit(shop, sys.executable, "-c", BARS, str(bar), name="bars")
        await watch.shows(".output .open", "47%|bar|")
        bar.touch()
        await watch.shows(".output .open", "100%|bar| 100/100")
        await expect(watch.page.locator(".output .open .line")).to_have_count(1)
        tags = await watch.page.locator(".output .lines .tag").all_inner_texts()
        assert set(tags) == {"talks"}


async def test_output_goes_on_where_its_panel_shrinks(chromium: object, tmp_path: Path) -> None:
    """A panel that gets smaller still follows its output; one that its reader has scrolled up does not."""
    async with visit(chromium, tmp_path) as (shop, watch):
        log = watch.page.locator(".output .log").first
        away = "log => log.scrollHeight - log.scrollTop - log.clientHeight"
        await submit(shop, sys.executable, "-c", SAYS.replace("60", "4000"), name="talks")
        await watch.shows(".output .log", "line 40")
        for height in (620, 1000, 700):
            await watch.page.set_viewport_size({"width": 1440, "height": height})
            seen = await log.locator(".line").last.inner_text()

            async def has_gone_on(seen: str = seen) -> bool:
                return await log.locator(".line").last.inner_text() != seen

            await until(has_gone_on)
            assert await log.evaluate(away) < 24
            assert await watch.page.locator(".output .newer").first.is_hidden()
        await log.hover()
        await log.evaluate("log => { log.addEventListener('wheel', () => { log.dataset.turned = 'yes' }) }")
        await watch.page.mouse.wheel(0, -300)
        await expect(log).to_have_attribute("data-turned", "yes")
        await watch.page.mouse.move(5, 5)
        await watch.shows(".output .newer", "newer")
        assert await log.evaluate(away) > 24


@pytest.mark.parametrize("way", ["wheel", "key"])
async def test_output_stays_where_its_reader_goes_in_small_steps(
    chromium: object, tmp_path: Path, way: str
) -> None:
    """Also one that is less than a line holds it."""
    async with visit(chromium, tmp_path) as (shop, watch):
        log = watch.page.locator(".output .log").first
        await submit(shop, sys.executable, "-c", SAYS.replace("60", "4000"), name="talks")
        await watch.shows(".output .log", "line 40")
        await (log.hover() if way == "wheel" else log.focus())
        step = (lambda: watch.page.mouse.wheel(0, -8)) if way == "wheel" else (lambda: log.press("ArrowUp"))
        for _ in range(6):
            await step()
        await watch.page.mouse.move(5, 5)
        await watch.shows(".output .newer", "newer")
        assert await log.evaluate("log => log.scrollHeight - log.scrollTop - log.clientHeight") > 24


async def test_output_under_a_resting_mouse_goes_on_once_it_leaves(chromium: object, tmp_path: Path) -> None:
    """It holds still under the mouse, also where old lines go, and is at its end as soon as the mouse has left."""
    async with visit(chromium, tmp_path) as (shop, watch):
        log = watch.page.locator(".output .log").first
        away = "log => log.scrollHeight - log.scrollTop - log.clientHeight"
        await submit(
            shop, sys.executable, "-c", SAYS.replace("60", "4000").replace("0.05", "0.02"), name="talks"
        )
        await watch.shows(".output .log", "line 40")
        await log.hover()
        first = await log.locator(".line").first.inner_text()

        async def has_lost_lines() -> bool:
            return await log.locator(".line").first.inner_text() != first

        await until(has_lost_lines)
        assert await log.evaluate(away) > 24
        await watch.page.mouse.move(5, 5)
        await expect(watch.page.locator(".output .newer").first).to_be_hidden()
        assert await log.evaluate(away) < 24


async def test_charts_move(chromium: object, tmp_path: Path) -> None:
    """Both charts have data at once, and more of it as time goes on."""
    async with visit(chromium, tmp_path) as (shop, watch):
        last = """() => [...Bokeh.documents[0]._all_models.values()]
            .filter(m => m.type === "ColumnDataSource" && m.data.at)
            .map(m => { const at = m.get_column("at"); return [at.length, at[at.length - 1] || 0] })"""
        await until(lambda: len(shop.state.metrics) > 1)
        begin = await watch.page.evaluate(last)
        assert len(begin) == 2
        await submit(shop, name="quick")

        async def both_have_moved() -> bool:
            now = await watch.page.evaluate(last)
            return all(after[1] > before[1] for before, after in zip(begin, now, strict=True))

        await until(both_have_moved)


async def test_a_desktop_page_fits_its_window(chromium: object, tmp_path: Path) -> None:
    """At 1440 by 900 nothing scrolls, empty or busy, and the tiles do not move when the numbers come."""
    async with visit(chromium, tmp_path) as (shop, watch):
        fits = (
            "((e) => [e.scrollWidth <= innerWidth, e.scrollHeight <= innerHeight])(document.documentElement)"
        )
        assert await watch.page.evaluate(fits) == [True, True]
        before = await watch.page.locator(".tile").nth(2).bounding_box()
        for _ in range(3):
            await submit(shop, *WAITS)
        await submit(shop, name="x" * 200)
        await watch.tile("running", "2")
        assert await watch.page.evaluate(fits) == [True, True]
        assert await watch.page.locator(".tile").nth(2).bounding_box() == before


async def test_the_phone(chromium: object, tmp_path: Path) -> None:
    """At 390 px: no sideways scroll, targets of 44 px, one chart at a time, a page that a finger can move."""
    async with visit(chromium, tmp_path, **PHONE) as (shop, watch):
        page = watch.page
        await submit(
            shop, sys.executable, "-c", "raise SystemExit(1)", name="a failed one with quite a long name"
        )
        await watch.tile("failed", "1")
        await submit(shop, *WAITS, name="a running one with a name that is far too long for a phone's width")
        await watch.tile("running", "1")
        assert await page.evaluate("document.documentElement.scrollWidth") == 390
        assert await page.locator(".tile").evaluate_all(CUT) == []
        sizes = await page.evaluate(
            """() => {
              const found = [], look = (root) => { for (const node of root.querySelectorAll("*")) {
                if (node.shadowRoot) look(node.shadowRoot)
                if (node.tagName !== "BUTTON" || !node.offsetParent) continue
                found.push([node.className, node.offsetWidth, node.offsetHeight])
              } }
              look(document)
              return found
            }"""
        )
        assert len(sizes) >= 5
        assert [size for size in sizes if min(size[1:]) < 44] == []
        assert await page.locator(".k-stream").is_hidden()
        figures = page.locator(".k-chart:not(.k-stream)")
        assert [await figures.nth(n).is_visible() for n in range(2)] == [True, False]
        await page.tap(".one-of >> text=Memory")
        assert [await figures.nth(n).is_visible() for n in range(2)] == [False, True]
        seen = "['cpu', 'memory'].map(n => Bokeh.documents[0].get_model_by_name(`host-${n}`).visible)"
        assert await page.evaluate(seen) == [False, True]
        await watch.shows(".ended", "a failed one")
        await page.tap(".running .cancel")
        await page.tap(".running .cancel")
        await until(lambda: shop.state.counts["cancelled"])
        await watch.tile("running", "0")
        await expect(page.locator(".ended .row")).to_have_count(1)


async def test_the_first_minute(chromium: object, tmp_path: Path) -> None:
    """Where nothing has run there are four lines to copy, a demo that one click clears, and a command to paste."""
    options = DESKTOP | {"permissions": ["clipboard-read", "clipboard-write"]}
    async with visit(chromium, tmp_path, **options) as (shop, watch):
        await watch.shows(".first", "Nothing has run yet")
        await watch.shows(".nothing >> nth=1", "Try: koubou load burst -n 200")
        lines = await watch.page.locator(".first code").all_inner_texts()
        assert len(lines) == 4
        await watch.page.locator(".first .copy").nth(1).click()
        await watch.shows(".first .copy >> nth=1", "Copied")
        assert await watch.page.evaluate("navigator.clipboard.readText()") == lines[1]
        field = watch.page.locator(".first input")
        await field.fill("echo 'never closed")
        await field.press("Enter")
        await watch.shows(".first .why", "quot")
        await expect(field).to_have_value("echo 'never closed")
        await watch.page.click(".first .demo")
        await watch.shows(".attention", "A demo load:")
        await watch.page.click(".attention button.go")
        await until(lambda: shop.state.counts["cancelled"] > 10)
        await until(lambda: not shop.state.counts["pending"] + shop.state.counts["in_progress"])
        await until(lambda: watch.page.locator(".attention button.go").is_hidden())
        assert await watch.page.locator(".k-first").is_hidden()


# Where on the page the middle of a task's bar is; null where it has none.
PLACE = """id => {
  const doc = Bokeh.documents[0], {data} = doc.get_model_by_name("stream-ended"), i = data.id.indexOf(id)
  if (i < 0) return null
  const view = Bokeh.index.find_one(doc.get_model_by_name("stream-figure"))
  const frame = view.frame, box = view.canvas_view.el.getBoundingClientRect()
  return [box.x + frame.x_scale.compute((data.left[i] + data.right[i]) / 2),
          box.y + frame.y_scale.compute((data.top[i] + data.bottom[i]) / 2)]
}"""
WINDOW = "(({start, end}) => [start / 1000, (end - start) / 1000])(Bokeh.documents[0].get_model_by_name('stream-x'))"


async def test_the_task_stream(chromium: object, tmp_path: Path) -> None:
    """History at load, live after; a click opens the task; a button or the wheel shows another window of time."""
    async with open_shop(tmp_path) as shop, open_dashboard(shop, tmp_path) as dashboard:
        before = await submit(shop, sys.executable, "-c", "import time; time.sleep(1)", name="ran before")
        await ended(shop, before)
        async with open_page(chromium, way_in(dashboard.port)) as watch:
            page = watch.page
            await watch.shows(".stream .count", "1 run")
            after = await submit(
                shop, sys.executable, "-c", "import time; time.sleep(1); raise SystemExit(1)"
            )
            await watch.shows(".stream .count", "2 runs")
            assert await page.locator(".stream button[aria-pressed=true]").all_inner_texts() == [
                "5 min",
                "Live",
            ]
            await page.click(".stream >> text='1 min'")
            await page.wait_for_function(f"Math.abs({WINDOW}[1] - 60) < 1")
            await page.mouse.click(*await page.evaluate(PLACE, before))
            await page.wait_for_url(f"**task={before}*")
            await watch.shows(".taskcard h3", "ran before")
            await page.keyboard.press("Escape")
            await page.wait_for_selector(".taskcard", state="hidden")

            async def is_told() -> bool:
                await page.mouse.move(*await page.evaluate(PLACE, after))
                return await page.locator(".bk-Tooltip", has_text="failed").count() > 0

            await until(is_told)
            # Away from the right edge: a window that still ends near to now follows it.
            box = await page.locator(".k-stream .k-plot").bounding_box()
            await page.mouse.move(box["x"] + box["width"] / 4, box["y"] + box["height"] / 2)
            await page.mouse.wheel(0, -300)
            await page.wait_for_function(f"{WINDOW}[1] < 50")
            await watch.shows(".stream .live[aria-pressed=false]", "Live")
            begin = (await page.evaluate(WINDOW))[0]
            await page.click(".stream >> text='1 h'")
            await page.wait_for_function(f"Math.abs({WINDOW}[1] - 3600) < 1")
            assert (await page.evaluate(WINDOW))[0] < begin
            await page.click(".stream .live")
            await page.click(".stream .hold")
            await watch.shows(".pill", "paused")
            await submit(shop, name="unseen")
            await until(lambda: shop.state.counts["completed"] == 2)
            await watch.shows(".pill", "paused")
            assert "2 runs" in await watch.text(".stream .count")
            await page.click(".stream .hold")
            await watch.shows(".stream .count", "3 runs")
            await watch.shows(".pill", "live")


@pytest.mark.parametrize("scheme", ["dark", "light"])
async def test_the_theme_follows_the_system(chromium: object, tmp_path: Path, scheme: str) -> None:
    """The page is as the system wants it; the other is one click away, and stays after a reload."""
    dark = "matchMedia('(prefers-color-scheme: dark)').matches"
    ground = "getComputedStyle(document.body).backgroundColor"
    async with visit(chromium, tmp_path, **DESKTOP, color_scheme=scheme) as (_, watch):
        page = watch.page
        assert await page.evaluate(dark) is (scheme == "dark")
        own = await page.evaluate(ground)
        await page.click(".theme")
        other = await page.evaluate(ground)
        assert own != other
        assert {own, other} == {"rgb(14, 18, 23)", "rgb(244, 246, 248)"}
        await page.reload()
        await page.wait_for_selector(".tile")
        assert await page.evaluate(ground) == other


async def test_a_closed_page_leaves_nothing(chromium: object, tmp_path: Path) -> None:
    """When its pages are closed the dashboard follows the workshop no more for them."""
    async with open_shop(tmp_path) as shop, open_dashboard(shop, tmp_path) as dashboard:
        before = shop.hub.subscribers
        for _ in range(3):
            async with open_page(chromium, way_in(dashboard.port)):
                assert shop.hub.subscribers > before
        await until(lambda: shop.hub.subscribers == before)
