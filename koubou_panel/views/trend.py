"""The Overview's two charts on one time axis: what ended, and what the host is doing, over as long as is chosen."""

from __future__ import annotations

import asyncio
from math import isnan

import panel as pn

from koubou_panel.core.ports import MOST_SPANS, RunSpan
from koubou_panel.core.records import Metrics
from koubou_panel.errors import KoubouError
from koubou_panel.reactive.mirror import Changes
from koubou_panel.reactive.series import Second
from koubou_panel.views import rows
from koubou_panel.views.cards import ChartHead, ChartSegments, Message, set_changed
from koubou_panel.views.charts import (
    BINS_S,
    HOST,
    SPAN_S,
    Bar,
    HostChart,
    ThroughputChart,
    bars_of,
    time_range,
)
from koubou_panel.views.language import _
from koubou_panel.views.theme import DATA
from koubou_panel.views.visit import Visit
from koubou_panel.views.words import duration

_SHAPES = {"cpu": "line", "memory": "line", "gpu": "dash", "disk": "dash"}
_HOUR_STEP_S = 10.0
_PIECES = 4
#: About as wide is a chart: what moves it by less is not worth painting it anew.
PIXELS = 450


class Trend:
    """The figures and their heads. Under the document's lock."""

    def __init__(self, visit: Visit) -> None:
        """Over the mirror of the visit; empty: see `draw`."""
        self._visit = visit
        self._mirror = visit.mirror
        self._span_s = SPAN_S
        self._moved_at = 0.0
        self._is_told = False
        self._is_loading = False
        self._drawn = 0
        self._filled_to = 0.0
        self._seconds: list[Second] = []
        self._metrics: list[Metrics] = []
        self._range = time_range(visit.now())
        self.throughput = ThroughputChart(self._range)
        self.host = HostChart(self._range)
        self.throughput_head = visit.card(ChartHead)
        self.host_head = visit.card(ChartHead, spans=list(BINS_S), span=SPAN_S, on_message=self._on_message)
        self.segments = visit.card(ChartSegments)

    @property
    def roots(self) -> dict[str, object]:
        """What stands where in the page's grid."""
        return {
            "segments": self.segments,
            "throughput_head": self.throughput_head,
            "throughput": _pane(self.throughput.figure),
            "host_head": self.host_head,
            "host": _pane(self.host.figure),
        }

    def draw(self) -> None:
        """Show everything anew: from the mirror as far as it knows it, all else from the archive."""
        span, series = self._span_s, self._mirror.throughput
        if span <= SPAN_S:
            self.throughput.reset(list(series.rows)[-SPAN_S:], BINS_S[span])
            self.host.reset(list(self._mirror.metrics))
        self._drawn += 1
        self._filled_to = 0.0
        self._is_loading = series.known_s(span) < span or span > SPAN_S
        if self._is_loading:
            self._visit.spawn(self._load(self._drawn))
        self._seconds, self._metrics = [], []
        words = _("Ended, per {n} s").format(n=BINS_S[self._span_s])
        set_changed(self.throughput_head, title=words)
        set_changed(self.host_head, title=_("Host, %"), span=self._span_s)
        self.draw_legends()
        self._move(self._visit.now())

    def update(self, changes: Changes) -> None:
        """Take in what came, for the next `tick`: a figure is painted whole each time that anything in it changes."""
        self._seconds += changes.seconds
        self._metrics += changes.metrics
        self._is_told = self._is_told or bool(changes.seconds or changes.metrics)

    def tick(self) -> None:
        """Once a second: tell what the lines stand at; where it can be seen, add what came and move the axis on."""
        now = self._visit.now()
        if self._is_told:
            self._is_told = False
            self.draw_legends()
        if not 0 <= now - self._moved_at < self._span_s / PIXELS - 0.5:
            self._move(now)

    def _move(self, now: float) -> None:
        self._moved_at = now
        if not self._is_loading:
            self.throughput.extend([second for second in self._seconds if second.at >= self._filled_to])
            self.host.extend(self._metrics)
            self._seconds, self._metrics = [], []
        self._range.update(start=(now - self._span_s) * 1000, end=now * 1000)

    def draw_legends(self) -> None:
        """Show what the lines stand at."""
        series = self._mirror.throughput
        last = series.rows[-1] if series.rows else None
        p95 = "–" if last is None or isnan(last.p95_s) else duration(last.p95_s)
        nothing = _("Tasks that end appear here as bars. Try: koubou load burst -n 200")
        keys = [
            _key(_("completed"), "ok", "box", ""),
            _key(_("failed"), "fail", "hatch", ""),
            _key("p95", "run", "dots", p95),
        ]
        set_changed(self.throughput_head, empty="" if any(series.last(rows.SPAN_S)) else nothing, items=keys)
        self._draw_host_legend()

    def _draw_host_legend(self) -> None:
        host = self._mirror.model.metrics
        values = host.values if host else {}
        has_gpu = "gpu_percent" in values
        names = {"cpu": "CPU", "memory": _("memory"), "gpu": "GPU", "disk": _("disk")}
        keys = []
        for name in ("cpu", "memory", "gpu" if has_gpu else "disk"):
            value = values.get(f"{name}_percent")
            shown = f"{value:.0f} %" if isinstance(value, int | float) else "–"
            keys.append(_key(names[name], HOST[name][0], _SHAPES[name], shown))
        nothing = _("CPU, memory and disk appear here as soon as the workshop has measured them.")
        set_changed(self.host_head, empty="" if self._mirror.metrics else nothing, items=keys)
        set_changed(self.segments, names=["throughput", "cpu", "memory", *(["gpu"] if has_gpu else [])])
        for name, is_seen in (("gpu", has_gpu), ("disk", not has_gpu)):
            line = self.host.lines[name]
            if line.visible != is_seen:
                line.visible = is_seen

    def _on_message(self, kind: str, message: Message) -> None:
        span = message.get("span")
        if kind == "range" and isinstance(span, int) and span in BINS_S and span != self._span_s:
            self._span_s = span
            self.draw()

    async def _spans(self, start: float, end: float) -> list[RunSpan]:
        """Runs by their ends, asked for in pieces: what is read at once holds everybody up, in a thread too."""
        found: list[RunSpan] = []
        for n in range(_PIECES):
            since, until = (start + (end - start) * part / _PIECES for part in (n, n + 1))
            piece = await self._visit.shop.spans(since, until, MOST_SPANS // _PIECES)
            found += [span for span in piece.spans if since < span.end <= until]
        return found

    async def _load(self, drawn: int) -> None:
        """From the archive: what is not read, for whatever reason, is not waited for.

        Once all was drawn anew since the drawing of this number, another reading is on its way: this one is dropped.
        """
        span, now = self._span_s, int(self._visit.now())  # a second is counted whole: here, or by the mirror
        read: tuple[list[Bar], list[Metrics]] | None = None

        def show() -> None:
            if drawn == self._drawn:
                self._is_loading = False
                if read is not None:
                    self._fill(span, now, *read)

        try:
            read = await self._read(span, now)
        except KoubouError as error:
            if drawn == self._drawn:
                self._visit.toast(str(error))
        finally:
            self._visit.locked(show)

    async def _read(self, span: int, now: int) -> tuple[list[Bar], list[Metrics]]:
        """Tasks by their ends; of an hour the host too, in steps of ten seconds."""
        spans = await self._spans(now - span, now + 1.0)
        metrics: list[Metrics] = []
        if span > SPAN_S:
            metrics = await self._visit.shop.metrics_binned(now - span, _HOUR_STEP_S)
        return await asyncio.to_thread(bars_of, spans, now - span, now, BINS_S[span]), metrics

    def _fill(self, span: int, now: int, bars: list[Bar], metrics: list[Metrics]) -> None:
        self.throughput.fill(bars, BINS_S[span])
        self._filled_to = now
        if span > SPAN_S:
            self.host.reset(metrics, gap_s=3 * _HOUR_STEP_S)
            known = metrics[-1].at if metrics else 0.0
            self._metrics = [sample for sample in self._metrics if sample.at > known]


def _key(label: str, colour: str, shape: str, value: str) -> dict[str, str]:
    return {"label": label, "colour": DATA[colour], "shape": shape, "value": value}


def _pane(figure: object) -> pn.pane.Bokeh:
    return pn.pane.Bokeh(figure, sizing_mode="stretch_both", margin=0)
