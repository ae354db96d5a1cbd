"""Questions about the runs of scripts, as SQL."""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

from koubou_panel.core.records import FINISHED, STATUSES, TaskId

_ENDED = ",".join(str(number) for number, status in enumerate(STATUSES) if status in FINISHED)


class EndedRun(NamedTuple):
    """A run of a script that has ended, by its place in the order of all tasks."""

    order: int
    task_id: TaskId
    finished_at: float


def last_fire(reader: sqlite3.Connection, name: str) -> float | None:
    """The latest due time that had a run of the script `name`, though it may have been removed since."""
    (at,) = reader.execute(
        "SELECT max(fire_at) FROM script_run WHERE name = ? AND fire_at IS NOT NULL", (name,)
    ).fetchone()
    return None if at is None else float(at)


def has_fired(reader: sqlite3.Connection, name: str, fire_at: float) -> bool:
    """Whether that due time of the script `name` had its run."""
    found = reader.execute("SELECT 1 FROM script_run WHERE name = ? AND fire_at = ?", (name, fire_at))
    return found.fetchone() is not None


def ended_runs(reader: sqlite3.Connection, name: str, above: int) -> list[EndedRun]:
    """The runs of the script `name` that have ended, newest first, of those that are above `above` in the order."""
    found = reader.execute(
        "SELECT task.ord, task.task_id, standing.finished_at FROM script_run "  # noqa: S608 - numbers of our own
        "CROSS JOIN standing ON standing.ord = script_run.ord CROSS JOIN task ON task.ord = script_run.ord "
        f"WHERE script_run.name = ? AND script_run.ord > ? AND standing.status IN ({_ENDED}) "
        "ORDER BY script_run.ord DESC",
        (name, above),
    )
    return [EndedRun(order, TaskId(task_id), finished_at or 0.0) for order, task_id, finished_at in found]


def first_unended(reader: sqlite3.Connection, name: str, above: int) -> int | None:
    """The first run of the script `name` above `above` in the order that has not ended."""
    (order,) = reader.execute(
        "SELECT min(script_run.ord) FROM script_run CROSS JOIN standing ON standing.ord = script_run.ord "  # noqa: S608 - as above
        f"WHERE script_run.name = ? AND script_run.ord > ? AND standing.status NOT IN ({_ENDED})",
        (name, above),
    ).fetchone()
    return None if order is None else int(order)
