"""What the page says, as plain data."""

from math import nan

from koubou_panel.core.commands import Caller, CancelTask, DrainPool, PausePool, ResumePool
from koubou_panel.core.events import MetricsSampled, SystemNoted, TasksSampled, WorkerSampled
from koubou_panel.core.records import Metrics, Progress, Use
from koubou_panel.reactive import Mirror, Throughput
from koubou_panel.shop.local import LocalShop
from koubou_panel.testing import ManualClock, ended, open_inline_shop, submit, until
from koubou_panel.views import rows
from koubou_panel.views.attention import crash_notices
from koubou_panel.views.language import speaking


async def start(shop: LocalShop, **fields: object) -> str:
    """Submit a task and wait until a worker has it."""
    task_id = await submit(shop, **fields)
    await until(lambda: task_id in shop.engine.jobs)
    return task_id


async def finish(shop: LocalShop, task_id: str, **outcome: object) -> None:
    """End a task and wait until the shop knows."""
    shop.engine.finish(task_id, **outcome)
    await ended(shop, task_id)


async def test_six_tiles_with_true_numbers() -> None:
    """The tiles are always the same six, and their numbers those of the shop."""
    clock = ManualClock()
    async with open_inline_shop(workers=1, clock=clock) as shop:
        await finish(shop, await start(shop))
        await finish(shop, await start(shop), reason="exit", message="exited with code 1")
        await start(shop)
        await submit(shop)
        clock.advance(7)
        mirror = Mirror(shop, now=clock)
        tiles = {tile["key"]: tile for tile in rows.tiles(mirror.model, mirror.throughput, clock())}
        assert list(tiles) == ["pending", "running", "completed", "failed", "success", "workers"]
        assert [tile["value"] for tile in tiles.values()] == ["1", "1", "1", "1", "50.0", "1"]
        assert tiles["pending"]["sub"] == "oldest 7.0 s"
        assert tiles["running"]["of"] == "/ 1"
        assert tiles["failed"]["tone"] == "fail"
        lines = rows.sparks(mirror.throughput, [(1, nan)])
        assert (lines["pending"], lines["running"]) == ([1], [None])
        assert len(lines["completed"]) == len(lines["failed"]) == rows.SPARK_STEPS
        mirror.close()


async def test_a_part_is_not_told_as_the_whole() -> None:
    """Where a burst was longer than what a page begins with, its rate is a least, and its share that of a part."""
    async with open_inline_shop(workers=1) as shop:
        await finish(shop, await start(shop))
        mirror = Mirror(shop, now=shop.clock)
        series = Throughput(shop.clock(), known_since=shop.clock() - 30)
        series.advance(shop.clock())
        tiles = {tile["key"]: tile for tile in rows.tiles(mirror.model, series, shop.clock())}
        assert tiles["completed"]["sub"] == "≥ 1 per min"
        assert str(tiles["success"]["sub"]).startswith("last 2")
        mirror.close()


async def test_nothing_ended_is_no_percentage() -> None:
    """Where nothing ended there is no success rate, and nothing is red."""
    async with open_inline_shop() as shop:
        mirror = Mirror(shop, now=shop.clock)
        tiles = {tile["key"]: tile for tile in rows.tiles(mirror.model, mirror.throughput, shop.clock())}
        assert tiles["success"]["value"] == "–"
        assert tiles["failed"]["tone"] == ""
        assert tiles["pending"]["sub"] == "nothing waits"
        assert max(len(str(tile["sub"])) for tile in tiles.values()) <= 17, "too long for a phone"
        mirror.close()


async def test_nothing_is_noticed_when_all_is_well() -> None:
    """A healthy shop has no notice."""
    async with open_inline_shop() as shop:
        await finish(shop, await start(shop))
        mirror = Mirror(shop, now=shop.clock)
        assert rows.notices(mirror.model, mirror.throughput) == []
        mirror.close()


def test_what_a_crash_left_is_noticed_for_a_day() -> None:
    """It says what became of the tasks, in the words of the page; what was lost is a click away."""
    data = {"interrupted": 3, "retried": 1, "returned": 2, "queued": 9}
    notes = [
        SystemNoted(100.0, "recovered", "words of the workshop", data),
        SystemNoted(101.0, "scaled_up", ""),
    ]
    (notice,) = crash_notices(notes, 160.0)
    assert "3 failed as lost, 3 back in the queue" in notice["text"]
    assert (notice["asked"], notice["at"]) == ({"q": "status:failed reason:lost"}, 100.0)
    (later,) = crash_notices([*notes, SystemNoted(102.0, "recovered", "", {"retried": 1})], 160.0)
    assert "0 failed as lost, 1 back" in later["text"]
    assert (later["go"], later["stamp"] != notice["stamp"]) == ("", True), (
        "it can be put away, until the next crash"
    )
    assert not [*crash_notices(notes, 100.0 + 24 * 3600 + 1)]
    for looped, q in ((3, "status:failed reason:crash_loop"), (1, "status:failed since:1d")):
        (ended,) = crash_notices([SystemNoted(100.0, "recovered", "", data | {"looped": looped})], 160.0)
        assert ended["asked"] == {"q": q}, "it finds those that crashed too often, too"
    with speaking("ja"):
        assert next(crash_notices(notes, 160.0))["text"] != notice["text"]


async def test_what_is_wrong_is_noticed() -> None:
    """Failures, a full disk and a shutdown are each told."""
    clock = ManualClock()
    async with open_inline_shop(clock=clock) as shop:
        await finish(shop, await start(shop), reason="exit")
        shop.hub.note(MetricsSampled(clock(), Metrics(clock(), {"disk_percent": 93.0})))
        await shop.do(DrainPool(), Caller("test"))
        mirror = Mirror(shop, now=clock)
        notices = rows.notices(mirror.model, mirror.throughput)
        assert [notice["page"] for notice in notices] == ["workers", "tasks", "system"]
        assert notices[1]["asked"] == {"q": "status:failed since:10m"}
        texts = [notice["text"] for notice in notices]
        assert texts == [
            "The workers drain: what runs goes on, new work is refused.",
            "1 task failed in the last 10 minutes",
            "The disk is 93 % full",
        ]
        mirror.close()


async def test_a_running_row_tells_how_far_it_is() -> None:
    """Progress, the worker and its memory are on the row of a running task."""
    clock = ManualClock()
    async with open_inline_shop(workers=1, clock=clock) as shop:
        task_id = await start(shop, name="train")
        shop.engine.progress(task_id, Progress(0.25, 3, 12, "it", 40.0, "epoch 1", 0.5))
        shop.hub.note(WorkerSampled(clock(), next(iter(shop.state.workers)), 50.0, 210 * 1024**2))
        await until(lambda: shop.state.tasks[task_id].progress is not None)
        mirror = Mirror(shop, now=clock)
        (row,) = rows.running_rows(mirror.model)
        assert row["label"] == "train"
        assert row["fraction"] == 0.25
        assert row["eta_at"] == clock() + 40
        assert (row["meta"], row["note"], row["uses"]) == ("25 % · 3/12 · 30/min", "epoch 1", "210 MB")
        shop.hub.note(TasksSampled(clock(), [(task_id, 1, Use(97.6, 300 * 1024**2, 5.0))]))
        await until(lambda: shop.state.tasks[task_id].use is not None)
        mirror.flush()
        (row,) = rows.running_rows(mirror.model)
        assert row["uses"] == "CPU 98 % · 300 MB"
        mirror.close()


async def test_the_end_that_a_run_tells_of_stays_where_it_is() -> None:
    """Between two words of a run its expected end does not move, however often the page is drawn."""
    clock = ManualClock()
    async with open_inline_shop(workers=1, clock=clock) as shop:
        task_id = await start(shop)
        mirror = Mirror(shop, now=clock)
        shop.engine.progress(task_id, Progress(0.5, eta_s=30.0))
        await until(lambda: mirror.is_dirty and shop.state.tasks[task_id].progress)
        mirror.flush()
        ends_at = rows.running_rows(mirror.model)[0]["eta_at"]
        assert ends_at == clock() + 30
        clock.advance(10)
        shop.hub.note(TasksSampled(clock(), [(task_id, 1, Use(1.0, 1, 1.0))]))
        await until(lambda: mirror.is_dirty and shop.state.tasks[task_id].use)
        mirror.flush()
        assert rows.running_rows(mirror.model)[0]["eta_at"] == ends_at
        mirror.close()


async def test_what_waits_says_what_for() -> None:
    """A pending task says whether it waits for other tasks, for a resume, or for a worker; only the first are told."""
    async with open_inline_shop(workers=1) as shop:
        first = await start(shop, name="prepare")
        await submit(shop, name="train", after=(first,))
        for _ in range(4):
            await submit(shop, name="other")
        mirror = Mirror(shop, now=shop.clock)
        whys = [(row["label"], row["why"]) for row in rows.waiting_rows(mirror.model)]
        assert whys == [
            ("train", "waits for prepare"),
            ("other", "waits for a free worker"),
            ("other", "waits for a free worker"),
        ]
        await shop.do(PausePool(), Caller("test"))
        mirror.flush()
        assert rows.waiting_rows(mirror.model)[1]["why"] == "paused"
        await shop.do(ResumePool(), Caller("test"))
        await finish(shop, first)
        mirror.flush()
        assert mirror.model.waiting == [] or mirror.model.waiting[0].waits_for == []
        mirror.close()


async def test_what_is_being_stopped_says_so() -> None:
    """A task whose end was asked for and is awaited says so."""
    async with open_inline_shop(workers=1) as shop:
        task_id = await start(shop)
        shop.engine.jobs_kept = shop.engine.jobs.copy()
        stop = shop.engine.finish
        shop.engine.finish = lambda *args, **kwargs: None
        await shop.do(CancelTask(task_id), Caller("test"))
        mirror = Mirror(shop, now=shop.clock)
        (row,) = rows.running_rows(mirror.model)
        assert row["stopping"] is True
        assert row["meta"].startswith("stopping …")
        shop.engine.finish = stop
        await finish(shop, task_id)
        mirror.close()


async def test_ended_rows_say_why() -> None:
    """A failed task has its reason in words, a completed one needs none; the latest is first."""
    async with open_inline_shop(workers=1) as shop:
        await finish(shop, await start(shop, name="good"))
        await finish(shop, await start(shop, name="bad"), reason="exit", message="exited with code 3")
        mirror = Mirror(shop, now=shop.clock)
        told = [(row["label"], row["mark"], row["why"]) for row in rows.ended_rows(reversed(mirror.recent))]
        assert told == [("bad", "fail", "exited with code 3"), ("good", "ok", "")]
        mirror.close()


async def test_the_same_work_many_times_is_one_row() -> None:
    """A burst of equal tasks that completed is one row with a count; a failure among them keeps its own."""
    async with open_inline_shop(workers=1) as shop:
        for n in range(7):
            await finish(shop, await start(shop, name="burst"), reason="exit" if n == 2 else None)
        mirror = Mirror(shop, now=shop.clock)
        told = [(row["mark"], row["times"]) for row in rows.ended_rows(reversed(mirror.recent))]
        assert told == [("ok", 4), ("fail", 1), ("ok", 2)]
        mirror.close()


async def test_past_levels_come_from_the_tasks_own_times() -> None:
    """How many waited and ran is told for the minutes before anyone looked."""
    clock = ManualClock()
    async with open_inline_shop(workers=1, clock=clock) as shop:
        first = await start(shop)
        await submit(shop)
        clock.advance(60)
        await finish(shop, first)
        clock.advance(30)
        mirror = Mirror(shop, now=clock)
        levels = rows.past_levels(mirror.tasks_of_late(), clock())
        assert levels[-1] == (0, 1)
        assert levels[-10] == (1, 1)
        assert levels[0] == (0, 0)
        mirror.close()


async def test_names_are_made_fit_for_the_page() -> None:
    """A name of control characters and very many letters becomes one short line; the whole is beside it."""
    async with open_inline_shop(workers=1) as shop:
        await start(shop, name="\x1b[31m\u202e" + "x" * 190)
        mirror = Mirror(shop, now=shop.clock)
        (row,) = rows.running_rows(mirror.model)
        assert len(row["label"]) <= rows.LABEL
        assert "\x1b" not in row["label"] + row["full"]
        assert "\u202e" not in row["label"] + row["full"]
        mirror.close()
