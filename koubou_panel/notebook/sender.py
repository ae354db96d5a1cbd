"""Carries submissions from any thread to the workshop: many at once, and in an order in which each is known in time."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from functools import partial

from koubou_panel.core.commands import Caller, SubmitTask
from koubou_panel.core.ports import Shop
from koubou_panel.core.records import TaskId
from koubou_panel.notebook.future import TaskFuture
from koubou_panel.shop.local import LocalShop

Pair = tuple[SubmitTask, TaskFuture]
DRAIN_ITEMS = 512


class Sender:
    """What was submitted goes out here, by one wake-up for many. All but `put` on the loop's thread alone.

    Args:
        shop: where to.
        loop: the loop of the shop.
        caller: who asks.
        futures: those that wait, by task: one is put in when its task is sent, and taken out if that was refused.
    """

    def __init__(
        self,
        shop: Shop,
        *,
        loop: asyncio.AbstractEventLoop,
        caller: Caller,
        futures: dict[TaskId, TaskFuture],
    ) -> None:
        """Nothing is on its way."""
        self._shop = shop
        self._loop = loop
        self._caller = caller
        self._futures = futures
        self._outbox: deque[Pair] = deque()
        self._is_woken = False
        self._drained = 0
        self._sending: set[asyncio.Task[None]] = set()
        self._dependents: list[Pair] = []
        self._unsent: set[TaskId] = set()
        self._is_sending_dependents = False
        self._unanswered: set[TaskId] = set()
        self._answers = asyncio.Event()

    def put(self, command: SubmitTask, future: TaskFuture) -> None:
        """Send `command` soon; `future` is told if it is refused. Any thread."""
        self._outbox.append((command, future))
        if not self._is_woken:
            try:
                self._is_woken = True
                self._loop.call_soon_threadsafe(self._drain)
            except (
                BaseException
            ):  # an interrupt in between must not leave a mark that keeps others from waking it
                self._is_woken = False
                self._loop.call_soon_threadsafe(self._drain)
                raise

    async def sent(self, task_id: TaskId) -> None:
        """Wait until what is said of a task from now on comes to the workshop after its submission."""
        last = self._drained + len(self._outbox)
        self._drain()  # an interrupt may have kept it from being woken
        while self._drained < last or task_id in self._unsent:
            await self._turn()
        if self._sending:
            await asyncio.wait(set(self._sending))

    async def answered(self, task_id: TaskId) -> None:
        """Wait until the submission of a task has been stored or refused: before, there is no such task to read."""
        await self.sent(task_id)
        while task_id in self._unanswered:
            await self._answers.wait()

    async def all_sent(self) -> None:
        """Wait until all that was put here has been answered."""
        self._drain()
        while self._outbox or self._unsent or self._sending:
            await self._turn()

    def refuse_rest(self, error: Exception) -> None:
        """Tell `error` to what was put here after all was sent."""
        while self._outbox:
            self._outbox.popleft()[1].set_exception(error)

    async def _turn(self) -> None:
        """Until something of what is on its way has arrived, or could begin."""
        if self._sending:
            await asyncio.wait(set(self._sending))
        else:
            await asyncio.sleep(0)

    def _drain(self) -> None:
        self._is_woken = False
        pairs: list[Pair] = []
        with suppress(IndexError):
            while len(pairs) < DRAIN_ITEMS:
                pairs.append(self._outbox.popleft())
        self._drained += len(pairs)
        for _, future in pairs:
            self._futures[future.task_id] = future
        plain = [pair for pair in pairs if not pair[0].request.after]
        if isinstance(self._shop, LocalShop):
            self._submit_now(self._shop, plain)
        elif plain:
            self._begin(plain)
        if len(plain) < len(pairs):
            self._follow([pair for pair in pairs if pair[0].request.after])
        if self._outbox and not self._is_woken:
            self._is_woken = True
            self._loop.call_soon(self._drain)

    def _submit_now(self, shop: LocalShop, pairs: list[Pair]) -> None:
        for command, future in pairs:
            self._unanswered.add(future.task_id)
            try:
                shop.submit_now(command, self._caller, partial(self._answer, future))
            except Exception as error:  # noqa: BLE001 - it is told where it is waited for
                self._answer(future, error)

    def _begin(self, pairs: list[Pair]) -> asyncio.Task[None]:
        sending = self._loop.create_task(self._send(pairs))
        self._sending.add(sending)
        sending.add_done_callback(self._sending.discard)
        return sending

    async def _send(self, pairs: list[Pair]) -> None:
        answers: Sequence[object]
        try:
            answers = await self._shop.do_many([command for command, _ in pairs], self._caller)
        except Exception as error:  # noqa: BLE001 - it is told where it is waited for
            answers = [error] * len(pairs)
        for (_, future), answer in zip(pairs, answers, strict=True):
            self._answer(future, answer)

    def _follow(self, pairs: list[Pair]) -> None:
        self._dependents += pairs
        self._unsent.update(future.task_id for _, future in pairs)
        if not self._is_sending_dependents:
            self._is_sending_dependents = True
            self._loop.create_task(self._send_dependents())

    async def _send_dependents(self) -> None:
        """Send tasks that follow others in their order, and after all that they can follow."""
        while self._dependents:
            pairs, self._dependents = self._dependents, []
            if self._sending:
                await asyncio.wait(set(self._sending))
            await self._begin(pairs)
            self._unsent.difference_update(future.task_id for _, future in pairs)
        self._is_sending_dependents = False

    def _answer(self, future: TaskFuture, answer: object) -> None:
        self._unanswered.discard(future.task_id)
        self._answers.set()
        self._answers.clear()
        if isinstance(answer, Exception) and self._futures.pop(future.task_id, None) is not None:
            future.set_exception(answer)
