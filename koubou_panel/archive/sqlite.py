"""The workshop's database: one connection that writes, a few that read.

Every commit is a single statement in a transaction of its own, synced before it returns (`synchronous=FULL`).
Only the writing connection checkpoints: SQLite up to 3.51.2 may lose a reset of the log when two do.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from itertools import chain
from pathlib import Path
from threading import Lock

import msgspec

from koubou_panel.archive import rows, runs, schema, spans
from koubou_panel.archive.batch import MOST_ROWS, Batch, inbox_rows, insert
from koubou_panel.archive.find import TASK_COLUMNS, find
from koubou_panel.archive.loaded import Loaded, load
from koubou_panel.archive.schema import HomeRefused
from koubou_panel.core.bins import binned
from koubou_panel.core.codec import decode_events
from koubou_panel.core.events import Fact
from koubou_panel.core.ports import RunSpans, TaskPage, TaskQuery
from koubou_panel.core.records import STATUSES, Metrics, Status, Task, TaskId
from koubou_panel.errors import KoubouError

KEEP_METRICS_S = 48 * 3600.0
KEEP_JOURNAL_S = 7 * 24 * 3600.0
PRUNE_ROWS = 2_000

# A checkpoint is the longest thing a commit can wait for: with 1,000 pages (4 MB) 13 ms, with 4,000 31 ms, with 16,000
# 78 ms, measured at 128 tasks a commit; commits a second were the same.
_CHECKPOINT_PAGES = 1_000
_WAL_BYTES = 64 * 1024 * 1024
_CACHE_KIB = 16 * 1024


class Archive:
    """A database in use. `commit` is for one thread at a time, the rest for any."""

    def __init__(self, writer: sqlite3.Connection, path: Path | None) -> None:
        """Made by `open`; `path` None is a database in memory, whose readers share the writer's connection."""
        self.path = path
        self._writer = writer
        self._write_lock = Lock()
        self._idle: list[sqlite3.Connection] = []
        self._pool_lock = Lock()
        self._is_closed = False

    @classmethod
    def open(cls, path: Path | None) -> Archive:
        """The database at `path`, made if there is none; None for one in memory.

        Raises:
            HomeRefused: it is damaged, not ours, or of a newer version; it was not touched.
        """
        if path is None:
            writer = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        else:
            if path.exists():
                schema.examine(path)
            else:
                schema.create(path)
            writer = schema.connect(path, writes=True)
        try:
            _set_up(writer)
            with nullcontext() if path is None else schema.refusing_damage(path):
                schema.migrate(writer)
        except BaseException:
            writer.close()
            raise
        return cls(writer, path)

    def close(self) -> None:
        """Let the file go. Readers that are at work must have ended."""
        with self._pool_lock:
            self._is_closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()
        with self._write_lock:
            self._writer.close()

    # -- writing ----------------------------------------------------------------------------------------------

    def commit(self, batches: Sequence[Batch]) -> None:
        """Store all of `batches`, durably and together.

        Raises:
            sqlite3.Error: nothing of it was stored; the archive can be used again.
        """
        found = list(inbox_rows(batches))
        if not found:
            return
        with self._write_lock:
            if len(found) <= MOST_ROWS:
                insert(self._writer, found)
                return
            with _transaction(self._writer):
                for start in range(0, len(found), MOST_ROWS):
                    insert(self._writer, found[start : start + MOST_ROWS])

    def prune(self, now: float) -> bool:
        """Forget some of what is too old at `now`, briefly; whether there may be more of it."""
        with self._write_lock, _transaction(self._writer):
            pruned = [
                _prune(self._writer, "metrics", now - KEEP_METRICS_S),
                _prune(self._writer, "journal", now - KEEP_JOURNAL_S),
            ]
        return max(pruned) == PRUNE_ROWS

    # -- reading ----------------------------------------------------------------------------------------------

    def load(self) -> Loaded:
        """What a workshop begins with.

        Raises:
            HomeRefused: a record or a page of the database is damaged.
        """
        damage = nullcontext() if self.path is None else schema.refusing_damage(self.path)
        with damage, self._reader() as reader:
            return load(reader)

    def find(self, query: TaskQuery) -> TaskPage:
        """A page of tasks, without payloads.

        Raises:
            Refused: `invalid`, naming the field.
        """
        with self._reader() as reader:
            return find(reader, query)

    def has_fired(self, name: str, fire_at: float) -> bool:
        """Whether that due time of the script `name` had its run, though it may have been removed since."""
        with self._reader() as reader:
            return runs.has_fired(reader, name, fire_at)

    def last_fire(self, name: str) -> float | None:
        """The latest due time that had a run of the script `name`, though it may have been removed since."""
        with self._reader() as reader:
            return runs.last_fire(reader, name)

    def ended_runs(self, name: str, above: int) -> tuple[list[runs.EndedRun], int | None]:
        """The ended runs of a script above `above` in the order, newest first; and the first that has not ended."""
        with self._reader() as reader:
            # In this order: what ends in between is in both.
            unended = runs.first_unended(reader, name, above)
            return runs.ended_runs(reader, name, above), unended

    def get(self, task_id: TaskId) -> Task | None:
        """The task of that id, without its payload."""
        with self._reader() as reader:
            row = reader.execute(_TASK, (task_id,)).fetchone()
        return None if row is None else rows.task_of(row)

    def statuses(self, task_ids: Sequence[TaskId]) -> dict[TaskId, Status]:
        """The statuses of those tasks that there are."""
        wanted = msgspec.json.encode(list(task_ids)).decode()
        with self._reader() as reader:
            return {task_id: STATUSES[number] for task_id, number in reader.execute(_STATUSES, (wanted,))}

    def payload(self, task_id: TaskId) -> bytes:
        """What was submitted with a task; empty where there is none."""
        with self._reader() as reader:
            row = reader.execute("SELECT payload FROM task WHERE task_id = ?", (task_id,)).fetchone()
        return (row and row[0]) or b""

    def values(self, task_ids: Sequence[TaskId]) -> list[bytes]:
        """The results of tasks, in that order; empty where there is none."""
        wanted = msgspec.json.encode(list(task_ids)).decode()
        with self._reader() as reader:
            found: dict[str, bytes] = dict(reader.execute(_VALUES, (wanted,)))
        return [found.get(task_id) or b"" for task_id in task_ids]

    def curve(self, task_id: TaskId) -> bytes | None:
        """What a task's last run used, as it was encoded; None where nothing was stored."""
        with self._reader() as reader:
            row = reader.execute(_CURVE, (task_id,)).fetchone()
        return None if row is None else bytes(row[0])

    def spans(self, start: float, end: float, most: int) -> RunSpans:
        """The runs that ended between two UTC seconds, or stood over them.

        Raises:
            Refused: `invalid`, naming the field.
        """
        with self._reader() as reader:
            return spans.spans(reader, start, end, most)

    def metrics_since(self, at: float) -> list[Metrics]:
        """Samples of the host since the UTC second `at`, oldest first."""
        with self._reader() as reader:
            found = reader.execute("SELECT sample FROM metrics WHERE at >= ? ORDER BY at, number", (at,))
            return [rows.metrics_of(sample) for (sample,) in found.fetchall()]

    def metrics_binned(self, at: float, step_s: float) -> list[Metrics]:
        """The host since the UTC second `at`, in spans of `step_s` seconds; see `core.bins`."""
        with self._reader() as reader:
            found = reader.execute("SELECT sample FROM metrics WHERE at >= ? ORDER BY at, number", (at,))
            return list(binned((rows.metrics_of(sample) for (sample,) in found), step_s))

    def journal(self, limit: int) -> list[Fact]:
        """The last `limit` facts, oldest first."""
        found: list[list[Fact]] = []
        missing = limit
        with self._reader() as reader:
            newest_first = reader.execute("SELECT facts FROM journal ORDER BY number DESC")
            while missing > 0 and (row := newest_first.fetchone()) is not None:
                facts: list[Fact] = decode_events(row[0])  # type: ignore[assignment]
                found.append(facts[-missing:])
                missing -= len(facts)
            newest_first.close()
        return list(chain.from_iterable(reversed(found)))

    @contextmanager
    def _reader(self) -> Iterator[sqlite3.Connection]:
        """A connection that no other thread uses meanwhile."""
        if self.path is None:
            with self._write_lock:
                yield self._writer
            return
        connection = self._lend() or schema.connect(self.path, writes=False)
        try:
            yield connection
        finally:
            self._take_back(connection)

    def _lend(self) -> sqlite3.Connection | None:
        with self._pool_lock:
            if self._is_closed:
                raise KoubouError("the workshop's database is closed")
            return self._idle.pop() if self._idle else None

    def _take_back(self, connection: sqlite3.Connection) -> None:
        with self._pool_lock:
            if not self._is_closed:
                self._idle.append(connection)
                return
        connection.close()


_TASK = f"""SELECT {TASK_COLUMNS} FROM task CROSS JOIN standing ON standing.ord = task.ord
    WHERE task.task_id = ?"""  # noqa: S608 - our own words only
_STATUSES = """SELECT task.task_id, standing.status FROM task JOIN standing ON standing.ord = task.ord
    WHERE task.task_id IN (SELECT value FROM json_each(?))"""
_CURVE = "SELECT curve.points FROM task JOIN curve ON curve.ord = task.ord WHERE task.task_id = ?"
_VALUES = """SELECT task.task_id, standing.value FROM task JOIN standing ON standing.ord = task.ord
    WHERE task.task_id IN (SELECT value FROM json_each(?))"""


def _set_up(writer: sqlite3.Connection) -> None:
    writer.execute("PRAGMA journal_mode = WAL")
    writer.execute("PRAGMA synchronous = FULL")
    writer.execute("PRAGMA fullfsync = 1")  # macOS alone: its fsync stops at the drive's own cache
    writer.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
    writer.execute(f"PRAGMA journal_size_limit = {_WAL_BYTES}")
    writer.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")


@contextmanager
def _transaction(writer: sqlite3.Connection) -> Iterator[None]:
    writer.execute("BEGIN IMMEDIATE")
    try:
        yield
        writer.execute("COMMIT")
    except BaseException:
        if writer.in_transaction:  # a full disk may have rolled it back already
            writer.execute("ROLLBACK")
        raise


_PRUNED = {
    table: (
        f"SELECT number, at FROM {table} ORDER BY number LIMIT {PRUNE_ROWS}",  # noqa: S608 - our own words only
        f"DELETE FROM {table} WHERE number <= ?",  # noqa: S608 - our own words only
    )
    for table in ("metrics", "journal")
}


def _prune(writer: sqlite3.Connection, table: str, before: float) -> int:
    """Delete the oldest rows up to the last of them that is older than `before`; how many, at most PRUNE_ROWS."""
    oldest, delete = _PRUNED[table]
    numbers = [number for number, at in writer.execute(oldest).fetchall() if at < before]
    if numbers:
        writer.execute(delete, (numbers[-1],))
    return len(numbers)


__all__ = ["Archive", "Batch", "HomeRefused", "Loaded"]
