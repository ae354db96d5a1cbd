"""Task ids: sortable by time, chosen by whoever submits, so that a resend is the same task."""

from __future__ import annotations

import re

from koubou_panel.core.records import TaskId

_DIGITS = "0123456789abcdefghjkmnpqrstvwxyz"
_EPOCH_MS = 1_704_067_200_000  # 2024-01-01, so that 8 digits of milliseconds reach past 2058
_RANDOM_BITS = 30
_SHAPE = re.compile(r"[0-9a-hjkmnp-tv-z]{14}")


def make_task_id(ms: int, bits: int) -> TaskId:
    """A 14-character id: 8 digits of UTC milliseconds, 6 of `bits` (30 random bits), in base 32."""
    number = (ms - _EPOCH_MS) << _RANDOM_BITS | (bits & ((1 << _RANDOM_BITS) - 1))
    return TaskId("".join(_DIGITS[(number >> shift) & 31] for shift in range(65, -1, -5)))


class TaskIds:
    """Ids in a row that sort in the order they were made, even within one millisecond. Not thread-safe."""

    def __init__(self) -> None:
        """Start with no id made."""
        self._last_ms = -1
        self._bits = 0
        self._head = ""

    def make(self, now: float, bits: int) -> TaskId:
        """The next id; `bits` (30 random bits) counts for the first of a millisecond only."""
        ms = int(now * 1000)
        if ms > self._last_ms:
            self._last_ms = ms
            self._bits = bits >> 1 & ((1 << (_RANDOM_BITS - 1)) - 1)
            self._head = make_task_id(ms, 0)[:8]
        else:
            self._bits += 1
        n = self._bits
        return TaskId(
            self._head
            + _DIGITS[n >> 25 & 31]
            + _DIGITS[n >> 20 & 31]
            + _DIGITS[n >> 15 & 31]
            + _DIGITS[n >> 10 & 31]
            + _DIGITS[n >> 5 & 31]
            + _DIGITS[n & 31]
        )


def is_task_id(text: str) -> bool:
    """Whether `text` has the shape of a task id."""
    return _SHAPE.fullmatch(text) is not None


def made_at(task_id: TaskId) -> float:
    """The UTC second at which an id was made."""
    ms = 0
    for digit in task_id[:8]:
        ms = ms << 5 | _DIGITS.index(digit)
    return (ms + _EPOCH_MS) / 1000
