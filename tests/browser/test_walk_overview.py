"""What can be done on the Overview, on a desktop and on a phone: each button, link, choice, and the figure itself."""

from __future__ import annotations

import sys

import pytest
from playwright.async_api import expect

from koubou_panel.core.commands import Caller, CancelTask
from koubou_panel.testing import ended, submit, until
from tests.browser.floor import ASLEEP, Floor, clean_page, make_floor  # noqa: F401 - the fixtures of this module

TALKS = "import sys\nfor n in range(5): print('{0} says', n, flush=True)\nsys.stdin.readline()"
WINDOW = "(({start, end}) => [start / 1000, (end - start) / 1000])(Bokeh.documents[0].get_model_by_name('stream-x'))"
FRAME = """() => {
  const view = Bokeh.index.find_one(Bokeh.documents[0].get_model_by_name("stream-figure"))
  const box = view.canvas_view.el.getBoundingClientRect(), frame = view.frame.bbox
  return [box.x + frame.left, box.y + frame.top, frame.width, frame.height]
}"""
HOST_SPAN = """() => {
  const figure = [...Bokeh.documents[0]._all_models.values()].find(
    (m) => m.type === "Figure" && m.renderers.some((r) => r.name === "host-cpu"))
  return (figure.x_range.end - figure.x_range.start) / 1000
}"""


async def test_the_first_command_is_run(floor: Floor) -> None:
    """A dropped script is put into the form that adds it; a pasted command is run, named to be taken once."""
    page, watch = floor.page, floor.watch
    await floor.go()
    if any(floor.shop.state.counts.values()):
        pytest.skip("the first minute of this workshop is over")
    await floor.drop(".first", "greet.sh", "#!/bin/sh\necho hello\n")
    await page.wait_for_selector(".scripts .add")
    form = page.locator(".scripts .add")
    await expect(form.get_by_label("Name", exact=True).first).to_have_value("greet")
    await expect(form.get_by_label("Text", exact=True)).to_have_value("#!/bin/sh\necho hello\n")
    await expect(form.get_by_label("Language", exact=True)).to_have_value("sh")
    await form.get_by_role("button", name="Cancel").click()
    await page.wait_for_selector(".catalogue")
    await floor.go()
    await page.fill(".first input", "echo 'my first'")
    await page.press(".first input", "Enter")
    await watch.tile("completed", "1")
    (task,) = floor.shop.state.tasks.values()
    assert task.request.spec["command"] == ["echo", "my first"]
    assert task.request.idempotency_key.startswith("page-")
    await floor.fits()


async def test_numbers_lead_to_their_lists(floor: Floor) -> None:
    """A tile, what is wrong, and the name of a task that ended each open what they speak of."""
    page, watch = floor.page, floor.watch
    task_id = await submit(floor.shop, "sh", "-c", "exit 4", name="leads on")
    await ended(floor.shop, task_id)
    await floor.go()
    await page.locator("a.tile").nth(3).click()
    await watch.shows(".tasks tbody tr >> nth=0", "leads on")
    await page.wait_for_url(lambda url: "q=status%3Afailed" in url)
    await page.go_back()
    await page.locator("a.tile").nth(5).click()
    await page.wait_for_selector(".card.workers >> visible=true")
    await floor.go()
    await page.click(".attention a.go >> visible=true")
    await watch.shows(".tasks .query", "Search")
    await page.wait_for_url(lambda url: "since%3A10m" in url)
    await floor.go()
    await page.locator(".ended a.top", has_text="leads on").first.click()
    await watch.shows(".taskcard .words", "exited with code 4")
    await page.click(".taskcard .close")
    await page.locator(".ended .row", has_text="leads on").first.get_by_role("button").click()
    await until(lambda: sum(t.request.name == "leads on" for t in floor.shop.state.tasks.values()) == 2)


async def test_what_waits_is_cancelled(floor: Floor) -> None:
    """A task that waits for a worker is listed as next, opened, and cancelled by two clicks."""
    page, shop = floor.page, floor.shop
    busy = [await submit(shop, *ASLEEP, name=f"keeps busy {n}") for n in range(2)]
    waits = await submit(shop, *ASLEEP, name="waits its turn")
    await floor.go()
    row = page.locator(".waiting .row", has_text="waits its turn")
    await row.locator("a.top").click()
    await floor.watch.shows(".taskcard h3", "waits its turn")
    await page.click(".taskcard .close")
    await row.locator(".cancel").click()
    assert shop.state.tasks[waits].status == "pending"
    await row.locator(".cancel.sure").click()
    await until(lambda: shop.state.tasks[waits].status == "cancelled")
    await row.wait_for(state="detached")
    for task_id in busy:
        await shop.do(CancelTask(task_id), Caller("test"))
    await until(lambda: not shop.state.counts["in_progress"])


async def test_the_output_of_one_task_is_chosen(floor: Floor) -> None:
    """With two that print, a chip shows the lines of one alone, and another all of them again."""
    page, shop = floor.page, floor.shop
    tasks = []
    for name in ("alice", "bob"):
        spec = {"command": [sys.executable, "-c", TALKS.format(name)], "stdin": True}
        tasks.append(await submit(shop, spec=spec, name=name))
    await floor.go()
    output = page.locator(".k-output .output")
    for name in ("alice", "bob"):
        await output.locator(".line", has_text=f"{name} says 4").wait_for()
    await output.locator(".chip", has_text="alice").click()
    await output.locator(".line:visible", has_text="bob says").first.wait_for(state="hidden")
    await expect(output.locator(".line:visible", has_text="alice says")).to_have_count(5)
    await expect(output.locator(".chip", has_text="alice")).to_have_attribute("aria-pressed", "true")
    await output.locator(".chip").first.click()
    await output.locator(".line:visible", has_text="bob says").first.wait_for()
    await floor.fits()
    for task_id in tasks:
        await shop.do(CancelTask(task_id), Caller("test"))
    for task_id in tasks:
        await ended(shop, task_id)


async def test_the_charts_show_another_range(floor: Floor) -> None:
    """Five minutes, a quarter of an hour, an hour: both charts take it; on a phone the other chart is one tap away."""
    page = floor.page
    await floor.go()
    if floor.is_phone:
        await page.tap(".one-of >> text=CPU")
    choice = page.locator(".charthead select.span:visible").first
    for seconds in (300, 3600, 900):
        await choice.select_option(str(seconds))
        await page.wait_for_function(f"Math.abs(({HOST_SPAN})() - {seconds}) < {seconds / 50}")
    if floor.is_phone:
        await page.tap(".one-of >> text=Throughput")
        await page.wait_for_selector(".k-throughput", state="visible")
    await floor.fits()


async def test_the_stream_is_moved_and_zoomed(floor: Floor) -> None:
    """Each span, ‹ and ›, a drag and the wheel show another window of time; Live follows the present again."""
    if floor.is_phone:
        pytest.skip("a phone has no task stream")
    page = floor.page
    await floor.go()
    seconds = {
        "10 s": 10,
        "1 min": 60,
        "1 h": 3600,
        "1 d": 86400,
        "7 d": 7 * 86400,
        "30 d": 30 * 86400,
        "5 min": 300,
    }
    for name, span in seconds.items():
        await page.click(f".stream .segments >> text='{name}'")
        await page.wait_for_function(f"Math.abs({WINDOW}[1] / {span} - 1) < 0.02")
    await expect(page.locator(".stream [aria-label=Later]")).to_be_disabled()
    begin = (await page.evaluate(WINDOW))[0]
    await page.click(".stream [aria-label=Earlier]")
    await page.wait_for_function(f"{begin} - {WINDOW}[0] > 100")
    await expect(page.locator(".stream .live")).to_have_attribute("aria-pressed", "false")
    begin = (await page.evaluate(WINDOW))[0]
    await page.click(".stream [aria-label=Later]")
    await page.wait_for_function(f"{WINDOW}[0] - {begin} > 100")
    left, top, width, height = await page.evaluate(FRAME)
    start = (await page.evaluate(WINDOW))[0]
    await page.mouse.move(left + width * 0.2, top + height / 2)
    await page.mouse.down()
    await page.mouse.move(left + width * 0.7, top + height / 2, steps=6)
    await page.mouse.up()
    await page.wait_for_function(f"{start} - {WINDOW}[0] > 100")
    for turn, compare in ((-400, "<"), (900, ">")):
        wide = (await page.evaluate(WINDOW))[1]
        await page.mouse.wheel(0, turn)
        await page.wait_for_function(f"{WINDOW}[1] {compare} {wide}")
    await page.mouse.move(5, 5)
    await page.click(".stream .live")
    await page.wait_for_function(f"Math.abs({WINDOW}[0] + {WINDOW}[1] - Date.now() / 1000) < 20")
