"""The machine itself, which does not change while it runs, and what single processes of ours use of it."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

import psutil


class Machine(NamedTuple):
    """What a machine is; empty or 0 is not known.

    `cores` are those that a program sees, `system` the name of the operating system with its version.
    """

    name: str
    system: str
    processor: str
    cores: int
    memory_bytes: int
    booted_at: float


class Part(NamedTuple):
    """What one process uses: percent of one core since the look before (None: this is the first), bytes."""

    cpu_percent: float | None
    rss_bytes: int


def machine() -> Machine:
    """This machine. It may read files: call it off the loop."""
    return Machine(
        platform.node(),
        _system(),
        platform.machine(),
        psutil.cpu_count() or 0,
        psutil.virtual_memory().total,
        psutil.boot_time(),
    )


def _system() -> str:
    try:
        told = platform.freedesktop_os_release()
    except OSError:
        return f"{platform.system()} {platform.release()}"
    return f"{told.get('PRETTY_NAME', platform.system())}, {platform.system()} {platform.release()}"


class ProcessLooks:
    """Looks at single processes, each without its children. One thread at a time."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Nothing is known of any."""
        self._clock = clock
        self._before: dict[int, tuple[float, float, float]] = {}

    def look(self, pids: Iterable[int]) -> dict[int, Part]:
        """What those of `pids` use that there are."""
        known, self._before = self._before, {}
        found: dict[int, Part] = {}
        for pid in pids:
            try:
                process = psutil.Process(pid)
                times, at = process.cpu_times(), self._clock()
                spent_s, born = times.user + times.system, process.create_time()
                rss_bytes = process.memory_info().rss
            except psutil.Error:
                continue  # it has ended, or is not ours
            was_at, was_spent_s, was_born = known.get(pid, (at, spent_s, born))
            is_known = pid in known and was_born == born and at > was_at
            share = 100 * (spent_s - was_spent_s) / (at - was_at) if is_known else None
            found[pid] = Part(None if share is None else max(0.0, round(share, 1)), rss_bytes)
            self._before[pid] = (at, spent_s, born)
        return found
