"""What the Workers page says, as plain data."""

from koubou_panel.core.commands import Caller, PausePool, WorkerSilent
from koubou_panel.core.events import SystemNoted
from koubou_panel.core.records import SILENT_AFTER_S
from koubou_panel.reactive import Mirror
from koubou_panel.shop.local import LocalShop
from koubou_panel.testing import ManualClock, ended, open_inline_shop, submit, until
from koubou_panel.views import rows, worker_rows


async def start(shop: LocalShop, **fields: object) -> str:
    """Submit a task and wait until a worker has it."""
    task_id = await submit(shop, **fields)
    await until(lambda: task_id in shop.engine.jobs)
    return task_id


async def finish(shop: LocalShop, task_id: str, **outcome: object) -> None:
    """End a task and wait until the shop knows."""
    shop.engine.finish(task_id, **outcome)
    await ended(shop, task_id)


async def test_the_pool_in_words() -> None:
    """How many workers there are of how many wanted, what waits, and what was decided, the latest first."""
    clock = ManualClock()
    async with open_inline_shop(workers=1, clock=clock) as shop:
        await start(shop)
        await submit(shop)
        await shop.do(PausePool(), Caller("test"))
        for words in ("up from 1 to 2 workers: 5 tasks wait", "held: 1 GB free", "held: 1 GB free"):
            clock.advance(5)
            shop.hub.note(SystemNoted(clock(), "scaled_up" if "up" in words else "scaling_held", words))
        await until(lambda: len([note for note in shop.state.notes if "scal" in note.event]) == 3)
        mirror = Mirror(shop, now=clock)
        assert worker_rows.pool_note(mirror.model) == "1 of 1 · 1 busy · 1 waiting"
        assert worker_rows.pool_state(mirror.model) == {"min": 1, "max": 1, "state": "paused"}
        told = [row["text"] for row in worker_rows.decision_rows(mirror.model)]
        assert told == ["held: 1 GB free", "up from 1 to 2 workers: 5 tasks wait"]
        mirror.close()


async def test_a_worker_that_does_not_answer_tells_since_when() -> None:
    """The row of an unresponsive worker has the moment it was last heard of; that of another has none."""
    clock = ManualClock()
    async with open_inline_shop(workers=2, clock=clock) as shop:
        first, _ = shop.state.workers
        await start(shop)
        clock.advance(30)
        shop.hub.report(WorkerSilent(first))
        await until(lambda: shop.state.workers[first].status == "unresponsive")
        mirror = Mirror(shop, now=clock)
        silent, well = worker_rows.worker_rows(mirror.model.workers)
        assert silent["silent_since"] == clock() - SILENT_AFTER_S
        assert well["silent_since"] is None
        assert rows.notices(mirror.model, mirror.throughput)[0]["text"] == f"{first} does not answer"
        mirror.close()


async def test_lanes_join_what_is_too_short_to_see() -> None:
    """Hundreds of short runs that follow on each other are a few rectangles; a failure stays one of its own."""
    clock = ManualClock()
    async with open_inline_shop(workers=1, clock=clock) as shop:
        for n in range(30):
            task_id = await start(shop)
            clock.advance(0.01)
            await finish(shop, task_id, reason="exit" if n == 20 else None)
        mirror = Mirror(shop, now=clock)
        runs = worker_rows.lane_runs(mirror.recent, clock() - 300)
        assert [mark for *_, mark in runs] == ["ok", "fail", "ok"]
        assert runs[0][2] - runs[0][1] > 0.15
        assert worker_rows.lane_runs(mirror.recent, clock() + 1) == []
        mirror.close()


async def test_many_workers_have_a_row_by_pages_and_a_cell_each() -> None:
    """Two dozen rows at a time, and every worker by its machine; few have rows alone."""
    async with open_inline_shop(workers=30) as shop:
        mirror = Mirror(shop, now=shop.clock)
        workers = mirror.model.workers
        assert [row["id"] for row in worker_rows.worker_rows(worker_rows.page_of(workers, 24))] == [
            f"worker-{n}" for n in range(25, 31)
        ]
        (band,) = worker_rows.bands(workers)
        assert [cell[0] for cell in band["cells"]] == [f"worker-{n}" for n in range(1, 31)]
        assert band["cells"][29][1:] == ["idle", "idle", 29]
        assert worker_rows.bands(workers[:24]) == []
        mirror.close()


async def test_no_worker_says_why_and_what_makes_one_appear() -> None:
    """Paused, draining, about to start, or nothing to do: each in its own words."""
    async with open_inline_shop(workers=1) as shop:
        model = Mirror(shop, now=shop.clock).model
        told = [worker_rows.empty_words(model)]
        for name in ("pending", "paused", "draining", "closing"):
            model.tell({name: True if name != "pending" else 3})
            told.append(worker_rows.empty_words(model))
        assert "koubou run" in told[0]
        assert len(set(told)) == 5
