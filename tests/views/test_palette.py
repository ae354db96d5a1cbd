"""What the command palette finds."""

from __future__ import annotations

import pytest

from koubou_panel.core.commands import Caller, PausePool
from koubou_panel.testing import open_inline_shop, submit
from koubou_panel.views.palette import Palette
from koubou_panel.views.session import PageSession


async def test_tasks_are_found_by_id_and_by_words() -> None:
    """A whole id is one task; words match what it is called."""
    async with open_inline_shop(workers=1) as shop:
        first = await submit(shop, name="train the <b>model")
        await submit(shop, name="weather")
        session = PageSession(shop, caller=Caller("test"), now=shop.clock)
        palette = Palette(session.visit)
        by_id = await palette.find({"text": f" {first} "})
        assert [task["id"] for task in by_id["tasks"]] == [first]
        by_words = await palette.find({"text": "train"})
        assert [task["label"] for task in by_words["tasks"]] == ["train the <b>model"]
        session.close()


@pytest.mark.parametrize("text", [None, 3, "", "  ", "no such task", "2pwhe5r7000000", "x" * 5000])
async def test_what_makes_no_sense_finds_nothing(text: object) -> None:
    """A browser may send anything."""
    async with open_inline_shop(workers=1) as shop:
        session = PageSession(shop, caller=Caller("test"), now=shop.clock)
        assert await Palette(session.visit).find({"text": text}) == {"tasks": []}
        session.close()


async def test_it_offers_to_resume_what_is_paused() -> None:
    """Whether the pool works is told with the scripts."""
    async with open_inline_shop(workers=1) as shop:
        session = PageSession(shop, caller=Caller("test"), now=shop.clock)
        palette = Palette(session.visit)
        assert await palette.offers({}) == {"scripts": [], "is_held": False}
        await shop.do(PausePool(), Caller("test"))
        assert await palette.offers({}) == {"scripts": [], "is_held": True}
        session.close()
