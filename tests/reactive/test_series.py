"""The series of what ended, second by second."""

from math import isnan

from koubou_panel.reactive.series import KEEP_ROWS_S, KEEP_S, Throughput

NOW = 1_700_000_000.5


def test_every_second_is_there_once() -> None:
    """Advancing in uneven steps gives each second exactly once, in order."""
    series = Throughput(NOW)
    given = [row.at for moment in (0, 0.3, 2.9, 3.0, 10.7) for row in series.advance(NOW + moment)]
    assert given == list(range(given[0], given[0] + len(given)))
    assert given[-1] == int(NOW + 10.7 - 0.5) - 1


def test_ends_are_counted_in_their_second() -> None:
    """A task that ended in a second is in that second's row, failed ones apart."""
    series = Throughput(NOW)
    series.advance(NOW)
    series.add(NOW + 1, failed=False, duration_s=2.0)
    series.add(NOW + 1.2, failed=True, duration_s=4.0)
    rows = {row.at: row for row in series.advance(NOW + 5)}
    row = rows[int(NOW + 1)]
    assert (row.completed, row.failed, row.p95_s) == (1, 1, 4.0)
    assert rows[int(NOW + 2)].completed == 0


def test_late_end_is_counted_in_the_next_open_second() -> None:
    """An end that is told after its second was closed is not lost."""
    series = Throughput(NOW)
    series.advance(NOW + 10)
    series.add(NOW + 1, failed=False, duration_s=None)
    assert sum(row.completed for row in series.advance(NOW + 20)) == 1


def test_rate_counts_closed_and_open_seconds() -> None:
    """The last minute's count includes what ended in the second that is still open."""
    series = Throughput(NOW)
    series.add(NOW - 30, failed=False, duration_s=1.0)
    series.add(NOW - 90, failed=True, duration_s=1.0)
    series.add(NOW, failed=False, duration_s=1.0)
    series.advance(NOW)
    assert series.last(60) == (2, 0)
    assert series.last(KEEP_S) == (2, 1)


def test_what_nobody_can_know_is_nan() -> None:
    """Seconds from before the history that was given are neither zero nor anything else."""
    series = Throughput(NOW, known_since=NOW - 100)
    rows = series.advance(NOW)
    assert isnan(rows[0].completed)
    assert rows[-1].completed == 0
    assert 98 <= series.known_s(900) <= 100
    assert series.known_s(60) == 60
    assert Throughput(NOW).known_s(900) == 900


def test_p95_is_over_the_last_minute() -> None:
    """The p95 is that of the minute up to a second, and gone when the minute has nothing."""
    series = Throughput(NOW)
    series.advance(NOW)
    for n in range(100):
        series.add(NOW + 1, failed=False, duration_s=float(n) if n < 64 else None)
    rows = {row.at: row for row in series.advance(NOW + 70)}
    assert rows[int(NOW) + 1].p95_s == 60.0
    assert rows[int(NOW) + 60].p95_s == 60.0
    assert isnan(rows[int(NOW) + 61].p95_s)


def test_the_window_before_is_counted_apart() -> None:
    """What ended in the seconds before the last ones, and what cannot be known of them is nothing."""
    series = Throughput(NOW)
    for at, failed in ((5, False), (15, False), (16, True), (25, True)):
        series.add(NOW - 30 + at, failed=failed, duration_s=1.0)
    series.advance(NOW + 1)
    assert series.last(10) == (0, 1)
    assert series.before(10) == (1, 1)
    late = Throughput(NOW, known_since=NOW - 12)
    late.advance(NOW + 1)
    assert late.before(900) == (0, 0)


def test_a_long_silence_is_not_walked_through() -> None:
    """After a day without `advance` only the last half an hour is given."""
    series = Throughput(NOW)
    series.advance(NOW)
    rows = series.advance(NOW + 86_400)
    assert len(rows) == KEEP_ROWS_S
    assert rows[-1].at == int(NOW + 86_400 - 0.5) - 1
