"""Waiting for the moment at which nothing runs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from koubou_panel.core.events import Sample
from koubou_panel.core.state import Folded, State


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
