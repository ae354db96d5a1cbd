"""The task stream: the runs of a window as columns, what ends after it, and what a browser may not ask."""

import json
import math

import pytest
from bokeh.document import Document

from koubou_panel.core.commands import Caller
from koubou_panel.core.ports import MOST_SPANS, RunSpan, RunSpans
from koubou_panel.core.records import TaskId, WorkerId
from koubou_panel.shop.local import LocalShop
from koubou_panel.testing import ended, open_inline_shop, submit, until
from koubou_panel.views.session import PageSession
from koubou_panel.views.stream import HATCHES, MARKS, encoded


def visit(shop: LocalShop) -> tuple[PageSession, list[dict]]:
    """A page as its browser has just shown it, and what its stream's card is sent."""
    session = PageSession(shop, caller=Caller("dashboard"), now=shop.clock)
    sent: list[dict] = []
    session.view.stream.card.send = lambda message: sent.append(dict(message))
    session.start(Document())
    object.__setattr__(session.visit, "locked", lambda call: call())
    session._go_live()
    return session, sent


async def ask(session: PageSession, sent: list[dict], **window: object) -> dict:
    """What the page answers to a question for a window."""
    session.view.stream.card._handle_msg({"type": "ask", "ask": "window", "id": 7, **window})
    await until(lambda: any(message.get("answer") == 7 for message in sent))
    (answer,) = [message["value"] for message in sent if message.get("answer") == 7]
    sent.clear()
    return answer


async def end(shop: LocalShop, *, name: str, **outcome: object) -> TaskId:
    """A task that ran and has ended."""
    task_id = await submit(shop, name=name)
    await until(lambda: task_id in shop.engine.jobs)
    shop.engine.finish(task_id, **outcome)
    await ended(shop, task_id)
    return task_id


async def test_a_window_has_the_runs_that_ended_in_it() -> None:
    """The history comes as columns of one length: task, worker, times, mark and name."""
    async with open_inline_shop(workers=1) as shop:
        first = await end(shop, name="went well")
        second = await end(shop, name="went\u202ewrong", reason="exit")
        session, sent = visit(shop)
        answer = await ask(session, sent, start=shop.clock() - 300, end=shop.clock() + 1, live=False)
        rows = json.loads(answer["rows"])
        assert rows["id"] == [first, second]
        assert rows["mark"] == ["ok", "fail"]
        assert [rows["names"][place] for place in rows["name"]] == ["went well", "went wrong"]
        assert rows["workers"] == ["worker-1"]
        assert rows["count"] == [1, 1]
        assert answer["bin_s"] == 0
        session.close()


async def test_what_ends_later_is_sent_as_it_ends() -> None:
    """A window that follows the present is told of each end; one in the past of none."""
    async with open_inline_shop(workers=1) as shop:
        session, sent = visit(shop)
        window = {"start": shop.clock() - 60, "end": shop.clock()}
        await ask(session, sent, live=True, **window)
        task_id = await end(shop, name="live")
        session.frame()
        (added,) = [json.loads(message["add"]) for message in sent if "add" in message]
        assert added["id"] == [task_id]
        await ask(session, sent, live=False, **window)
        await end(shop, name="late")
        session.frame()
        assert not [message for message in sent if "add" in message]
        session.close()


async def test_while_much_ends_it_is_sent_once_a_second() -> None:
    """A figure is drawn at once for the first few that end, then at the beat: nothing is lost, nothing told twice."""
    async with open_inline_shop(workers=1) as shop:
        session, sent = visit(shop)
        await ask(session, sent, start=shop.clock() - 60, end=shop.clock(), live=True)
        ended = []
        for n in range(8):
            ended.append(await end(shop, name=f"task {n}"))
            session.frame()
        at_once = [json.loads(message["add"])["id"] for message in sent if "add" in message]
        assert at_once[0] == ended[:1]
        assert len(at_once) < len(ended)
        session.beat()
        told = [json.loads(message["add"])["id"] for message in sent if "add" in message]
        assert [task_id for ids in told for task_id in ids] == ended
        session.close()


async def test_what_runs_is_on_its_workers_row() -> None:
    """A running task is told with its worker and its start, until it ends."""
    async with open_inline_shop(workers=2) as shop:
        session, _ = visit(shop)
        task_id = await submit(shop, name="runs")
        await until(lambda: shop.state.tasks[task_id].started_at)
        session.frame()
        card = session.view.stream.card
        assert card.workers == ["worker-1", "worker-2"]
        started = shop.state.tasks[task_id].started_at
        assert card.running == [[task_id, shop.state.tasks[task_id].worker_id, started, "runs"]]
        shop.engine.finish(task_id)
        await ended(shop, task_id)
        session.frame()
        assert card.running == []
        session.close()


async def test_a_page_that_stands_still_is_sent_nothing() -> None:
    """While it is paused nothing on it changes and the pill says so; then it shows what came meanwhile."""
    async with open_inline_shop(workers=1) as shop:
        session, sent = visit(shop)
        session.view.stream.card._handle_msg({"type": "freeze", "paused": True})
        sent.clear()
        await end(shop, name="unseen")
        session.beat()
        assert session.top.bar.freshness["status"] == "paused"
        assert session.view.tiles.tiles[2]["value"] == "0"
        assert sent == []
        session.view.stream.card._handle_msg({"type": "freeze", "paused": False})
        session.beat()
        assert session.view.tiles.tiles[2]["value"] == "1"
        assert {"again": True} in sent
        assert session.top.bar.freshness["status"] == "live"
        session.close()


@pytest.mark.parametrize(
    "window",
    [
        {},
        {"start": "0", "end": 60},
        {"start": True, "end": 60},
        {"start": math.nan, "end": 60},
        {"start": 0, "end": math.inf},
        {"start": 60, "end": 0},
        {"start": 0, "end": 5},
        {"start": 0, "end": 90 * 86_400},
        {"start": [0], "end": None},
    ],
)
async def test_a_window_that_is_none_is_refused(window: dict) -> None:
    """What a browser asks for is checked before anybody looks for it."""
    async with open_inline_shop(workers=1) as shop:
        session, sent = visit(shop)
        answer = await ask(session, sent, **window)
        assert answer["code"] == "invalid"
        assert "rows" not in answer
        session.close()


async def test_a_full_window_is_one_text_of_bounded_size() -> None:
    """Twenty thousand runs are encoded into one JSON text of less than 2 MB, away from the loop."""
    worker, name = WorkerId("worker-1"), "a name that is as long as names usually are"
    spans = [
        RunSpan(worker, float(n), n + 0.5, "completed", TaskId(f"2myzy61{n:07}"), name, 1, 0.5)
        for n in range(MOST_SPANS)
    ]
    async with open_inline_shop(workers=1) as shop:

        async def found(*_: object) -> RunSpans:
            return RunSpans(spans)

        shop.spans = found
        session, sent = visit(shop)
        answer = await ask(session, sent, start=0, end=86_400, live=False)
        assert len(answer["rows"]) < 2_000_000
        assert len(json.loads(answer["rows"])["id"]) == MOST_SPANS
        session.close()


def test_runs_are_in_the_order_of_their_ends() -> None:
    """The browser lets go of the first rows first: they are those that ended first. A name is told once."""
    spans = [
        RunSpan(WorkerId("worker-2"), 3.0, 9.0, "failed", TaskId("b"), "same", 1, 6.0),
        RunSpan(WorkerId("worker-1"), 1.0, 4.0, "cancelled", TaskId("a"), "same", 1, 3.0),
        RunSpan(WorkerId("worker-1"), 4.0, 6.0, "completed", TaskId(""), "", 40, 1.5),
    ]
    rows = json.loads(encoded(spans))
    assert rows["id"] == ["a", "", "b"]
    assert rows["mark"] == ["cancel", "ok", "fail"]
    assert rows["took"] == [3.0, 2.0, 6.0]
    assert rows["busy"] == [3.0, 1.5, 6.0]
    assert rows["names"] == ["same", ""]
    assert [rows["workers"][place] for place in rows["worker"]] == ["worker-1", "worker-1", "worker-2"]


def test_every_state_has_a_hatch_of_its_own() -> None:
    """Colour is never all that tells a state."""
    assert len(set(HATCHES.values())) == len(HATCHES)
    assert set(MARKS.values()) < set(HATCHES)
