"""Task output as it grows, for those who follow it: read once for all who stand at the same byte."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from koubou_panel.core.ports import OutputPage
from koubou_panel.core.records import TaskId
from koubou_panel.errors import KoubouError
from koubou_panel.servers.frames import text_frame
from koubou_panel.wire.messages import message

if TYPE_CHECKING:
    from koubou_panel.servers.feed import Feed
    from koubou_panel.servers.peer import Peer

log = logging.getLogger(__name__)

PIECE_BYTES = 64 * 1024


class Tails:
    """Who follows which task's output, and from which byte on. Loop thread only.

    A reader that lags is left out until it has caught up; the bytes wait for it in the log.
    """

    def __init__(self, feed: Feed) -> None:
        """Nobody follows anything."""
        self._feed = feed
        self._readers: dict[TaskId, dict[Peer, int]] = {}
        self._grown: set[TaskId] = set()
        self._reading: set[TaskId] = set()

    def __len__(self) -> int:
        return len(self._readers)

    def follow(self, peer: Peer, task_id: TaskId, offset: int) -> None:
        """Send `peer` what the task prints, from byte `offset` (negative: that many before the end)."""
        self._readers.setdefault(task_id, {})[peer] = offset
        self.grew(task_id)

    def unfollow(self, peer: Peer, task_id: TaskId) -> None:
        """Send it no more."""
        readers = self._readers.get(task_id, {})
        readers.pop(peer, None)
        if not readers:
            self._readers.pop(task_id, None)

    def drop(self, peer: Peer) -> None:
        """Forget a connection."""
        for task_id in [task_id for task_id, readers in self._readers.items() if peer in readers]:
            self.unfollow(peer, task_id)

    def wake(self, peer: Peer) -> None:
        """A reader may have caught up: see what it has missed."""
        if self._readers and peer.outbox.is_live:
            for task_id, readers in self._readers.items():
                if peer in readers and task_id in self._grown:
                    self._read_soon(task_id)

    def grew(self, task_id: TaskId) -> None:
        """There may be more output of this task."""
        if task_id in self._readers:
            self._grown.add(task_id)
            self._read_soon(task_id)

    def _read_soon(self, task_id: TaskId) -> None:
        if task_id not in self._reading:
            self._reading.add(task_id)
            self._feed.spawn(self._read(task_id))

    async def _read(self, task_id: TaskId) -> None:
        """Read until everyone who can take it has everything."""
        try:
            while task_id in self._grown:
                self._grown.discard(task_id)
                while await self._read_once(task_id):
                    pass
                if self._has_laggards(task_id):
                    self._grown.add(task_id)
                    return
        except (KoubouError, OSError) as problem:
            log.warning("the output of %s cannot be read: %s", task_id, problem)
        finally:
            self._reading.discard(task_id)

    async def _read_once(self, task_id: TaskId) -> bool:
        """One piece for each place where somebody stands; False if nobody got anything."""
        places = {offset for peer, offset in self._readers.get(task_id, {}).items() if peer.outbox.is_live}
        has_sent = False
        for offset in sorted(places):
            page = await self._feed.shop.read_output(task_id, offset, PIECE_BYTES)
            has_sent |= self._hand_out(task_id, offset, page)
        return has_sent

    def _hand_out(self, task_id: TaskId, offset: int, page: OutputPage) -> bool:
        readers = self._readers.get(task_id, {})
        if page.end == page.offset:
            if offset < 0:  # from here on it counts from the beginning
                readers.update({peer: page.end for peer, at in readers.items() if at == offset})
            return False
        data = {"text": page.text, "offset": page.offset, "end": page.end, "start": page.start}
        frame = text_frame(message("output", self._feed.utc(), task_id=task_id, data=data))
        for peer in [peer for peer, at in readers.items() if at == offset and peer.outbox.is_live]:
            readers[peer] = page.end
            peer.push(frame)
        return True

    def _has_laggards(self, task_id: TaskId) -> bool:
        return any(not peer.outbox.is_live for peer in self._readers.get(task_id, {}))
