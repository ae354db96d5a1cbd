"""How often what costs a browser much is drawn: at once while little happens, seldom while much does."""

from __future__ import annotations

import time
from collections.abc import Callable

#: Lists, which nobody reads faster; and figures, of which each costs a browser as much as all the rest.
LISTS_S, FIGURES_S = 0.5, 1.0


class Pace:
    """Says whether something may be drawn now: a few times in a row, then once in each so many seconds.

    What may not be drawn yet is owed: the page's next beat, at most a second later, draws it.

    Args:
        every_s: how far apart it is drawn while something happens all the time.
        at_once: how many times it may be drawn in a row after a quiet while.
        now: gives seconds of a clock that is never set.

    """

    def __init__(
        self, every_s: float, *, at_once: int = 3, now: Callable[[], float] = time.monotonic
    ) -> None:
        """It may be drawn."""
        self.owes = False
        self._every_s = every_s
        self._at_once = at_once
        self._now = now
        self._left = float(at_once)
        self._looked_at = now()

    def may(self) -> bool:
        """Whether it may be drawn; it then is. If not, it is owed."""
        now = self._now()
        self._left = min(self._at_once, self._left + (now - self._looked_at) / self._every_s)
        self._looked_at = now
        self.owes = self._left < 1
        if not self.owes:
            self._left -= 1
        return not self.owes

    def owed(self) -> bool:
        """Whether something is still to be drawn; it then is."""
        owes, self.owes = self.owes, False
        return owes
