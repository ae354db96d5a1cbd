"""Where processes are seen: single ones, their children, and whole trees.

Only our own trees are walked, by `/proc/PID/task/TID/children`: one pass over all processes of the host costs some
15 µs for each of them, and a desktop has hundreds. Where the kernel has no such file, and on other systems, one pass
serves all trees.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Protocol

import psutil

_PROC = Path("/proc")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_TICK_S = 1.0 / os.sysconf("SC_CLK_TCK")


class Seen(NamedTuple):
    """One process at one moment.

    `born` is a moment of the clock that `present` tells; `cpu_s` holds what its children used that it waited for.
    """

    pid: int
    parent: int
    born: float
    cpu_s: float
    rss_bytes: int
    threads: int = 1
    is_zombie: bool = False


class Host(Protocol):
    """Where processes are seen."""

    def read(self, pid: int) -> Seen | None:
        """The process, or None if there is none."""

    def children(self, pid: int) -> Sequence[int]:
        """The pids of its children."""


def present() -> float:
    """Now, in seconds of the clock that births are told by: since the boot on Linux, else since the epoch."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.time()


def walk(root: int, host: Host) -> list[Seen]:
    """The root, then its descendants, each once: a pid that was reused meanwhile can make a ring."""
    found: list[Seen] = []
    waiting, met = [root], {root}
    while waiting:
        pid = waiting.pop()
        seen = host.read(pid)
        if seen is None:
            continue
        found.append(seen)
        below = [child for child in host.children(pid) if child not in met]
        met.update(below)
        waiting += below
    return found


def fitting_host() -> Callable[[], Host]:
    """The cheapest way to see processes on this machine."""
    me = os.getpid()
    if (_PROC / f"{me}/task/{me}/children").exists():
        return ProcTrees
    return ProcPass if (_PROC / "self" / "stat").exists() else PsutilPass


class ProcTrees:
    """Linux: single processes are asked for their children."""

    def read(self, pid: int) -> Seen | None:
        """As the protocol says."""
        try:
            return parsed(pid, read_small(f"/proc/{pid}/stat"))
        except OSError:
            return None

    def children(self, pid: int) -> Sequence[int]:
        """As the protocol says."""
        found: list[int] = []
        try:
            threads = os.listdir(f"/proc/{pid}/task")  # noqa: PTH208 - names are all that is needed
        except OSError:
            return found
        for thread in threads:
            with suppress(OSError):  # it has ended meanwhile
                found += map(int, read_small(f"/proc/{pid}/task/{thread}/children").split())
        return found


class _Pass:
    """One pass over all processes, made at once."""

    def __init__(self) -> None:
        self._seen = {seen.pid: seen for seen in self._all()}
        self._children: dict[int, list[int]] = {}
        for seen in self._seen.values():
            self._children.setdefault(seen.parent, []).append(seen.pid)

    def read(self, pid: int) -> Seen | None:
        return self._seen.get(pid)

    def children(self, pid: int) -> Sequence[int]:
        return self._children.get(pid, ())

    def _all(self) -> Iterable[Seen]:
        raise NotImplementedError


class ProcPass(_Pass):
    """Linux without CONFIG_PROC_CHILDREN."""

    def _all(self) -> Iterable[Seen]:
        for name in os.listdir(_PROC):  # noqa: PTH208 - names are all that is needed, at a fifth of the cost
            if name.isdigit():
                try:
                    yield parsed(int(name), read_small(f"/proc/{name}/stat"))
                except OSError:
                    continue  # it has ended


class PsutilPass(_Pass):
    """Other systems. What children used before they ended is not told there."""

    def _all(self) -> Iterable[Seen]:
        wanted = ["ppid", "create_time", "cpu_times", "memory_info", "num_threads", "status"]
        for process in psutil.process_iter(wanted):
            told = process.info
            times, memory = told["cpu_times"], told["memory_info"]
            if times is not None and memory is not None:
                yield Seen(
                    process.pid,
                    told["ppid"],
                    told["create_time"],
                    times.user + times.system,
                    memory.rss,
                    told["num_threads"] or 1,
                    told["status"] == psutil.STATUS_ZOMBIE,
                )


def read_small(path: str) -> bytes:
    """A small file of /proc, at half of what `open` costs."""
    fd = os.open(path, os.O_RDONLY)
    try:
        return os.read(fd, 65_536)
    finally:
        os.close(fd)


def parsed(pid: int, stat: bytes) -> Seen:
    """Source: proc(5). The second field, a name in parentheses, may hold spaces and parentheses itself."""
    fields = stat[stat.rindex(b")") + 2 :].split(None, 22)
    ticks = int(fields[11]) + int(fields[12]) + int(fields[13]) + int(fields[14])
    return Seen(
        pid,
        int(fields[1]),
        int(fields[19]) * _TICK_S,
        ticks * _TICK_S,
        int(fields[21]) * _PAGE_BYTES,
        int(fields[17]),
        fields[0] in (b"Z", b"X"),
    )
