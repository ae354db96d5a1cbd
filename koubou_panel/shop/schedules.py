"""Tells the hub when a script's schedule is due. It decides nothing: one due time told twice is one run."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Sequence

from koubou_panel import registry
from koubou_panel.core.commands import ScheduleDue
from koubou_panel.core.events import SCRIPT_FACTS, PoolChanged, Sample
from koubou_panel.core.records import TaskId
from koubou_panel.core.schedule import latest_due
from koubou_panel.core.script import Entry, request_of
from koubou_panel.core.state import Folded, State
from koubou_panel.errors import Refused
from koubou_panel.shop.clock import Clock
from koubou_panel.shop.hub import Hub

LONGEST_S = 30.0  # the machine's clock may be set, or the machine have slept
WATCHED = (*SCRIPT_FACTS, PoolChanged)

log = logging.getLogger(__name__)


class Schedules:
    """Watches the catalogue. Loop thread only.

    Args:
        hub: is told, and followed.
        clock: gives UTC seconds.
        next_id: gives the id of a run's task.
    """

    def __init__(self, *, hub: Hub, clock: Clock, next_id: Callable[[], TaskId]) -> None:
        """Watch from now on; `close` ends it."""
        self._hub = hub
        self._clock = clock
        self._next_id = next_id
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.Handle | None = None
        self._state = hub.state
        self._unsubscribe = hub.subscribe(self)

    def close(self) -> None:
        """Watch no more."""
        self._unsubscribe()
        if self._timer is not None:
            self._timer.cancel()

    def on_reset(self, state: State) -> None:
        """Look at a whole new catalogue."""
        self._state = state
        self._look_soon()

    def on_facts(self, folded: Sequence[Folded]) -> None:
        """Look again when something of it changed."""
        if any(isinstance(fact, WATCHED) for fact, _, _ in folded):
            self._look_soon()

    def on_samples(self, samples: Sequence[Sample]) -> None:
        """A sample makes nothing due."""

    def _look_soon(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_soon(self._look)

    def _look(self) -> None:
        self._timer = None
        if not self._state.pool.takes_work:
            return
        now = self._clock()
        wake_at = now + LONGEST_S
        for entry in self._state.scripts.values():
            try:
                wake_at = min(wake_at, self._look_at(entry, now))
            except Exception:
                log.exception("the schedule of script %s could not be looked at", entry.name)
        self._timer = self._loop.call_later(max(0.001, wake_at - now), self._look)

    def _look_at(self, entry: Entry, now: float) -> float:
        """Tell what is due of one script; when it is next, as far as that is known."""
        if entry.queued and not entry.active:
            self._tell(entry, entry.queued[0], 0)
        schedule, next_at = entry.script.schedule, entry.next_at
        if next_at is None or schedule is None:
            return math.inf
        if next_at <= now:
            due, missed = latest_due(schedule, next_at, now, anchor=entry.anchor)
            self._tell(entry, due, missed)
            return math.inf
        return next_at

    def _tell(self, entry: Entry, fire_at: float, missed: int) -> None:
        name = entry.script.name
        try:
            request = request_of(entry.script, self._next_id(), {}, fire_at=fire_at)
            request = registry.prepare(request, from_network=False)
        except Refused as refused:
            self._hub.report(ScheduleDue(name, fire_at, missed, None, f"not run: {refused.message}"))
        else:
            self._hub.report(ScheduleDue(name, fire_at, missed, request))
