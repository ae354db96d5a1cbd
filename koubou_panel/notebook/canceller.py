"""Carries what is to be cancelled from any thread to the workshop: many tasks at once, each after its submission."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from contextlib import suppress

from koubou_panel.core.commands import Caller, CancelTask
from koubou_panel.core.ports import Shop
from koubou_panel.core.records import TaskId
from koubou_panel.errors import Refused
from koubou_panel.notebook.sender import Sender

AT_ONCE = 500


class Canceller:
    """Asks for the end of tasks; what has already ended stays as it is. All but `put` on the loop's thread alone.

    Args:
        shop: where they are.
        loop: the loop of the shop.
        caller: who asks.
        sender: which submits them.
    """

    def __init__(
        self, shop: Shop, *, loop: asyncio.AbstractEventLoop, caller: Caller, sender: Sender
    ) -> None:
        """Nothing is to be cancelled."""
        self._shop = shop
        self._loop = loop
        self._caller = caller
        self._sender = sender
        self._waiting: deque[TaskId] = deque()
        self._under_way: set[asyncio.Task[None]] = set()

    def put(self, task_id: TaskId) -> None:
        """Have a task be cancelled soon. Any thread; does not wait.

        Raises:
            RuntimeError: the loop is closed.
        """
        self._waiting.append(task_id)
        # Always: an interrupt must not leave a mark that somebody woke it. What comes meanwhile is taken along.
        self._loop.call_soon_threadsafe(self._begin)

    async def all_sent(self) -> None:
        """Wait until the workshop has answered to all that was put here."""
        self._begin()
        if self._under_way:
            await asyncio.wait(set(self._under_way))

    async def cancel(self, task_ids: Sequence[TaskId], *, only_pending: bool = False) -> None:
        """Cancel tasks; those that run as well, unless `only_pending`."""
        for at in range(0, len(task_ids), AT_ONCE):
            part = task_ids[at : at + AT_ONCE]
            for task_id in part:
                await self._sender.sent(task_id)
            with suppress(Refused):
                await self._shop.do_many(
                    [CancelTask(task_id, only_pending) for task_id in part], self._caller
                )

    def _begin(self) -> None:
        task_ids = list(self._waiting)
        self._waiting.clear()
        if task_ids:
            cancelling = self._loop.create_task(self.cancel(task_ids))
            self._under_way.add(cancelling)
            cancelling.add_done_callback(self._under_way.discard)
