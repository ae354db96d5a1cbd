"""The outgoing side of one connection: what is written at once, and what a slow reader gets instead.

A reader that keeps up gets frames that were made once for all, straight into its transport. One that does not is
`lagging`: it needs no queue for facts, only its place in the ring they all share, from which it catches up as its
transport drains. Its samples are merged. If the ring has forgotten its place it gets a fresh `initial_state`,
and if nothing of it drains for `STUCK_S` seconds it is aborted. Sans-I/O: the transport is a `Port`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from koubou_panel.core.records import Channel
from koubou_panel.wire.ring import CHUNK_BYTES, Place, Ring

ROOM_BYTES = 32 * 1024
STUCK_S = 5.0
MAX_SAMPLES = 512


class Port(Protocol):
    """A transport."""

    def write(self, data: bytes) -> None:
        """Take bytes, never waiting. After the end: nothing."""

    def backlog(self) -> int:
        """How many bytes were taken and are not with the kernel yet."""

    def abort(self) -> None:
        """End the connection at once."""


@dataclass(slots=True)
class CatchUp:
    """Facts from `since` on, up to the present, then the frame that `then` makes of the place reached."""

    since: Mapping[Channel, int]
    then: Callable[[Place], bytes]
    has_begun: bool = False


class Outbox:
    """What goes out to one reader. Loop thread only; times are seconds of a steady clock."""

    def __init__(
        self,
        port: Port,
        ring: Ring,
        *,
        initial_state: Callable[[], bytes],
        channels: Callable[[], list[Channel]],
        watch: Callable[[Outbox], None],
        on_live: Callable[[], None],
        on_stuck: Callable[[], None],
    ) -> None:
        """An outbox that is live: what is broadcast goes out at once.

        Args:
            port: the transport.
            ring: holds frames of facts.
            initial_state: makes a fresh frame of the state as it stands at the ring's head.
            channels: those of the ring that the reader follows.
            watch: asks for `tick` every few milliseconds, until it returns False.
            on_live: told whenever the reader has caught up.
            on_stuck: told when it was given up.

        """
        self.is_live = True
        self._port = port
        self._ring = ring
        self._initial_state = initial_state
        self._channels = channels
        self._watch = watch
        self._on_live = on_live
        self._on_stuck = on_stuck
        self._queue: deque[bytes | CatchUp] = deque()
        self._samples: dict[tuple[str, str], bytes] = {}
        self._place: Place = {}
        self._is_lost = False
        self._is_watched = False
        self._is_closed = False
        self._written = 0
        self._consumed = 0
        self._moved_at: float | None = None

    def broadcast(self, frames: bytes, place: Mapping[Channel, int]) -> None:
        """Write frames that go to all, `place` being the ring's after them. Only while live."""
        self._write(frames)
        backlog = self._port.backlog()
        if backlog:
            self._congest(backlog, place)

    def fall_behind(self, place: Mapping[Channel, int]) -> None:
        """Leave the facts after `place` for later: there are too many to write at once. Only while live."""
        self._lag(place)
        self._watch_me()

    def send(self, frame: bytes) -> None:
        """Write a frame for this reader alone, in its order."""
        if not self.is_live:
            self._queue.append(frame)
            return
        self._write(frame)
        backlog = self._port.backlog()
        if backlog:
            self._congest(backlog, self._ring.head)

    def rewind(self, since: Mapping[Channel, int], then: Callable[[Place], bytes]) -> None:
        """Write the facts after `since` again, then what `then` makes of the place reached."""
        self._queue.append(CatchUp(since, then))
        self._go_on()

    def restart(self) -> None:
        """Tell the reader to start again: the facts it has not got will not come."""
        self._is_lost = True
        self._samples.clear()
        self._go_on()

    def offer(self, key: tuple[str, str], frame: bytes) -> None:
        """Keep a sample for when the reader has caught up; a newer one of its `key` replaces it."""
        self._samples.pop(key, None)
        self._samples[key] = frame
        if len(self._samples) > MAX_SAMPLES:
            del self._samples[next(iter(self._samples))]

    def tick(self, now: float) -> bool:
        """Go on if there is room, give up if nothing has moved for too long; False if all is well again."""
        if self._is_closed:
            return False
        consumed = self._written - self._port.backlog()
        if self._moved_at is None or consumed > self._consumed:
            self._moved_at = now
        self._consumed = consumed
        if not self.is_live:
            self._pump()
        if self.is_live and not self._port.backlog():
            self._is_watched = False
            self._moved_at = None
            return False
        if now - self._moved_at >= STUCK_S:
            self.close()
            self._port.abort()
            self._on_stuck()
            return False
        return True

    def close(self) -> None:
        """Forget everything; nothing is written any more."""
        self._is_closed = True
        self.is_live = False
        self._queue.clear()
        self._samples.clear()

    # -- inside -----------------------------------------------------------------------------------------------

    def _write(self, data: bytes) -> None:
        self._written += len(data)
        self._port.write(data)

    def _congest(self, backlog: int, place: Mapping[Channel, int]) -> None:
        if backlog > ROOM_BYTES:
            self._lag(place)
        self._watch_me()

    def _watch_me(self) -> None:
        if not self._is_watched:
            self._is_watched = True
            self._watch(self)

    def _lag(self, place: Mapping[Channel, int]) -> None:
        self.is_live = False
        self._place = dict(place)

    def _go_on(self) -> None:
        if self._is_closed:
            return
        if self.is_live:
            self._lag(self._ring.head)
            self._pump()
        if not self.is_live:
            self._watch_me()

    def _pump(self) -> None:
        while self._port.backlog() <= ROOM_BYTES:
            chunk = self._chunk()
            if not chunk:
                self.is_live = True
                self._on_live()
                return
            self._write(chunk)

    def _chunk(self) -> bytes:
        parts: list[bytes] = []
        size = 0
        while size < CHUNK_BYTES:
            part = self._part()
            if part is None:
                break
            parts.append(part)
            size += len(part)
        return b"".join(parts)

    def _part(self) -> bytes | None:
        """The next frames: replies and rewinds in their order, then the facts not sent yet, then samples."""
        first = self._queue[0] if self._queue else None
        if isinstance(first, bytes):
            self._queue.popleft()
            return first
        if first is not None and not first.has_begun:
            first.has_begun = True
            self._place |= first.since
        facts = self._facts()
        if facts is not None:
            return facts
        if first is not None:
            self._queue.popleft()
            return first.then(self._place)
        if self._samples:
            return self._samples.pop(next(iter(self._samples)))
        return None

    def _facts(self) -> bytes | None:
        place = {channel: self._place[channel] for channel in self._channels()}
        if self._is_lost or not self._ring.holds(place):
            self._is_lost = False
            self._place = dict(self._ring.head)
            return self._initial_state()
        chunk = self._ring.chunk(place)
        self._place |= chunk.place
        return chunk.messages or None
