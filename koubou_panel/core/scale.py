"""How many workers there are: the pool's own decisions, each with its reason in words.

The pool grows when more than two tasks wait for each worker, or one waits for long while all are busy, as far as the
host's memory allows; it shrinks when workers have been idle for long. It stays within the bounds that it was given.
"""

from __future__ import annotations

from math import ceil
from typing import NamedTuple

from koubou_panel.core.agenda import Agenda
from koubou_panel.core.events import Fact, SystemNoted, WorkerRetired, WorkerStarted
from koubou_panel.core.quantity import seconds_text, size_text
from koubou_panel.core.records import Task, Worker, WorkerId
from koubou_panel.core.state import State

TASKS_A_WORKER = 2
PATIENCE_S = 2.0
IDLE_S = 30.0
WORKER_BYTES = 64 << 20
FRESH_S = 10.0
UP, DOWN, HELD = "scaled_up", "scaled_down", "scaling_held"


def scale(state: State, agenda: Agenda, head: Task | None, now: float, *, node: str) -> list[Fact]:
    """The facts that bring the pool to the size it should have. `head` is the task that is next, if one waits."""
    if state.pool.closing:
        return []
    _watch(state, agenda, head, now)
    return (
        _surplus(state, agenda, now)
        or _grow(state, agenda, head, now)
        or _shrink(state, agenda, head, now)
        or _spawn(state, agenda, now, node)
    )


def scale_times(state: State, agenda: Agenda, now: float) -> list[float]:
    """When `scale` may decide otherwise although nothing happened."""
    times = [agenda.respawn_at]
    if agenda.full_since is not None and target(state, agenda) < state.pool.max_workers:
        times.append(agenda.full_since + PATIENCE_S)
    elif target(state, agenda) > state.pool.min_workers:
        times += [agenda.lanes[worker.worker_id].used_at + IDLE_S for worker in _idle(state, agenda)]
    return [at for at in times if at > now]


def target(state: State, agenda: Agenda) -> int:
    """How many workers there should be now: what was decided last, within the bounds."""
    return min(max(agenda.target, state.pool.min_workers), state.pool.max_workers)


def _alive(state: State) -> list[Worker]:
    return [worker for worker in state.workers.values() if worker.status != "stopping"]


def _idle(state: State, agenda: Agenda) -> list[Worker]:
    """Those that do nothing, the longest idle first."""
    lanes = agenda.lanes
    found = [
        worker
        for worker in state.workers.values()
        if worker.status in ("idle", "paused") and not lanes[worker.worker_id].claims
    ]
    return sorted(found, key=lambda worker: lanes[worker.worker_id].used_at)


def _waiting(state: State, agenda: Agenda) -> int:
    """Tasks that only wait for a worker."""
    return max(0, state.counts["pending"] - len(agenda.unmet) - len(agenda.early))


def _watch(state: State, agenda: Agenda, head: Task | None, now: float) -> None:
    """Remember since when a task waits while nobody is free, or about to be."""
    is_full = (
        head is not None
        and state.pool.starts_work
        and not any(worker.status in ("starting", "idle") for worker in state.workers.values())
    )
    if not is_full or head is None:
        agenda.full_since = agenda.full_for = None
    elif agenda.full_for != head.task_id:
        agenda.full_since, agenda.full_for = now, head.task_id
    if head is None:
        agenda.is_held = False


def _surplus(state: State, agenda: Agenda, now: float) -> list[Fact]:
    """Bounds that were lowered: the idle ones end, the others when they become idle."""
    too_many = sum(_holds_slot(state, agenda, worker) for worker in _alive(state)) - state.pool.max_workers
    if too_many <= 0:
        return []
    return [WorkerRetired(now, worker.worker_id) for worker in _idle(state, agenda)[:too_many]]


def _grow(state: State, agenda: Agenda, head: Task | None, now: float) -> list[Fact]:
    present, most = target(state, agenda), state.pool.max_workers
    if head is None or present >= most or not state.pool.starts_work:
        return []
    waiting = _waiting(state, agenda)
    if waiting > TASKS_A_WORKER * present:
        wanted = min(most, max(present + 1, ceil(waiting / TASKS_A_WORKER)))
        why = f"{waiting} tasks wait" if waiting > 1 else "a task waits"
    elif agenda.full_since is not None and now >= agenda.full_since + PATIENCE_S:
        wanted = present + 1
        why = f"a task has waited {seconds_text(PATIENCE_S)} while all were busy"
    else:
        return []
    room = _room(state, agenda, head, now) if _is_at_work(agenda) else None
    if room is not None and room.free_bytes < room.need_bytes:
        return _hold(agenda, present, room, why, now)
    if room is not None:
        wanted = min(wanted, present + room.workers)
    if wanted <= present:
        return []
    agenda.full_since = agenda.full_for = None
    agenda.is_held = False
    return [_decided(now, UP, present, wanted, f"up from {present} to {_workers(wanted)}: {why}")]


def _is_at_work(agenda: Agenda) -> bool:
    """Whether something runs whose end may make room: else a task that is too large would wait for ever."""
    return any(lane.claims for lane in agenda.lanes.values())


class _Room(NamedTuple):
    """What the host's memory allows: so many workers more, of so many bytes each."""

    workers: int
    free_bytes: int
    need_bytes: int


def _room(state: State, agenda: Agenda, head: Task, now: float) -> _Room | None:
    """None if nothing is known. Workers whose work is not in the last sample yet are counted off."""
    last = state.metrics[-1] if state.metrics else None
    free = last.values.get("memory_available_bytes") if last and last.at > now - FRESH_S else None
    if last is None or not isinstance(free, int):
        return None
    known = agenda.memory_bytes.get(head.request.name, 0)
    limit = head.request.limits.memory_bytes
    need = max(WORKER_BYTES, known if limit is None else min(limit, known or limit))
    seen = [lane for lane in agenda.lanes.values() if lane.claims and lane.heard_at <= last.at]
    return _Room(free // need - max(0, target(state, agenda) - len(seen)), free, need)


def _hold(agenda: Agenda, present: int, room: _Room, why: str, now: float) -> list[Fact]:
    """Said once, until the pool can grow or nothing waits."""
    if agenda.is_held:
        return []
    agenda.is_held = True
    needs = f"{size_text(room.free_bytes)} free, needs about {size_text(room.need_bytes)}"
    words = f"held: {needs} ({_workers(present)}; {why})"
    return [_decided(now, HELD, present, present, words)]


def _shrink(state: State, agenda: Agenda, head: Task | None, now: float) -> list[Fact]:
    present = target(state, agenda)
    if head is not None or present <= state.pool.min_workers:
        return []
    lanes = agenda.lanes
    long_idle = [one for one in _idle(state, agenda) if now >= lanes[one.worker_id].used_at + IDLE_S]
    healthy = sum(worker.status != "unresponsive" for worker in _alive(state))
    leaving = long_idle[: max(0, min(present, healthy) - state.pool.min_workers)]
    if not leaving:
        return []
    left = present - len(leaving)
    names = ", ".join(worker.worker_id for worker in leaving)
    words = f"down from {present} to {_workers(left)}: {names} idle for {seconds_text(IDLE_S)}"
    retired: list[Fact] = [WorkerRetired(now, worker.worker_id) for worker in leaving]
    return [_decided(now, DOWN, present, left, words), *retired]


def _spawn(state: State, agenda: Agenda, now: float, node: str) -> list[Fact]:
    missing = target(state, agenda) - sum(_holds_slot(state, agenda, one) for one in state.workers.values())
    if missing <= 0 or now < agenda.respawn_at or state.pool.draining:
        return []
    return [WorkerStarted(now, worker_id, node) for worker_id in _free_names(state, missing)]


def _holds_slot(state: State, agenda: Agenda, worker: Worker) -> bool:
    """Whether another would be one too many.

    Not beside a silent worker that does nothing, nor one that is to end: at once, or with a run that is to end.
    """
    claims = agenda.lanes[worker.worker_id].claims
    if worker.status == "unresponsive":
        return bool(claims)
    if worker.status != "stopping":
        return True
    return worker.ended_by is None and any(state.tasks[task_id].stopping is None for task_id in claims)


def _free_names(state: State, count: int) -> list[WorkerId]:
    names: list[WorkerId] = []
    number = 0
    while len(names) < count:
        number += 1
        name = WorkerId(f"worker-{number}")
        if name not in state.workers:
            names.append(name)
    return names


def _decided(now: float, event: str, before: int, workers: int, words: str) -> SystemNoted:
    return SystemNoted(now, event, words, {"before": before, "workers": workers})


def _workers(count: int) -> str:
    return f"{count} worker" if count == 1 else f"{count} workers"
