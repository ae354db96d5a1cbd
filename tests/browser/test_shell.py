"""The shell around all pages: the bar, ＋Run, the command palette, the bell, the language."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from playwright.async_api import expect

from koubou_panel.core.commands import Caller, SaveScript
from koubou_panel.core.ports import Link
from koubou_panel.core.script import Script
from koubou_panel.shop.local import LocalShop
from koubou_panel.testing import open_shop, until
from tests.browser.chromium import PATIENCE_MS
from tests.browser.pages import DESKTOP, PHONE, Watch, open_dashboard, open_page, way_in
from tests.browser.tour import DEEP

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

CLICK_SYSTEM = f"""async () => {{ {DEEP}
  deep(document).find((node) => node.matches("a[href*='page=system']")).click()
  await new Promise((done) => requestAnimationFrame(done))
  const loading = document.querySelector(".k-view-system > .k-loading")
  return loading.checkVisibility() && loading.innerText
}}"""
NOTES_SOON = """const every = setInterval
setInterval = (act, wait_ms) => every(act, wait_ms === 10000 ? 100 : wait_ms)"""
ASK_OTHERS = """async () => {
  const refused = new Set(), far = "http://other.invalid/"
  const put = (name, values) => document.body.append(Object.assign(document.createElement(name), values))
  addEventListener("securitypolicyviolation", (event) => refused.add(event.effectiveDirective))
  fetch(far).catch(() => {})
  try { new WebSocket("ws://127.0.0.1:9/") } catch {}
  put("img", {src: `${far}a.png`})
  put("link", {rel: "stylesheet", href: `${far}a.css`})
  put("iframe", {src: far})
  new FontFace("other", `url(${far}a.woff2)`).load().catch(() => {})
  for (let tries = 0; tries < 100 && refused.size < 5; tries += 1) {
    await new Promise((done) => setTimeout(done, 50))
  }
  return [...refused].sort()
}"""


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
        await page.wait_for_url(lambda url: f"task={task.task_id}" in url)

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
        await expect(page.locator("[name=command]")).to_have_value("echo 'one two'")
        await page.fill("[name=command]", "echo three")
        await page.keyboard.press("Control+Enter")
        await until(lambda: len(shop.state.tasks) == 3)
        last = max(shop.state.tasks.values(), key=lambda task: task.order)
        assert (last.request.spec["command"], last.request.rerun_of) == (["echo", "three"], first.task_id)


@pytest.mark.parametrize("leaves", [True, False])
async def test_what_is_open_when_a_form_was_taken_is_left_alone(
    chromium: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, leaves: bool
) -> None:
    """Closed while it is sent, or left for another kind: its draft alone is done with, and it can be run anew."""
    gate = asyncio.Event()
    async with (
        open_shop(tmp_path, workers=1) as shop,
        open_dashboard(shop, tmp_path) as dashboard,
        open_page(chromium, way_in(dashboard.port)) as watch,
    ):
        page, do = watch.page, shop.do
        script = Script(name="plain", path="", is_inline=True)
        await shop.do(SaveScript(script, text="#!/bin/sh\necho on\n"), Caller("test"))

        async def held(*asked: object) -> object:
            await gate.wait()
            return await do(*asked)

        monkeypatch.setattr(shop, "do", held)
        await page.goto(page.url.split("?")[0] + "?run=script:plain")
        await expect(page.locator("[name=script]")).to_have_value("plain")
        await page.click(".rundialog .start")
        await expect(page.locator(".rundialog .start")).to_be_disabled()
        if leaves:
            await page.keyboard.press("Escape")
            await page.wait_for_selector(".rundialog", state="hidden")
        else:
            await page.click(".kinds >> text=Command")
            await page.fill("[name=command]", "echo kept")
        gate.set()
        await page.wait_for_function("localStorage.getItem('koubou-run-last') !== null")
        assert "task=" not in page.url
        if leaves:
            await page.click(".bar > .run")
        else:
            await page.reload()
            await expect(page.locator("[name=command]")).to_have_value("echo kept")
            await page.click(".kinds >> text=Script")
            await page.select_option("[name=script]", "plain")
        await expect(page.locator("[name=script]")).to_have_value("plain")
        await page.click(".rundialog .start")
        await watch.shows(".taskcard h3", "plain")
        assert len(shop.state.tasks) == 2


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
        await page.wait_for_url(lambda url: "page=" not in url)


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


async def test_what_ends_while_the_workshop_is_away_is_asked_for_again(
    chromium: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A browser notes up to when the workshop was heard, and not how late it is."""
    async with (
        open_shop(tmp_path, workers=1) as shop,
        open_dashboard(shop, tmp_path) as dashboard,
        open_page(chromium, way_in(dashboard.port), script=NOTES_SOON) as watch,
    ):
        monkeypatch.setattr(LocalShop, "link", Link("reconnecting", 60.0))
        page = watch.page
        await watch.shows(".pill", "reconnecting")
        await page.click(".bell")
        await page.check(".bellpanel [name=fails]")
        noted = await page.wait_for_function("JSON.parse(localStorage.getItem('koubou-bell-at'))")
        assert 60 <= time.time() - await noted.json_value() < 60 + PATIENCE_MS / 1000


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
        await expect(page.locator("[name=command]")).to_have_value("echo 'not yet sent'")
        await page.wait_for_url(lambda url: url.endswith("?page=services&run=command"))
        await page.wait_for_selector(".services")
        await page.reload()
        assert await page.evaluate("document.documentElement.lang") == "ja"


async def test_a_page_says_that_it_is_being_opened(chromium: object, tmp_path: Path) -> None:
    """While its server is busy there is a word in its place, at once; the page comes, and the word is gone."""
    async with (
        open_shop(tmp_path, workers=1) as shop,
        open_dashboard(shop, tmp_path) as dashboard,
        open_page(chromium, way_in(dashboard.port), **DESKTOP) as watch,
    ):
        page = watch.page
        loading = page.locator(".k-view-system > .k-loading")
        # In the browser's own turn: what it paints before the server has answered.
        words = await page.evaluate(CLICK_SYSTEM)
        assert words == "Opening …"
        await page.wait_for_selector(".systemhead")
        await until(loading.is_hidden)
        await page.wait_for_function("document.querySelector('.k-view-system').dataset.there === ''")


async def test_the_browser_itself_asks_no_other_host(chromium: object, tmp_path: Path) -> None:
    """Whatever came into a page: what it would ask of another host, or of another port, is refused."""
    async with open_shop(tmp_path, workers=1) as shop, open_dashboard(shop, tmp_path) as dashboard:
        context = await chromium.new_context(**DESKTOP)
        page = await context.new_page()
        await page.goto(way_in(dashboard.port))
        await page.wait_for_selector(".tile")
        refused = await page.evaluate(ASK_OTHERS)
        await context.close()
        assert refused == ["connect-src", "font-src", "frame-src", "img-src", "style-src-elem"]
