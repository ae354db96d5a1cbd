"""How long futures wait for a workshop that has ended: it may be opened again, and then they go on."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from koubou_panel.core.events import Sample
from koubou_panel.core.records import TaskId
from koubou_panel.core.state import Folded, State
from koubou_panel.notebook.future import TaskFuture
from koubou_panel.notebook.results import settle_rest
from koubou_panel.shop.remote import RemoteShop

LIMIT_S = 10.0
WORDS = (
    "before the end of task {task_id} was heard of; once it is open again, shop.result({task_id!r}) says what became "
    "of it"
)


class Patience:
    """Ends the futures of a workshop that was another process's, some time after that has ended. Loop thread only.

    Args:
        shop: the workshop, which is subscribed to.
        futures: those that wait, by task.
    """

    def __init__(self, shop: RemoteShop, futures: dict[TaskId, TaskFuture]) -> None:
        """Follow it."""
        self._shop = shop
        self._futures = futures
        self._timer: asyncio.TimerHandle | None = None
        shop.subscribe(self)

    def on_reset(self, state: State) -> None:
        """It is there."""
        self._rest()

    def on_facts(self, folded: Sequence[Folded]) -> None:
        """It is there."""

    def on_samples(self, samples: Sequence[Sample]) -> None:
        """Look whether it has ended."""
        if self._shop.ended and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(LIMIT_S, self._end)

    def _rest(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _end(self) -> None:
        self._timer = None
        if self._shop.ended:
            why = self._shop.ended.partition(";")[0].replace("{", "{{").replace("}", "}}")
            settle_rest(self._futures, self._shop.state, f"{why} {WORDS}")
