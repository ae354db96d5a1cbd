"""What can be done with scripts, on a desktop and on a phone: the catalogue, one of them, its editor, two tabs."""

from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace
from playwright.async_api import expect

from koubou_panel.core.commands import Caller, RunScript, SaveScript
from koubou_panel.core.script import Schedule, Script
from koubou_panel.testing import ended, until
from tests.browser.floor import Floor, clean_page, make_floor  # noqa: F401 - the fixtures of this module
from tests.browser.pages import Watch

ME = Caller("test")
DRAFTS = (
    "Object.keys({...localStorage, ...sessionStorage}).filter(key => key.startsWith('koubou-draft')).length"
)


async def add_script(floor: Floor, name: str, text: str = "#!/bin/sh\necho one\n", **fields: object) -> None:
    """A script of the catalogue."""
    await floor.shop.do(SaveScript(Script(name=name, path="", **fields), text=text), ME)


async def run_script(floor: Floor, name: str) -> None:
    """One run of it, to its end."""
    task_id = floor.shop.next_id()
    await floor.shop.do(RunScript(name, task_id), ME)
    await ended(floor.shop, task_id)


async def edit(floor: Floor, name: str) -> None:
    """Its editor, ready, and not as it was left."""
    await floor.go("scripts")
    await floor.go("scripts", script=name, edit="1")
    await floor.page.wait_for_selector(".code[data-ready='1']")


async def type_at_the_end(page: object, text: str) -> None:
    """Type at the end of the text."""
    await page.locator(".code .ace_content").click()
    await page.keyboard.press("Control+End")
    await page.keyboard.type(text)


async def sure(page: object, place: str, text: str) -> None:
    """Click it, and once more where it asks."""
    await page.locator(place).get_by_role("button", name=text, exact=True).first.click()
    await page.locator(place).locator(".sure").first.click()


async def test_the_catalogue_is_used(floor: Floor) -> None:
    """A script is found by its name, switched off and on, run by its form; its marks and its count lead to its runs."""
    page, watch, shop = floor.page, floor.watch, floor.shop
    await add_script(floor, "nightly", schedule=Schedule(every_s=3600.0))
    await add_script(floor, "other")
    await run_script(floor, "nightly")
    await floor.go("scripts")
    await page.fill(".catalogue .find", "night")
    await page.wait_for_url("**find=night**")
    row = page.locator(".catalogue tbody tr")
    await watch.shows(".catalogue tbody tr", "nightly")
    await expect(row).to_have_count(1)
    await row.locator(".switch").click()
    await until(lambda: not shop.state.scripts["nightly"].script.is_enabled)
    await row.locator(".switch[aria-checked=false]").click()
    await until(lambda: shop.state.scripts["nightly"].script.is_enabled)
    if not floor.is_phone:
        await row.locator("td.many a").click()
        await watch.shows(".tasks .many .words", "1 task")
        await page.go_back()
    await row.locator("td.last a" if floor.is_phone else ".marks a").first.click()
    await watch.shows(".taskcard h3", "nightly")
    await page.click(".taskcard .close")
    await row.get_by_role("link", name="Run nightly").click()
    await page.wait_for_selector(".rundialog[open]")
    await expect(page.locator("[name=script]")).to_have_value("nightly")
    await page.click(".rundialog .start")
    await watch.shows(".taskcard h3", "nightly")
    await page.click(".taskcard .close")
    await page.fill(".catalogue .find", "no such thing")
    await watch.shows(".catalogue .empty", "No script is called so")
    await floor.fits()


async def test_a_file_is_added(floor: Floor) -> None:
    """A path that is none is told at its field, what is typed outlives a reload; a dropped file is a text."""
    page, watch = floor.page, floor.watch
    file = floor.folder / f"mine-{floor.size}.sh"
    file.write_text("#!/bin/sh\necho from a file\n")
    await floor.go("scripts")
    await page.locator(".catalogue header a.primary").click()
    form = page.locator(".scripts .add")
    path = form.get_by_label("Path of the file", exact=False)
    await form.get_by_label("Name", exact=True).first.fill("by path")
    await path.fill("/no/such/file.sh")
    await form.get_by_role("button", name="Add it").click()
    await watch.shows(".add .field .wrong:visible", "no")
    await path.fill(str(file))
    await form.get_by_text("Every so often").click()
    await form.get_by_label("Every", exact=True).fill("5h")
    await form.get_by_text("How it runs").click()
    await form.get_by_label("Environment", exact=True).fill("KEY=secret")
    assert not await page.evaluate("JSON.stringify(localStorage).includes('secret')"), (
        "a form may hold secrets"
    )
    await form.get_by_text("What it can be given").click()
    await page.get_by_role("button", name="Add a parameter").click()
    await form.locator(".parameter").get_by_label("Name").fill("gone")
    await form.locator(".parameter button").click()
    await page.reload()
    await watch.shows(".add .banner", "that was not saved")
    await expect(form.get_by_label("Name", exact=True).first).to_have_value("by path")
    await expect(form.locator(".parameter")).to_have_count(0)
    await expect(form.get_by_label("Every", exact=True)).to_have_value("5h")
    await form.get_by_role("button", name="Add it").click()
    await watch.shows(".detail h1", "by path")
    assert floor.shop.state.scripts["by path"].script.schedule == Schedule(every_s=5 * 3600.0)
    assert floor.shop.state.scripts["by path"].script.env == {"KEY": "secret"}
    assert await page.evaluate(DRAFTS) == 0
    await page.click(".detail .back")
    await page.wait_for_selector(".catalogue")
    await floor.drop(".catalogue", "dropped.py", "print('dropped')\n")
    await page.wait_for_selector(".scripts .add")
    await form.get_by_role("button", name="Add it").click()
    await watch.shows(".detail h1", "dropped")
    assert (await floor.shop.read_script("dropped")).text == "print('dropped')\n"
    await floor.fits()


async def test_a_definition_is_not_overwritten(floor: Floor) -> None:
    """Changed meanwhile by somebody else: theirs is shown, or mine is put over it, as is chosen."""
    page, watch, shop = floor.page, floor.watch, floor.shop
    await add_script(floor, "shared")
    for mine, theirs, wins in (("10m", "20m", False), ("30m", "40m", True)):
        await floor.go()
        await floor.go("scripts", script="shared")
        await page.locator(".defined").get_by_role("button", name="Change").click()
        await page.locator(".defined summary", has_text="How it runs").click()
        await page.locator(".defined").get_by_label("Time-out").fill(mine)
        known = shop.state.scripts["shared"]
        changed = replace(known.script, timeout_s=60.0 * int(theirs[:-1]))
        await shop.do(SaveScript(changed, revision=known.revision), Caller("them"))
        await page.locator(".defined footer").get_by_role("button", name="Save").click()
        await watch.shows(".defined .say", "It was changed meanwhile")
        await expect(page.locator(".defined .facts2")).to_contain_text(theirs)
        if wins:
            await sure(page, ".defined .say", "Save mine over it")
            await page.wait_for_selector(".defined .change", state="hidden")
            await until(lambda: shop.state.scripts["shared"].script.timeout_s == 1800.0)
        else:
            await page.locator(".defined .say").get_by_role("button", name="Show it as it is now").click()
            await expect(page.locator(".defined").get_by_label("Time-out")).to_have_value(theirs)
            await page.locator(".defined footer").get_by_role("button", name="Cancel").click()
    await floor.fits()


async def test_a_late_answer_leaves_the_next_form_alone(
    floor: Floor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A form is cancelled while its save waits: whatever the answer is, the next form stays open and can be saved."""
    page, watch, shop = floor.page, floor.watch, floor.shop
    await add_script(floor, "late")
    defined, facts, do = page.locator(".defined"), page.locator(".defined .facts2"), shop.do
    save, cancel = defined.locator("footer .primary"), defined.get_by_role("button", name="Cancel")

    async def open_form(time_out: str) -> None:
        await defined.get_by_role("button", name="Change").click()
        await defined.locator("summary", has_text="How it runs").click()
        await defined.get_by_label("Time-out").fill(time_out)

    async def save_and_cancel(time_out: str) -> asyncio.Event:
        """It waits until what is given is set."""
        asked, gate = asyncio.Event(), asyncio.Event()

        async def held(command: SaveScript, caller: Caller) -> object:
            asked.set()
            await gate.wait()
            return await do(command, caller)

        await open_form(time_out)
        monkeypatch.setattr(shop, "do", held)
        await save.click()
        await asked.wait()
        monkeypatch.setattr(shop, "do", do)
        await cancel.click()
        return gate

    await floor.go()
    await floor.go("scripts", script="late")
    gate = await save_and_cancel("10m")
    known = shop.state.scripts["late"]
    await do(SaveScript(replace(known.script, timeout_s=1200.0), revision=known.revision), Caller("them"))
    await expect(facts).to_contain_text("20m")
    await open_form("30m")
    assert await save.is_enabled()
    gate.set()  # what is answered now is that it was changed meanwhile
    await save.click()
    await page.wait_for_selector(".defined .change", state="hidden")
    await expect(facts).to_contain_text("30m")
    gate = await save_and_cancel("40m")
    await open_form("50m")
    gate.set()
    await expect(facts).to_contain_text("40m")
    await save.click()
    await watch.shows(".defined .say", "It was changed meanwhile")
    await cancel.click()


async def test_a_definition_that_is_typed_is_kept(floor: Floor) -> None:
    """It outlives a page that loads itself again and a look at the text, and overwrites nobody; then it is gone."""
    page, watch, shop = floor.page, floor.watch, floor.shop
    await add_script(floor, "kept")
    defined = page.locator(".defined")
    time_out, summary = defined.get_by_label("Time-out"), defined.locator("summary", has_text="How it runs")

    async def type_it(minutes: int) -> None:
        await defined.get_by_role("button", name="Change").click()
        await summary.click()
        await time_out.fill(f"{minutes}m")

    async def is_offered(minutes: int) -> None:
        await watch.shows(".defined .banner", "that was not saved")
        await expect(time_out).to_have_value(f"{minutes}m")

    await floor.go()
    await floor.go("scripts", script="kept")
    await type_it(5)
    await defined.get_by_label("Environment", exact=True).fill("KEY=secret")
    assert not await page.evaluate("JSON.stringify(localStorage).includes('secret')"), (
        "a form may hold secrets"
    )
    known = shop.state.scripts["kept"]
    await shop.do(SaveScript(replace(known.script, retries=2), revision=known.revision), Caller("them"))
    async with page.expect_navigation():
        await page.evaluate("() => { sessionStorage.removeItem('koubou-again'); koubouAgain() }")
    await is_offered(5)
    await page.locator(".detail").get_by_role("link", name="Edit the text").click()
    await page.wait_for_selector(".code[data-ready='1']")
    await page.locator(".editor .back").click()
    await is_offered(5)
    await floor.fits()
    await defined.locator("footer .primary").click()
    await watch.shows(".defined .say", "It was changed meanwhile")
    await sure(page, ".defined .say", "Save mine over it")
    await page.wait_for_selector(".defined .change", state="hidden")
    await until(lambda: shop.state.scripts["kept"].script.timeout_s == 300.0)
    assert shop.state.scripts["kept"].script.env == {"KEY": "secret"}
    assert await page.evaluate(DRAFTS) == 0
    await type_it(6)
    await page.reload()
    await is_offered(6)
    await defined.get_by_role("button", name="Throw it away").click()
    await page.wait_for_selector(".defined .change", state="hidden")
    assert await page.evaluate(DRAFTS) == 0
    await type_it(7)
    assert await page.evaluate(DRAFTS) == 1
    await defined.get_by_role("button", name="Cancel").click()
    assert await page.evaluate(DRAFTS) == 0


async def test_parameters_are_declared(floor: Floor) -> None:
    """One is added and saved, then taken away; a text that declares its own is read again."""
    page, shop = floor.page, floor.shop
    await add_script(floor, "takes")
    await floor.go()
    await floor.go("scripts", script="takes")

    async def open_form() -> None:
        await page.locator(".defined").get_by_role("button", name="Change").click()
        await page.locator(".defined summary", has_text="What it can be given").click()

    async def save(count: int) -> None:
        await page.locator(".defined footer").get_by_role("button", name="Save").click()
        await page.wait_for_selector(".defined .change", state="hidden")
        await until(lambda: len(shop.state.scripts["takes"].script.parameters) == count)

    await open_form()
    await page.get_by_role("button", name="Add a parameter").click()
    row = page.locator(".parameter")
    await row.get_by_label("Name").fill("colour")
    await row.get_by_label("Type").select_option("choice")
    await row.get_by_label("Choices").fill("red, blue")
    await row.get_by_label("Default").fill("red")
    await save(1)
    (made,) = shop.state.scripts["takes"].script.parameters
    assert (made.name, made.choices, made.default) == ("colour", ("red", "blue"), "red")
    await floor.watch.shows(".defined .takes", "red | blue")
    await open_form()
    await page.get_by_role("button", name="Remove the parameter colour").click()
    await save(0)
    await open_form()
    await page.get_by_role("button", name="Read them from the text again").click()
    await floor.watch.shows(".parameters", "read anew when this is saved")
    await page.locator(".defined footer").get_by_role("button", name="Cancel").click()
    await floor.fits()


async def test_its_output_is_searched_and_removed(floor: Floor) -> None:
    """What all its runs printed is searched, a hit opens its task; old output goes after a second click."""
    page, watch = floor.page, floor.watch
    await add_script(floor, "prints", "#!/bin/sh\necho a needle here\n")
    for _ in range(2):
        await run_script(floor, "prints")
    await floor.go()
    await floor.go("scripts", script="prints")
    await page.fill(".printed input", "needle")
    await page.locator(".printed").get_by_role("button", name="Search").click()
    await watch.shows(".printed .found", "2 lines in 2 runs")
    await page.locator(".printed .match").first.click()
    await watch.shows(".taskcard h3", "prints")
    await page.click(".taskcard .close")
    await page.locator(".lastruns .run").first.click()
    await watch.shows(".taskcard h3", "prints")
    await page.click(".taskcard .close")
    await sure(page, ".printed", "Remove old output")
    await watch.shows(".printed .found", "is removed")
    await page.click(".lastruns .all")
    await watch.shows(".tasks .many .words", "2 tasks")


async def test_an_older_text_is_compared_and_restored(floor: Floor) -> None:
    """Any two versions are compared; Restore makes the old text the new one; Find opens over the text."""
    page, watch, shop = floor.page, floor.watch, floor.shop
    await add_script(floor, "versions", "#!/bin/sh\necho first\n")
    first = await shop.read_script("versions")
    await shop.save_script_text("versions", "#!/bin/sh\necho second\n", first.version, ME)
    await edit(floor, "versions")
    await watch.shows(".ace_text-layer", "echo second")
    await page.locator(".editor header").get_by_role("button", name="Find").click()
    await page.wait_for_selector(".ace_search", state="visible")
    await page.keyboard.press("Escape")
    await page.locator(".editor header").get_by_role("button", name="Versions").click()
    await page.wait_for_selector(".versions li >> nth=1")
    await page.locator(".versions .pick select").nth(1).select_option(index=1)
    await page.get_by_role("button", name="Compare").click()
    await watch.shows(".diff td.text.removed", "−echo first")
    await watch.shows(".diff td.text.added", "+echo second")
    await page.get_by_role("button", name="Back to the text").click()
    await sure(page, ".versions li >> nth=1", "Restore")
    await watch.shows(".ace_text-layer", "echo first")
    assert (await shop.read_script("versions")).text == "#!/bin/sh\necho first\n"
    await floor.fits()


async def test_a_late_comparison_hides_no_text(floor: Floor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who goes on editing before it is known what differs keeps the text in sight."""
    page, watch, shop = floor.page, floor.watch, floor.shop
    await add_script(floor, "slow")
    await edit(floor, "slow")
    await type_at_the_end(page, "echo mine")
    base = (await shop.read_script("slow")).version
    await shop.save_script_text("slow", "#!/bin/sh\necho theirs\n", base, Caller("them"))
    gate, answered, read = asyncio.Event(), asyncio.Event(), shop.read_script

    async def held(name: str, version: str | None = None) -> object:
        if version is not None:
            await gate.wait()
            answered.set()
        return await read(name, version)

    monkeypatch.setattr(shop, "read_script", held)
    await page.keyboard.press("Control+s")
    await watch.shows(".notes .banner.bad", "nothing was overwritten")
    await page.get_by_role("button", name="Go on editing").click()
    gate.set()
    await answered.wait()
    await page.get_by_role("button", name="Versions").click()
    await page.wait_for_selector(".versions li")
    await floor.settled()
    await watch.shows(".ace_text-layer", "echo mine")
    assert await page.locator(".diffview").count() == 0
    await sure(page, ".notes .banner.bad", "Take theirs")


async def test_theirs_is_taken(floor: Floor) -> None:
    """In a conflict one may go on editing, look again at what differs, or take theirs: then mine is typed away."""
    page, watch, shop = floor.page, floor.watch, floor.shop
    await add_script(floor, "disputed")
    await edit(floor, "disputed")
    await type_at_the_end(page, "echo mine")
    await watch.shows(".editor .state", "Not saved")
    base = (await shop.read_script("disputed")).version
    await shop.save_script_text("disputed", "#!/bin/sh\necho theirs\n", base, Caller("them"))
    await watch.shows(".notes", "Somebody else has saved this text")
    await page.keyboard.press("Control+s")
    await watch.shows(".notes .banner.bad", "nothing was overwritten")
    await page.get_by_role("button", name="Go on editing").click()
    await watch.shows(".ace_text-layer", "echo mine")
    await page.locator(".notes .banner.bad").get_by_role("button", name="What differs").click()
    await watch.shows(".diff td.text.removed", "−echo theirs")
    await sure(page, ".notes .banner.bad", "Take theirs")
    await watch.shows(".ace_text-layer", "echo theirs")
    assert await page.evaluate(DRAFTS) == 0
    await floor.fits()


async def test_a_draft_is_looked_at_and_thrown_away(floor: Floor) -> None:
    """Left and come back to, it is offered with what it would change; thrown away it is gone."""
    page, watch = floor.page, floor.watch
    await add_script(floor, "drafted")
    await edit(floor, "drafted")
    await type_at_the_end(page, "echo draft")
    await until(lambda: page.evaluate(DRAFTS))
    await edit(floor, "drafted")
    await watch.shows(".notes", "There is a draft of yours")
    await page.locator(".notes").get_by_role("button", name="What differs").click()
    await watch.shows(".diff td.text.added", "+echo draft")
    await page.get_by_role("button", name="Back to the text").click()
    await sure(page, ".notes", "Throw it away")
    await page.wait_for_selector(".notes .banner", state="hidden")
    assert await page.evaluate(DRAFTS) == 0


async def test_what_a_form_once_left_in_the_browser_is_removed(floor: Floor) -> None:
    """A page that is loaded clears away what forms had kept for all tabs, and leaves the drafts of scripts alone."""
    page = floor.page
    await floor.go("scripts")
    keys = ['koubou-draft ["/a","?add",""]', 'koubou-draft ["/a","?settings",""]']
    others = ['koubou-draft ["/a","drafted","1"]', "koubou-draft ?", "other ?add"]
    await page.evaluate(
        "keys => keys.forEach(key => localStorage.setItem(key, 'KEY=secret'))", [*keys, *others]
    )
    await page.reload()
    await page.wait_for_selector(".catalogue")
    assert (
        await page.evaluate("keys => keys.filter(key => localStorage.getItem(key))", keys + others) == others
    )
    await page.evaluate("keys => keys.forEach(key => localStorage.removeItem(key))", others)


async def test_two_tabs_on_one_draft(floor: Floor) -> None:
    """The second tab is offered what the first has typed; whoever saves second overwrites nothing."""
    page, shop = floor.page, floor.shop
    await add_script(floor, "twice")
    await edit(floor, "twice")
    await type_at_the_end(page, "echo tab one")
    await until(lambda: page.evaluate(DRAFTS))
    other = await page.context.new_page()
    second = Watch(other)
    await other.goto(page.url)
    await second.shows(".notes", "There is a draft of yours")
    await other.get_by_role("button", name="Go on with the draft").click()
    await second.shows(".ace_text-layer", "echo tab one")
    await type_at_the_end(other, " and two")
    await other.keyboard.press("Control+s")
    await second.shows(".editor .state", "Saved")
    assert (await shop.read_script("twice")).text.endswith("echo tab one and two")
    await floor.watch.shows(".notes", "Somebody else has saved this text")
    await page.locator(".code .ace_content").click()
    await page.keyboard.press("Control+s")
    await floor.watch.shows(".notes .banner.bad", "nothing was overwritten")
    await sure(page, ".notes .banner.bad", "Keep mine as the new text")
    await floor.watch.shows(".editor .state", "Saved")
    assert (await shop.read_script("twice")).text.endswith("echo tab one")
    await second.shows(".ace_text-layer", "echo tab one")
    await other.close()
    assert await page.evaluate(DRAFTS) == 0
