"""What a visitor asked to be told of."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from koubou_panel.core.commands import Caller
from koubou_panel.core.fold import evolve
from koubou_panel.core.ports import Link
from koubou_panel.core.state import State
from koubou_panel.shop.local import LocalShop
from koubou_panel.shop.recovery import recover
from koubou_panel.testing import ended, open_inline_shop, submit, until
from koubou_panel.views.bell import MOST_AT_ONCE, Bell
from koubou_panel.views.cards import Message
from koubou_panel.views.session import PageSession

NOTHING: Message = {"fails": False, "scripts": False, "idle": False, "ids": []}


def bell_of(shop: LocalShop) -> tuple[Bell, list[Message], PageSession]:
    """A bell of a page, with what it rings."""
    session = PageSession(shop, caller=Caller("test"), now=shop.clock)
    object.__setattr__(session.visit, "locked", lambda call: call())
    rung: list[Message] = []
    return Bell(session.visit, rung.append), rung, session


async def end(shop: LocalShop, reason: str | None = None, name: str = "work") -> str:
    """Run a task to its end."""
    task_id = await submit(shop, name=name)
    await until(lambda: task_id in shop.engine.jobs)
    shop.engine.finish(task_id, **({"reason": reason} if reason else {}))
    await ended(shop, task_id)
    return task_id


async def test_nothing_is_followed_before_it_is_asked_for() -> None:
    """Without a wish there is no subscriber, and when it is taken back there is none again."""
    async with open_inline_shop(workers=1) as shop:
        bell, rung, session = bell_of(shop)
        before = len(shop.hub._subscribers)
        await end(shop, "exit")
        assert rung == []
        await bell.ask({**NOTHING, "fails": True})
        await bell.ask({**NOTHING, "idle": True})
        assert len(shop.hub._subscribers) == before + 1
        await bell.ask(NOTHING)
        assert len(shop.hub._subscribers) == before
        session.close()


async def test_a_failure_is_told_and_a_success_is_not() -> None:
    """By its name, why, and with a key that each browser tells once."""
    async with open_inline_shop(workers=1) as shop:
        bell, rung, session = bell_of(shop)
        await bell.ask({**NOTHING, "fails": True})
        await end(shop, name="fine")
        failed = await end(shop, "exit", name="bad")
        events = [event for message in rung for event in message["bell"]]
        assert [(event["label"], event["status"]) for event in events] == [("bad", "failed")]
        assert events[0]["key"] == f"{failed}:1:failed"
        bell.close()
        session.close()


async def test_a_watched_task_is_told_however_it_ends() -> None:
    """Also one that had ended before the browser could ask."""
    async with open_inline_shop(workers=1) as shop:
        bell, _rung, session = bell_of(shop)
        first = await end(shop)
        answer = await bell.ask({**NOTHING, "ids": [first]})
        assert [event["id"] for event in answer["ended"]] == [first]
        bell.close()
        session.close()


async def test_what_ended_while_nobody_could_be_told_is_told_after() -> None:
    """A laptop that slept, a server that was away: the browser says since when it knows nothing."""
    async with open_inline_shop(workers=1) as shop:
        bell, _rung, session = bell_of(shop)
        await end(shop, "exit", name="old")
        since = shop.clock()
        shop.clock.advance(10)
        await end(shop, "exit", name="new")
        answer = await bell.ask({**NOTHING, "fails": True, "since": since})
        assert [event["label"] for event in answer["ended"]] == ["new"]
        bell.close()
        session.close()


async def test_what_a_crash_of_the_workshop_left_is_told_once() -> None:
    """What failed with it, not what was told before it, nor what went well; and that nothing is left to do."""
    async with open_inline_shop(workers=2) as shop:
        bell, rung, session = bell_of(shop)
        await end(shop, "exit", name="before")
        await bell.ask({**NOTHING, "fails": True, "idle": True})
        ends, lost = [await submit(shop, name=name) for name in ("told", "lost")]
        await until(lambda: {ends, lost} <= shop.engine.jobs.keys())
        shop.clock.advance(10)
        shop.engine.finish(ends, reason="exit")
        await until(lambda: rung)
        shop.clock.advance(10)
        fine = await end(shop, name="fine")
        state = State.from_snapshot(shop.state.snapshot())
        state.tasks[fine] = replace(state.tasks[fine], finished_at=shop.clock() + 20)
        for fact in recover(state, {}, shop.clock() + 20):
            evolve(state, fact)
        for _ in range(2):
            bell.on_reset(state)
        events = [event for message in rung for event in message["bell"]]
        assert [event.get("label", event["kind"]) for event in events] == ["told", "lost", "idle"]
        bell.close()
        session.close()


async def test_it_is_known_up_to_when_the_workshop_was_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    """So a browser asks again for what ends while the workshop is away."""
    async with open_inline_shop(workers=1) as shop:
        bell, _rung, session = bell_of(shop)
        monkeypatch.setattr(LocalShop, "link", Link("reconnecting", 30.0))
        assert (await bell.ask({**NOTHING, "fails": True}))["at"] == shop.clock() - 30
        bell.close()
        session.close()


async def test_nothing_left_to_do_is_told_once() -> None:
    """When the last task ends; an idle workshop says nothing."""
    async with open_inline_shop(workers=1) as shop:
        bell, rung, session = bell_of(shop)
        await bell.ask({**NOTHING, "idle": True})
        await end(shop)
        await until(lambda: rung)
        assert [event["kind"] for message in rung for event in message["bell"]] == ["idle"]
        bell.close()
        session.close()


async def test_thousands_that_fail_at_once_are_counted() -> None:
    """No browser is sent more than a screenful in one message."""
    async with open_inline_shop(workers=1) as shop:
        bell, rung, session = bell_of(shop)
        waiting: list[object] = []
        object.__setattr__(session.visit, "locked", waiting.append)
        await bell.ask({**NOTHING, "fails": True})
        for _ in range(MOST_AT_ONCE + 3):
            await end(shop, "exit")
        assert len(waiting) == 1
        waiting[0]()
        assert (len(rung[0]["bell"]), rung[0]["more"]) == (MOST_AT_ONCE, 3)
        bell.close()
        session.close()


@pytest.mark.parametrize(
    "message",
    [{}, {"fails": 1}, {"ids": "abc"}, {"ids": [None, 3, "x"]}, {"since": "yesterday"}, {"idle": "true"}],
)
async def test_what_makes_no_sense_asks_for_nothing(message: Message) -> None:
    """A browser's message is a stranger's word."""
    async with open_inline_shop(workers=1) as shop:
        bell, _rung, session = bell_of(shop)
        assert (await bell.ask(message))["ended"] == []
        assert bell._unsubscribe is None
        session.close()
