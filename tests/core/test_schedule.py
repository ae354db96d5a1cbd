"""When schedules are due: intervals, calendars with their two odd nights a year, single moments."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koubou_panel.core.schedule import COUNTED, CRON_CHARS, check_schedule, latest_due, next_fire
from koubou_panel.core.script import Schedule
from koubou_panel.errors import Refused

BERLIN = ZoneInfo("Europe/Berlin")
LORD_HOWE = ZoneInfo("Australia/Lord_Howe")


def local(zone, *parts, fold=0):
    """A moment on the wall of a zone, as UTC seconds."""
    return datetime(*parts, tzinfo=zone, fold=fold).timestamp()


def utc(*parts):
    """A moment, as UTC seconds."""
    return local(UTC, *parts)


def dues(schedule, after, count, *, anchor=0.0):
    """The next due times."""
    found = []
    for _ in range(count):
        after = next_fire(schedule, after, anchor=anchor)
        found.append(after)
    return found


# -- intervals ------------------------------------------------------------------------------------------------


def test_an_interval_counts_from_its_anchor():
    """It is first due one interval after it, and then by the grid, however late it is asked."""
    schedule = Schedule(every_s=300)
    assert dues(schedule, 1_000.0, 3, anchor=1_000.0) == [1_300, 1_600, 1_900]
    assert next_fire(schedule, 1_650.0, anchor=1_000.0) == 1_900
    assert next_fire(schedule, 100.0, anchor=1_000.0) == 1_300


@given(
    every_s=st.floats(1.0, 1e6),
    anchor=st.floats(1e9, 2e9),
    count=st.integers(0, 100_000),
    off=st.floats(-1.0, 1.0),
)
def test_an_interval_neither_repeats_nor_leaves_out(every_s, anchor, count, off):
    """The next due time is later; nothing is due between; and the last one is what was next before."""
    schedule = Schedule(every_s=every_s)
    after = max(anchor, anchor + (count + off) * every_s)
    due = next_fire(schedule, after, anchor=anchor)
    assert after < due <= after + every_s * 1.000001
    following = next_fire(schedule, due, anchor=anchor)
    assert due < following
    assert latest_due(schedule, due, due, anchor=anchor) == (due, 0)
    last, missed = latest_due(schedule, due, following, anchor=anchor)
    assert (last, missed) == (following, 1)


def test_after_a_downtime_an_interval_is_due_once():
    """The last due time is told, with how many went before it."""
    schedule = Schedule(every_s=60)
    assert latest_due(schedule, 1_060.0, 1_500.0, anchor=1_000.0) == (1_480.0, 7)
    assert latest_due(schedule, 1_060.0, 1_060.0, anchor=1_000.0) == (1_060.0, 0)


# -- calendars ------------------------------------------------------------------------------------------------


def test_cron_follows_the_clock_of_its_zone():
    """Nine o'clock on working days, on the wall there."""
    schedule = Schedule(cron="0 9 * * 1-5", zone="Asia/Taipei")
    friday = utc(2026, 11, 20, 0, 59)
    assert dues(schedule, friday, 2) == [utc(2026, 11, 20, 1), utc(2026, 11, 23, 1)]


@pytest.mark.parametrize("minute", [0, 30, 59])
def test_what_is_due_in_the_hour_left_out_runs_right_after_it(minute):
    """In spring the clock jumps from 2 to 3: a daily schedule loses no day."""
    schedule = Schedule(cron=f"{minute} 2 * * *", zone="Europe/Berlin")
    found = dues(schedule, local(BERLIN, 2026, 3, 28, 12), 2)
    assert found == [local(BERLIN, 2026, 3, 29, 3), local(BERLIN, 2026, 3, 30, 2, minute)]


def test_what_is_due_in_the_hour_that_comes_twice_runs_once():
    """In autumn the clock goes back from 3 to 2: a daily schedule runs at the first of the two."""
    schedule = Schedule(cron="30 2 * * *", zone="Europe/Berlin")
    found = dues(schedule, local(BERLIN, 2026, 10, 24, 12), 2)
    assert found == [local(BERLIN, 2026, 10, 25, 2, 30, fold=0), local(BERLIN, 2026, 10, 26, 2, 30)]
    for minute in (1, 29, 31, 59):
        within = local(BERLIN, 2026, 10, 25, 2, minute, fold=1)
        assert next_fire(schedule, within, anchor=0.0) == local(BERLIN, 2026, 10, 26, 2, 30)
        assert latest_due(schedule, found[0], within, anchor=0.0) == (found[0], 0)


@pytest.mark.parametrize("day", [(2026, 3, 29), (2026, 10, 25)])
def test_what_is_due_each_half_hour_is_so_on_odd_nights_too(day):
    """Such a schedule goes by the time that passes."""
    schedule = Schedule(cron="*/30 * * * *", zone="Europe/Berlin")
    found = dues(schedule, local(BERLIN, *day, 0, 45), 12)
    assert {later - earlier for earlier, later in pairwise(found)} == {1_800.0}


@given(
    cron=st.sampled_from(
        ["30 2 * * *", "0,15,30,45 1-3 * * *", "*/7 * * * *", "5 * * * *", "0 0 1 * *", "59 1 * 4,10 0"]
    ),
    zone=st.sampled_from(["Europe/Berlin", "Australia/Lord_Howe", "America/New_York", "Asia/Taipei", "UTC"]),
    after=st.floats(utc(2026, 3, 1), utc(2026, 4, 10)) | st.floats(utc(2026, 10, 1), utc(2026, 11, 5)),
)
def test_a_calendar_never_goes_back(cron, zone, after):
    """Each due time is later than the one before, and the last due time is not in the future."""
    schedule = Schedule(cron=cron, zone=zone)
    found = dues(schedule, after, 4)
    assert all(earlier < later for earlier, later in pairwise([after, *found]))
    for now in (found[2], found[2] + 0.5):
        last, missed = latest_due(schedule, found[0], now, anchor=0.0)
        assert found[0] <= last <= now
        assert missed <= 3


def test_a_zone_that_shifts_by_half_an_hour():
    """Lord Howe's clock jumps from 2:00 to 2:30."""
    schedule = Schedule(cron="15 2 * * *", zone="Australia/Lord_Howe")
    found = dues(schedule, local(LORD_HOWE, 2026, 10, 3, 12), 2)
    assert found == [local(LORD_HOWE, 2026, 10, 4, 2, 30), local(LORD_HOWE, 2026, 10, 5, 2, 15)]


def test_after_a_downtime_a_calendar_is_due_once():
    """The last due time is told, with how many went before it; those of years are not all counted."""
    schedule = Schedule(cron="0 * * * *")
    first = utc(2026, 5, 1, 1)
    assert latest_due(schedule, first, utc(2026, 5, 1, 6, 30), anchor=0.0) == (utc(2026, 5, 1, 6), 5)
    assert latest_due(schedule, first, utc(2028, 5, 1, 6, 30), anchor=0.0) == (utc(2028, 5, 1, 6), COUNTED)


def test_a_calendar_with_seconds():
    """Six fields begin with seconds."""
    schedule = Schedule(cron="*/20 * * * * *")
    assert dues(schedule, 1_000.5, 3) == [1_020, 1_040, 1_060]


# -- one moment -----------------------------------------------------------------------------------------------


def test_a_single_moment_is_due_once():
    """Before it, it is next; from it on there is none."""
    schedule = Schedule(at=5_000.0)
    assert next_fire(schedule, 4_999.0, anchor=0.0) == 5_000
    assert next_fire(schedule, 5_000.0, anchor=0.0) is None
    assert latest_due(schedule, 5_000.0, 9_000.0, anchor=0.0) == (5_000, 0)


# -- what is refused ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schedule", "field", "words"),
    [
        (Schedule(), "schedule", "one of"),
        (Schedule(every_s=5, cron="* * * * *"), "schedule", "one of"),
        (Schedule(every_s=0.5), "every", "1 second"),
        (Schedule(every_s=float("nan")), "every", "1 second"),
        (Schedule(every_s=1e9), "every", "366 days"),
        (Schedule(every_s=400 * 86_400.0), "every", "not 400 days"),
        (Schedule(at=float("inf")), "at", "year 10000"),
        (Schedule(at=-1.0), "at", "year 10000"),
        (Schedule(cron="often"), "cron", "five fields such as"),
        (Schedule(cron="61 * * * *"), "cron", "minute"),
        (Schedule(cron="0 0 30 2 *"), "cron", "day-of-month"),
        (Schedule(cron="1," * CRON_CHARS + "1 * * * *"), "cron", "characters"),
        (Schedule(cron="0 9 * * *", zone="Europe/Berlen"), "zone", "no time zone"),
        (Schedule(cron="0 9 * * *", zone="../../etc/passwd"), "zone", "no time zone"),
        (Schedule(cron="0 9 * * *", zone="Europe"), "zone", "no time zone"),
        (Schedule(cron="0 9 * * *", zone=""), "zone", "no time zone"),
    ],
)
def test_what_is_no_schedule_is_refused(schedule, field, words):
    """The refusal names the field, and what would do."""
    with pytest.raises(Refused, match=words) as refusal:
        check_schedule(schedule)
    assert (refusal.value.code, refusal.value.field) == ("invalid", field)


def test_a_calendar_day_that_comes_every_four_years_is_one():
    """The 29th of February is due, if rarely."""
    schedule = Schedule(cron="0 0 29 2 *")
    check_schedule(schedule)
    assert next_fire(schedule, utc(2026, 1, 1), anchor=0.0) == utc(2028, 2, 29)
