"""Why a task does not start yet, in words."""

from __future__ import annotations

from typing import NamedTuple

from koubou_panel.core.records import Task, TaskId
from koubou_panel.core.state import Snapshot
from koubou_panel.shop.remote import RemoteShop

SCALING = ("scaled_up", "scaled_down", "scaling_held")
NAMED = 3


class Waiting(NamedTuple):
    """What a task waits for: a word that tells causes apart, and the words for people."""

    cause: str
    words: str


async def why_waiting(shop: RemoteShop, task: Task) -> Waiting | None:
    """What keeps a pending task; None if it is about to start."""
    if task.waits_for:
        return Waiting("task", await waits_for_words(shop, task))
    if task.not_before is not None:
        return Waiting("retry", "it failed, and will be tried again")
    return pool_cause(await shop.look())


async def waits_for_words(shop: RemoteShop, task: Task) -> str:
    """Which tasks are to succeed first, by name."""
    names = [await _named(shop, task_id) for task_id in task.waits_for[:NAMED]]
    more = len(task.waits_for) - NAMED
    rest = f" and {more} more" if more > 0 else ""
    return f"it waits for {', '.join(names)}{rest}"


async def _named(shop: RemoteShop, task_id: TaskId) -> str:
    found = await shop.get(task_id)
    return f"{task_id} ({found.request.name})" if found and found.request.name else task_id


def pool_cause(outline: Snapshot) -> Waiting | None:
    """What keeps any pending task: the pool's own standing."""
    pool = outline.pool
    if pool.closing:
        return Waiting("closing", "the workshop is shutting down")
    if pool.draining:
        return Waiting("draining", "the workshop is drained (`koubou resume` ends that)")
    if pool.paused:
        return Waiting("paused", "the pool is paused (`koubou resume` ends that)")
    last = next((note for note in reversed(outline.notes) if note.event in SCALING), None)
    if last is not None and last.event == "scaling_held":
        return Waiting("held", f"all workers are busy, and there will be no more: {last.details}")
    statuses = [worker.status for worker in outline.workers]
    if not statuses or "starting" in statuses or "idle" in statuses:
        return None
    silent = f", {statuses.count('unresponsive')} of them unresponsive" if "unresponsive" in statuses else ""
    count = len(statuses)
    busy = f"all {count} workers are busy" if count > 1 else "the only worker is busy"
    return Waiting("busy", busy + silent)
