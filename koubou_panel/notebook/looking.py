"""What a `Workshop` shows of itself as data: models that follow it, and snapshots."""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any, cast

from koubou_panel.core.commands import Caller
from koubou_panel.notebook.options import most
from koubou_panel.notebook.seat import Seat
from koubou_panel.notebook.snapshot import LIMIT, Snapshot
from koubou_panel.shop.snapshot import since_of, take

if TYPE_CHECKING:
    from koubou_panel.notebook.state import ShopModel, States
    from koubou_panel.notebook.workshop import Workshop

#: What displays and futures need of a handle: it need not be offered to who types.
_OURS = frozenset(("call", "caller", "check_may_wait", "condition", "holds", "hops", "record", "shop"))


class Looking:
    """The part of a `Workshop` that shows what is in it."""

    _seat: Seat
    _states: States | None = None

    @property
    def caller(self) -> Caller:
        """Who acts through this handle."""
        return self._seat.caller

    def __dir__(self) -> list[str]:
        """What docs/notebook.md tells of."""
        return [name for name in super().__dir__() if name not in _OURS]

    def __repr__(self) -> str:
        """Its home, whether it is held here, and how many workers there are, as was last heard."""
        seat = getattr(self, "_seat", None)
        if seat is None:
            return f"<{type(self).__name__}, not open>"
        place = f"<{type(self).__name__} at {seat.home.root}"
        if seat.is_shut:
            return f"{place}, {'of the process that this one was forked from' if seat.is_abandoned else 'shut down'}>"
        workers = len(seat.shop.state.workers)
        stands = "held here" if seat.holds else "attached"
        ended = ", which has ended" if seat.shop.link.status == "closed" else ""
        return f"{place}, {stands}{ended}, {workers} worker{'' if workers == 1 else 's'}>"

    def _repr_mimebundle_(
        self, include: Iterable[str] | None = None, exclude: Iterable[str] | None = None
    ) -> tuple[dict[str, str], dict[str, Any]]:
        """In a notebook: the live dashboard, and a dated still for where nothing can be live."""
        from koubou_panel.notebook.display import workshop_bundle

        return workshop_bundle(cast("Workshop", self), include, exclude)

    @property
    def state(self) -> ShopModel:
        """The workshop as Param models: `tasks`, `workers`, `metrics`, counts and more, which follow it by themselves.

        In a notebook they change when the kernel is free, and what a cell has waited for is in them; in an app of
        `panel serve` each session has its own, which end with it; in a script they change on a thread of their own.
        See `koubou_panel.reactive.models.ShopModel`; `shop.state.param` lists them.

        Raises:
            RuntimeError: the workshop was shut down before they were asked for; or this is a future's callback.
        """
        if self._states is None:
            from koubou_panel.notebook.state import States

            states = States(self._seat.hops, self._seat.thread)
            self._states = self.__dict__.setdefault("_states", states)
        return self._states.model()

    def snapshot(
        self, since: str | float | date | timedelta | None = None, limit: int | None = LIMIT
    ) -> Snapshot:
        """The workshop at this moment: as values, JSON, or data frames of tasks, workers and samples of the host.

        Args:
            since: only tasks submitted, and samples taken, since then: UTC seconds, a date, or so long ago (a
                timedelta, or a text such as `"1h"`). All that is kept where not given.
            limit: at most so many tasks and so many samples, the newest; None: all.

        Raises:
            TypeError: what is neither a moment nor a span, or a limit that is no whole number.
            ValueError: a moment that cannot be, or a limit below 0.
            RuntimeError: the workshop was shut down; or this is a future's callback, where nothing may wait.
        """
        limit, now = most(limit), time.time()
        shop = self._seat.shop
        return Snapshot(self._seat.thread.call(take(shop, now=now, since=since_of(since, now), limit=limit)))
