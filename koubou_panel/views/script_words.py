"""Schedules and sizes of scripts in the visitor's words."""

from __future__ import annotations

import re

from babel import Locale
from babel.dates import get_day_names

from koubou_panel.core.quantity import span_words
from koubou_panel.core.script import Overlap, Schedule
from koubou_panel.views.escape import line
from koubou_panel.views.language import _, later, spoken
from koubou_panel.views.words import listed

#: What becomes of a due time while an earlier run goes on.
OVERLAPS: dict[Overlap, str] = {
    "skip": later("skip it"),
    "queue": later("queue it"),
    "together": later("run both"),
}
_DAYS = {"SUN": 0, "MON": 1, "TUE": 2, "WED": 3, "THU": 4, "FRI": 5, "SAT": 6}
_EXPONENTS = "KMGT"


def schedule_words(schedule: Schedule | None) -> str:
    """When a script runs by itself: `every 5m`, `on weekdays at 09:00`; an unusual cron expression as it is written.

    Of what is due once, the moment is not in it: the page tells that in the viewer's zone.
    """
    if schedule is None:
        return _("by hand")
    if schedule.every_s is not None:
        return _("every {span}").format(span=span_words(schedule.every_s))
    if schedule.cron is not None:
        return _cron_words(schedule.cron) or line(schedule.cron)
    return _("once")


def _cron_words(expression: str) -> str:
    """A cron expression in words; empty where only itself says it."""
    minute, hour, day, month, weekday, *more = [*expression.split(), "", "", "", "", ""][:6]
    if any(more) or month != "*":
        return ""
    if (day, weekday) == ("*", "*") and (often := _often(minute, hour)):
        return often
    at = f"{int(hour):02d}:{int(minute):02d}" if minute.isdecimal() and hour.isdecimal() else ""
    if at and day == "*":
        return _weekly(weekday, at)
    is_monthly = at and weekday == "*" and day.isdecimal()
    return _("on day {day} of each month at {at}").format(day=int(day), at=at) if is_monthly else ""


def _often(minute: str, hour: str) -> str:
    """What is due within each hour."""
    step = re.fullmatch(r"\*/(\d{1,2})", minute)
    if hour == "*" and minute == "*":
        return _("every minute")
    if hour == "*" and step and int(step[1]) and 60 % int(step[1]) == 0:
        return _("every {n} minutes").format(n=int(step[1]))
    if hour == "*" and minute.isdecimal():
        return _("every hour at :{minute}").format(minute=f"{int(minute):02d}")
    step = re.fullmatch(r"\*/(\d{1,2})", hour)
    if minute.isdecimal() and step and int(step[1]) and 24 % int(step[1]) == 0:
        return _("every {n} hours at :{minute}").format(n=int(step[1]), minute=f"{int(minute):02d}")
    return ""


def _weekly(weekday: str, at: str) -> str:
    if weekday == "*":
        return _("every day at {at}").format(at=at)
    if weekday.upper() in ("1-5", "MON-FRI"):
        return _("on weekdays at {at}").format(at=at)
    numbers = [
        _DAYS.get(part.upper(), int(part) % 7 if part.isdecimal() else -1) for part in weekday.split(",")
    ]
    if -1 in numbers:
        return ""
    # Babel counts from Monday, cron from Sunday.
    names = get_day_names("abbreviated", locale=Locale.parse(spoken(), sep="-"))
    days = listed(names[(number - 1) % 7] for number in sorted(set(numbers), key=lambda n: (n - 1) % 7))
    return _("on {days} at {at}").format(days=days, at=at)


def exact_size(size_bytes: int | None) -> str:
    """A size as `core.quantity.parse_size` reads it, not rounded: `512M`, `1000`; empty for None."""
    if size_bytes is None:
        return ""
    for power in (4, 3, 2, 1):
        unit = 1024**power
        if size_bytes and size_bytes % unit == 0:
            return f"{size_bytes // unit}{_EXPONENTS[power - 1]}"
    return f"{size_bytes}"


def exact_span(seconds: float | None) -> str:
    """A span as `core.quantity.span_s` reads it; empty for None."""
    return "" if seconds is None else span_words(seconds)
