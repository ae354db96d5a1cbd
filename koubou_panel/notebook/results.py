"""Settles the futures of tasks that have ended: by the facts as they come, or by asking."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from koubou_panel.core.events import Sample, TaskCancelled, TaskCompleted, TaskFailed
from koubou_panel.core.ports import Shop
from koubou_panel.core.records import FINISHED, Task, TaskId
from koubou_panel.core.state import Folded, State
from koubou_panel.errors import DependencyFailed, TaskFailure
from koubou_panel.notebook.future import TaskFuture


class Results:
    """A workshop's own subscription. Loop thread only.

    Args:
        shop: the workshop.
        futures: those that wait, by task; a settled one is taken out.
    """

    def __init__(self, shop: Shop, futures: dict[TaskId, TaskFuture]) -> None:
        """To be subscribed."""
        self._shop = shop
        self._futures = futures

    def on_reset(self, state: State) -> None:
        """Fetch what ended meanwhile."""
        found = ((task_id, state.tasks.get(task_id)) for task_id in self._futures)
        self._fetch_soon([task_id for task_id, task in found if task is not None and task.status in FINISHED])

    def on_facts(self, folded: Sequence[Folded]) -> None:
        """Settle the futures whose tasks have ended."""
        futures = self._futures
        fetch: list[TaskId] = []
        for fact, _, _ in folded:
            kind = type(fact)
            if kind is TaskCompleted or kind is TaskFailed or kind is TaskCancelled:
                task_id = fact.task_id  # type: ignore[union-attr]
                if task_id not in futures:
                    continue
                value = getattr(fact, "value", b"")
                if value:
                    futures.pop(task_id).settle(value)
                elif kind is TaskCancelled and fact.reason != "dependency":  # type: ignore[union-attr]
                    futures.pop(task_id).settle_cancelled()
                else:
                    fetch.append(task_id)
        self._fetch_soon(fetch)

    def on_samples(self, samples: Sequence[Sample]) -> None:
        """Futures do not care."""

    def _fetch_soon(self, task_ids: list[TaskId]) -> None:
        if task_ids:
            asyncio.get_running_loop().create_task(self._fetch(task_ids))

    async def _fetch(self, task_ids: list[TaskId]) -> None:
        """Settle tasks whose facts came without a value: from another process, or ended without one."""
        values = await self._shop.values(task_ids)
        for task_id, value in zip(task_ids, values, strict=True):
            if task_id not in self._futures:
                continue
            task = None if value else await self._shop.get(task_id)
            failure = None if task is None else await self._failure_of(task)
            future = self._futures.pop(
                task_id, None
            )  # only now: who waits is told even if asking was cut off
            if future is None:
                continue
            if value:
                future.settle(value)
            elif failure is not None:
                future.set_exception(failure)
            elif task is not None and task.status == "cancelled":
                future.settle_cancelled()
            else:
                future.set_result(None)

    async def _failure_of(self, task: Task) -> TaskFailure | None:
        if task.reason != "dependency":
            return failure_of(task) if task.status == "failed" else None
        for task_id in task.request.after:
            found = await self._shop.get(task_id)
            if found is not None and found.status in ("failed", "cancelled"):
                return DependencyFailed(task.message, task_id=task.task_id, dependency=task_id)
        return DependencyFailed(task.message, task_id=task.task_id)


def settle_rest(futures: dict[TaskId, TaskFuture], state: State) -> None:
    """Nobody will hear any more how the tasks of `futures` end."""
    while futures:
        task_id, future = futures.popitem()
        task = state.tasks.get(task_id)
        if task is not None and task.status == "failed":
            future.set_exception(failure_of(task))
        elif task is not None and task.status == "cancelled" and task.reason != "dependency":
            future.settle_cancelled()
        else:
            words = f"the workshop handle was shut down before the end of task {task_id} was heard of"
            future.set_exception(TaskFailure(words, task_id=task_id))


def failure_of(task: Task) -> TaskFailure:
    """The exception that stands for a failed task without a value."""
    fault = task.error
    return TaskFailure(
        task.message or "the task failed",
        task_id=task.task_id,
        reason=task.reason,
        exit_code=task.exit_code,
        error_type=fault.type if fault else None,
        traceback=fault.traceback if fault else None,
    )
