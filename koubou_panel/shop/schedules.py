"""Tells the hub when a script's schedule is due. It decides nothing: one due time told twice is one run."""

from __future__ import annotations

import asyncio
import heapq
import logging
import math
import time
from collections.abc import Callable, Sequence

from koubou_panel import registry
from koubou_panel.core.commands import ScheduleDue
from koubou_panel.core.events import SCRIPT_FACTS, PoolChanged, Sample, ScriptEdited, ScriptRan, ScriptSaved
from koubou_panel.core.records import TaskId
from koubou_panel.core.schedule import latest_due
from koubou_panel.core.script import Entry, request_of
from koubou_panel.core.state import Folded, State
from koubou_panel.errors import Refused
from koubou_panel.shop.clock import Clock
from koubou_panel.shop.hub import Hub

LONGEST_S = 30.0  # the machine's clock may be set, or the machine have slept
TURN_SCRIPTS = 20  # told of in one turn of the loop, and each is decided and stored
TURN_S = 0.004
VOID_SHARE = 4

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
        self._heap: list[tuple[float, str]] = []
        self._places: dict[str, float] = {}  # where a script stands in the heap; all else there is void
        self._told: set[str] = set()  # what came of it is not folded yet
        self._unsubscribe = hub.subscribe(self)

    def close(self) -> None:
        """Watch no more."""
        self._unsubscribe()
        if self._timer is not None:
            self._timer.cancel()

    def on_reset(self, state: State) -> None:
        """Look at a whole new catalogue."""
        self._state = state
        self._told.clear()
        self._places = {
            name: at for name, entry in state.scripts.items() if (at := _look_at(entry)) < math.inf
        }
        self._heap = [(at, name) for name, at in self._places.items()]
        heapq.heapify(self._heap)
        self._look_soon()

    def on_facts(self, folded: Sequence[Folded]) -> None:
        """Look again at what changed."""
        is_changed = False
        for fact, _, _ in folded:
            if isinstance(fact, SCRIPT_FACTS):
                name = fact.script.name if isinstance(fact, ScriptSaved) else fact.name
                if not isinstance(fact, ScriptRan | ScriptEdited):
                    self._told.discard(name)
                is_changed |= self._place(name)
            elif isinstance(fact, PoolChanged):  # what was told while no work was taken is still due
                told, self._told = self._told, set()
                for name in told:
                    self._place(name)
                is_changed = True
        if is_changed:
            self._look_soon()

    def on_samples(self, samples: Sequence[Sample]) -> None:
        """A sample makes nothing due."""

    def _place(self, name: str, at: float | None = None) -> bool:
        """Have a script looked at when it is time, or at `at`; whether that is another time than before."""
        if at is None and name in self._told:
            return False
        if at is None:
            entry = self._state.scripts.get(name)
            at = math.inf if entry is None else _look_at(entry)
        if self._places.get(name, math.inf) == at:
            return False
        if at == math.inf:
            del self._places[name]
            return False
        self._places[name] = at
        heapq.heappush(self._heap, (at, name))
        if len(self._heap) > VOID_SHARE * len(self._places) + TURN_SCRIPTS:
            self._heap = [(at, name) for name, at in self._places.items()]
            heapq.heapify(self._heap)
        return True

    def _look_soon(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_soon(self._look)

    def _look(self) -> None:
        """Tell what is due, a little of it at a time: between that goes on all else that the loop has to do."""
        self._timer = None
        if not self._state.pool.takes_work:
            return
        now = self._clock()
        until = time.perf_counter() + TURN_S
        left = TURN_SCRIPTS
        while self._heap and self._heap[0][0] <= now and left and time.perf_counter() < until:
            at, name = heapq.heappop(self._heap)
            if self._places.get(name) != at:
                continue
            # What is told and leads to no fact, as while the clock was set back, is told again.
            self._told.discard(name)
            del self._places[name]
            left -= 1
            try:
                self._look_at(name, now)
            except Exception:
                log.exception("the schedule of script %s could not be looked at", name)
                self._place(name, now + LONGEST_S)
        if self._heap and self._heap[0][0] <= now:
            self._timer = self._loop.call_later(0.0, self._look)
            return
        wait_s = min(LONGEST_S, self._heap[0][0] - now if self._heap else LONGEST_S)
        self._timer = self._loop.call_later(max(0.001, wait_s), self._look)

    def _look_at(self, name: str, now: float) -> None:
        """Tell what is due of one script."""
        entry = self._state.scripts.get(name)
        if entry is None:
            return
        schedule, next_at = entry.script.schedule, entry.next_at
        is_told = False
        if entry.queued and not entry.active:
            self._tell(entry, entry.queued[0], 0)
            is_told = True
        if next_at is not None and schedule is not None and next_at <= now:
            due, missed = latest_due(schedule, next_at, now, anchor=entry.anchor)
            self._tell(entry, due, missed)
            is_told = True
        if is_told:
            self._told.add(name)
            self._place(name, now + LONGEST_S)
        else:
            self._place(name)

    def _tell(self, entry: Entry, fire_at: float, missed: int) -> None:
        name = entry.script.name
        try:
            request = request_of(entry.script, self._next_id(), {}, fire_at=fire_at)
            request = registry.prepare(request, from_network=False)
        except Refused as refused:
            self._hub.report(ScheduleDue(name, fire_at, missed, None, f"not run: {refused.message}"))
        else:
            self._hub.report(ScheduleDue(name, fire_at, missed, request))


def _look_at(entry: Entry) -> float:
    """When a script is to be looked at: 0 for at once, infinity for not at all."""
    if entry.queued and not entry.active:
        return 0.0
    return math.inf if entry.next_at is None or entry.script.schedule is None else entry.next_at
