"""The host over time: figures that share one time axis and one column source, which gets one stream a tick."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import isnan, nan
from typing import Any, Literal, NamedTuple

from bokeh.models import (
    AdaptiveTicker,
    BasicTicker,
    ColumnDataSource,
    CustomJSHover,
    CustomJSTickFormatter,
    DataRange1d,
    HoverTool,
    NumeralTickFormatter,
    Range1d,
)
from bokeh.models.renderers import GlyphRenderer
from bokeh.plotting import figure

from koubou_panel.core.bins import PEAK
from koubou_panel.core.records import Metrics
from koubou_panel.views.charts import blank_figure, percent_range
from koubou_panel.views.language import _, later
from koubou_panel.views.theme import DATA


class Span(NamedTuple):
    """What is seen at once: so many seconds, a point every `step_s`."""

    span_s: int
    step_s: float

    @property
    def gap_s(self) -> float:
        """What is missing for longer is a gap, not a slope."""
        return max(5.0, 2.5 * self.step_s)


class Line(NamedTuple):
    """One line of a figure: its column, what it is called, its colour's name, its dash."""

    column: str
    label: str
    colour: str
    dash: Literal["solid", "dashed", "dotted"] = "solid"


class Plot(NamedTuple):
    """One figure: its title, its lines, what its values are, and the column whose peaks are shaded."""

    title: str
    lines: tuple[Line, ...]
    unit: Literal["percent", "bytes", "number"] = "percent"
    peak: str = ""


SPANS = {"15m": Span(900, 1.0), "1h": Span(3_600, 5.0), "24h": Span(86_400, 120.0)}
LIVE = "15m"
PLOTS: dict[str, Plot] = {
    "cpu": Plot(later("Processor, percent"), (Line("cpu", later("CPU"), "run"),), peak="cpu"),
    "memory": Plot(
        later("Memory and disk, percent"),
        (
            Line("memory", later("memory"), "cancel"),
            Line("swap", later("swap"), "fail", "dotted"),
            Line("disk", later("disk"), "warn", "dashed"),
        ),
    ),
    "io": Plot(
        later("Disk, per second"),
        (Line("read", later("read"), "ok"), Line("write", later("written"), "fail", "dashed")),
        "bytes",
    ),
    "net": Plot(
        later("Network, per second"),
        (Line("received", later("received"), "run"), Line("sent", later("sent"), "warn", "dashed")),
        "bytes",
    ),
    "load": Plot(later("Load"), (Line("load", later("in 1 min"), "cancel"),), "number"),
    "gpu": Plot(
        later("GPU, percent"),
        (Line("gpu", later("compute"), "ok"), Line("gpu_memory", later("memory"), "cancel", "dashed")),
        peak="gpu",
    ),
    "heat": Plot(
        later("GPU, °C and W"),
        (Line("gpu_c", later("hottest"), "fail"), Line("gpu_w", later("power"), "warn", "dashed")),
        "number",
    ),
}
GPU = ("gpu", "heat")
_NAMES = {
    "cpu": "cpu_percent",
    "cpu_top": f"cpu_percent{PEAK}",
    "memory": "memory_percent",
    "swap": "swap_percent",
    "disk": "disk_percent",
    "read": "disk_read_bytes_per_s",
    "write": "disk_write_bytes_per_s",
    "received": "net_received_bytes_per_s",
    "sent": "net_sent_bytes_per_s",
    "load": "load_1m",
    "gpu": "gpu_percent",
    "gpu_top": f"gpu_percent{PEAK}",
}
COLUMNS = ("at", *_NAMES, "gpu_memory", "gpu_c", "gpu_w")

_SIZE = """
const units = ["B", "KB", "MB", "GB", "TB"]
let n = 0
while (tick >= 1000 && n < 4) { tick /= 1024; n += 1 }
return `${+tick.toPrecision(3)} ${units[n]}`
"""

_SIZE_HERE = "let tick = value\n" + _SIZE


def values_of(sample: Metrics) -> dict[str, float]:
    """A sample by column; NaN is not measured."""
    values = sample.values
    row = {column: _number(values.get(name)) for column, name in _NAMES.items()}
    for column in ("cpu", "gpu"):
        if isnan(row[f"{column}_top"]):
            row[f"{column}_top"] = row[column]
    held, room = (_number(values.get(f"gpu_memory_{name}_bytes")) for name in ("used", "total"))
    row["gpu_memory"] = 100 * held / room if room else nan
    row["gpu_c"] = max(_numbers(values.get("gpu_temperatures_c")), default=nan)
    powers = _numbers(values.get("gpu_powers_w"))
    row["gpu_w"] = sum(powers) if powers else nan
    return {"at": sample.at, **row}


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else nan


def _numbers(value: object) -> list[float]:
    found = map(_number, value) if isinstance(value, list) else ()
    return [number for number in found if not isnan(number)]


class SystemCharts:
    """The figures of a page, and the one source they read.

    Args:
        now: UTC seconds.

    """

    def __init__(self, now: float) -> None:
        """No figure yet, of the last quarter of an hour."""
        self.span = SPANS[LIVE]
        self.source = ColumnDataSource({name: [] for name in COLUMNS})
        self.x_range = Range1d()
        self.show_until(now)
        self._hovers: dict[str, HoverTool] = {}
        self.figures: dict[str, figure] = {}
        self.has_gpu = False
        self._last_at: float | None = None

    def plot(self, name: str) -> figure:
        """The figure of this name; made when it is first asked for, which takes some hundredths of a second."""
        if name not in self.figures:
            self.figures[name] = self._figure(name, PLOTS[name])
            self.speak()
        return self.figures[name]

    def show_until(self, now: float) -> None:
        """Move the time axis on."""
        self.x_range.update(start=(now - self.span.span_s) * 1000, end=now * 1000)

    def reset(self, span: Span, samples: Sequence[Metrics]) -> None:
        """Show these samples, which stand `span.step_s` apart, and nothing else."""
        self.span = span
        self._last_at = None
        self.has_gpu = False
        self.source.data = self._columns(samples)

    def extend(self, samples: Iterable[Metrics]) -> None:
        """Add samples that came, where each of them is a point."""
        columns: dict[str, Any] = {**self._columns(samples)}
        if columns["at"]:
            self.source.stream(columns, rollover=round(self.span.span_s / self.span.step_s) + 60)

    def speak(self) -> None:
        """Say what is under the pointer in the visitor's language."""
        for name, hover in self._hovers.items():
            plot = PLOTS[name]
            shape = {"percent": "{0[.]0} %", "bytes": "{custom}/s", "number": "{0[.]0}"}[plot.unit]
            tips = [(_(line.label), f"@{line.column}{shape}") for line in plot.lines]
            if hover.tooltips != tips:
                hover.update(tooltips=tips)

    def _columns(self, samples: Iterable[Metrics]) -> dict[str, list[float]]:
        columns: dict[str, list[float]] = {name: [] for name in COLUMNS}
        for sample in samples:
            if self._last_at is not None and sample.at - self._last_at > self.span.gap_s:
                _append(columns, dict.fromkeys(COLUMNS, nan) | {"at": self._last_at + self.span.step_s})
            self._last_at = sample.at
            row = values_of(sample)
            self.has_gpu = self.has_gpu or not isnan(row["gpu"])
            _append(columns, row)
        return columns

    def _figure(self, name: str, plot: Plot) -> figure:
        fig = blank_figure(self.x_range)
        fig.y_range = percent_range() if plot.unit == "percent" else _from_zero(plot)
        if plot.peak:
            colour = DATA[plot.lines[0].colour]
            fig.varea("at", 0, plot.peak, source=self.source, fill_color=colour, fill_alpha=0.12)
            area = fig.varea("at", plot.peak, f"{plot.peak}_top", source=self.source)
            area.glyph.update(fill_color=colour, fill_alpha=0.3)
        lines = [
            fig.line(
                "at",
                line.column,
                source=self.source,
                color=DATA[line.colour],
                line_width=1.8 if line.dash == "solid" else 1.5,
                line_dash=line.dash,
            )
            for line in plot.lines
        ]
        _shape_axis(fig, plot.unit)
        if isinstance(fig.y_range, DataRange1d):
            fig.y_range.renderers = [*lines]
        self._hovers[name] = _hover(plot, lines[0])
        fig.add_tools(self._hovers[name])
        return fig


def _hover(plot: Plot, line: GlyphRenderer[Any]) -> HoverTool:
    """What is told under the pointer; `speak` puts it into words."""
    formatters: dict[str, Any] = {f"@{line.column}": CustomJSHover(code=_SIZE_HERE) for line in plot.lines}
    return HoverTool(
        renderers=[line],
        mode="vline",
        show_arrow=False,
        line_policy="nearest",
        formatters=formatters if plot.unit == "bytes" else {},
    )


def _from_zero(plot: Plot) -> DataRange1d:
    return DataRange1d(start=0, range_padding=0.15, min_interval=1024 if plot.unit == "bytes" else 1)


def _shape_axis(fig: figure, unit: str) -> None:
    axis = fig.yaxis[0]
    if unit == "bytes":
        axis.ticker = AdaptiveTicker(
            base=1024, mantissas=[2**n for n in range(10)], desired_num_ticks=3, num_minor_ticks=0
        )
        axis.formatter = CustomJSTickFormatter(code=_SIZE)
    elif unit == "percent":
        axis.ticker = [0, 25, 50, 75, 100]
        axis.formatter = NumeralTickFormatter(format="0")
    else:
        axis.ticker = BasicTicker(desired_num_ticks=3, num_minor_ticks=0)


def _append(columns: dict[str, list[float]], row: dict[str, float]) -> None:
    for name, value in row.items():
        is_at = name == "at"
        columns[name].append(value * 1000 if is_at else value if isnan(value) else round(value, 1))
