"""How many of joblib's calls go together: by how long the last ones took.

joblib gives some calls at a time and is told of their end together; the shorter they are, the more, so that a worker
has the next one at hand. Each is a task of its own all the same, unless it takes so little that being a task would be
most of the work.
"""

from __future__ import annotations

TOGETHER_S = 0.03
IN_HAND_S = 0.025
MOST_TASKS = 16
TINY_S = 0.0005
IN_ONE_S = 0.005
LONG_S = 0.05
_NEW = 0.4


class Pace:
    """Learns from what has ended. Any thread."""

    def __init__(self) -> None:
        """Nothing is known: one at a time."""
        self._call_s: float | None = None
        self._work_s = 0.0
        self._seen_in_one = 1

    def learn(self, calls: int, tasks: int, took_s: float, cpu_s: float) -> None:
        """Note that so many calls, in so many tasks, took a worker so long, and so much of the processor."""
        seen_s, work_s = max(took_s / calls, 1e-9), max(cpu_s / calls, 1e-9)
        share = _NEW if self._call_s is not None else 1.0
        self._call_s = (1 - share) * (self._call_s or 0.0) + share * seen_s
        self._work_s = (1 - share) * self._work_s + share * work_s
        self._seen_in_one = max(self._seen_in_one, calls // tasks)

    def together(self) -> int:
        """How many calls to take from joblib at once."""
        if self._call_s is None:
            return 1
        return max(1, min(int(TOGETHER_S / self._short_s()), MOST_TASKS * self.in_one()))

    def in_one(self) -> int:
        """How many of them are to be one task; at most twice as many as were seen to be."""
        if self._call_s is None or self._call_s >= TINY_S:
            return 1
        return max(1, min(int(IN_ONE_S / self._call_s), 2 * self._seen_in_one))

    def in_hand(self) -> int | None:
        """How many tasks a worker should have before it before more are sent for it; None: however many there are."""
        if self._call_s is None or self._short_s() > IN_HAND_S:
            return None
        return int(IN_HAND_S / (self._short_s() * self.in_one()))

    def _short_s(self) -> float:
        """How long a call takes where nothing else is at work: a busy machine has them wait.

        One that takes long may wait for something else, and what waits with it must not be told of with it.
        """
        call_s = self._call_s or 0.0
        return call_s if call_s >= LONG_S else min(call_s, self._work_s)
