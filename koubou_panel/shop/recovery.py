"""Going on from what is stored: after a start, and after a step that could not be stored."""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from msgspec.structs import replace

from koubou_panel.archive.sqlite import Archive, Batch, Loaded
from koubou_panel.core.catalogue import ran
from koubou_panel.core.commands import Report, ScheduleDue
from koubou_panel.core.conclude import give_back, lose
from koubou_panel.core.events import (
    Event,
    PoolChanged,
    ScriptFact,
    ScriptRemoved,
    ScriptSaved,
    SystemNoted,
    TaskFailed,
    TaskRetried,
    WorkerChanged,
    WorkerStarted,
)
from koubou_panel.core.fold import evolve
from koubou_panel.core.records import Status, Task, TaskId, Worker, WorkerId, WorkerStatus
from koubou_panel.core.state import KEEP_METRICS, State
from koubou_panel.engines.rescue import clear, sweep
from koubou_panel.errors import Refused
from koubou_panel.shop.clock import Clock


class Stored(NamedTuple):
    """What an archive holds, to go on from.

    `keys` is the task of each idempotency key, `ended` how those ended that have left the state and that others still
    wait for.
    """

    state: State
    keys: dict[str, TaskId]
    ended: Mapping[TaskId, Status]


def read(archive: Archive, epoch: str) -> Stored:
    """What `archive` holds, as the state of a new epoch. Blocks; not on the loop.

    Raises:
        HomeRefused: a record or a page of the database is damaged.
    """
    loaded = archive.load()
    state = state_of(loaded, epoch)
    return Stored(state, loaded.keys, archive.statuses(waited_for(state)))


def repeatable(archive: Archive, lost: Sequence[Report]) -> list[Report]:
    """What was lost, as it can be taken in again: a due time that had its run has no other. Blocks; not on the loop."""
    return [
        replace(
            report, request=None, why="not run: this due time had its run, by a clock that was set back since"
        )
        if isinstance(report, ScheduleDue)
        and report.request is not None
        and archive.has_fired(report.name, report.fire_at)
        else report
        for report in lost
    ]


def begin(archive: Archive, marks: Path, workers: tuple[int, int] | None, clock: Clock) -> Stored:
    """What a workshop begins with: the workers of an earlier one are dead, and what became of its runs is stored.

    Blocks; not on the loop. `workers` are the bounds of the pool, as stored where not given.

    Raises:
        HomeRefused: a record or a page of the database is damaged.
    """
    stored = read(archive, new_epoch())
    state = stored.state
    begun = sweep(marks)
    events = recover(state, begun, clock())
    bounds = (state.pool.min_workers, state.pool.max_workers) if workers is None else workers
    pool = replace(state.pool, min_workers=bounds[0], max_workers=bounds[1], closing=False)
    if pool != state.pool:
        events.append(PoolChanged(clock(), pool, "koubou"))
    commit_now(archive, state, events)
    clear(marks, begun)  # only now: they are the proof, also for the start after one that fails above
    return stored._replace(ended=archive.statuses(waited_for(state)))


def new_epoch() -> str:
    """A name for one run of a workshop."""
    return secrets.token_hex(6)


def state_of(loaded: Loaded, epoch: str) -> State:
    """The state that an archive holds."""
    state = State(epoch)
    state.counts.update(loaded.counts)
    state.order = loaded.order
    state.worker_totals = loaded.worker_totals
    if loaded.pool is not None:
        state.pool = loaded.pool
    for task in sorted([*loaded.unfinished, *loaded.finished], key=lambda task: task.order):
        state.tasks[task.task_id] = task
    state.finished.extend(task.task_id for task in loaded.finished)
    state.metrics.extend(loaded.metrics[-KEEP_METRICS:])
    state.scripts = {entry.script.name: entry for entry in loaded.scripts}
    state.executions = loaded.executions
    return state


def recover(state: State, begun: Mapping[WorkerId, int | None], now: float) -> list[Event]:
    """The facts that follow from a crash, by proof: runs that had begun are lost, the rest is pending again."""
    events: list[Event] = []
    lost = looped = retried = returned = 0
    for task in state.tasks.values():
        if task.status != "in_progress" or task.worker_id is None:
            continue
        mark = begun.get(task.worker_id)
        if mark is not None and task.claim >= mark:
            events.append(give_back(task, now))
            returned += 1
        else:
            ended = lose(task, now)
            events.append(ended)
            retried += isinstance(ended, TaskRetried)
            # One that was being stopped ended as it was to: it is not lost.
            lost += isinstance(ended, TaskFailed) and ended.reason in ("lost", "crash_loop")
            looped += isinstance(ended, TaskFailed) and ended.reason == "crash_loop"
    queued = state.counts["pending"] + returned
    if lost or retried or returned:
        details = f"{lost} interrupted, {retried} retried, {queued} still queued"
        data: dict[str, object] = {
            "interrupted": lost,
            "looped": looped,
            "retried": retried,
            "returned": returned,
            "queued": queued,
        }
        events.append(SystemNoted(now, "recovered", details, data))
    return events


def commit_now(archive: Archive, state: State, events: Sequence[Event]) -> None:
    """Fold and store events before the hub exists."""
    batch = Batch()
    for event in events:
        folded = evolve(state, event)
        if folded is None:
            continue
        batch.facts.append(folded.fact)
        if isinstance(folded.record, Task):
            batch.tasks[folded.record.task_id] = folded.record
            if (told := ran(folded.fact, folded.record)) is not None:
                evolve(state, told)
                batch.facts.append(told)
                store_script(state, told, batch)
        if isinstance(event, PoolChanged):
            batch.pool = event.pool
    if not batch.is_empty:
        archive.commit([batch])


def store_script(state: State, fact: ScriptFact, batch: Batch) -> None:
    """Have a script stored as it stands after `fact`, or forgotten if it was removed."""
    name = fact.script.name if isinstance(fact, ScriptSaved) else fact.name
    entry = state.scripts.get(name)
    if entry is not None or isinstance(fact, ScriptRemoved):
        batch.scripts[name] = entry


def revived(workers: Iterable[Worker], now: float) -> list[Event]:
    """The facts that bring workers into a state that was loaded: they live on, whatever was not stored of them."""
    events: list[Event] = []
    for worker in workers:
        events.append(WorkerStarted(worker.started_at, worker.worker_id, worker.node))
        if worker.status != "starting":
            # One that was to leave may not have been told: idle, it will be.
            status: WorkerStatus = "unresponsive" if worker.status == "unresponsive" else "idle"
            events.append(WorkerChanged(now, worker.worker_id, status, None, worker.pid))
    return events


def waited_for(state: State) -> list[TaskId]:
    """The tasks that pending ones wait for and that have left the state: the archive knows how they ended."""
    waiting = (task.waits_for for task in state.tasks.values() if task.status == "pending" and task.waits_for)
    return list({task_id for others in waiting for task_id in others if task_id not in state.tasks})


def is_of_storage(error: BaseException | None) -> bool:
    """Whether a step failed by the disk or the database, not by a bug of ours."""
    return isinstance(error, OSError | sqlite3.OperationalError)


def not_stored(error: BaseException | None) -> Refused:
    """What those are told whose command was in a step that failed by `error`, or came while it was mended."""
    if is_of_storage(error):
        return Refused(
            "storage",
            f"the workshop could not store this ({error}); it was not taken in. If the disk of the home is full, free "
            "some space: it goes on by itself",
        )
    return Refused("internal", f"the workshop failed ({error}); nothing was taken in; try again")
