"""A visitor's page: built without a browser, kept current, and gone without a trace."""

import asyncio
import gc
import weakref
from collections.abc import Callable
from dataclasses import replace

import pytest
from bokeh.document import Document
from bokeh.server.callbacks import NextTickCallback

from koubou_panel.core.commands import Caller
from koubou_panel.core.events import TasksSampled
from koubou_panel.core.records import Use
from koubou_panel.errors import Refused
from koubou_panel.reactive import Throughput
from koubou_panel.shop.local import LocalShop
from koubou_panel.testing import ManualClock, ended, open_inline_shop, submit, until
from koubou_panel.views.session import PageSession


def visit(shop: LocalShop, role: str = "full") -> PageSession:
    """A page as its browser has just shown it."""
    session = PageSession(shop, caller=Caller("dashboard", role), place="here", now=shop.clock)
    session.start(Document())
    session._go_live()
    return session


def turns(session: PageSession) -> bool:
    """What is to be done in the document's next turn, which its server would do; True."""
    for callback in session._doc.session_callbacks:
        if isinstance(callback, NextTickCallback):
            callback.callback()
    return True


async def test_the_page_builds_with_every_card() -> None:
    """The shell has a place for each root of the view, and renders into one document."""
    async with open_inline_shop() as shop:
        session = PageSession(shop, caller=Caller("dashboard"), now=shop.clock)
        page = session.shell("b1")
        doc = page._init_doc(Document())
        assert {root.name for root in doc.roots} >= set(session.roots)
        assert doc.template_variables["boot_id"] == "b1"
        session.close()


async def test_the_chart_has_what_ended_before_the_page_knew() -> None:
    """A mirror begins with the tasks that ended last; the bars of those before them come from the archive."""
    clock = ManualClock()
    async with open_inline_shop(workers=1, clock=clock) as shop:
        for _ in range(3):
            task_id = await submit(shop)
            await until(lambda task_id=task_id: task_id in shop.engine.jobs)
            shop.engine.finish(task_id)
            await ended(shop, task_id)
        clock.advance(5)
        session = visit(shop)
        trend = session.view.trend
        trend._mirror.throughput = Throughput(shop.clock(), known_since=shop.clock())
        trend.draw()
        assert sum(trend.throughput.source.data["ok"]) == 0
        await until(lambda: turns(session) and sum(trend.throughput.source.data["ok"]) == 3)
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
        session.view.running._handle_msg({"type": "cancel", "task_id": "2pwhe5r7000000"})
        await until(lambda: told)
        assert "no task 2pwhe5r7000000" in told[0]
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


async def test_running_again_what_had_input_says_that_it_waits() -> None:
    """What was typed for the first is not kept: the new one is opened and typed at anew."""
    async with open_inline_shop(workers=1) as shop:
        session = visit(shop)
        session._locked = lambda call: call()
        told: list[str] = []
        session.top.bar.toast = told.append
        for spec in ({"command": ["cat"], "stdin": True}, {"command": ["cat"]}):
            task_id = await submit(shop, spec=spec)
            await until(lambda: task_id in shop.engine.jobs)  # noqa: B023 - it is over before the next
            shop.engine.finish(task_id)
            await ended(shop, task_id)
            session.view.running._handle_msg({"type": "retry", "task_id": task_id})
            await until(lambda: shop.engine.jobs.keys() - {task_id})  # noqa: B023
            (again,) = shop.engine.jobs.keys() - {task_id}
            shop.engine.finish(again)
            await until(lambda: not shop.state.counts["in_progress"])
        assert told == ["The new task waits for its input: open it to type that."]
        session.close()


async def test_nothing_is_sent_to_a_hidden_page() -> None:
    """A hidden page is left alone; when it is seen again it is current at once."""
    async with open_inline_shop(workers=1) as shop:
        session = visit(shop)
        session.top.bar._handle_msg({"type": "hidden", "hidden": True})
        task_id = await submit(shop, name="unseen")
        await until(lambda: task_id in shop.engine.jobs)
        session.frame()
        session.beat()
        assert session.view.running.rows == []
        session.top.bar._handle_msg({"type": "hidden", "hidden": False})
        assert [row["label"] for row in session.view.running.rows] == ["unseen"]
        session.close()


async def test_a_page_that_paints_slowly_is_sent_frames_less_often() -> None:
    """While it has not painted what it was sent there is no other frame, but the beat of its heart."""
    async with open_inline_shop(workers=1) as shop:
        session = visit(shop)
        bar, sent = session.top.bar, []
        bar.send = sent.append
        bar._handle_msg({"type": "painted", "frame": 0})
        session.frame()
        task_id = await submit(shop, name="later")
        await until(lambda: task_id in shop.engine.jobs)
        beat = bar.freshness
        session.beat()
        assert (bar.freshness is not beat, session.view.running.rows) == (True, [])
        bar._handle_msg({"type": "painted", "frame": sent[-1]["frame"]})
        session.beat()
        assert [row["label"] for row in session.view.running.rows] == ["later"]
        session.close()


async def test_lists_that_were_put_off_are_drawn_with_the_next_frames() -> None:
    """While much happens numbers change in each frame and lists seldom; what was put off is drawn without a change."""
    async with open_inline_shop(workers=1) as shop:
        session = visit(shop)
        for n in range(12):
            task_id = await submit(shop, name=f"task {n}")
            await until(lambda: task_id in shop.engine.jobs)  # noqa: B023 - it is over before the next
            shop.engine.finish(task_id)
            await until(lambda: shop.state.counts["completed"] == n + 1)  # noqa: B023
            session.frame()
            assert session.view.tiles.tiles[2]["value"] == str(n + 1)
        assert session.view.owes

        def is_drawn() -> bool:
            session.frame()
            return session.view.running.ended[0]["label"] == "task 11"

        await until(is_drawn)
        assert not session.view.owes
        session.close()


async def test_what_waits_for_a_hidden_page_does_not_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is taken in now and then, and nothing is sent for it; the page that is seen again is drawn anew, whole."""
    monkeypatch.setattr("koubou_panel.views.frames.REST_S", 0.0)
    async with open_inline_shop(workers=1) as shop:
        session = visit(shop)
        session.top.bar._handle_msg({"type": "hidden", "hidden": True})
        task_id = await submit(shop, name="unseen")
        await until(lambda: task_id in shop.engine.jobs)
        assert session.mirror._dirty_tasks
        session.beat()
        assert not session.mirror._dirty_tasks
        assert session.view.running.rows == []
        session.top.bar._handle_msg({"type": "hidden", "hidden": False})
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


async def test_a_page_that_cannot_be_closed_ends_alone(caplog: pytest.LogCaptureFixture) -> None:
    """A page of somebody else's that fails at the end of a visit is logged, and all else of the visit ends."""

    class Broken:
        def close(self) -> None:
            raise RuntimeError("theirs")

    async with open_inline_shop() as shop:
        session = visit(shop)
        session.deck.views["theirs"] = Broken()
        session.deck.show("tasks")
        hearers = session.deck.seen.bulk.hearers
        work = session._spawn(asyncio.Event().wait())
        assert hearers
        session.close()
        assert not hearers
        await until(work.cancelled)
        assert not session.frames.is_live
        assert [record.message for record in caplog.records] == ["the page 'theirs' cannot be closed"]


async def test_a_visit_ends_whole_where_a_part_of_it_fails(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What fails at its end is logged, and the parts after it end all the same."""
    async with open_inline_shop() as shop:
        before = shop.hub.subscribers
        session = visit(shop)
        monkeypatch.setattr(session.top, "close", lambda: 1 / 0)
        session.deck.show("tasks")
        hearers = session.deck.seen.bulk.hearers
        work = session._spawn(asyncio.Event().wait())
        session.close()
        assert not hearers
        await until(work.cancelled)
        assert not session.frames.is_live
        assert shop.hub.subscribers == before
        assert [record.exc_info[0] for record in caplog.records] == [ZeroDivisionError]


async def open_task(session: PageSession, task_id: str) -> None:
    """Open a task's view as the browser asks for it, and wait until it is there."""
    session.drawer._locked = session._locked = lambda call: call()
    session.view.running._handle_msg({"type": "open", "task_id": task_id})
    view = session.drawer.view
    view._visit = replace(session.visit, locked=lambda call: call())
    await until(lambda: view.model is not None and view.model.task_id == task_id)


async def test_a_task_is_opened_followed_and_closed() -> None:
    """An opened task has its head, its figures and what it uses; closed, nothing of it is left."""
    async with open_inline_shop(workers=1) as shop:
        session = visit(shop)
        task_id = await submit(shop, name="work")
        await until(lambda: task_id in shop.engine.jobs)
        await open_task(session, task_id)
        view = session.drawer.view
        assert view.head.task["words"].startswith("running on worker-1")
        await until(lambda: view.curves is not None)
        assert len(view.plots) == 0
        shop.hub.note(TasksSampled(shop.clock() + 1, [(task_id, 1, Use(42.0, 5_000, 1.0))]))
        await until(lambda: session.mirror.is_dirty and shop.state.tasks[task_id].use)
        session.frame()
        assert list(view.curves.source.data["cpu"]) == [42.0]
        assert len(view.plots) == 3
        shop.engine.finish(task_id, reason="exit", message="exited with code 3")
        await ended(shop, task_id)
        session.frame()
        assert "exited with code 3" in view.head.task["words"]
        figures = [weakref.ref(figure) for figure in view.curves.figures.values()]
        session.view.running._handle_msg({"type": "open", "task_id": ""})
        assert (view.head.task, view.curves, len(view.plots)) == ({}, None, 0)
        session.frame()
        assert session.mirror.pin(None) is None
        gc.collect()
        assert [ref for ref in figures if ref() is not None] == []
        session.close()


async def test_what_a_task_was_given_is_sent_once() -> None:
    """It may be long, and stays as it is while the task goes on."""
    async with open_inline_shop(workers=1) as shop:
        session = visit(shop)
        task_id = await submit(shop, name="work")
        await until(lambda: task_id in shop.engine.jobs)
        await open_task(session, task_id)
        head, sent = session.drawer.view.head, []
        assert head.given
        head.param.watch(lambda event: sent.append(event.name), ["task", "given"])
        shop.engine.finish(task_id)
        await ended(shop, task_id)
        session.frame()
        assert sent == ["task"]
        session.close()


async def test_a_task_of_long_ago_is_read_from_the_archive() -> None:
    """A task that the state holds no more can be opened all the same; one that never was is told as such."""
    async with open_inline_shop(workers=1) as shop:
        session = visit(shop)
        task_id = await submit(shop, name="old")
        await until(lambda: task_id in shop.engine.jobs)
        shop.engine.finish(task_id)
        await ended(shop, task_id)
        del shop.state.tasks[task_id]
        await open_task(session, task_id)
        assert session.drawer.view.head.task["label"] == "old"
        told: list[str] = []
        session.drawer._toast = told.append
        session.view.running._handle_msg({"type": "open", "task_id": "nothing"})
        await until(lambda: told)
        assert told == ["There is no task nothing here."]
        assert session.drawer.view.head.task == {}
        session.close()


async def test_a_task_that_cannot_be_read_closes_the_view(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the workshop is away, a task that the state holds no more is told as such, and no other stays open."""
    async with open_inline_shop(workers=1) as shop:
        session = visit(shop)
        first, older, told, sent = await submit(shop), shop.next_id(), [], []
        await open_task(session, first)
        session.drawer._toast = told.append
        monkeypatch.setattr(session.drawer.view.head, "send", sent.append)
        monkeypatch.setattr(shop, "get", away)
        session.drawer.want(older)
        await until(lambda: told)
        await until(lambda: session.drawer.view.model is None)
        assert (told, sent) == (["no workshop answers"], [{"gone": older}])
        session.close()


async def test_a_task_that_cannot_be_read_stops_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """What fails once another is open is not told, and that one is closed as ever."""
    async with open_inline_shop(workers=1) as shop:
        session = visit(shop)
        task_id, told, gate, work = await submit(shop), [], asyncio.Event(), []
        session.drawer._toast = told.append
        session.drawer._spawn = lambda opening: work.append(session._spawn(opening))
        monkeypatch.setattr(shop, "get", lambda _: away(gate=gate))
        session.drawer.want(shop.next_id())
        await open_task(session, task_id)
        gate.set()
        await until(work[0].done)
        assert (told, session.drawer.view.model.task_id) == ([], task_id)
        session.drawer.want("")
        assert session.drawer.view.model is None
        session.close()


async def away(_task_id: str = "", *, gate: asyncio.Event | None = None) -> None:
    """A workshop that does not answer, and says so once the gate is open."""
    if gate is not None:
        await gate.wait()
    raise Refused("unavailable", "no workshop answers")


@pytest.mark.parametrize("gone", [False, True])
async def test_what_is_shown_late_is_what_is_wanted_by_then(gone: bool) -> None:
    """A task whose turn to be shown comes when another is open, or it was closed, is not shown, nor refused."""
    async with open_inline_shop(workers=1) as shop:
        session = visit(shop)
        late: list[Callable[[], None]] = []
        session.drawer._locked = late.append
        first, second = [await submit(shop) for _ in range(2)]
        session.drawer.want("nothing" if gone else first)
        await until(lambda: late)
        await open_task(session, second)
        late[0]()
        assert session.drawer.view.model.task_id == second
        session.drawer.want("")
        late[0]()
        assert (session.drawer.view.model is None, session.drawer.view.head.task) == (True, {})
        session.close()


async def test_a_new_run_has_new_curves() -> None:
    """When the open task runs again its curves begin anew with the new run."""
    async with open_inline_shop(workers=2) as shop:
        session = visit(shop)
        task_id = await submit(shop, retries=1)
        await until(lambda: task_id in shop.engine.jobs)
        await open_task(session, task_id)
        view = session.drawer.view
        await until(lambda: view.curves is not None)
        first = view.curves
        shop.engine.finish(task_id, reason="exit")
        await until(lambda: shop.state.tasks[task_id].not_before)
        shop.clock.advance(3_600)
        await submit(shop)  # the hub looks at its clock
        await until(lambda: shop.state.tasks[task_id].run == 2)
        session.frame()
        await until(lambda: view.curves is not first)
        session.close()


async def test_only_a_task_that_reads_has_an_input_line() -> None:
    """The line to type is there while a task with `stdin` or `pty` runs, and not for a visitor who may only read."""
    async with open_inline_shop(workers=3) as shop:
        deaf = await submit(shop)
        reads = await submit(shop, spec={"command": ["cat"], "pty": True})
        await until(lambda: {deaf, reads} <= shop.engine.jobs.keys())
        for role, task_id, shown in (("full", deaf, ""), ("full", reads, reads), ("read", reads, "")):
            session = visit(shop, role=role)
            await open_task(session, task_id)
            assert session.drawer.view.input.task_id == shown
            session.close()
