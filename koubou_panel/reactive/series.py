"""What ended second by second over the last quarter of an hour and the one before, counted from facts."""

from __future__ import annotations

from collections import deque
from itertools import islice
from math import nan
from typing import NamedTuple

KEEP_S = 900
KEEP_ROWS_S = 2 * KEEP_S
P95_WINDOW_S = 60
LAG_S = 0.5
"""A second is closed this long after its end: its last facts are still on their way. Later ones count in the next."""

_DURATIONS_A_SECOND = 64


class Second(NamedTuple):
    """One closed second: how many tasks ended in it, and the p95 of run seconds over the minute up to it.

    `completed` and `failed` are NaN where nobody can know, `p95_s` where nothing ended.
    """

    at: int
    completed: float
    failed: float
    p95_s: float


class _Open:
    __slots__ = ("completed", "durations", "failed")

    def __init__(self) -> None:
        self.completed = 0
        self.failed = 0
        self.durations: list[float] = []


class Throughput:
    """Ended tasks in one-second steps, with no second left out.

    Args:
        now: the present moment, UTC seconds.
        known_since: from when on every end will be told to `add`; the steps before it are NaN.

    """

    def __init__(self, now: float, *, known_since: float = 0.0) -> None:
        """Begin half an hour before `now`."""
        self.rows: deque[Second] = deque(maxlen=KEEP_ROWS_S)
        self._known_since = known_since
        self._next = int(now) - KEEP_ROWS_S
        self._open: dict[int, _Open] = {}
        self._window: deque[list[float]] = deque(maxlen=P95_WINDOW_S)
        self._p95_s = nan
        self._counted: dict[tuple[int, int], tuple[int, int]] = {}

    def add(self, at: float, *, failed: bool, duration_s: float | None) -> None:
        """Count a task that ended at `at`; in the first open second if its own is closed already."""
        second = max(int(at), self._next)
        step = self._open.get(second)
        if step is None:
            step = self._open[second] = _Open()
        if failed:
            step.failed += 1
        else:
            step.completed += 1
        if duration_s is not None and len(step.durations) < _DURATIONS_A_SECOND:
            step.durations.append(duration_s)

    def advance(self, now: float) -> list[Second]:
        """Close every second that is over at `now`, and give them, oldest first."""
        end = int(now - LAG_S)
        if end - self._next > KEEP_ROWS_S:  # nobody asked for long: what fell off the far end is gone
            self._next = end - KEEP_ROWS_S
            self._open = {second: step for second, step in self._open.items() if second >= self._next}
        closed = [self._close(second) for second in range(self._next, end)]
        self._next = max(self._next, end)
        if closed:
            self.rows.extend(closed)
            self._counted.clear()
        return closed

    def last(self, seconds: int) -> tuple[int, int]:
        """How many completed and failed in the last so many closed seconds and since."""
        completed, failed = self._count(0, seconds)
        completed += sum(step.completed for step in self._open.values())
        failed += sum(step.failed for step in self._open.values())
        return completed, failed

    def known_s(self, seconds: int) -> float:
        """Of how much of the last so many seconds every end is known."""
        return max(0.0, min(float(seconds), self._next - self._known_since))

    def before(self, seconds: int) -> tuple[int, int]:
        """How many completed and failed in as many closed seconds before the last ones; 0 where nobody knows it."""
        return self._count(seconds, 2 * seconds)

    def _count(self, begin: int, end: int) -> tuple[int, int]:
        """How many completed and failed in the closed seconds so far back; added up once a second, not once a frame."""
        known = self._counted.get((begin, end))
        if known is None:
            found = [row for row in islice(reversed(self.rows), begin, end) if row.completed == row.completed]
            known = int(sum(row.completed for row in found)), int(sum(row.failed for row in found))
            self._counted[begin, end] = known
        return known

    def _close(self, second: int) -> Second:
        step = self._open.pop(second, None)
        durations = step.durations if step is not None else []
        leaves = len(self._window) == P95_WINDOW_S and bool(self._window[0])
        self._window.append(durations)
        if durations or leaves:
            self._p95_s = _p95([value for second in self._window for value in second])
        if second + 1 <= self._known_since:
            return Second(second, nan, nan, nan)
        if step is None:
            return Second(second, 0, 0, self._p95_s)
        return Second(second, step.completed, step.failed, self._p95_s)


def _p95(values: list[float]) -> float:
    # Nearest rank: the value that 95 % do not exceed.
    if not values:
        return nan
    values.sort()
    return values[min(len(values) - 1, int(len(values) * 0.95))]
