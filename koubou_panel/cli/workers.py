"""`koubou workers`: what each does, what the pool is told to do, and what it decided last."""

from __future__ import annotations

import time
from collections.abc import Mapping

import click
from msgspec.structs import asdict

from koubou_panel.cli.ending import say
from koubou_panel.cli.link import ask
from koubou_panel.cli.show import ago, duration, print_json, progress_words, shortened, size, table
from koubou_panel.cli.waiting import SCALING
from koubou_panel.core.events import SystemNoted
from koubou_panel.core.records import SILENT_AFTER_S, Pool, Task, TaskId, Worker
from koubou_panel.core.state import Snapshot
from koubou_panel.shop.remote import RemoteShop
from koubou_panel.wire.records import iso, pool_record, worker_record

COLUMNS = ("WORKER", "STATUS", "PID", "UP", "CPU", "MEMORY", "DONE", "FAILED", "TASK")
NAME_CHARS = 24

Tasks = Mapping[TaskId, Task]


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.pass_context
def workers(ctx: click.Context, *, as_json: bool) -> None:
    """List the workers: what each does, and what it uses."""
    snapshot, tasks = ask(ctx, _look)
    if as_json:
        print_json(_document(snapshot))
        return
    if snapshot.workers:
        now = time.time()
        table(COLUMNS, [_row(worker, tasks, now) for worker in snapshot.workers], status=1)
    pool = snapshot.pool
    count = len(snapshot.workers)
    noun = "worker" if count == 1 else "workers"
    say(f"{count} {noun}, {pool.min_workers} to {pool.max_workers} wanted{standing(pool)}")
    decision = last_decision(snapshot)
    if decision is not None:
        say(f"{ago(decision.at, time.time())} ago: {decision.details}")


async def _look(shop: RemoteShop) -> tuple[Snapshot, Tasks]:
    snapshot = await shop.look()
    current = [worker.current_task for worker in snapshot.workers if worker.current_task]
    found = [await shop.get(task_id) for task_id in current]
    return snapshot, {task.task_id: task for task in found if task is not None}


def last_decision(snapshot: Snapshot) -> SystemNoted | None:
    """What the pool decided last about its size, if it has lately."""
    return next((note for note in reversed(snapshot.notes) if note.event in SCALING), None)


def _document(snapshot: Snapshot) -> dict[str, object]:
    decision = last_decision(snapshot)
    return {
        "workers": [worker_record(worker) for worker in snapshot.workers],
        "total": len(snapshot.workers),
        **asdict(pool_record(snapshot.pool)),
        "last_decision": None
        if decision is None
        else {"event": decision.event, "message": decision.details, "at": iso(decision.at)},
    }


def standing(pool: Pool) -> str:
    """What is out of the ordinary about the pool, after a semicolon; empty where nothing is."""
    if pool.closing:
        return "; shutting down"
    if pool.draining:
        return "; drained: no work is taken or started (`koubou resume` ends that)"
    return "; paused: no work is started (`koubou resume` ends that)" if pool.paused else ""


def _row(worker: Worker, tasks: Tasks, now: float) -> list[str]:
    return [
        worker.worker_id,
        _status(worker, now),
        str(worker.pid or ""),
        ago(worker.started_at, now),
        "" if worker.cpu_percent is None else f"{worker.cpu_percent:.0f} %",
        size(worker.rss_bytes),
        str(worker.completed),
        str(worker.failed),
        _doing(worker, tasks, now),
    ]


def _status(worker: Worker, now: float) -> str:
    if worker.status == "unresponsive" and worker.changed_at is not None:
        return f"unresponsive (silent {ago(worker.changed_at - SILENT_AFTER_S, now)})"
    return worker.status


def _doing(worker: Worker, tasks: Tasks, now: float) -> str:
    if worker.current_task is None:
        return ""
    task = tasks.get(worker.current_task)
    if task is None:
        return worker.current_task
    name = shortened(task.request.name, NAME_CHARS)
    since = "" if task.started_at is None else f" for {duration(now - task.started_at)}"
    how_far = progress_words(task.progress)
    return f"{name} ({worker.current_task})".lstrip() + f"{since}{f', {how_far}' if how_far else ''}"
