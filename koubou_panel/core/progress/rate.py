"""A rate from values and the times they were seen at."""

from __future__ import annotations

import math

# How far back it looks: of what was a minute ago a seventh still counts.
WINDOW_S = 30.0


class Rate:
    """Units per second, the last half minute weighing most (exponentially)."""

    def __init__(self) -> None:
        """Nothing was seen yet."""
        self._units = 0.0
        self._span_s = 0.0
        self._value: float | None = None
        self._at_s = 0.0
        self._step_s = 0.0

    def note(self, value: float, at_s: float) -> None:
        """`value` was seen at `at_s`; one that is lower than before begins anew."""
        if value == self._value:
            return
        if self._value is None or value < self._value:
            self._units = self._span_s = self._step_s = 0.0
        else:
            self._step_s = max(0.0, at_s - self._at_s)
            kept = math.exp(-self._step_s / WINDOW_S)
            self._units = self._units * kept + value - self._value
            self._span_s = self._span_s * kept + self._step_s
        self._value, self._at_s = value, at_s

    def per_s(self, now_s: float) -> float | None:
        """Units per second, None if not known yet; when the next step is overdue, less and less."""
        overdue_s = max(0.0, now_s - self._at_s - 2 * self._step_s)
        span_s = self._span_s + overdue_s
        return self._units / span_s if self._units > 0 and span_s > 0 else None
