"""The real Chromium of all browser tests, found on PATH; and the marks of those tests."""

import inspect
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from playwright.async_api import Browser, async_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--no-first-run", "--force-color-profile=srgb"),
]
#: How long something may take that is awaited; a machine that runs other tests beside may be slow.
PATIENCE_MS = 90_000
CHROMIUM = next((path for path in map(shutil.which, NAMES) if path), None)


def mark(items: list[pytest.Item], folder: Path, *, loop_scope: str, limit_s: int) -> None:
    """Mark the tests below `folder`, to run in the loop of `loop_scope`; without Chromium skip them, but not in CI."""
    for item in items:
        if folder not in item.path.parents:
            continue
        item.add_marker(pytest.mark.browser)
        item.add_marker(pytest.mark.timeout(limit_s))
        if inspect.iscoroutinefunction(getattr(item, "obj", None)):
            item.add_marker(pytest.mark.asyncio(loop_scope=loop_scope), append=False)
        if CHROMIUM is None and os.environ.get("CI") != "true":
            item.add_marker(pytest.mark.skip(reason="!!! NO CHROMIUM on PATH: this browser test did not run"))


@asynccontextmanager
async def launched() -> AsyncIterator[Browser]:
    """The browser, while the block lasts; the test fails where there is none."""
    if CHROMIUM is None:
        pytest.fail("no Chromium on PATH: install Debian's `chromium`, or google-chrome")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        await browser.close()
