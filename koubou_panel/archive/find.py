"""Questions about tasks, as SQL: newest first, page by page."""

from __future__ import annotations

import re
import sqlite3
from operator import itemgetter
from typing import NamedTuple

from koubou_panel.archive import rows
from koubou_panel.core.ports import TaskPage, TaskQuery
from koubou_panel.core.records import STATUSES
from koubou_panel.core.suggest import nearest, unknown
from koubou_panel.errors import Refused

MOST_TASKS = 1_000
TASK_COLUMNS = "task.ord, standing.status, standing.finished_at, task.request, standing.rest"
"""What `rows.task_of` reads."""

_ALL = (
    "SELECT (SELECT count(*) FROM standing), (SELECT min(ord) FROM standing), (SELECT max(ord) FROM standing)"
)
_place = itemgetter(0)
_CURSOR = re.compile(r"o([0-9a-f]{1,15})")


class _Selection(NamedTuple):
    """Which rows: `tables` in the order to walk them, `order` the column that leads, `where` over `values`."""

    tables: str
    order: str
    where: str
    values: list[object]


def find(reader: sqlite3.Connection, query: TaskQuery) -> TaskPage:
    """A page of tasks, without payloads. Of what is passed over, no more than an index is read.

    Raises:
        Refused: `invalid`, naming the field.
    """
    if not 1 <= query.limit <= MOST_TASKS:
        raise Refused("invalid", f"limit must be 1 to {MOST_TASKS}, not {query.limit}", field="limit")
    if not 0 <= query.offset < 2**63:
        raise Refused("invalid", "offset must be 0 or more", field="offset")
    before, offset = _before(query.cursor), query.offset
    tables, order, where, values = _selection(query)
    if where:
        count = f"SELECT count(*) FROM {tables} WHERE {where}"  # noqa: S608 - our own words; the asker's are bound
        (total,) = reader.execute(count, values).fetchone()
    else:
        total, first, last = reader.execute(_ALL).fetchone()
        if total and last - first + 1 == total:  # without a gap, what is passed over need not be walked
            before, offset = max(min(before, last + 1) - offset, 0), 0
    found = reader.execute(
        f"""SELECT {TASK_COLUMNS} FROM (
            SELECT {order} AS ord FROM {tables} WHERE {where or 1} AND {order} < ?
            ORDER BY {order} DESC LIMIT ? OFFSET ?
        ) AS page CROSS JOIN task ON task.ord = page.ord CROSS JOIN standing ON standing.ord = page.ord""",  # noqa: S608 - as above
        (*values, before, query.limit + 1, offset),
    ).fetchall()
    found.sort(key=_place, reverse=True)
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
    conditions: list[str] = []
    values: list[object] = []
    tables: list[str] = []
    if query.script is not None:
        tables.append("script_run")
        conditions.append("script_run.name = ?")
        values.append(query.script)
    if query.status is not None:
        tables.append("standing")
        conditions.append("standing.status = ?")
        values.append(_status_number(query.status))
    if query.kind is not None or query.text:
        tables.append("task")
    if query.kind is not None:
        conditions.append("task.kind = ?")
        values.append(query.kind)
    if query.text:
        conditions.append("instr(task.text, ?)")
        values.append(query.text.lower())
    lead, *others = tables or ["standing"]
    joined = [lead, *(f"CROSS JOIN {table} ON {table}.ord = {lead}.ord" for table in others)]
    return _Selection(" ".join(joined), f"{lead}.ord", " AND ".join(conditions), values)


def _status_number(status: str) -> int:
    for number, known in enumerate(STATUSES):
        if known == status:
            return number
    raise Refused(
        "invalid", unknown("status", status, STATUSES), field="status", nearest=nearest(status, STATUSES)
    )
