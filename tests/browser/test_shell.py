"""The shell around all pages: the bar, ＋Run, the command palette, the bell, the language."""

from __future__ import annotations

from pathlib import Path

import pytest

from koubou_panel.core.commands import Caller, SaveScript
from koubou_panel.core.script import Script
from koubou_panel.shop.local import LocalShop
from koubou_panel.testing import open_shop, until
from tests.browser.pages import DESKTOP, PHONE, Watch, open_dashboard, open_page, way_in

SIZES = [pytest.param(DESKTOP, id="desktop"), pytest.param(PHONE, id="phone")]
GREETS = """\
#!/bin/sh
# /// script
# [tool.koubou.parameters]
# whom = {type = "text", required = true, help = "who is greeted", flag = "--whom"}
# times = {type = "integer", default = 2, flag = "--times"}
# ///
echo "$@"
"""


async def add_script(shop: LocalShop) -> None:
    """A script with two parameters."""
    await shop.do(SaveScript(Script(name="greet", path="", is_inline=True), text=GREETS), Caller("test"))


async def field_fails(watch: Watch, name: str, words: str) -> None:
    """Wait until that field says what is wrong with it."""
    await watch.shows(f".field:has([name='{name}']) .wrong", words)


@pytest.mark.parametrize("options", SIZES)
async def test_work_is_started_from_the_page(
    chromium: object, tmp_path: Path, options: dict[str, object]
) -> None:
    """A script by its form and a command by its line, each checked at its fields; then again, edited."""
    async with (
        open_shop(tmp_path, workers=1) as shop,
        open_dashboard(shop, tmp_path) as dashboard,
        open_page(chromium, way_in(dashboard.port), **options) as watch,
    ):
        await add_script(shop)
        page = watch.page
        await page.click(".tabrun" if options is PHONE else ".bar > .run")
        await page.wait_for_selector(".rundialog[open]")
        await page.click(".kinds >> text=Script")
        await page.select_option("[name=script]", "greet")
        await page.fill("[name='parameters.times']", "often")
        await field_fails(watch, "parameters.times", "A number is needed.")
        await page.click(".rundialog .start")
        await field_fails(watch, "parameters.whom", "This is needed.")
        await page.fill("[name='parameters.times']", "")
        await page.fill("[name='parameters.whom']", "the <b>world")
        assert await page.evaluate("document.documentElement.scrollWidth") <= options["viewport"]["width"]
        await page.click(".rundialog .start")
        await watch.shows(".taskcard h3", "greet")
        await page.wait_for_selector(".rundialog", state="hidden")
        (task,) = shop.state.tasks.values()
        assert task.request.parameters == {"whom": "the <b>world"}
        assert f"task={task.task_id}" in page.url

        await page.goto(page.url.split("?")[0] + "?run=command")
        await page.fill("[name=command]", "echo 'one")
        await field_fails(watch, "command", "quotation")
        await page.fill("[name=command]", "echo 'one two' | wc")
        await watch.shows(".rundialog .note", "No shell reads this line")
        await page.fill("[name=cwd]", "/no/such/folder")
        await page.click(".rundialog .start")
        await field_fails(watch, "cwd", "there is no folder")
        await page.fill("[name=cwd]", "")
        await page.fill("[name=command]", "echo 'one two'")
        await page.click(".rundialog .start")
        await watch.shows(".taskcard h3", "echo")
        first = max(shop.state.tasks.values(), key=lambda task: task.order)

        await page.goto(page.url.split("?")[0] + f"?run=again:{first.task_id}")
        await page.wait_for_selector(".rundialog[open] [name=command]")
        assert await page.input_value("[name=command]") == "echo 'one two'"
        await page.fill("[name=command]", "echo three")
        await page.keyboard.press("Control+Enter")
        await until(lambda: len(shop.state.tasks) == 3)
        last = max(shop.state.tasks.values(), key=lambda task: task.order)
        assert (last.request.spec["command"], last.request.rerun_of) == (["echo", "three"], first.task_id)


@pytest.mark.parametrize("options", SIZES)
async def test_all_pages_are_reached_at_any_width(
    chromium: object, tmp_path: Path, options: dict[str, object]
) -> None:
    """In the bar, behind More where they do not fit, or in a phone's menu; a page that there is not is told of."""
    async with (
        open_shop(tmp_path, workers=1) as shop,
        open_dashboard(shop, tmp_path) as dashboard,
        open_page(chromium, way_in(dashboard.port), **options) as watch,
    ):
        page, width = watch.page, options["viewport"]["width"]
        for wide in [width] if options is PHONE else [width, 1000, 720]:
            await page.set_viewport_size({"width": wide, "height": 800})
            await watch.go("Services")
            await page.wait_for_selector(".services")
            assert (await page.locator(".bar").bounding_box())["height"] <= 48
            assert await page.evaluate("document.documentElement.scrollWidth") <= wide
            await watch.go("Overview")
            await page.wait_for_selector(".tiles", state="visible")
        if options is PHONE:
            boxes = [await tab.bounding_box() for tab in await page.locator(".tabs > *").all()]
            assert boxes
            assert [box for box in boxes if box["height"] < 44 or box["width"] < 44] == []
        await page.goto(page.url + "?page=nosuch")
        await watch.shows(".toasts", "There is no page “nosuch” here")
        await page.wait_for_selector(".tiles", state="visible")
        assert "page=" not in page.url


async def test_everything_is_found_by_typing(chromium: object, tmp_path: Path) -> None:
    """The palette opens by a key, leads to pages, scripts and tasks, and acts, all without a pointer."""
    async with (
        open_shop(tmp_path, workers=1) as shop,
        open_dashboard(shop, tmp_path) as dashboard,
        open_page(chromium, way_in(dashboard.port)) as watch,
    ):
        await add_script(shop)
        page, keys = watch.page, watch.page.keyboard
        await keys.press("/")
        await page.wait_for_selector(".palette[open]")
        await keys.type("servi")
        await watch.shows(".palette .option[aria-selected=true]", "Services")
        await keys.press("Enter")
        await page.wait_for_selector(".services")
        await keys.press("Control+k")
        await keys.type("pause")
        await watch.shows(".palette .option", "Pause the pool")
        await keys.press("Enter")
        await until(lambda: shop.state.pool.paused)
        await keys.press("Control+k")
        await keys.type("greet")
        await watch.shows(".palette .option[aria-selected=true]", "greet")
        await keys.press("Enter")
        await page.wait_for_selector(".rundialog[open] [name='parameters.whom']")
        await page.fill("[name='parameters.whom']", "you")
        await keys.press("Control+Enter")
        await watch.shows(".taskcard h3", "greet")
        (task,) = shop.state.tasks.values()
        await keys.press("Escape")
        await page.wait_for_selector(".taskcard", state="hidden")
        await keys.press("Control+k")
        await keys.type(task.task_id)
        await watch.shows(".palette .option[aria-selected=true] .note", task.task_id)
        await keys.press("Enter")
        await watch.shows(".taskcard h3", "greet")
        await page.wait_for_selector(".palette", state="hidden")
        await keys.press("?")
        await watch.shows(".keys[open]", "Search and commands")


async def test_what_was_asked_for_is_told_once(chromium: object, tmp_path: Path) -> None:
    """A failure shows where somebody looks, and two tabs of one browser list it once; a click leads to the task."""
    async with (
        open_shop(tmp_path, workers=1) as shop,
        open_dashboard(shop, tmp_path) as dashboard,
        open_page(chromium, way_in(dashboard.port)) as watch,
    ):
        page = watch.page
        other = await page.context.new_page()
        await other.goto(page.url)
        await other.wait_for_selector(".tile")
        await page.click(".bell")
        await page.check(".bellpanel [name=fails]")
        await page.keyboard.press("Escape")
        await page.goto(page.url.split("?")[0] + "?run=command")
        await page.fill("[name=command]", "sh -c 'exit 3'")
        await page.click(".rundialog .start")
        await watch.shows(".toasts", "sh failed")
        (task,) = shop.state.tasks.values()
        await until(lambda: other_list(other, task.task_id))
        kept = await page.evaluate("JSON.parse(localStorage.getItem('koubou-told')).list.length")
        assert kept == 1
        await other.close()
        await page.click(".taskcard .close")
        await page.wait_for_selector(".taskcard", state="hidden")
        await page.click(".toast >> text=sh failed")
        await watch.shows(".taskcard h3", "sh")


async def other_list(page: object, task_id: str) -> bool:
    """Whether that tab lists the task among what was told."""
    return await page.locator(f".toldrow[href*='{task_id}']").count() == 1


async def test_another_language_leaves_all_as_it_was(chromium: object, tmp_path: Path) -> None:
    """What is open stays open, what was typed stays typed; the choice is kept for the next visit."""
    async with (
        open_shop(tmp_path, workers=1) as shop,
        open_dashboard(shop, tmp_path) as dashboard,
        open_page(chromium, way_in(dashboard.port), locale="zh-TW", **DESKTOP) as watch,
    ):
        page = watch.page
        assert await page.evaluate("document.documentElement.lang") == "zh-Hant"
        await page.goto(page.url + "?page=services&run=command")
        await page.fill("[name=command]", "echo 'not yet sent'")
        await page.evaluate(
            """() => {
              const walk = (root) => { for (const node of root.querySelectorAll("*")) {
                if (node.matches(".bar > .languages")) {
                  node.value = "ja"; node.dispatchEvent(new Event("change")); return
                }
                if (node.shadowRoot) walk(node.shadowRoot)
              } }
              walk(document)
            }"""
        )
        await page.wait_for_function("document.documentElement.lang === 'ja'")
        await watch.shows(".rundialog .start", "実行")
        assert await page.input_value("[name=command]") == "echo 'not yet sent'"
        assert page.url.endswith("?page=services&run=command")
        await page.wait_for_selector(".services")
        await page.reload()
        assert await page.evaluate("document.documentElement.lang") == "ja"
