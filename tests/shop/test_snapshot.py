"""The document of a snapshot: one moment, whatever happens while it is taken."""

from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime, timedelta

import pytest

from koubou_panel.core.commands import Caller
from koubou_panel.core.events import MetricsSampled
from koubou_panel.core.records import Metrics
from koubou_panel.shop import snapshot
from koubou_panel.shop.snapshot import since_of, take
from koubou_panel.testing import ManualClock, ended, open_inline_shop, submission, submit, until

CALLER = Caller("test")
NOW = 1_700_000_000.0


def ids(document):
    """The tasks of a document, in its order."""
    return [task["task_id"] for task in document["tasks"]]


async def test_it_has_all_that_is_kept(monkeypatch) -> None:
    """Tasks newest first, from the state and the archive; workers, the pool, counts and samples."""
    monkeypatch.setattr(snapshot, "PAGE_TASKS", 3)
    async with open_inline_shop() as shop:
        made = [await submit(shop) for _ in range(8)]
        await until(lambda: made[1] in shop.engine.jobs)
        shop.engine.finish(made[0])
        await ended(shop, made[0])
        del shop.state.tasks[made[0]]  # as with one that ended long ago
        shop.hub.note(MetricsSampled(NOW, Metrics(NOW, {"cpu_percent": 5.0, "cpu_percents": [5.0]})))
        await until(lambda: shop.state.metrics)
        document = await take(shop, now=NOW)
        assert ids(document) == made[::-1]
        assert len(document["workers"]) == 2
        assert document["workshop"]["counts"]["completed"] == 1
        assert document["workshop"]["pool"]["max_workers"] == 2
        at = "2023-11-14T22:13:20.000Z"
        assert document["metrics"] == [{"at": at, "cpu_percent": 5.0, "cpu_percents": [5.0]}]
        assert (document["exported_at"], document["since"]) == (at, None)


async def test_what_happens_meanwhile_is_left_out(monkeypatch) -> None:
    """A task that is submitted, or ends, while the archive is read is not in it, or stands as it stood."""
    async with open_inline_shop() as shop:
        task_id = await submit(shop)
        await until(lambda: task_id in shop.engine.jobs)
        find = shop.find

        async def busy(query):
            await submit(shop)
            if task_id in shop.engine.jobs:
                shop.engine.finish(task_id)
                await ended(shop, task_id)
            return await find(query)

        monkeypatch.setattr(shop, "find", busy)
        document = await take(shop, now=NOW)
        assert [(task["task_id"], task["status"]) for task in document["tasks"]] == [(task_id, "in_progress")]
        assert document["workshop"]["counts"]["in_progress"] == 1


async def test_the_loop_goes_on_while_it_is_taken(monkeypatch) -> None:
    """However many tasks there are, between two turns of the loop only a few become records."""
    monkeypatch.setattr(snapshot, "PIECE", 4)
    async with open_inline_shop() as shop:
        made = [await submit(shop) for _ in range(18)]
        turns, loop, record = [0], asyncio.get_running_loop(), snapshot.task_record

        def turn() -> None:
            turns.append(0)
            if sum(turns) < len(made):
                loop.call_soon(turn)

        def counted(task):
            turns[-1] += 1
            return record(task)

        monkeypatch.setattr(snapshot, "task_record", counted)
        loop.call_soon(turn)
        assert ids(await take(shop, now=NOW)) == made[::-1]
        assert (sum(turns), max(turns)) == (18, 4)


async def test_the_newest_within_a_limit() -> None:
    """A limit keeps the newest tasks and the newest samples; none of either is possible."""
    clock = ManualClock(NOW)
    async with open_inline_shop(clock=clock) as shop:
        made = [await submit(shop) for _ in range(4)]
        for second in range(4):
            shop.hub.note(MetricsSampled(NOW, Metrics(NOW - 3 + second, {"n": second})))
        await until(lambda: len(shop.state.metrics) == 4)
        document = await take(shop, now=NOW, limit=2)
        assert ids(document) == [made[3], made[2]]
        assert [sample["n"] for sample in document["metrics"]] == [2, 3]
        document = await take(shop, now=NOW, limit=0)
        assert (document["tasks"], document["metrics"]) == ([], [])


async def test_since_and_what_choose() -> None:
    """Only what is newer than a moment; only tasks, or only samples."""
    clock = ManualClock(NOW - 100)
    async with open_inline_shop(clock=clock) as shop:
        await shop.do(submission(shop), CALLER)
        clock.advance(100)
        new = await shop.do(submission(shop), CALLER)
        for at in (NOW - 90, NOW - 1, NOW + 1):
            shop.hub.note(MetricsSampled(at, Metrics(at, {})))
        await until(lambda: len(shop.state.metrics) == 3)
        document = await take(shop, now=NOW, since=NOW - 10)
        assert ids(document) == [new]
        assert len(document["metrics"]) == 1
        assert "metrics" not in await take(shop, now=NOW, what="tasks")
        assert not {"tasks", "workers"} & set(await take(shop, now=NOW, what="metrics"))


def test_since_is_a_moment_or_a_span() -> None:
    """Seconds, dates and spans are what they say; a date without a zone is of this machine."""
    moment = datetime(2023, 11, 14, 22, tzinfo=UTC)
    assert since_of(None, NOW) is None
    assert since_of(5.0, NOW) == 5.0
    assert since_of("90s", NOW) == since_of(timedelta(seconds=90), NOW) == NOW - 90
    assert since_of(" 1h30m ", NOW) == NOW - 5400
    assert since_of(moment, NOW) == since_of("2023-11-14T22:00:00Z", NOW) == moment.timestamp()
    midnight = datetime(2023, 11, 14).astimezone().timestamp()
    assert since_of("2023-11-14", NOW) == since_of(date(2023, 11, 14), NOW) == midnight


@pytest.mark.parametrize("text", ["", "yesterday", "-1h", "1y", "2023-13-01", "9" * 40 + "s"])
def test_other_texts_are_refused(text) -> None:
    """What is neither says what would be."""
    with pytest.raises(ValueError, match="30m, 1h or 2d"):
        since_of(text, NOW)
