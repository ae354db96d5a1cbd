"""The task stream: a bar for each run on its worker's row, over a stretch of time that the visitor chooses.

The browser asks for a window (`StreamCard`'s question `window`), and asks anew when it is another; what ends after that
is sent as it ends, to a window that follows the present. Both go as one text of JSON that this process need not look
into again: as columns of a source, 20,000 runs would keep the loop for 0.2 s. The browser puts them into the figure's
source, without telling them back.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import isfinite
from typing import Any

import msgspec
import param
from bokeh.models import (
    CDSView,
    ColumnDataSource,
    CustomJSTickFormatter,
    FixedTicker,
    GroupFilter,
    HoverTool,
    PanTool,
    Range1d,
    TapTool,
    WheelZoomTool,
)
from bokeh.plotting import figure

from koubou_panel.core.ports import RunSpan
from koubou_panel.core.records import Task, TaskId
from koubou_panel.errors import Refused
from koubou_panel.reactive.mirror import Changes
from koubou_panel.reactive.models import label_of
from koubou_panel.views.cards import Card, Message, set_changed
from koubou_panel.views.charts import blank_figure
from koubou_panel.views.escape import line
from koubou_panel.views.language import _
from koubou_panel.views.pace import FIGURES_S, Pace
from koubou_panel.views.theme import DATA
from koubou_panel.views.visit import Visit

SPANS_S = (10, 60, 300, 3_600, 86_400, 7 * 86_400, 30 * 86_400)
FIRST_SPAN_S = 300
LEAST_S, MOST_S = 10.0, 30 * 86_400.0
#: So many can be drawn anew every second; the workshop would give `MOST_SPANS`.
MOST_BARS = 6_000
LABEL = 60
MARKS = {"completed": "ok", "failed": "fail", "cancelled": "cancel"}
#: By mark: the hatch that tells it without its colour.
HATCHES = {"ok": " ", "cancel": "horizontal_line", "fail": "right_diagonal_line", "run": "dot"}
# Seconds where moments are close, the day where they are far apart; in the viewer's own zone.
_MOMENT = """
const step = ticks.length > 1 ? ticks[1] - ticks[0] : 60000, at = new Date(tick)
const lang = document.documentElement.lang || "en"
const clock = {hour: "2-digit", minute: "2-digit", hourCycle: "h23"}, day = {month: "short", day: "numeric"}
if (step < 60000) return at.toLocaleTimeString(lang, {...clock, second: "2-digit"})
if (step >= 86400000) return at.toLocaleDateString(lang, day)
return at.getHours() + at.getMinutes() ? at.toLocaleTimeString(lang, clock) : at.toLocaleDateString(lang, day)
"""
COLUMNS = ("left", "right", "top", "bottom", "mark", "id", "name", "state", "took", "worker")


class StreamCard(Card):
    """The stream's head: which window is shown, and its pause; it feeds the figure.

    Asks `window`; sends `freeze`; takes `add`, runs that ended, and `again`: ask anew.
    """

    keys = param.List(default=[[mark, DATA[mark]] for mark in HATCHES], doc="of (mark, its colour)")
    spans = param.List(default=list(SPANS_S), doc="the widths that can be chosen, seconds")
    span = param.Number(default=FIRST_SPAN_S, doc="the one to begin with")
    most = param.Integer(default=MOST_BARS, doc="bars at once: more are asked for anew, added up")
    workers = param.List(default=[], doc="their names, those there are now")
    running = param.List(default=[], doc="of (task, worker, start, name)")
    paused = param.Boolean(default=False)


class TaskStream:
    """The card, its figure, and what is told to them. Under the document's lock."""

    def __init__(self, visit: Visit, on_freeze: Callable[[], None]) -> None:
        """Over the mirror of the visit; nothing is drawn before the browser asks.

        Args:
            visit: whose page it is.
            on_freeze: called when the visitor has the page stand still, or go on.

        """
        self._visit = visit
        self._on_freeze = on_freeze
        self._mirror = visit.mirror
        self._is_live = False
        #: Whether several browsers look, each at a window of its own: then what ends is sent always.
        self.is_shared = False
        self._pace = Pace(FIGURES_S)
        self._ended: deque[Task] = deque(maxlen=MOST_BARS)
        self.card = visit.card(StreamCard, asks={"window": self._window}, on_message=self._on_message)
        self._hover = HoverTool(point_policy="follow_mouse")
        self.figure = _figure(visit.now(), self._hover)

    @property
    def paused(self) -> bool:
        """Whether the visitor has the page stand still."""
        return bool(self.card.paused)

    def draw(self) -> None:
        """Show everything anew: the browser asks for its window again."""
        tooltips = [
            (_("task"), "@name"),
            (_("state"), "@state"),
            (_("took"), "@took"),
            (_("worker"), "@worker"),
        ]
        if self._hover.tooltips != tooltips:
            self._hover.tooltips = tooltips
        self._ended.clear()
        self._pace.owed()
        self._draw_running()
        self.card.send({"again": True})

    def update(self, changes: Changes) -> None:
        """Tell what ended, and what runs; while much does, at the next `tick`."""
        if self._is_live or self.is_shared:
            self._ended.extend(task for task in changes.ended if ran(task))
        if (changes.ended or changes.shop or changes.workers) and self._pace.may():
            self._tell()

    def tick(self) -> None:
        """Once a second: what was put off."""
        if self._pace.owed():
            self._tell()

    def _tell(self) -> None:
        self._draw_running()
        if self._ended:
            self.card.send({"add": encoded(map(span_of, self._ended))})
            self._ended.clear()

    def _draw_running(self) -> None:
        tasks = self._visit.shop.state.tasks
        running: list[list[object]] = []
        for worker in self._mirror.model.workers:
            task = tasks.get(TaskId(worker.current_task)) if worker.current_task else None
            if task is not None and task.started_at is not None:
                name = line(label_of(task), LABEL)
                running.append([task.task_id, line(worker.worker_id, 24), task.started_at, name])
        names = [line(worker.worker_id, 24) for worker in self._mirror.model.workers]
        set_changed(self.card, workers=names, running=running)

    def _on_message(self, kind: str, message: Message) -> None:
        if kind == "freeze":
            set_changed(self.card, paused=message.get("paused") is True)
            self._on_freeze()
        else:
            self._visit.act(kind, message)

    async def _window(self, message: Message) -> Mapping[str, object]:
        """The runs of a window: `rows` as `encoded` gives them, `bin_s` as of `RunSpans`."""
        start, end = (_moment(message.get(name)) for name in ("start", "end"))
        if not LEAST_S * 0.9 <= end - start <= MOST_S * 1.1:
            raise Refused("invalid", _("A window of the task stream is 10 s to 30 days wide."), field="end")
        self._is_live = message.get("live") is True
        if self.is_shared:
            self._tell()
        self._ended.clear()  # they are in what is read now
        if self._is_live:  # by our own clock: the browser learns what that says only with the next beat
            start, end = min(start, self._visit.now() - (end - start)), self._visit.now() + 1.0
        found = await self._visit.shop.spans(start, end, MOST_BARS)
        rows = await asyncio.to_thread(encoded, found.spans)
        return {"rows": rows, "bin_s": found.bin_s}


def ran(task: Task) -> bool:
    """Whether the task stood on a worker."""
    return bool(task.worker_id) and task.started_at is not None and task.finished_at is not None


def span_of(task: Task) -> RunSpan:
    """A task that ran, as its archive tells of it."""
    start, end = task.started_at or 0.0, task.finished_at or 0.0
    worker, label = task.worker_id, label_of(task)
    assert worker is not None  # noqa: S101 - see `ran`
    return RunSpan(worker, start, end, task.status, task.task_id, label, 1, max(0.0, end - start))


def encoded(spans: Iterable[RunSpan]) -> str:
    """Runs as columns, as JSON text, the first to end first. Worker and name are places in `workers` and `names`.

    Returns:
        `start` (UTC seconds), `took` (seconds from start to end), `busy` (seconds), `worker`, `name`, `mark`, `id`
        (empty: several), `count`; and `workers` and `names`.
    """
    ordered = sorted(spans, key=_end)
    workers: dict[str, int] = {}
    names: dict[str, int] = {}
    columns: dict[str, Sequence[object]] = {
        "start": [round(span.start, 3) for span in ordered],
        "took": [round(span.end - span.start, 3) for span in ordered],
        "busy": [round(span.busy_s, 3) for span in ordered],
        "worker": [workers.setdefault(span.worker_id, len(workers)) for span in ordered],
        "name": [names.setdefault(span.label, len(names)) for span in ordered],
        "mark": [MARKS.get(span.status, "cancel") for span in ordered],
        "id": [span.task_id for span in ordered],
        "count": [span.count for span in ordered],
    }
    columns["workers"] = [line(name, 24) for name in workers]
    columns["names"] = [line(name, LABEL) for name in names]
    return msgspec.json.encode(columns).decode()


def _end(span: RunSpan) -> float:
    return span.end


def _moment(value: object) -> float:
    """A moment that a browser named."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        raise Refused("invalid", _("A window of the task stream has a start and an end."), field="start")
    return float(value)


def _figure(now: float, hover: HoverTool) -> figure:
    """Rectangles by mark, those that went wrong above the others. The browser names rows and moments."""
    x_range = Range1d(
        start=(now - FIRST_SPAN_S) * 1000,
        end=now * 1000,
        min_interval=LEAST_S * 1000,
        max_interval=MOST_S * 1000,
        name="stream-x",
    )
    fig = blank_figure(x_range)
    fig.name = "stream-figure"
    fig.y_range = Range1d(start=0.5, end=-0.5, name="stream-y")
    fig.grid.grid_line_color = None
    fig.xaxis[0].update(ticker=FixedTicker(ticks=[], minor_ticks=[]), name="stream-times")
    fig.xaxis[0].formatter = CustomJSTickFormatter(code=_MOMENT)
    fig.yaxis[0].update(ticker=FixedTicker(ticks=[], minor_ticks=[]), name="stream-rows")
    ended, running = (
        ColumnDataSource({name: [] for name in COLUMNS}, name=name)
        for name in ("stream-ended", "stream-running")
    )
    bars = [_bars(fig, ended, mark, CDSView(filter=_only(mark))) for mark in ("ok", "cancel", "fail")]
    bars.append(_bars(fig, running, "run", CDSView()))
    wheel, pan = WheelZoomTool(dimensions="width", zoom_on_axis=False), PanTool(dimensions="width")
    hover.renderers = bars
    fig.add_tools(wheel, pan, TapTool(renderers=bars), hover)
    fig.toolbar.update(active_scroll=wheel, active_drag=pan)
    return fig


def _only(mark: str) -> GroupFilter:
    return GroupFilter(column_name="mark", group=mark)


def _bars(fig: figure, source: ColumnDataSource, mark: str, view: CDSView) -> Any:
    # No line around it: it would be as much to paint again. The browser sees to a pixel at least.
    look: dict[str, Any] = {"fill_color": DATA[mark], "line_color": None}
    if mark != "ok":
        look |= {"hatch_pattern": HATCHES[mark], "hatch_alpha": 0.4, "hatch_scale": 6, "hatch_weight": 1.4}
    bars = fig.quad(left="left", right="right", top="top", bottom="bottom", source=source, view=view, **look)
    bars.nonselection_glyph = bars.selection_glyph = None
    return bars
