"""The figures' columns: one row at a time, all of one length."""

from math import isnan, nan

from koubou_panel.core.ports import RunSpan
from koubou_panel.core.records import Metrics, TaskId, WorkerId
from koubou_panel.reactive import Second
from koubou_panel.views.charts import BINS, BINS_S, HostChart, ThroughputChart, bars_of, time_range
from koubou_panel.views.system import SystemCharts

NOW = 1_700_000_000.0


def lengths(source) -> set[int]:
    """The lengths of a source's columns."""
    return {len(column) for column in source.data.values()}


def test_bars_are_of_ten_seconds() -> None:
    """Seconds of one bar add up in it; the next ten begin another."""
    chart = ThroughputChart(time_range(NOW))
    chart.extend([Second(1_700_000_000 + n, 2, 1, 0.5) for n in range(13)])
    assert list(chart.source.data["ok"]) == [20, 6]
    assert list(chart.source.data["bad"]) == [10, 3]
    assert list(chart.source.data["top"]) == [30, 9]
    assert lengths(chart.source) == {2}


def test_history_and_stream_give_the_same_bars() -> None:
    """A chart that is filled at load is the same as one that was watched."""
    seconds = [Second(1_700_000_000 + n, n % 3, n % 2, 1.0) for n in range(95)]
    loaded, watched = ThroughputChart(time_range(NOW)), ThroughputChart(time_range(NOW))
    loaded.reset(seconds[:50])
    loaded.extend(seconds[50:])
    for second in seconds:
        watched.extend([second])
    assert {k: list(v) for k, v in loaded.source.data.items()} == {
        k: list(v) for k, v in watched.source.data.items()
    }


def test_a_day_of_bars_is_a_quarter_of_an_hour() -> None:
    """However long it streams, the columns do not grow."""
    chart = ThroughputChart(time_range(NOW))
    chart.extend([Second(1_700_000_000 + n, 1, 0, nan) for n in range(3_000)])
    assert lengths(chart.source) == {BINS + 1}
    chart.reset([])
    assert lengths(chart.source) == {0}


def _span(end: float, status: str = "completed", *, count: int = 1, took: float = 1.0) -> RunSpan:
    task_id = TaskId("2pwhe5r7000000" if count == 1 else "")
    return RunSpan(WorkerId("worker-1"), end - took, end, status, task_id, "", count, took)


def test_an_hour_comes_from_the_archive_in_wider_bars() -> None:
    """Each bin has its bar, empty or not; what was added up counts in full, and has no p95 that nobody knows."""
    bin_s = BINS_S[3_600]
    spans = [_span(NOW - 100, took=2.0), _span(NOW - 99, "failed"), _span(NOW - 3_000, count=40)]
    bars = bars_of([*spans, _span(NOW - 9_000)], NOW - 3_600, NOW, bin_s)
    assert len(bars) in (90, 91)
    assert sum(bar[1] for bar in bars) == 41
    assert sum(bar[2] for bar in bars) == 1
    assert [bar[4] for bar in bars if not isnan(bar[4])] == [2.0]
    assert all(bar[3] == bar[1] + bar[2] for bar in bars)


def test_what_is_filled_in_goes_on() -> None:
    """The seconds after the archive's bars add to the last of them, and then begin another."""
    chart = ThroughputChart(time_range(NOW))
    chart.fill(bars_of([_span(NOW + 5)], NOW - 3_600, NOW + 10, 40), 40)
    before = len(chart.source.data["at"])
    last = int(chart.source.data["at"][-1] / 1000)
    chart.extend([Second(last, 2, 1, 0.5)])
    assert len(chart.source.data["at"]) == before
    assert (chart.source.data["ok"][-1], chart.source.data["bad"][-1]) == (3, 1)
    chart.extend([Second(last + 40, 1, 0, 0.5)])
    assert len(chart.source.data["at"]) in (before, before + 1)
    assert chart.source.data["ok"][-1] == 1


def test_host_lines() -> None:
    """A sample is a row; a value that it lacks is a gap, and so is a pause of the workshop."""
    chart = HostChart(time_range(NOW))
    chart.reset([Metrics(NOW, {"cpu_percent": 10.0, "memory_percent": 20.0, "disk_percent": 30.0})])
    chart.extend([Metrics(NOW + 1, {"cpu_percent": 11.0})])
    chart.extend([])
    chart.extend([Metrics(NOW + 60, {"cpu_percent": 12.0})])
    data = chart.source.data
    assert [value for value in data["cpu"] if not isnan(value)] == [10, 11, 12]
    assert isnan(data["memory"][1])
    assert isnan(data["cpu"][2])
    assert lengths(chart.source) == {4}


def test_no_drag_and_no_scroll() -> None:
    """The figures have neither toolbar nor tools that take a finger or a wheel."""
    for chart in (ThroughputChart(time_range(NOW)), HostChart(time_range(NOW))):
        assert chart.figure.toolbar_location is None
        assert {type(tool).__name__ for tool in chart.figure.tools} == {"HoverTool"}


def test_a_line_at_100_percent_is_seen_whole() -> None:
    """Above 100, the last tick, there is room for half the width of a line."""
    figures = [HostChart(time_range(NOW)).figure, SystemCharts(NOW).plot("cpu")]
    for figure in figures:
        assert figure.y_range.end > 100
        assert figure.yaxis[0].ticker.ticks[-1] == 100
