"""A real Chromium, found on PATH."""

import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--no-first-run", "--force-color-profile=srgb"),
]
CHROMIUM = next((path for path in map(shutil.which, NAMES) if path), None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test here; without Chromium skip them, but fail where CI=true."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.browser)
            item.add_marker(pytest.mark.timeout(180))
            if CHROMIUM is None and os.environ.get("CI") != "true":
                item.add_marker(
                    pytest.mark.skip(reason="!!! NO CHROMIUM on PATH: this browser test did not run")
                )


@pytest.fixture
async def chromium() -> AsyncIterator[object]:
    """A browser of this test's own."""
    if CHROMIUM is None:
        pytest.fail("no Chromium on PATH: install Debian's `chromium`, or google-chrome")
    from playwright.async_api import async_playwright

    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        await browser.close()
