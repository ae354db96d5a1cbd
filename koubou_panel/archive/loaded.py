"""What a workshop begins with, read in one look at the database."""

from __future__ import annotations

import sqlite3

from msgspec import Struct

from koubou_panel.archive import rows
from koubou_panel.core.records import STATUSES, Metrics, Pool, Status, Task, TaskId
from koubou_panel.core.script import Entry
from koubou_panel.core.state import KEEP_FINISHED, KEEP_METRICS

_UNFINISHED = (STATUSES.index("pending"), STATUSES.index("in_progress"))

_EXECUTIONS = """SELECT count(*) FROM script_run CROSS JOIN standing ON standing.ord = script_run.ord
    WHERE standing.status NOT IN (?, ?)"""


class Loaded(Struct):
    """What a workshop begins with.

    `unfinished` by order of submission, with payloads; `finished` the last by their end, oldest first; `counts`
    every status; `order` the last place given; `worker_totals` (completed, failed); `keys` the task of each
    idempotency key, as it is kept; `metrics` the last samples, oldest first; `scripts` the catalogue; `executions` how
    many runs of scripts have ended.
    """

    unfinished: list[Task]
    finished: list[Task]
    counts: dict[Status, int]
    order: int
    worker_totals: tuple[int, int]
    pool: Pool | None
    keys: dict[str, TaskId]
    metrics: list[Metrics]
    scripts: list[Entry] = []
    executions: int = 0


def load(reader: sqlite3.Connection) -> Loaded:
    """All of `Loaded`, as of one moment."""
    reader.execute("BEGIN")
    try:
        counts = dict.fromkeys(STATUSES, 0)
        for number, count in reader.execute("SELECT status, count(*) FROM standing GROUP BY status"):
            counts[STATUSES[number]] = count
        (order,) = reader.execute("SELECT coalesce(max(ord), 0) FROM task").fetchone()
        pool = reader.execute("SELECT record FROM pool").fetchone()
        keys = reader.execute(
            "SELECT idempotency_key, task_id FROM task WHERE idempotency_key IS NOT NULL"
        ).fetchall()
        metrics = reader.execute(
            "SELECT sample FROM metrics ORDER BY number DESC LIMIT ?", (KEEP_METRICS,)
        ).fetchall()
        return Loaded(
            unfinished=_unfinished(reader),
            finished=_finished(reader),
            counts=counts,
            order=order,
            worker_totals=(counts["completed"], counts["failed"]),
            pool=None if pool is None else rows.pool_of(pool[0]),
            keys=dict(keys),
            metrics=[rows.metrics_of(sample) for (sample,) in reversed(metrics)],
            scripts=[
                rows.entry_of(blob) for (blob,) in reader.execute("SELECT record FROM script").fetchall()
            ],
            executions=reader.execute(_EXECUTIONS, _UNFINISHED).fetchone()[0],
        )
    finally:
        reader.execute("ROLLBACK")


def _unfinished(reader: sqlite3.Connection) -> list[Task]:
    found = reader.execute(
        """SELECT standing.ord, standing.status, standing.finished_at, task.request, standing.rest, task.payload
        FROM standing CROSS JOIN task ON task.ord = standing.ord
        WHERE standing.status IN (?, ?) ORDER BY standing.ord""",
        _UNFINISHED,
    )
    return [rows.task_of(row[:5], row[5]) for row in found.fetchall()]


def _finished(reader: sqlite3.Connection) -> list[Task]:
    found = reader.execute(
        """SELECT standing.ord, standing.status, standing.finished_at, task.request, standing.rest
        FROM standing CROSS JOIN task ON task.ord = standing.ord
        WHERE standing.finished_at IS NOT NULL
        ORDER BY standing.finished_at DESC, standing.ord DESC LIMIT ?""",
        (KEEP_FINISHED,),
    )
    return [rows.task_of(row) for row in reversed(found.fetchall())]
