"""Settles the futures of tasks that have ended: by the facts as they come, or by asking."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import BrokenExecutor

from koubou_panel.core.events import Sample, TaskCancelled, TaskCompleted, TaskFailed
from koubou_panel.core.ports import Shop
from koubou_panel.core.records import FINISHED, Task, TaskId
from koubou_panel.core.state import Folded, State
from koubou_panel.errors import DependencyFailed, Refused, TaskFailure
from koubou_panel.notebook.cells import with_cells
from koubou_panel.notebook.future import TaskFuture

AGAIN_S = (0.1, 1.0)
SHUT = "the workshop handle was shut down before the end of task {task_id} was heard of"


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
        self._fetching: set[asyncio.Task[None]] = set()  # a loop alone does not keep its tasks

    def on_reset(self, state: State) -> None:
        """Fetch what ended meanwhile."""
        found = ((task_id, state.tasks.get(task_id)) for task_id in self._futures)
        self.fetch_soon([task_id for task_id, task in found if task is not None and task.status in FINISHED])

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
                    futures.pop(task_id).settle(value, succeeded=kind is TaskCompleted)
                elif kind is TaskCancelled and fact.reason != "dependency":  # type: ignore[union-attr]
                    futures.pop(task_id).settle_cancelled(fact.message)  # type: ignore[union-attr]
                else:
                    fetch.append(task_id)
        self.fetch_soon(fetch)

    def on_samples(self, samples: Sequence[Sample]) -> None:
        """Futures do not care."""

    def fetch_soon(self, task_ids: list[TaskId]) -> None:
        """Settle the futures of tasks that have ended, once their values are here."""
        if task_ids:
            fetching = asyncio.get_running_loop().create_task(self._fetch(task_ids))
            self._fetching.add(fetching)
            fetching.add_done_callback(self._fetching.discard)

    async def _fetch(self, task_ids: list[TaskId]) -> None:
        """Settle tasks; what cannot be read is tried again, and at last told, since nobody may wait for ever."""
        delays_s = iter(AGAIN_S)
        while waiting := [task_id for task_id in task_ids if task_id in self._futures]:
            try:
                return await self._settle_ended(waiting)
            except Exception as error:  # noqa: BLE001 - it is told where it is waited for
                delay_s = AGAIN_S[-1] if _is_cut_off(error) else next(delays_s, None)
                if delay_s is None and len(waiting) == 1:
                    self._futures.pop(waiting[0]).set_exception(_unread(waiting[0], error))
                elif delay_s is None:  # one of them may be the reason
                    self._each_alone(waiting)
                    return None
            if delay_s is not None:
                await asyncio.sleep(delay_s)
        return None

    def _each_alone(self, task_ids: list[TaskId]) -> None:
        for task_id in task_ids:
            self.fetch_soon([task_id])

    async def _settle_ended(self, task_ids: list[TaskId]) -> None:
        """Settle tasks whose facts came without a value: from another process, or ended without one."""
        values = await self._shop.values(task_ids)
        for task_id, value in zip(task_ids, values, strict=True):
            if task_id not in self._futures:
                continue
            task = self._shop.state.tasks.get(task_id)
            if task is None:
                task = await self._shop.get(task_id)
            failure = None if task is None or value else await self._failure_of(task)
            future = self._futures.pop(
                task_id, None
            )  # only now: who waits is told even if asking was cut off
            if future is not None:
                _settle(future, task, value, failure)

    async def _failure_of(self, task: Task) -> Exception | None:
        if task.reason != "dependency":
            return failure_of(task) if task.status == "failed" else None if is_whole(task) else gone(task)
        for task_id in task.request.after:
            found = await self._shop.get(task_id)
            if found is not None and found.status in ("failed", "cancelled"):
                return DependencyFailed(task.message, task_id=task.task_id, dependency=task_id)
        return DependencyFailed(task.message, task_id=task.task_id)


def _settle(future: TaskFuture, task: Task | None, value: bytes, failure: Exception | None) -> None:
    if value:
        future.settle(value, succeeded=task is None or task.status == "completed")
    elif failure is not None:
        future.set_exception(failure)
    elif task is not None and task.status == "cancelled":
        future.settle_cancelled(task.message)
    else:
        future.set_result(None)


def settle_rest(futures: dict[TaskId, TaskFuture], state: State, why: str = SHUT) -> None:
    """Nobody will hear any more how the tasks of `futures` end, and `why`."""
    while futures:
        task_id, future = futures.popitem()
        task = state.tasks.get(task_id)
        if task is not None and task.status == "failed":
            future.set_exception(failure_of(task))
        elif task is not None and task.status == "cancelled" and task.reason != "dependency":
            future.settle_cancelled(task.message)
        else:
            future.set_exception(TaskFailure(why.format(task_id=task_id), task_id=task_id))


class TaskLost(TaskFailure, BrokenExecutor):
    """The worker process died with the task.

    Where the standard library's pool would be broken (its `BrokenExecutor`), this one goes on with another worker.

    Args:
        message, task_id, reason, exit_code, error_type, traceback: as of `TaskFailure`.

    """


#: What a function fails by when its process ends; `exit`: it ended that itself (`os._exit`).
DIED: frozenset[str | None] = frozenset({"lost", "killed", "memory", "crash_loop", "exit"})


def failure_of(task: Task) -> TaskFailure:
    """The exception that stands for a failed task without a value."""
    fault = task.error
    is_lost = task.request.kind == "function" and task.reason in DIED
    return (TaskLost if is_lost else TaskFailure)(
        with_cells(task.message) or "the task failed",
        task_id=task.task_id,
        reason=task.reason,
        exit_code=task.exit_code,
        error_type=fault.type if fault else None,
        traceback=with_cells(fault.traceback) if fault else None,
    )


def _is_cut_off(error: Exception) -> bool:
    """Whether the workshop could not be asked: it can be when it is back."""
    return isinstance(error, Refused) and error.code == "unavailable"


def _unread(task_id: TaskId, error: Exception) -> Exception:
    """What is said of a result that is there and cannot be read."""
    if isinstance(error, Refused):
        return error
    words = (
        f"the result of task {task_id} could not be read: {error}; shop.result({task_id!r}) asks for it again"
    )
    refused = Refused("storage", words)
    refused.__cause__ = error
    return refused


def is_whole(task: Task) -> bool:
    """Whether nothing is missing: a function's completion comes with a value, a command's without."""
    return task.status != "completed" or task.request.kind != "function"


def gone(task: Task) -> Refused:
    """What is said of a result that was removed."""
    name = f"{task.task_id} ({task.request.name})"
    return Refused(
        "not_found", f"the result of task {name} is not kept any more; `koubou retry` runs it again"
    )
