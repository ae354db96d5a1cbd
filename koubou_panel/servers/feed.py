"""What a process tells all its WebSocket connections: one subscription to the shop, one encoding for all.

Facts and samples that come together go out in one write a connection. Of very many only the first go out at once;
the rest follows as to a reader that lags. Each time is followed by a rest `REST` times as long, so that the loop is
never more than a fifth of its time here.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import NamedTuple

from koubou_panel.core.events import MetricsSampled, OutputGrew, Sample, TaskProgressed, TasksSampled
from koubou_panel.core.ports import Shop
from koubou_panel.core.records import Channel, Role, Task, TaskId
from koubou_panel.core.state import Folded, State
from koubou_panel.servers.access import Allow
from koubou_panel.servers.frames import text_frame
from koubou_panel.servers.outbox import Outbox, Port
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
from koubou_panel.wire.replies import CLOSE_UNAUTHORIZED
from koubou_panel.wire.ring import Place, Ring
from koubou_panel.wire.session import Limits, fact_channels

log = logging.getLogger(__name__)

STATS_EVERY_S = 5.0
TICK_S = 0.01
TICK_AT_MOST_S = 0.005
CHUNKS_AT_ONCE = 2
REST = 4.0
STATE_GOOD_FOR_S = 0.1


class Told(NamedTuple):
    """A sample as it goes out: its channel, what it replaces, its frame."""

    channel: Channel
    key: tuple[str, str]
    frame: bytes


class Batch(NamedTuple):
    """Frames for many readers: pieces with the place after each, and whether they are all that is new."""

    pieces: list[tuple[bytes, Place]]
    place: Place
    is_whole: bool


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
        self._sent: Place = {}
        self._samples: dict[tuple[type[Sample], str], Sample] = {}
        self._flusher: asyncio.Handle | None = None
        self._rest_until = 0.0
        self._congested: dict[Outbox, None] = {}
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
        verify: Callable[[str], Allow | None],
        by: str,
        close: Callable[[int, str], None],
        channels: frozenset[Channel] = frozenset(),
        limits: Limits | None = None,
    ) -> Peer:
        """Take in a connection; `leave` when it is gone.

        Args:
            port: its transport.
            role: what it may do; None if it has still to show a token.
            verify: gives what a token allows, and to whom, or None.
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
        self._congested.pop(peer.outbox, None)
        self.tails.drop(peer)
        peer.leave()

    def dismiss(self, code: int = CLOSE_UNAUTHORIZED, reason: str = "the token was changed") -> None:
        """End every connection, as when what let them in no longer does."""
        for peer in tuple(self._peers):
            peer.dismiss(code, reason)

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
        self._congested[outbox] = None
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
        self._samples.clear()
        self._state_message = None
        is_new = self.ring.reset(state.epoch, state.seq)
        self._sent = dict(self.ring.head)
        if is_new:
            for peer in self._peers:
                if peer.is_open:
                    peer.outbox.restart()

    def on_facts(self, folded: Sequence[Folded]) -> None:
        """Send these facts to who follows their channels, soon."""
        self._state_message = None
        for item in folded:
            self.ring.add(item)
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
            elif type(sample) is TasksSampled:
                for use in sample.uses if self._peers else ():
                    self._samples[TasksSampled, use[0]] = TasksSampled(sample.at, [use])
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
        samples, self._samples = self._samples, {}
        if not self._peers or not (samples or self._sent != self.ring.head):
            self._sent = dict(self.ring.head)
            return
        began = self._loop.time()
        told = self._told(samples)
        batches: dict[frozenset[Channel], Batch] = {}
        for peer in self._peers:
            if peer.is_open:
                channels = peer.session.channels
                if channels not in batches:
                    batches[channels] = self._batch(told, channels)
                self._tell(peer.outbox, batches[channels], told, channels)
        self._sent = dict(self.ring.head)
        ended = self._loop.time()
        self._rest_until = ended + (ended - began) * REST

    def _flush_soon(self) -> None:
        if self._flusher is not None:
            return
        if not self._peers:
            self._sent = dict(self.ring.head)
            self._samples.clear()
        elif self._rest_until <= self._loop.time():
            self._flusher = self._loop.call_soon(self.flush)
        else:
            self._flusher = self._loop.call_at(self._rest_until, self.flush)

    def _told(self, samples: Mapping[tuple[type[Sample], str], Sample]) -> list[Told]:
        told: list[Told] = []
        for (kind, task_id), sample in samples.items():
            if kind is not MetricsSampled:
                task = self.state.tasks.get(TaskId(task_id))
                if task is None or task.status != "in_progress":
                    continue
            made = message_of_sample(sample, self.state)
            if made is not None:
                channel, key, body = made
                told.append(Told(channel, (type(sample).__name__, key), text_frame(body)))
        return told

    def _batch(self, told: list[Told], channels: frozenset[Channel]) -> Batch:
        """The frames for all who follow these channels and have everything but what is new."""
        place = {channel: self._sent[channel] for channel in fact_channels(channels)}
        samples = b"".join(sample.frame for sample in told if sample.channel in channels)
        pieces: list[tuple[bytes, Place]] = []
        is_whole = self.ring.holds(place)
        while is_whole:
            chunk = self.ring.chunk(place)
            if not chunk.has_more:
                pieces.append((chunk.messages + samples, self.ring.head))
                break
            place = chunk.place
            pieces.append((chunk.messages, self.ring.head | place))
            is_whole = len(pieces) < CHUNKS_AT_ONCE
        return Batch(pieces, self.ring.head | place, is_whole=is_whole)

    def _tell(self, outbox: Outbox, batch: Batch, told: list[Told], channels: frozenset[Channel]) -> None:
        for frames, place in batch.pieces if outbox.is_live else ():
            if frames:
                outbox.broadcast(frames, place)
            if not outbox.is_live:
                break
        if outbox.is_live and not batch.is_whole:
            outbox.fall_behind(batch.place)
        if not outbox.is_live:
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
        """Let those that lag catch up, each in its turn, for a few milliseconds."""
        self._ticker = None
        self.flush()
        began = now = self._loop.time()
        for outbox in tuple(self._congested):
            if outbox not in self._congested:
                continue
            del self._congested[outbox]
            if outbox.tick(now):
                self._congested[outbox] = None
            now = self._loop.time()
            if now - began > TICK_AT_MOST_S:
                break
        if self._congested and self._ticker is None:
            self._ticker = self._loop.call_later(max(TICK_S, (now - began) * REST), self._tick)
