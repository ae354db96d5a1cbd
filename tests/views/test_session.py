"""A visitor's page: built without a browser, kept current, and gone without a trace."""

import gc
import weakref

import pytest
from bokeh.document import Document

from koubou_panel.core.commands import Caller
from koubou_panel.shop.local import LocalShop
from koubou_panel.testing import open_inline_shop, submit, until
from koubou_panel.views.page import shell
from koubou_panel.views.session import PageSession


def visit(shop: LocalShop, role: str = "full") -> PageSession:
    """A page as its browser has just shown it."""
    session = PageSession(shop, caller=Caller("dashboard", role), place="here", now=shop.clock)
    session.start(Document())
    session._go_live()
    return session


async def test_the_page_builds_with_every_card() -> None:
    """The shell has a place for each root of the view, and renders into one document."""
    async with open_inline_shop() as shop:
        session = PageSession(shop, caller=Caller("dashboard"), now=shop.clock)
        page = shell(session.view.roots, title="Overview", boot_id="b1", is_fresh=session.view.is_fresh)
        doc = page._init_doc(Document())
        assert {root.name for root in doc.roots} >= set(session.view.roots)
        assert doc.template_variables["boot_id"] == "b1"
        session.close()


async def test_changes_reach_the_cards() -> None:
    """What happens in the shop is on the cards after the next frame."""
    async with open_inline_shop(workers=1) as shop:
        session = visit(shop)
        assert session.view.is_fresh
        task_id = await submit(shop, name="work")
        await until(lambda: task_id in shop.engine.jobs)
        session.frame()
        assert not session.view.is_fresh
        assert [row["label"] for row in session.view.running.rows] == ["work"]
        assert [row["task"] for row in session.view.workers.rows] == ["work"]
        shop.engine.finish(task_id)
        await until(lambda: session.mirror.is_dirty and shop.state.counts["completed"])
        session.frame()
        assert session.view.running.rows == []
        assert [row["mark"] for row in session.view.running.ended] == ["ok"]
        session.close()


async def test_cancel_goes_to_the_shop() -> None:
    """A click on Cancel becomes a command by `dashboard`; nothing is shown before the shop has said so."""
    async with open_inline_shop(workers=1) as shop:
        session = visit(shop)
        task_id = await submit(shop)
        await until(lambda: task_id in shop.engine.jobs)
        session.frame()
        session.view.running._handle_msg({"type": "cancel", "task_id": task_id})
        assert session.view.running.rows
        await until(lambda: shop.state.counts["cancelled"] == 1)
        assert shop.state.tasks[task_id].message == "cancelled by dashboard"
        session.close()


async def test_a_refusal_is_told() -> None:
    """What the shop refuses is shown as a toast, in the shop's own words."""
    async with open_inline_shop(workers=1) as shop:
        session = visit(shop)
        told: list[str] = []
        session._toast = told.append
        session.view.running._handle_msg({"type": "cancel", "task_id": "nothing"})
        await until(lambda: told)
        assert "no task nothing" in told[0]
        session.close()


async def test_a_reader_cannot_act() -> None:
    """A visitor who may only read has no buttons, and is refused all the same."""
    async with open_inline_shop(workers=1) as shop:
        session = visit(shop, role="read")
        task_id = await submit(shop)
        await until(lambda: task_id in shop.engine.jobs)
        assert session.view.running.can_act is False
        told: list[str] = []
        session._toast = told.append
        session.view.running._handle_msg({"type": "cancel", "task_id": task_id})
        await until(lambda: told)
        assert "may only read" in told[0]
        assert shop.state.counts["in_progress"] == 1
        session.close()


@pytest.mark.parametrize(
    "message",
    [None, "cancel", 3, {}, {"type": 1}, {"type": "cancel"}, {"type": "cancel", "task_id": 5}, {"type": "x"}],
)
async def test_what_makes_no_sense_is_left_alone(message: object) -> None:
    """A browser may send anything: what is not one of our messages does nothing."""
    async with open_inline_shop(workers=1) as shop:
        session = visit(shop)
        session.view.running._handle_msg(message)
        assert session._work == set() or all(not task.done() for task in session._work)
        session.close()


async def test_a_failed_task_can_be_run_again() -> None:
    """A click on Retry submits a new task that names the old one."""
    async with open_inline_shop(workers=1) as shop:
        session = visit(shop)
        task_id = await submit(shop)
        await until(lambda: task_id in shop.engine.jobs)
        shop.engine.finish(task_id, reason="exit")
        await until(lambda: shop.state.counts["failed"])
        session.view.running._handle_msg({"type": "retry", "task_id": task_id})
        await until(lambda: shop.state.counts["in_progress"])
        assert any(task.request.rerun_of == task_id for task in shop.state.tasks.values())
        session.close()


async def test_nothing_is_sent_to_a_hidden_page() -> None:
    """A hidden page is left alone; when it is seen again it is current at once."""
    async with open_inline_shop(workers=1) as shop:
        session = visit(shop)
        session.view.bar._handle_msg({"type": "hidden", "hidden": True})
        task_id = await submit(shop, name="unseen")
        await until(lambda: task_id in shop.engine.jobs)
        session.frame()
        session.beat()
        assert session.view.running.rows == []
        session.view.bar._handle_msg({"type": "hidden", "hidden": False})
        assert [row["label"] for row in session.view.running.rows] == ["unseen"]
        session.close()


async def test_what_stays_the_same_is_not_sent_again() -> None:
    """A frame in which nothing changed sets no parameter of any card."""
    async with open_inline_shop(workers=1) as shop:
        session = visit(shop)
        session.frame()
        touched: list[str] = []
        for card in session.view.cards:
            names = [name for name in card.param if name not in ("name", "freshness")]
            card.param.watch(lambda *events: touched.extend(e.name for e in events), names)
        session.frame()
        assert touched == []
        session.close()


async def test_twenty_visits_leave_nothing() -> None:
    """Twenty pages opened and closed leave no subscriber, no task and no page alive."""
    async with open_inline_shop(workers=2) as shop:
        await submit(shop)
        before = shop.hub.subscribers
        sessions = [visit(shop) for _ in range(20)]
        assert shop.hub.subscribers == before + 20
        alive = [weakref.ref(thing) for s in sessions for thing in (s, s.mirror, s.view, s.view.running)]
        for session in sessions:
            session.close()
            session.close()
        assert shop.hub.subscribers == before
        works = [session._work for session in sessions]
        del sessions, session
        await until(lambda: not any(works))
        gc.collect()
        assert [ref for ref in alive if ref() is not None] == []
