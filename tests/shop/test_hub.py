"""The hub: what is told is durable, what fails is refused, what was lost is taken in again."""

from __future__ import annotations

import asyncio
import sqlite3
import threading

import pytest
from msgspec.structs import replace

from koubou_panel.archive import loaded as loaded_module
from koubou_panel.archive.sqlite import Batch
from koubou_panel.core import fold
from koubou_panel.core.commands import (
    Caller,
    CancelTask,
    PausePool,
    ResumePool,
    RetryTask,
    RunsSampled,
    SubmitTask,
    WorkerHeard,
)
from koubou_panel.core.events import MetricsSampled, TaskCompleted, TaskSubmitted
from koubou_panel.core.ids import make_task_id
from koubou_panel.core.plan import Spawn
from koubou_panel.core.records import Metrics, TaskId, Use, WorkerId
from koubou_panel.errors import Refused
from koubou_panel.shop import hub as hub_module
from koubou_panel.shop.known import FRESH_S, Known
from koubou_panel.testing import Collector, ManualClock, ended, open_inline_shop, submission, submit, until

ME = Caller("test")


@pytest.fixture
async def shop():
    """A workshop in memory."""
    async with open_inline_shop() as opened:
        yield opened


class Disk:
    """The archive's commit, which fails while `is_full`."""

    def __init__(self, archive) -> None:
        self.is_full = False
        self.commits = 0
        self._commit = archive.commit
        archive.commit = self

    def __call__(self, batches) -> None:
        if self.is_full:
            raise sqlite3.OperationalError("database or disk is full")
        self.commits += 1
        self._commit(batches)


async def test_acknowledges_after_the_commit(shop):
    """When a submit returns, the archive has the task."""
    task_id = await submit(shop, "true")
    assert shop._archive.get(task_id) is not None


async def test_tells_subscribers_after_the_commit(shop):
    """A fact that a subscriber sees is in the archive."""
    seen = []

    class Reader(Collector):
        def on_facts(self, folded):
            seen.extend(
                shop._archive.get(fact.request.task_id) is not None
                for fact, _, _ in folded
                if isinstance(fact, TaskSubmitted)
            )

    shop.subscribe(Reader())
    await submit(shop, "true")
    assert seen == [True]


async def test_facts_come_in_order_without_gaps(shop):
    """The seq of each channel is contiguous for a subscriber."""
    collector = Collector()
    shop.subscribe(collector)
    ids = [await submit(shop, "true") for _ in range(4)]
    for task_id in ids:
        await until(lambda task_id=task_id: task_id in shop.engine.jobs)
        shop.engine.finish(task_id)
    await until(lambda: shop.state.counts["completed"] == 4)
    seqs = [folded.seq for folded in collector.facts if folded.fact.channel == "task"]
    assert seqs == list(range(1, len(seqs) + 1))


async def test_the_same_id_twice_is_one_task(shop):
    """A resent submit is acknowledged again and changes nothing."""
    command = submission(shop, "true")
    assert await shop.do(command, ME) == await shop.do(command, ME)
    assert sum(shop.state.counts.values()) == 1


@pytest.mark.parametrize("seconds", [0.0, 4.0, 15.0])
async def test_a_submit_that_is_sent_again_is_known_after_its_task_left_the_state(monkeypatch, seconds):
    """Short tasks push each other out in no time: the same id is given again, or refused when that was long ago."""
    monkeypatch.setattr(fold, "KEEP_FINISHED", 0)
    clock = ManualClock(1_800_000_000.0)
    async with open_inline_shop(clock=clock) as shop:
        first = submission(shop, "true")
        await shop.do(first, ME)
        retry = RetryTask(first.request.task_id, shop.next_id())
        for command, task_id in ((first, first.request.task_id), (retry, retry.new_id)):
            await shop.do(command, ME)
            await until(lambda task_id=task_id: task_id in shop.engine.jobs)
            shop.engine.finish(task_id)
            await until(lambda task_id=task_id: task_id not in shop.state.tasks)
        await until(lambda: not shop.hub._in_flight)
        for _ in range(2):
            clock.advance(seconds)
            await submit(shop, "true")
        epoch = shop.state.epoch
        answers = await shop.do_many([first, retry], ME)
        if seconds < FRESH_S:
            assert answers == [first.request.task_id, retry.new_id]
        else:
            assert [answer.code for answer in answers] == ["conflict", "conflict"]
        assert (shop.state.counts["completed"], shop.state.epoch) == (2, epoch)


def test_what_ended_lately_is_forgotten_after_a_while():
    """An id is kept for as long as it counts as fresh, and not much longer; what ended before is not known."""
    known = Known({}, 100.0)
    known.ended.add(TaskId("a"))
    for clock in (105.0, 110.5):
        known.turn(clock)
        assert TaskId("a") in known
    known.turn(clock + FRESH_S + 0.5)
    assert TaskId("a") not in known


@pytest.mark.parametrize(("made", "is_certain"), [(-1, False), (0, True), (5, True), (15, True), (21, False)])
def test_an_id_from_before_or_from_another_clock_is_looked_up(made, is_certain):
    """Certain are ids made since the start, within some seconds, and not in the future."""
    start = 1_800_000_000.0
    known = Known({}, start)
    now = start + (20 if made > 5 else 5)
    assert known.is_certain(make_task_id(int(1000 * (start + made)), 0), now) is is_certain
    assert not known.is_certain(make_task_id(int(1000 * start), 0), start + FRESH_S + 1)


async def test_the_same_key_twice_is_one_task(shop):
    """A submit with a known idempotency key gives the first task's id."""
    first = await submit(shop, "true", idempotency_key="k")
    assert await submit(shop, "false", idempotency_key="k") == first


async def test_a_reader_may_not_write(shop):
    """A read token is refused."""
    with pytest.raises(Refused, match="may only read"):
        await shop.do(submission(shop, "true"), Caller("guest", "read"))


async def test_retry_is_a_new_task_of_the_same_work(shop):
    """Retry submits the finished task's spec again and says of what."""
    task_id = await submit(shop, "echo", "hi")
    await until(lambda: task_id in shop.engine.jobs)
    with pytest.raises(Refused, match="still in_progress"):
        await shop.do(RetryTask(task_id, shop.next_id()), ME)
    shop.engine.finish(task_id, reason="exit", message="exited with code 1", exit_code=1)
    await until(lambda: shop.state.tasks[task_id].is_finished)
    again = await shop.do(RetryTask(task_id, shop.next_id()), ME)
    request = shop.state.tasks[again].request
    assert (request.rerun_of, request.spec) == (task_id, {"command": ["echo", "hi"]})


async def test_cancel_of_a_finished_task_says_so(shop):
    """What has ended cannot be cancelled."""
    task_id = await submit(shop, "true")
    await until(lambda: task_id in shop.engine.jobs)
    shop.engine.finish(task_id)
    await until(lambda: shop.state.tasks[task_id].is_finished)
    with pytest.raises(Refused, match=r"already ended \(completed\)"):
        await shop.do(CancelTask(task_id), ME)


async def test_all_of_a_pipeline_may_be_cancelled_at_once(shop, monkeypatch):
    """What the first cancel has ended and pushed out of the state is said to have ended, and nothing is reset."""
    monkeypatch.setattr(fold, "KEEP_FINISHED", 3)
    await shop.do(PausePool(), ME)
    epoch, first = shop.state.epoch, await submit(shop, "true")
    others = [await submit(shop, "true", after=(first,)) for _ in range(9)]
    answers = await shop.do_many([CancelTask(task_id) for task_id in (first, *others)], ME)
    assert answers[0] == first
    assert {answer.code for answer in answers if isinstance(answer, Refused)} <= {"conflict"}
    await until(lambda: shop.state.counts["cancelled"] == 10)
    assert (len(shop.state.tasks), shop.state.epoch) == (3, epoch)


async def test_a_subscriber_that_fails_is_dropped(shop):
    """A broken subscriber harms nobody."""

    class Broken(Collector):
        def on_facts(self, folded):
            raise RuntimeError("broken")

    well = Collector()
    shop.subscribe(Broken())
    shop.subscribe(well)
    await submit(shop, "true")
    await submit(shop, "true")
    assert shop.hub.subscribers == 1
    assert [f for f in well.facts if isinstance(f.fact, TaskSubmitted)]


async def test_a_full_disk_refuses_and_recovers_by_itself(shop, monkeypatch):
    """Nothing is acknowledged that is not stored; afterwards the queue goes on, and a lost report is taken in again."""
    monkeypatch.setattr(hub_module, "RECOVERY_S", 0.01)
    disk = Disk(shop._archive)
    collector = Collector()
    shop.subscribe(collector)
    running = await submit(shop, "true")
    await until(lambda: running in shop.engine.jobs)
    epoch = shop.state.epoch
    disk.is_full = True
    with pytest.raises(Refused, match="could not store"):
        await submit(shop, "true")
    shop.engine.finish(running)
    with pytest.raises(Refused, match="could not store"):
        await submit(shop, "true")
    disk.is_full = False
    await until(lambda: shop.state.epoch != epoch)
    await until(lambda: shop.state.tasks[running].status == "completed")
    assert sum(shop.state.counts.values()) == 1
    assert collector.resets == 2
    after = await submit(shop, "true")
    await until(lambda: after in shop.engine.jobs)


async def test_a_worker_that_dies_while_storing_fails_is_not_forgotten(shop, monkeypatch):
    """Its task ends when the archive stores again, and another worker takes its place."""
    monkeypatch.setattr(hub_module, "RECOVERY_S", 0.01)
    disk = Disk(shop._archive)
    running = await submit(shop, "true")
    await until(lambda: running in shop.engine.jobs)
    disk.is_full = True
    with pytest.raises(Refused, match="could not store"):
        await submit(shop, "true")
    shop.engine.kill(shop.engine.jobs[running][0])
    disk.is_full = False
    await until(lambda: shop.state.tasks[running].is_finished)
    assert shop.state.tasks[running].reason == "killed"
    await until(lambda: sum(worker.status == "idle" for worker in shop.state.workers.values()) == 2)


@pytest.mark.parametrize("is_late", [False, True])
async def test_a_name_is_not_given_away_before_its_worker_is_known_to_be_dead(shop, monkeypatch, is_late):
    """Its death is the last of more reports than one step takes: nothing is planned before all of them are in."""
    monkeypatch.setattr(hub_module, "RECOVERY_S", 0.01)
    disk = Disk(shop._archive)
    running = await submit(shop, "true")
    await until(lambda: running in shop.engine.jobs)
    worker_id = shop.engine.jobs[running][0]

    def tell():
        for _ in range(hub_module.STEP_ITEMS):
            shop.hub.report(WorkerHeard(WorkerId("worker-2")))
        shop.engine.kill(worker_id)

    reload = shop.hub._reload
    monkeypatch.setattr(shop.hub, "_reload", lambda *stored: (tell() if is_late else None, reload(*stored)))
    disk.is_full = True
    with pytest.raises(Refused, match="could not store"):
        await submit(shop, "true")
    if not is_late:
        tell()
    shop.engine.done.clear()
    disk.is_full = False
    assert (await ended(shop, running)).reason == "killed"
    await until(lambda: sum(worker.status == "idle" for worker in shop.state.workers.values()) == 2)
    await shop.hub.stored()
    assert [one.worker_id for one in shop.engine.done if type(one) is Spawn] == [worker_id]


async def test_a_bug_in_a_step_loses_no_state(shop, monkeypatch):
    """A step that fails is undone: who asked is told, in no words for a full disk, and the archive's state holds."""
    monkeypatch.setattr(hub_module, "RECOVERY_S", 0.01)
    kept = await submit(shop, "true")
    epoch = shop.state.epoch
    monkeypatch.setattr(hub_module, "decide", lambda *_: 1 / 0)
    with pytest.raises(Refused, match=r"workshop failed \(division by zero\)"):
        await submit(shop, "true")
    monkeypatch.undo()
    await until(lambda: shop.state.epoch != epoch)
    assert kept in shop.state.tasks
    assert shop.state.notes[-1].details == "the workshop failed; queue reloaded"
    await submit(shop, "true")


async def test_what_ended_is_known_to_its_followers_before_it_is_stored(shop, monkeypatch):
    """One that left the state while its end was being stored is not waited for: it would never end again."""
    monkeypatch.setattr(fold, "KEEP_FINISHED", 0)
    await shop.do(PausePool(), ME)
    first = await submit(shop, "true")
    gate, commit = threading.Event(), shop._archive.commit
    monkeypatch.setattr(shop._archive, "commit", lambda batches: (gate.wait(10), commit(batches)))
    ending = asyncio.ensure_future(shop.do(CancelTask(first), ME))
    await until(lambda: first not in shop.state.tasks)
    following = asyncio.ensure_future(submit(shop, "true", after=(first,)))
    assert shop._archive.get(first).status == "pending"
    gate.set()
    await ending
    assert (await shop.get(await following)).status == "cancelled"
    with pytest.raises(Refused, match="to wait for"):
        await submit(shop, "true", after=(shop.next_id(),))


async def test_followers_of_what_left_the_state_are_told_after_a_reload(shop, monkeypatch):
    """What was cancelled is not taken for a success because the state does not hold it any more."""
    monkeypatch.setattr(hub_module, "RECOVERY_S", 0.01)
    monkeypatch.setattr(loaded_module, "KEEP_FINISHED", 0)
    await shop.do(PausePool(), ME)
    first = await submit(shop, "true")
    follower = await submit(shop, "true", after=(first,))
    ended = replace(shop.state.tasks[first], status="cancelled", finished_at=1.0)
    shop._archive.commit([Batch(tasks={first: ended})])
    with monkeypatch.context() as broken:
        broken.setattr(hub_module, "decide", lambda *_: 1 / 0)
        with pytest.raises(Refused, match="workshop failed"):
            await submit(shop, "true")
    await until(lambda: first not in shop.state.tasks)
    await until(lambda: shop.state.tasks[follower].status == "cancelled")


async def test_what_is_being_stored_when_a_step_fails_is_still_done(shop, monkeypatch):
    """A commit that was under way before our own fault is acknowledged, and its task runs."""
    monkeypatch.setattr(hub_module, "RECOVERY_S", 0.01)
    gate, commit = threading.Event(), shop._archive.commit
    monkeypatch.setattr(shop._archive, "commit", lambda batches: (gate.wait(10), commit(batches)))
    first = asyncio.ensure_future(submit(shop, "true"))
    await until(lambda: shop.state.counts["in_progress"] == 1)
    with monkeypatch.context() as broken:
        broken.setattr(hub_module, "decide", lambda *_: 1 / 0)
        with pytest.raises(Refused, match=r"workshop failed \(division by zero\)"):
            await submit(shop, "true")
    gate.set()
    task_id = await first
    await until(lambda: task_id in shop.engine.jobs)
    shop.engine.finish(task_id)
    await until(lambda: shop.state.tasks[task_id].status == "completed")


async def test_metrics_are_stored_a_few_at_a_time(shop):
    """Samples of the host wait for ten, or for a commit that is due anyway; the last are stored at the end."""
    disk = Disk(shop._archive)

    def sample(at):
        shop.hub.note(MetricsSampled(at, Metrics(at, {"cpu_percent": 1.0})))

    for at in range(hub_module.METRICS_TOGETHER - 1):
        sample(float(at))
    await until(lambda: len(shop.state.metrics) == hub_module.METRICS_TOGETHER - 1)
    assert disk.commits == 0
    assert shop._archive.metrics_since(0.0) == []
    sample(9.0)
    await until(lambda: shop._archive.metrics_since(0.0))
    assert disk.commits == 1
    assert [metrics.at for metrics in shop._archive.metrics_since(0.0)] == [float(at) for at in range(10)]
    sample(10.0)
    await submit(shop, "true")
    assert len(shop._archive.metrics_since(0.0)) == 11


async def test_the_last_metrics_are_stored_at_the_end():
    """What still waits when the workshop ends is in the archive."""
    kept = []
    async with open_inline_shop() as shop:
        close = shop._archive.close
        shop._archive.close = lambda: (kept.extend(shop._archive.metrics_since(0.0)), close())
        shop.hub.note(MetricsSampled(5.0, Metrics(5.0, {"cpu_percent": 1.0})))
        await until(lambda: shop.state.metrics)
    assert [metrics.at for metrics in kept] == [5.0]


async def test_looks_at_runs_are_not_kept_for_a_disk_that_recovers(shop, monkeypatch):
    """While nothing can be stored, samples are let go: a night of them would fill the memory."""
    monkeypatch.setattr(hub_module, "RECOVERY_S", 3_600.0)
    disk = Disk(shop._archive)
    running = await submit(shop, "true")
    await until(lambda: running in shop.engine.jobs)
    disk.is_full = True
    shop.hub.report(RunsSampled([(running, 1, Use(1.0, 2, 3.0))]))
    with pytest.raises(Refused, match="could not store"):
        await submit(shop, "true")
    shop.hub.report(RunsSampled([(running, 1, Use(1.0, 2, 3.0))]))
    await asyncio.sleep(0)
    assert shop.hub._lost == []


async def test_a_reader_learns_no_id_by_a_key(shop):
    """An idempotency key answers only those who may submit."""
    await submit(shop, "true", idempotency_key="k")
    with pytest.raises(Refused, match="may only read"):
        await shop.do(submission(shop, "true", idempotency_key="k"), Caller("guest", "read"))


async def test_an_id_that_is_none_is_refused(shop):
    """What is no task id never becomes one."""
    command = submission(shop, "true")
    request = replace(command.request, task_id=TaskId("../../x"))
    with pytest.raises(Refused, match="no task id"):
        await shop.do(SubmitTask(request), ME)


async def test_a_time_out_is_kept_by_the_clock():
    """A run is stopped at its deadline and not before."""
    clock = ManualClock()
    async with open_inline_shop(clock=clock) as shop:
        task_id = await submit(shop, "true", timeout_s=30)
        await until(lambda: task_id in shop.engine.jobs)
        clock.advance(29)
        shop.hub._wake()
        await asyncio.sleep(0)
        assert shop.state.tasks[task_id].status == "in_progress"
        clock.advance(2)
        shop.hub._wake()
        await until(lambda: shop.state.tasks[task_id].status == "failed")
        assert shop.state.tasks[task_id].reason == "timeout"


async def test_ends_that_nothing_follows_are_told_together():
    """A worker that has enough in hand ends two short tasks, one after the other: they are one step."""
    told = []

    class Reader(Collector):
        def on_facts(self, folded):
            told.append([each.fact.task_id for each in folded if isinstance(each.fact, TaskCompleted)])

    async with open_inline_shop(workers=1) as shop:
        shop.hub.agenda.pace_s["short"] = 0.0039
        commands = [submission(shop, name="short", payload=b"opaque") for _ in range(6)]
        commands = [SubmitTask(replace(each.request, kind="function", spec={})) for each in commands]
        await shop.do(PausePool(), ME)
        ids = await shop.do_many(commands, ME)
        await shop.do(ResumePool(), ME)
        await until(lambda: len(shop.engine.jobs) == 5)  # what a worker holds
        shop.subscribe(Reader())
        for task_id in ids[:2]:
            shop.engine.finish(task_id)
            await asyncio.sleep(0)
        await until(lambda: sum(map(len, told)) == 2)
        assert ids[:2] in told
