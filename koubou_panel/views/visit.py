"""What a page is handed, and what a page is.

A page is a file in `views/pages/` with one `PageKind`, named in the table of `koubou_panel.registry` (third parties: an
entry point in the group `koubou_panel.pages`). It is built when a visitor first opens it, kept for the visit, and
told of changes only while it is seen.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar, runtime_checkable

from bokeh.models import InlineStyleSheet
from panel.viewable import Viewable

from koubou_panel.core.commands import Caller
from koubou_panel.core.ports import Shop
from koubou_panel.errors import KoubouError, Refused
from koubou_panel.home import Home
from koubou_panel.reactive.mirror import Changes, Mirror
from koubou_panel.views.cards import Card, Message
from koubou_panel.views.faults import Faulty
from koubou_panel.views.language import _, speaking

Ask = Callable[[Message], Awaitable[Mapping[str, object]]]
AnyCard = TypeVar("AnyCard", bound=Card)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Visit:
    """One visitor, as a page knows them. Loop thread only.

    Args:
        shop: what is shown.
        mirror: the session's own, of which a page draws. What ended is in its `recent`: it has no models of those.
        caller: who acts when something is clicked.
        sheet: the style that the cards of the document share.
        now: gives UTC seconds.
        act: does what a message of a card asks for, by (kind, message): see `views/actions.py`.
        spawn: starts background work that ends with the session.
        locked: calls something under the document's lock, soon.
        toast: tells the visitor something that went wrong; call it from anywhere.
        in_turns: does work up to its next `yield` at a time, under the document's lock, so that others have their turn
            between; none of it before the page is there.
        tell: tells the visitor what was done; call it from anywhere.
        restart_service: has a service started anew; None: nobody does that here.
        home: whose settings are shown and changed; None: none are.
        environ: the environment that those are read with.
        flags: what flags say of those, by setting.
        language: which one the visitor is spoken to in, now.
    """

    shop: Shop
    mirror: Mirror
    caller: Caller
    sheet: InlineStyleSheet
    now: Callable[[], float]
    act: Callable[[str, Message], None]
    spawn: Callable[[Coroutine[None, None, None]], object]
    locked: Callable[[Callable[[], None]], None]
    toast: Callable[[str], None]
    in_turns: Callable[[Iterator[None]], None] = deque[None](maxlen=0).extend
    tell: Callable[[str], None] = lambda _: None
    restart_service: Callable[[str], bool] | None = None
    home: Home | None = None
    environ: Mapping[str, str] = field(default_factory=dict)
    flags: Mapping[str, str] = field(default_factory=dict)
    language: Callable[[], str] = lambda: "en"

    @property
    def can_act(self) -> bool:
        """Whether this visitor may do more than look."""
        return self.caller.role == "full"

    def card(
        self, make: type[AnyCard], *, asks: Mapping[str, Ask] | None = None, **params: object
    ) -> AnyCard:
        """A card of this document.

        Args:
            make: its class.
            asks: what its browser half may ask (`ask(model, kind, payload)`), and who answers. An answer is data for
                JSON; a refusal, or another `KoubouError`, is told in its own words.
            params: the card's own.
        """
        known: dict[str, Any] = {"sheet": self.sheet, "on_message": self.act, **params}
        known["on_message"] = self._spoken(known["on_message"])
        if asks:
            known["on_ask"] = self._spoken(self._asked(asks))
        return make(**known)

    def _spoken(self, call: Callable[..., None]) -> Callable[..., None]:
        """`call`, with its words and those of the work that it starts in the visitor's language."""

        def spoken(*args: object) -> None:
            with speaking(self.language()):
                call(*args)

        return spoken

    def _asked(self, asks: Mapping[str, Ask]) -> Callable[[str, Message, Callable[[Message], None]], None]:
        def on_ask(kind: str, message: Message, reply: Callable[[Message], None]) -> None:
            answer = asks.get(kind)
            if answer is not None:
                self.spawn(self._answer(answer, message, reply))

        return on_ask

    async def _answer(self, ask: Ask, message: Message, reply: Callable[[Message], None]) -> None:
        try:
            value: Message = await ask(message)
        except Refused as refusal:
            value = {"error": refusal.message, "code": refusal.code, "field": refusal.field}
            if isinstance(refusal, Faulty):
                value["faults"] = refusal.faults
        except KoubouError as error:
            value = {"error": str(error)}
        except Exception:
            log.exception("a question of the page failed")
            value = {"error": _("That did not work; the log of the dashboard says more.")}
        self.locked(lambda: reply(value))


class Seen(Protocol):
    """What a visitor looks at. Every call is under the document's lock."""

    def draw(self) -> None:
        """Show everything anew: it was just built, it is seen again, or the language is another."""

    def update(self, changes: Changes) -> None:
        """Show what changed. Called only while the page is seen."""

    def tick(self) -> None:
        """Once a second, while it is seen: what changes with time alone."""


@runtime_checkable
class Owing(Protocol):
    """What a visitor looks at, where it puts off what it would draw too often: see `views.pace`."""

    @property
    def owes(self) -> bool:
        """Whether something was put off: `update` is called again soon, though nothing changes."""


@runtime_checkable
class Ending(Protocol):
    """What a visitor looks at, where it is to know when the visit is over."""

    def close(self) -> None:
        """The visit is over."""


class View(Seen, Protocol):
    """One page of one visit."""

    @property
    def root(self) -> Viewable:
        """What stands in the page's place."""


class PageKind(Protocol):
    """A page that can be opened: its `name` in the address, its `label` (English), its `place` in the navigation."""

    name: str
    label: str
    place: int

    def build(self, visit: Visit) -> View:
        """The page for one visit; `draw` is called next."""
