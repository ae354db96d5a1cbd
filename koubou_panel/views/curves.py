"""What one run's process tree used from its start: CPU, memory, storage and, where there is one, the GPU.

All figures read one column source, which gets one stream a tick. The time is that of the run, from its start.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isnan, nan
from typing import Any, Literal, NamedTuple

from bokeh.models import (
    AdaptiveTicker,
    BasicTicker,
    ColumnDataSource,
    CustomJSTickFormatter,
    DataRange1d,
    HoverTool,
    NumeralTickFormatter,
    Range1d,
)
from bokeh.plotting import figure as Figure  # noqa: N812 - it is a class

from koubou_panel.core.records import Use
from koubou_panel.views.charts import blank_figure
from koubou_panel.views.language import later
from koubou_panel.views.theme import DATA

MOST_STREAMED = 600
LEAST_SPAN_S = 10.0
COLUMNS = ("at", "cpu", "rss", "read", "written", "gpu", "gpu_memory")

Panel = Literal["cpu", "rss", "storage", "gpu"]
PANELS: tuple[Panel, ...] = ("cpu", "rss", "storage", "gpu")

_SIZE = """
const units = ["B", "KB", "MB", "GB", "TB"]
let n = 0
while (tick >= 1000 && n < 4) { tick /= 1024; n += 1 }
return `${+tick.toPrecision(3)} ${units[n]}`
"""
_ELAPSED = """
const two = (n) => String(n).padStart(2, "0"), s = Math.round(tick), m = Math.floor(s / 60)
if (m < 60) return `${m}:${two(s % 60)}`
return `${Math.floor(m / 60)}:${two(m % 60)}:${two(s % 60)}`
"""
_TICKS_BYTES = tuple(2**n for n in range(10))
_TICKS_S = (1, 2, 5, 10, 15, 30)


class Line(NamedTuple):
    """One line of a figure: its column, what it is called, its colour's name, its dash."""

    column: str
    label: str
    colour: str
    dash: str = "solid"


LINES: dict[Panel, tuple[Line, ...]] = {
    "cpu": (Line("cpu", "CPU", "run"),),
    "rss": (Line("rss", later("memory"), "cancel"),),
    "storage": (Line("read", later("read"), "ok"), Line("written", later("written"), "warn", "dashed")),
    "gpu": (Line("gpu", "GPU", "run"),),
}


class TaskCurves:
    """The figures of one run, and their source."""

    def __init__(self, started_at: float) -> None:
        """Of a run that began at `started_at`, with nothing known yet."""
        self.source = ColumnDataSource({name: [] for name in COLUMNS})
        self.range = Range1d(start=0, end=LEAST_SPAN_S)
        self.figures: dict[Panel, Figure] = {}
        self.has_gpu = False
        self.streamed = 0
        self.started_at = started_at
        self._last: tuple[float, float, float] | None = None

    def figure(self, name: Panel) -> Figure:
        """The figure of this name, made when it is first asked for: each takes its time."""
        if name not in self.figures:
            self.figures[name] = self._draw(name)
        return self.figures[name]

    @property
    def last_at(self) -> float:
        """The moment of the last point, UTC seconds; of the start where there is none."""
        return self._last[0] if self._last else self.started_at

    @property
    def is_empty(self) -> bool:
        """Whether nothing is known yet."""
        return self._last is None

    @property
    def is_full(self) -> bool:
        """Whether so much was added that the whole should be read anew, in fewer points."""
        return self.streamed > MOST_STREAMED

    def reset(self, points: Mapping[str, Sequence[float | None]]) -> None:
        """Show this history (columns as of `core.curve.Curve.points`) and nothing else."""
        self._last, self.streamed = None, 0
        names = (
            "at",
            "cpu_percent",
            "rss_bytes",
            "read_bytes",
            "written_bytes",
            "gpu_percent",
            "gpu_memory_bytes",
        )
        rows = [self._row(*values) for values in zip(*(points.get(name, ()) for name in names), strict=True)]
        self.source.data = _columns(rows)

    def extend(self, uses: Sequence[tuple[float, Use]]) -> None:
        """Add samples that came, in one stream; those from before the last point are known already."""
        rows = [self._row_of(at, use) for at, use in uses if at > self.last_at or self._last is None]
        if rows:
            self.streamed += len(rows)
            self.source.stream(_columns(rows))

    def show_until(self, now: float) -> None:
        """Let the time axis end at `now`."""
        self.range.end = max(LEAST_SPAN_S, now - self.started_at)

    def _row_of(self, at: float, use: Use) -> list[float]:
        return self._row(
            at,
            use.cpu_percent,
            use.rss_bytes,
            use.read_bytes,
            use.written_bytes,
            use.gpu_percent,
            use.gpu_memory_bytes,
        )

    def _row(self, *values: float | None) -> list[float]:
        at, cpu, rss, read, written, gpu, gpu_memory = (
            nan if value is None else float(value) for value in values
        )
        before, self._last = self._last, (at, read, written)
        span_s = at - before[0] if before else 0.0
        speeds = (nan, nan)
        if before and span_s > 0:
            speeds = (max(0.0, read - before[1]) / span_s, max(0.0, written - before[2]) / span_s)
        self.has_gpu = self.has_gpu or not (isnan(gpu) and isnan(gpu_memory))
        return [round(at - self.started_at, 2), cpu, rss, *speeds, gpu, gpu_memory]

    def _draw(self, name: Panel) -> Figure:
        fig = blank_figure(self.range, x_axis_type="linear")
        fig.min_border_right = 12
        lines: list[Any] = [
            fig.line(
                "at", of.column, source=self.source, color=DATA[of.colour], line_width=1.6, line_dash=of.dash
            )
            for of in LINES[name]
        ]
        if len(lines) == 1:
            fig.varea(
                "at",
                0,
                LINES[name][0].column,
                source=self.source,
                fill_color=lines[0].glyph.line_color,
                fill_alpha=0.14,
            )
        is_percent = name in ("cpu", "gpu")
        fig.y_range = DataRange1d(
            start=0, range_padding=0.12, min_interval=20 if is_percent else 16_384, renderers=lines
        )
        if is_percent:
            fig.yaxis[0].ticker = BasicTicker(desired_num_ticks=3, num_minor_ticks=0)
            fig.yaxis[0].formatter = NumeralTickFormatter(format="0")
        else:
            fig.yaxis[0].ticker = AdaptiveTicker(
                base=1024, mantissas=list(_TICKS_BYTES), desired_num_ticks=2, num_minor_ticks=0
            )
            fig.yaxis[0].formatter = CustomJSTickFormatter(code=_SIZE)
        fig.xaxis[0].ticker = AdaptiveTicker(
            base=60, mantissas=list(_TICKS_S), desired_num_ticks=4, num_minor_ticks=0
        )
        fig.xaxis[0].formatter = CustomJSTickFormatter(code=_ELAPSED)
        fig.add_tools(_hover(name, lines[0]))
        return fig


def _hover(name: Panel, line: Any) -> HoverTool:
    shape = {"cpu": "{0} %", "gpu": "{0} %", "rss": "{0.0 b}", "storage": "{0.0 b}/s"}[name]
    return HoverTool(
        renderers=[line],
        mode="vline",
        show_arrow=False,
        line_policy="nearest",
        tooltips=[(of.label, f"@{of.column}{shape}") for of in LINES[name]],
    )


def _columns(rows: Sequence[Sequence[float]]) -> dict[str, Any]:
    columns = [list(column) for column in zip(*rows, strict=True)] or [[] for _ in COLUMNS]
    return dict(zip(COLUMNS, columns, strict=True))
