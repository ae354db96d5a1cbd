"""The Overview's two charts on one time axis: what ended, and what the host is doing, over as long as is chosen."""

from __future__ import annotations

import asyncio
from math import isnan

import panel as pn

from koubou_panel.errors import KoubouError
from koubou_panel.reactive.mirror import Changes
from koubou_panel.views import rows
from koubou_panel.views.cards import ChartHead, ChartSegments, Message, set_changed
from koubou_panel.views.charts import (
    BINS_S,
    HOST,
    SPAN_S,
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


class Trend:
    """The figures and their heads. Under the document's lock."""

    def __init__(self, visit: Visit) -> None:
        """Over the mirror of the visit; empty: see `draw`."""
        self._visit = visit
        self._mirror = visit.mirror
        self._span_s = SPAN_S
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
        """Show everything anew: the last minutes from the mirror, an hour from the archive."""
        if self._span_s > SPAN_S:
            self._visit.spawn(self._load())
        else:
            bin_s = BINS_S[self._span_s]
            self.throughput.reset(list(self._mirror.throughput.rows)[-SPAN_S:], bin_s)
            self.host.reset(list(self._mirror.metrics))
        words = _("Ended, per {n} s").format(n=BINS_S[self._span_s])
        set_changed(self.throughput_head, title=words)
        set_changed(self.host_head, title=_("Host, %"), span=self._span_s)
        self.draw_legends()
        self.tick()

    def update(self, changes: Changes) -> None:
        """Add what came."""
        self.throughput.extend(changes.seconds)
        self.host.extend(changes.metrics)
        if changes.metrics or changes.seconds:
            self.draw_legends()

    def tick(self) -> None:
        """Once a second: move the time axis on."""
        now = self._visit.now()
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

    async def _load(self) -> None:
        """An hour: tasks from the archive by their ends, the host in steps of ten seconds."""
        span, now = self._span_s, self._visit.now()
        try:
            found = await self._visit.shop.spans(now - span, now + 1.0)
            metrics = await self._visit.shop.metrics_binned(now - span, _HOUR_STEP_S)
        except KoubouError as error:
            self._visit.toast(str(error))
            return
        bars = await asyncio.to_thread(bars_of, found.spans, now - span, now, BINS_S[span])

        def show() -> None:
            if self._span_s == span:
                self.throughput.fill(bars, BINS_S[span])
                self.host.reset(metrics, gap_s=3 * _HOUR_STEP_S)

        self._visit.locked(show)


def _key(label: str, colour: str, shape: str, value: str) -> dict[str, str]:
    return {"label": label, "colour": DATA[colour], "shape": shape, "value": value}


def _pane(figure: object) -> pn.pane.Bokeh:
    return pn.pane.Bokeh(figure, sizing_mode="stretch_both", margin=0)
