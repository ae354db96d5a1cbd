"""The pool and its workers: how many there may be, what each does, and what it did in the last minutes."""

from __future__ import annotations

from collections.abc import Mapping

import param

from koubou_panel.core.records import Task, TaskId
from koubou_panel.reactive.mirror import Changes
from koubou_panel.views import worker_rows
from koubou_panel.views.cards import Card, set_changed
from koubou_panel.views.language import later
from koubou_panel.views.pace import LISTS_S, Pace
from koubou_panel.views.visit import Visit

Message = Mapping[str, object]


class WorkersPage:
    """`?page=workers`."""

    name = "workers"
    label = later("Workers")
    place = 20

    def build(self, visit: Visit) -> WorkersView:
        """The page for one visit."""
        return WorkersView(visit)


class WorkersCard(Card):
    """The pool with its controls, and each worker with its runs of the last five minutes.

    Sends `ready`, `show` (which rows), `open`, `scale`, `pause`, `resume`, `drain` and `restart`; takes runs as
    messages.
    """

    rows = param.List(default=[])
    bands = param.List(default=[], doc="every worker by its machine, where they are too many: node, cells")
    first = param.Integer(default=0, doc="which of all the first row is")
    total = param.Integer(default=0)
    note = param.String(doc="the pool in words")
    pool = param.Dict(default={}, doc="min, max, state (`paused`, `draining`, `closing` or empty)")
    decisions = param.List(default=[], doc="the pool's last ones about its size: at, text")
    can_act = param.Boolean(default=True)
    hint = param.String(doc="said when there is no worker")


class WorkersView:
    """The page's one card, over the mirror of the visit."""

    def __init__(self, visit: Visit) -> None:
        """Empty: see `draw`."""
        self._visit = visit
        self._mirror = visit.mirror
        self._first = 0
        self._is_live = False
        self._lists = Pace(LISTS_S, at_once=6)
        self._ended: list[Task] = []
        self._has_moved = False
        self.root = visit.card(
            WorkersCard, can_act=visit.can_act, on_message=self._on_message, sizing_mode="stretch_width"
        )

    def draw(self) -> None:
        """Show what the mirror holds."""
        self._draw_pool()
        self._send_lanes()

    @property
    def owes(self) -> bool:
        """Whether there is something to show that was put off."""
        return self._lists.owes

    def update(self, changes: Changes) -> None:
        """Show what changed; when much happens, not each time."""
        if changes.reset:
            self.draw()
            return
        self._ended += changes.ended
        has_moved = bool(changes.ended or "running" in changes.shop or changes.workers)
        self._has_moved = self._has_moved or has_moved
        is_other = has_moved or changes.shop or changes.tasks
        if (is_other or self._lists.owes) and self._lists.may():
            self._draw_pool()
            if self._has_moved:
                self._send_new()

    def tick(self) -> None:
        """Nothing changes with time alone, the browser counts by itself; but it may have asked before it was ready."""
        if not self._is_live:
            self._is_live = True
            self._draw_pool()

    def _on_message(self, kind: str, message: Message) -> None:
        if kind == "ready":
            self._send_lanes()
        elif kind == "show":
            self._show(message.get("first"))
        else:
            self._visit.act(kind, message)

    def _show(self, first: object) -> None:
        """Show the rows from this worker on."""
        if isinstance(first, int) and not isinstance(first, bool) and first >= 0:
            self._first = first // worker_rows.SHOWN_WORKERS * worker_rows.SHOWN_WORKERS
            # The browser asks while it draws the page; what is changed for it before it has, it may miss.
            if self._is_live:
                self._draw_pool()

    def _draw_pool(self) -> None:
        model = self._mirror.model
        if self._first >= len(model.workers):  # they are fewer now
            self._first = 0
        shown = worker_rows.page_of(model.workers, self._first)
        set_changed(
            self.root,
            rows=worker_rows.worker_rows(shown),
            bands=worker_rows.bands(model.workers),
            first=self._first,
            total=len(model.workers),
            note=worker_rows.pool_note(model),
            pool=worker_rows.pool_state(model),
            decisions=worker_rows.decision_rows(model),
            hint=worker_rows.empty_words(model),
        )

    def _send_lanes(self) -> None:
        """Give the card its history: it has just been drawn in a browser, or is seen again."""
        self._ended = []
        self.root.send(self._lanes(list(self._mirror.recent), reset=True))

    def _send_new(self) -> None:
        """Give the card what it has not been told of yet."""
        self.root.send(self._lanes(self._ended, reset=False))
        self._ended, self._has_moved = [], False

    def _lanes(self, ended: list[Task], *, reset: bool) -> Message:
        known = self._visit.shop.state.tasks
        running = []
        for worker in self._mirror.model.workers:
            task = known.get(TaskId(worker.current_task)) if worker.current_task else None
            if task is not None and task.started_at is not None:
                running.append((worker.worker_id, task.started_at, None, "run"))
        since = self._visit.now() - worker_rows.LANE_S
        return {"reset": reset, "ended": worker_rows.lane_runs(ended, since), "running": running}
