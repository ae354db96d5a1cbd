"""What a commit is made of, and the one statement that stores it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import chain

from msgspec import Struct

from koubou_panel.archive import rows
from koubou_panel.core.codec import encode_events, without_bytes
from koubou_panel.core.events import Fact, TaskSubmitted
from koubou_panel.core.keys import kept_key
from koubou_panel.core.query import searched_text
from koubou_panel.core.records import Metrics, Pool, Request, Task, TaskId
from koubou_panel.core.script import Entry

# A statement for every number of rows would be prepared anew each time, so numbers are rounded up to these and
# the rest is filled with NULL. The largest times the columns stays below SQLite's 32,766 variables.
_ROW_COUNTS = (1, 2, 4, 8, 16, 32, 64, 96, 128, 192, 256, 384, 512, 768, 1_024, 1_536, 2_048)
_COLUMNS = 13
# What stands for NULL. The sqlite3 module asks every object that is no int, float, str or bytearray how it would be
# adapted, under the interpreter's lock: that was a third of a commit's whole cost.
NOTHING = -1
_FEW_BYTES = 1 << 16
_EMPTY_ROW = (NOTHING,) * _COLUMNS
_LAST = (NOTHING,) * 3  # value, worker, started_at

MOST_ROWS = _ROW_COUNTS[-1]

Row = tuple[object, ...]


class Batch(Struct):
    """What one step of the workshop wants stored, at once or not at all.

    `tasks` has the last record of each task touched; those in `new` are stored for the first time, with their
    `payloads`. `values` are results by task, `curves` what its last run used by task (encoded; it is in `tasks` too),
    `facts` goes to the journal. `scripts` has the last standing of each script touched (None: removed), `script_runs`
    the script and due time of each new task that is a run of one. `prune_before` is for the writer: the
    present moment, from which it forgets what is too old.
    """

    tasks: dict[TaskId, Task] = {}
    new: set[TaskId] = set()
    payloads: dict[TaskId, bytes] = {}
    values: dict[TaskId, bytes] = {}
    curves: dict[TaskId, bytes] = {}
    facts: list[Fact] = []
    pool: Pool | None = None
    metrics: list[Metrics] = []
    scripts: dict[str, Entry | None] = {}
    script_runs: dict[TaskId, tuple[str, float | None]] = {}
    prune_before: float | None = None

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to store."""
        return not (self.tasks or self.facts or self.metrics or self.pool or self.scripts)


def insert(writer: sqlite3.Connection, found: Sequence[Row]) -> None:
    """Store at most MOST_ROWS rows by one statement."""
    count = next(count for count in _ROW_COUNTS if count >= len(found))
    filled = chain(found, [_EMPTY_ROW] * (count - len(found)))
    writer.execute(_statement(count), list(chain.from_iterable(filled)))


@cache
def _statement(count: int) -> str:
    row = f"({','.join('?' * _COLUMNS)})"
    table = ",".join([row] * count)
    columns = ",".join(f"nullif(column{number}, {NOTHING})" for number in range(1, _COLUMNS + 1))
    return f"INSERT INTO inbox SELECT {columns} FROM (VALUES {table}) WHERE column1 <> {NOTHING}"  # noqa: S608 - marks and numbers only


def inbox_rows(batches: Sequence[Batch]) -> Iterator[Row]:
    """The rows of one commit: a task that many batches touch is one, a journal entry is one."""
    tasks: dict[TaskId, Task] = {}
    born: dict[TaskId, tuple[Request, bytes]] = {}
    values: dict[TaskId, bytes] = {}
    facts: list[Fact] = []
    pool: Pool | None = None
    scripts: dict[str, Entry | None] = {}
    for batch in batches:
        tasks.update(batch.tasks)
        values.update(batch.values)
        facts += batch.facts
        pool = batch.pool or pool
        scripts.update(batch.scripts)
        for task_id in batch.new:
            request = batch.tasks[task_id].request
            born[task_id] = (request, batch.payloads.get(task_id) or request.payload)
        for metrics in batch.metrics:
            yield _entry("metrics", metrics.at, rows.encode(metrics))
        for task_id, curve in batch.curves.items():
            yield _entry("curve", NOTHING, curve, batch.tasks[task_id].order)
        for task_id, (name, fire_at) in batch.script_runs.items():
            due = NOTHING if fire_at is None else fire_at
            yield _named("script_run", name, due, number=batch.tasks[task_id].order)
    for task_id, task in tasks.items():
        yield _task_row(task, born.get(task_id), values.get(task_id))
    # What was submitted is in the task's own row, for good.
    told = [without_bytes(fact) for fact in facts if type(fact) is not TaskSubmitted]
    if told:
        yield _entry("journal", told[-1].at, encode_events(told))
    for name, entry in scripts.items():
        yield _named("script", name, NOTHING, blob=b"" if entry is None else rows.encode(entry))
    if pool is not None:
        yield _entry("pool", 0.0, rows.encode(pool))


def _entry(kind: str, at: float, blob: bytes, number: int = NOTHING) -> Row:
    return (0, NOTHING, kind, NOTHING, NOTHING, NOTHING, NOTHING, number, at, _bound(blob), *_LAST)


def _named(kind: str, name: str, at: float, *, blob: bytes = b"", number: int = NOTHING) -> Row:
    """A row about a script; without a blob there is nothing more of it."""
    held = _bound(blob) if blob else NOTHING
    return (0, NOTHING, kind, NOTHING, name, NOTHING, NOTHING, number, at, held, *_LAST)


def _task_row(task: Task, born: tuple[Request, bytes] | None, value: bytes | None) -> Row:
    standing = (
        rows.STATUS_NUMBERS[task.status],
        NOTHING if task.finished_at is None else task.finished_at,
        _bound(rows.standing_blob(task)),
        _bound(value) if value else NOTHING,
        NOTHING if task.worker_id is None else task.worker_id,
        NOTHING if task.started_at is None else task.started_at,
    )
    if born is None:
        return (task.order, NOTHING, NOTHING, NOTHING, NOTHING, NOTHING, NOTHING, *standing)
    request, payload = born
    return (
        task.order,
        request.task_id,
        request.kind,
        NOTHING if (key := kept_key(request)) is None else key,
        searched_text(request),
        _bound(rows.request_blob(request)),
        _bound(payload) if payload else NOTHING,
        *standing,
    )


def _bound(blob: bytes) -> bytes | bytearray:
    return bytearray(blob) if len(blob) <= _FEW_BYTES else blob
