"""What stands above every page: the bar, and what is wrong."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from koubou_panel.reactive.mirror import Changes
from koubou_panel.views.attention import Attention
from koubou_panel.views.bell import Bell
from koubou_panel.views.cards import Message, TopBar, set_changed
from koubou_panel.views.language import LANGUAGES
from koubou_panel.views.palette import Palette
from koubou_panel.views.visit import Ask, Visit


class Top:
    """The cards above every page, over the mirror of the visit. Under the document's lock.

    Args:
        visit: whose page it is.
        place: a word for which workshop this is.
        label: a word for what kind of workshop it is, where it is no usual one.
        asks: what the bar may ask beside what is answered here.

    """

    def __init__(self, visit: Visit, *, place: str, label: str, asks: Mapping[str, Ask]) -> None:
        """Show what the mirror holds."""
        self._visit = visit
        self._mirror = visit.mirror
        languages = [list(pair) for pair in LANGUAGES.items()]
        palette, self.bell = Palette(visit), Bell(visit, self._ring)
        self.bar = visit.card(
            TopBar,
            place=place,
            label=label,
            languages=languages,
            may=visit.caller.role,
            asks={**asks, "offers": palette.offers, "find": palette.find, "bell": self.bell.ask},
        )
        self.attention = Attention(visit)
        #: Whether the visitor has what is seen stand still.
        self.is_paused: Callable[[], bool] = lambda: False
        self.draw()

    @property
    def roots(self) -> dict[str, object]:
        """What stands where in the document."""
        return {"bar": self.bar, "attention": self.attention.card}

    def show_pages(self, labels: list[list[str]]) -> None:
        """Name the pages: (name, label)."""
        set_changed(self.bar, pages=labels)

    def draw(self) -> None:
        """Show everything anew."""
        self.attention.draw()
        self.tick()

    def update(self, changes: Changes) -> None:
        """Show what changed."""
        self.attention.update(changes)

    def _ring(self, message: Message) -> None:
        self.bar.send(message)

    def close(self) -> None:
        """Follow nothing."""
        self.bell.close()

    def tick(self) -> None:
        """Once a second: the heart's beat."""
        model = self._mirror.model
        status: str = model.link_status
        lag_s = round(model.link_lag_s, 1)
        if status == "live" and self.is_paused():
            status = "paused"
        self.attention.tick()
        self.bar.freshness = {"status": status, "lag_s": lag_s, "at": self._visit.now()}
