"""What keeps a run within its limits from the inside, and tells how one that reached them ended.

The workshop itself looks at what every run uses once in a while and ends what is over; that holds everywhere, for a
whole process tree, but only from one look to the next. Before that come, where they are to be had:

- a **cgroup** for a command with a limit of memory or processes (`kinds/cgroup.py`): exact, for the whole tree.
- an **rlimit** on each process: the kernel refuses further memory, so that the program can say so itself, and ends
  what has used its processor time.

RLIMIT_DATA counts private writable memory, used or only reserved. RLIMIT_AS would count every mapping, and break what
reserves addresses by the gigabyte (CUDA, sanitizers, Go, Java). RLIMIT_NPROC counts all processes of the user, on the
whole host, and not at all for root: it is not used.
"""

from __future__ import annotations

import os
import re
import resource
import select
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil

from koubou_panel.core.limit import limit_words
from koubou_panel.core.quantity import size_text
from koubou_panel.core.records import Job, Limits, Reason, Usage
from koubou_panel.kinds.cgroup import Cages

# What libraries reserve and never touch: a stack and the buffers of a BLAS for each core.
ROOM_BYTES = 64 << 20
CPU_GRACE_S = 5
NEAR = 0.9
_NO_MEMORY = re.compile(
    r"\bMemoryError|bad_alloc|Cannot allocate memory|Unable to allocate|java\.lang\.OutOfMemoryError"
    r"|memory allocation of \d+ bytes failed|runtime: out of memory"
)
_SELF_MADE_ENDS = {-signal.SIGABRT, -signal.SIGSEGV, -signal.SIGBUS, -signal.SIGTRAP}


class Fence:
    """The limits of one command: set in its process before it begins, asked for the reason when it has ended."""

    def __init__(self, job: Job, cages: Cages) -> None:
        """Get ready; nothing is limited by it but what `enter` is called in."""
        self._limits = job.limits
        self._cage = cages.cage(job)
        self._rlimits = _rlimits(job.limits, has_cage=self._cage is not None)
        self._oom_kills = oom_kills()

    @property
    def is_needed(self) -> bool:
        """Whether `enter` has anything to do."""
        return bool(self._rlimits) or self._cage is not None

    def enter(self) -> None:
        """Limit the calling process and all that comes from it. Between fork and exec."""
        if self._cage is not None:
            self._cage.enter()
        for which, bounds in self._rlimits:
            resource.setrlimit(which, bounds)

    def watch(self, poll: select.poll) -> None:
        """Register what `turn` waits for."""
        self._poll = poll
        if self._cage is not None and self._cage.bell is not None:
            poll.register(self._cage.bell, select.POLLIN)

    def turn(self, ready: set[int]) -> None:
        """Where memory has run out for the whole tree, end it as a whole."""
        if self._cage is not None and self._cage.bell in ready:
            self._poll.unregister(self._cage.bell)
            self._cage.kill()

    def reason(self, code: int, usage: Usage, ended: str, tail: str) -> tuple[Reason, str] | None:
        """Why a command failed, if a limit or want of memory was it.

        Args:
            code: its exit code, negative for a signal.
            usage: what it used.
            ended: how it ended, in words.
            tail: the end of its output.
        """
        limits = self._limits
        if self._cage is not None and self._cage.ran_out_of_memory():
            return limit_words("memory", limits)
        if limits.cpu_s is not None and _is_out_of_time(code, usage, limits.cpu_s):
            return limit_words("cpu", limits)
        if limits.memory_bytes is not None and _is_refused_memory(code, usage, limits.memory_bytes, tail):
            return (
                "memory",
                f"{ended}: it could get no more than its {size_text(limits.memory_bytes)} of memory",
            )
        if self._cage is not None and self._cage.was_refused_processes():
            return "exit", f"{ended}: it could start no more processes, its limit is {limits.processes}"
        if _is_by(code, signal.SIGKILL) and oom_kills() > self._oom_kills:
            return "memory", f"{ended}, out of memory: the kernel ended it"
        return None

    def close(self) -> None:
        """End what is left inside, and take it down."""
        if self._cage is not None:
            self._cage.remove()


def _rlimits(limits: Limits, *, has_cage: bool) -> list[tuple[int, tuple[int, int]]]:
    """(which, (soft, hard)) for a process that begins."""
    found: list[tuple[int, tuple[int, int]]] = []
    if limits.memory_bytes is not None and not has_cage:
        found.append(
            (resource.RLIMIT_DATA, _at_most(resource.RLIMIT_DATA, limits.memory_bytes + room_bytes()))
        )
    if limits.cpu_s is not None:
        soft = max(1, ceil(limits.cpu_s))
        most = resource.getrlimit(resource.RLIMIT_CPU)[1]
        hard = soft + CPU_GRACE_S if most == resource.RLIM_INFINITY else min(most, soft + CPU_GRACE_S)
        found.append((resource.RLIMIT_CPU, (min(soft, hard), hard)))
    return found


def _at_most(which: int, soft: int) -> tuple[int, int]:
    """(soft, hard) with the hard limit as it is."""
    hard = resource.getrlimit(which)[1]
    return (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard)


def room_bytes() -> int:
    """How much a process may reserve beyond its limit without using it."""
    return ROOM_BYTES * (1 + (os.cpu_count() or 1))


def _is_by(code: int, number: int) -> bool:
    """Whether a process, or the last one that a shell waited for, ended by that signal."""
    return code in (-number, 128 + number)


def _is_out_of_time(code: int, usage: Usage, cpu_s: float) -> bool:
    if _is_by(code, signal.SIGXCPU):
        return True
    return _is_by(code, signal.SIGKILL) and (usage.cpu_s or 0.0) >= ceil(cpu_s) + CPU_GRACE_S - 1


def _is_refused_memory(code: int, usage: Usage, limit_bytes: int, tail: str) -> bool:
    if code <= 0 and code not in _SELF_MADE_ENDS:
        return False
    return (usage.peak_rss_bytes or 0) >= NEAR * limit_bytes or _NO_MEMORY.search(tail) is not None


@contextmanager
def memory_limit(limit_bytes: int) -> Iterator[None]:
    """Refuse this process more than `limit_bytes` beyond what it has already, while it is entered."""
    before = resource.getrlimit(resource.RLIMIT_DATA)
    soft = limit_bytes + _data_bytes() + room_bytes()
    resource.setrlimit(resource.RLIMIT_DATA, _at_most(resource.RLIMIT_DATA, soft))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def lift_memory_limit() -> None:
    """Give this process memory again, however little its run has left. Any thread."""
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))


def _data_bytes() -> int:
    """What this process has already of what RLIMIT_DATA counts; 0 where that is not told."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[5]) * resource.getpagesize()
    except OSError:
        return 0


def oom_kills() -> int:
    """How many processes the kernel has ended for want of memory since it started; 0 where it does not tell."""
    try:
        with open("/proc/vmstat", "rb") as file:
            found = re.search(rb"^oom_kill (\d+)$", file.read(), re.MULTILINE)
    except OSError:
        return 0
    return int(found.group(1)) if found else 0
