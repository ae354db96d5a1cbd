"""The pages of tasks and of logs in a real browser: searched, completed, kept in the address, changed in bulk."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.async_api import expect

from koubou_panel.testing import open_shop, submit, until
from tests.browser.pages import DESKTOP, PHONE, open_dashboard, open_page, way_in

SIZES = [pytest.param(DESKTOP, id="desktop"), pytest.param(PHONE, id="phone")]
NO_SIDEWAYS = "document.documentElement.scrollWidth <= innerWidth"


@pytest.mark.parametrize("options", SIZES)
async def test_tasks_are_searched_and_changed_in_bulk(  # noqa: PLR0915 - one visit, from page to page
    chromium: object, tmp_path: Path, options: dict[str, object]
) -> None:
    """A line is completed by keys, kept by a reload, refused with words; bulk is undone, then done; output is found."""
    async with (
        open_shop(tmp_path, workers=1) as shop,
        open_dashboard(shop, tmp_path) as dashboard,
    ):
        for n in range(3):
            await submit(
                shop,
                "sh",
                "-c",
                f"echo first; echo '<b>Disk</b> full {n}'; exit {n}",
                name=f"job {n} <i>x</i>",
            )
        await until(lambda: shop.state.counts["failed"] == 2)
        for n in range(30):
            await submit(shop, "sleep", "300", name=f"long {n}")
        async with open_page(chromium, way_in(dashboard.port), **options) as watch:
            page = watch.page
            base = page.url.split("?")[0]
            await page.goto(f"{base}?page=tasks&q=job&size=25")
            await watch.shows(".tasks tbody tr >> nth=0", "job 2 <i>x</i>")
            await watch.shows(".tasks .many .words", "3 tasks")
            assert await page.evaluate(NO_SIDEWAYS)

            field = page.locator(".tasks .query input")
            await field.focus()
            await field.press("End")
            await page.keyboard.type(" sta")
            await expect(page.locator(".tasks .offers li")).to_have_count(
                1
            )  # no more what was offered before
            await watch.shows(".tasks .offers", "status:")
            await page.keyboard.press("Tab")
            await watch.shows(".tasks .offers", "status:failed Failed")
            for _ in range(4):
                await page.keyboard.press("ArrowDown")
            await expect(field).to_have_attribute("aria-activedescendant", "offer-3")
            await page.keyboard.press("Enter")
            await watch.shows(".tasks .many .words", "2 tasks")
            await page.wait_for_url(lambda url: "q=job+status%3Afailed" in url)
            await watch.shows(".tasks tbody tr >> nth=0", "exited with code 2")
            await page.reload()
            await watch.shows(".tasks .many .words", "2 tasks")
            assert (await field.input_value()).strip() == "job status:failed"
            await page.go_back()
            await watch.shows(".tasks .many .words", "3 tasks")
            await field.fill("statsu:failed")
            await page.keyboard.press("Enter")
            await watch.shows(".tasks .query .amiss", "did you mean status:")

            await field.fill("name:long")
            await page.keyboard.press("Enter")
            await watch.shows(".tasks .many .words", "30 tasks")
            await watch.shows(".tasks .pager .where", "1 to 25 of 30")
            if options is PHONE:
                ours = ("button", "input:not([type=checkbox])", "select", "td .hold")
                buttons = page.locator(", ".join(f".tasks {one}:visible" for one in ours))
                boxes = [await buttons.nth(n).bounding_box() for n in range(await buttons.count())]
                assert [box for box in boxes if box["height"] < 43.5] == []
            await page.click(".tasks .stop")
            await watch.shows(".tasks .sure .yes", "Cancel 30 tasks")
            await page.locator(".tasks tbody .hold input").first.check()
            await page.wait_for_selector(".tasks .sure", state="hidden")  # it was about others
            await page.click(".tasks .drop")
            await page.click(".tasks .stop")
            await watch.shows(".tasks .sure .yes", "Cancel 30 tasks")
            await page.click(".tasks .sure .yes")
            await watch.shows(".tasks .held", "30 tasks are cancelled in")
            await page.click(".tasks .held .undo")
            await page.wait_for_selector(".tasks .held", state="hidden")
            assert shop.state.counts["cancelled"] == 0
            await page.click(".tasks .stop")
            await page.click(".tasks .sure .yes")
            await watch.shows(".tasks tbody tr >> nth=0", "Cancelled")
            await until(lambda: shop.state.counts["cancelled"] == 30)
            await watch.shows(".toasts", "Cancelled 30 tasks.")

            newer = await submit(
                shop, "sh", "-c", "echo ERROR it burns; echo fine; sleep 300", name="long and new"
            )
            await watch.shows(".tasks .newer-tasks", "1 newer task")
            await page.click(".tasks .newer-tasks")
            await watch.shows(".tasks tbody tr >> nth=0", "long and new")
            await page.click(".tasks tbody tr >> nth=0 >> .name")
            await page.wait_for_function("document.documentElement.classList.contains('k-has-task')")
            await page.wait_for_url(lambda url: f"task={newer}" in url)

            await page.goto(f"{base}?page=logs")
            await watch.shows(".logtail .line >> nth=-1", "fine")
            await page.click(".logtail .levels >> text=Errors")
            await page.wait_for_selector(".logtail .line >> text=fine", state="hidden")
            await watch.shows(".logtail .log", "ERROR it burns")
            await page.fill(".logs .query input", "disk status:failed")
            await page.click(".logs .find")
            await watch.shows(".logs .told", "2 lines have it")
            await watch.shows(".logs .group >> nth=0", "1 first 2 <b>Disk</b> full 2")
            await watch.shows(".logs mark", "Disk")
            await page.wait_for_url(lambda url: "q=disk+status%3Afailed" in url)
            assert await page.evaluate(NO_SIDEWAYS)
            await page.click(".logs .group >> nth=0 >> .name")
            await page.wait_for_function("document.documentElement.classList.contains('k-has-task')")
