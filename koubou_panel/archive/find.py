"""Questions about tasks, as SQL: newest first, page by page."""

from __future__ import annotations

import re
import sqlite3
from typing import NamedTuple

from koubou_panel.archive import rows
from koubou_panel.core.ports import TaskPage, TaskQuery
from koubou_panel.core.records import STATUSES
from koubou_panel.core.suggest import nearest, unknown
from koubou_panel.errors import Refused

MOST_TASKS = 1_000
TASK_COLUMNS = "task.ord, standing.status, standing.finished_at, task.request, standing.rest"
"""What `rows.task_of` reads."""

_CURSOR = re.compile(r"o([0-9a-f]{1,15})")


class _Selection(NamedTuple):
    """Which rows: `tables` in the order to walk them, `order` the column that leads, `where` over `values`."""

    tables: str
    order: str
    where: str
    values: list[object]


def find(reader: sqlite3.Connection, query: TaskQuery) -> TaskPage:
    """A page of tasks, without payloads.

    Raises:
        Refused: `invalid`, naming the field.
    """
    if not 1 <= query.limit <= MOST_TASKS:
        raise Refused("invalid", f"limit must be 1 to {MOST_TASKS}, not {query.limit}", field="limit")
    if not 0 <= query.offset < 2**63:
        raise Refused("invalid", "offset must be 0 or more", field="offset")
    before = _before(query.cursor)
    tables, order, where, values = _selection(query)
    found = reader.execute(
        f"SELECT {TASK_COLUMNS} FROM {tables} WHERE {where} AND {order} < ? ORDER BY {order} DESC LIMIT ? OFFSET ?",  # noqa: S608 - our own words; the asker's are bound
        (*values, before, query.limit + 1, query.offset),
    ).fetchall()
    count = f"SELECT count(*) FROM {_counted(query, tables)} WHERE {where}"  # noqa: S608 - as above
    (total,) = reader.execute(count, values).fetchone()
    page = [rows.task_of(row) for row in found[: query.limit]]
    cursor = f"o{page[-1].order:x}" if len(found) > query.limit else None
    return TaskPage(page, cursor, total)


def _before(cursor: str | None) -> int:
    if cursor is None:
        return 2**63 - 1
    shape = _CURSOR.fullmatch(cursor)
    if shape is None:
        raise Refused("invalid", "cursor must be one that an earlier page gave", field="cursor")
    return int(shape[1], 16)


def _selection(query: TaskQuery) -> _Selection:
    """With a script its runs lead the way, with a status its index, else the order of submission."""
    conditions = ["1"]
    values: list[object] = []
    tables, order = "task CROSS JOIN standing ON standing.ord = task.ord", "task.ord"
    if query.status is not None:
        tables, order = "standing CROSS JOIN task ON task.ord = standing.ord", "standing.ord"
        conditions.append("standing.status = ?")
        values.append(_status_number(query.status))
    if query.script is not None:
        tables = (
            "script_run CROSS JOIN task ON task.ord = script_run.ord "
            "CROSS JOIN standing ON standing.ord = task.ord"
        )
        order = "script_run.ord"
        conditions.append("script_run.name = ?")
        values.append(query.script)
    if query.kind is not None:
        conditions.append("task.kind = ?")
        values.append(query.kind)
    if query.text:
        conditions.append("instr(task.text, ?)")
        values.append(query.text.lower())
    return _Selection(tables, order, " AND ".join(conditions), values)


def _counted(query: TaskQuery, tables: str) -> str:
    """The tables to count in: one is enough where it has all that is asked about."""
    if query.script is not None:
        return tables
    if query.kind is None and not query.text:
        return "standing"
    return "task" if query.status is None else tables


def _status_number(status: str) -> int:
    for number, known in enumerate(STATUSES):
        if known == status:
            return number
    raise Refused(
        "invalid", unknown("status", status, STATUSES), field="status", nearest=nearest(status, STATUSES)
    )
