"""Waiting: for the moment at which nothing runs, for the end of a home, and not for ever."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Sequence

from koubou_panel.core.events import Sample
from koubou_panel.core.state import Folded, State
from koubou_panel.home import Home

WATCH_S = 1.0

log = logging.getLogger(__name__)


class Idle:
    """A subscriber that sets `event` once nothing runs."""

    def __init__(self) -> None:
        """To be subscribed."""
        self.event = asyncio.Event()

    def on_reset(self, state: State) -> None:
        """Look whether anything runs."""
        self._state = state
        self.on_facts(())

    def on_facts(self, folded: Sequence[Folded]) -> None:
        """Look again."""
        if not self._state.counts["in_progress"]:
            self.event.set()

    def on_samples(self, samples: Sequence[Sample]) -> None:
        """A sample ends nothing."""


async def until_removed(home: Home) -> None:
    """Wait until the folder that is held here is removed: nothing that is told from then on would last."""
    while home.is_in_place():  # noqa: ASYNC110 - nobody tells of it
        await asyncio.sleep(WATCH_S)


async def at_most(limit_s: float, work: Coroutine[None, None, None], what: str) -> bool:
    """Wait for `work`, but no longer than that; False: it did not end, which the log tells of `what`."""
    try:
        async with asyncio.timeout(limit_s):
            await work
    except TimeoutError:
        log.warning("%s did not end within %g s; it is left", what, limit_s)
        return False
    return True
