"""What a page says about the pool and its workers, as plain data: made from the models, drawn by the card."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from koubou_panel.core.records import SILENT_AFTER_S, Task
from koubou_panel.reactive.models import ShopModel, WorkerModel
from koubou_panel.views.escape import line
from koubou_panel.views.language import _, later
from koubou_panel.views.rows import MARK
from koubou_panel.views.words import count, size

SHOWN_WORKERS = 24
SHOWN_DECISIONS = 5
LANE_S = 300
LANE_STEP_S = 0.4  # a pixel or so

Row = dict[str, object]


WORDS = {
    "starting": later("starting"),
    "idle": later("idle"),
    "busy": later("busy"),
    "paused": later("paused"),
    "unresponsive": later("silent"),
    "stopping": later("stopping"),
    "offline": later("offline"),
}
MARKS = {
    "starting": "restart",
    "idle": "wait",
    "busy": "run",
    "unresponsive": "warn",
    "stopping": "cancel",
}


def worker_rows(workers: Sequence[WorkerModel]) -> list[Row]:
    """A row for each of these workers."""
    return [
        {
            "id": line(worker.worker_id, 24),
            "status": worker.status,
            "word": _(WORDS[worker.status]),
            "mark": MARKS.get(worker.status, "cancel"),
            "silent_since": _silent_since(worker),
            "task": line(worker.current_label, 60),
            "task_full": line(worker.current_label, 200),
            "task_id": worker.current_task or "",
            "pid": "" if worker.pid is None else f"{worker.pid}",
            "node": line(worker.node, 40),
            "done": count(worker.completed),
            "failed": count(worker.failed) if worker.failed else "",
            "cpu": "" if worker.cpu_percent is None else f"{worker.cpu_percent:.0f} %",
            "rss": "" if worker.rss_bytes is None else size(worker.rss_bytes),
            "started_at": worker.started_at,
        }
        for worker in workers
    ]


def page_of(workers: Sequence[WorkerModel], first: int) -> Sequence[WorkerModel]:
    """Those that have a row: some two dozen from the `first` on."""
    return workers[first : first + SHOWN_WORKERS]


def bands(workers: Sequence[WorkerModel]) -> list[Row]:
    """Every worker by its machine, small, where they are more than have a row."""
    if len(workers) <= SHOWN_WORKERS:
        return []
    found: dict[str, list[list[object]]] = {}
    for place, worker in enumerate(workers):
        cell = [line(worker.worker_id, 24), worker.status, _(WORDS[worker.status]), place]
        found.setdefault(worker.node, []).append(cell)
    return [{"node": line(node, 40), "cells": cells} for node, cells in found.items()]


def _silent_since(worker: WorkerModel) -> float | None:
    if worker.status != "unresponsive" or worker.changed_at is None:
        return None
    return worker.changed_at - SILENT_AFTER_S


def pool_note(model: ShopModel) -> str:
    """`2 of 1–3 · 1 busy · 5 waiting`."""
    least, most = model.min_workers, model.max_workers
    bounds = str(most) if least == most else f"{least}–{most}"
    parts = [
        _("{n} of {bounds}").format(n=model.workers_total, bounds=bounds),
        _("{n} busy").format(n=model.workers_busy),
    ]
    if model.workers_lost:
        parts.append(_("{n} silent").format(n=model.workers_lost))
    if model.pending:
        parts.append(_("{n} waiting").format(n=count(model.pending)))
    return " · ".join(parts)


def empty_words(model: ShopModel) -> str:
    """What is said in the place of the workers while there is none: why, and what makes one appear."""
    if model.closing:
        return _("The workshop shuts down: its workers have ended.")
    if model.draining:
        return _("The workers have drained. Resume takes new work again, and starts workers for it.")
    if model.paused:
        return _("The workers are paused. Resume starts them again, as soon as there is work.")
    if model.pending:
        return _("Workers are being started for what waits; each appears here with what it runs.")
    return _(
        "No worker is up: each appears here, with what it runs, as soon as there is work. "
        "Try: koubou run -- echo hello"
    )


def pool_state(model: ShopModel) -> Row:
    """The pool's bounds and whether it works, for its controls."""
    state = "closing" if model.closing else "draining" if model.draining else "paused" if model.paused else ""
    return {"min": model.min_workers, "max": model.max_workers, "state": state}


def decision_rows(model: ShopModel) -> list[Row]:
    """The last decisions about the pool's size, the latest first."""
    return [{"at": at, "text": line(words, 160)} for at, words in model.scaling[:SHOWN_DECISIONS]]


def lane_runs(ended: Iterable[Task], since: float) -> list[tuple[str, float, float, str]]:
    """Runs that ended after `since` as (worker, start, end, mark); short ones that follow on each other as one."""
    runs: list[tuple[str, float, float, str]] = []
    last: dict[str, int] = {}
    for task in ended:
        worker, start, end = task.worker_id, task.started_at, task.finished_at
        if worker is None or start is None or end is None or end < since:
            continue
        mark = MARK[task.status]
        place = last.get(worker)
        if place is not None:
            _, known_start, known_end, known_mark = runs[place]
            is_short = end - start < LANE_STEP_S
            if is_short and known_mark == mark and 0 <= end - known_end < LANE_STEP_S:
                runs[place] = (worker, min(start, known_start), end, mark)
                continue
        last[worker] = len(runs)
        runs.append((worker, start, end, mark))
    return runs
