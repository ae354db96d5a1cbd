"""What a process tells all its WebSocket connections: one subscription to the shop, one encoding for all.

Facts and samples that come together go out in one write a connection. When that takes long (many connections,
many facts), the next time waits a little longer: never more than a fifth of the loop is spent on it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from koubou_panel.core.events import MetricsSampled, OutputGrew, Sample, TaskProgressed
from koubou_panel.core.fold import Folded, State
from koubou_panel.core.ports import Shop
from koubou_panel.core.records import Channel, Role, Task, TaskId
from koubou_panel.servers.frames import text_frame
from koubou_panel.servers.outbox import CHUNK_BYTES, Outbox, Port
from koubou_panel.servers.peer import Peer
from koubou_panel.servers.tails import Tails
from koubou_panel.wire.messages import (
    MessageId,
    initial_state,
    message,
    message_of,
    message_of_sample,
    stats_data,
)
from koubou_panel.wire.ring import Entry, Place, Ring
from koubou_panel.wire.session import Limits

log = logging.getLogger(__name__)

STATS_EVERY_S = 5.0
TICK_S = 0.01
SHARE_OF_LOOP = 0.2
LONGEST_PAUSE_S = 0.1
STATE_GOOD_FOR_S = 0.1


class Told(NamedTuple):
    """A sample as it goes out: its channel, what it replaces, its frame."""

    channel: Channel
    key: tuple[str, str]
    frame: bytes


class Feed:
    """Everything the connections of this process share. Loop thread only; one a process."""

    def __init__(
        self, shop: Shop, *, clock: Callable[[], float] = time.time, stats_every_s: float = STATS_EVERY_S
    ) -> None:
        """Follow `shop` from now on, until `close`; `clock` gives UTC seconds."""
        self.shop = shop
        self._stats_every_s = stats_every_s
        self.ring = Ring(lambda folded: text_frame(message_of(folded)[1]))
        self.tails = Tails(self)
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._peers: dict[Peer, None] = {}
        self._pending: list[Entry] = []
        self._samples: dict[tuple[type[Sample], str], Sample] = {}
        self._flusher: asyncio.Handle | None = None
        self._rest_until = 0.0
        self._congested: set[Outbox] = set()
        self._ticker: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._state_message: tuple[float, bytes] | None = None
        self._stats_timer = self._loop.call_later(stats_every_s, self._tell_stats)
        self._unsubscribe = shop.subscribe(self)

    # -- connections ------------------------------------------------------------------------------------------

    def join(
        self,
        port: Port,
        *,
        role: Role | None,
        verify: Callable[[str], Role | None],
        by: str,
        close: Callable[[int, str], None],
        channels: frozenset[Channel] = frozenset(),
        limits: Limits | None = None,
    ) -> Peer:
        """Take in a connection; `leave` when it is gone.

        Args:
            port: its transport.
            role: what it may do; None if it has still to show a token.
            verify: gives the role of a token, or None.
            by: who it is, for the records of what it asks.
            close: begins to close it, with a code and a reason.
            channels: what it follows from the start.
            limits: other than the protocol's own.

        """
        peer = Peer(
            self,
            port,
            role=role,
            verify=verify,
            by=by,
            close=close,
            channels=channels,
            limits=limits or Limits(),
        )
        self._peers[peer] = None
        peer.open()
        return peer

    def leave(self, peer: Peer) -> None:
        """Forget a connection."""
        self._peers.pop(peer, None)
        self._congested.discard(peer.outbox)
        self.tails.drop(peer)
        peer.leave()

    async def close(self) -> None:
        """Follow the shop no more; what was asked of it is answered first, for a moment."""
        self._unsubscribe()
        for handle in (self._flusher, self._ticker, self._stats_timer):
            if handle is not None:
                handle.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=1.0)
        for task in self._tasks:
            task.cancel()

    def spawn(self, work: Coroutine[None, None, None]) -> None:
        """Run `work` beside everything else, to its end."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def watch(self, outbox: Outbox) -> None:
        """Tick `outbox` until all is well with it."""
        self._congested.add(outbox)
        if self._ticker is None:
            self._ticker = self._loop.call_later(TICK_S, self._tick)

    # -- what a session may see -------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """The shop's state."""
        return self.shop.state

    @property
    def head(self) -> Mapping[Channel, int]:
        """The last `seq` of each channel that went out."""
        return self.ring.head

    def holds(self, epoch: str, place: Mapping[Channel, int]) -> bool:
        """Whether every fact after `place` is still held."""
        return epoch == self.ring.epoch and self.ring.holds(place)

    def initial_state(self, id: MessageId | None = None) -> bytes:
        """The `initial_state` message of this moment; the same one for all who ask at once."""
        now = self._loop.time()
        if id is not None:
            return initial_state(self.state, self.ring.head, self.utc(), id=id)
        if self._state_message is None or now - self._state_message[0] > STATE_GOOD_FOR_S:
            self._state_message = (now, initial_state(self.state, self.ring.head, self.utc()))
        return self._state_message[1]

    def connections(self) -> int:
        """How many are connected and have shown who they are."""
        return sum(peer.is_open for peer in self._peers)

    def utc(self) -> float:
        """UTC seconds."""
        return self._clock()

    def next_id(self) -> TaskId:
        """A new task's id."""
        return self.shop.next_id()

    # -- what the shop tells ----------------------------------------------------------------------------------

    def on_reset(self, state: State) -> None:
        """Begin anew from `state`: everyone gets a fresh `initial_state`."""
        self._pending.clear()
        self._samples.clear()
        self._state_message = None
        if self.ring.reset(state.epoch, state.seq):
            for peer in self._peers:
                if peer.is_open:
                    peer.outbox.restart()

    def on_facts(self, folded: Sequence[Folded]) -> None:
        """Send these facts to who follows their channels, soon."""
        self._state_message = None
        add, pending = self.ring.add, self._pending
        for item in folded:
            entry = add(item)
            if entry is not None:
                pending.append(entry)
            if len(self.tails) and type(item.record) is Task and item.record.is_finished:
                self.tails.grew(item.record.task_id)
        self._flush_soon()

    def on_samples(self, samples: Sequence[Sample]) -> None:
        """Send these samples, the last of each kind and task, soon."""
        for sample in samples:
            if type(sample) is OutputGrew:
                self.tails.grew(sample.task_id)
            elif type(sample) is TaskProgressed:
                self._samples[TaskProgressed, sample.task_id] = sample
            elif type(sample) is MetricsSampled:
                self._state_message = None
                self._samples[MetricsSampled, ""] = sample
        if self._samples:
            self._flush_soon()

    # -- out --------------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Send now what was to be sent soon."""
        if self._flusher is not None:
            self._flusher.cancel()
            self._flusher = None
        entries, self._pending = self._pending, []
        samples, self._samples = self._samples, {}
        if not self._peers or not (entries or samples):
            return
        began = self._loop.time()
        told = self._told(samples)
        batches: dict[frozenset[Channel], list[tuple[bytes, Place]]] = {}
        for peer in self._peers:
            if peer.is_open:
                channels = peer.session.channels
                if channels not in batches:
                    batches[channels] = self._batch(entries, told, channels)
                self._tell(peer.outbox, batches[channels], told, channels)
        ended = self._loop.time()
        self._rest_until = ended + min(LONGEST_PAUSE_S, (ended - began) * (1 / SHARE_OF_LOOP - 1))

    def _flush_soon(self) -> None:
        if self._flusher is not None:
            return
        if not self._peers:
            self._pending.clear()
            self._samples.clear()
        elif self._rest_until <= self._loop.time():
            self._flusher = self._loop.call_soon(self.flush)
        else:
            self._flusher = self._loop.call_at(self._rest_until, self.flush)

    def _told(self, samples: Mapping[tuple[type[Sample], str], Sample]) -> list[Told]:
        told: list[Told] = []
        for sample in samples.values():
            if type(sample) is TaskProgressed:
                task = self.state.tasks.get(sample.task_id)
                if task is None or task.status != "in_progress":
                    continue
            made = message_of_sample(sample, self.state)
            if made is not None:
                channel, key, body = made
                told.append(Told(channel, (type(sample).__name__, key), text_frame(body)))
        return told

    def _batch(
        self, entries: list[Entry], told: list[Told], channels: frozenset[Channel]
    ) -> list[tuple[bytes, Place]]:
        """The frames for all who follow these channels, in pieces of some size, and the place after each."""
        batch: list[tuple[bytes, Place]] = []
        # The place before the first entry: what a reader that falls behind within this batch has of all channels.
        place: Place = dict(self.ring.head)
        for entry in reversed(entries):
            place[entry.channel] = entry.seq - 1
        parts: list[bytes] = []
        size = 0
        for entry in entries:
            place[entry.channel] = entry.seq
            if entry.channel in channels:
                frame = self.ring.message(entry)
                parts.append(frame)
                size += len(frame)
                if size >= CHUNK_BYTES:
                    batch.append((b"".join(parts), dict(place)))
                    parts, size = [], 0
        parts += [sample.frame for sample in told if sample.channel in channels]
        if parts:
            batch.append((b"".join(parts), place))
        return batch

    def _tell(
        self,
        outbox: Outbox,
        batch: list[tuple[bytes, Place]],
        told: list[Told],
        channels: frozenset[Channel],
    ) -> None:
        for frames, place in batch:
            if not outbox.is_live:
                break
            outbox.broadcast(frames, place)
        else:
            return
        for sample in told:
            if sample.channel in channels:
                outbox.offer(sample.key, sample.frame)

    def _tell_stats(self) -> None:
        self._stats_timer = self._loop.call_later(self._stats_every_s, self._tell_stats)
        if not self._peers:
            return
        self.flush()
        data = stats_data(self.state, self.connections())
        frame = text_frame(message("periodic_stats", self.utc(), data=data))
        for peer in self._peers:
            if peer.is_open and peer.outbox.is_live:
                peer.outbox.send(frame)
            elif peer.is_open:
                peer.outbox.offer(("periodic_stats", ""), frame)

    def _tick(self) -> None:
        self._ticker = None
        self.flush()
        now = self._loop.time()
        for outbox in tuple(self._congested):
            with suppress(KeyError):
                if not outbox.tick(now):
                    self._congested.remove(outbox)
        if self._congested and self._ticker is None:
            self._ticker = self._loop.call_later(TICK_S, self._tick)
