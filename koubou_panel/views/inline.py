"""What is shown under a cell of a notebook: one task's card, or the workshop's numbers, lists and charts.

The same cards and figures as on a page, over the mirror of the display; `views/inline_session.py` feeds them.
"""

from __future__ import annotations

from typing import Protocol

import param
from bokeh.plotting import figure

from koubou_panel.core.records import Task, TaskId
from koubou_panel.reactive.mirror import Changes
from koubou_panel.reactive.models import TaskModel
from koubou_panel.views.cards import Card, set_changed
from koubou_panel.views.detail import LongTexts, curve_values, detail
from koubou_panel.views.escape import line
from koubou_panel.views.output import OutputTail
from koubou_panel.views.pages.overview import Overview
from koubou_panel.views.visit import Visit

SHOWN_LINES = 40


class Shown(Protocol):
    """What a display shows. `kind` names its layout in the browser."""

    kind: str

    @property
    def cards(self) -> dict[str, Card]:
        """By the names that the layout knows."""

    @property
    def figures(self) -> dict[str, figure]:
        """By the names that the layout knows."""

    @property
    def is_ended(self) -> bool:
        """Whether what it shows has ended, though not all of it may be shown."""

    @property
    def is_over(self) -> bool:
        """Whether nothing more of it will change."""

    def update(self, changes: Changes) -> None:
        """Show what changed."""

    def tick(self) -> None:
        """Once a second: what changes with time alone."""

    async def read(self) -> bool:
        """Read what is kept beside the state, such as output; whether there is something new to `update`."""


class InlineTask(Card):
    """One task: status, progress, what it uses, its last lines. Sends `cancel`."""

    task = param.Dict(
        default={},
        doc="as `views.detail.detail` has it, and `uses`, what it uses now, and `result`, in words",
    )
    lines = param.List(default=[], doc="the last of its output: (number, runs)")
    can_act = param.Boolean(default=True)


class TaskShown:
    """One task."""

    kind = "task"

    def __init__(self, visit: Visit, task: Task) -> None:
        """Over the mirror of the visit."""
        self._mirror = visit.mirror
        self._shop = visit.shop
        self._texts = LongTexts()
        self._request = task.request
        self._tail = OutputTail(visit.shop)
        self._lines: list[list[object]] = []
        self._count = 0
        self._card = visit.card(InlineTask, can_act=visit.can_act)
        self._model: TaskModel | None = visit.mirror.pin(task)
        self._draw()

    @property
    def cards(self) -> dict[str, Card]:
        """The one."""
        return {"task": self._card}

    @property
    def figures(self) -> dict[str, figure]:
        """None."""
        return {}

    @property
    def is_ended(self) -> bool:
        """Whether the task has ended."""
        return self._model is not None and self._model.is_finished

    @property
    def is_over(self) -> bool:
        """Whether the task has ended, and all that it printed is shown."""
        return (
            self._model is not None
            and self._model.is_finished
            and not self._follows()
            and not self._tail.is_new
        )

    def update(self, changes: Changes) -> None:
        """Show how it stands, and what it printed."""
        if self._tail.is_new:
            self._take(self._tail.take())
        self._draw()

    def tick(self) -> None:
        """Nothing: the browser counts the seconds."""

    async def read(self) -> bool:
        """Read on in its output."""
        if self._follows():
            await self._tail.read()
        return self._tail.is_new

    def _follows(self) -> bool:
        if self._model is None:
            return False
        is_over = self._model.is_finished
        return self._tail.follow([] if is_over else [self._model], [self._model] if is_over else [])

    def _take(self, told: dict[str, object]) -> None:
        """Lines keep their number, so that the browser keeps what it has drawn of them."""
        for _task_id, runs in told["lines"]:  # type: ignore[attr-defined]
            self._lines.append([self._count, runs])
            self._count += 1
        del self._lines[:-SHOWN_LINES]
        open_line = [[self._count, runs] for _task_id, runs in told["open"]]  # type: ignore[attr-defined]
        set_changed(self._card, lines=[*self._lines, *open_line])

    def _draw(self) -> None:
        model = self._model
        if model is None:
            return
        told = detail(model, self._mirror.model, self._request, self._texts)
        uses = [] if model.is_finished else [word for word in curve_values(model.use).items() if word[1]]
        words = {"cpu": "CPU {}", "rss": "{}", "gpu": "GPU {}", "gpu_memory": "{}"}
        told["uses"] = " · ".join(words[name].format(value) for name, value in uses)
        told["result"] = self._result(model)
        left_out = ("given", "facts", "can_edit", "waits_for")
        set_changed(self._card, task={name: value for name, value in told.items() if name not in left_out})

    def _result(self, model: TaskModel) -> str:
        task = self._shop.state.tasks.get(TaskId(model.task_id)) if model.is_finished else None
        return "" if task is None else line(result_words(task), 200)


def result_words(task: Task) -> str:
    """What a function returned, in short; of a command or a prompt its output tells it."""
    is_told = task.request.kind == "function" and task.result != "None"
    return task.result or "" if is_told else ""


class WorkshopShown:
    """The workshop as its Overview has it: six numbers, the task stream, what runs, and two charts."""

    kind = "workshop"

    def __init__(self, visit: Visit) -> None:
        """Over the mirror of the visit."""
        self._view = Overview(visit)
        self._view.stream.is_shared = True

    @property
    def cards(self) -> dict[str, Card]:
        """Those of the Overview that have a place."""
        view = self._view
        return {
            "tiles": view.tiles,
            "stream": view.stream.card,
            "running": view.running,
            "throughput_head": view.trend.throughput_head,
            "host_head": view.trend.host_head,
        }

    @property
    def figures(self) -> dict[str, figure]:
        """Its figures."""
        view = self._view
        return {
            "stream": view.stream.figure,
            "throughput": view.trend.throughput.figure,
            "host": view.trend.host.figure,
        }

    @property
    def is_ended(self) -> bool:
        """Never: there may be new work."""
        return False

    is_over = is_ended

    def update(self, changes: Changes) -> None:
        """Show what changed."""
        self._view.update(changes)

    def tick(self) -> None:
        """Move the time axes on."""
        self._view.tick()

    async def read(self) -> bool:
        """Nothing: output is not shown."""
        return False
