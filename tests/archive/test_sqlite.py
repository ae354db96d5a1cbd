"""The archive: what was committed is read back, by one database in a file and by one in memory alike."""

from __future__ import annotations

import resource
import sqlite3
import threading

import pytest
from msgspec.structs import replace

from koubou_panel.archive import batch as batch_module
from koubou_panel.archive.rows import Standing
from koubou_panel.archive.sqlite import Archive, Batch
from koubou_panel.core.events import SystemNoted, TaskCompleted, TaskSubmitted
from koubou_panel.core.ports import TaskQuery
from koubou_panel.core.records import Fault, Metrics, Pool, Progress, Task, Usage
from koubou_panel.core.state import KEEP_FINISHED, KEEP_METRICS
from koubou_panel.errors import KoubouError, Refused


def note(number):
    """A fact that is told from others by `number`."""
    return SystemNoted(float(number), "noted", f"note {number}")


def test_an_empty_archive_loads_as_nothing(archive):
    """A new database holds nothing, and says so without fail."""
    loaded = archive.load()
    assert (loaded.unfinished, loaded.finished, loaded.keys, loaded.metrics) == ([], [], {}, [])
    assert (loaded.order, loaded.worker_totals, loaded.pool) == (0, (0, 0), None)
    assert set(loaded.counts.values()) == {0}
    assert len(loaded.counts) == 5


def test_load_gives_unfinished_tasks_with_payload_by_order(archive, tasks):
    """What is to be run again comes back whole, in the order of submission."""
    second, first = (
        tasks.make(2, payload=b"two", key="k"),
        tasks.make(1, payload=b"one", status="in_progress"),
    )
    archive.commit([tasks.batch(second, first)])
    loaded = archive.load()
    assert loaded.unfinished == [first, second]
    assert loaded.keys == {"k": second.task_id}
    assert loaded.order == 2


def test_load_gives_the_last_finished_by_their_end(archive, tasks):
    """Of those that ended it gives as many as the state keeps, the latest end last, without payload."""
    many = [tasks.make(order, payload=b"p") for order in range(1, KEEP_FINISHED + 4)]
    ended = [tasks.finish(task, 5_000.0 - task.order) for task in many]
    archive.commit([tasks.batch(*many)])
    archive.commit([tasks.batch(touched=ended)])
    loaded = archive.load()
    assert loaded.finished == ended[:KEEP_FINISHED][::-1]
    assert loaded.counts["completed"] == len(many)


def test_worker_totals_are_what_completed_and_failed(archive, tasks):
    """The totals over all workers that ever were follow from the tasks."""
    statuses = ["completed", "completed", "failed", "cancelled"]
    ended = [tasks.finish(tasks.make(order), 9.0, status) for order, status in enumerate(statuses, 1)]
    archive.commit([tasks.batch(*ended)])
    assert archive.load().worker_totals == (2, 1)


def test_every_field_of_a_task_is_stored(archive, tasks):
    """A record with every field set comes back equal, and no field of Task but its present `use` is without a place."""
    full = tasks.make(
        7,
        status="failed",
        reason="exit",
        message="exit 3",
        run=2,
        worker_id="worker-1",
        node="here",
        claim=9,
        started_at=2.5,
        finished_at=3.5,
        not_before=1.5,
        stopping="user",
        stopping_by="cli",
        failures=1,
        crashes=1,
        exit_code=3,
        result="no",
        error=Fault("E", "m", "t"),
        usage=Usage(1.0, 2, 3, 4.0),
        progress=Progress(0.5, 1.0, 2.0, "it", 3.0, "half", 0.1),
        waits_for=("other",),
    )
    archive.commit([tasks.batch(full)])
    assert archive.get(full.task_id) == full
    assert {*Standing.__struct_fields__, "request", "order", "status", "finished_at", "use"} == {
        *Task.__struct_fields__
    }


def test_get_of_an_unknown_task_is_none(archive):
    """There is no task of that id, and no payload or value of it."""
    assert archive.get("nobody") is None
    assert archive.payload("nobody") == b""
    assert archive.values(["nobody"]) == [b""]


def test_a_finished_task_keeps_its_payload_in_the_archive(archive, tasks):
    """A retry needs it, although no record carries it any more."""
    task = tasks.make(1, payload=b"pickled")
    ended = tasks.finish(task, 5.0)
    archive.commit([tasks.batch(task)])
    archive.commit([tasks.batch(touched=[ended])])
    assert archive.payload(task.task_id) == b"pickled"
    assert archive.get(task.task_id) == ended


def test_a_task_that_is_new_and_finished_at_once_keeps_its_payload(archive, tasks):
    """A batch whose last record of a new task has let its payload go stores it all the same."""
    task = tasks.make(1, payload=b"pickled")
    ended = tasks.finish(task, 5.0, "cancelled")
    archive.commit([replace(tasks.batch(task), tasks={task.task_id: ended})])
    assert archive.payload(task.task_id) == b"pickled"
    assert archive.load().finished == [ended]


def test_batches_of_one_commit_follow_each_other(archive, tasks):
    """Of a task that many batches touch, the last record counts, and its first batch brings it in."""
    task = tasks.make(1, payload=b"p")
    started = replace(task, status="in_progress", run=1)
    ended = tasks.finish(started, 5.0)
    archive.commit(
        [
            tasks.batch(task),
            tasks.batch(touched=[started]),
            tasks.batch(touched=[ended], values={task.task_id: b"v"}, pool=Pool(2, 2)),
            Batch(pool=Pool(3, 4)),
            Batch(facts=[note(1)]),
        ]
    )
    loaded = archive.load()
    assert (loaded.finished, loaded.pool) == ([ended], Pool(3, 4))
    assert archive.values([task.task_id]) == [b"v"]
    assert archive.payload(task.task_id) == b"p"


def test_values_come_in_the_order_asked_for(archive, tasks):
    """One answer for each id, also for one that is asked twice or has no value."""
    made = [tasks.make(order) for order in (1, 2, 3)]
    ids = [task.task_id for task in made]
    archive.commit([tasks.batch(*made, values={ids[0]: b"\x00one", ids[2]: b"three"})])
    assert archive.values([ids[2], ids[1], ids[0], ids[2]]) == [b"three", b"", b"\x00one", b"three"]


def test_a_value_outlives_a_later_record(archive, tasks):
    """A record that is stored again without its value takes none away."""
    task = tasks.finish(tasks.make(1), 5.0)
    archive.commit([tasks.batch(task, values={task.task_id: b"v"})])
    archive.commit([tasks.batch(touched=[task])])
    assert archive.values([task.task_id]) == [b"v"]


@pytest.mark.parametrize("count", [1, 2, 3, 2_047, 2_048, 2_049, 5_000])
def test_a_commit_may_hold_any_number_of_tasks(archive, tasks, count):
    """Whatever does not fit one statement is stored by several, in one transaction."""
    made = [tasks.make(order) for order in range(1, count + 1)]
    archive.commit([tasks.batch(*made)])
    assert archive.load().unfinished == made


@pytest.mark.parametrize("extra", [1, 5_000])
def test_a_failed_commit_stores_nothing(archive, tasks, extra):
    """A commit that fails in its last row leaves nothing of it, and the archive can be used again."""
    archive.commit([tasks.batch(tasks.make(1, key="taken"))])
    wrong = [tasks.make(order) for order in range(2, 2 + extra)] + [tasks.make(99_999, key="taken")]
    with pytest.raises(sqlite3.IntegrityError):
        archive.commit([tasks.batch(*wrong, facts=[note(1)], pool=Pool(9, 9))])
    loaded = archive.load()
    assert [task.order for task in loaded.unfinished] == [1]
    assert loaded.pool is None
    assert archive.journal(10) == []
    archive.commit([tasks.batch(*wrong[:-1])])
    assert len(archive.load().unfinished) == 1 + extra


@pytest.mark.parametrize("extra", [10, 4_000])
def test_a_full_disk_leaves_the_archive_usable(archive, tasks, extra):
    """When no page is left the commit fails as a whole; once there is room the same batch is stored."""
    (pages,) = archive._writer.execute("PRAGMA page_count").fetchone()
    archive._writer.execute(f"PRAGMA max_page_count = {pages + 2}")
    large = [tasks.make(order, payload=bytes(5_000)) for order in range(1, extra + 1)]
    with pytest.raises(sqlite3.OperationalError, match="full"):
        archive.commit([tasks.batch(*large)])
    assert archive.load().unfinished == []
    archive._writer.execute("PRAGMA max_page_count = 1000000")
    archive.commit([tasks.batch(*large)])
    assert len(archive.load().unfinished) == extra


def test_a_failing_write_leaves_the_archive_usable(path, tasks):
    """When the system refuses to write the file, nothing is acknowledged, and later the same batch is stored."""
    archive = Archive.open(path)
    task = tasks.make(1, payload=bytes(3_000_000))
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, old[1]))
    try:
        with pytest.raises(sqlite3.OperationalError):
            archive.commit([tasks.batch(task)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert archive.load().unfinished == []
    archive.commit([tasks.batch(task)])
    archive.close()
    reopened = Archive.open(path)
    assert reopened.load().unfinished == [task]
    reopened.close()


def test_an_empty_batch_is_no_commit(archive):
    """A batch knows that it is empty, and storing it does nothing."""
    assert Batch().is_empty
    assert Batch(prune_before=5.0).is_empty
    assert not Batch(facts=[note(1)]).is_empty
    assert not Batch(pool=Pool()).is_empty
    archive.commit([Batch()])
    archive.commit([])


# -- metrics, journal, pruning --------------------------------------------------------------------------------


def test_load_gives_the_last_metrics_oldest_first(archive):
    """As many samples as the state keeps, the latest last."""
    samples = [
        Metrics(float(at), {"cpu_percent": at / 10, "cpu_percents": [1.0, 2.5]}) for at in range(1_000)
    ]
    archive.commit([Batch(metrics=samples)])
    assert archive.load().metrics == samples[-KEEP_METRICS:]


def test_the_curve_of_the_last_run_is_kept(archive, tasks):
    """One curve a task, the newest; none where none was stored."""
    first, second = tasks.make(1), tasks.make(2)
    archive.commit([tasks.batch(first, second, curves={first.task_id: b"one"})])
    assert (archive.curve(first.task_id), archive.curve(second.task_id)) == (b"one", None)
    archive.commit([tasks.batch(touched=[first], curves={first.task_id: b"two"})])
    assert archive.curve(first.task_id) == b"two"
    assert archive.curve("nobody") is None


def test_metrics_since_begins_with_the_moment_asked_for(archive):
    """Samples at or after the moment, in the order of time."""
    samples = [Metrics(at, {"load_1m": at}) for at in (1.0, 2.5, 2.5, 4.0)]
    archive.commit([Batch(metrics=samples)])
    assert archive.metrics_since(2.5) == samples[1:]
    assert archive.metrics_since(9.0) == []


def test_metrics_of_a_long_time_are_few(archive):
    """The means of spans since the moment, in the order of time."""
    archive.commit([Batch(metrics=[Metrics(float(at), {"load_1m": float(at)}) for at in range(30)])])
    assert archive.metrics_binned(10.0, 10.0) == [
        Metrics(15.0, {"load_1m": 14.5}),
        Metrics(25.0, {"load_1m": 24.5}),
    ]
    assert archive.metrics_binned(99.0, 10.0) == []


def test_the_journal_gives_the_last_facts_in_order(archive):
    """A limit that falls within a commit cuts it; one beyond the first gives all."""
    for start in (0, 3, 6):
        archive.commit([Batch(facts=[note(start), note(start + 1), note(start + 2)])])
    assert archive.journal(4) == [note(5), note(6), note(7), note(8)]
    assert archive.journal(100) == [note(number) for number in range(9)]
    assert archive.journal(0) == []


def test_the_journal_holds_no_opaque_bytes(archive, tasks):
    """Payloads and results have their own place, and what was submitted is in the task's own row."""
    task = tasks.make(1, payload=b"secret function")
    facts = [TaskSubmitted(1.0, task.request, 1), TaskCompleted(2.0, task.task_id, 1, value=b"secret result")]
    archive.commit([tasks.batch(task, facts=facts)])
    assert archive.journal(2) == [replace(facts[1], value=b"")]


def test_pruning_forgets_old_metrics_and_facts_bite_by_bite(archive):
    """Samples go after two days, facts after seven; it says when there is more to forget."""
    day = 86_400.0
    now = 100 * day
    old = [Metrics(now - 3 * day + at, {}) for at in range(4_001)]
    kept = [Metrics(now - 1 * day, {}), Metrics(now, {})]
    archive.commit([Batch(metrics=old + kept)])
    archive.commit([Batch(facts=[SystemNoted(now - 8 * day, "old", "")])])
    archive.commit([Batch(facts=[SystemNoted(now - 6 * day, "young", "")])])
    bites = 1
    while archive.prune(now):
        bites += 1
    assert bites == 3
    assert archive.load().metrics == kept
    assert [fact.event for fact in archive.journal(10)] == ["young"]


# -- connections ----------------------------------------------------------------------------------------------


def test_readers_see_what_was_committed_while_others_commit(archive, tasks):
    """Readers in many threads always see a whole commit and never fail."""
    faults = []
    ended = threading.Event()

    def read():
        while not ended.is_set():
            try:
                total = archive.find(TaskQuery(limit=1)).total
                if total % 10:
                    faults.append(total)
            except Exception as error:  # noqa: BLE001 - handed to the test
                faults.append(error)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for start in range(0, 400, 10):
        archive.commit([tasks.batch(*(tasks.make(start + place) for place in range(1, 11)))])
    ended.set()
    for thread in threads:
        thread.join()
    assert faults == []
    assert archive.find(TaskQuery()).total == 400


def test_readers_cannot_write(path):
    """A reading connection refuses to change anything."""
    archive = Archive.open(path)
    with archive._reader() as reader, pytest.raises(sqlite3.OperationalError, match="readonly"):
        reader.execute("DELETE FROM task")
    archive.close()


def test_a_closed_archive_says_so(path):
    """Whoever reads after the end is told so."""
    archive = Archive.open(path)
    archive.load()
    archive.close()
    with pytest.raises(KoubouError, match="closed"):
        archive.get("any")


def test_closing_leaves_one_file(path, tasks):
    """After a proper end everything is in the database itself."""
    archive = Archive.open(path)
    archive.commit([tasks.batch(tasks.make(1))])
    archive.load()
    archive.close()
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_every_commit_is_synced(path):
    """The writing connection is in WAL mode with full synchronisation."""
    archive = Archive.open(path)
    assert archive._writer.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert archive._writer.execute("PRAGMA synchronous").fetchone() == (2,)
    archive.close()


def test_a_statement_stays_below_sqlites_number_of_variables():
    """The largest statement binds fewer values than any SQLite since 3.32 takes."""
    assert batch_module.MOST_ROWS * batch_module._COLUMNS < 32_766


def test_text_is_refused_that_no_database_takes(archive, tasks):
    """Half a surrogate pair is no text: the commit fails as a whole, and the next one works."""
    with pytest.raises(UnicodeEncodeError):
        archive.commit([tasks.batch(tasks.make(1, name="\ud800"))])
    archive.commit([tasks.batch(tasks.make(1))])
    with pytest.raises(Refused):
        archive.find(TaskQuery(status="\ud800"))


def test_statuses_are_of_the_tasks_that_there_are(archive, tasks):
    """Several at once; an unknown id is left out."""
    first, second = tasks.make(1), tasks.make(2)
    archive.commit([tasks.batch(first, second)])
    archive.commit([tasks.batch(touched=[tasks.finish(first, 5.0)])])
    found = archive.statuses([first.task_id, second.task_id, "nonesuch"])
    assert found == {first.task_id: "completed", second.task_id: "pending"}
    assert archive.statuses([]) == {}
