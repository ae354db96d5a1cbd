"""The page of all tasks: searched, paged, live, and changed in bulk; without a browser."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from bokeh.document import Document

from koubou_panel.core.commands import Caller
from koubou_panel.errors import Refused
from koubou_panel.shop.local import LocalShop
from koubou_panel.testing import ManualClock, ended, open_inline_shop, submit, until
from koubou_panel.views import bulk
from koubou_panel.views.pace import LISTS_S, Pace
from koubou_panel.views.pages.tasks import TasksCard, TasksPage, TasksView
from koubou_panel.views.session import PageSession


@pytest.fixture(autouse=True)
def short_time_to_undo(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of a second: what is meant is held back so long."""
    monkeypatch.setattr(bulk.Bulk.__init__, "__kwdefaults__", {"undo_s": 0.1})


class Seen:
    """The page as one visitor has it, and what was told to them."""

    def __init__(self, shop: LocalShop, role: str = "full", page: TasksPage | None = None) -> None:
        self.session = PageSession(shop, caller=Caller("dashboard", role), now=shop.clock)
        self.told: list[str] = []
        self.sent: list[dict[str, Any]] = []
        self.page_told: dict[str, Any] = {}
        self.session.top.bar.toast = lambda text, is_bad=False: self.told.append(text)
        self.session._locked = lambda call: call()
        for name in ("locked", "toast", "tell"):
            object.__setattr__(self.session.visit, name, getattr(self.session, f"_{name}"))
        self.session.start(Document())
        self.session._go_live()
        self.page = page or TasksPage()
        self.view: TasksView = self.page.build(self.session.visit)
        self.card: TasksCard = self.view.root
        self.card.send = self.sent.append
        self.session.deck.views["tasks"] = self.view
        self.session.deck.name = "tasks"

    async def ask(self, kind: str, **payload: object) -> dict[str, object]:
        """What the browser is answered."""
        answers: list[dict[str, object]] = []
        self.card._on_ask(kind, payload, answers.append)
        await until(lambda: answers)
        return answers[0]

    async def search(self, q: str = "", **where: object) -> list[str]:
        """The names on the page that a line finds."""
        self.page_told = await self.ask("search", q=q, **where)
        return self.names()

    def names(self) -> list[str]:
        """The names on the page."""
        for message in self.sent:
            self.page_told = message.get("page", self.page_told)
        self.sent.clear()
        return [row["label"] for row in self.page_told["rows"]]

    def frame(self) -> None:
        """Let what changed be shown."""
        self.session.frame()


@pytest.fixture
async def shop() -> Any:
    """A workshop with two workers."""
    async with open_inline_shop(workers=2, clock=ManualClock()) as opened:
        yield opened


Visit = Callable[..., Seen]


@pytest.fixture
def visit(shop: LocalShop) -> Any:
    """Opens pages, and closes them."""
    opened: list[Seen] = []

    def open_page(role: str = "full", page: TasksPage | None = None) -> Seen:
        opened.append(Seen(shop, role, page))
        return opened[-1]

    yield open_page
    for seen in opened:
        seen.session.close()


async def finish(shop: LocalShop, *task_ids: str, **outcome: object) -> None:
    """Have runs end."""
    for task_id in task_ids:
        await until(lambda task_id=task_id: task_id in shop.engine.jobs)
        shop.engine.finish(task_id, **outcome)
    for task_id in task_ids:
        await ended(shop, task_id)


async def test_a_line_finds_tasks(shop: LocalShop, visit: Visit) -> None:
    """Newest first, with the total; every word of the line counts."""
    ended = [await submit(shop, name=f"train {n}") for n in range(2)]
    await finish(shop, *ended, reason="exit", message="it ended with code 1", exit_code=1)
    await submit(shop, name="crawl")
    seen = visit()
    assert await seen.search() == ["crawl", "train 1", "train 0"]
    assert seen.page_told["list"]["total"] == 3
    assert await seen.search("status:failed reason:exit 1") == ["train 1"]
    (row,) = seen.page_told["rows"]
    assert (row["mark"], row["word"], row["why"], row["worker"]) == (
        "fail",
        "Failed",
        "it ended with code 1",
        row["worker"],
    )
    assert await seen.search("since:1h kind:function") == []


async def test_what_makes_no_sense_is_told_and_the_list_stays(shop: LocalShop, visit: Visit) -> None:
    """The refusal names the qualifier and the nearest; nothing else changes."""
    await submit(shop, name="one")
    seen = visit()
    await seen.search()
    answer = await seen.ask("search", q="statsu:failed")
    assert "did you mean status:" in answer["error"]
    assert answer["field"] == "statsu"
    assert seen.names() == ["one"]


@pytest.mark.parametrize(
    "payload",
    [
        {},
        {"q": 3},
        {"q": "", "at": -5, "size": 10**9},
        {"at": "x", "zone": "../etc"},
        {"at": True, "zone": 7},
    ],
)
async def test_a_browser_may_ask_for_anything(
    shop: LocalShop, visit: Visit, payload: dict[str, object]
) -> None:
    """What makes no sense is the first page of the usual size."""
    await submit(shop, name="one")
    seen = visit()
    told = await seen.ask("search", **payload)
    assert (told["list"]["size"], told["list"]["at"], [row["label"] for row in told["rows"]]) == (
        50,
        0,
        ["one"],
    )
    assert (await seen.ask("complete", text=5, caret="x"))["items"] == []


async def test_pages_stay_while_tasks_come(shop: LocalShop, visit: Visit) -> None:
    """What comes is counted and does not move what is shown; the next page goes on where this one ends."""
    for n in range(60):
        await submit(shop, name=f"task {n}")
    seen = visit()
    first = await seen.search(size=25)
    for n in range(3):
        await submit(shop, name=f"newer {n}")
    await submit(shop, name="task newer too")
    seen.frame()
    assert (seen.names(), seen.card.newer) == (first, 4)
    second = await seen.search(size=25, at=25)
    third = await seen.search(size=25, at=50)
    assert first + second + third == [f"task {n}" for n in reversed(range(60))]
    assert seen.card.newer == 4
    assert (await seen.search(size=25))[:2] == ["task newer too", "newer 2"]
    assert seen.card.newer == 0


async def test_only_newer_ones_that_match_are_counted(shop: LocalShop, visit: Visit) -> None:
    """Of those that came since, by the same line."""
    await submit(shop, name="train")
    seen = visit()
    await seen.search("name:train")
    await submit(shop, name="other")
    await submit(shop, name="train 2")
    seen.frame()
    assert seen.card.newer == 1


async def test_an_empty_list_fills_by_itself(shop: LocalShop, visit: Visit) -> None:
    """Nothing can jump where nothing is."""
    seen = visit()
    assert await seen.search() == []
    await submit(shop, name="first")
    seen.frame()
    await until(lambda: seen.names() == ["first"])


async def test_rows_live(shop: LocalShop, visit: Visit) -> None:
    """A task on the page is told of as it starts and ends, alone; one that does not change is not sent."""
    task_id = await submit(shop, name="one")
    await until(lambda: task_id in shop.engine.jobs)
    await submit(shop, name="two")
    seen = visit()
    await seen.search()
    seen.frame()
    seen.sent.clear()
    await finish(shop, task_id)
    seen.frame()
    rows = [row for message in seen.sent for row in message.get("rows", [])]
    assert {row["label"]: row["mark"] for row in rows}["one"] == "ok"
    seen.sent.clear()
    seen.frame()
    assert seen.sent == []


async def test_while_much_happens_rows_are_sent_seldom(shop: LocalShop, visit: Visit) -> None:
    """Of many frames with news in half a second few are sent; the last word comes with a frame without news."""
    seen, clock = visit(), ManualClock()
    task_ids = [await submit(shop, name=f"task {n}") for n in range(20)]
    await seen.search()
    seen.frame()
    seen.view._lists = Pace(LISTS_S, at_once=6, now=clock)
    seen.sent.clear()
    for task_id in task_ids:
        await until(lambda: task_id in shop.engine.jobs)  # noqa: B023 - it is over before the next
        await finish(shop, task_id)
        seen.frame()
    assert len(seen.sent) <= 6
    assert seen.session.deck.owes
    clock.advance(1)
    seen.frame()
    assert not seen.session.deck.owes
    last = [row for row in seen.sent[-1]["rows"] if row["id"] == task_ids[-1]]
    assert [row["mark"] for row in last] == ["ok"]


async def test_qualifiers_and_names_are_offered(shop: LocalShop, visit: Visit) -> None:
    """What may follow, with what it means."""
    seen = visit()
    answer = await seen.ask("complete", text="x sta", caret=5)
    assert answer == {"begin": 2, "end": 5, "items": [["status:", "how it stands"]]}
    answer = await seen.ask("complete", text="worker:", caret=7)
    assert [text for text, _ in answer["items"]] == [f"worker:{name}" for name in sorted(shop.state.workers)]


async def fill(shop: LocalShop, waiting: int = 5) -> list[str]:
    """Two that run, and some that wait."""
    task_ids = [await submit(shop, name=f"job {n}") for n in range(2 + waiting)]
    await until(lambda: shop.state.counts["in_progress"] == 2)
    return task_ids


@pytest.fixture
def time_is_over(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Set: the time to undo is over, which lasts as long as the test wants."""
    over, sleep = asyncio.Event(), asyncio.sleep

    async def held(seconds: float) -> None:
        await (over.wait() if seconds == bulk.UNDO_S else sleep(seconds))

    monkeypatch.setattr(bulk.Bulk.__init__, "__kwdefaults__", {"undo_s": bulk.UNDO_S})
    monkeypatch.setattr(bulk.asyncio, "sleep", held)
    return over


async def test_all_that_match_are_cancelled_when_the_time_to_undo_is_over(
    shop: LocalShop, visit: Visit, time_is_over: asyncio.Event
) -> None:
    """Not only those on the page, none before the time is over, none that came later; the count is told."""
    await fill(shop, 58)
    seen = visit()
    await seen.search("name:job", size=25)
    asked = {"action": "cancel", "ids": [], "q": "name:job"}
    assert await seen.ask("intend", **asked) == {"count": 60, "action": "cancel"}
    assert await seen.ask("confirm", action="cancel") == {"count": 60}
    later = await submit(shop, name="job later")
    assert shop.state.counts["cancelled"] == 0
    assert (seen.card.bulk["stage"], seen.card.bulk["count"]) == ("held", 60)
    time_is_over.set()
    await until(lambda: seen.told)
    assert seen.told == ["Cancelled 60 tasks."]
    await until(lambda: shop.state.counts["cancelled"] == 60)
    assert shop.state.tasks[later].status != "cancelled"
    assert seen.card.bulk == {}


@pytest.mark.usefixtures("time_is_over")
async def test_undone_nothing_has_happened(shop: LocalShop, visit: Visit) -> None:
    """Within the time to undo nothing is done, and afterwards neither."""
    await fill(shop)
    seen = visit()
    await seen.search()
    await seen.ask("intend", action="cancel")
    await seen.ask("confirm", action="cancel")
    assert await seen.ask("undo") == {"undone": True}
    await asyncio.gather(*seen.page._under_way, return_exceptions=True)
    assert (shop.state.counts["cancelled"], seen.card.bulk, seen.told) == (0, {}, [])
    assert await seen.ask("undo") == {"undone": False}


async def test_a_page_that_is_loaded_again_can_still_undo(
    shop: LocalShop, visit: Visit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For what is left of the time: its tab finds what it had begun, and hears how that went; no other tab does."""
    monkeypatch.setattr(bulk.Bulk.__init__, "__kwdefaults__", {"undo_s": 60.0})
    await fill(shop)
    seen = visit()
    await seen.search()
    await seen.ask("intend", action="cancel")
    await seen.ask("confirm", action="cancel", tab="one")
    seen.session.close()
    other, again = visit(page=seen.page), visit(page=seen.page)
    assert await other.ask("held", tab="two") == {"held": False}
    assert await again.ask("held", tab="one") == {"held": True}
    assert (other.card.bulk, again.card.bulk["stage"], again.card.bulk["count"]) == ({}, "held", 7)
    assert 0 < again.card.bulk["left_s"] <= 60
    assert await again.ask("undo") == {"undone": True}
    assert again.card.bulk == {}
    await until(lambda: not again.page._by_tab)
    assert await again.ask("held", tab="one") == {"held": False}
    assert shop.state.counts["cancelled"] == 0


async def test_a_tab_and_its_duplicate_both_hear_how_it_goes(shop: LocalShop, visit: Visit) -> None:
    """They have one name: neither takes the news from the other, and what one begins the other does not forget."""
    await fill(shop)
    seen = visit()
    twin, late = visit(page=seen.page), visit(page=seen.page)
    await seen.search("status:pending")
    await seen.ask("intend", action="cancel", q="status:pending")
    await seen.ask("confirm", action="cancel", tab="one")
    assert await twin.ask("held", tab="one") == {"held": True}
    assert await late.ask("held", tab="one") == {"held": True}
    late.session.close()
    await until(lambda: seen.told and twin.told)
    assert (seen.told, twin.told, late.told) == (["Cancelled 5 tasks."], ["Cancelled 5 tasks."], [])
    assert (seen.card.bulk, twin.card.bulk, seen.view.bulk.hearers) == (
        {},
        {},
        {seen.view._hearer, twin.view._hearer},
    )


async def test_what_is_refused_is_not_found_after_a_reload(shop: LocalShop, visit: Visit) -> None:
    """Nothing was begun, so nothing is held; and the end of one intent does not forget another of the same name."""
    seen = visit()
    twin = visit(page=seen.page)
    await seen.search()
    await seen.ask("intend", action="cancel")
    assert (await seen.ask("confirm", action="cancel", tab="one"))["error"].startswith("None of these")
    assert seen.page._by_tab == {}
    seen.page._by_tab["one"] = twin.view.bulk
    seen.view._forget("one", seen.view.bulk)
    assert await seen.ask("held", tab="one") == {"held": True}


async def test_it_is_done_although_the_page_has_closed(shop: LocalShop, visit: Visit) -> None:
    """What was confirmed is carried out."""
    await fill(shop)
    seen = visit()
    await seen.search()
    await seen.ask("intend", action="cancel")
    await seen.ask("confirm", action="cancel")
    seen.session.close()
    await until(lambda: shop.state.counts["cancelled"] == 7)


async def test_what_has_ended_is_run_again(shop: LocalShop, visit: Visit) -> None:
    """Only what matches and had ended when it was counted: no run of this one is run again by itself."""
    first = [await submit(shop, name=f"job {n}") for n in range(2)]
    await finish(shop, *first, reason="exit")
    running = await submit(shop, name="job that runs")
    seen = visit()
    await seen.search("job")
    assert (await seen.ask("intend", action="retry", q="job"))["count"] == 2
    await seen.ask("confirm", action="retry")
    shop.clock.advance(1.0)
    await finish(shop, running, reason="exit")
    await until(lambda: seen.told)
    assert seen.told == ["Submitted 2 tasks again."]
    again = [task.request.rerun_of for task in shop.state.tasks.values() if task.request.rerun_of]
    assert sorted(again) == sorted(first)


async def test_the_chosen_ones_alone(shop: LocalShop, visit: Visit) -> None:
    """Rows that were ticked; those that the action is not for do not count, and what is no id is none."""
    task_ids = await fill(shop)
    seen = visit()
    await seen.search()
    chosen = [task_ids[-1], task_ids[0], "../../etc", 7, "2pwhe5r7000000"]
    assert (await seen.ask("intend", action="retry", ids=chosen))["count"] == 0
    assert (await seen.ask("intend", action="cancel", ids=chosen))["count"] == 2
    await seen.ask("confirm", action="cancel")
    await until(lambda: shop.state.counts["cancelled"] == 2)
    assert shop.state.tasks[task_ids[-1]].status == "cancelled"


async def test_refusals_are_told(shop: LocalShop, visit: Visit) -> None:
    """How many could not be changed, and why the first could not."""
    task_ids = await fill(shop, 1)
    seen = visit()
    await seen.search()
    await seen.ask("intend", action="cancel")
    await seen.ask("confirm", action="cancel")
    await finish(shop, task_ids[0])
    await until(lambda: seen.told)
    assert seen.told[0].startswith(("Cancelled 2 tasks.", "Cancelled 1 task. 1 could not be changed"))


async def test_nothing_is_confirmed_that_was_not_counted(shop: LocalShop, visit: Visit) -> None:
    """A confirmation is for what was asked last, once; and one change of many is under way at a time."""
    await fill(shop)
    seen = visit()
    await seen.search()
    assert "look at the list again" in (await seen.ask("confirm", action="cancel"))["error"]
    await seen.ask("intend", action="cancel")
    assert "error" in await seen.ask("confirm", action="retry")
    await seen.ask("intend", action="cancel")
    await seen.ask("confirm", action="cancel")
    await seen.ask("intend", action="cancel")
    assert "not done yet" in (await seen.ask("confirm", action="cancel"))["error"]
    assert (await seen.ask("intend", action="format"))["code"] == "invalid"


async def test_an_intent_is_for_the_search_that_the_browser_shows(shop: LocalShop, visit: Visit) -> None:
    """Where another one has been asked for meanwhile, all of that would be another all: it is refused."""
    await fill(shop)
    seen = visit()
    await seen.search("name:job")
    await seen.search()
    refused = await seen.ask("intend", action="cancel", q="name:job")
    assert (refused["code"], "look at the list again" in refused["error"]) == ("conflict", True)
    assert "error" in await seen.ask("confirm", action="cancel")
    assert (await seen.ask("intend", action="cancel", q=""))["count"] == 7


async def test_nothing_is_meant_by_a_line_that_makes_no_sense(shop: LocalShop, visit: Visit) -> None:
    """All that match an invalid line are not all tasks, nor those of the line before; the next good line counts."""
    await submit(shop, name="job")
    seen = visit()
    await seen.search("")
    assert (await seen.ask("search", q="status:foo"))["code"] == "invalid"
    assert (await seen.ask("intend", action="cancel", q=""))["code"] == "conflict"
    assert (await seen.ask("intend", action="cancel", q="status:foo"))["code"] == "conflict"
    await seen.search("status:running")
    assert (await seen.ask("intend", action="cancel", q="status:running"))["count"] == 1


async def test_a_reader_has_no_actions(shop: LocalShop, visit: Visit) -> None:
    """Neither on the page nor by a message of their own making."""
    await fill(shop)
    seen = visit("read")
    assert seen.card.can_act is False
    assert await seen.search() != []
    assert (await seen.ask("intend", action="cancel"))["code"] == "forbidden"
    assert (await seen.ask("confirm", action="cancel"))["code"] == "forbidden"


async def test_nothing_to_do_is_refused(shop: LocalShop) -> None:
    """An intent without a task is none."""
    held = bulk.Bulk(shop, Caller("t"), bulk.Hearer(lambda: None, lambda *_: None), keep=set())
    with pytest.raises(Refused, match="nothing to cancel"):
        held.begin(bulk.Intent("cancel", 0))
    with pytest.raises(Refused, match="nothing to run again"):
        held.begin(bulk.Intent("retry", 0))
