"""A snapshot: a workshop's tasks, workers and samples of the host as one document of plain JSON values.

`koubou export` and `Workshop.snapshot` both write this one.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable, Sequence
from datetime import date, datetime, time, timedelta
from importlib.metadata import version
from numbers import Real
from typing import Literal, TypeVar

import msgspec

from koubou_panel.core.ports import Shop, TaskQuery
from koubou_panel.core.quantity import span_s
from koubou_panel.core.records import Metrics, Task, TaskId
from koubou_panel.core.state import Snapshot
from koubou_panel.wire.records import iso, pool_record, task_record, worker_record

PAGE_TASKS = 1_000
PIECE = 100
What = Literal["metrics", "tasks", "all"]
_Item = TypeVar("_Item")
_Values = TypeVar("_Values")

_SPAN = re.compile(r"(?:\d{1,9}(?:\.\d{1,6})?[smhdw])+", re.IGNORECASE | re.ASCII)


def since_of(value: str | float | date | timedelta | None, now: float) -> float | None:
    """The UTC second that `value` means: one, a date, a span before `now`, or a text such as `15m` or `2026-01-31`.

    A date without a time is its midnight; one without a zone is of this machine.

    Raises:
        TypeError: none of these.
        ValueError: a text that is neither a span nor a date, or a moment that no calendar has.
    """
    if value is None:
        return None
    moment = _read(value.strip(), now) if isinstance(value, str) else value
    try:
        at = _second_of(moment, now)
        iso(at)
    except (OverflowError, OSError, ValueError):
        raise ValueError(f"since: no calendar has {value!r:.80}") from None
    return at


def _read(text: str, now: float) -> float | datetime:
    return now - span_s(text) if _SPAN.fullmatch(text) else _date(text)


def _second_of(moment: object, now: float) -> float:
    if isinstance(moment, timedelta):
        return now - moment.total_seconds()
    if isinstance(moment, datetime):
        return (moment if moment.tzinfo else moment.astimezone()).timestamp()
    if isinstance(moment, date):
        return datetime.combine(moment, time()).astimezone().timestamp()
    if isinstance(moment, Real):
        return float(moment)
    raise TypeError(f"since is UTC seconds, a date, a span, or a text such as 1h, not {moment!r:.80}")


def _date(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        words = f"{text[:40]!r} is neither a span such as 30m, 1h or 2d nor a date such as 2026-01-31"
        raise ValueError(words) from None


async def take(
    shop: Shop, *, now: float, since: float | None = None, limit: int | None = None, what: What = "all"
) -> dict[str, object]:
    """How the workshop stands at this moment, as JSON values; on the shop's loop, and it must keep a state.

    All of it is of the moment at which this is called: what happens while older tasks are read from the archive is
    left out.

    Args:
        shop: the workshop.
        now: the moment, UTC seconds.
        since: only tasks submitted, and samples taken, since then, UTC seconds; all that is kept where not given.
        limit: at most so many tasks and so many samples, the newest.
        what: `metrics` leaves out tasks and workers, `tasks` the samples.
    """
    moment = shop.state.snapshot(metrics=0)
    head: dict[str, object] = {
        "koubou": version("koubou-panel"),
        "exported_at": iso(now),
        "since": iso(since),
        "workshop": {"epoch": moment.epoch, "pool": pool_record(moment.pool), "counts": moment.counts},
    }
    document = _plain(head)
    if what != "metrics":
        tasks = await _tasks(shop, moment, since or 0.0, limit)
        document["workers"] = _plain([worker_record(worker) for worker in moment.workers])
        document["tasks"] = await _in_pieces(tasks, task_record)
    if what != "tasks":
        document["metrics"] = await _in_pieces(await _metrics(shop, now, since or 0.0, limit), _sample)
    return document


async def _in_pieces(items: Sequence[_Item], record: Callable[[_Item], object]) -> list[object]:
    """The record of each, as JSON values; a few at a time, so that the shop's loop goes on with its own work."""
    made: list[object] = []
    for begin in range(0, len(items), PIECE):
        made += _plain([record(item) for item in items[begin : begin + PIECE]])
        await asyncio.sleep(0)
    return made


def _plain(values: _Values) -> _Values:
    """There and back: what is not JSON (NaN, a tuple) is the same in the document as in its file."""
    there_and_back: _Values = msgspec.json.decode(msgspec.json.encode(values))
    return there_and_back


async def _tasks(shop: Shop, moment: Snapshot, since: float, limit: int | None) -> list[Task]:
    """The tasks of that moment, newest first: those of the state as it was, older ones from the archive."""
    found = {task.task_id: task for task in moment.tasks if task.request.created_at >= since}
    read = 0
    cursor: str | None = None
    while limit is None or read < limit:
        page = await shop.find(TaskQuery(limit=PAGE_TASKS, cursor=cursor))
        recent = [task for task in page.tasks if task.request.created_at >= since]
        read += _add_ended(found, recent, moment.order)
        cursor = page.cursor
        if cursor is None or len(recent) < len(page.tasks):
            break
    newest = sorted(found.values(), key=lambda task: task.order, reverse=True)
    return newest[:limit]


def _add_ended(found: dict[TaskId, Task], tasks: Iterable[Task], last: int) -> int:
    """Add what the state did not hold because it had ended long before; how many were of that moment."""
    count = 0
    for task in tasks:
        if task.order <= last:  # else it was submitted later
            found.setdefault(task.task_id, task)
            count += 1
    return count


async def _metrics(shop: Shop, now: float, since: float, limit: int | None) -> list[Metrics]:
    """The samples of the host up to that moment, oldest first; there is at most one a second."""
    begin = since if limit is None else max(since, now - limit - 1.0)
    samples = [sample for sample in await shop.metrics_since(begin) if sample.at <= now]
    if limit is not None:
        samples = samples[max(0, len(samples) - limit) :]
    return samples


def _sample(sample: Metrics) -> dict[str, object]:
    return {"at": iso(sample.at), **sample.values}
