"""The host: how busy and how full it is, over the last minutes, hour or day, and what the workshop uses of it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Mapping

import panel as pn
import param

from koubou_panel.core.records import Metrics
from koubou_panel.errors import KoubouError
from koubou_panel.reactive.mirror import Changes
from koubou_panel.samplers.machine import Machine, ProcessLooks, machine
from koubou_panel.views.cards import Card, ChartHead, set_changed
from koubou_panel.views.escape import line
from koubou_panel.views.language import _, later
from koubou_panel.views.system import GPU, LIVE, PLOTS, SPANS, SystemCharts
from koubou_panel.views.system_rows import (
    CELLS,
    core_cells,
    core_names,
    core_values,
    legend,
    machine_words,
    room_words,
    use_rows,
)
from koubou_panel.views.visit import AnyCard, Visit

Message = Mapping[str, object]

LOOK_EVERY_S = 2
_PLOT_PX = 164
_RANGES = {"15m": later("15 min"), "1h": later("1 h"), "24h": later("24 h")}
_SHORT = {
    "cpu": later("CPU"),
    "memory": later("Memory"),
    "io": later("Disk"),
    "net": later("Network"),
    "load": later("Load"),
    "gpu": later("GPU"),
    "heat": later("Heat"),
}
# Inside Panel's own layouts the sheet of the cards does not reach.
_GRID = """
.scroll-button { display: none !important; }
:host { display: grid !important; grid-template-columns: repeat(3, minmax(0, 1fr)); align-content: start; gap: 12px;
  min-height: 420px; }  /* as with its figures, which come one by one */
@media (max-width: 1340px) { :host { grid-template-columns: repeat(2, minmax(0, 1fr)); min-height: 636px; } }
@media (max-width: 700px) { :host { grid-template-columns: minmax(0, 1fr); min-height: 204px; } }
"""
_CELL = """
:host { display: flex !important; flex-direction: column; min-width: 0;
  padding: 8px 14px 6px; box-sizing: border-box; background: var(--k-surface);
  border: 1px solid var(--k-border); border-radius: 10px; box-shadow: 0 1px 2px var(--k-shadow); }
.bk-Figure { clip-path: inset(1px 0 0 1px); }  /* its first row and column of pixels are only half its own */
:host(.gone) { display: none !important; }
@media (min-width: 701px) { :host(.wide) { grid-column: span 2; } }
@media (max-width: 700px) { :host(.unseen) { display: none !important; } }
"""
_PAGE = ":host { gap: 12px; padding-bottom: 12px; } @media (max-width: 700px) { :host { gap: 10px; } }"


class SystemPage:
    """`?page=system`."""

    name = "system"
    label = later("System")
    place = 40

    def build(self, visit: Visit) -> SystemView:
        """The page for one visit."""
        return SystemView(visit)


class SystemCard(Card):
    """The machine, and which span of time is seen; on a phone which figure. Sends `span` and `figure`."""

    host = param.String(doc="the machine's name")
    facts = param.List(default=[], doc="what it is, in words")
    now = param.List(default=[], doc="how much memory and room there is")
    booted_at = param.Number(default=None, allow_None=True)
    spans = param.List(default=[], doc="of (name in the address, label)")
    span = param.String(default=LIVE)
    figures = param.List(default=[], doc="of (name, label): those that there are")
    figure = param.String(default="cpu")


class CoresCard(Card):
    """Each core as a strip over the span, and its value now."""

    cells = param.List(default=[], doc="of (at, percent of each strip), oldest first")
    now = param.List(default=[], doc="percent of each strip")
    names = param.List(default=[], doc="which cores each strip stands for")
    span_s = param.Number(default=900)
    hint = param.String(doc="said when there is nothing yet")


class UseCard(Card):
    """What the workshop's own processes use."""

    rows = param.List(default=[], doc="of label, pid, cpu, memory, page")


class SystemView:
    """The page's cards and figures over the mirror of the visit. Under the document's lock."""

    #: What the machine is stays as it is while this process runs: no visit after the first waits for it.
    _machine: Machine | None = None

    def __init__(self, visit: Visit) -> None:
        """Empty: see `draw`."""
        self._visit = visit
        self._mirror = visit.mirror
        self._span = self._wanted = LIVE
        self._is_live = False
        self._looks = ProcessLooks()
        self._is_looking = self._is_loading = False
        self._ticks = 0
        self._loaded_at = 0.0
        self._history: list[Metrics] = []
        self._cell = -1
        self._plotted: set[str] = set()
        self.charts = SystemCharts(visit.now())
        self.head = _low(visit.card(SystemCard, on_message=self._on_message))
        self.cores = _low(visit.card(CoresCard))
        self.use = _low(visit.card(UseCard))
        self.heads = {
            name: visit.card(ChartHead, sizing_mode="stretch_width", min_height=24, css_classes=["tight"])
            for name in PLOTS
        }
        self.cells = {name: self._cell_of(name) for name in PLOTS}
        self._grid = _column(css=_GRID)
        self.root = _column(self.head, self._grid, self.cores, self.use, css=_PAGE)

    def _cell_of(self, name: str) -> pn.Column:
        return pn.Column(
            self.heads[name],
            stylesheets=[_CELL],
            sizing_mode="stretch_width",
            margin=0,
            css_classes=self._classes(name),
        )

    def _plot(self, names: list[str]) -> Iterator[None]:
        """Put the figures in their places, in pieces: all of them at once would hold everybody up."""
        for name in names:
            fig = self.charts.plot(name)
            fig.update(sizing_mode="stretch_width", height=_PLOT_PX)
            yield
            pane = pn.pane.Bokeh(fig, sizing_mode="stretch_width", height=_PLOT_PX, margin=0)
            self.cells[name].append(pane)
            self._grid.append(self.cells[name])
            yield

    def draw(self) -> None:
        """Show what the mirror holds, and for a longer span what the archive does, as soon as it is read."""
        self.charts.speak()
        set_changed(
            self.cores, hint=_("Each core appears here as soon as the workshop has measured the host.")
        )
        self._draw_machine()
        self._load()
        self._draw_now()
        self.charts.show_until(self._visit.now())

    def update(self, changes: Changes) -> None:
        """Show what changed."""
        if changes.reset:
            self._load()
        elif changes.metrics and self._span == LIVE:
            self.charts.extend(changes.metrics)
        if changes.reset or changes.metrics:
            self._draw_now()

    def tick(self) -> None:
        """Once a second: the time axis moves on; and now and then a look at what we use ourselves."""
        # The browser asks while it draws the page; what is changed for it before it has, it may miss.
        self._is_live = True
        self._choose()
        now = self._visit.now()
        self.charts.show_until(now)
        if self._span != LIVE and now - self._loaded_at >= SPANS[self._span].span_s / CELLS:
            self._load()
        if self._ticks % LOOK_EVERY_S == 0 and not self._is_looking:
            self._is_looking = True
            self._visit.spawn(self.look())
        self._ticks += 1

    # -- what the visitor chooses -----------------------------------------------------------------------------

    def _on_message(self, kind: str, message: Message) -> None:
        name = message.get("name")
        if kind == "span" and isinstance(name, str) and name in SPANS:
            self._wanted = name
            if self._is_live:
                self._choose()
        elif kind == "figure" and isinstance(name, str) and name in PLOTS:
            set_changed(self.head, figure=name)
            self._place()

    def _choose(self) -> None:
        """Show the span that is wanted."""
        if self._wanted != self._span:
            self._span = self._wanted
            self._draw_machine()
            self._load()

    # -- what is read -----------------------------------------------------------------------------------------

    def _load(self) -> None:
        self._loaded_at = self._visit.now()
        if self._span == LIVE:
            self._show(LIVE, list(self._mirror.metrics))
        elif not self._is_loading:
            self._is_loading = True
            self._visit.spawn(self.load(self._span))

    async def load(self, name: str) -> None:
        """Read the host's history over a longer span, and show it if that is still wanted."""
        span = SPANS[name]
        try:
            samples = await self._visit.shop.metrics_binned(self._visit.now() - span.span_s, span.step_s)
        except KoubouError as error:
            self._visit.toast(str(error))
            return
        finally:
            self._is_loading = False
            if name != self._span != LIVE:  # another was chosen meanwhile
                self._load()
        self._visit.locked(lambda: self._show(name, samples) if name == self._span else None)

    def _show(self, name: str, samples: list[Metrics]) -> None:
        self.charts.reset(SPANS[name], samples)
        self._history, self._cell = samples, -1
        self.charts.show_until(self._visit.now())
        self._draw_now()

    async def look(self) -> None:
        """Look at our own processes, off the loop, and once at the machine."""
        pids = {service.pid for service in self._mirror.model.services} - {None} or {os.getpid()}
        try:
            parts = await asyncio.to_thread(self._looks.look, sorted(pid for pid in pids if pid))
            known = self._machine or await asyncio.to_thread(machine)
        finally:
            self._is_looking = False

        def show() -> None:
            model = self._mirror.model
            set_changed(self.use, rows=use_rows(model.services, model.workers, parts, os.getpid()))
            if self._machine is None:
                SystemView._machine = known
                self._draw_machine()

        self._visit.locked(show)

    # -- what is shown ----------------------------------------------------------------------------------------

    def _draw_machine(self) -> None:
        known = self._machine
        set_changed(
            self.head,
            host="" if known is None else line(known.name),
            facts=[] if known is None else machine_words(known),
            booted_at=None if known is None else known.booted_at,
            spans=[[name, _(label)] for name, label in _RANGES.items()],
            span=self._span,
            figures=[[name, _(_SHORT[name])] for name in self._shown()],
        )

    def _classes(self, name: str) -> list[str]:
        """How its figure is shown: not where there is no GPU, and on a phone only the one that is chosen."""
        found = ["wide"] if name == "cpu" else []
        found += [] if name == self.head.figure else ["unseen"]
        return found if name in self._shown() else [*found, "gone"]

    def _place(self) -> None:
        missing = [name for name in self._shown() if name not in self._plotted]
        if missing:
            self._plotted.update(missing)
            self._visit.in_turns(self._plot(missing))
        for name, cell in self.cells.items():
            classes = self._classes(name)
            if cell.css_classes != classes:
                cell.css_classes = classes

    def _shown(self) -> list[str]:
        return [name for name in PLOTS if self.charts.has_gpu or name not in GPU]

    def _draw_now(self) -> None:
        """The values beside the titles, the cores, and the GPU's figures once there is one."""
        last = self._mirror.metrics[-1] if self._mirror.metrics else None
        empty = "" if self.charts.source.data["at"] else _("Appears as soon as the workshop has measured it.")
        for name, head in self.heads.items():
            set_changed(head, title=_(PLOTS[name].title), items=legend(name, last), empty=empty)
        self._draw_machine()
        self._place()
        set_changed(self.head, now=[] if last is None else room_words(last))
        self._draw_cores(last)

    def _draw_cores(self, last: Metrics | None) -> None:
        span = SPANS[self._span]
        told = last.values.get("cpu_percents") if last is not None else None
        set_changed(
            self.cores,
            now=[] if last is None else core_values(last),
            names=core_names(len(told) if isinstance(told, list) else 0),
            span_s=span.span_s,
        )
        cell = int(self._visit.now() // (span.span_s / CELLS))
        if cell != self._cell:  # the last one is over
            self._cell = cell
            samples = self._mirror.metrics if self._span == LIVE else self._history
            set_changed(self.cores, cells=core_cells(samples, span))


def _low(card: AnyCard) -> AnyCard:
    """A card that is as high as what is in it."""
    card.param.update(sizing_mode="stretch_width", styles={"height": "auto"})
    return card


def _column(*parts: pn.viewable.Viewable, css: str) -> pn.Column:
    return pn.Column(*parts, stylesheets=[css], sizing_mode="stretch_width", margin=0)
