"""What is wrong, above every page, each with the way to where something can be done; and a demo that can be cleared."""

from __future__ import annotations

from collections.abc import Mapping

import param

from koubou_panel.reactive.mirror import Changes
from koubou_panel.views import rows
from koubou_panel.views.cards import Card, Message, set_changed
from koubou_panel.views.first import clear_demo, demo_left
from koubou_panel.views.language import _, ngettext
from koubou_panel.views.visit import Visit


class AttentionStrip(Card):
    """What is wrong; takes no room when nothing is. Asks `clear`."""

    items = param.List(default=[], doc="of key, tone (`warn`, `bad`, `note`), text, page, go, asked, ask")


class Attention:
    """The strip over the mirror of the visit. Under the document's lock."""

    def __init__(self, visit: Visit) -> None:
        """Empty: see `draw`."""
        self._visit = visit
        self._demo = 0
        self.card = visit.card(AttentionStrip, asks={"clear": self._clear})

    def draw(self) -> None:
        """Show what is wrong now."""
        mirror = self._visit.mirror
        items = rows.notices(mirror.model, mirror.throughput)
        if self._demo:
            words = ngettext(
                "A demo load: {n} of its tasks has not ended.",
                "A demo load: {n} of its tasks have not ended.",
                self._demo,
            )
            text, go = words.format(n=self._demo), _("Clear it") if self._visit.can_act else ""
            items.append(
                {
                    "key": "demo",
                    "tone": "note",
                    "text": text,
                    "page": "",
                    "go": go,
                    "asked": {},
                    "ask": "clear",
                }
            )
        set_changed(self.card, items=items)

    def update(self, changes: Changes) -> None:
        """Show what changed."""
        if changes.reset or changes.shop or changes.workers or changes.seconds:
            self.draw()

    def tick(self) -> None:
        """Once a second: what is left of a demo."""
        left = len(demo_left(self._visit.shop.state))
        if left != self._demo:
            self._demo = left
            self.draw()

    async def _clear(self, _message: Message) -> Mapping[str, object]:
        return {"cancelled": await clear_demo(self._visit.shop, self._visit)}
