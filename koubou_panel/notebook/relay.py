"""What a workshop tells, on its way from its own loop to another one, in few wake-ups and bounded memory."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from koubou_panel.core.codec import without_bytes
from koubou_panel.core.events import Sample
from koubou_panel.core.state import Folded, Snapshot, State
from koubou_panel.wire.link import Facts, Samples

BACKLOG = 10_000

News = Snapshot | Facts | Samples


class Relay:
    """A subscriber on the workshop's loop, emptied by `take` on another one.

    Args:
        wake: called when something waits that nobody was woken for yet; on the workshop's loop.
        most: how many facts and samples may wait. Past it all are dropped, and nothing is kept before the next
            reset: a loop that is held up for an hour must not cost memory.
    """

    def __init__(self, wake: Callable[[], None], most: int = BACKLOG) -> None:
        """To be subscribed."""
        self._wake = wake
        self._most = most
        self._lock = threading.Lock()
        self._waiting: list[News] = []
        self._size = 0
        self._is_woken = False
        self._is_behind = False
        self._is_asked = False

    def on_reset(self, state: State) -> None:
        """Copy the state; what waited is in it."""
        copy = state.snapshot()
        with self._lock:
            self._waiting = [copy]
            self._size = 0
            self._is_behind = self._is_asked = False
            is_first, self._is_woken = not self._is_woken, True
        if is_first:
            self._wake()

    def on_facts(self, folded: Sequence[Folded]) -> None:
        """Keep facts, their opaque bytes left out."""
        self._put(Facts([without_bytes(f.fact) for f in folded], [f.seq for f in folded]), len(folded))

    def on_samples(self, samples: Sequence[Sample]) -> None:
        """Keep samples."""
        self._put(Samples(list(samples)), len(samples))

    def _put(self, news: News, size: int) -> None:
        with self._lock:
            if self._is_behind:
                return
            self._waiting.append(news)
            self._size += size
            if self._size > self._most:
                self._waiting = []
                self._is_behind = True
            is_first, self._is_woken = not self._is_woken, True
        if is_first:
            self._wake()

    def drop(self) -> None:
        """Keep nothing before the next reset: what was told does not fit. Any thread."""
        with self._lock:
            self._waiting = []
            self._is_behind = True

    def take(self) -> list[News]:
        """What waits, in order. Any thread."""
        with self._lock:
            taken, self._waiting = self._waiting, []
            self._size = 0
            self._is_woken = False
            return taken

    def ask(self) -> bool:
        """Whether the state is to be copied anew, said once until it was. Any thread."""
        with self._lock:
            is_new, self._is_asked = self._is_behind and not self._is_asked, self._is_behind
            return is_new
