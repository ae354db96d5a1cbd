"""A rate from values and the times they were seen at, and what follows from it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from koubou_panel.core.records import Progress

if TYPE_CHECKING:
    from koubou_panel.core.progress.meter import Reading

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
        self._counted: tuple[str, float | None] | None = None

    def follow(self, seen: Progress | Reading, at_s: float) -> None:
        """Take in how far `seen` is; a count in another unit or of another total begins anew, as does a fraction."""
        height = seen.fraction if seen.done is None else seen.done
        if height is None:
            return
        # Some tools tell a unit at times only: what a fraction is of makes no difference to it.
        counted = None if seen.done is None else (seen.unit, seen.total)
        if counted != self._counted:
            self._counted, self._value = counted, None
        self.note(height, at_s)

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


def estimated(known: Progress, rate: Rate, now_s: float) -> Progress:
    """`known` with a rate and the seconds left, worked out from `rate` where they were not said."""
    if known.fraction is None and known.done is None:
        return known
    rate.follow(known, now_s)
    own = rate.per_s(now_s)
    per_s = own if known.rate_per_s is None and known.done is not None else known.rate_per_s
    left = _left(known, per_s if known.done is not None else own) if known.eta_s is None else known.eta_s
    return Progress(
        known.fraction, known.done, known.total, known.unit, _rounded(left), known.message, _rounded(per_s)
    )


def _left(known: Progress, per_s: float | None) -> float | None:
    """Seconds until the end at `per_s`: of what is counted, or else of the fraction."""
    if known.fraction is None or known.fraction >= 1:
        return None if known.fraction is None else 0.0
    if not per_s:
        return None
    if known.done is None:
        return (1 - known.fraction) / per_s
    if known.total is not None:
        return max(0.0, known.total - known.done) / per_s
    return known.done * (1 - known.fraction) / known.fraction / per_s if known.fraction else None


def _rounded(value: float | None) -> float | None:
    """Three digits are as much as is known."""
    if value is None or not math.isfinite(value):
        return None
    return float(f"{value:.3g}")
