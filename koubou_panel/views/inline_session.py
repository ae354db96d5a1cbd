"""One display of a notebook: a mirror, what it shows, and messages for the browser a few times a second.

What a page's session is to a document. It knows neither kernel nor comm: texts go out through `post`, and come in
through `hear`. Messages are JSON: `all` replaces everything; `set` (parameters by card), `say` (messages to cards) and
`patch` (Bokeh's own, for the figures) follow it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import bokeh
import msgspec
from bokeh.core.json_encoder import serialize_json
from bokeh.document import Document
from bokeh.document.events import DocumentPatchedEvent
from bokeh.models import InlineStyleSheet
from bokeh.protocol import Protocol as Wire
from panel.custom import JSComponent

from koubou_panel.core.commands import Caller, Command
from koubou_panel.core.ports import Shop
from koubou_panel.errors import KoubouError
from koubou_panel.reactive.mirror import Mirror
from koubou_panel.reactive.series import KEEP_S
from koubou_panel.views.actions import command_of
from koubou_panel.views.cards import Card, Message
from koubou_panel.views.inline import Shown
from koubou_panel.views.language import _, speaking, spoken
from koubou_panel.views.visit import AnyCard, Visit

FRAME_S = 0.15
QUICK_S = 0.04
BEAT_S = 1.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Visit(Visit):
    """A visit whose cards are in no document: `adopt` takes each, and what it is set to and sends."""

    adopt: Callable[[Card], None] = lambda _: None

    def card(self, make: type[AnyCard], **about: Any) -> AnyCard:
        """A card; see `Visit.card`."""
        card = super().card(make, **about)
        self.adopt(card)
        return card


class InlineSession:
    """A display over a shop. Only on the loop that it is made on.

    Args:
        shop: what is shown; never closed here.
        caller: who acts when something is clicked.
        make: makes what is shown, for a visit.
        post: takes each text for the browser.
        place: a word for which workshop this is.
        full: the address of its full dashboard; empty: none is known.
        has_ended: whether the workshop was shut down.
        now: gives UTC seconds.

    It speaks what is spoken where it is made.
    """

    def __init__(
        self,
        shop: Shop,
        *,
        caller: Caller,
        make: Callable[[Visit], Shown],
        post: Callable[[str], None],
        place: str = "",
        full: str = "",
        has_ended: Callable[[], bool] = lambda: False,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Build it from what the shop holds now; `start` has it follow."""
        self._shop = shop
        self._caller = caller
        self._post = post
        self._about = {"place": place, "full": full}
        self._has_ended = has_ended
        self._now = now
        self._language = spoken()
        #: Called when nothing more will change; who made this closes it.
        self.on_over: Callable[[], None] = lambda: None
        self._loop = asyncio.get_running_loop()
        self._frame: asyncio.TimerHandle | None = None
        self._beat: asyncio.TimerHandle | None = None
        self._framed_at = 0.0
        self._work: set[asyncio.Task[None]] = set()
        self._reading: asyncio.Task[None] | None = None
        self._names: dict[int, str] = {}
        self._set: dict[str, dict[str, object]] = {}
        self._said: list[tuple[str, Message]] = []
        self._patches: list[DocumentPatchedEvent] = []
        self.is_hidden = False
        self.is_closed = False
        self.mirror = Mirror(shop, on_dirty=self._soon, now=now)
        try:
            self.shown = make(self._visit())
            self._names = {id(card): name for name, card in self.shown.cards.items()}
            self._document = self._drawn()
        except BaseException:
            self.mirror.close()
            raise
        self._beat_on()
        self._spawn(self._fill_history())
        self._read_on()

    def _visit(self) -> Visit:
        return _Visit(
            shop=self._shop,
            mirror=self.mirror,
            caller=self._caller,
            sheet=InlineStyleSheet(css=""),
            now=self._now,
            act=self._act,
            spawn=self._spawn,
            locked=self._locked,
            toast=self._toast,
            adopt=self._adopt,
            language=lambda: self._language,
        )

    def _adopt(self, card: Card) -> None:
        """Have what it is set to, and what it sends, go out with the next frame."""
        own = [name for name in card.param if name not in JSComponent.param]

        def changed(*events: Any) -> None:
            if name := self._names.get(id(card)):
                self._set.setdefault(name, {}).update({event.name: event.new for event in events})
                self._soon()

        card.param.watch(changed, own)
        card.__dict__["_send_msg"] = partial(self._say, card)

    def _say(self, card: Card, message: Message) -> None:
        if name := self._names.get(id(card)):
            self._said.append((name, message))
            self._soon()

    def _drawn(self) -> Document | None:
        """The document of the figures; None where there is none."""
        if not self.shown.figures:
            return None
        document = Document()
        for fig in self.shown.figures.values():
            document.add_root(fig)
        document.on_change(self._patched)
        return document

    def _patched(self, event: Any) -> None:
        if isinstance(event, DocumentPatchedEvent):
            self._patches.append(event)
            self._soon()

    def close(self) -> None:
        """End: follow nothing, hold nothing."""
        self.is_closed = True
        self.mirror.close()
        self._end_frame()
        if self._beat is not None:
            self._beat.cancel()
        for task in tuple(self._work):
            task.cancel()

    # -- what goes out ----------------------------------------------------------------------------------------

    def all(self) -> str:
        """Everything, as a message for a browser that has nothing."""
        cards = {
            name: {
                "make": type(card).__name__,
                "values": {key: getattr(card, key) for key in card.param if key not in JSComponent.param},
            }
            for name, card in self.shown.cards.items()
        }
        figures = {fig.id: name for name, fig in self.shown.figures.items()}
        told = self._about | {"kind": self.shown.kind, "cards": cards, "figures": figures, "now": self._now()}
        if self._document is not None:
            told |= {
                "doc": serialize_json(self._document.to_json(deferred=False)),
                "bokeh": bokeh.__version__,
            }
        return _text({"all": told})

    def _flush(self, *, is_beat: bool) -> None:
        """Post what changed since the last time."""
        changed, said, patches = self._set, self._said, self._patches
        if not (changed or said or patches or is_beat):
            return
        self._set, self._said, self._patches = {}, [], []
        told: dict[str, object] = {"now": self._now()}
        model = self.mirror.model
        status = "closing" if model.closing and model.link_status == "live" else model.link_status
        if status != "live":
            told["link"] = {"status": status, "lag_s": model.link_lag_s}
        if changed:
            told["set"] = changed
        if patches:
            told["patch"] = Wire().create("PATCH-DOC", patches).content_json
        if said:
            told["say"] = said
        self._post(_text(told))

    def _soon(self) -> None:
        """Have a frame: at once after a quiet while, else at the next turn."""
        if self._frame is None and not self.is_closed and not self._rests():
            since_s = time.monotonic() - self._framed_at
            self._frame = self._loop.call_later(max(QUICK_S, FRAME_S - since_s), self.frame)

    def _end_frame(self) -> None:
        if self._frame is not None:
            self._frame.cancel()
            self._frame = None

    def frame(self, *, is_beat: bool = False) -> None:
        """Set what changed, and post it in one message."""
        self._frame = None
        if self.is_closed or self._rests():
            return
        with speaking(self._language):
            self._show(is_beat=is_beat)

    def _show(self, *, is_beat: bool) -> None:
        changes = self.mirror.flush()
        self.shown.update(changes)
        self._flush(is_beat=is_beat)
        self._end_frame()  # what was set just now has gone out
        self._framed_at = time.monotonic()
        if self._has_ended():
            self._post(_text({"gone": _("The workshop was shut down. This is how it stood then.")}))
            self.on_over()
        elif self.shown.is_over:
            self.on_over()
        else:
            self._read_on()

    def _beat_on(self) -> None:
        """Once a second: what changes with time alone, and a word that this is live."""
        self._beat = self._loop.call_later(BEAT_S, self._beat_on)
        if self.is_hidden:
            self.mirror.skip()
        if self._rests():
            return
        with suppress(Exception), speaking(self._language):
            self.shown.tick()
            self.frame(is_beat=True)

    def _rests(self) -> bool:
        """Whether nothing is to go out: nobody looks, and what is shown goes on, so that there is no last word."""
        return self.is_hidden and not (self.shown.is_ended or self._has_ended())

    def hide(self, *, is_hidden: bool) -> None:
        """Whether nobody looks: then nothing is posted."""
        self.is_hidden = is_hidden
        if not is_hidden:
            self.frame()

    # -- what comes in ----------------------------------------------------------------------------------------

    def hear(self, message: Mapping[str, object]) -> None:
        """A message of a card: a stranger's word."""
        for card_id, name in self._names.items():
            if name == message.get("card"):
                card = next(one for one in self.shown.cards.values() if id(one) == card_id)
                with speaking(self._language):
                    card._handle_msg(dict(message))  # noqa: SLF001 - as Panel does

    def _act(self, kind: str, message: Message) -> None:
        command = command_of(kind, message, self._shop.next_id)
        if command is not None:
            self._spawn(self._do(command))

    async def _do(self, command: Command) -> None:
        try:
            await self._shop.do(command, self._caller)
        except KoubouError as error:
            self._toast(str(error))
        except Exception:
            log.exception("%s failed", type(command).__name__)
            self._toast(_("That did not work; the log of the kernel says more."))

    def _toast(self, text: str) -> None:
        self._post(_text({"toast": text}))

    # -- what is read beside the state ------------------------------------------------------------------------

    async def _fill_history(self) -> None:
        """Samples of the host from before this state began."""
        if not self.shown.figures:
            return
        with suppress(KoubouError):
            self.mirror.backfill(await self._shop.metrics_since(self._now() - KEEP_S))

    def _read_on(self) -> None:
        """Read on, in the background, one reading at a time."""
        if self._reading is None or self._reading.done():
            self._reading = self._spawn(self._read())

    async def _read(self) -> None:
        try:
            if await self.shown.read():
                self._soon()
        except KoubouError as error:
            log.debug("output could not be read: %s", error)

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._work.add(task)
        task.add_done_callback(self._work.discard)
        return task

    def _locked(self, call: Callable[[], None]) -> None:
        self._loop.call_soon(call)


def _text(told: Mapping[str, object]) -> str:
    return msgspec.json.encode(told).decode()
