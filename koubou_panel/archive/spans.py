"""Which runs stood on which worker between two moments, as SQL: each by itself, or short ones added up.

What is counted and added is read from an index alone (`standing_by_end`), about a million runs a second.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from math import isfinite

import msgspec
from msgspec import Struct

from koubou_panel.core.ports import MOST_SPANS, RunSpan, RunSpans
from koubou_panel.core.records import STATUSES, TaskId, WorkerId
from koubou_panel.errors import Refused

LABEL = 80
MOST_BINS = 480
_KINDS_OF_CELL = 4  # the three ends, and a run that is longer than a bin

_IN = """FROM standing INDEXED BY standing_by_end
    WHERE finished_at >= :start AND started_at < :end AND worker IS NOT NULL"""
_COUNT = f"SELECT count(*) {_IN}"
_WORKERS = f"SELECT count(DISTINCT worker) {_IN}"
_EACH = f"""SELECT run.worker, run.started_at, run.finished_at, run.status, task.request
    FROM (SELECT ord, worker, started_at, finished_at, status {_IN} {{more}} LIMIT :most) AS run
    CROSS JOIN task ON task.ord = run.ord"""  # noqa: S608
_LONG = "AND finished_at - started_at >= :bin"
_ADDED = f"""SELECT worker, status, min(started_at), max(finished_at), count(*), sum(finished_at - started_at)
    {_IN} AND finished_at - started_at < :bin
    GROUP BY worker, CAST(started_at / :bin AS INTEGER), status LIMIT :most"""


class _Asked(Struct, gc=False):
    """What a request is called: the other fields are passed over."""

    task_id: TaskId
    kind: str
    name: str = ""
    summary: str = ""


_ASKED = msgspec.msgpack.Decoder(_Asked)


def spans(reader: sqlite3.Connection, start: float, end: float, most: int = MOST_SPANS) -> RunSpans:
    """The runs that ended after `start` and began before `end`; see `core.ports.Shop.spans`.

    Raises:
        Refused: `invalid`, naming the field.
    """
    if not (isfinite(start) and isfinite(end) and start < end):
        raise Refused("invalid", "start and end must be UTC seconds, start the earlier", field="start")
    if not 1 <= most <= MOST_SPANS:
        raise Refused("invalid", f"most must be 1 to {MOST_SPANS}, not {most}", field="most")
    asked: dict[str, float] = {"start": start, "end": end, "most": most}
    (count,) = reader.execute(_COUNT, asked).fetchone()
    if count <= most:
        return RunSpans(list(_each(reader, "", asked)))
    asked["bin"] = bin_s = _bin_s(reader, asked)
    found = list(_each(reader, _LONG, asked))
    asked["most"] = most - len(found)
    found += _added(reader, asked)
    return RunSpans(found, bin_s)


def _bin_s(reader: sqlite3.Connection, asked: dict[str, float]) -> float:
    """So long that no more cells can come of it than were asked for: a worker does one thing at a time."""
    (workers,) = reader.execute(_WORKERS, asked).fetchone()
    bins: int = max(1, min(MOST_BINS, int(asked["most"]) // (_KINDS_OF_CELL * max(1, workers)) - 2))
    return (asked["end"] - asked["start"]) / bins


def _each(reader: sqlite3.Connection, more: str, asked: dict[str, float]) -> Iterator[RunSpan]:
    for worker, start, end, status, request in reader.execute(_EACH.format(more=more), asked):
        known = _ASKED.decode(request)
        label = (known.name or known.summary or known.kind)[:LABEL]
        yield RunSpan(WorkerId(worker), start, end, STATUSES[status], known.task_id, label, 1, end - start)


def _added(reader: sqlite3.Connection, asked: dict[str, float]) -> Iterator[RunSpan]:
    for worker, status, start, end, count, busy_s in reader.execute(_ADDED, asked):
        yield RunSpan(WorkerId(worker), start, end, STATUSES[status], TaskId(""), "", count, busy_s)
