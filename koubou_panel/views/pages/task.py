"""One task: how it stands, what it uses and has used, what it prints, and a line to type for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import panel as pn
import param

from koubou_panel.core.records import Task
from koubou_panel.errors import Refused
from koubou_panel.reactive.mirror import Changes
from koubou_panel.reactive.models import TaskModel
from koubou_panel.views.cards import Card, ChartHead, InputCard, Message, TaskCard, set_changed
from koubou_panel.views.copy_as import Doors, copies
from koubou_panel.views.curves import LINES, PANELS, Panel, TaskCurves
from koubou_panel.views.detail import LongTexts, curve_values, detail
from koubou_panel.views.language import _, later
from koubou_panel.views.reruns import Link, reruns
from koubou_panel.views.theme import DATA
from koubou_panel.views.viewer import Viewer
from koubou_panel.views.visit import Visit
from koubou_panel.views.words import size

_TITLES: dict[Panel, str] = {
    "cpu": later("CPU, % of a core"),
    "rss": later("Memory"),
    "storage": later("Storage, per second"),
    "gpu": later("GPU, %"),
}
_GRID = """
:host { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 6px 14px; width: 100%; }
.wide { grid-column: 1 / -1; }
.scroll-button { display: none; }
@media (max-width: 700px) { :host { grid-template-columns: minmax(0, 1fr); } }
"""
_HEAD_PX, _FIGURE_PX = 24, 104
_GRID_PX = 2 * (_HEAD_PX + _FIGURE_PX) + 6


class ViewerCard(Card):
    """One task's whole output. Asks `lines` and `search`."""

    state = param.Dict(default={}, doc="see `Viewer.state`, and words for it; empty: none is open")


class TaskView:
    """The view of the one task that a visitor has opened, over the mirror of the visit. Under the document's lock."""

    def __init__(self, visit: Visit) -> None:
        """Closed."""
        self._visit = visit
        self._mirror = visit.mirror
        self._now = visit.now
        self.head = visit.card(TaskCard, can_act=visit.can_act, asks={"copies": self._copies})
        self.output = visit.card(ViewerCard, asks={"lines": self._lines, "search": self._search})
        self.input = visit.card(InputCard)
        self.plots = pn.Column(stylesheets=[_GRID], sizing_mode="stretch_width", margin=0)
        self.curves: TaskCurves | None = None
        self.model: TaskModel | None = None
        self._heads: dict[Panel, ChartHead] = {}
        self._run = 0
        self._viewer: Viewer | None = None
        self._task: Task | None = None
        self._reruns: list[Link] = []
        self._prepared: TaskCurves | None = None
        self._texts = LongTexts()

    @property
    def roots(self) -> dict[str, object]:
        """What stands where in the page."""
        return {
            "task": self.head,
            "task_curves": self.plots,
            "task_output": self.output,
            "task_input": self.input,
        }

    @property
    def cards(self) -> list[Card]:
        """The cards that are always there."""
        return [self.head, self.output, self.input]

    def show(self, task: Task, viewer: Viewer) -> None:
        """Open this task's view, in place of any other's; `viewer` reads its output."""
        self._end_curves()
        self._viewer, self._task = viewer, task
        self._texts = LongTexts()
        self._look_for_reruns()
        self.model = self._mirror.pin(task)
        self._draw()

    def close(self) -> None:
        """Show none; what fed its figures ends."""
        self.model = self._viewer = self._task = None
        self._texts = LongTexts()
        self._mirror.pin(None)
        set_changed(self.output, state={})
        self._end_curves()
        set_changed(self.head, given=[], task={})
        set_changed(self.input, task_id="")

    def prepare(self) -> None:
        """Make the figures that are likely to be shown: it takes its time. Any thread."""
        model = self.model
        if model is not None and model.started_at and self._run != model.run:
            curves = TaskCurves(model.started_at)
            for name in PANELS:
                if name != "gpu":
                    curves.figure(name)
            self._prepared = curves

    def fill(self, points: Mapping[str, Sequence[float | None]] | None) -> None:
        """Show the history of its run; None: there is none."""
        if self.model is None or not self.model.started_at:
            return
        if self.curves is None or self._run != self.model.run:
            self._end_curves()
            prepared, self._prepared = self._prepared, None
            is_fit = prepared is not None and prepared.started_at == self.model.started_at
            self.curves = prepared if prepared and is_fit else TaskCurves(self.model.started_at)
            self._run = self.model.run
        self.curves.reset(points or {})
        # Room for what a run is about to show, so that nothing below it jumps.
        self.plots.min_height = 0 if self.curves.is_empty and self.model.is_finished else _GRID_PX
        self.tick()
        self._place_figures(self.curves)

    @property
    def is_outdated(self) -> bool:
        """Whether its curves are of another run than it has now, or so long that they are to be read anew."""
        model, curves = self.model, self.curves
        if model is None or not model.started_at:
            return False
        return curves is None or self._run != model.run or curves.is_full

    def update(self, changes: Changes) -> None:
        """Show what changed."""
        model = self.model
        if model is None:
            return
        if changes.reset or changes.shop:
            self._look_for_reruns()
        if changes.reset or changes.shop or model.task_id in changes.tasks:
            self._draw()
            self._draw_heads()
        if self.curves is not None and changes.uses:
            self.curves.extend([(at, use) for at, run, use in changes.uses if run == self._run])
            self._place_figures(self.curves)

    def tick(self) -> None:
        """Once a second: the time axis follows a run, and stays when it has ended."""
        if self.curves is not None and self.model is not None:
            self.curves.show_until(self.model.finished_at or self._now())

    def draw(self) -> None:
        """Show everything anew."""
        self._draw()
        self._draw_heads()

    def _look_for_reruns(self) -> None:
        if self._task is not None:
            self._reruns = reruns(self._task, self._visit.shop.state.tasks)

    def _draw(self) -> None:
        model, task = self.model, self._task
        if model is None or task is None:
            return
        told = detail(model, self._mirror.model, task.request, self._texts) | {"reruns": self._reruns}
        # What it was given may be megabytes, and stays as it is.
        set_changed(self.head, given=told.pop("given"), task=told)
        reads = model.takes_input and model.status == "in_progress" and not model.stopping
        set_changed(self.input, task_id=model.task_id if reads and self._visit.can_act else "")
        self.draw_output()

    def draw_output(self) -> None:
        """Tell the card how much was printed."""
        model, viewer = self.model, self._viewer
        if model is None or viewer is None:
            return
        hint = _("It printed nothing.") if model.is_finished else _("What it prints appears here.")
        state = viewer.state
        words = {"size_words": size(state["size"]), "start_words": size(state["start"]), "hint": hint}
        set_changed(self.output, state=state | words | {"is_over": model.is_finished})

    async def _copies(self, message: Message) -> Message:
        """The open task as lines to copy."""
        task = self._task
        if task is None or message.get("task") != task.task_id:
            raise Refused("not_found", _("That task is not open any more."))
        home = self._visit.home
        doors = Doors.of(None if home is None else home.root, self._visit.shop.state.services)
        return {"copies": [list(copy) for copy in copies(task.request, doors)]}

    async def _lines(self, message: Message) -> Message:
        return await self._asked(message).window(message)

    async def _search(self, message: Message) -> Message:
        return await self._asked(message).search(message)

    def _asked(self, message: Message) -> Viewer:
        """Who reads what a question is about: it may come late."""
        if self._viewer is None or message.get("task") != self._viewer.task_id:
            raise Refused("not_found", _("That task is not open any more."))
        return self._viewer

    def _place_figures(self, curves: TaskCurves) -> None:
        """The figures in their places, once there is something to see: the GPU's only where one was used."""
        if curves.is_empty:
            return
        wanted = [name for name in PANELS if name != "gpu" or curves.has_gpu]
        if list(self._heads) == wanted:
            return
        # Before they are in the document: Panel may send what is set after that ahead of the figures themselves.
        self._heads = {name: self._heads.get(name) or self._chart_head(name) for name in wanted}
        self._draw_heads()
        self._place_next(curves, wanted, 1)

    def _place_next(self, curves: TaskCurves, wanted: list[Panel], count: int) -> None:
        """The first `count` of the figures, then one more at a time: the page goes on in between."""
        if curves is not self.curves or list(self._heads) != wanted:
            return
        known = {place.name: place for place in self.plots.objects}
        self.plots.objects = [known.get(name) or self._place(curves, name, wanted) for name in wanted[:count]]
        if count < len(wanted):
            self._visit.locked(lambda: self._place_next(curves, wanted, count + 1))

    def _place(self, curves: TaskCurves, name: Panel, wanted: list[Panel]) -> pn.Column:
        fig = pn.pane.Bokeh(curves.figure(name), sizing_mode="stretch_width", height=_FIGURE_PX, margin=0)
        return pn.Column(
            self._heads[name],
            fig,
            name=name,
            sizing_mode="stretch_width",
            height=_HEAD_PX + _FIGURE_PX,
            css_classes=["wide"] if name == wanted[-1] and len(wanted) % 2 else [],
            margin=0,
        )

    def _chart_head(self, name: Panel) -> ChartHead:
        return self._visit.card(ChartHead, sizing_mode="stretch_width", height=_HEAD_PX)

    def _draw_heads(self) -> None:
        values = curve_values(self.model.use if self.model else None)
        for name, head in self._heads.items():
            lines = LINES[name]
            items = [
                {
                    "label": _(of.label) if len(lines) > 1 else "",
                    "colour": DATA[of.colour],
                    "shape": "line" if of.dash == "solid" else "dash",
                    "value": values.get(of.column, ""),
                }
                for of in lines
            ]
            set_changed(head, items=items, title=_(_TITLES[name]))

    def _end_curves(self) -> None:
        self.curves, self._run = None, 0
        self._prepared = None
        self._heads = {}
        self.plots.objects = []
        self.plots.min_height = 0
