"""The first minute: a demo load that can be cleared, and a command that is pasted."""

from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from bokeh.document import Document

from koubou_panel.core.commands import Caller
from koubou_panel.home import Home
from koubou_panel.settings import default_home
from koubou_panel.shop.local import LocalShop
from koubou_panel.testing import open_inline_shop, submit, until
from koubou_panel.views.first import DEMO_TASKS, demo_left, demo_requests
from koubou_panel.views.session import PageSession


def visit(shop: LocalShop, role: str = "full") -> PageSession:
    """A page as its browser has just shown it."""
    session = PageSession(shop, caller=Caller("dashboard", role), now=shop.clock)
    session.start(Document())
    object.__setattr__(session.visit, "locked", lambda call: call())
    session._go_live()
    return session


async def ask(card: object, kind: str, **message: object) -> dict:
    """What a card's Python half answers."""
    sent: list[dict] = []
    card.send = sent.append
    card._handle_msg({"type": "ask", "ask": kind, "id": 1, **message})
    await until(lambda: sent)
    return sent[0]["value"]


async def test_the_demo_is_labelled_and_one_click_clears_it() -> None:
    """Its tasks carry the label, the page tells of them, and Clear cancels those alone that have not ended."""
    async with open_inline_shop(workers=2) as shop:
        session = visit(shop)
        assert session.view.is_fresh
        assert await ask(session.view.first.card, "demo") == {"tasks": DEMO_TASKS}
        mine = await submit(shop, name="mine")
        session.beat()
        assert not session.view.is_fresh
        assert len(demo_left(shop.state)) == DEMO_TASKS
        (notice,) = session.top.attention.card.items
        assert notice["text"] == f"A demo load: {DEMO_TASKS} of its tasks have not ended."
        assert await ask(session.top.attention.card, notice["ask"]) == {"cancelled": DEMO_TASKS}
        await until(lambda: not demo_left(shop.state))
        session.beat()
        assert session.top.attention.card.items == []
        assert not shop.state.tasks[mine].is_finished
        session.close()


@pytest.mark.parametrize(
    "own",
    [
        {"name": "mine", "labels": {"demo": "yes"}},
        {"name": "quick sum", "labels": {"demo": "yes"}},
        {"name": "quick sum", "labels": {"demo": ""}, "spec": {"command": ["python", "-c", "1"]}},
    ],
)
async def test_clear_leaves_what_people_call_a_demo(own: dict[str, Any]) -> None:
    """A task of one's own is none of the demo's, whatever its label and name."""
    async with open_inline_shop(workers=1) as shop:
        await submit(shop, **own)
        assert demo_left(shop.state) == []


async def test_each_way_in_names_a_home_of_ones_own(tmp_path: Path) -> None:
    """What is pasted reaches this workshop; the usual home needs no word."""
    own = Home(tmp_path / "my home")
    async with open_inline_shop(workers=1) as shop:
        told = {}
        for home in (own, Home(default_home())):
            session = PageSession(shop, caller=Caller("dashboard", "full"), now=shop.clock, home=home)
            session.start(Document())
            told[home] = [line for _, line, _ in session.view.first.card.lines]
            session.close()
        here, usual = told.values()
        assert [f"kp.Workshop({str(own.root)!r})" in line for line in here] == [True, True, False, False]
        quoted = f"$(koubou --home '{own.root}' token)"
        assert [quoted in line for line in here] == [False, False, True, True]
        assert "kp.Workshop()" in usual[0]
        assert "$(koubou token)" in usual[2]


async def test_a_pasted_command_runs() -> None:
    """It is submitted as it would be on a command line; what is none is refused in words."""
    async with open_inline_shop(workers=1) as shop:
        session = visit(shop)
        answer = await ask(session.view.first.card, "run", command="echo 'two words'")
        assert shop.state.tasks[answer["task_id"]].request.spec["command"] == ["echo", "two words"]
        refusal = await ask(session.view.first.card, "run", command="echo 'never closed")
        assert refusal["error"]
        assert (await ask(session.view.first.card, "run", command=5))["error"]
        session.close()


@pytest.mark.parametrize("role", ["read", "run"])
async def test_who_may_not_submit_is_told_of_that_alone(role: str) -> None:
    """Before the command is looked at."""
    async with open_inline_shop(workers=1) as shop:
        session = visit(shop, role=role)
        assert (await ask(session.view.first.card, "run", command="echo 'never closed"))[
            "code"
        ] == "forbidden"
        session.close()


async def test_a_command_that_is_sent_twice_runs_once() -> None:
    """By the key that the page gives it."""
    async with open_inline_shop(workers=1) as shop:
        session = visit(shop)
        told = [await ask(session.view.first.card, "run", command="echo one", key="k") for _ in range(2)]
        assert told[0] == told[1]
        session.close()


@pytest.mark.parametrize("kind", ["demo", "run"])
async def test_a_reader_starts_nothing(kind: str) -> None:
    """A visitor who may only read is refused."""
    async with open_inline_shop(workers=1) as shop:
        session = visit(shop, role="read")
        assert session.view.first.card.can_act is False
        assert (await ask(session.view.first.card, kind, command="true"))["code"] == "forbidden"
        assert shop.state.counts["pending"] == 0
        session.close()


async def test_a_long_queue_is_not_walked_for_a_demo() -> None:
    """With much more waiting than a demo has, nothing is looked for, once a second."""
    async with open_inline_shop(workers=1) as shop:
        requests = list(islice(demo_requests(shop.next_id), 3))
        assert all(request.labels == {"demo": "yes"} for request in requests)
        shop.state.counts["pending"] = 10_000
        assert demo_left(shop.state) == []
        shop.state.counts["pending"] = 0
