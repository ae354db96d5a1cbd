"""How often a process that dies is started again."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

_MINUTE_S = 60.0


@dataclass(frozen=True)
class Patience:
    """How often a process that dies is started again: `restarts` times in `window_s` seconds, ever more slowly."""

    restarts: int = 5
    window_s: float = 60.0
    first_delay_s: float = 0.2
    longest_delay_s: float = 5.0

    def delay_after(self, died_at: deque[float], now: float, before_s: float) -> float:
        """How long to wait before a process that died `now` is started again; 0: it has died too often.

        Args:
            died_at: when it died before, oldest first; `now` is added, what is long ago leaves.
            now: any clock's seconds that only goes forward.
            before_s: how long was waited the last time.
        """
        died_at.append(now)
        while now - died_at[0] > self.window_s:
            died_at.popleft()
        if len(died_at) > self.restarts:
            return 0.0
        if len(died_at) == 1:
            return self.first_delay_s
        return min(self.longest_delay_s, 2 * max(before_s, self.first_delay_s))

    @property
    def words(self) -> str:
        """How often it died when it is given up."""
        window = "a minute" if self.window_s == _MINUTE_S else f"{self.window_s:g} s"
        return f"{self.restarts + 1} times in {window}"
