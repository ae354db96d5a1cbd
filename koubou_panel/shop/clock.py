"""The shop's clock: the one place where time comes from, and whether it was moved."""

from __future__ import annotations

import time
from collections.abc import Callable

Clock = Callable[[], float]

#: What a clock that is kept right by small steps stays below.
JUMP_S = 1.0


def utc_now() -> float:
    """UTC seconds since the epoch."""
    return time.time()


class Jumps:
    """Finds out that the clock was set, or that the machine slept, by a second one that does neither.

    Args:
        now: UTC seconds, of this moment.
        steady: seconds from any moment on, of which none pass while the machine sleeps (`time.monotonic`).
    """

    def __init__(self, now: float, steady: Clock) -> None:
        """Begin to compare."""
        self._steady = steady
        self._apart_s = now - steady()

    def since(self, now: float) -> float:
        """By how many seconds the clock has jumped since this was last asked; 0.0 as long as both go on alike."""
        apart_s = now - self._steady()
        gap_s, self._apart_s = apart_s - self._apart_s, apart_s
        return gap_s if abs(gap_s) >= JUMP_S else 0.0
