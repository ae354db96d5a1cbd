"""The services of the workshop: each with its state, port, process, uptime and restarts, and why where one failed."""

from __future__ import annotations

import param

from koubou_panel.reactive.mirror import Changes
from koubou_panel.views.cards import Card, set_changed
from koubou_panel.views.language import _, later
from koubou_panel.views.services import service_rows
from koubou_panel.views.visit import Visit


class ServicesPage:
    """`?page=services`."""

    name = "services"
    label = later("Services")
    place = 70

    def build(self, visit: Visit) -> ServicesView:
        """The page for one visit."""
        return ServicesView(visit)


class ServicesCard(Card):
    """The workshop's services. Sends `restart_service`."""

    rows = param.List(default=[])
    hint = param.String(doc="said when no supervisor tells of any")
    can_act = param.Boolean(default=True)


class ServicesView:
    """The page's one card, over the mirror of the visit."""

    def __init__(self, visit: Visit) -> None:
        """Empty: see `draw`."""
        self._mirror = visit.mirror
        self.root = visit.card(
            ServicesCard,
            can_act=visit.can_act and visit.restart_service is not None,
            sizing_mode="stretch_width",
        )

    def draw(self) -> None:
        """Show what the mirror holds."""
        hint = _(
            "A program holds this workshop itself, so no services are supervised here. `koubou up` runs all five."
        )
        set_changed(self.root, rows=service_rows(self._mirror.model.services), hint=hint)

    def update(self, changes: Changes) -> None:
        """Show what changed."""
        if changes.reset or changes.services:
            self.draw()

    def tick(self) -> None:
        """Nothing changes with time alone: the browser counts by itself."""
