"""Questions about tasks, as SQL: newest first, page by page.

What an index knows leads the way: the runs of a script, a status, or when tasks ended and on which worker. Where that
leaves few tasks they are sorted; of many, the newest are met soon by walking back through all. Of a million tasks a
page takes 10 to 100 ms; for words that few or none have, all names are read: half a second to one.
"""

from __future__ import annotations

import re
import sqlite3
import time
from operator import itemgetter
from typing import NamedTuple

import msgspec
from msgspec import Struct

from koubou_panel.archive import rows
from koubou_panel.core.ports import TaskPage, TaskQuery
from koubou_panel.core.query import matches
from koubou_panel.core.records import STATUSES
from koubou_panel.core.suggest import nearest, unknown
from koubou_panel.errors import Refused

MOST_TASKS = 1_000
MOST_WORDS = 32
FEW = 50_000
"""Of so many it takes less to look at each and sort them than to walk back through all tasks: 60 ms."""
TASK_COLUMNS = "task.ord, standing.status, standing.finished_at, task.request, standing.rest"
"""What `rows.task_of` reads."""

_ALL = (
    "SELECT (SELECT count(*) FROM standing), (SELECT min(ord) FROM standing), (SELECT max(ord) FROM standing)"
)
_COUNTED_AT_ONCE = ("standing.status = ?", "script_run.name = ?")
_place = itemgetter(0)
_CURSOR = re.compile(r"o([0-9a-f]{1,15})")
_LAST = 2**63 - 1
_FOREVER = float(2**53)
_SLAB = 50_000  # places that are counted at once, between two looks at the clock
_SUBMITTED = "SELECT request FROM task WHERE ord >= ? ORDER BY ord LIMIT 1"
_ENDED = "SELECT ord FROM standing INDEXED BY standing_by_end"
_OPEN = (
    "SELECT ord FROM standing INDEXED BY standing_by_status WHERE status IN (0, 1) AND finished_at IS NULL"
)
_WITH_REASON = "status IN (3, 4)"
_NAME_OF = "substr(task.text, 1, instr(task.text, char(10)))"
_LABELS = rows.encode("labels")


class _Created(Struct):
    created_at: float


_created = msgspec.msgpack.Decoder(_Created).decode


class _Selection(NamedTuple):
    """Which rows: `tables` in the order to walk them, `column` the one that leads, `where` over `values`.

    None is at or above `before`. `is_few`: there are few to look at. `how_many` they are, where that is known.
    """

    tables: str
    column: str
    where: str
    values: list[object]
    before: int = _LAST
    is_few: bool = False
    how_many: int | None = None


def find(reader: sqlite3.Connection, query: TaskQuery) -> TaskPage:
    """A page of tasks, without payloads. Of what is passed over, no more than an index is read.

    Raises:
        Refused: `invalid`, naming the field.
    """
    _check(query)
    before, offset = _before(query.cursor), query.offset
    chosen = _selection(reader, query)
    where, is_counted = chosen.where, True
    if where or chosen.how_many is not None:
        total, is_counted = _count(reader, chosen, query.count_s)
        before = min(before, chosen.before)
    else:
        total, first, last = reader.execute(_ALL).fetchone()
        if total and last - first + 1 == total:  # without a gap, what is passed over need not be walked
            before, offset = max(min(before, last + 1) - offset, 0), 0
    order = chosen.column
    found = reader.execute(
        f"""SELECT {TASK_COLUMNS} FROM (
            SELECT {order} AS ord FROM {chosen.tables} WHERE {where or 1} AND {order} < ?
            ORDER BY {order} DESC LIMIT ? OFFSET ?
        ) AS page CROSS JOIN task ON task.ord = page.ord CROSS JOIN standing ON standing.ord = page.ord""",  # noqa: S608 - our own words; the asker's are bound
        (*chosen.values, before, query.limit + 1, offset),
    ).fetchall()
    found.sort(key=_place, reverse=True)
    page = [rows.task_of(row) for row in found[: query.limit]]
    cursor = f"o{page[-1].order:x}" if len(found) > query.limit else None
    if query.labels or query.worker is not None:  # sought as bytes, which may stand elsewhere in a record
        page = [task for task in page if matches(task, query)]
    return TaskPage(page, cursor, max(total, offset + len(page)) if not is_counted else total, is_counted)


def _check(query: TaskQuery) -> None:
    if not 1 <= query.limit <= MOST_TASKS:
        raise Refused("invalid", f"limit must be 1 to {MOST_TASKS}, not {query.limit}", field="limit")
    if not 0 <= query.offset < 2**63:
        raise Refused("invalid", "offset must be 0 or more", field="offset")
    if len(query.words) + len(query.labels) > MOST_WORDS:
        raise Refused("invalid", f"at most {MOST_WORDS} words and labels can be asked for", field="words")


def _count(reader: sqlite3.Connection, chosen: _Selection, count_s: float | None) -> tuple[int, bool]:
    """How many there are, and whether that is all of them: with `count_s` the older ones may be left out."""
    if chosen.how_many is not None:
        return chosen.how_many, True
    statement = f"SELECT count(*) FROM {chosen.tables} WHERE {chosen.where}"  # noqa: S608 - our own words
    if count_s is None or chosen.is_few:
        return int(reader.execute(statement, chosen.values).fetchone()[0]), True
    _, first, last = reader.execute(_ALL).fetchone()
    total, deadline, end = 0, time.monotonic() + count_s, (last or 0) + 1
    while end > (first or 1):
        begin = end - _SLAB
        piece = f"{statement} AND {chosen.column} >= ? AND {chosen.column} < ?"
        total += reader.execute(piece, (*chosen.values, begin, end)).fetchone()[0]
        end = begin
        if time.monotonic() > deadline and end > first:
            return total, False
    return total, True


def _before(cursor: str | None) -> int:
    if cursor is None:
        return _LAST
    shape = _CURSOR.fullmatch(cursor)
    if shape is None:
        raise Refused("invalid", "cursor must be one that an earlier page gave", field="cursor")
    return int(shape[1], 16)


def _selection(reader: sqlite3.Connection, query: TaskQuery) -> _Selection:
    """A script's runs lead the way, else what the span leaves if it is few, a status, or the order of submission."""
    status = None if query.status is None else _status_number(query.status)
    bounds = _bounds(reader, query)
    if query.script is None and (span := _span(query, status, bounds)) is not None:
        (few,) = reader.execute(f"SELECT count(*) FROM ({span.sql} LIMIT {FEW + 1})", span.values).fetchone()  # noqa: S608 - our own words
        if few <= FEW:
            found = _joined(query, f"({span.sql}) AS near", span.values, None, bounds)
        else:
            found = _joined(query, "", [], status, bounds)
            if span.is_whole:
                (few,) = reader.execute(f"SELECT count(*) FROM ({span.sql})", span.values).fetchone()  # noqa: S608 - as above
        return found._replace(how_many=few) if span.is_whole else found
    return _joined(query, "", [], status, bounds)


def _joined(
    query: TaskQuery, near: str, first: list[object], status: int | None, bounds: _Bounds
) -> _Selection:
    """The tables that are asked, and for what; `near` are few candidates, of the right time, worker and status."""
    standing, task = _of_standing(query, status, bounds, is_near=bool(near)), _of_task(query)
    tables = ["near"] if near else []
    conditions: list[_Condition] = []
    if query.script is not None:
        tables.append("script_run")
        conditions.append(_Condition("script_run.name = ?", [query.script]))
    tables += [name for name, asked in (("standing", standing), ("task", task)) if asked]
    conditions += [*standing, *task]
    lead, *others = tables or ["standing"]
    joined = [near or lead, *(f"CROSS JOIN {table} ON {table}.ord = {lead}.ord" for table in others)]
    where = " AND ".join(condition.sql for condition in conditions) or ("1" if near else "")
    values = [*first, *(value for condition in conditions for value in condition.values)]
    return _Selection(
        " ".join(joined),
        f"{lead}.ord",
        where,
        values,
        bounds.until,
        is_few=bool(near) or where in _COUNTED_AT_ONCE,
    )


class _Condition(NamedTuple):
    sql: str
    values: list[object]


class _Bounds(NamedTuple):
    """The places in the order of submission that two times are at."""

    since: int
    until: int


class _Span(NamedTuple):
    """The places of tasks by what an index knows; `is_whole`: nothing else is asked for."""

    sql: str
    values: list[object]
    is_whole: bool


def _span(query: TaskQuery, status: int | None, bounds: _Bounds) -> _Span | None:
    """The tasks that ended in a time, on a worker, or for a reason; and those of that time that have not ended."""
    has_time = query.since is not None or query.until is not None
    if not has_time and query.worker is None and query.reason is None:
        return None
    by_status = "" if status is None else f" AND status = {status:d}"
    by_worker = "" if query.worker is None else " AND worker = ?"
    worker = [] if query.worker is None else [query.worker]
    is_whole = not (query.reason or query.kind or query.text or query.words or query.name or query.labels)
    if not has_time and query.worker is None:
        reasoned = by_status.removeprefix(" AND ") or _WITH_REASON
        return _Span(f"SELECT ord FROM standing WHERE {reasoned}", [], is_whole)  # noqa: S608 - our own words
    if query.reason is not None and status is None:
        by_status = f" AND {_WITH_REASON}"
    asked = by_worker + by_status
    ended = f"{_ENDED} WHERE finished_at >= ? AND finished_at < ?{asked}"
    open_ = f"{_OPEN} AND ord >= ? AND ord < ?{asked}"
    since, until = query.since or 0.0, _FOREVER if query.until is None else query.until
    values = [since, until, *worker, bounds.since, bounds.until, *worker]
    return _Span(f"{ended} UNION ALL {open_}", values, is_whole)


def _of_standing(query: TaskQuery, status: int | None, bounds: _Bounds, *, is_near: bool) -> list[_Condition]:
    asked: list[_Condition] = []
    if status is not None:
        asked.append(_Condition("standing.status = ?", [status]))
    if query.reason is not None:
        word = rows.encode(query.reason)
        # In `rows.Standing`, behind the head of three bytes and the run's number of one byte, or of two or three.
        places = " OR ".join(f"substr(standing.rest, {place}, {len(word)}) = ?" for place in (5, 6, 7))
        asked.append(_Condition(f"+standing.{_WITH_REASON} AND ({places})", [word] * 3))
    if is_near:
        return asked
    if query.worker is not None:  # its column stands behind large results
        asked.append(_Condition("instr(standing.rest, ?)", [rows.encode(query.worker)]))
    if query.since is not None:
        within = "(standing.finished_at >= ? OR (standing.finished_at IS NULL AND standing.ord >= ?))"
        asked.append(_Condition(within, [query.since, bounds.since]))
    if query.until is not None:
        within = "(standing.finished_at < ? OR standing.finished_at IS NULL)"
        asked.append(_Condition(within, [query.until]))
    return asked


def _of_task(query: TaskQuery) -> list[_Condition]:
    asked: list[_Condition] = []
    if query.kind is not None:
        asked.append(_Condition("task.kind = ?", [query.kind]))
    if query.name:
        asked.append(_Condition(f"instr({_NAME_OF}, ?)", [query.name.lower()]))
    words = [word.lower() for word in (query.text, *query.words) if word]
    asked += [_Condition("instr(task.text, ?)", [word]) for word in words]
    for key, value in query.labels:
        pair = rows.encode(key) + (b"" if value is None else rows.encode(value))
        asked.append(_Condition("instr(task.request, ?) AND instr(task.request, ?)", [pair, _LABELS]))
        asked.append(_Condition("instr(substr(task.request, instr(task.request, ?)), ?)", [_LABELS, pair]))
    return asked


def _bounds(reader: sqlite3.Connection, query: TaskQuery) -> _Bounds:
    since = 0 if query.since is None else _place_of(reader, query.since)
    return _Bounds(since, _LAST if query.until is None else _place_of(reader, query.until))


def _place_of(reader: sqlite3.Connection, at: float) -> int:
    """The place of the first task that was submitted at `at` or later: the later a task's place, the later it came."""
    _, low, high = reader.execute(_ALL).fetchone()
    low, high = low or 0, (high or 0) + 1
    while low < high:
        middle = (low + high) // 2
        found = reader.execute(_SUBMITTED, (middle,)).fetchone()
        if found is not None and _created(found[0]).created_at < at:
            low = middle + 1
        else:
            high = middle
    return int(low)


def _status_number(status: str) -> int:
    for number, known in enumerate(STATUSES):
        if known == status:
            return number
    raise Refused(
        "invalid", unknown("status", status, STATUSES), field="status", nearest=nearest(status, STATUSES)
    )
