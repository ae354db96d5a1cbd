"""A real Chromium, found on PATH: one for all tests of a module, each of which has pages of its own."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import expect

from tests.browser.chromium import PATIENCE_MS, launched, mark

expect.set_options(timeout=PATIENCE_MS)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test here, to run in its module's loop."""
    mark(items, Path(__file__).parent, loop_scope="module", limit_s=400)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def chromium() -> AsyncIterator[object]:
    """The browser of this module; `open_page` gives a test a profile of its own in it."""
    async with launched() as browser:
        yield browser
