"""One visitor's page: a mirror, a view of it, and the frames in between. It ends with the visit.

Nothing is sent while nothing changes, but for one beat a second (the age of what is seen, and the time axis);
and nothing at all while the page is hidden.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any, TypedDict, Unpack

import panel as pn
from bokeh.document import Document
from panel.io.resources import LOCAL_DIST

from koubou_panel.core.commands import Caller, Command, RetryTask
from koubou_panel.core.ports import Shop
from koubou_panel.core.records import TaskId
from koubou_panel.errors import KoubouError, Refused
from koubou_panel.home import Home
from koubou_panel.reactive.mirror import Mirror
from koubou_panel.reactive.series import KEEP_S
from koubou_panel.views.actions import command_of
from koubou_panel.views.deck import Deck, page_kinds
from koubou_panel.views.drawer import Drawer
from koubou_panel.views.frames import Frames, Turns
from koubou_panel.views.language import LANGUAGES, _, catalogue, speaking
from koubou_panel.views.opening import language_asked, page_asked
from koubou_panel.views.output import OutputTail, ended_of
from koubou_panel.views.pace import FIGURES_S, Pace
from koubou_panel.views.page import shell
from koubou_panel.views.pages.overview import Overview
from koubou_panel.views.run import RunDialog
from koubou_panel.views.services import LABELS
from koubou_panel.views.theme import card_sheet
from koubou_panel.views.top import Top
from koubou_panel.views.visit import Visit

BEAT_MS = 1_000
HISTORY_S = KEEP_S

log = logging.getLogger(__name__)


def visit(
    shop: Shop,
    *,
    caller: Caller,
    boot_id: str,
    **about: Unpack[About],
) -> pn.Template:
    """A page for the visitor whose session this is called in; it ends with that session.

    Args:
        shop: what is shown.
        caller: who acts when something is clicked.
        boot_id: names the server process; a page of another one loads itself again.
        about: what else is known, and may be done, there.

    """
    doc: Any = pn.state.curdoc
    # Panel learns this when it sends the page. A session that a late page has begun anew is never sent: what is shown
    # in it would be asked of Panel's own host.
    doc.template_variables["dist_url"] = LOCAL_DIST
    request = doc.session_context.request if doc.session_context else None
    session = PageSession(
        shop, caller=caller, page=page_asked(request), language=language_asked(request), **about
    )
    try:
        page = session.shell(boot_id)
        # Bokeh's own way back sends every root of the page to the server again, which refuses them one by one;
        # page.js loads the page anew instead. And the pill says what Bokeh's notices would.
        doc.config.update(reconnect_session=False, notify_connection_status=False)
        session.start(doc)
    except BaseException:
        session.close()
        raise
    return page


class About(TypedDict, total=False):
    """What a page is told beside the shop.

    `place`: a word for which workshop this is. `label`: a word for what kind of workshop it is, where it is no usual
    one. `restart_service`: has a service started anew; None: nobody does that here. `home`: whose settings are shown
    and changed, read with `environ` and `flags`; None: none are.
    """

    place: str
    label: str
    restart_service: Callable[[str], bool] | None
    home: Home | None
    environ: Mapping[str, str]
    flags: Mapping[str, str]


class PageSession:
    """A page over a shop for one visitor. Loop thread only.

    Args:
        shop: what is shown; never closed here.
        caller: who acts when something is clicked.
        now: gives UTC seconds.
        page: which page is seen first.
        language: what it speaks.
        about: see `About`.

    """

    def __init__(
        self,
        shop: Shop,
        *,
        caller: Caller,
        now: Callable[[], float] = time.time,
        page: str = "",
        language: str = "en",
        **about: Unpack[About],
    ) -> None:
        """Build the page from what the shop holds now."""
        self._shop = shop
        self._caller = caller
        self._now = now
        self.language = language
        self._doc: Document | None = None
        self.frames = Frames(self.frame)
        self._naming = Pace(FIGURES_S)
        self._beat: object | None = None
        self._work: set[asyncio.Task[None]] = set()
        self._reading: asyncio.Task[None] | None = None
        self._turns = Turns(self._locked)
        self.output = OutputTail(shop)
        self.mirror = Mirror(shop, on_dirty=self.frames.soon, now=now, finished=0)
        self.visit = Visit(
            shop=shop,
            mirror=self.mirror,
            caller=caller,
            sheet=card_sheet(),
            now=now,
            act=self._on_message,
            spawn=self._spawn,
            locked=self._locked,
            in_turns=self._turns.do,
            toast=self._toast,
            tell=self._tell,
            restart_service=about.get("restart_service"),
            home=about.get("home"),
            environ=about.get("environ", {}),
            flags=about.get("flags", {}),
            language=lambda: self.language,
        )
        try:
            with speaking(language):
                self._build(page, place=about.get("place", ""), label=about.get("label", ""))
        except BaseException:
            self.mirror.close()
            raise

    def _build(self, page: str, *, place: str, label: str) -> None:
        self.top = Top(self.visit, place=place, label=label, asks={"language": self._speak})
        self.view = Overview(self.visit)
        self.deck = Deck(self.visit, self.view, page_kinds())
        self.drawer = Drawer(self.visit)
        self.run = RunDialog(self.visit)
        self.top.is_paused = lambda: self.deck.seen is self.view and self.view.paused
        self.top.show_pages(self.deck.labels)
        if page:
            self.deck.show(page)

    @property
    def roots(self) -> dict[str, object]:
        """What stands where in the document."""
        parts = (self.top, self.view, self.deck, self.drawer.view, self.run)
        return {name: root for part in parts for name, root in part.roots.items()}

    def shell(self, boot_id: str) -> pn.Template:
        """The document, complete before any script runs; `boot_id` names the server process."""
        return shell(
            self.roots,
            title=dict(self.deck.labels)[self.deck.name],
            boot_id=boot_id,
            is_fresh=self.view.is_fresh,
            page=self.deck.name,
            language=self.language,
        )

    def start(self, doc: Document) -> None:
        """Send frames to `doc` from when its browser shows it until its session ends."""
        self._doc = doc
        doc.on_session_destroyed(lambda _: self.close())
        # Until the browser reports the page as loaded, Panel drops changes that it may already have missed.
        pn.state.onload(self._loaded)

    def _loaded(self) -> None:
        if self._doc is not None:
            self._doc.add_next_tick_callback(self._go_live)

    def _go_live(self) -> None:
        if self._doc is None:
            return
        self.frames.start(self._doc)
        self._beat = self._doc.add_periodic_callback(self.beat, BEAT_MS)
        self._spawn(self._fill_history())
        self.beat()
        self._send_all()
        self._read_output()
        self._turns.start()

    def close(self) -> None:
        """End: follow nothing, hold nothing. What fails at it is logged, and the rest ends all the same."""
        for end in (self.mirror.close, self.top.close, self.deck.close):
            try:
                end()
            except Exception:
                log.exception("a part of the page cannot be closed")
        for task in tuple(self._work):
            task.cancel()
        self._doc = None
        self.frames.stop()

    # -- frames -----------------------------------------------------------------------------------------------

    def frame(self) -> None:
        """Set what changed, in one message to the browser. Under the document's lock."""
        if self.frames.is_hidden or not self.frames.is_live:
            return
        number = self.frames.begin()
        with pn.io.hold(self._doc), speaking(self.language):
            changes = self.mirror.flush()
            self.top.update(changes)
            self.deck.update(changes)
            self._show_output()
            self.drawer.update(changes)
            if number is not None:
                self.top.bar.send({"frame": number})
        if changes.reset or changes.tasks or changes.ended or "running" in changes.shop:
            self._read_output()
        if self.deck.owes:
            self.frames.soon()

    def beat(self) -> None:
        """Once a second: what changes with time alone. Under the document's lock."""
        if self.frames.is_hidden:
            self._rest()
            return
        with pn.io.hold(self._doc), speaking(self.language):
            is_idle = not self.frames.waits
            if is_idle:
                self.frame()
            self.top.tick()
            if is_idle:
                self.deck.tick()
                self.drawer.view.tick()

    def _show_output(self) -> None:
        """Send what was printed; who prints, and a line that is drawn anew, is not told in every frame."""
        if not self.output.is_new or self.deck.seen is not self.view or self.view.paused:
            return
        if self.output.has_lines or self._naming.may():
            self.view.output.send(self.output.take())

    def _rest(self) -> None:
        """While nobody looks, take in now and then what came."""
        if self.frames.is_rest():
            with pn.io.hold(self._doc), speaking(self.language):
                self.mirror.skip()

    # -- what the browser sends -------------------------------------------------------------------------------

    def _on_message(self, kind: str, message: Mapping[str, object]) -> None:
        with speaking(self.language):
            self._take(kind, message)

    def _take(self, kind: str, message: Mapping[str, object]) -> None:
        if kind == "painted":
            self.frames.painted(message.get("frame"))
        elif kind == "ready":
            self._send_all()
        elif kind == "hidden":
            if self.frames.hide(is_hidden=message.get("hidden") is True):
                self.beat()
        elif kind == "page":
            self._show_page(message.get("page"))
        elif kind == "open":
            task_id = message.get("task_id")
            self.drawer.want(task_id if isinstance(task_id, str) else "")
        elif kind == "restart_service":
            self._restart(message.get("name"))
        else:
            command = command_of(kind, message, self._shop.next_id)
            if command is not None:
                self._spawn(self._do(command))

    def _show_page(self, name: object) -> None:
        if isinstance(name, str) and name != self.deck.name:
            with pn.io.hold(self._doc):
                self.deck.show(name)
                if self.deck.seen is self.view:
                    self._send_all()

    async def _speak(self, message: Mapping[str, object]) -> Mapping[str, object]:
        """Speak another language from now on, and give the browser its words."""
        language = message.get("language")
        if not isinstance(language, str) or language not in LANGUAGES:
            raise Refused("invalid", f"this page speaks {', '.join(LANGUAGES)}")
        self.language = language
        words = await asyncio.to_thread(catalogue, language)
        self._locked(self._draw)
        return {"words": dict(words)}

    def _draw(self) -> None:
        """Show everything anew. Under the document's lock."""
        with pn.io.hold(self._doc), speaking(self.language):
            self.top.show_pages(self.deck.labels)
            self.top.draw()
            self.deck.draw()
            self.drawer.view.draw()
            self._send_all()

    def _restart(self, name: object) -> None:
        """The supervisor is asked itself, not the workshop: that may be what has failed."""
        if not isinstance(name, str) or name not in LABELS:
            return
        restart = self.visit.restart_service
        if self._caller.role != "full" or restart is None:
            return
        if not restart(name):
            self._toast(_("The supervisor does not answer: `koubou status` says how things stand."))

    def _send_all(self) -> None:
        """Give the cards that live on messages all they need: they have just been drawn."""
        if self.frames.is_live:
            with pn.io.hold(self._doc), speaking(self.language):
                self.view.output.send(self.output.all())

    async def _do(self, command: Command) -> None:
        try:
            await self._shop.do(command, self._caller)
            if isinstance(command, RetryTask):
                self._hint_at_input(command.new_id)
        except Refused as refusal:
            self._toast(refusal.message)
        except KoubouError as error:
            self._toast(str(error))
        except Exception:
            log.exception("%s failed", type(command).__name__)
            self._toast(_("That did not work; the log of the dashboard says more."))

    def _hint_at_input(self, task_id: TaskId) -> None:
        task = self._shop.state.tasks.get(task_id)
        if task is not None and task.request.spec.get("stdin"):
            self._locked(
                lambda: self.top.bar.toast(_("The new task waits for its input: open it to type that."))
            )

    def _tell(self, text: str) -> None:
        self._locked(lambda: self.top.bar.toast(text))

    def _toast(self, text: str) -> None:
        self._locked(lambda: self.top.bar.toast(text, is_bad=True))

    # -- what is read beside the state ------------------------------------------------------------------------

    async def _fill_history(self) -> None:
        """Samples of the host from before this state began."""
        now = self._now()
        first = self.mirror.metrics[0].at if self.mirror.metrics else now
        if now - first < HISTORY_S - 10:
            with suppress(KoubouError):  # the workshop is away: what was measured since is there all the same
                self.mirror.backfill(await self._shop.metrics_since(now - HISTORY_S))

    def _read_output(self) -> None:
        """Read on, in the background, one reading at a time."""
        running, ended = self.mirror.model.running, ended_of(self.mirror.recent)
        if self._doc is None or not self.output.follow(running, ended):
            return
        if self._reading is None or self._reading.done():
            self._reading = self._spawn(self._read())

    async def _read(self) -> None:
        try:
            await self.output.read()
        except KoubouError as error:
            log.debug("output could not be read: %s", error)
            return
        if self.output.is_new:
            self.frames.soon()

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._work.add(task)
        task.add_done_callback(self._work.discard)
        return task

    def _locked(self, call: Callable[[], None]) -> None:
        def spoken() -> None:
            with speaking(self.language):
                call()

        if self._doc is not None:
            self._doc.add_next_tick_callback(spoken)
