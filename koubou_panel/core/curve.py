"""What a run used from its start to now, in a bounded number of points: a run of a week keeps a whole curve."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from msgspec import Struct

from koubou_panel.core.records import Use

MOST_POINTS = 512
COLUMNS = Use.__struct_fields__
_MEANS = frozenset({"cpu_percent", "gpu_percent"})
_TOTALS = frozenset({"cpu_s", "read_bytes", "written_bytes"})


class Curve(Struct, array_like=True):
    """Samples of a run's use, each point standing for `step` of them, the last one for `held` so far.

    When there would be more than `MOST_POINTS`, neighbours become one and `step` doubles. A point has the mean of the
    percents, the largest memory and numbers of threads and processes, and time and totals as they stood last.

    Stored as an array: new columns go to the end and have a default, none is taken away.
    """

    step: int = 1
    held: int = 0
    at: list[float] = []
    cpu_percent: list[float] = []
    rss_bytes: list[int] = []
    cpu_s: list[float] = []
    read_bytes: list[int] = []
    written_bytes: list[int] = []
    threads: list[int] = []
    processes: list[int] = []
    gpu_percent: list[float | None] = []
    gpu_memory_bytes: list[int | None] = []

    def add(self, at: float, use: Use) -> None:
        """Take in a sample of the UTC second `at`; a clock that was set back stands still here."""
        if self.at:
            at = max(at, self.at[-1])
        if self.held < self.step and self.at:
            self._grow(at, use)
            return
        if len(self.at) >= MOST_POINTS:
            self._halve()
        self._begin(at, use)

    def points(self) -> dict[str, list[float | None]]:
        """Columns by name, all of one length: `at`, UTC seconds, and those of `Use`."""
        return {name: list(getattr(self, name)) for name in ("at", *COLUMNS)}

    def copy(self) -> Curve:
        """One that does not grow with this."""
        return Curve(self.step, self.held, **self.points())  # type: ignore[arg-type]

    def __len__(self) -> int:
        """How many points there are."""
        return len(self.at)

    def _begin(self, at: float, use: Use) -> None:
        self.held = 1
        self.at.append(at)
        for name in COLUMNS:
            getattr(self, name).append(getattr(use, name))

    def _grow(self, at: float, use: Use) -> None:
        """Merge a sample into the last point."""
        self.at[-1] = at
        for name in COLUMNS:
            column = getattr(self, name)
            column[-1] = _merged(name, column[-1], getattr(use, name), self.held)
        self.held += 1

    def _halve(self) -> None:
        """Make one point of every two; all of them are whole here."""
        self.at = self.at[1::2]
        for name in COLUMNS:
            column = getattr(self, name)
            pairs = zip(column[::2], column[1::2], strict=True)
            setattr(self, name, [_merged(name, *pair) for pair in pairs])
        self.step *= 2


def _merged(name: str, one: float | None, other: float | None, weight: int = 1) -> float | None:
    """Two neighbouring values as one, `one` standing for `weight` samples; what was not told counts for nothing."""
    if one is None or other is None:
        return other if one is None else one
    if name in _MEANS:
        return (one * weight + other) / (weight + 1)
    return other if name in _TOTALS else max(one, other)


encode_curve: Callable[[Curve], bytes] = msgspec.msgpack.Encoder().encode
"""A curve as bytes, to be stored or sent."""

decode_curve: Callable[[bytes], Curve] = msgspec.msgpack.Decoder(Curve).decode
"""The curve of bytes made by `encode_curve`.

Raises:
    msgspec.DecodeError: the bytes are damaged.
"""
