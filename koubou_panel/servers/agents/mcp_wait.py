"""Waiting for tasks over MCP: a long poll that tells how far they are, and ends at its time limit."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from koubou_panel.core.records import Task, TaskId
from koubou_panel.errors import Refused
from koubou_panel.servers.agents.delegate import Delegation
from koubou_panel.servers.agents.mcp_views import TaskView, WaitView

MOST_TASKS = 100
WAIT_S = 30.0
MOST_WAIT_S = 600.0
NEWS_GAP_S = 0.5
HEARTBEAT_S = 5.0

Report = Callable[[float, float | None, str | None], Awaitable[None]]


class Waiting:
    """One wait for some tasks. Loop thread only; whoever cancels it cancels no task."""

    def __init__(
        self, delegation: Delegation, task_ids: Sequence[TaskId], *, until: str, ending: asyncio.Event
    ) -> None:
        """Wait for `all` of them, or `any`, but not past `ending`."""
        self._ending = ending
        self._delegation = delegation
        self._ids = list(dict.fromkeys(task_ids))
        self._until = until
        self._stands: dict[TaskId, Task] = {}
        self._news = asyncio.Event()

    async def run(self, timeout_s: float, report: Report) -> WaitView:
        """Wait; `report` is told how far it is (seconds waited, of how many, in words).

        Raises:
            Refused: code `not_found`: there is no such task, and nothing was waited for.
        """
        if len(self._ids) > MOST_TASKS:
            raise Refused("invalid", f"wait for at most {MOST_TASKS} tasks at once", field="task_ids")
        for task_id in self._ids:
            self._stands[task_id] = await self._delegation.task(task_id)
        began = asyncio.get_running_loop().time()
        if not self._is_done() and timeout_s > 0:
            await self._follow(began, timeout_s, report)
        waited_s = asyncio.get_running_loop().time() - began
        return WaitView(
            is_done=self._is_done(),
            waited_s=round(waited_s, 3),
            tasks=[TaskView.of(self._stands[task_id]) for task_id in self._ids],
        )

    async def _follow(self, began: float, timeout_s: float, report: Report) -> None:
        loop = asyncio.get_running_loop()
        open_ids = [task_id for task_id in self._ids if not self._stands[task_id].is_finished]
        waits = [loop.create_task(self._one(task_id)) for task_id in open_ids]
        waits.append(loop.create_task(self._see_the_end()))
        told_at = -HEARTBEAT_S
        has_news = True
        try:
            while not self._is_over() and (left := began + timeout_s - loop.time()) > 0:
                since = loop.time() - told_at
                if since >= (NEWS_GAP_S if has_news else HEARTBEAT_S):
                    told_at, has_news = loop.time(), False
                    await self._tell(loop.time() - began, report)
                    continue
                await self._some_news(min(left, (NEWS_GAP_S if has_news else HEARTBEAT_S) - since))
                has_news = has_news or self._news.is_set()
                self._news.clear()
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    async def _some_news(self, limit_s: float) -> None:
        try:
            async with asyncio.timeout(max(limit_s, 0.001)):
                await self._news.wait()
        except TimeoutError:
            return

    async def _one(self, task_id: TaskId) -> None:
        self._note(await self._delegation.wait(task_id, None, on_change=self._note))

    def _note(self, task: Task) -> None:
        self._stands[task.task_id] = task
        self._news.set()

    async def _see_the_end(self) -> None:
        await self._ending.wait()
        self._news.set()

    def _is_over(self) -> bool:
        return self._ending.is_set() or self._is_done()

    def _is_done(self) -> bool:
        ended = [self._stands[task_id].is_finished for task_id in self._ids]
        return all(ended) if self._until == "all" else any(ended)

    async def _tell(self, waited_s: float, report: Report) -> None:
        """Say how far it is: seconds waited, of as many as it takes at this rate.

        Progress must never go back, and the fraction of a task that is tried again does.
        """
        fractions = [_fraction(self._stands[task_id]) for task_id in self._ids]
        fraction = sum(fractions) / len(fractions)
        total = round(waited_s / fraction, 3) if fraction > 0 and waited_s > 0 else None
        await report(round(waited_s, 3), total, self._words())

    def _words(self) -> str:
        tasks = [self._stands[task_id] for task_id in self._ids]
        if len(tasks) == 1:
            return words_of(tasks[0])
        ended = sum(task.is_finished for task in tasks)
        running = sum(task.status == "in_progress" for task in tasks)
        return f"{ended} of {len(tasks)} have ended, {running} run"


def _fraction(task: Task) -> float:
    if task.is_finished:
        return 1.0
    return (task.progress.fraction or 0.0) if task.progress is not None else 0.0


def words_of(task: Task) -> str:
    """How a task stands, in a line."""
    words = {"in_progress": "running"}.get(task.status, task.status)
    progress = task.progress
    if progress is None or task.status != "in_progress":
        return words
    parts = [words]
    if progress.fraction is not None:
        parts.append(f"{progress.fraction:.0%}")
    if progress.message:
        parts.append(progress.message[:200])
    if progress.eta_s is not None:
        parts.append(f"{progress.eta_s:.0f} s left")
    return ", ".join(parts)
