"""When a page is sent what changed: in frames, some time apart, and none before the last has been painted.

The browser tells of each frame when it has painted it. A page that cannot keep up is sent frames less often, where it
would fall behind more and more otherwise.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import panel as pn
from bokeh.document import Document

# What happens is to be seen within a quarter of a second, the way to the page included: benchmarks/page_latency.py.
FRAME_MS = 100
QUICK_MS = 40
#: A frame that was not told of for so long is taken as painted: the word of it may be lost.
PATIENCE_S = 3.0
#: How often what came is taken in while nobody looks: what waits for a frame must not grow for days.
REST_S = 60.0


class Frames:
    """The frames of one page. Loop thread only.

    Args:
        make: makes one; called under the document's lock.
        now: gives seconds of a clock that is never set.

    """

    def __init__(self, make: Callable[[], None], *, now: Callable[[], float] = time.monotonic) -> None:
        """None is made before `start`."""
        self.is_hidden = False
        self._make = make
        self._now = now
        self._doc: Document | None = None
        self._next: object | None = None
        self._is_wanted = False
        self._at = self._rested_at = 0.0
        self._sent = 0
        self._seen: int | None = None

    def start(self, doc: Document) -> None:
        """Its browser shows the page."""
        self._doc = doc

    def stop(self) -> None:
        """Make none any more."""
        self._doc = None

    @property
    def is_live(self) -> bool:
        """Whether the page is there, seen or hidden."""
        return self._doc is not None

    @property
    def waits(self) -> bool:
        """Whether the page has still to paint what it was sent; a page that tells of no frame is not waited for."""
        is_behind = self._seen is not None and self._seen < self._sent
        return is_behind and self._now() - self._at < PATIENCE_S

    def soon(self) -> None:
        """Have a frame: at once after a quiet while, else at the next turn."""
        if self._doc is None or self.is_hidden or self._next is not None:
            return
        self._is_wanted = self.waits
        if self._is_wanted:
            return
        since_ms = (self._now() - self._at) * 1000
        with suppress(RuntimeError):  # the session is ending
            wait_ms = max(QUICK_MS, int(FRAME_MS - since_ms))
            self._next = self._doc.add_timeout_callback(self._make_next, wait_ms)

    def _make_next(self) -> None:
        self._next = None
        if self.waits:  # a beat came first
            self._is_wanted = True
        else:
            self._make()

    def begin(self) -> int | None:
        """A frame is made now; gives its number, where the page tells of those that it has painted."""
        self._at = self._now()
        self._is_wanted = False
        self._sent += 1
        return None if self._seen is None else self._sent

    def painted(self, number: object) -> None:
        """The browser has painted the frame of this number; with 0 it says that it will tell."""
        if isinstance(number, int) and not isinstance(number, bool) and 0 <= number <= self._sent:
            self._seen = max(self._seen or 0, number) if number else self._sent
            if self._is_wanted:
                self.soon()

    def hide(self, *, is_hidden: bool) -> bool:
        """Nobody looks from now on, or somebody does again: whether the page is to be shown anew."""
        was_hidden, self.is_hidden = self.is_hidden, is_hidden
        if is_hidden and not was_hidden:
            self._rested_at = self._now()
        if self._seen is not None:  # what was sent is not waited for
            self._seen = self._sent
        return was_hidden and not is_hidden

    def is_rest(self) -> bool:
        """While nobody looks: whether what came meanwhile is to be taken in now."""
        if self._now() - self._rested_at < REST_S:
            return False
        self._rested_at = self._now()
        return True


class Turns:
    """Work on a page that would hold everybody up if it were done at once. Loop thread only.

    Args:
        locked: calls something under the document's lock, in a turn of the loop of its own.

    """

    def __init__(self, locked: Callable[[Callable[[], None]], None]) -> None:
        """Nothing is done before `start`."""
        self._locked = locked
        self._is_started = False
        self._waiting: list[Iterator[None]] = []

    def start(self) -> None:
        """The page is there: begin with what waits for it."""
        self._is_started = True
        for work in self._waiting:
            self.do(work)
        self._waiting.clear()

    def do(self, work: Iterator[None]) -> None:
        """Do `work`, up to its next `yield` in one turn of the loop."""
        if not self._is_started:
            self._waiting.append(work)
            return

        def turn() -> None:
            with pn.io.hold():
                has_more = next(work, True) is None
            if has_more:
                self.do(work)

        self._locked(turn)
