"""The workers' process trees: what each uses, and what the run on it does, children and their children too."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from koubou_panel.core.records import NO_LIMITS, Limits, TaskId, Use, WorkerId
from koubou_panel.samplers.gpu import GpuUse
from koubou_panel.samplers.host import Host, Seen, fitting_host, read_small, walk

_DECIMALS = 1
_SHARE_S = 0.9
# What an interpreter holds that has run nothing: it is taken for a worker that has not been seen at rest.
_NEW_WORKER_BYTES = 24 << 20


class Watch(NamedTuple):
    """A run to look at: whether it shares its worker's process (a function), and how long it has run.

    `claim` is its number on its worker, `began` a moment of `host.present`: what was there before is not its own.
    """

    task_id: TaskId
    run: int
    shares_worker: bool
    age_s: float
    limits: Limits = NO_LIMITS
    claim: int = 0
    began: float = 0.0


class Tree(NamedTuple):
    """A worker: the pid of its guard, above everything; its own, once known; and the run on it.

    `next_claim` is the number of the claim that it is given next, of one that has none.
    """

    worker_id: WorkerId
    guard: int
    worker: int | None = None
    watch: Watch | None = None
    next_claim: int | None = None


class Looks(NamedTuple):
    """What was seen: of each worker (percent of one core, resident bytes), and the use of each run."""

    workers: dict[WorkerId, tuple[float, int]]
    uses: list[tuple[TaskId, int, Use]]


class TreeSampler:
    """Samples of process trees. One thread at a time.

    Args:
        clock: seconds of a monotonic clock.
        host: gives what is to be looked at; called once for each look.

    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, host: Callable[[], Host] | None = None
    ) -> None:
        """With nothing seen."""
        self._clock = clock
        self._host = host or fitting_host()
        self._workers: dict[WorkerId, _Meter] = {}
        self._rests: dict[WorkerId, tuple[int, int]] = {}
        self._runs: dict[tuple[TaskId, int], _Meter] = {}
        self._gpu: Mapping[int, GpuUse] | None = None

    def sample(self, trees: Sequence[Tree], gpu: Mapping[int, GpuUse] | None = None) -> Looks:
        """Look at every tree that is there; what is left out is forgotten.

        A function's run is told from the second look on: what its worker used and what others left in it before is
        not its own.

        Args:
            trees: the workers.
            gpu: what single processes use of the GPUs, by pid; None where there is none.

        """
        looks = Looks({}, [])
        self._gpu = gpu
        if trees:
            host, now = self._host(), self._clock()
            for tree in trees:
                self._sample(tree, host, now, looks)
        self._workers = {name: meter for name, meter in self._workers.items() if name in looks.workers}
        self._rests = {name: rest for name, rest in self._rests.items() if name in looks.workers}
        known = {(tree.watch.task_id, tree.watch.run) for tree in trees if tree.watch is not None}
        self._runs = {key: meter for key, meter in self._runs.items() if key in known}
        return looks

    def look_again(self, trees: Sequence[Tree]) -> list[tuple[TaskId, int, Use]]:
        """The uses of the runs on `trees` alone, between two samples; nothing is forgotten."""
        looks = Looks({}, [])
        if trees:
            host, now = self._host(), self._clock()
            for tree in trees:
                below = walk(tree.worker, host) if tree.worker is not None else []
                self._sample_run(tree, below, now, looks.uses)
        return looks.uses

    def _sample(self, tree: Tree, host: Host, now: float, looks: Looks) -> None:
        guard = host.read(tree.guard)
        if guard is None:
            return
        worker = tree.worker if tree.worker in host.children(tree.guard) else None
        below = walk(tree.guard, host)[1:] if worker is None else walk(worker, host)
        meter = self._workers.get(tree.worker_id)
        spent = _Spent(sum(seen.cpu_s for seen in below) + guard.cpu_s)
        if meter is None or meter.born != guard.born:
            meter = self._workers[tree.worker_id] = _Meter(now, spent, born=guard.born)
        percent = meter.grow(now, spent)
        looks.workers[tree.worker_id] = (percent, guard.rss_bytes + sum(seen.rss_bytes for seen in below))
        if worker is not None and below:
            if tree.next_claim is not None:
                self._rests[tree.worker_id] = (tree.next_claim, below[0].rss_bytes)
            self._sample_run(tree, below, now, looks.uses)

    def _sample_run(
        self, tree: Tree, below: list[Seen], now: float, uses: list[tuple[TaskId, int, Use]]
    ) -> None:
        """Add the use of the run on `tree`; `below` is its worker's process and everything under it."""
        watch = tree.watch
        own = _own(watch, below) if watch is not None else []
        if watch is None or not own:
            return
        key = (watch.task_id, watch.run)
        meter = self._runs.get(key)
        spent = _Spent(sum(seen.cpu_s for seen in own))
        if meter is None:
            if watch.shares_worker:
                io = _io(own)
                self._runs[key] = _Meter(
                    now, spent + io, io=io, left_bytes=self._left_bytes(tree, watch, own[0])
                )
                return
            meter = self._runs[key] = _Meter(now - watch.age_s, _NOTHING)
        if meter.is_due(now):
            meter.io = _io(own)
        meter.grow(now, spent + meter.io)
        uses.append((watch.task_id, watch.run, _use(own, watch.limits, meter, self._gpu)))

    def _left_bytes(self, tree: Tree, watch: Watch, worker: Seen) -> int:
        """What others left in the worker that a function shares, now that it is seen for the first time.

        That is what the worker held when it last rested; if others ran since, all that it holds is taken for theirs.
        """
        claim, rss_bytes = self._rests.get(tree.worker_id, (0, _NEW_WORKER_BYTES))
        return min(rss_bytes, worker.rss_bytes) if claim == watch.claim else worker.rss_bytes


def _own(watch: Watch, below: list[Seen]) -> list[Seen]:
    """The processes of a run: a function's are its worker's own and what was born since it began.

    Births are told in whole hundredths of a second, rounded down: in doubt one was left by another.
    """
    if not watch.shares_worker:
        return below[1:]
    return below[:1] + [seen for seen in below[1:] if seen.born >= watch.began]


class _Spent(NamedTuple):
    """What only ever grows, of a tree whose processes all live."""

    cpu_s: float = 0.0
    read_bytes: int = 0
    written_bytes: int = 0

    def __add__(self, other: tuple[float, ...]) -> _Spent:  # type: ignore[override]
        cpu_s, read_bytes, written_bytes = other
        return _Spent(
            self.cpu_s + cpu_s, self.read_bytes + int(read_bytes), self.written_bytes + int(written_bytes)
        )


_NOTHING = _Spent()


class _Meter:
    """Totals of a tree since `at`, and its present share of a core.

    Of a process that ended, its parent has what it used, if it waited for it; else the sum falls. Only growth counts.
    """

    __slots__ = ("at", "born", "io", "left_bytes", "marked", "percent", "seen", "total")

    def __init__(
        self,
        at: float,
        seen: _Spent,
        *,
        born: float = 0.0,
        io: tuple[float, ...] = (0.0, 0, 0),
        left_bytes: int = 0,
    ) -> None:
        self.at = at
        self.born = born
        self.seen = seen
        self.io = io
        self.left_bytes = left_bytes
        self.total = _NOTHING
        self.marked = 0.0
        self.percent = 0.0

    def is_due(self, now: float) -> bool:
        """Whether a share may be taken: of a shorter span it would be noise, the kernel counts in 10 ms."""
        return now - self.at >= _SHARE_S

    def grow(self, now: float, seen: _Spent) -> float:
        """Take in what is seen; percent of one core, a mean over `_SHARE_S` or more."""
        grown = (max(0.0, new - old) for new, old in zip(seen, self.seen, strict=True))
        self.total += tuple(grown)
        self.seen = seen
        if self.is_due(now):
            self.percent = round(100.0 * (self.total.cpu_s - self.marked) / (now - self.at), _DECIMALS)
            self.at, self.marked = now, self.total.cpu_s
        return self.percent


def _use(own: list[Seen], limits: Limits, meter: _Meter, gpu: Mapping[int, GpuUse] | None) -> Use:
    living = [seen for seen in own if not seen.is_zombie]
    shares = [gpu[seen.pid] for seen in living if seen.pid in gpu] if gpu else []
    return Use(
        meter.percent,
        _resident_bytes(living, limits.memory_bytes, meter.left_bytes),
        round(meter.total.cpu_s, 2),
        meter.total.read_bytes,
        meter.total.written_bytes,
        sum(seen.threads for seen in living),
        len(living),
        None if gpu is None else round(sum(share.percent for share in shares), _DECIMALS),
        None if gpu is None else sum(share.memory_bytes for share in shares),
    )


def _resident_bytes(living: Sequence[Seen], limit_bytes: int | None, left_bytes: int = 0) -> int:
    """Resident bytes of a tree, less what others left; where they decide, pages that its processes share count once.

    The sum counts what a fork shares with its parent twice, and no run may be ended for that. To ask what is shared
    costs 150 µs a process and more, so it is asked only then.
    """
    resident = max(0, sum(seen.rss_bytes for seen in living) - left_bytes)
    if limit_bytes is None or resident <= limit_bytes or len(living) == 1:
        return resident
    return max(0, sum(_proportional_bytes(seen) for seen in living) - left_bytes)


def _proportional_bytes(seen: Seen) -> int:
    try:
        for line in read_small(f"/proc/{seen.pid}/smaps_rollup").splitlines():
            if line.startswith(b"Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        """It has ended, or is not ours to look into."""
    return seen.rss_bytes


def _io(own: Iterable[Seen]) -> _Spent:
    """Storage bytes that living processes read and wrote, with those of children that they waited for."""
    read_bytes = written_bytes = 0
    for seen in own:
        try:
            lines = read_small(f"/proc/{seen.pid}/io").splitlines()
            read_bytes += int(lines[4].rpartition(b" ")[2])
            written_bytes += int(lines[5].rpartition(b" ")[2])
        except (OSError, IndexError):
            continue  # it has ended, is not ours to look into, or this system does not tell
    return _Spent(0.0, read_bytes, written_bytes)
