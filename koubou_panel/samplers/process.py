"""The workers' process trees: what each uses, children and their children too."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import psutil

_PROC = Path("/proc")
_DECIMALS = 1


class _Seen(NamedTuple):
    """One process at one moment; `born` with the pid is its identity."""

    pid: int
    parent: int
    born: float
    cpu_s: float
    rss_bytes: int


class TreeSampler:
    """Samples of process trees. One thread at a time.

    One pass over all processes of the host serves every tree; asking psutil for one tree's children makes such a
    pass each time.

    Args:
        clock: seconds of a monotonic clock.

    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """With nothing seen."""
        self._clock = clock
        self._at = clock()
        self._spent_s: dict[tuple[int, float], float] = {}

    def sample(self, pids: Mapping[str, int]) -> dict[str, tuple[float, int]]:
        """By name, of each tree that is there: percent of one core since the call before, resident bytes.

        Args:
            pids: the root process of each tree, by name.

        """
        if not pids:
            return {}
        now = self._clock()
        elapsed_s, self._at = now - self._at, now
        seen = {process.pid: process for process in _processes()}
        children = _children(seen.values())
        before, self._spent_s = self._spent_s, {}
        return {
            name: self._tree(list(_walk(seen[pid], children)), before, elapsed_s)
            for name, pid in pids.items()
            if pid in seen
        }

    def _tree(
        self, tree: list[_Seen], before: Mapping[tuple[int, float], float], elapsed_s: float
    ) -> tuple[float, int]:
        """A tree that is new has no share yet; in a known one, a new process counts from its start."""
        is_known = (tree[0].pid, tree[0].born) in before
        spent_s = 0.0
        for process in tree:
            identity = (process.pid, process.born)
            self._spent_s[identity] = process.cpu_s
            spent_s += process.cpu_s - before.get(identity, 0.0)
        share = 100.0 * spent_s / elapsed_s if is_known and elapsed_s > 0 else 0.0
        return round(max(0.0, share), _DECIMALS), sum(process.rss_bytes for process in tree)


def _children(seen: Iterable[_Seen]) -> dict[int, list[_Seen]]:
    children: dict[int, list[_Seen]] = {}
    for process in seen:
        children.setdefault(process.parent, []).append(process)
    return children


def _walk(root: _Seen, children: Mapping[int, list[_Seen]]) -> Iterator[_Seen]:
    """The root, then its descendants, each once: a pid that was reused meanwhile can make a ring."""
    waiting, met = [root], {root.pid}
    while waiting:
        process = waiting.pop()
        yield process
        below = [child for child in children.get(process.pid, ()) if child.pid not in met]
        met.update(child.pid for child in below)
        waiting += below


def _processes() -> Iterator[_Seen]:
    """Every process of the host that can be seen."""
    if not (_PROC / "self" / "stat").exists():
        yield from _processes_by_psutil()
        return
    tick_s = 1.0 / os.sysconf("SC_CLK_TCK")
    page_bytes = os.sysconf("SC_PAGE_SIZE")
    for entry in os.listdir(_PROC):  # noqa: PTH208 - names are all that is needed, at a fifth of the cost
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/stat", "rb") as file:  # noqa: PTH123 - as above
                stat = file.read()
        except OSError:
            continue  # it has ended
        yield _parsed(int(entry), stat, tick_s, page_bytes)


def _parsed(pid: int, stat: bytes, tick_s: float, page_bytes: int) -> _Seen:
    """Source: proc(5). The second field, a name in parentheses, may hold spaces and parentheses itself."""
    fields = stat[stat.rindex(b")") + 2 :].split()
    cpu_s = (int(fields[11]) + int(fields[12])) * tick_s
    return _Seen(pid, int(fields[1]), float(fields[19]), cpu_s, int(fields[21]) * page_bytes)


def _processes_by_psutil() -> Iterator[_Seen]:
    for process in psutil.process_iter(["ppid", "create_time", "cpu_times", "memory_info"]):
        told = process.info
        times, memory = told["cpu_times"], told["memory_info"]
        if times is not None and memory is not None:
            yield _Seen(process.pid, told["ppid"], told["create_time"], times.user + times.system, memory.rss)
