"""Streaming figures: what ended, and what the host is doing, over the last minutes or the last hour.

Each keeps one column source and sends it one row at a time. Columns are plain lists: a document whose columns
are arrays loses them when a browser connects again (bokeh#15347).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import isnan, nan
from typing import Any, Literal

from bokeh.models import (
    AdaptiveTicker,
    Axis,
    BasicTicker,
    ColumnDataSource,
    CompositeTicker,
    CustomJSTickFormatter,
    DataRange1d,
    DatetimeTicker,
    HoverTool,
    LinearAxis,
    NumeralTickFormatter,
    Range1d,
    VBar,
)
from bokeh.plotting import figure

from koubou_panel.core.ports import RunSpan
from koubou_panel.core.records import Metrics
from koubou_panel.reactive.models import percent
from koubou_panel.reactive.series import Second
from koubou_panel.views.language import _
from koubou_panel.views.theme import DATA

SPAN_S = 900
BIN_S = 10
#: By how much time is shown: how wide a bar is, seconds.
BINS_S = {300: 5, SPAN_S: BIN_S, 3_600: 40}
BINS = SPAN_S // BIN_S
GAP_S = 5.0

# In the viewer's own zone, which only the browser knows.
_CLOCK = (
    "return new Date(tick).toLocaleTimeString([], {hour: '2-digit', minute: '2-digit', hourCycle: 'h23'})"
)
_SECONDS = """
if (tick > 0 && tick < 1) return `${+(tick * 1000).toPrecision(2)} ms`
if (tick < 60) return `${+tick.toPrecision(2)} s`
return tick < 3600 ? `${+(tick / 60).toPrecision(2)} min` : `${+(tick / 3600).toPrecision(2)} h`
"""
#: Of the host: each line's column, colour's name, dash and width.
HOST = {
    "cpu": ("run", "solid", 1.8),
    "memory": ("cancel", "solid", 1.8),
    "gpu": ("ok", "dotdash", 1.8),
    "disk": ("warn", "dashed", 1.4),
}


def time_range(now: float) -> Range1d:
    """The last quarter of an hour, for all figures of a page together."""
    return Range1d(start=(now - SPAN_S) * 1000, end=now * 1000)


Bar = tuple[float, float, float, float, float]


def bars_of(spans: Iterable[RunSpan], start: float, end: float, bin_s: int) -> list[Bar]:
    """A bar for each bin between two moments: its middle (ms), completed, failed, both together, p95 of run seconds.

    What was added up has a number, but no p95.
    """
    bins: dict[int, list[RunSpan]] = {}
    for span in spans:
        if start <= span.end < end:
            bins.setdefault(int(span.end) // bin_s, []).append(span)
    return [
        _bar(place, bins.get(place, []), bin_s) for place in range(int(start) // bin_s, int(end) // bin_s + 1)
    ]


def _bar(place: int, spans: Sequence[RunSpan], bin_s: int) -> Bar:
    ok = sum(span.count for span in spans if span.status == "completed")
    bad = sum(span.count for span in spans if span.status == "failed")
    took = sorted(span.busy_s for span in spans if span.status != "cancelled")
    is_known = bool(took) and all(span.task_id for span in spans)
    p95 = took[min(len(took) - 1, int(len(took) * 0.95))] if is_known else nan
    return ((place + 0.5) * bin_s * 1000, ok, bad, ok + bad, p95)


class ThroughputChart:
    """Tasks that completed and failed, in bars of ten seconds, and the p95 of their run seconds."""

    def __init__(self, x_range: Range1d) -> None:
        """An empty chart."""
        self.source = ColumnDataSource({"at": [], "ok": [], "bad": [], "top": [], "p95": []})
        self.figure = blank_figure(x_range)
        self._bars: list[VBar] = []
        self._bin_s = BIN_S
        self._bin: int | None = None
        self._sums = (0.0, 0.0, nan)
        self._draw()

    def reset(self, seconds: Iterable[Second], bin_s: int = BIN_S) -> None:
        """Show these seconds in bars of `bin_s` seconds and nothing else."""
        self._bin, self._bin_s = None, bin_s
        rows: list[tuple[float, ...]] = []
        for second in seconds:
            is_new, row = self._take(second)
            if is_new:
                rows.append(row)
            else:
                rows[-1] = row
        self._fill(rows[-BINS:])

    def fill(self, bars: Sequence[Bar], bin_s: int) -> None:
        """Show these bars of `bin_s` seconds; the seconds that follow go on in the last one."""
        self._bin_s = bin_s
        self._bin = int(bars[-1][0] / 1000) // bin_s if bars else None
        self._sums = (bars[-1][1], bars[-1][2], bars[-1][4]) if bars else (0.0, 0.0, nan)
        self._fill(bars)

    def _fill(self, rows: Sequence[Sequence[float]]) -> None:
        for bar in self._bars:
            bar.width = self._bin_s * 820
        columns = [list(column) for column in zip(*rows, strict=True)] or [[], [], [], [], []]
        self.source.data = dict(zip(("at", "ok", "bad", "top", "p95"), columns, strict=True))

    def extend(self, seconds: Iterable[Second]) -> None:
        """Add seconds that are over: the last bar grows, or a new one begins."""
        for second in seconds:
            is_new, row = self._take(second)
            named = dict(zip(("at", "ok", "bad", "top", "p95"), row, strict=True))
            if is_new:
                self.source.stream({key: [value] for key, value in named.items()}, rollover=BINS + 1)
            else:
                last = len(self.source.data["at"]) - 1
                self.source.patch({key: [(last, value)] for key, value in named.items() if key != "at"})

    def _take(self, second: Second) -> tuple[bool, tuple[float, ...]]:
        place = second.at // self._bin_s
        is_new = place != self._bin
        ok, bad, *_rest = (0.0, 0.0, nan) if is_new else self._sums
        self._bin = place
        self._sums = (ok + second.completed, bad + second.failed, second.p95_s)
        ok, bad, p95 = self._sums
        # Half a bin on: a bar stands over its seconds.
        return is_new, ((place + 0.5) * self._bin_s * 1000, ok, bad, ok + bad, p95)

    def _draw(self) -> None:
        fig, wide = self.figure, BIN_S * 1000 * 0.82
        bars: dict[str, Any] = {"x": "at", "width": wide, "source": self.source, "line_color": None}
        hatch: dict[str, Any] = {
            "hatch_pattern": "right_diagonal_line",
            "hatch_alpha": 0.25,
            "hatch_scale": 6,
        }
        ok = fig.vbar(top="ok", bottom=0, fill_color=DATA["ok"], fill_alpha=0.9, **bars)
        bad = fig.vbar(top="top", bottom="ok", fill_color=DATA["fail"], **hatch, **bars)
        self._bars = [ok.glyph, bad.glyph]
        fig.y_range = DataRange1d(start=0, min_interval=4, range_padding=0.12, renderers=[ok, bad])
        fig.yaxis[0].ticker = BasicTicker(desired_num_ticks=3, min_interval=1, num_minor_ticks=0)
        fig.yaxis[0].formatter = NumeralTickFormatter(format="0[.]0a")
        self._draw_p95()
        fig.add_tools(
            HoverTool(
                renderers=[ok],
                mode="vline",
                show_arrow=False,
                point_policy="follow_mouse",
                tooltips=[(_("completed"), "@ok{0,0}"), (_("failed"), "@bad{0,0}"), ("p95", "@p95{0.0} s")],
            )
        )

    def _draw_p95(self) -> None:
        """The dotted line, on a range and an axis of its own."""
        fig, seconds = self.figure, DataRange1d(start=0, range_padding=0.25)
        fig.extra_y_ranges = {"p95": seconds}
        look: dict[str, Any] = {"color": DATA["run"], "line_width": 1.6, "line_dash": [2, 2]}
        seconds.renderers = [fig.line("at", "p95", source=self.source, y_range_name="p95", **look)]
        axis = LinearAxis(y_range_name="p95")
        axis.update(
            ticker=CompositeTicker(tickers=_duration_tickers(), desired_num_ticks=3),
            formatter=CustomJSTickFormatter(code=_SECONDS),
        )
        fig.add_layout(_quiet(axis), "right")


class HostChart:
    """CPU, memory and GPU of the host in percent; the disk's where there is no GPU."""

    def __init__(self, x_range: Range1d) -> None:
        """An empty chart."""
        self.source = ColumnDataSource({name: [] for name in ("at", *HOST)})
        self.figure = blank_figure(x_range)
        self._last_at: float | None = None
        self._gap_s = GAP_S
        self._draw()

    def reset(self, metrics: Sequence[Metrics], gap_s: float = GAP_S) -> None:
        """Show these samples and nothing else; between two that are more than `gap_s` apart there is no line."""
        self._last_at, self._gap_s = None, gap_s
        self.source.data = self._columns(metrics)

    def extend(self, metrics: Sequence[Metrics]) -> None:
        """Add samples that came."""
        if metrics:
            columns: dict[str, Any] = {**self._columns(metrics)}
            self.source.stream(columns, rollover=max(BINS_S) + 60)

    def _columns(self, metrics: Sequence[Metrics]) -> dict[str, list[float]]:
        columns: dict[str, list[float]] = {name: [] for name in ("at", *HOST)}
        for sample in metrics:
            if self._last_at is not None and sample.at - self._last_at > self._gap_s:
                _append(columns, self._last_at + 1, nan, nan, nan, nan)  # a pause is a gap, not a slope
            self._last_at = sample.at
            values = [percent(sample, f"{name}_percent") for name in HOST]
            _append(columns, sample.at, *(nan if value is None else value for value in values))
        return columns

    def _draw(self) -> None:
        fig = self.figure
        fig.y_range = percent_range()
        look: dict[str, Any] = {"x": "at", "source": self.source}
        self.lines = {
            name: fig.line(
                y=name, color=DATA[colour], line_width=width, line_dash=dash, name=f"host-{name}", **look
            )
            for name, (colour, dash, width) in HOST.items()
        }
        fig.yaxis[0].ticker = [0, 25, 50, 75, 100]
        fig.yaxis[0].formatter = NumeralTickFormatter(format="0")
        fig.add_tools(
            HoverTool(
                renderers=[self.lines["cpu"]],
                mode="vline",
                show_arrow=False,
                line_policy="nearest",
                tooltips=[("CPU", "@cpu{0} %"), (_("memory"), "@memory{0} %"), (_("disk"), "@disk{0} %")],
            )
        )


def percent_range() -> Range1d:
    """For percents: with room for a line that stands at 100, which the plot's edge would cut in half."""
    return Range1d(start=0, end=103)


def _append(columns: dict[str, list[float]], at: float, *values: float) -> None:
    columns["at"].append(at * 1000)
    for name, value in zip(HOST, values, strict=True):
        columns[name].append(round(value, 1) if not isnan(value) else value)


def blank_figure(x_range: Range1d, *, x_axis_type: Literal["datetime", "linear"] = "datetime") -> figure:
    """A figure without toolbar, drag or scroll; its colours come from the theme's variables."""
    fig = figure(
        x_range=x_range,
        sizing_mode="stretch_both",
        toolbar_location=None,
        tools="",
        x_axis_type=x_axis_type,
        min_border=4,
        output_backend="canvas",
    )
    # The variables take the place of these; where there are none (an export) these serve.
    fig.background_fill_color = fig.border_fill_color = fig.outline_line_color = None
    fig.toolbar.autohide = True
    fig.grid.grid_line_width = 1
    fig.xgrid.grid_line_color = None
    _quiet(fig.xaxis[0])
    _quiet(fig.yaxis[0])
    fig.xaxis[0].ticker = DatetimeTicker(desired_num_ticks=5, num_minor_ticks=0)
    fig.xaxis[0].formatter = CustomJSTickFormatter(code=_CLOCK)
    return fig


def _duration_tickers() -> list[AdaptiveTicker]:
    """Round steps for times: 0.5 s, 10 s, 2 min, 1 h."""
    few: dict[str, Any] = {"desired_num_ticks": 3, "num_minor_ticks": 0}
    return [
        AdaptiveTicker(base=10, mantissas=[1, 2, 5], max_interval=1.0, **few),
        AdaptiveTicker(
            base=60, mantissas=[1, 2, 5, 10, 15, 30], min_interval=1.0, max_interval=1800.0, **few
        ),
        AdaptiveTicker(base=24, mantissas=[1, 2, 6, 12], min_interval=3600.0, **few),
    ]


def _quiet(axis: Axis) -> Axis:
    axis.axis_line_color = None
    axis.major_tick_line_color = axis.minor_tick_line_color = None
    axis.major_label_standoff = 4
    return axis
