"""The writer thread: what waits goes together, everybody is told in order, and a failure fells nobody."""

from __future__ import annotations

import asyncio
import sqlite3
import threading

import pytest

from koubou_panel.archive.sqlite import Archive, Batch
from koubou_panel.archive.writer import Writer
from koubou_panel.core.events import SystemNoted
from koubou_panel.core.records import Metrics
from koubou_panel.testing import until

LIMIT_S = 20.0


class Disk:
    """Stands before an archive's commit: notes what comes, waits while shut, fails when told to."""

    def __init__(self, archive):
        self.groups = []
        self.failure = None
        self.is_entered = threading.Event()
        self.is_open = threading.Event()
        self.is_open.set()
        self._commit = archive.commit
        archive.commit = self

    def __call__(self, batches):
        self.is_entered.set()
        assert self.is_open.wait(LIMIT_S)
        self.groups.append(list(batches))
        if self.failure is not None:
            raise self.failure
        self._commit(batches)


@pytest.fixture
def disk(archive):
    """The way to the archive's disk."""
    return Disk(archive)


@pytest.fixture
async def writer(archive, disk):
    """A writer to the archive, through the disk, with its callbacks on this loop."""
    made = Writer(archive, asyncio.get_running_loop().call_soon_threadsafe)
    yield made
    disk.is_open.set()
    await asyncio.to_thread(made.close)


def noting(number):
    """A batch that is told from others by its number."""
    return Batch(facts=[SystemNoted(float(number), "noted", str(number))])


async def put(writer, batch):
    """Store a batch; its error, if it failed."""
    done = asyncio.get_running_loop().create_future()
    writer.put(batch, done.set_result)
    return await asyncio.wait_for(done, LIMIT_S)


async def test_done_is_called_on_the_loop_once_it_is_durable(archive, writer):
    """When the callback comes, it comes on the loop's thread and another reader finds the batch."""
    seen = asyncio.get_running_loop().create_future()
    writer.put(
        noting(1), lambda error: seen.set_result((error, threading.current_thread(), archive.journal(1)))
    )
    error, thread, journal = await asyncio.wait_for(seen, LIMIT_S)
    assert error is None
    assert thread is threading.main_thread()
    assert journal == noting(1).facts


async def test_what_waits_is_committed_together_and_told_in_order(archive, disk, writer):
    """While one commit is on its way the next ones gather into a single one."""
    told = []
    disk.is_open.clear()
    first = asyncio.create_task(put(writer, noting(0)))
    assert await asyncio.to_thread(disk.is_entered.wait, LIMIT_S)
    for number in range(1, 6):
        writer.put(noting(number), lambda error, number=number: told.append((number, error)))
    last = asyncio.create_task(put(writer, noting(6)))
    await asyncio.sleep(0)
    disk.is_open.set()
    await asyncio.gather(first, last)
    assert [len(group) for group in disk.groups] == [1, 6]
    assert told == [(number, None) for number in range(1, 6)]
    assert [fact.details for fact in archive.journal(10)] == [str(number) for number in range(7)]


async def test_a_failure_is_told_to_all_of_its_group(archive, disk, writer):
    """Each that waited with it gets the exception, and nothing of them is stored."""
    disk.is_open.clear()
    disk.failure = sqlite3.OperationalError("disk I/O error")
    waiting = [asyncio.create_task(put(writer, noting(number))) for number in range(3)]
    await asyncio.sleep(0)
    disk.is_open.set()
    assert await asyncio.gather(*waiting) == [disk.failure] * 3
    assert archive.journal(10) == []


async def test_after_a_failure_nothing_is_stored_until_reset(archive, disk, writer):
    """What was built on a lost batch must not be stored without it: it is refused for the same reason."""
    failure = disk.failure = sqlite3.OperationalError("disk I/O error")
    assert await put(writer, noting(1)) is failure
    disk.failure = None
    assert await put(writer, noting(2)) is failure
    writer.reset()
    assert await put(writer, noting(3)) is None
    assert archive.journal(10) == noting(3).facts


async def test_a_failing_callback_does_not_keep_the_others_from_theirs(writer, disk, caplog):
    """An error in one callback is logged; the rest of the group is told."""

    def fail(error):
        raise RuntimeError("broken callback")

    disk.is_open.clear()
    writer.put(noting(1), fail)
    second = asyncio.create_task(put(writer, noting(2)))
    await asyncio.sleep(0)
    disk.is_open.set()
    assert await second is None
    assert "a callback of the archive failed" in caplog.text


async def test_close_commits_what_waits(archive, disk):
    """Everything that was put before the end is stored, and told."""
    told = []
    writer = Writer(archive, asyncio.get_running_loop().call_soon_threadsafe)
    for number in range(50):
        writer.put(noting(number), told.append)
    await asyncio.to_thread(writer.close)
    await asyncio.sleep(0)
    assert told == [None] * 50
    assert len(archive.journal(100)) == 50


def test_a_closed_loop_does_not_stop_the_writer(archive, caplog):
    """Batches of a loop that is gone are stored all the same."""

    def refuse(function):
        raise RuntimeError("Event loop is closed")

    writer = Writer(archive, refuse)
    writer.put(noting(1), lambda error: None)
    writer.put(noting(2), lambda error: None)
    writer.close()
    assert len(archive.journal(10)) == 2
    assert "the loop was closed" in caplog.text


async def test_pruning_is_done_between_commits(archive, writer):
    """A batch that asks for it makes the writer forget what is old, all of it, after it was told."""
    now = 1e9
    samples = [Metrics(float(at), {}) for at in range(7_000)]
    assert await put(writer, Batch(metrics=samples)) is None
    assert await put(writer, Batch(prune_before=now)) is None
    assert await put(writer, noting(now)) is None
    await until(lambda: archive.metrics_since(0.0) == [])
    assert archive.journal(10) == noting(now).facts


async def test_a_failure_to_prune_is_logged_and_given_up(archive, writer, monkeypatch, caplog):
    """It is no reason to refuse work: the next commit succeeds."""

    def fail(now):
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(archive, "prune", fail)
    assert await put(writer, Batch(prune_before=5.0)) is None
    assert await put(writer, noting(1)) is None
    assert "could not forget" in caplog.text


async def test_a_real_disk_that_is_full_is_told(path):
    """With a database that may not grow, the error is SQLite's own; with room again the next batch is stored."""
    archive = Archive.open(path)
    writer = Writer(archive, asyncio.get_running_loop().call_soon_threadsafe)
    archive._writer.execute("PRAGMA max_page_count = 1")
    big = Batch(metrics=[Metrics(float(at), {"x": "y" * 500}) for at in range(100)])
    error = await put(writer, big)
    assert isinstance(error, sqlite3.OperationalError)
    archive._writer.execute("PRAGMA max_page_count = 100000")
    writer.reset()
    assert await put(writer, big) is None
    await asyncio.to_thread(writer.close)
    archive.close()
