"""A mirror keeps one audience's models of a shop, and leaves nothing behind."""

import gc
import time
import weakref

from koubou_panel.core.commands import Caller, CancelTask
from koubou_panel.core.events import MetricsSampled, TasksSampled, WorkerSampled
from koubou_panel.core.records import Metrics, Progress, Use
from koubou_panel.reactive import Mirror
from koubou_panel.reactive.models import SHOW_WAITING
from koubou_panel.reactive.series import KEEP_S
from koubou_panel.testing import ManualClock, ended, open_inline_shop, submit, until


async def test_models_are_filled_at_once() -> None:
    """A new mirror shows what the shop holds, without waiting for an event."""
    async with open_inline_shop(workers=2) as shop:
        task_id = await submit(shop, name="first")
        await until(lambda: task_id in shop.engine.jobs)
        mirror = Mirror(shop, now=shop.clock)
        assert mirror.model.in_progress == 1
        assert [task.label for task in mirror.model.running] == ["first"]
        assert [worker.status for worker in mirror.model.workers] == ["busy", "idle"]
        assert mirror.model.workers[0].current_label == "first"
        mirror.close()


async def test_facts_only_mark_and_flush_sets() -> None:
    """Between flushes no parameter changes; a flush sets each dirty model once."""
    async with open_inline_shop(workers=1) as shop:
        task_id = await submit(shop, name="one")
        await until(lambda: task_id in shop.engine.jobs)
        mirror = Mirror(shop, now=shop.clock)
        model = mirror.model.running[0]
        seen: list[list[str]] = []
        model.param.watch(
            lambda *events: seen.append([e.name for e in events]), ["fraction", "done", "total"]
        )
        shop.engine.progress(task_id, Progress(0.25, 1, 4))
        shop.engine.progress(task_id, Progress(0.5, 2, 4))
        await until(lambda: mirror.is_dirty and shop.state.tasks[task_id].progress.done == 2)
        assert seen == []
        changes = mirror.flush()
        assert changes.tasks == {task_id}
        assert [sorted(names) for names in seen] == [["done", "fraction", "total"]]
        assert model.fraction == 0.5
        assert mirror.flush().tasks == set()
        mirror.close()


async def test_a_task_goes_from_running_to_ended() -> None:
    """A task that ends leaves `running` for `finished`, is told as ended once, and counts in the series."""
    clock = ManualClock()
    async with open_inline_shop(workers=1, clock=clock) as shop:
        task_id = await submit(shop)
        await until(lambda: task_id in shop.engine.jobs)
        mirror = Mirror(shop, now=clock)
        clock.advance(3)
        shop.engine.finish(task_id)
        await until(lambda: mirror.is_dirty and shop.state.counts["completed"])
        await until(lambda: mirror.flush().ended or mirror.model.finished)
        assert mirror.model.running == []
        assert [task.status for task in mirror.model.finished] == ["completed"]
        assert mirror.model.finished[0].duration_s == 3
        assert mirror.model.completed_per_minute == 1
        assert mirror.model.success_percent == 100
        clock.advance(5)
        assert sum(second.completed for second in mirror.flush().seconds) == 1
        mirror.close()


async def test_history_is_there_at_load() -> None:
    """A mirror opened late shows what ended and what was measured before it."""
    clock = ManualClock()
    async with open_inline_shop(workers=1, clock=clock) as shop:
        for n in range(3):
            task_id = await submit(shop)
            await until(lambda task_id=task_id: task_id in shop.engine.jobs)
            shop.engine.finish(task_id, reason="exit" if n == 1 else None)
            await ended(shop, task_id)
            shop.hub.note(MetricsSampled(clock(), Metrics(clock(), {"cpu_percent": 10.0 * n})))
            clock.advance(2)
        await until(lambda: len(shop.state.metrics) == 3)
        mirror = Mirror(shop, now=clock)
        rows = mirror.throughput.rows
        assert (sum(row.completed for row in rows), sum(row.failed for row in rows)) == (2, 1)
        assert [sample.values["cpu_percent"] for sample in mirror.metrics] == [0, 10, 20]
        assert mirror.model.metrics.cpu_percent == 20
        assert len(mirror.model.finished) == 3
        mirror.close()


async def test_older_samples_go_before_the_known_ones() -> None:
    """A backfill puts the archive's samples before those of the state, and none twice."""
    async with open_inline_shop(workers=1) as shop:
        now = shop.clock()
        shop.hub.note(MetricsSampled(now, Metrics(now, {})))
        await until(lambda: shop.state.metrics)
        mirror = Mirror(shop, now=shop.clock)
        mirror.backfill([Metrics(now - 2, {}), Metrics(now - 1, {}), Metrics(now, {})])
        assert [sample.at - now for sample in mirror.metrics] == [-2, -1, 0]
        assert mirror.flush().reset
        mirror.close()


async def test_samples_of_a_worker_reach_its_model() -> None:
    """What a worker's process tree uses is on its model after a flush."""
    async with open_inline_shop(workers=1) as shop:
        mirror = Mirror(shop, now=shop.clock)
        worker_id = next(iter(shop.state.workers))
        shop.hub.note(WorkerSampled(shop.clock(), worker_id, 87.5, 1_000_000))
        await until(lambda: shop.state.workers[worker_id].cpu_percent == 87.5)
        await shop.hub.stored()
        assert mirror.flush().workers == {worker_id}
        assert mirror.model.workers[0].cpu_percent == 87.5
        mirror.close()


async def test_dirty_is_told_once() -> None:
    """However many events come, the audience is woken once until it flushes."""
    woken: list[int] = []
    async with open_inline_shop(workers=1) as shop:
        mirror = Mirror(shop, now=shop.clock, on_dirty=lambda: woken.append(1))
        for _ in range(5):
            await submit(shop)
        await until(lambda: shop.state.counts["pending"] == 4)
        assert woken == [1]
        mirror.flush()
        await submit(shop)
        await until(lambda: len(woken) == 2)
        mirror.close()


async def test_a_long_queue_is_counted_not_modelled() -> None:
    """Of those that wait only the first few have a model; cancelling one lists it as ended."""
    async with open_inline_shop(workers=1) as shop:
        for _ in range(9):
            last = await submit(shop)
        mirror = Mirror(shop, now=shop.clock)
        assert mirror.model.pending == 8
        assert len(mirror.task_models) == 1 + SHOW_WAITING
        assert len(mirror.model.waiting) == SHOW_WAITING
        await shop.do(CancelTask(last), Caller("test"))
        mirror.flush()
        assert mirror.model.cancelled == 1
        assert [task.reason for task in mirror.model.finished] == ["user"]
        mirror.close()


async def test_what_a_task_uses_reaches_its_model() -> None:
    """One sample tells of many tasks; each model has what its own process tree uses, and loses it at the end."""
    async with open_inline_shop(workers=2) as shop:
        tasks = [await submit(shop) for _ in range(2)]
        await until(lambda: all(task_id in shop.engine.jobs for task_id in tasks))
        mirror = Mirror(shop, now=shop.clock)
        uses = [(task_id, 1, Use(10.0 * n, 1_000, 1.0)) for n, task_id in enumerate(tasks)]
        shop.hub.note(TasksSampled(shop.clock(), uses))
        await until(lambda: mirror.is_dirty)
        assert mirror.flush().tasks == set(tasks)
        assert [task.use.cpu_percent for task in mirror.model.running] == [0.0, 10.0]
        assert mirror.model.running[1].usage.peak_rss_bytes == 1_000
        shop.engine.finish(tasks[1])
        await ended(shop, tasks[1])
        mirror.flush()
        assert mirror.model.finished[0].use is None
        mirror.close()


async def test_a_pinned_task_keeps_its_model() -> None:
    """A pinned task has a model whatever becomes of it, and its samples are told one by one; unpinned it has none."""
    async with open_inline_shop(workers=1) as shop:
        task_id = await submit(shop, name="kept")
        await until(lambda: task_id in shop.engine.jobs)
        mirror = Mirror(shop, now=shop.clock, running=0, finished=0)
        assert mirror.task_models == {}
        model = mirror.pin(shop.state.tasks[task_id])
        assert model.status == "in_progress"
        for n in range(3):
            shop.hub.note(TasksSampled(shop.clock() + n, [(task_id, 1, Use(float(n), 1, 1.0))]))
        await until(lambda: shop.state.tasks[task_id].use and shop.state.tasks[task_id].use.cpu_percent == 2)
        assert [use.cpu_percent for _, _, use in mirror.flush().uses] == [0.0, 1.0, 2.0]
        assert mirror.flush().uses == []
        shop.engine.finish(task_id)
        await ended(shop, task_id)
        mirror.flush()
        assert model.status == "completed"
        mirror.pin(None)
        mirror.flush()
        assert mirror.task_models == {}
        mirror.close()


async def test_the_queue_costs_a_flush_nothing() -> None:
    """With 20,000 tasks pending a flush takes about as long as with none."""
    async with open_inline_shop(workers=1) as shop:
        mirror = Mirror(shop, now=shop.clock)
        first = await submit(shop)
        await until(lambda: first in shop.engine.jobs)
        mirror.flush()
        template = shop.state.tasks[first]
        from msgspec.structs import replace

        for n in range(20_000):
            task_id = f"pending{n:06d}"
            shop.state.tasks[task_id] = replace(
                template, status="pending", request=replace(template.request, task_id=task_id)
            )
        shop.state.counts["pending"] = 20_000
        began = time.thread_time()
        for _ in range(20):
            mirror.flush()
        took = (time.thread_time() - began) / 20
        for n in range(20_000):
            del shop.state.tasks[f"pending{n:06d}"]
        shop.state.counts["pending"] = 0
        assert mirror.model.pending == 20_000
        assert took < 0.005
        mirror.close()


async def test_twenty_mirrors_leave_nothing() -> None:
    """Twenty mirrors opened and closed leave no subscriber, and none of them or their models stays alive."""
    async with open_inline_shop(workers=2) as shop:
        task_id = await submit(shop)
        await until(lambda: task_id in shop.engine.jobs)
        before = shop.hub.subscribers
        mirrors = [Mirror(shop, now=shop.clock) for _ in range(20)]
        for mirror in mirrors:
            mirror.model.param.watch(lambda event, mirror=mirror: mirror.flush(), "pending")
        assert shop.hub.subscribers == before + 20
        watched = [weakref.ref(thing) for mirror in mirrors for thing in (mirror, mirror.model)]
        watched += [weakref.ref(model) for mirror in mirrors for model in mirror.task_models.values()]
        for mirror in mirrors:
            mirror.close()
            mirror.close()
        assert shop.hub.subscribers == before
        del mirrors, mirror
        gc.collect()
        assert [ref for ref in watched if ref() is not None] == []


async def test_nothing_piles_up_where_nobody_looks() -> None:
    """A skip lets go of what waits; the flush after it says that all is new, and what ended and was used with it."""
    async with open_inline_shop(workers=1) as shop:
        mirror = Mirror(shop, now=shop.clock)
        mirror.on_samples([MetricsSampled(float(at), Metrics(float(at), {})) for at in range(2 * KEEP_S)])
        assert len(mirror._new_metrics) == KEEP_S
        task_id = await submit(shop)
        await until(lambda: task_id in shop.engine.jobs)
        mirror.pin(shop.state.tasks[task_id])
        mirror.on_samples([TasksSampled(1.0, [(task_id, 1, Use(1.0, 1, 1.0))])])
        shop.engine.finish(task_id)
        await ended(shop, task_id)
        for _ in range(2):
            mirror.skip()
            assert [len(mirror._new_metrics), len(mirror._dirty_tasks), len(mirror._told_at)] == [0, 0, 0]
        assert mirror.metrics[-1].at == 2 * KEEP_S - 1
        changes = mirror.flush()
        assert changes.reset
        assert [task.task_id for task in changes.ended] == [task_id]
        assert len(changes.uses) == 1
        assert not mirror.flush().reset
        mirror.close()
