"""The pages of one visit: built when they are first opened, and told of changes only while they are seen."""

from __future__ import annotations

import logging
from typing import cast

import panel as pn

from koubou_panel.reactive.mirror import Changes
from koubou_panel.registry import find, names
from koubou_panel.views.language import _
from koubou_panel.views.visit import Ending, Owing, PageKind, Seen, Visit

OVERVIEW = ""

log = logging.getLogger(__name__)


class Deck:
    """Which page is seen, and the views of those that were opened. Under the document's lock.

    Args:
        visit: what each page is handed.
        overview: the page that is always there.
        kinds: the others.

    """

    def __init__(self, visit: Visit, overview: Seen, kinds: list[PageKind]) -> None:
        """The Overview is seen."""
        self._visit = visit
        self._kinds = {kind.name: kind for kind in sorted(kinds, key=lambda kind: kind.place)}
        self._places = {name: pn.Column(sizing_mode="stretch_both", margin=0) for name in self._kinds}
        self.views: dict[str, Seen] = {OVERVIEW: overview}
        self.name = OVERVIEW

    @property
    def roots(self) -> dict[str, object]:
        """What stands where in the document."""
        return {f"page_{name}": place for name, place in self._places.items()}

    @property
    def labels(self) -> list[list[str]]:
        """(name, label) of each page, in the order of the navigation."""
        named = [[kind.name, _(kind.label)] for kind in self._kinds.values()]
        return [[OVERVIEW, _("Overview")], *named]

    @property
    def seen(self) -> Seen:
        """The page that is seen."""
        return self.views[self.name]

    def show(self, name: str) -> None:
        """Have this page seen; one that there is not changes nothing."""
        if name != OVERVIEW and name not in self._kinds:
            return
        if name not in self.views:
            view = self._kinds[name].build(self._visit)
            view.draw()
            self.views[name] = view
            # With all that is in it: Panel may send what is set later ahead of the models themselves.
            self._places[name].objects = [view.root]
        else:
            self.views[name].draw()
        # Last: where a page cannot be built, the one before it goes on.
        self.name = name

    def draw(self) -> None:
        """Show what is seen anew."""
        self.seen.draw()

    def update(self, changes: Changes) -> None:
        """Show what changed."""
        self.seen.update(changes)

    @property
    def owes(self) -> bool:
        """Whether the page that is seen has put off something: it is to be told of changes soon, of none if need be."""
        seen = self.seen
        return isinstance(seen, Owing) and seen.owes

    def tick(self) -> None:
        """Once a second: what changes with time alone."""
        self.seen.tick()

    def close(self) -> None:
        """The visit is over: those of its pages that are to know are told."""
        for name, view in self.views.items():
            try:
                if isinstance(view, Ending):
                    view.close()
            except Exception:  # a page of a third party is its own affair
                log.exception("the page %r cannot be closed", name)


def page_kinds() -> list[PageKind]:
    """The pages that are registered; one that cannot be loaded is left out, and logged."""
    kinds: list[PageKind] = []
    for name in names("pages"):
        try:
            kinds.append(cast("PageKind", find("pages", name)))
        except Exception:  # a page of a third party is its own affair
            log.exception("the page %r cannot be loaded", name)
    return kinds
