"""The pool is ruled from the Workers page, in a real browser over real workers."""

import os
import signal
import sys
from pathlib import Path

import pytest
from playwright.async_api import expect

from koubou_panel.core.commands import Caller, PausePool
from koubou_panel.servers.credentials import derive_read_token
from koubou_panel.testing import open_shop, submit, until
from tests.browser.pages import DESKTOP, PHONE, TOKEN, open_dashboard, open_page, way_in

WAITS = (sys.executable, "-c", "import time; time.sleep(60)")
SIZES = [pytest.param(DESKTOP, id="desktop"), pytest.param(PHONE, id="phone")]


@pytest.mark.parametrize("options", SIZES)
async def test_pause_resume_and_scale(chromium: object, tmp_path: Path, options: dict[str, object]) -> None:
    """Paused, nothing starts and the page says so; resumed it does; new bounds are those of the pool at once."""
    async with (
        open_shop(tmp_path, workers=1) as shop,
        open_dashboard(shop, tmp_path) as dashboard,
        open_page(chromium, way_in(dashboard.port), **options) as watch,
    ):
        page = watch.page
        await submit(shop, *WAITS, name="at work")
        await watch.go("Workers")
        await watch.shows(".workers .row", "at work")
        await page.click(".controls button:text-is('Pause')")
        await watch.shows(".attention", "The workers are paused")
        assert shop.state.pool.paused
        await submit(shop, *WAITS, name="held back")
        await watch.shows(".workers .count", "1 waiting")
        resume = page.locator(".controls .resume")
        await page.mouse.move(5, 5)
        colour = await resume.evaluate("button => getComputedStyle(button).color")
        await resume.hover()
        assert await resume.evaluate("button => getComputedStyle(button).color") == colour
        await page.click(".controls button:text-is('Resume')")
        await until(lambda: not shop.state.pool.paused)
        await page.wait_for_selector(".controls button:text-is('Pause')")
        await page.fill(".controls input >> nth=1", "2")
        await page.click(".controls .scale")
        await until(lambda: shop.state.pool.max_workers == 2)
        await watch.shows(".workers .count", "of 1–2")
        await page.fill(".controls input >> nth=0", "5")
        await page.click(".controls .scale")
        await watch.shows(".toast", "5")
        assert (shop.state.pool.min_workers, shop.state.pool.max_workers) == (1, 2)


async def test_a_drain_is_asked_twice_and_resumed(chromium: object, tmp_path: Path) -> None:
    """Drain needs a second click; then new work is refused, until it is resumed."""
    async with (
        open_shop(tmp_path, workers=1) as shop,
        open_dashboard(shop, tmp_path) as dashboard,
        open_page(chromium, way_in(dashboard.port)) as watch,
    ):
        await submit(shop, *WAITS)
        await watch.go("Workers")
        await watch.shows(".workers .row", "busy")
        await watch.page.click(".controls button:text-is('Drain')")
        assert not shop.state.pool.draining
        await watch.page.click(".controls button:text-is('Refuse new work?')")
        await watch.shows(".attention", "The workers drain")
        await watch.page.click(".controls button:text-is('Resume')")
        await until(lambda: not shop.state.pool.draining)


@pytest.mark.parametrize("options", SIZES)
async def test_a_worker_is_restarted(chromium: object, tmp_path: Path, options: dict[str, object]) -> None:
    """An idle worker is replaced at a click; one that runs something only after a second, which cancels it."""
    async with (
        open_shop(tmp_path, workers=1) as shop,
        open_dashboard(shop, tmp_path) as dashboard,
        open_page(chromium, way_in(dashboard.port), **options) as watch,
    ):
        page = watch.page
        task_id = await submit(shop, *WAITS, name="in the way")
        await watch.go("Workers")
        await watch.shows(".workers .row", "in the way")
        (before,) = shop.state.workers.values()
        await page.click(".workers .restart")
        await page.click(".choice button:text-is('Restart now')")
        assert shop.state.tasks[task_id].stopping is None
        await page.click(".choice button:text-is('Cancels its task: sure?')")
        await until(lambda: shop.state.tasks[task_id].status == "cancelled")
        await until(lambda: any(w.pid not in (None, before.pid) for w in shop.state.workers.values()))
        await watch.shows(".workers .row", "idle")
        (second,) = shop.state.workers.values()
        await page.click(".workers .restart")
        await page.click(".choice button:text-is('Restart')")
        await until(lambda: any(w.pid not in (None, second.pid) for w in shop.state.workers.values()))


async def test_a_silent_worker_is_seen(chromium: object, tmp_path: Path) -> None:
    """A worker that was stopped is told of with the seconds of its silence, and as busy again when it goes on."""
    async with (
        open_shop(tmp_path, workers=1) as shop,
        open_dashboard(shop, tmp_path) as dashboard,
        open_page(chromium, way_in(dashboard.port)) as watch,
    ):
        await submit(shop, *WAITS)
        await watch.go("Workers")
        await watch.shows(".workers .row", "busy")
        (worker,) = shop.state.workers.values()
        os.kill(worker.pid, signal.SIGSTOP)
        try:
            await watch.shows(".workers .badge", "silent 1")
            await watch.shows(".attention", f"{worker.worker_id} does not answer")
        finally:
            os.kill(worker.pid, signal.SIGCONT)
        await watch.shows(".workers .badge", "busy")


async def test_a_reader_sees_no_buttons(chromium: object, tmp_path: Path) -> None:
    """Who may only read sees how the pool stands, and nothing to press."""
    read = derive_read_token(TOKEN)
    async with (
        open_shop(tmp_path, workers=1) as shop,
        open_dashboard(shop, tmp_path) as dashboard,
        open_page(
            chromium,
            f"http://127.0.0.1:{dashboard.port}/overview",
            **DESKTOP,
            extra_http_headers={"Authorization": f"Bearer {read}"},
        ) as watch,
    ):
        task_id = await submit(shop, *WAITS, name="only seen")
        await shop.do(PausePool(), Caller("test"))
        await watch.go("Workers")
        await watch.shows(".workers .row", "only seen")
        await watch.page.click(".workers .task")
        await watch.shows(".taskcard h3", "only seen")
        ruling = ".workers .controls, .workers .restart, .typing:visible"
        pressable = f"{ruling}, .cancel:visible, .retry:visible:not(:has-text('Copy'))"
        await expect(watch.page.locator(pressable)).to_have_count(0)
        await watch.page.wait_for_url(lambda url: url.endswith(f"?page=workers&task={task_id}"))
