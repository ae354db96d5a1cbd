"""The Workers page, built without a browser."""

import pytest

from koubou_panel.core.commands import Caller
from koubou_panel.shop.local import LocalShop
from koubou_panel.testing import ManualClock, ended, open_inline_shop, submit, until
from koubou_panel.views.pace import LISTS_S, Pace
from koubou_panel.views.pages.workers import WorkersCard
from koubou_panel.views.session import PageSession


def open_workers(shop: LocalShop, role: str = "full") -> tuple[PageSession, WorkersCard, list[dict]]:
    """A visit that sees the Workers page, its card, and what is sent to that."""
    session = PageSession(shop, caller=Caller("test", role), page="workers", now=shop.clock)
    card = session.deck.seen.root
    sent: list[dict] = []
    card.send = sent.append
    return session, card, sent


def beat(session: PageSession) -> None:
    """What a frame does with the page that is seen."""
    session.deck.update(session.mirror.flush())


async def test_a_worker_is_shown_with_what_it_runs() -> None:
    """The row names the task, and its run is in the lane from the start."""
    async with open_inline_shop(workers=1) as shop:
        session, card, sent = open_workers(shop)
        task_id = await submit(shop, name="work")
        await until(lambda: task_id in shop.engine.jobs)
        beat(session)
        assert [row["task"] for row in card.rows] == ["work"]
        assert [run[0] for run in sent[-1]["running"]] == ["worker-1"]
        shop.engine.finish(task_id)
        await ended(shop, task_id)
        beat(session)
        assert [run[3] for run in sent[-1]["ended"]] == ["ok"]
        session.close()


async def test_a_card_that_was_just_drawn_gets_its_history() -> None:
    """`ready` is answered by the page itself, with all that is known, and only that page hears it."""
    async with open_inline_shop(workers=1) as shop:
        session, card, sent = open_workers(shop)
        card._handle_msg({"type": "ready"})
        assert [message["reset"] for message in sent] == [True]
        session.close()


async def test_the_pool_is_ruled_from_its_card() -> None:
    """Scale, pause, resume and drain reach the pool; what cannot be is told in words."""
    async with open_inline_shop(workers=1) as shop:
        session, card, _ = open_workers(shop)
        told: list[str] = []
        session._toast = told.append
        send = card._handle_msg
        send({"type": "scale", "min": 2, "max": 4})
        await until(lambda: (shop.state.pool.min_workers, shop.state.pool.max_workers) == (2, 4))
        send({"type": "pause"})
        await until(lambda: shop.state.pool.paused)
        send({"type": "resume"})
        await until(lambda: not shop.state.pool.paused)
        send({"type": "drain"})
        await until(lambda: shop.state.pool.draining)
        beat(session)
        assert card.pool == {"min": 2, "max": 4, "state": "draining"}
        assert told == []
        send({"type": "scale", "min": 4, "max": 2})
        await until(lambda: told)
        session.close()


@pytest.mark.parametrize(
    "message",
    [
        {"type": "scale", "min": "1", "max": 2},
        {"type": "scale", "min": -1, "max": 10**9},
        {"type": "restart", "worker_id": ["worker-1"]},
        {"type": "restart", "worker_id": "\x00"},
        {"type": "pause", "at_once": {}} | {"type": "paws"},
    ],
)
async def test_what_makes_no_sense_is_left_alone(message: dict) -> None:
    """A browser may send anything: what is not one of our messages changes nothing."""
    async with open_inline_shop(workers=1) as shop:
        session, card, _ = open_workers(shop)
        before = shop.state.pool
        card._handle_msg(message)
        assert session._work == set()
        assert shop.state.pool == before
        session.close()


async def test_a_reader_is_refused() -> None:
    """A visitor who may only look has no controls, and what they send all the same is refused in words."""
    async with open_inline_shop(workers=1) as shop:
        session, card, _ = open_workers(shop, role="read")
        assert card.can_act is False
        told: list[str] = []
        session._toast = told.append
        card._handle_msg({"type": "drain"})
        await until(lambda: told)
        assert "may only read" in told[0]
        assert not shop.state.pool.draining
        session.close()


async def test_many_workers_are_seen_by_pages() -> None:
    """The page that is asked for is shown, runs of all are known, and one that is not there any more is the first."""
    async with open_inline_shop(workers=30) as shop:
        session, card, sent = open_workers(shop)
        assert (len(card.rows), card.total, card.first) == (24, 30, 0)
        session.deck.tick()
        ids = [await submit(shop) for _ in range(30)]
        await until(lambda: set(ids) <= shop.engine.jobs.keys())
        beat(session)
        assert len({run[0] for run in sent[-1]["running"]}) == 30
        for first, seen in ((29, 24), (-1, 24), ("0", 24), (True, 24), (None, 24), (0, 0), (10**9, 0)):
            card._handle_msg({"type": "show", "first": first})
            assert card.first == seen
        card._handle_msg({"type": "show", "first": 24})
        assert [row["id"] for row in card.rows] == [f"worker-{n}" for n in range(25, 31)]
        session.close()


async def test_while_much_happens_the_page_is_drawn_seldom() -> None:
    """Of many frames with news in half a second few are sent; what ended since comes with the next that is."""
    clock = ManualClock()
    async with open_inline_shop(workers=1, clock=clock) as shop:
        session, _, sent = open_workers(shop)
        session.deck.seen._lists = Pace(LISTS_S, at_once=6, now=clock)
        asked = []
        for _ in range(40):
            asked.append(await submit(shop, name="work"))
            await until(lambda: asked[-1] in shop.engine.jobs)
            shop.engine.finish(asked[-1])
            await ended(shop, asked[-1])
            beat(session)
        assert len(sent) == 6
        assert session.deck.owes
        clock.advance(1)
        beat(session)
        assert not session.deck.owes
        assert sent[-1]["ended"][-1][2] == shop.state.tasks[asked[-1]].finished_at
        session.close()
