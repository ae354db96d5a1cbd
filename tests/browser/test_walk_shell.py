"""What stands around all pages, on a desktop and on a phone: palette, bell, theme, language, ＋Run; and the pool."""

from __future__ import annotations

import errno
import threading
from pathlib import Path

import pytest
from playwright.async_api import expect

from koubou_panel.core.commands import Caller, CancelTask, ResumePool, SaveScript
from koubou_panel.core.script import Script
from koubou_panel.testing import open_inline_shop, submit, until
from koubou_panel.views import run
from koubou_panel.views.pages import settings
from tests.browser.floor import ASLEEP, Floor, clean_page, make_floor  # noqa: F401 - the fixtures of this module
from tests.browser.pages import open_dashboard, open_page, way_in

ME = Caller("test")
GROUND = "getComputedStyle(document.body).backgroundColor"
CHOSEN = ".palette .option[aria-selected=true]"
CLOSED_AND_PRESSED = """field => {
  field.closest("dialog").close()
  const isFocused = field.getRootNode().activeElement === field
  field.dispatchEvent(new KeyboardEvent("keydown", {key: "/", bubbles: true, composed: true, cancelable: true}))
  return isFocused
}"""
EACH_TEXT = """node => {
  window.said = []
  new MutationObserver(() => said.push(node.textContent)).observe(node, {childList: true})
}"""


async def open_palette(floor: Floor, *, by_key: str = "/") -> None:
    """By a key where there are some, by its button on a phone."""
    await (floor.page.tap(".searchfield") if floor.is_phone else floor.page.keyboard.press(by_key))
    await floor.page.wait_for_selector(".palette[open]")


async def test_a_key_right_after_a_form_was_closed_counts(floor: Floor) -> None:
    """The field that one typed in keeps the focus until the browser draws again, though it is out of sight."""
    await floor.go("services", run="command")
    command = await floor.page.wait_for_selector(".rundialog[open] [name=command]")
    await command.focus()
    assert await command.evaluate(CLOSED_AND_PRESSED)
    await floor.page.wait_for_selector(".palette[open]")
    await floor.page.keyboard.press("Escape")
    await floor.page.wait_for_selector(".palette", state="hidden")


async def test_the_palette_is_ruled_by_keys(floor: Floor) -> None:
    """Arrows and page keys choose, what does not fit is told, Esc closes; it pauses and resumes, and shows the keys."""
    page, watch, shop = floor.page, floor.watch, floor.shop
    keys = page.keyboard
    await floor.go("services")
    await open_palette(floor)
    await watch.shows(CHOSEN, "Overview")
    for key, said in (
        ("ArrowDown", "Tasks"),
        ("ArrowDown", "Workers"),
        ("ArrowUp", "Tasks"),
        ("PageUp", "Overview"),
    ):
        await keys.press(key)
        await watch.shows(CHOSEN, said)
    await keys.type("zzz nothing")
    await watch.shows(".palette .none:visible", "Nothing fits")
    await keys.press("Escape")
    await page.wait_for_selector(".palette", state="hidden")
    for typed, is_paused in (("pause the pool", True), ("resume the pool", False)):
        await open_palette(floor, by_key="Control+k")
        await keys.type(typed)
        await page.wait_for_selector(f".palette .option >> text=/{typed}/i")
        await keys.press("Enter")
        await page.wait_for_selector(".palette", state="hidden")  # else the next key goes to it
        await until(lambda is_paused=is_paused: shop.state.pool.paused is is_paused)
    await open_palette(floor)
    await keys.type("run a command")
    await keys.press("Enter")
    await page.wait_for_selector(".rundialog[open] [name=command]")
    await keys.press("Escape")
    await page.wait_for_selector(".rundialog", state="hidden")
    await open_palette(floor)
    await keys.press("?")
    await watch.shows(".keys[open]", "Close what is open")
    await page.click(".keys .close")
    if not floor.is_phone:
        await keys.press("Control+k")
        await page.wait_for_selector(".palette[open]")
        await keys.press("Control+k")
        await page.wait_for_selector(".palette", state="hidden")
    await open_palette(floor)
    await page.locator(".palette .option", has_text="Settings").click()
    await page.wait_for_selector(".settingspage", state="visible")


async def test_the_theme_and_the_language_are_chosen(floor: Floor) -> None:
    """In the bar, or in a phone's menu: both change what is seen at once, and back."""
    page, watch = floor.page, floor.watch
    await floor.go("workers")

    async def reach() -> str:
        if not floor.is_phone:
            return ".bar > "
        if not await page.locator(".menu[open]").count():
            await page.tap(".menubutton")
        return ".menu "

    own = await page.evaluate(GROUND)
    await page.click(f"{await reach()}.theme")
    assert await page.evaluate(GROUND) != own
    await page.click(f"{await reach()}.theme")
    assert await page.evaluate(GROUND) == own
    for language, workers in (("ja", "ワーカー"), ("zh-Hant", "工作程序"), ("en", "Workers")):
        await page.locator(f"{await reach()}.languages").select_option(language)
        await page.wait_for_function("name => document.documentElement.lang === name", arg=language)
        if language != "zh-Hant":  # its word is the translators' choice
            await watch.shows(".card.workers h2", workers)
        await page.wait_for_selector(".k-bar .pill")
        await floor.fits()
    if floor.is_phone and await page.locator(".menu[open]").count():
        await page.click(".menu .close")
    await page.wait_for_selector(".menu[open]", state="hidden")


async def test_the_bell_is_set(floor: Floor) -> None:
    """What is chosen is told of in a toast, listed behind the bell, and leads to its task; then it is quiet again."""
    page, watch, shop = floor.page, floor.watch, floor.shop
    await floor.go()
    await shop.do(SaveScript(Script(name="breaks", path=""), text="#!/bin/sh\nexit 9\n"), ME)
    await page.click(".bell")
    for name in ("scripts", "idle"):
        await page.check(f".bellpanel [name={name}]")
    await page.click(".bellpanel .close")
    await floor.go(run="script:breaks")
    await page.wait_for_selector(".rundialog[open] .start:enabled")
    await page.click(".rundialog .start")
    await watch.shows(".toasts", "breaks failed")
    await page.click(".taskcard .close")
    await page.click(".bell")
    await watch.shows(".bellpanel .told", "Nothing is left to do")
    await page.locator(".bellpanel .toldrow", has_text="breaks failed").first.click()
    await watch.shows(".taskcard h3", "breaks")
    await page.click(".taskcard .close")
    await page.click(".bell")
    for name in ("scripts", "idle"):
        await page.uncheck(f".bellpanel [name={name}]")
    await page.keyboard.press("Escape")
    await floor.fits()


async def test_a_command_is_filled_in(floor: Floor) -> None:
    """All that it may be given is given; what is not sent is kept over a reload; Clear empties; Esc closes."""
    page, watch, shop = floor.page, floor.watch, floor.shop
    await floor.go()
    await page.click(".tabrun" if floor.is_phone else ".bar > .run")
    await page.wait_for_selector(".rundialog[open]")
    await page.click(".kinds >> text=Command")
    given = {"command": "cat", "env": "COLOUR=blue", "name": "filled in", "labels": "team=x", "priority": "7"}
    if not await page.locator(".morefields[open]").count():
        await page.click(".morefields summary")
    for name, value in given.items():
        await page.fill(f".rundialog [name={name}]", value)
    await page.check(".rundialog [name=stdin]")
    await page.reload()
    await page.wait_for_selector(".rundialog[open] [name=command]")
    for name, value in given.items():
        await expect(page.locator(f".rundialog [name={name}]")).to_have_value(value)
    await floor.fits()
    await page.click(".rundialog .start")
    await watch.shows(".taskcard h3", "filled in")
    task = next(task for task in shop.state.tasks.values() if task.request.name == "filled in")
    assert (task.request.priority, task.request.labels, task.request.spec["stdin"]) == (
        7,
        {"team": "x"},
        True,
    )
    await until(lambda: shop.state.tasks[task.task_id].status == "in_progress")
    await page.click(".typing .end")
    await page.click(".typing .end.sure")
    await watch.shows(".taskcard .words", "completed")
    await floor.go(run="prompt")
    await page.fill(".rundialog [name=prompt]", "what is not sent")
    await page.fill(".rundialog [name=temperature]", "9")
    await page.fill(".rundialog [name=prompt]", "")
    if not await page.locator(".morefields[open]").count():
        await page.click(".morefields summary")
    await page.fill(".rundialog [name=labels]", "no value")
    await page.click(".rundialog .start")
    # What the browser tells by itself, and what the workshop does: at once.
    for name, said in (("prompt", "needed"), ("temperature", "2"), ("labels", "name=value")):
        await watch.shows(f".field:has([name={name}]) .wrong:visible", said)
    await page.click(".rundialog .clear")
    await expect(page.locator(".rundialog [name=prompt]")).to_have_value("")
    await page.keyboard.press("Escape")
    await page.wait_for_selector(".rundialog", state="hidden")
    await page.wait_for_url(lambda url: "run=" not in url)


async def test_a_form_that_is_closed_while_it_is_sent_says_that_it_started(
    floor: Floor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closing it does not take back what was sent: one is told of the task, and led to it."""
    page, watch = floor.page, floor.watch
    make, asked, gate = run.command_of, threading.Event(), threading.Event()

    def held(*given: object) -> object:
        asked.set()
        gate.wait(90)  # a test that fails ends, too
        return make(*given)

    await floor.go(run="command")
    await page.fill(".rundialog [name=command]", "echo sent")
    monkeypatch.setattr(run, "command_of", held)
    await page.click(".rundialog .start")
    await until(asked.is_set)
    await page.keyboard.press("Escape")
    await page.wait_for_selector(".rundialog", state="hidden")
    gate.set()
    await watch.shows(".toasts .toast", "has been started")
    await page.click(".toasts .toast")
    await watch.shows(".taskcard h3", "echo")


async def test_a_script_that_is_not_there_is_told(floor: Floor) -> None:
    """An old link to run one says so, beside those that there are."""
    await floor.go(run="script:none")
    await floor.watch.shows(".rundialog form > .wrong", "There is no script none")
    await floor.page.keyboard.press("Escape")
    await floor.page.wait_for_selector(".rundialog", state="hidden")


async def test_the_pool_drains_and_goes_on(floor: Floor) -> None:
    """Drain asks twice, also on a phone; a worker is replaced after its task, and its row leads to that."""
    page, watch, shop = floor.page, floor.watch, floor.shop
    task_id = await submit(shop, *ASLEEP, name="drained")
    await until(lambda: shop.state.tasks[task_id].status == "in_progress")
    await floor.go("workers")
    row = page.locator(".workers .row", has_text="drained")
    await page.locator(".controls").get_by_role("button", name="Drain").click()
    assert not shop.state.pool.draining
    await page.locator(".controls").get_by_role("button", name="Refuse new work?").click()
    await until(lambda: shop.state.pool.draining)
    await watch.shows(".attention", "The workers drain")
    await page.locator(".controls .resume").click()
    await until(lambda: not shop.state.pool.draining)
    await row.locator(".task").click()
    await watch.shows(".taskcard h3", "drained")
    await page.click(".taskcard .close")
    worker = next(one for one in shop.state.workers.values() if one.current_task == task_id)
    await row.locator(".restart").click()
    await row.get_by_role("button", name="Restart after its task").click()
    await watch.shows(".workers .badge.stopping", "stopping")
    assert shop.state.tasks[task_id].status == "in_progress"
    await shop.do(CancelTask(task_id), ME)
    await until(lambda: worker.worker_id not in shop.state.workers)
    await shop.do(ResumePool(), ME)
    await floor.fits()


async def test_the_host_and_the_services_lead_on(floor: Floor) -> None:
    """An hour of the host, by its button; what the workshop uses leads to the workers; a setting outlives a reload."""
    page, watch = floor.page, floor.watch
    await floor.go("system")
    await page.click(".spans button:text-is('1 h')")
    await page.wait_for_url("**span=1h**")
    await page.click(".spans button:text-is('15 min')")
    await page.wait_for_selector(".spans button[aria-pressed=true]:text-is('15 min')")
    await page.locator(".ownuse a").first.click()
    await page.wait_for_selector(".card.workers >> visible=true")
    await floor.go("settings")
    await page.fill("#setting-grace_s", "12")
    await page.reload()
    await watch.shows(".pending .diff .plus", "grace_s = 12.0")
    await page.click(".pending .save")
    await watch.shows(".told .said", "Saved.")
    assert "grace_s = 12" in (floor.folder / "settings.toml").read_text()
    await page.click(".told .undo")
    await watch.shows(".told .said", "as it was before")
    assert "grace_s" not in (floor.folder / "settings.toml").read_text()
    await floor.fits()


async def test_a_setting_is_saved_once_it_can_be(floor: Floor, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look at the change or a save that fails is told, and Save is back by itself; the reason stays to be read."""
    page, watch, file = floor.page, floor.watch, floor.folder / "settings.toml"

    def fails_once(name: str) -> None:
        whole, left = getattr(settings, name), [OSError(errno.ENOSPC, "no room")]

        def full(*given: object, **named: object) -> object:
            if left:
                raise left.pop()
            return whole(*given, **named)

        monkeypatch.setattr(settings, name, full)

    await floor.go("settings")
    fails_once("preview_settings")
    await page.fill("#setting-grace_s", "12")
    await watch.shows(".told .said.bad", "That did not work")
    await watch.shows(".pending .diff .plus", "grace_s = 12.0")
    await expect(page.locator(".settingspage > .told")).to_be_hidden()
    fails_once("change_settings")
    await page.click(".pending .save")
    await watch.shows(".told .said.bad", "That did not work")
    await expect(page.locator(".pending .save")).to_be_enabled()
    await watch.shows(".told .said.bad", "That did not work")
    await page.click(".pending .save")
    await watch.shows(".told .said", "Saved.")
    assert "grace_s = 12" in file.read_text()
    await page.click(".told .undo")
    await watch.shows(".told .said", "as it was before")
    await floor.fits()


async def test_a_look_that_was_overtaken_says_nothing(floor: Floor, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look at a change that fails after one has typed on is nobody's affair any more."""
    page, watch = floor.page, floor.watch
    look, asked, gate = settings.preview_settings, threading.Event(), threading.Event()

    def held(*_given: object) -> object:
        asked.set()
        gate.wait(90)  # a test that fails ends, too
        raise OSError(errno.ENOSPC, "no room")

    await floor.go("settings")
    monkeypatch.setattr(settings, "preview_settings", held)
    await page.fill("#setting-grace_s", "13")
    await until(asked.is_set)
    monkeypatch.setattr(settings, "preview_settings", look)
    await page.fill("#setting-grace_s", "14")
    await watch.shows(".pending .diff .plus", "grace_s = 14.0")
    await page.locator(".settingspage .said").evaluate(EACH_TEXT)
    gate.set()
    await page.click(".pending .save")
    await watch.shows(".told .said", "Saved.")
    assert await page.evaluate("said") == ["Saved."]
    await page.click(".told .undo")
    await watch.shows(".told .said", "as it was before")


async def test_many_workers_are_turned_over(floor: Floor, tmp_path: Path) -> None:
    """Thirty stand as cells: one leads to its row on the next page; the Overview tells how many more run."""
    browser = floor.page.context.browser
    options = {"viewport": floor.page.viewport_size, "is_mobile": floor.is_phone, "has_touch": floor.is_phone}
    async with open_inline_shop(workers=30) as shop, open_dashboard(shop, tmp_path) as dashboard:
        for n in range(12):
            await submit(shop, name=f"runs {n}")
        async with open_page(browser, way_in(dashboard.port), **options) as watch:
            page = watch.page
            await watch.shows(".running a.more", "+4 more")
            await page.click(".running a.more")
            await watch.shows(".tasks .many .words", "12 tasks")
            await page.goto(page.url.split("?")[0] + "?page=workers")
            await watch.shows(".workers .which", "1 to 24 of 30")
            await page.locator(".workers .cell").last.click()
            await watch.shows(".workers .which", "25 to 30 of 30")
            await page.wait_for_url(lambda url: url.endswith("from=25"))
            await page.get_by_role("button", name="Before").click()
            await watch.shows(".workers .which", "1 to 24 of 30")
            await page.get_by_role("button", name="After").click()
            await watch.shows(".workers .row >> nth=0", "worker-25")
