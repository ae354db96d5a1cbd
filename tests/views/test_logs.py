"""The page of what runs print, without a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from koubou_panel.core.commands import Caller
from koubou_panel.testing import ended, open_inline_shop, open_shop, submit, until
from koubou_panel.views.pages.logs import LogsPage, LogsView
from koubou_panel.views.session import PageSession


class Seen:
    """The page as one visitor has it."""

    def __init__(self, shop: Any) -> None:
        self.session = PageSession(shop, caller=Caller("dashboard"))
        object.__setattr__(self.session.visit, "locked", lambda call: call())
        self.view: LogsView = LogsPage().build(self.session.visit)
        self.sent: list[dict[str, Any]] = []
        self.view.tail.send = self.sent.append
        self.view.draw()

    async def ask(self, kind: str, **payload: object) -> dict[str, object]:
        """What the browser is answered."""
        answers: list[dict[str, object]] = []
        self.view.search._on_ask(kind, payload, answers.append)
        await until(lambda: answers)
        return answers[0]


async def test_hits_come_by_task_and_the_end_of_what_runs_live(tmp_path: Path) -> None:
    """What people and programs wrote is made fit to be seen; what runs is followed while the page is seen."""
    async with open_shop(tmp_path, workers=1) as shop:
        task_id = await submit(
            shop,
            "sh",
            "-c",
            "echo before; printf '<b>Disk\\033[31m full\\n'; echo after; exit 2",
            name="a\u202ejob",
        )
        await ended(shop, task_id)
        seen = Seen(shop)
        try:
            found: Any = await seen.ask("search", q="disk full status:failed", zone="Asia/Tokyo")
            (group,) = found["groups"]
            assert (group["id"], group["label"], group["mark"]) == (task_id, "a job", "fail")
            assert group["hits"] == [
                {"line": 2, "text": "<b>Disk full", "before": ["before"], "after": ["after"]}
            ]
            assert found["about"] == {
                "q": "disk full status:failed",
                "text": "disk full",
                "hits": 1,
                "tasks": 1,
                "is_cut": False,
            }
            found = await seen.ask("search", q="disk full status:completed")
            assert (found["groups"], found["about"]["hits"]) == ([], 0)
            await submit(shop, "sh", "-c", "echo ERROR: live; sleep 60")

            def tells() -> bool:
                seen.view.update(seen.session.mirror.flush())
                return "ERROR: live" in str(seen.sent)

            await until(tells)
        finally:
            seen.session.close()


@pytest.mark.parametrize(
    ("q", "words"),
    [
        ("status:failed", "Type a text"),
        ("sttus:failed x", "did you mean status:"),
        ("since:soon x", "30m, 2h"),
    ],
)
async def test_what_makes_no_sense_is_told(q: str, words: str) -> None:
    """With what to write."""
    async with open_inline_shop() as shop:
        seen = Seen(shop)
        assert words in (await seen.ask("search", q=q))["error"]
        assert await seen.ask("search", q=7) == {"groups": [], "about": {}}
        assert (await seen.ask("complete", text="sin", caret=3))["items"] == [
            ["since:", "ended or submitted since"]
        ]
        seen.session.close()
