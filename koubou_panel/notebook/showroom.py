"""The displays of this kernel: who looks at which, over Jupyter's comms; on a thread of their own.

A display is fed from a thread of its own and not from the kernel's, because a cell that waits in `result()` holds that
one up, which is just when somebody looks. What a browser sends is heard on the thread that Jupyter gives it: where
kernel and page know subshells (ipykernel 7, JupyterLab 4.4) that is one that no cell holds up; otherwise it is heard
when the cell is done, and the page says so.
"""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from koubou_panel.errors import KoubouError
from koubou_panel.notebook.endings import Endings
from koubou_panel.notebook.loop_thread import LoopThread
from koubou_panel.views.ends import FAILED, KERNEL_ENDED, WAS_SHUT_DOWN
from koubou_panel.views.language import _, catalogue, language_of, speaking

TARGET = "koubou"
SILENT_S = 150.0  # a page in the background beats once a minute at least
CHECK_S = 15.0
IDLE_TURN_S = 10.0
MOST_DISPLAYS = 1_000  # of which most were cleared long ago

log = logging.getLogger(__name__)


class Session(Protocol):
    """What feeds a display: an `InlineSession`, whose module imports Panel, which is for when somebody looks."""

    on_over: Callable[[], None]

    def all(self) -> str:
        """Everything, as a message for a browser that has nothing."""

    def hear(self, message: Mapping[str, object]) -> None:
        """A message of a card."""

    def hide(self, *, is_hidden: bool) -> None:
        """Whether nobody looks."""

    def close(self) -> None:
        """End."""


Post = Callable[[str], None]
#: Opens a display's session, which posts what it shows; closing that is what it gives beside.
Open = Callable[[Post], Awaitable[tuple[Session, Callable[[], None]]]]


class Viewer:
    """One browser that looks at a display.

    What it is sent is numbered from 1, since Jupyter's server leaves out what comes faster than its limit: a browser
    that misses one asks for everything.
    """

    def __init__(
        self,
        send: Callable[[dict[str, object]], None],
        now: float,
        *,
        display_id: str = "",
        language: str = "en",
    ) -> None:
        """It has just come. `send` takes data for it; any thread."""
        self._send = send
        self._sent = 0
        self._sending = threading.Lock()
        self.display_id = display_id
        self.language = language
        self.heard_at = now
        self.is_hidden = False
        self.was_dropped = False
        self.display: Display | None = None

    def post(self, text: str) -> None:
        """Send it a message; any thread."""
        with self._sending:
            self._sent += 1
            self._send({"text": text, "n": self._sent})

    def tell(self, **told: object) -> None:
        """Send it a message of these parts."""
        self.post(json.dumps(told))


class Display:
    """One output: what it shows is opened with its first viewer and closed with its last. Displays' thread only."""

    def __init__(self, open_session: Open) -> None:
        """Nobody looks yet."""
        self._open = open_session
        self.viewers: list[Viewer] = []
        self.session: Session | None = None
        self._close: Callable[[], None] | None = None
        self._opening: asyncio.Task[None] | None = None

    def join(self, viewer: Viewer) -> None:
        """Somebody looks."""
        self._flush()
        self.viewers.append(viewer)
        viewer.display = self
        self._give_all(viewer)

    def give_again(self, viewer: Viewer) -> None:
        """Give everything to one that has missed something."""
        self._flush()
        self._give_all(viewer)
        self.look_who_looks()

    def _flush(self) -> None:
        """Have what waits go out: it is in `all`, too, and would come twice. It may be the end of what is shown."""
        if self.session is not None:
            self.session.hide(is_hidden=False)

    def _give_all(self, viewer: Viewer) -> None:
        if self.session is not None:
            viewer.post(self.session.all())
        elif self._opening is None:
            with speaking(viewer.language):  # and in all that is begun there
                self._opening = asyncio.get_running_loop().create_task(self._begin())

    def leave(self, viewer: Viewer) -> None:
        """Somebody looks no more."""
        if viewer in self.viewers:
            self.viewers.remove(viewer)
        if not self.viewers:
            self.close()

    def look_who_looks(self) -> None:
        """Show nothing while all pages are hidden."""
        if self.session is not None:
            self.session.hide(is_hidden=all(viewer.is_hidden for viewer in self.viewers))

    def close(self) -> None:
        """End what is shown; somebody who looks again opens it anew."""
        session, close, self.session, self._close = self.session, self._close, None, None
        if session is not None:
            session.close()
        if close is not None:
            close()

    async def _begin(self) -> None:
        try:
            self.session, self._close = await self._open(self._post)
        except KoubouError as error:
            self._tell(gone=str(error))
        except RuntimeError:
            self._tell(gone=_(WAS_SHUT_DOWN))
        except Exception:
            log.exception("a display could not be made")
            self._tell(gone=_(FAILED))
        finally:
            self._opening = None
        if not self.viewers:
            self.close()
        elif self.session is not None:
            self._post(self.session.all())
            self.session.on_over = self.close

    def _tell(self, **told: object) -> None:
        self._post(json.dumps(told))

    def _post(self, text: str) -> None:
        for viewer in list(self.viewers):
            viewer.post(text)


class Showroom:
    """All displays of this process. Any thread, but for what says otherwise."""

    def __init__(self, *, silent_s: float = SILENT_S, check_s: float = CHECK_S) -> None:
        """With none; its thread begins with the first viewer."""
        self._displays: dict[str, Display] = {}
        self._thread: LoopThread | None = None
        self._starting = threading.Lock()
        self._silent_s = silent_s
        self._check_s = check_s
        self._kernel: Any = None
        self._kernel_loop: asyncio.AbstractEventLoop | None = None
        self.endings: Endings | None = None
        #: What the page that was opened last speaks; empty: none was yet.
        self.language = ""

    def __len__(self) -> int:
        """How many displays are being followed."""
        return sum(display.session is not None for display in list(self._displays.values()))

    def add(self, display_id: str, open_session: Open) -> None:
        """Have a display that a browser may ask for."""
        self._displays[display_id] = Display(open_session)
        unseen = [name for name, display in list(self._displays.items()) if not display.viewers]
        for name in unseen[: max(0, len(self._displays) - MOST_DISPLAYS)]:
            self._displays.pop(name, None)

    def serve(self, kernel: Any) -> None:
        """Listen to the browsers of this IPython kernel; once is enough."""
        if self._kernel is kernel:
            return
        self._kernel = kernel
        self.endings = Endings(kernel, self._later)
        try:
            self._kernel_loop = asyncio.get_running_loop()
        except RuntimeError:
            self._kernel_loop = None
        kernel.comm_manager.register_target(TARGET, self._opened)

    # -- on whatever thread Jupyter calls ---------------------------------------------------------------------

    def _opened(self, comm: Any, message: Mapping[str, Any]) -> None:
        told = message["content"]["data"]
        language = self.language = language_of(accepted=str(told.get("lang", "")).replace("_", "-"))
        viewer = Viewer(
            self._sender(comm), time.monotonic(), display_id=str(told.get("display")), language=language
        )
        comm.on_msg(lambda message: self._heard(viewer, comm, message))
        comm.on_close(lambda _message: self._on_thread(self.left, viewer))
        self._on_thread(self.joined, viewer)

    def _sender(self, comm: Any) -> Callable[[dict[str, object]], None]:
        """Sends to a comm, from any thread.

        Not by `comm.send`: ipykernel 7 takes that for a word of the cell that runs, and has the browser's answers wait
        for that cell from then on.
        """
        kernel, comm_id, topic = self._kernel, comm.comm_id, comm.topic

        def send(data: dict[str, object]) -> None:
            content = {"data": data, "comm_id": comm_id}
            kernel.session.send(
                kernel.iopub_socket, "comm_msg", content, metadata={}, parent=None, ident=topic
            )

        return send

    def _heard(self, viewer: Viewer, comm: Any, message: Mapping[str, Any]) -> None:
        try:
            told = json.loads(message["content"]["data"]["text"])
        except (KeyError, TypeError, ValueError):
            return
        if not isinstance(told, dict):
            return
        if told.get("n") is not None:
            viewer.tell(heard=told["n"])
        if told.get("type") == "bye":
            comm.close()
        self._on_thread(self.heard, viewer, told)

    def _on_thread(self, call: Callable[..., object], *args: object) -> None:
        with self._starting:
            if self._thread is None:
                self._thread = LoopThread()
                self._thread.loop.call_soon_threadsafe(self._check)
        self._thread.loop.call_soon_threadsafe(call, *args)

    def _later(self, delay_s: float, call: Callable[[], None]) -> None:
        """Call it after a while, on a thread that it may hold up; any thread."""

        def begin() -> None:
            loop = asyncio.get_running_loop()
            with suppress(RuntimeError):  # the interpreter ends
                loop.run_in_executor(None, call)

        self._on_thread(lambda: asyncio.get_running_loop().call_later(delay_s, begin))

    # -- on the displays' thread ------------------------------------------------------------------------------

    def joined(self, viewer: Viewer) -> None:
        """Somebody asks for a display. Displays' thread only."""
        display = self._displays.get(viewer.display_id)
        if display is None:
            with speaking(viewer.language):
                viewer.tell(gone=_(KERNEL_ENDED))
        else:
            display.join(viewer)

    def left(self, viewer: Viewer) -> None:
        """Somebody has gone. Displays' thread only."""
        if viewer.display is not None:
            viewer.display.leave(viewer)
            viewer.display = None

    def heard(self, viewer: Viewer, told: Mapping[str, object]) -> None:
        """Somebody says something. Displays' thread only."""
        viewer.heard_at = time.monotonic()
        kind = told.get("type")
        if kind == "bye":
            self.left(viewer)
            return
        if viewer.was_dropped:
            viewer.was_dropped = False
            self.joined(viewer)
        answer = _ANSWERS.get(str(kind))
        if answer is not None:
            viewer.post(answer(viewer.language))
        elif viewer.display is not None:
            self._heard_of_display(viewer, viewer.display, told)

    def _heard_of_display(self, viewer: Viewer, display: Display, told: Mapping[str, object]) -> None:
        if told.get("type") == "again":
            display.give_again(viewer)
        elif told.get("type") == "hidden":
            viewer.is_hidden = told.get("hidden") is True
            display.look_who_looks()
        elif display.session is not None:
            display.session.hear(told)

    def _check(self) -> None:
        """Let go of viewers that have fallen silent, such as a browser's tab that was closed."""
        asyncio.get_running_loop().call_later(self._check_s, self._check)
        limit = time.monotonic() - self._silent_s
        viewers = [viewer for display in list(self._displays.values()) for viewer in display.viewers]
        silent = [viewer for viewer in viewers if viewer.heard_at < limit]
        if not silent:
            return

        def idle() -> None:
            """The kernel's loop turns: what was sent to it has been heard by now, or nearly."""
            assert self._thread is not None  # noqa: S101 - this was asked there
            self._thread.loop.call_soon_threadsafe(self._drop_later, silent, limit)

        if self._kernel_loop is None:
            self._drop_later(silent, limit)
        elif not self._kernel_loop.is_closed():
            self._kernel_loop.call_soon_threadsafe(idle)

    def _drop_later(self, silent: list[Viewer], limit: float) -> None:
        def drop() -> None:
            for viewer in silent:
                # More than one check may have found it so, while the kernel was busy: it is let go of once.
                if viewer.heard_at < limit and viewer.display is not None:
                    viewer.was_dropped = True
                    self.left(viewer)

        asyncio.get_running_loop().call_later(min(IDLE_TURN_S, self._silent_s), drop)


@cache
def showroom() -> Showroom:
    """The one of this process."""
    return Showroom()


@cache
def _code(language: str) -> str:
    from koubou_panel.views.joined import inline_code
    from koubou_panel.views.theme import ASSETS, card_css, notebook_css

    own = (ASSETS / "notebook-cards.css").read_text(encoding="utf-8")
    css = {"page": notebook_css(), "cards": card_css() + own}
    return json.dumps({"code": inline_code(), "css": css, "words": dict(catalogue(language))})


@cache
def _bokeh(_language: str) -> str:
    import bokeh

    file = Path(bokeh.__file__).parent / "server" / "static" / "js" / "bokeh.min.js"
    return json.dumps({"bokeh": file.read_text(encoding="utf-8"), "version": bokeh.__version__})


def _beat(_language: str) -> str:
    return json.dumps({"beat": True})


#: By what a browser asks for that is no display's own: the message for one that speaks this language.
_ANSWERS: dict[str, Callable[[str], str]] = {"code": _code, "bokeh": _bokeh, "beat": _beat}
