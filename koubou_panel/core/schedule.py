"""When a schedule is due: pure arithmetic over UTC seconds, and over the calendar of a time zone for cron.

Source: cron expressions are read by `cronsim`, which follows Debian's cron, daylight saving time included: what is due
in the hour that is left out runs right after it, and what is due in the hour that comes twice runs once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from koubou_panel.core.script import Schedule, Script
from koubou_panel.errors import Refused

SHORTEST_S = 1.0
LONGEST_S = 366 * 24 * 3600.0
LAST_YEAR_S = 253_402_300_800.0  # the year 10000: no calendar here goes further
COUNTED = 100
CRON_CHARS = 250


def check_schedule(schedule: Schedule) -> None:
    """Check a schedule.

    Raises:
        Refused: code `invalid`, naming the field.
    """
    said = [schedule.every_s is not None, schedule.cron is not None, schedule.at is not None]
    if sum(said) != 1:
        words = "a schedule has one of: every (seconds), cron, at (a moment)"
        raise Refused("invalid", words, field="schedule")
    if schedule.every_s is not None and not SHORTEST_S <= schedule.every_s <= LONGEST_S:
        words = f"every must be {SHORTEST_S:g} second to 366 days, not {_span(schedule.every_s)}"
        raise Refused("invalid", words, field="every")
    if schedule.at is not None and not 0 < schedule.at < LAST_YEAR_S:
        raise Refused("invalid", "at must be a moment before the year 10000", field="at")
    if schedule.cron is not None:
        _check_cron(schedule.cron, schedule.zone)


def never_given(script: Script) -> tuple[str, ...]:
    """The parameters that keep a schedule from starting its script: it gives none, and these have no default."""
    if script.schedule is None:
        return ()
    return tuple(one.name for one in script.parameters if one.is_required and one.default is None)


def _check_cron(expression: str, zone: str) -> None:
    try:
        _zone(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        words = f"{zone[:60]!r} is no time zone; take one such as Europe/Berlin, Asia/Taipei or UTC"
        raise Refused("invalid", words, field="zone") from None
    if len(expression) > CRON_CHARS:
        raise Refused("invalid", f"a cron expression has at most {CRON_CHARS} characters", field="cron")
    try:
        CronSim(expression, datetime(2020, 1, 1, tzinfo=UTC))
    except CronSimError as error:
        words = f"{expression[:100]!r} is no cron expression ({error}); five fields such as '0 9 * * 1-5'"
        raise Refused("invalid", words, field="cron") from None
    if next_fire(Schedule(cron=expression, zone=zone), 0.0, anchor=0.0) is None:
        raise Refused("invalid", f"{expression[:100]!r} is never due", field="cron")


@lru_cache(maxsize=64)
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)


def next_fire(schedule: Schedule, after: float, *, anchor: float) -> float | None:
    """The first due time later than `after`, or None if there is none.

    Args:
        schedule: a checked one.
        after: UTC seconds.
        anchor: what an interval counts from, UTC seconds.
    """
    if schedule.every_s is not None:
        count = max(0, _counted(schedule.every_s, after, anchor)) + 1
        return anchor + count * schedule.every_s
    if schedule.cron is not None:
        return _next_cron(schedule.cron, schedule.zone, math.floor(max(0.0, after)))
    return schedule.at if schedule.at is not None and schedule.at > after else None


@lru_cache(maxsize=256)
def _next_cron(expression: str, zone: str, after: int) -> float | None:
    """The first due time of a cron expression later than `after`; they are all whole seconds. Crowds share it."""
    moment = datetime.fromtimestamp(after, _zone(zone))
    # In the hour that comes twice the clock on the wall is behind what was due: that is over.
    return next((due for due in _dues(expression, moment) if due > after), None)


def _span(seconds: float) -> str:
    days = seconds / 86_400
    return f"{days:g} days" if days >= 1 else f"{seconds:g} s"


def _counted(every_s: float, moment: float, anchor: float) -> int:
    """Which due time of an interval is the last not later than `moment`; the anchor's own is number 0."""
    count = math.floor((moment - anchor) / every_s)
    # A quotient is rounded, and what is due is what is told as a sum.
    while anchor + (count + 1) * every_s <= moment:
        count += 1
    while anchor + count * every_s > moment:
        count -= 1
    return count


def _dues(expression: str, moment: datetime, *, reverse: bool = False) -> Iterator[float]:
    """The due times after `moment`, or before it in reverse."""
    return (due.timestamp() for due in CronSim(expression, moment, reverse=reverse))


def latest_due(schedule: Schedule, first: float, now: float, *, anchor: float) -> tuple[float, int]:
    """The last due time not later than `now`, and how many from `first` on were before it (at most `COUNTED`).

    Args:
        schedule: a checked one.
        first: the first due time that was not dealt with; not later than `now`.
        now: UTC seconds.
        anchor: what an interval counts from, UTC seconds.
    """
    if schedule.every_s is not None:
        last = max(first, anchor + _counted(schedule.every_s, now, anchor) * schedule.every_s)
        return last, min(COUNTED, round((last - first) / schedule.every_s))
    if schedule.cron is None:
        return first, 0
    return _latest_cron(schedule.cron, schedule.zone, first, math.floor(now))


@lru_cache(maxsize=256)
def _latest_cron(expression: str, zone: str, first: float, now: int) -> tuple[float, int]:
    """As `latest_due`, for a cron expression. A step back is dear, so that no more are taken than are counted."""
    moment = datetime.fromtimestamp(now + 1, _zone(zone))
    last, missed = first, 0
    for due in _dues(expression, moment, reverse=True):
        if due > now:
            continue
        if due <= first:
            break
        last, missed = max(last, due), missed + 1
        if missed >= COUNTED:
            break
    return last, missed
