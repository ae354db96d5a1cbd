"""How far a run is, seen from its worker: what it says, or else what can be read from its output.

Output comes on one thread, what a function says on another, and the pulse asks on a third.
"""

from __future__ import annotations

import math
import time
from threading import Lock
from typing import Protocol

from koubou_panel.core.progress.rate import Rate, estimated
from koubou_panel.core.records import Progress

# A remaining time or a rate that alone has changed is told no more often.
ESTIMATES_EVERY_S = 1.0
# Of so many seconds one goes into looking at output, at most: a chatty run is looked at more seldom.
SECONDS_PER_LOOK_S = 50.0
UNKNOWN = Progress()


class Reader(Protocol):
    """A `ProgressReader`, whose import is left until something is printed: few functions print."""

    def feed(self, data: bytes) -> None:
        """Take in what was printed next."""

    def latest(self, now_s: float) -> Progress | None:
        """How far the run is."""


class Following:
    """The progress of one run. Costs nothing until there is something to follow."""

    def __init__(self) -> None:
        """Nothing was said or printed yet."""
        self._reader: Reader | None = None
        self._said: tuple[float | None, float | None, str, str] | None = None
        self._hinted: tuple[float | None, float | None, str, str] | None = None
        self._rate: Rate | None = None
        self._shown: Progress | None = None
        self._shown_s = 0.0
        self._next_look_s = -math.inf
        self._lock = Lock()

    def feed(self, data: bytes) -> None:
        """Take in output."""
        with self._lock:
            if self._reader is None:
                self._reader = _new_reader()
            self._reader.feed(data)

    def say(self, done: float | None, total: float | None, unit: str = "", message: str = "") -> None:
        """Take in what the run says; it wins over its output from now on."""
        self._said = (done, total, unit, message)

    def hint(self, said: tuple[float | None, float | None, str, str] | None) -> None:
        """Take in what a library says while it is at it, None when it is no more; it wins over the output alone."""
        self._hinted = said

    def latest(self, now_s: float) -> Progress | None:
        """How far it is at `now_s`; the same as before while only its estimates differ a little."""
        before = self._shown
        progress = self._look(now_s)
        if progress == before or progress is None:
            return before
        if before is not None and now_s - self._shown_s < ESTIMATES_EVERY_S and _is_alike(before, progress):
            return before
        self._shown, self._shown_s = progress, now_s
        return progress

    def last(self, now_s: float, *, succeeded: bool) -> Progress | None:
        """What stays of a run that has ended: where it broke off, or its end. A success is not left at 98 %."""
        if self._said is None and self._hinted is None and self._reader is None:
            return None
        self._latest(now_s)  # what came in one piece with the end counts as a whole line at the second look
        progress = self._latest(now_s)
        is_short = progress is not None and progress.fraction is not None and progress.fraction < 1
        return UNKNOWN if succeeded and is_short else progress

    def _look(self, now_s: float) -> Progress | None:
        """As `_latest`, but not so often that it costs much."""
        if now_s < self._next_look_s:
            return self._shown
        started_s = time.thread_time()
        progress = self._latest(now_s)
        self._next_look_s = now_s + SECONDS_PER_LOOK_S * (time.thread_time() - started_s)
        return progress

    def _latest(self, now_s: float) -> Progress | None:
        said = self._hinted if self._said is None else self._said
        if said is not None:
            if self._rate is None:
                self._rate = Rate()
            from koubou_panel.core.progress.told import told

            done, total, unit, message = said
            return estimated(told(done, total, unit=unit, message=message), self._rate, now_s)
        if self._reader is None:
            return None
        with self._lock:
            return self._reader.latest(now_s)


def _new_reader() -> Reader:
    from koubou_panel.core.progress.reader import ProgressReader

    return ProgressReader()


def _is_alike(one: Progress, other: Progress) -> bool:
    """Whether only the rate and the remaining time differ."""
    return (one.fraction, one.done, one.total, one.unit, one.message) == (
        other.fraction,
        other.done,
        other.total,
        other.unit,
        other.message,
    )
