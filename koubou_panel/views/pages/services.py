"""The services of the workshop: each with its state, port, process, uptime and restarts, and why where one failed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from bokeh.models import InlineStyleSheet

from koubou_panel.reactive.mirror import Changes, Mirror
from koubou_panel.views.cards import Card, ServicesCard, set_changed
from koubou_panel.views.services import service_rows

Message = Mapping[str, object]

_NO_SUPERVISOR = (
    "A program holds this workshop itself, so no services are supervised here. `koubou up` runs all five."
)


class ServicesView:
    """The page's card over one mirror. Under the document's lock.

    Args:
        mirror: the session's own.
        sheet: the style that the cards of the document share.
        on_message: called with (kind, message) when something is clicked.
        can_act: whether this visitor may do more than look.
        can_restart: whether anybody here restarts a service.
    """

    def __init__(
        self,
        mirror: Mirror,
        *,
        sheet: InlineStyleSheet,
        on_message: Callable[[str, Message], None],
        can_act: bool,
        can_restart: bool,
    ) -> None:
        """Show what the mirror holds."""
        self._mirror = mirror
        shared: dict[str, Any] = {"sheet": sheet, "on_message": on_message}
        self.card = ServicesCard(can_act=can_act and can_restart, hint=_NO_SUPERVISOR, **shared)
        self._draw()

    @property
    def roots(self) -> dict[str, object]:
        """What stands where in the page."""
        return {"services": self.card}

    @property
    def cards(self) -> list[Card]:
        """The cards among them."""
        return [self.card]

    def update(self, changes: Changes) -> None:
        """Show what changed."""
        if changes.reset or changes.services:
            self._draw()

    def _draw(self) -> None:
        set_changed(self.card, rows=service_rows(self._mirror.model.services))
