"""The agenda: the loop owner's working index over the state: who waits, who holds what, and what is due when.

It is kept by `note` from the same facts as the state, so that a replica folds them without carrying queues. It also
remembers how long tasks of each name took lately, and of each family of names.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from heapq import heappush
from math import inf
from types import MappingProxyType

from koubou_panel.core.events import (
    PoolChanged,
    StopRequested,
    SystemNoted,
    TaskCancelled,
    TaskCompleted,
    TaskFailed,
    TaskReleased,
    TaskRetried,
    TaskReturned,
    TaskStarted,
    TaskSubmitted,
    WorkerChanged,
    WorkerRetired,
    WorkerStarted,
    WorkerStopped,
)
from koubou_panel.core.records import Status, Task, TaskId, Usage, Worker, WorkerId
from koubou_panel.core.state import Folded, State

PACE_KEPT = 1_000
SHORTEST_S = 20e-6
OUTLIER = 4
MEMORY_KEPT = 0.9
FIRST_RESPAWN_S = 0.1
LONGEST_RESPAWN_S = 30.0
FREE_RESPAWNS = 8
LONG_STOP_S = 1.0
NOTHING: Mapping[TaskId, Status] = MappingProxyType({})


class Lane:
    """What one worker holds: its claims with their expected seconds, when it was last heard of, when it held one."""

    __slots__ = ("changed_at", "claims", "given", "heard_at", "load_s", "recalled", "used_at")

    def __init__(self) -> None:
        """An empty lane."""
        self.claims: dict[TaskId, float] = {}
        self.load_s = 0.0
        self.given = 0
        self.heard_at = 0.0
        self.changed_at = 0.0
        self.used_at = 0.0
        self.recalled = False

    def add(self, task_id: TaskId, expected_s: float) -> None:
        """Count a claim."""
        self.claims[task_id] = expected_s
        self.load_s += expected_s

    def drop(self, task_id: TaskId) -> None:
        """Forget a claim."""
        expected_s = self.claims.pop(task_id, 0.0)
        self.load_s = sum(self.claims.values()) if expected_s == inf else self.load_s - expected_s
        if not self.claims:
            self.load_s = 0.0


class Agenda:
    """Who waits, who holds what, and what is due when. Kept by `note` from the same facts as the state."""

    def __init__(self, batches: Callable[[str], bool]) -> None:
        """An empty agenda; `batches(kind)` says whether tasks of a kind may share a window."""
        self._batches = batches
        self.ready: dict[int, deque[TaskId]] = {priority: deque() for priority in range(10, 0, -1)}
        self.delayed: list[tuple[float, int, TaskId]] = []  # cancelled ones too, until their time
        self.early: set[TaskId] = set()  # those of them that still wait for it
        self.deadlines: list[tuple[float, TaskId, float]] = []
        self.stops: list[TaskId] = []
        self.long_stops: list[tuple[float, TaskId, int]] = []
        self.started: list[WorkerId] = []
        self.retired: list[tuple[WorkerId, bool]] = []
        self.unmet: dict[TaskId, set[TaskId]] = {}
        self.followers: dict[TaskId, dict[TaskId, None]] = {}
        self.released: deque[TaskId] = deque()
        self.doomed: deque[tuple[TaskId, TaskId]] = deque()
        self.lanes: dict[WorkerId, Lane] = {}
        self.touched: set[WorkerId] = set()
        self.pace_s: dict[str, float] = {}
        self.memory_bytes: dict[str, int] = {}
        self.target = 0
        self.full_since: float | None = None
        self.full_for: TaskId | None = None
        self.is_held = False
        self.respawn_at = 0.0
        self.failed_spawns = 0

    @classmethod
    def from_state(
        cls, state: State, batches: Callable[[str], bool], *, ended: Mapping[TaskId, Status] = NOTHING
    ) -> Agenda:
        """The agenda of a state that was loaded, not folded; `ended` is how those ended that have left it."""
        agenda = cls(batches)
        for worker_id, worker in state.workers.items():
            lane = agenda.lanes[worker_id] = Lane()
            lane.used_at = worker.started_at
            if worker.status == "stopping":
                agenda.retired.append((worker_id, False))
        agenda.target = len(state.workers) - len(agenda.retired)
        unfinished = [task for task in state.tasks.values() if not task.is_finished]
        for task in sorted(unfinished, key=lambda task: task.order):
            if task.status == "pending" and not task.waits_for:
                agenda.queue(task)
            elif task.status == "pending":
                agenda.wait_again(task, state, ended)
        for task in sorted(unfinished, key=lambda task: task.claim):
            if task.status == "in_progress" and task.worker_id in agenda.lanes:
                agenda.claim(task, task.started_at or 0.0)
                if task.stopping is not None:
                    agenda.stops.append(task.task_id)
        return agenda

    def note(self, folded: Iterable[Folded]) -> None:
        """Keep up with facts that were just folded."""
        for fact, _, record in folded:
            handler = _NOTES.get(type(fact))
            if handler is not None:
                handler(self, fact, record)

    def expected_s(self, task: Task) -> float:
        """Seconds that a run of `task` should take, by its name or else its family.

        Infinite when unknown or when it must run alone.
        """
        request = task.request
        if request.timeout_s is not None or not self._batches(request.kind):
            return inf
        known = self.pace_s.get(request.name)
        return known if known is not None else self.pace_s.get(family(request.name), inf)

    def waiting(self) -> int:
        """How many tasks are ready; a few of them may have been cancelled meanwhile."""
        return sum(map(len, self.ready.values()))

    # -- keeping up -------------------------------------------------------------------------------------------

    def wait(self, task: Task, others: Iterable[TaskId]) -> None:
        """Let a pending task wait for `others` to succeed."""
        unmet = set(others)
        if not unmet:
            self.released.append(task.task_id)
            return
        self.unmet[task.task_id] = unmet
        for other in unmet:
            self.followers.setdefault(other, {})[task.task_id] = None

    def wait_again(self, task: Task, state: State, ended: Mapping[TaskId, Status]) -> None:
        """Wait as a loaded task does: for what has not ended; one may have failed by the crash that came before."""
        status_of = {task_id: ended.get(task_id, "completed") for task_id in task.waits_for}
        status_of |= {other: state.tasks[other].status for other in status_of if other in state.tasks}
        self.wait(task, [other for other, status in status_of.items() if status != "completed"])
        for other, status in status_of.items():
            if status in ("failed", "cancelled"):
                self.missed(other)

    def unfollow(self, task_id: TaskId) -> None:
        """A task that may have waited for others has ended without them."""
        for other in self.unmet.pop(task_id, ()):
            followers = self.followers.get(other)
            if followers is not None:
                followers.pop(task_id, None)
                if not followers:
                    del self.followers[other]

    def met(self, task_id: TaskId) -> None:
        """A task has succeeded: those that waited for nothing else may start."""
        for follower in self.followers.pop(task_id, ()):
            unmet = self.unmet.get(follower)
            if unmet is None:
                continue
            unmet.discard(task_id)
            if not unmet:
                del self.unmet[follower]
                self.released.append(follower)

    def missed(self, task_id: TaskId) -> None:
        """A task has failed or was cancelled: those that waited for it are not to start."""
        for follower in self.followers.pop(task_id, ()):
            if self.unmet.pop(follower, None) is not None:
                self.doomed.append((follower, task_id))

    def queue(self, task: Task) -> None:
        """Let a pending task wait: for its turn, or first for its time."""
        if task.not_before is not None:
            heappush(self.delayed, (task.not_before, task.order, task.task_id))
            self.early.add(task.task_id)
        else:
            self.ready[task.request.priority].append(task.request.task_id)

    def claim(self, task: Task, at: float) -> None:
        """Count a run on its worker's lane, and its time-out."""
        if task.worker_id is None:
            return
        lane = self.lanes[task.worker_id]
        lane.add(task.request.task_id, self.expected_s(task))
        lane.given = task.claim + 1
        lane.heard_at = at
        self.touched.add(task.worker_id)
        if task.request.timeout_s is not None:
            heappush(self.deadlines, (at + task.request.timeout_s, task.task_id, at))

    def shift(self, gap_s: float) -> None:
        """The clock was set, or went on while the machine slept: what has its time has as much of it left as before.

        What is due at an hour of the day, as the start of a delayed task, stays due then.
        """
        self.deadlines[:] = [(at + gap_s, task_id, since) for at, task_id, since in self.deadlines]
        self.long_stops[:] = [(at + gap_s, task_id, run) for at, task_id, run in self.long_stops]
        for lane in self.lanes.values():
            lane.heard_at += gap_s
            lane.used_at += gap_s
        if self.full_since is not None:
            self.full_since += gap_s
        self.respawn_at += gap_s

    def release(self, task: Task, worker_id: WorkerId | None, at: float) -> None:
        """Take a run off its worker's lane."""
        lane = self.lanes.get(worker_id) if worker_id else None
        if lane is None or worker_id is None:
            return
        lane.drop(task.request.task_id)
        lane.heard_at = lane.used_at = at
        lane.recalled = False
        self.touched.add(worker_id)

    def learn(self, task: Task, usage: Usage) -> None:
        """Remember how long tasks of this name, and of its family, take and how much memory.

        One run that was held up (a busy machine) says little: a longer one counts as at most four times what
        was expected. A name whose tasks do become long is believed after some ten of them; until then `Recall`
        takes back what waits behind one. Where one takes less than a quarter of what was expected, those before
        were held up: the first runs of a worker import what it has not loaded yet.
        """
        name, duration_s = task.request.name, usage.duration_s
        if usage.peak_rss_bytes is not None:
            # The largest seen lately: one small run among large ones makes little room.
            kept = int(MEMORY_KEPT * self.memory_bytes.pop(name, 0))
            self.memory_bytes[name] = max(kept, usage.peak_rss_bytes)
            _forget_oldest(self.memory_bytes)
        if duration_s is None or not self._batches(task.request.kind):
            return
        self._learn_pace(name, duration_s)
        if (wider := family(name)) != name:
            self._learn_pace(wider, duration_s)

    def _learn_pace(self, name: str, duration_s: float) -> None:
        before = self.pace_s.pop(name, duration_s)
        seen = min(max(duration_s, SHORTEST_S), OUTLIER * max(before, SHORTEST_S))
        share = 0.2 if seen > before else 0.1 if OUTLIER * seen > before else 0.5
        self.pace_s[name] = (1 - share) * before + share * seen
        _forget_oldest(self.pace_s)

    def holder(self, task_id: TaskId) -> WorkerId | None:
        """The worker whose lane holds a task."""
        return next((worker_id for worker_id, lane in self.lanes.items() if task_id in lane.claims), None)


def family(name: str) -> str:
    """The name up to its first space or bracket: what tasks that are told apart by the rest should take alike.

    A search's fits (`SVC C=10, fold 2/5`) and joblib's calls (`area(3)`) each have a name of their own, so that none
    would ever be of known length.
    """
    return name.partition(" ")[0].partition("(")[0]


def _forget_oldest(learnt: dict[str, float] | dict[str, int]) -> None:
    if len(learnt) > PACE_KEPT:
        del learnt[next(iter(learnt))]


def _on_submitted(agenda: Agenda, fact: TaskSubmitted, task: Task) -> None:
    if fact.waits_for:
        agenda.wait(task, fact.waits_for)
    else:
        agenda.queue(task)


def _on_released(agenda: Agenda, fact: TaskReleased, task: Task) -> None:  # noqa: ARG001 - one signature for all
    agenda.queue(task)


def _on_started(agenda: Agenda, fact: TaskStarted, task: Task) -> None:
    agenda.claim(task, fact.at)


def _on_returned(agenda: Agenda, fact: TaskReturned, task: Task) -> None:
    holder = agenda.holder(fact.task_id)
    agenda.release(task, holder, fact.at)
    lane = agenda.lanes.get(holder) if holder else None
    if lane is not None and lane.claims:
        lane.recalled = True  # it gave back what waits behind a long task, which has not ended by that
    agenda.ready[task.request.priority].appendleft(task.task_id)


def _on_retried(agenda: Agenda, fact: TaskRetried, task: Task) -> None:
    agenda.release(task, agenda.holder(fact.task_id), fact.at)
    agenda.queue(task)


def _on_completed(agenda: Agenda, fact: TaskCompleted, task: Task) -> None:
    agenda.release(task, task.worker_id, fact.at)
    agenda.learn(task, fact.usage)
    if agenda.followers:
        agenda.met(fact.task_id)


def _on_ended(agenda: Agenda, fact: TaskFailed | TaskCancelled, task: Task) -> None:
    agenda.release(task, task.worker_id, fact.at)
    agenda.unfollow(fact.task_id)
    agenda.early.discard(fact.task_id)
    if agenda.followers:
        agenda.missed(fact.task_id)


def _on_stop(agenda: Agenda, fact: StopRequested, task: Task) -> None:
    agenda.stops.append(fact.task_id)
    lane = agenda.lanes.get(task.worker_id) if task.worker_id else None
    if lane is not None:
        lane.recalled = True  # nothing more is handed to a worker whose run is about to be ended
    heappush(agenda.long_stops, (fact.at + LONG_STOP_S, fact.task_id, fact.run))


def _on_worker_started(agenda: Agenda, fact: WorkerStarted, worker: Worker) -> None:  # noqa: ARG001 - one signature for all
    agenda.lanes[fact.worker_id] = Lane()
    agenda.lanes[fact.worker_id].used_at = fact.at
    agenda.started.append(fact.worker_id)
    agenda.failed_spawns += 1
    wait_s = FIRST_RESPAWN_S * 2.0 ** min(agenda.failed_spawns // 4, 10)
    agenda.respawn_at = (
        fact.at + min(LONGEST_RESPAWN_S, wait_s) if agenda.failed_spawns > FREE_RESPAWNS else 0.0
    )


def _on_worker_changed(agenda: Agenda, fact: WorkerChanged, worker: Worker) -> None:  # noqa: ARG001 - one signature for all
    lane = agenda.lanes[fact.worker_id]
    lane.changed_at = fact.at
    if fact.status in ("idle", "busy"):
        agenda.touched.add(fact.worker_id)
    if fact.pid is not None:
        lane.used_at = fact.at
        agenda.failed_spawns = 0
        agenda.respawn_at = 0.0


def _on_worker_retired(agenda: Agenda, fact: WorkerRetired, worker: Worker) -> None:  # noqa: ARG001 - one signature for all
    agenda.retired.append((fact.worker_id, fact.at_once))


def _on_worker_stopped(agenda: Agenda, fact: WorkerStopped, worker: Worker) -> None:  # noqa: ARG001 - one signature for all
    agenda.lanes.pop(fact.worker_id, None)
    agenda.touched.discard(fact.worker_id)


def _on_pool_changed(agenda: Agenda, fact: PoolChanged, record: None) -> None:  # noqa: ARG001 - one signature for all
    agenda.target = min(max(agenda.target, fact.pool.min_workers), fact.pool.max_workers)


def _on_noted(agenda: Agenda, fact: SystemNoted, record: None) -> None:  # noqa: ARG001 - one signature for all
    workers = fact.data.get("workers")
    if fact.event in ("scaled_up", "scaled_down") and isinstance(workers, int):
        agenda.target = workers


_NOTES: dict[type, Callable[..., None]] = {
    PoolChanged: _on_pool_changed,
    SystemNoted: _on_noted,
    TaskSubmitted: _on_submitted,
    TaskReleased: _on_released,
    TaskStarted: _on_started,
    TaskReturned: _on_returned,
    TaskRetried: _on_retried,
    TaskCompleted: _on_completed,
    TaskFailed: _on_ended,
    TaskCancelled: _on_ended,
    StopRequested: _on_stop,
    WorkerStarted: _on_worker_started,
    WorkerChanged: _on_worker_changed,
    WorkerRetired: _on_worker_retired,
    WorkerStopped: _on_worker_stopped,
}
