"""Cancel and Retry for many tasks: what is meant when it is confirmed is done when the time to undo is over."""

from __future__ import annotations

from koubou_panel.core.commands import Caller, ScaleWorkers
from koubou_panel.core.ports import TaskQuery
from koubou_panel.errors import Refused
from koubou_panel.shop.local import LocalShop
from koubou_panel.testing import open_inline_shop, submit, until
from koubou_panel.views.bulk import Bulk, Hearer, intent_for_all


def bulk(shop: LocalShop, told: list[str]) -> Bulk:
    """One that holds back for no time."""
    return Bulk(
        shop,
        Caller("dashboard"),
        Hearer(lambda: None, lambda text, _is_bad: told.append(text)),
        keep=set(),
        undo_s=0.0,
    )


async def test_what_starts_before_it_is_carried_out_is_cancelled_too() -> None:
    """Tasks that all waited when they were counted, and run by now, are among those that were meant."""
    async with open_inline_shop(workers=0) as shop:
        task_ids = [await submit(shop, name=f"job {n}") for n in range(3)]
        told: list[str] = []
        intent = await intent_for_all(shop, "cancel", TaskQuery(), now=shop.clock())
        assert intent.count == 3
        await shop.do(ScaleWorkers(2, 2), Caller("test"))
        await until(lambda: shop.state.counts["in_progress"] == 2)
        bulk(shop, told).begin(intent)
        await until(lambda: told)
        assert told == ["Cancelled 3 tasks."]
        tasks = [shop.state.tasks[task_id] for task_id in task_ids]
        assert all(task.is_finished or task.stopping for task in tasks)


async def test_a_search_for_what_waits_cancels_nothing_that_runs() -> None:
    """A status that the search names is the only one that is meant."""
    async with open_inline_shop(workers=1) as shop:
        for _ in range(3):
            await submit(shop)
        await until(lambda: shop.state.counts["in_progress"] == 1)
        intent = await intent_for_all(shop, "cancel", TaskQuery(status="pending"), now=shop.clock())
        assert [query.status for query in intent.queries] == ["pending"]
        assert intent.count == 2


async def test_many_refusals_are_a_number_and_the_first_reason() -> None:
    """What is kept of them does not grow with the tasks."""
    async with open_inline_shop(workers=1) as shop:
        told: list[str] = []
        held = bulk(shop, told)
        held._count([Refused("conflict", "why one"), None, *[Refused("conflict", "why two")] * 5])
        assert (held._refused, held._why, held._done) == (6, "why one", 1)
