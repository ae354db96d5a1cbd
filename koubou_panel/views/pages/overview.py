"""The Overview: is anything wrong, how busy is it, what runs now, what is the trend."""

from __future__ import annotations

from collections import deque
from math import nan

import panel as pn

from koubou_panel.reactive.mirror import Changes
from koubou_panel.views import rows
from koubou_panel.views.cards import (
    Card,
    OutputCard,
    RunningCard,
    TileRow,
    set_changed,
)
from koubou_panel.views.first import First
from koubou_panel.views.language import _
from koubou_panel.views.pace import LISTS_S, Pace
from koubou_panel.views.stream import TaskStream
from koubou_panel.views.trend import Trend
from koubou_panel.views.visit import Visit


class Overview:
    """The page's cards and figures over the mirror of the visit. Under the document's lock."""

    def __init__(self, visit: Visit) -> None:
        """Build everything from what the mirror holds."""
        self._visit = visit
        self._mirror = mirror = visit.mirror
        self._now = now = visit.now
        self._levels: deque[tuple[float, float]] = deque(maxlen=rows.SPARK_STEPS)
        self._levels.extend(rows.past_levels(mirror.tasks_of_late(), now()))
        self._next_level_at = 0.0
        self._lists = Pace(LISTS_S, at_once=6)
        self.tiles = visit.card(TileRow)
        self.stream = TaskStream(visit, on_freeze=self._freeze)
        self.running = visit.card(RunningCard, can_act=visit.can_act)
        self.output = visit.card(OutputCard, title=_("Live output"))
        self.first = First(visit)
        self.trend = Trend(visit)
        self.draw()

    @property
    def roots(self) -> dict[str, object]:
        """What stands where in the page's grid."""
        return {
            "tiles": self.tiles,
            "first": self.first.card,
            "stream_head": self.stream.card,
            "stream": _pane(self.stream.figure),
            "running": self.running,
            "output": self.output,
            **self.trend.roots,
        }

    @property
    def cards(self) -> list[Card]:
        """The cards among them."""
        return [root for root in self.roots.values() if isinstance(root, Card)]

    @property
    def is_fresh(self) -> bool:
        """Whether nothing has ever run here."""
        return bool(self.first.card.shown)

    def draw(self) -> None:
        """Show what the mirror holds, all of it anew."""
        self.trend.draw()
        self.stream.draw()
        self._draw_numbers()
        self._draw_lists()
        self._lists.owed()
        set_changed(self.output, title=_("Live output"))
        self.tick()

    @property
    def paused(self) -> bool:
        """Whether the visitor has the page stand still."""
        return self.stream.paused

    def _freeze(self) -> None:
        if not self.paused:
            self.draw()
            self._visit.act("ready", {})  # the output that came meanwhile

    def update(self, changes: Changes) -> None:
        """Show what changed, unless the page is to stand still."""
        if self.paused:
            return
        if changes.reset:
            self.draw()
            return
        self.stream.update(changes)
        self.trend.update(changes)
        if changes.shop or changes.workers or changes.seconds:
            self._draw_numbers()
        is_listed = bool(changes.shop or changes.workers or changes.tasks)
        if (is_listed or self._lists.owes) and self._lists.may():
            self._draw_lists()

    @property
    def owes(self) -> bool:
        """Whether there is something to draw that was put off: another frame is needed though nothing changes."""
        return self._lists.owes and not self.paused

    def tick(self) -> None:
        """Once a second: move the time axis on, and draw what was put off."""
        if self.paused:
            return
        now = self._now()
        self.stream.tick()
        self.trend.tick()
        self._draw_sparks()
        if now >= self._next_level_at:
            self._note_level(now)

    def _note_level(self, now: float) -> None:
        """Add a step to the lines of what waits and what runs; where some are missing, the page was not seen."""
        model = self._mirror.model
        missed = int((now - self._next_level_at) / rows.SPARK_STEP_S) if self._next_level_at else 0
        if missed > 0:
            tasks = self._mirror.tasks_of_late()
            self._levels.extend(
                rows.past_levels(tasks, now) if tasks else [(nan, nan)] * min(missed, rows.SPARK_STEPS)
            )
        self._levels.append((model.pending, rows.at_work(model)))
        self._next_level_at = now + rows.SPARK_STEP_S

    def _draw_numbers(self) -> None:
        model, throughput = self._mirror.model, self._mirror.throughput
        set_changed(self.tiles, tiles=rows.tiles(model, throughput, self._now()))
        self.first.draw()

    def _draw_sparks(self) -> None:
        set_changed(self.tiles, sparks=rows.sparks(self._mirror.throughput, self._levels))

    def _draw_lists(self) -> None:
        model = self._mirror.model
        running = rows.running_rows(model)
        set_changed(
            self.running,
            rows=running,
            ended=rows.ended_rows(reversed(self._mirror.recent)),
            failed=rows.failed_rows(reversed(self._mirror.recent)),
            more=max(0, model.in_progress - len(running)) if running else 0,
            waiting=rows.waiting_rows(model),
            waiting_more=max(0, model.pending - len(model.waiting)),
            hint=_(
                "Nothing runs just now. What you start appears here, with its progress and a way to stop it."
            ),
        )


def _pane(figure: object) -> pn.pane.Bokeh:
    return pn.pane.Bokeh(figure, sizing_mode="stretch_both", margin=0)
