"""`plan`: what the shell does next.

Short tasks are claimed in windows: a worker may hold as many as together take `WINDOW_S`, judged by how long
tasks of that name, or of its family, took lately. Where the pool can have no more workers, one that runs a rather short
task may hold the next: both together take `AHEAD_S` at most. A task of unknown or greater length is claimed alone, by
an idle worker.
"""

from __future__ import annotations

from heapq import heapify, heappop
from math import ceil
from typing import cast

from msgspec import Struct

from koubou_panel.core.agenda import Agenda, Lane
from koubou_panel.core.decide import dependency_words
from koubou_panel.core.events import (
    Fact,
    StopRequested,
    TaskCancelled,
    TaskReleased,
    TaskStarted,
    WorkerChanged,
    WorkerRetired,
)
from koubou_panel.core.records import Job, Status, StopCause, Task, TaskId, WorkerId, WorkerStatus
from koubou_panel.core.scale import scale, scale_times
from koubou_panel.core.state import State

WINDOW_S = 0.02
WINDOW_TASKS = 256
AHEAD_S = 0.25  # of it, a commit and a wake-up on a busy machine are some hundredths
RECALL_AFTER_S = 0.05
NEWS_EVERY_S = 0.25
FOLLOW_TASKS = 256
MOST_STALE = 1_000


class Start(Struct, frozen=True, gc=False):
    """Hand these runs to this worker, in this order."""

    worker_id: WorkerId
    jobs: list[Job]


class Stop(Struct, frozen=True, gc=False):
    """End the process tree of this run."""

    worker_id: WorkerId
    task_id: TaskId
    run: int
    cause: StopCause


class Recall(Struct, frozen=True, gc=False):
    """Take back what this worker has not begun."""

    worker_id: WorkerId


class Spawn(Struct, frozen=True, gc=False):
    """Start a worker process."""

    worker_id: WorkerId


class Retire(Struct, frozen=True, gc=False):
    """Let this worker end after what it runs, or (`at_once`) end it with that."""

    worker_id: WorkerId
    at_once: bool = False


Instruction = Start | Stop | Recall | Spawn | Retire


class Plan(Struct, frozen=True):
    """Facts to fold, instructions to release once they are durable, and when to plan again at the latest."""

    events: list[Fact]
    instructions: list[Instruction]
    wake_at: float | None


class Round:
    """One call of `plan`, as it grows."""

    __slots__ = ("agenda", "events", "instructions", "node", "now", "state")

    def __init__(self, state: State, agenda: Agenda, now: float, node: str) -> None:
        self.state = state
        self.agenda = agenda
        self.now = now
        self.node = node
        self.events: list[Fact] = []
        self.instructions: list[Instruction] = []


def plan(
    state: State, agenda: Agenda, now: float, *, node: str = "local", follow: int = FOLLOW_TASKS
) -> Plan:
    """What is to be done at `now`. Its events must be folded and noted before the next call.

    Of the tasks that waited for others at most `follow` are told what became of that; the rest, at the next moment.
    """
    this = Round(state, agenda, now, node)
    _wake_delayed(this)
    _follow(this, follow)
    _time_out(this)
    _stop(this)
    _replace_stuck(this)
    if state.pool.starts_work:
        _assign(this)
    _recall(this)
    _show_pause(this)
    _settle(this)
    if not this.events:  # else it is asked again, when they are folded
        this.events += scale(state, agenda, _peek(this), now, node=node)
    _populate(this)
    return Plan(this.events, this.instructions, _wake_at(this))


def _wake_delayed(this: Round) -> None:
    delayed, early = this.agenda.delayed, this.agenda.early
    while delayed and delayed[0][0] <= this.now:
        _, _, task_id = heappop(delayed)
        if task_id in early:
            early.remove(task_id)
            this.agenda.ready[this.state.tasks[task_id].request.priority].append(task_id)


def _follow(this: Round, most: int) -> None:
    """Release those whose dependencies have all succeeded; cancel those of which one has not, and who follows them."""
    agenda, tasks, events = this.agenda, this.state.tasks, this.events
    while agenda.released and len(events) < most:
        task = tasks.get(agenda.released.popleft())
        if task is not None and task.status == "pending":
            events.append(TaskReleased(this.now, task.task_id))
    said: dict[TaskId, str] = {}
    while agenda.doomed and len(events) < most:
        task_id, other_id = agenda.doomed.popleft()
        task, other = tasks.get(task_id), tasks.get(other_id)
        if task is None or task.status != "pending":
            continue
        status: Status = "failed" if other is not None and other.status == "failed" else "cancelled"
        words = said[task_id] = said.get(other_id) or dependency_words(other_id, status, other)
        events.append(TaskCancelled(this.now, task_id, task.run, "dependency", words))
        agenda.missed(task_id)  # now, not when it is folded: a long chain is not one round of the plan a link


def _time_out(this: Round) -> None:
    deadlines = this.agenda.deadlines
    while deadlines and deadlines[0][0] <= this.now:
        _, task_id, since = heappop(deadlines)
        task = this.state.tasks.get(task_id)
        if task is None or not _is_of(task, since) or task.stopping is not None:
            continue
        this.events.append(StopRequested(this.now, task_id, task.run, "timeout"))
    if len(deadlines) > MOST_STALE and len(deadlines) > 2 * this.state.counts["in_progress"]:
        tasks = this.state.tasks
        deadlines[:] = [one for one in deadlines if one[1] in tasks and _is_of(tasks[one[1]], one[2])]
        heapify(deadlines)


def _is_of(task: Task, since: float) -> bool:
    """Whether a deadline is that of the present claim: one that was given back has the same number of its run."""
    return task.status == "in_progress" and task.started_at == since


def _stop(this: Round) -> None:
    for task_id in this.agenda.stops:
        task = this.state.tasks.get(task_id)
        if task is not None and task.status == "in_progress" and task.stopping and task.worker_id:
            this.instructions.append(Stop(task.worker_id, task_id, task.run, task.stopping))
    this.agenda.stops.clear()


def _replace_stuck(this: Round) -> None:
    """A run that takes long to end does not keep its slot: its worker leaves with it, and another may start."""
    pending = this.agenda.long_stops
    while pending and pending[0][0] <= this.now:
        _, task_id, run = heappop(pending)
        task = this.state.tasks.get(task_id)
        if task is None or task.status != "in_progress" or task.run != run or task.stopping is None:
            continue
        worker = this.state.workers.get(task.worker_id) if task.worker_id else None
        if worker is not None and worker.status != "stopping":
            this.events.append(WorkerRetired(this.now, worker.worker_id))


def _populate(this: Round) -> None:
    """Start and end the workers that were said to."""
    agenda, workers = this.agenda, this.state.workers
    this.instructions += [Spawn(worker_id) for worker_id in agenda.started if worker_id in workers]
    this.instructions += [Retire(*retired) for retired in agenda.retired if retired[0] in workers]
    agenda.started.clear()
    agenda.retired.clear()


def _show_pause(this: Round) -> None:
    """An idle worker of a pool that starts nothing says so."""
    shown, other = ("idle", "paused") if not this.state.pool.starts_work else ("paused", "idle")
    for worker in this.state.workers.values():
        if worker.status == shown and not this.agenda.lanes[worker.worker_id].claims:
            this.events.append(WorkerChanged(this.now, worker.worker_id, cast("WorkerStatus", other)))


def _peek(this: Round) -> Task | None:
    """The task that is next, without taking it; those cancelled meanwhile are dropped."""
    tasks = this.state.tasks
    for queue in this.agenda.ready.values():
        while queue:
            task = tasks.get(queue[0])
            if task is not None and task.status == "pending":
                return task
            queue.popleft()
    return None


def _assign(this: Round) -> None:
    waiting = this.agenda.waiting()
    if not waiting:
        return
    lanes = this.agenda.lanes
    able = [
        name
        for name, worker in this.state.workers.items()
        if worker.status in ("idle", "busy") and not lanes[name].recalled
    ]
    able.sort(key=lambda name: len(lanes[name].claims))
    # Those that the pool is to lose get nothing more: the idle ones first.
    able = able[max(0, len(able) - this.state.pool.max_workers) :]
    share = ceil(waiting / max(1, len(able)))
    is_full = len(able) >= this.state.pool.max_workers
    for worker_id in able:
        lane = lanes[worker_id]
        tasks = _take(this, lane, min(WINDOW_TASKS, share)) or (_take_ahead(this, lane) if is_full else [])
        if tasks:
            this.instructions.append(Start(worker_id, _claim_all(this, tasks, worker_id)))


def _take(this: Round, lane: Lane, most: int) -> list[Task]:
    """Tasks for one worker, taken off the queue: one of any length if it is idle, or a refill of short ones."""
    taken: list[Task] = []
    held = len(lane.claims)
    load_s = lane.load_s
    if held > WINDOW_TASKS // 2 or load_s > WINDOW_S / 2:
        return taken
    while held < most or not held:
        task = _peek(this)
        if task is None:
            break
        expected_s = this.agenda.expected_s(task)
        if held and load_s + expected_s > WINDOW_S:
            break
        this.agenda.ready[task.request.priority].popleft()
        taken.append(task)
        held += 1
        load_s += expected_s
    return taken


def _take_ahead(this: Round, lane: Lane) -> list[Task]:
    """One more for a worker that runs one rather short task: else it would stand still between the two."""
    task = _peek(this) if len(lane.claims) == 1 else None
    if task is None or lane.load_s + this.agenda.expected_s(task) > AHEAD_S:
        return []
    this.agenda.ready[task.request.priority].popleft()
    return [task]


def _claim_all(this: Round, tasks: list[Task], worker_id: WorkerId) -> list[Job]:
    jobs: list[Job] = []
    for claim, task in enumerate(tasks, this.agenda.lanes[worker_id].given):
        request = task.request
        run = task.run + 1
        this.events.append(TaskStarted(this.now, request.task_id, run, worker_id, this.node, claim))
        given = (request.kind, request.spec, request.payload, request.limits, request.timeout_s)
        jobs.append(Job(request.task_id, run, claim, *given))
    return jobs


def _recall(this: Round) -> None:
    """Take a window back from a worker that is stuck in one task while another worker is idle."""
    if this.agenda.waiting() or not _has_idle(this):
        return
    for worker_id, lane in this.agenda.lanes.items():
        if len(lane.claims) > 1 and not lane.recalled and this.now >= lane.heard_at + RECALL_AFTER_S:
            lane.recalled = True
            this.instructions.append(Recall(worker_id))


def _has_idle(this: Round) -> bool:
    workers, lanes = this.state.workers, this.agenda.lanes
    return any(worker.status == "idle" and not lanes[name].claims for name, worker in workers.items())


def _settle(this: Round) -> None:
    """Say who is busy with what. Within a window of short tasks, at most every quarter of a second."""
    later: set[WorkerId] = set()
    for worker_id in this.agenda.touched:
        worker = this.state.workers[worker_id]
        lane = this.agenda.lanes[worker_id]
        if worker.status not in ("idle", "busy"):
            continue
        if not lane.claims:
            if worker.status == "busy":
                this.events.append(WorkerChanged(this.now, worker_id, "idle"))
        elif worker.status == "idle" or (worker.current_task not in lane.claims and _is_news(lane, this.now)):
            this.events.append(WorkerChanged(this.now, worker_id, "busy", next(iter(lane.claims))))
        elif worker.current_task not in lane.claims:
            later.add(worker_id)
    this.agenda.touched = later


def _is_news(lane: Lane, now: float) -> bool:
    return lane.load_s > WINDOW_S or now >= lane.changed_at + NEWS_EVERY_S


def _wake_at(this: Round) -> float | None:
    agenda = this.agenda
    if agenda.released or agenda.doomed:
        return this.now
    times = [agenda.delayed[0][0]] if agenda.delayed else []
    if agenda.deadlines:
        times.append(agenda.deadlines[0][0])
    if agenda.long_stops:
        times.append(agenda.long_stops[0][0])
    times += scale_times(this.state, agenda, this.now)
    times += [agenda.lanes[worker_id].changed_at + NEWS_EVERY_S for worker_id in agenda.touched]
    held = [lane.heard_at for lane in agenda.lanes.values() if len(lane.claims) > 1 and not lane.recalled]
    if held and _has_idle(this):
        times.append(min(held) + RECALL_AFTER_S)
    return min(times) if times else None
