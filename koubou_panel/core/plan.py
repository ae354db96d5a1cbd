"""`plan`: what the shell does next.

Short tasks are claimed in windows: a worker may hold as many as together take `WINDOW_S`, judged by how long
tasks of that name took lately; a task of unknown or greater length is claimed alone, by an idle worker.
"""

from __future__ import annotations

from heapq import heappop
from math import ceil, inf

from msgspec import Struct

from koubou_panel.core.agenda import Agenda, Lane
from koubou_panel.core.events import Fact, StopRequested, TaskStarted, WorkerChanged, WorkerStarted
from koubou_panel.core.fold import State
from koubou_panel.core.records import Job, StopCause, Task, TaskId, WorkerId

WINDOW_S = 0.02
WINDOW_TASKS = 256
RECALL_AFTER_S = 0.05
NEWS_EVERY_S = 0.25


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
    """Let this idle worker end."""

    worker_id: WorkerId


Instruction = Start | Stop | Recall | Spawn | Retire


class Plan(Struct, frozen=True):
    """Facts to fold, instructions to release once they are durable, and when to plan again at the latest."""

    events: list[Fact]
    instructions: list[Instruction]
    wake_at: float | None


class _Round:
    """One call of `plan`, as it grows."""

    __slots__ = ("agenda", "events", "instructions", "node", "now", "state")

    def __init__(self, state: State, agenda: Agenda, now: float, node: str) -> None:
        self.state = state
        self.agenda = agenda
        self.now = now
        self.node = node
        self.events: list[Fact] = []
        self.instructions: list[Instruction] = []


def plan(state: State, agenda: Agenda, now: float, *, node: str = "local") -> Plan:
    """What is to be done at `now`. Its events must be folded and noted before the next call."""
    this = _Round(state, agenda, now, node)
    _wake_delayed(this)
    _time_out(this)
    _stop(this)
    if not state.pool.paused and not state.pool.draining:
        _assign(this)
    _recall(this)
    _scale(this)
    _settle(this)
    return Plan(this.events, this.instructions, _wake_at(this))


def _wake_delayed(this: _Round) -> None:
    delayed = this.agenda.delayed
    while delayed and delayed[0][0] <= this.now:
        _, _, task_id = heappop(delayed)
        task = this.state.tasks.get(task_id)
        if task is not None and task.status == "pending":
            this.agenda.ready[task.request.priority].append(task_id)


def _time_out(this: _Round) -> None:
    deadlines = this.agenda.deadlines
    while deadlines and deadlines[0][0] <= this.now:
        _, task_id, run = heappop(deadlines)
        task = this.state.tasks.get(task_id)
        if task is not None and task.status == "in_progress" and task.run == run and task.stopping is None:
            this.events.append(StopRequested(this.now, task_id, run, "timeout"))


def _stop(this: _Round) -> None:
    for task_id in this.agenda.stops:
        task = this.state.tasks.get(task_id)
        if task is not None and task.status == "in_progress" and task.stopping and task.worker_id:
            this.instructions.append(Stop(task.worker_id, task_id, task.run, task.stopping))
    this.agenda.stops.clear()


def _peek(this: _Round) -> Task | None:
    """The task that is next, without taking it; those cancelled meanwhile are dropped."""
    tasks = this.state.tasks
    for queue in this.agenda.ready.values():
        while queue:
            task = tasks.get(queue[0])
            if task is not None and task.status == "pending":
                return task
            queue.popleft()
    return None


def _assign(this: _Round) -> None:
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
    for worker_id in able:
        tasks = _take(this, lanes[worker_id], min(WINDOW_TASKS, share))
        if tasks:
            this.instructions.append(Start(worker_id, _claim_all(this, tasks, worker_id)))


def _take(this: _Round, lane: Lane, most: int) -> list[Task]:
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


def _claim_all(this: _Round, tasks: list[Task], worker_id: WorkerId) -> list[Job]:
    jobs: list[Job] = []
    for claim, task in enumerate(tasks, this.agenda.lanes[worker_id].given):
        request = task.request
        run = task.run + 1
        this.events.append(TaskStarted(this.now, request.task_id, run, worker_id, this.node, claim))
        jobs.append(Job(request.task_id, run, claim, request.kind, request.spec, request.payload))
    return jobs


def _recall(this: _Round) -> None:
    """Take a window back from a worker that is stuck in one task while another worker is idle."""
    if this.agenda.waiting() or not _has_idle(this):
        return
    for worker_id, lane in this.agenda.lanes.items():
        if len(lane.claims) > 1 and not lane.recalled and this.now >= lane.heard_at + RECALL_AFTER_S:
            lane.recalled = True
            this.instructions.append(Recall(worker_id))


def _has_idle(this: _Round) -> bool:
    workers, lanes = this.state.workers, this.agenda.lanes
    return any(worker.status == "idle" and not lanes[name].claims for name, worker in workers.items())


def _scale(this: _Round) -> None:
    state = this.state
    if state.pool.draining:
        return
    wanted = state.pool.max_workers
    alive = [worker for worker in state.workers.values() if worker.status != "stopping"]
    if len(state.workers) < wanted and this.now >= this.agenda.respawn_at:
        for worker_id in _free_names(state, wanted - len(state.workers)):
            this.events.append(WorkerStarted(this.now, worker_id, this.node))
            this.instructions.append(Spawn(worker_id))
    elif len(alive) > wanted:
        given = {one.worker_id for one in this.instructions if type(one) is Start}
        idle = [
            worker
            for worker in alive
            if worker.status == "idle"
            and worker.worker_id not in given
            and not this.agenda.lanes[worker.worker_id].claims
        ]
        for worker in idle[wanted - len(alive) :]:
            this.events.append(WorkerChanged(this.now, worker.worker_id, "stopping"))
            this.instructions.append(Retire(worker.worker_id))


def _free_names(state: State, count: int) -> list[WorkerId]:
    names: list[WorkerId] = []
    number = 0
    while len(names) < count:
        number += 1
        name = WorkerId(f"worker-{number}")
        if name not in state.workers:
            names.append(name)
    return names


def _settle(this: _Round) -> None:
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
    return lane.load_s == inf or now >= lane.changed_at + NEWS_EVERY_S


def _wake_at(this: _Round) -> float | None:
    agenda = this.agenda
    times = [agenda.delayed[0][0]] if agenda.delayed else []
    if agenda.deadlines:
        times.append(agenda.deadlines[0][0])
    if agenda.respawn_at > this.now:
        times.append(agenda.respawn_at)
    times += [agenda.lanes[worker_id].changed_at + NEWS_EVERY_S for worker_id in agenda.touched]
    held = [lane.heard_at for lane in agenda.lanes.values() if len(lane.claims) > 1 and not lane.recalled]
    if held and _has_idle(this):
        times.append(min(held) + RECALL_AFTER_S)
    return min(times) if times else None
