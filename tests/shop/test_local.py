"""The local shop's beginning and end: what a crash, a restart and a shutdown leave of each task."""

from __future__ import annotations

import asyncio
import shutil
import threading
import time

import pytest
from msgspec.structs import replace

from koubou_panel.archive import loaded as loaded_module
from koubou_panel.archive.sqlite import Archive, Batch, HomeRefused
from koubou_panel.core.commands import Caller, PausePool
from koubou_panel.core.events import (
    StopRequested,
    SystemNoted,
    TaskCancelled,
    TaskFailed,
    TaskRetried,
    TaskReturned,
    TaskStarted,
    TaskSubmitted,
)
from koubou_panel.core.fold import evolve
from koubou_panel.core.ports import TaskPage, TaskQuery
from koubou_panel.core.records import Request, TaskId, WorkerId
from koubou_panel.core.state import State
from koubou_panel.errors import Refused
from koubou_panel.home import Home, HomeTaken
from koubou_panel.shop import local as local_module
from koubou_panel.shop.local import LocalShop
from koubou_panel.shop.recovery import recover
from koubou_panel.testing import ended, open_inline_shop, open_shop, submission, submit, until

WORKER = WorkerId("worker-1")


def interrupted(**fields) -> State:
    """A state with one task claimed as the first of worker-1."""
    state = State("before")
    request = Request(task_id=TaskId("a"), kind="script", created_at=1.0, **fields)
    evolve(state, TaskSubmitted(1.0, request, 1))
    evolve(state, TaskStarted(2.0, TaskId("a"), 1, WORKER, "here", 0))
    return state


@pytest.mark.parametrize("mark", [1, 7, None])
def test_a_run_that_had_begun_is_lost(mark):
    """A begun run, and one of which nothing is proved, fails as lost; the story is told once."""
    fact, note = recover(interrupted(), {WORKER: mark}, 9.0)
    assert isinstance(fact, TaskFailed)
    assert fact.reason == "lost"
    assert isinstance(note, SystemNoted)
    assert note.data == {"interrupted": 1, "looped": 0, "retried": 0, "returned": 0, "queued": 0}


def test_a_run_that_is_lost_for_the_last_time_is_counted():
    """One that a crash has ended too often is told of as what is lost."""
    state = interrupted(on_crash="retry")
    state.tasks[TaskId("a")] = replace(state.tasks[TaskId("a")], crashes=2)
    fact, note = recover(state, {WORKER: 1}, 9.0)
    assert fact.reason == "crash_loop"
    assert (note.data["interrupted"], note.data["looped"]) == (1, 1)


@pytest.mark.parametrize("cause", ["user", "timeout"])
def test_what_was_being_stopped_is_not_counted_as_lost(cause):
    """It ended as it was to, and there is nothing to tell of."""
    state = interrupted(timeout_s=1.0)
    evolve(state, StopRequested(3.0, TaskId("a"), 1, cause, "me"))
    (fact,) = recover(state, {WORKER: 1}, 9.0)
    assert (type(fact), fact.reason) == (
        (TaskCancelled, "user") if cause == "user" else (TaskFailed, "timeout")
    )


def test_a_run_whose_worker_left_no_mark_is_lost():
    """Without a mark there is no proof that it did not run."""
    fact, _ = recover(interrupted(), {}, 9.0)
    assert isinstance(fact, TaskFailed)


def test_a_claim_that_never_began_goes_back():
    """The mark proves that the worker had not begun it: it is pending again."""
    fact, _ = recover(interrupted(), {WORKER: 0}, 9.0)
    assert isinstance(fact, TaskReturned)


def test_a_task_that_may_rerun_is_retried():
    """With on_crash=retry an interrupted run is tried again and no attempt is used up."""
    fact, _ = recover(interrupted(on_crash="retry"), {WORKER: 1}, 9.0)
    assert isinstance(fact, TaskRetried)
    assert (fact.counts, fact.crashed) == (False, True)


def test_nothing_to_recover_says_nothing():
    """A clean start has no story."""
    assert recover(State("before"), {}, 9.0) == []


async def test_pending_tasks_survive_a_restart(tmp_path):
    """What waited when the workshop ended runs in the next one."""
    async with open_shop(tmp_path / "home", workers=1) as shop:
        blocker = await submit(shop, "sh", "-c", f"touch {tmp_path}/began; exec sleep 60")
        waiting = await submit(shop, "echo", "later")
        await until((tmp_path / "began").exists)  # what is claimed but not begun goes back to the queue
    async with open_shop(tmp_path / "home", workers=1, wait_ready=False) as shop:
        await until(lambda: shop.state.tasks[waiting].status == "completed")
        assert shop.state.tasks[blocker].reason == "shutdown"


async def test_followers_of_what_left_the_state_are_told_at_the_start(tmp_path, monkeypatch):
    """What was cancelled, and is not loaded any more, is not taken for a success."""
    async with open_shop(tmp_path, wait_ready=False) as shop:
        await shop.do(PausePool(), Caller("test"))
        first = await submit(shop, "true")
        follower = await submit(shop, "true", after=(first,))
        ended = replace(shop.state.tasks[first], status="cancelled", finished_at=1.0)
    archive = Archive.open(Home(tmp_path).database)
    archive.commit([Batch(tasks={first: ended})])
    archive.close()
    monkeypatch.setattr(loaded_module, "KEEP_FINISHED", 0)
    async with open_shop(tmp_path, wait_ready=False) as shop:
        assert first not in shop.state.tasks
        await until(lambda: shop.state.tasks[follower].status == "cancelled")


async def test_a_shutdown_ends_what_runs_with_its_reason(tmp_path):
    """A running task is cancelled by the shutdown; one that may rerun goes back to the queue."""
    async with open_shop(tmp_path / "home", workers=2) as shop:
        once = await submit(shop, "sh", "-c", f"touch {tmp_path}/once; exec sleep 60")
        again = await submit(shop, "sh", "-c", f"touch {tmp_path}/again; exec sleep 60", on_crash="retry")
        await until(lambda: (tmp_path / "once").exists() and (tmp_path / "again").exists())
    async with open_shop(tmp_path / "home", workers=1, wait_ready=False) as shop:
        first, second = await shop.get(once), shop.state.tasks[again]
        assert (first.status, first.reason) == ("cancelled", "shutdown")
        assert second.status in ("pending", "in_progress")
        assert (second.failures, second.crashes) == (0, 0)


async def test_a_drain_lets_running_tasks_end(tmp_path):
    """Within the grace a running task completes, and nothing new is taken."""
    async with open_shop(tmp_path / "home", workers=1) as shop:
        task_id = await submit(shop, "sh", "-c", f"while [ ! -e {tmp_path}/go ]; do sleep 0.02; done")
        await until(lambda: shop.state.counts["in_progress"] == 1)
        closing = asyncio.ensure_future(shop.drain(20))
        await until(lambda: shop.state.pool.closing)
        with pytest.raises(Refused, match="shutting down"):
            await shop.do(submission(shop, "true"), Caller("test"))
        (tmp_path / "go").touch()
        await closing
        assert shop.state.tasks[task_id].status == "completed"


async def test_history_is_found_after_a_restart(tmp_path):
    """Finished tasks are in the archive with their output."""
    async with open_shop(tmp_path / "home", workers=1) as shop:
        task_id = await submit(shop, "echo", "kept", name="keeper")
        await ended(shop, task_id)
    async with open_shop(tmp_path / "home", workers=1, wait_ready=False) as shop:
        page = await shop.find(TaskQuery(text="keeper"))
        assert [task.task_id for task in page.tasks] == [task_id]
        assert (await shop.read_output(task_id, 0, 100)).text == "kept\n"


async def test_a_home_has_one_workshop(tmp_path):
    """A second lock of the home names the process that holds it."""
    async with open_shop(tmp_path / "home", workers=1, wait_ready=False):
        with pytest.raises(HomeTaken, match=r"another workshop \(pid \d+\)"):
            Home(tmp_path / "home").lock()


async def test_a_cleared_runtime_folder_lets_no_second_workshop_in(tmp_path):
    """The home's lock is not among what a person may clear."""
    async with open_shop(tmp_path / "home", workers=1, wait_ready=False) as shop:
        shutil.rmtree(shop.home.runtime)
        second = Home(tmp_path / "home")
        second.prepare()
        with pytest.raises(HomeTaken):
            second.lock()


async def test_a_corrupt_database_is_refused_and_kept(tmp_path):
    """A file that is no database is refused and not touched."""
    home = Home(tmp_path / "home")
    home.prepare()
    home.database.write_bytes(b"not a database, but precious" * 100)
    with pytest.raises(HomeRefused, match="kept"):
        async with open_shop(home.root):
            pass
    assert home.database.read_bytes() == b"not a database, but precious" * 100


async def test_the_host_is_sampled(tmp_path):
    """Metrics of the host and of the workers arrive."""
    async with open_shop(tmp_path / "home", workers=1) as shop:
        await until(lambda: shop.state.metrics)
        assert 0 <= shop.state.metrics[-1].values["memory_percent"] <= 100
        await until(lambda: all(worker.rss_bytes for worker in shop.state.workers.values()))


@pytest.mark.parametrize("part", ["engine", "hub"])
async def test_what_does_not_end_does_not_keep_the_workshop_from_ending(part, monkeypatch, caplog):
    """A worker or an archive that never comes to its end is left after a while, and the log says which."""
    monkeypatch.setattr(local_module, "END_LIMIT_S", 0.05)
    monkeypatch.setattr(local_module, "STORE_LIMIT_S", 0.05)
    async with open_inline_shop() as shop:
        stuck = getattr(shop, part)
        ended = stuck.close

        async def never() -> None:
            await asyncio.Event().wait()

        monkeypatch.setattr(stuck, "close", never)
        async with asyncio.timeout(5):
            await shop.close()
        assert "did not end within 0.05 s" in caplog.text
        monkeypatch.setattr(stuck, "close", ended)
        if part == "hub":
            await ended()
            shop._archive.close()
        monkeypatch.setattr(shop, "close", _nothing)


async def _nothing() -> None:
    """It is closed already."""


async def test_a_crowd_of_lists_leaves_readers_to_others(monkeypatch):
    """However many lists are asked for, one is read at a time, and who asks for one task is answered meanwhile."""
    async with open_inline_shop() as shop:
        go, reading = threading.Event(), []

        def find(query):
            reading.append(query)
            go.wait(10)
            return TaskPage([], None, 0)

        monkeypatch.setattr(shop._archive, "find", find)
        lists = [asyncio.create_task(shop.find(TaskQuery())) for _ in range(8)]
        try:
            await until(lambda: len(reading) == 1)
            assert await asyncio.wait_for(shop.get(TaskId("nothing")), 5) is None
            assert len(reading) == 1
        finally:
            go.set()
        await asyncio.gather(*lists)
        assert len(reading) == 8


async def test_a_crowd_of_histories_leaves_readers_to_others(monkeypatch):
    """However many pages ask for the host's last day, it is read for one at a time."""
    async with open_inline_shop() as shop:
        go, reading = threading.Event(), []

        def binned(at, step_s):
            reading.append(at)
            go.wait(10)
            return []

        monkeypatch.setattr(shop._archive, "metrics_binned", binned)
        asked = [asyncio.create_task(shop.metrics_binned(shop.clock() - 3600, 60.0)) for _ in range(8)]
        try:
            await until(lambda: len(reading) == 1)
            assert await asyncio.wait_for(shop.get(TaskId("nothing")), 5) is None
            assert len(reading) == 1
        finally:
            go.set()
        await asyncio.gather(*asked)
        assert len(reading) == 8


async def test_no_time_out_counts_the_hours_that_the_machine_slept(tmp_path):
    """Then the clock goes on, and nothing else."""
    home, slept_s = Home(tmp_path / "home"), 0.0
    home.prepare()
    shop = await LocalShop.open(home, workers=(1, 1), clock=lambda: time.time() + slept_s)
    try:
        gate = tmp_path / "gate"
        wait = f"until [ -e {gate} ]; do sleep 0.02; done"
        task_id = await submit(shop, "sh", "-c", wait, timeout_s=3_600.0)
        await until(lambda: shop.state.tasks[task_id].status == "in_progress")
        slept_s = 8 * 3_600.0
        await submit(shop)  # the first thing after it
        gate.touch()
        assert (await ended(shop, task_id)).status == "completed"
    finally:
        await shop.close()
