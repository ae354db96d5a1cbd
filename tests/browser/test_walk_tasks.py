"""What can be done with tasks, on a desktop and on a phone: the list with its pages, many at once, and one of them."""

from __future__ import annotations

import sys

import pytest
from playwright.async_api import expect

from koubou_panel.core.commands import Caller, CancelTask, SubmitTask
from koubou_panel.core.records import Request, TaskId
from koubou_panel.kinds.packing import pack, pickled_arguments, pickled_function
from koubou_panel.testing import ended, submit, until
from tests.browser.floor import ASLEEP, Floor, clean_page, make_floor  # noqa: F401 - the fixtures of this module

MANY = 60
COUNTS = "for n in range(300): print(f'line {n} of them', flush=True)\nimport time\ntime.sleep(600)"
TYPED_AND_TABBED = """(input, text) => {
  input.focus()
  input.value = text
  input.setSelectionRange(text.length, text.length)
  input.dispatchEvent(new InputEvent("input", {bubbles: true}))
  input.dispatchEvent(new KeyboardEvent("keydown", {key: "Tab", bubbles: true, cancelable: true}))
}"""


async def add_many(floor: Floor, name: str, count: int) -> list[TaskId]:
    """So many quick functions that have ended."""
    payload = pack(pickled_function(pow), pickled_arguments((2, 3), {}), [])
    requests = [
        Request(task_id=floor.shop.next_id(), kind="function", created_at=0.0, payload=payload, name=name)
        for _ in range(count)
    ]
    answers = await floor.shop.do_many([SubmitTask(request) for request in requests], Caller("test"))
    tasks = [TaskId(answer) for answer in answers]
    for task_id in tasks:
        await ended(floor.shop, task_id)
    return tasks


def count_of(floor: Floor, name: str) -> int:
    """How many tasks are called so."""
    return sum(task.request.name == name for task in floor.shop.state.tasks.values())


async def test_a_list_is_narrowed_and_turned(floor: Floor) -> None:
    """Chips, an offer that is clicked, ×, and the pages with their sizes, each in the address."""
    page, watch = floor.page, floor.watch
    await add_many(floor, "paged", MANY)
    await floor.go("tasks", q="name:paged", size="25")
    pager = page.locator(".tasks .pager")
    await watch.shows(".tasks .pager .where", f"1 to 25 of {MANY}")
    await pager.get_by_role("button", name="After").click()
    await watch.shows(".tasks .pager .where", "26 to 50")
    await pager.get_by_role("button", name="After").click()
    await watch.shows(".tasks .pager .where", f"51 to {MANY}")
    await expect(pager.get_by_role("button", name="After")).to_be_disabled()
    await pager.get_by_role("button", name="Before").click()
    await watch.shows(".tasks .pager .where", "26 to 50")
    await pager.get_by_role("button", name="First").click()
    await watch.shows(".tasks .pager .where", "1 to 25")
    await pager.locator("select").select_option("100")
    await watch.shows(".tasks .pager .where", f"1 to {MANY} of {MANY}")
    await page.wait_for_url(lambda url: "size=100" in url)
    for chip, said in (("Failed", "0 tasks"), ("Completed", f"{MANY} tasks"), ("All", f"{MANY} tasks")):
        await page.locator(".tasks .filters .chip", has_text=chip).click()
        await watch.shows(".tasks .many .words", said)
    field = page.locator(".tasks .query input")
    await field.fill("name:paged kin")
    await page.locator(".tasks .offers li", has_text="kind:").first.click()
    await page.locator(".tasks .offers li", has_text="kind:script").click()
    await watch.shows(".tasks .empty", "No task matches this")
    await page.click(".tasks .query .clear")
    await watch.shows(".tasks tbody tr >> nth=0", "paged")
    await field.fill("sta")
    await page.wait_for_selector(".tasks .offers li")
    await field.press("Escape")
    await page.wait_for_selector(".tasks .offers", state="hidden")
    await floor.fits()


async def test_tab_waits_for_what_is_offered(floor: Floor) -> None:
    """Who types and presses Tab at once has the word completed, as who waits for the offer; else Tab leads on."""
    field = floor.page.locator(".tasks .query input")
    await floor.go("tasks")
    await field.evaluate(TYPED_AND_TABBED, "stat")
    await expect(field).to_have_value("status:")
    await field.evaluate(TYPED_AND_TABBED, "zzz")
    await expect(floor.page.locator(".tasks .query .clear")).to_be_focused()
    await floor.page.keyboard.press("Enter")
    await expect(field).to_have_value("")


async def test_the_chosen_are_run_again_and_undone(floor: Floor) -> None:
    """All on the page, then none, then two: only these are meant; Back changes nothing, Undo takes it back."""
    page, watch = floor.page, floor.watch
    await add_many(floor, "chosen", 4)
    await floor.go("tasks", q="name:chosen")
    await watch.shows(".tasks .many .words", "4 tasks")
    rows = page.locator(".tasks tbody tr")
    if not floor.is_phone:
        await page.locator(".tasks thead .hold input").check()
        await watch.shows(".tasks .many .words", "4 chosen")
        await page.click(".tasks .drop")
    for n in range(2):
        await rows.nth(n).locator(".hold input").check()
    await watch.shows(".tasks .many .words", "2 chosen")
    await page.click(".tasks .again")
    await watch.shows(".tasks .sure .yes", "Run 2 tasks again")
    await page.click(".tasks .sure .no")
    await page.wait_for_selector(".tasks .sure", state="hidden")
    await page.click(".tasks .again")
    await page.click(".tasks .sure .yes")
    await watch.shows(".tasks .held", "2 tasks are run again in")
    await page.reload()
    await watch.shows(".tasks .held", "2 tasks are run again in")
    await page.click(".tasks .held .undo")
    await page.wait_for_selector(".tasks .held", state="hidden")
    assert count_of(floor, "chosen") == 4


async def test_undo_is_in_reach_over_an_open_task(floor: Floor) -> None:
    """What was begun with many can be taken back also while one task's view covers a phone; else it is done."""
    page, watch = floor.page, floor.watch
    tasks = await add_many(floor, "reached", 2)
    await floor.go("tasks", q="name:reached")
    await watch.shows(".tasks .many .words", "2 tasks")
    await page.click(".tasks .again")
    await page.click(".tasks .sure .yes")
    await watch.shows(".tasks .held", "2 tasks are run again in")
    await page.locator(".tasks tbody tr a.name").first.click()
    await page.wait_for_selector(".taskcard", state="visible")
    await page.click(".held .undo")
    await page.wait_for_selector(".held .undo", state="hidden")
    assert count_of(floor, "reached") == len(tasks)
    await page.click(".taskcard .close")
    await page.click(".tasks .again")
    await page.click(".tasks .sure .yes")
    await page.locator(".tasks tbody tr a.name").first.click()
    await until(lambda: count_of(floor, "reached") == 2 * len(tasks))
    await page.wait_for_selector(".held", state="hidden")
    await page.click(".taskcard .close")
    await page.wait_for_selector(".card.tasks .held", state="attached")  # it is back where it belongs


async def test_many_are_those_of_the_line_as_it_reads(floor: Floor) -> None:
    """What is typed and not sent counts; a line that makes no sense means nothing; a double click opens no task."""
    page, watch = floor.page, floor.watch
    await add_many(floor, "liney", 3)
    await add_many(floor, "other", 2)
    await floor.go("tasks")
    field, again = page.locator(".tasks .query input"), page.locator(".tasks .again")
    await page.wait_for_selector(".tasks .again:enabled")
    await field.fill("name:liney")
    await again.click()
    await watch.shows(".tasks .sure .yes", "Run 3 tasks again")
    await page.locator(".tasks .sure .yes").dblclick()
    await watch.shows(".tasks .held", "3 tasks are run again in")
    await page.wait_for_url(lambda url: "task=" not in url)
    await page.click(".tasks .held .undo")
    await page.wait_for_selector(".tasks .again:enabled")
    await field.fill("status:foo")
    await again.click()
    await watch.shows(".tasks .query .amiss", "unknown status")
    await expect(again).to_be_disabled()
    await expect(page.locator(".tasks .stop")).to_be_disabled()
    assert await page.locator(".tasks .sure").is_hidden()
    await floor.fits()


async def copied(page: object, text: str) -> bool:
    """Whether it is on the clipboard."""
    return (await page.evaluate("navigator.clipboard.readText()")).split() == text.split()


@pytest.mark.parametrize(
    ("way", "words"),
    [("Python", "shop.run("), ("curl", "curl -H"), ("WebSocket", '"command": "submit"'), ("MCP", "echo")],
)
async def test_a_task_is_copied_as(floor: Floor, way: str, words: str) -> None:
    """Each way to ask for it again is shown, and Copy puts just that on the clipboard."""
    page = floor.page
    known = [task for task in floor.shop.state.tasks.values() if task.request.name == "copied"]
    task_id = known[0].task_id if known else await submit(floor.shop, "echo", "it's so", name="copied")
    await ended(floor.shop, task_id)
    await floor.go()
    await floor.open_task(task_id)
    await page.get_by_role("button", name="Copy as").click()
    await page.locator(".copies .offer", has_text=way).first.click()
    text = await page.locator(".copies .code").inner_text()
    assert words in text
    await page.locator(".copies .copy").click()
    await until(lambda: copied(page, text))
    await floor.fits()


async def test_what_another_task_is_copied_as_is_not_shown_meanwhile(floor: Floor) -> None:
    """Until it is known how this one is asked for, nothing can be copied."""
    page = floor.page
    first, second = [await submit(floor.shop, "echo", word, name=word) for word in ("former", "latter")]
    await floor.go()
    await floor.open_task(first)
    await page.get_by_role("button", name="Copy as").click()
    await floor.watch.shows(".copies .code", "former")
    await floor.open_task(second)
    opener = page.get_by_role("button", name="Copy as")
    seen = await opener.evaluate(
        """button => {
          button.click()
          const parts = button.getRootNode().querySelectorAll(".copies > :not(.offers), .offers > *")
          return [...parts].map(part => part.checkVisibility())
        }"""
    )
    assert seen == [False, False, False]
    await floor.watch.shows(".copies .code", "latter")


async def test_a_running_task_is_watched_and_stopped(floor: Floor) -> None:
    """Its bell is set and taken back, its output is followed and searched in steps, it is cancelled from its view."""
    page, watch = floor.page, floor.watch
    task_id = await submit(floor.shop, sys.executable, "-c", COUNTS, name="counts on")
    waits = await submit(floor.shop, "true", name="after it", after=(task_id,))
    await floor.go()
    await floor.open_task(waits)
    await page.click(".taskcard .waits a")
    await watch.shows(".taskcard h3", "counts on")
    bell = page.locator(".taskcard .bellbutton")
    await bell.click()
    await expect(bell).to_have_attribute("aria-pressed", "true")
    await bell.click()
    await expect(bell).to_have_attribute("aria-pressed", "false")
    await bell.click()
    await watch.shows(".viewer .lines", "line 299 of them")
    follow = page.locator(".viewer .follow")
    await page.locator(".viewer .log").evaluate("log => { log.scrollTop = 0 }")
    await watch.shows(".viewer .where", "lines 1–")
    await follow.click()
    await watch.shows(".viewer .where", "–300 of 300")
    await expect(follow).to_have_attribute("aria-pressed", "true")
    await page.fill(".viewer .find input", "line 1")
    await watch.shows(".viewer .told", "/ 111")
    before = await watch.text(".viewer .told")
    await page.get_by_role("button", name="Next match").click()
    await page.get_by_role("button", name="Previous match").click()
    await watch.shows(".viewer .told", before)
    await page.click(".taskcard .cancel")
    await page.click(".taskcard .cancel.sure")
    await watch.shows(".taskcard .words", "cancelled by dashboard")
    await watch.shows(".toasts", "counts on was cancelled")
    await floor.fits()
    await page.get_by_role("button", name="Edit and run again").click()
    await page.wait_for_selector(".rundialog[open] [name=command]")
    await page.fill("[name=command]", "echo edited")
    await page.click(".rundialog .start")
    await watch.shows(".taskcard .given", "echo edited")


async def test_a_failed_functions_traceback_is_opened(floor: Floor) -> None:
    """The error stands first; a click shows where it was raised, another hides it; Run again is one more task."""
    page, watch = floor.page, floor.watch
    payload = pack(pickled_function(pow), pickled_arguments(("two", 3), {}), [])
    request = Request(
        task_id=floor.shop.next_id(), kind="function", created_at=0.0, payload=payload, name="raises"
    )
    task_id = await floor.shop.do(SubmitTask(request), Caller("test"))
    await ended(floor.shop, task_id)
    await floor.go()
    await floor.open_task(task_id)
    await watch.shows(".fault .said", "TypeError")
    await page.click(".fault summary")
    await watch.shows(".fault .trace", "Traceback")
    await page.click(".fault summary")
    await page.wait_for_selector(".fault .trace", state="hidden")
    await page.get_by_role("button", name="Run again", exact=True).click()
    await until(lambda: count_of(floor, "raises") == 2)
    await page.click(".taskcard .waited >> nth=0")
    await watch.shows(".taskcard .waited", f"runs {task_id} again")


async def test_lines_are_typed_for_a_task(floor: Floor) -> None:
    """Send gives it a line, ↑ brings that back, End asks before it ends its input."""
    page, watch = floor.page, floor.watch
    task_id = await submit(floor.shop, spec={"command": ["cat"], "stdin": True}, name="typed for")
    await until(lambda: floor.shop.state.tasks[task_id].status == "in_progress")
    await floor.go()
    await floor.open_task(task_id)
    await page.fill(".typing input", "first line")
    await page.click(".typing .send")
    await watch.shows(".k-printed .log", "first line")
    await page.press(".typing input", "ArrowUp")
    await expect(page.locator(".typing input")).to_have_value("first line")
    await page.fill(".typing input", "")
    await page.click(".typing .end")
    await page.click(".typing .end.sure")
    await watch.shows(".taskcard .words", "completed")
    await floor.fits()


async def test_lines_are_found_in_the_logs(floor: Floor) -> None:
    """A search over what all tasks printed leads to the task; the live end is narrowed to one task and one sort."""
    page, watch, shop = floor.page, floor.watch, floor.shop
    done = await submit(shop, "sh", "-c", "echo before; echo needle one; echo after", name="has it")
    await ended(shop, done)
    talks = [
        await submit(shop, "sh", "-c", f"echo WARNING {name} low; echo plain {name}; sleep 600", name=name)
        for name in ("paper", "toner")
    ]
    await floor.go("logs")
    await page.fill(".logs .query input", "needle")
    await page.press(".logs .query input", "Enter")
    await watch.shows(".logs .told", "1 line has it")
    await page.click(".logs .group .name")
    await watch.shows(".taskcard h3", "has it")
    await page.click(".taskcard .close")
    await page.fill(".logs .query input", "statsu:failed needle")
    await page.press(".logs .query input", "Enter")
    await watch.shows(".logs .query .amiss", "did you mean status:")
    await page.wait_for_selector(".logs .told", state="hidden")
    await page.click(".logs .query .clear")
    await page.wait_for_selector(".logs .group", state="detached")
    tail = page.locator(".logtail")
    await tail.locator(".line", has_text="plain toner").wait_for()
    for level, said in (("Warnings", "WARNING toner low"), ("All lines", "plain toner")):
        await tail.locator(".levels .chip", has_text=level).click()
        await tail.locator(".line:visible", has_text=said).wait_for()
    await tail.locator(".levels .chip", has_text="Info").click()
    await watch.shows(".logtail .none", "No line of this sort")
    await tail.locator(".levels .chip", has_text="All lines").click()
    await tail.locator(".chips .chip", has_text="paper").click()
    await tail.locator(".line", has_text="plain toner").wait_for(state="hidden")
    await floor.fits()
    for task_id in talks:
        await shop.do(CancelTask(task_id), Caller("test"))
    await until(lambda: not shop.state.counts["in_progress"])


async def test_all_that_match_are_cancelled(floor: Floor) -> None:
    """Cancel all says how many, waits, and does it; the list shows what became of them."""
    page, watch, shop = floor.page, floor.watch, floor.shop
    for n in range(4):
        await submit(shop, *ASLEEP, name=f"goes {n}")
    await floor.go("tasks", q="name:goes")
    await watch.shows(".tasks .many .words", "4 tasks")
    await page.click(".tasks .stop")
    await watch.shows(".tasks .sure .yes", "Cancel 4 tasks")
    await page.click(".tasks .sure .yes")
    await watch.shows(".tasks .held", "4 tasks are cancelled in")
    gone = [task.task_id for task in shop.state.tasks.values() if task.request.name.startswith("goes")]
    assert {shop.state.tasks[task_id].status for task_id in gone} <= {"pending", "in_progress"}
    await until(lambda: all(shop.state.tasks[task_id].status == "cancelled" for task_id in gone))
    await watch.shows(".tasks tbody tr >> nth=3", "Cancelled")
