"""The facts of this epoch that are still held, so that a reader who was cut off or fell behind can go on.

One ring serves every reader: a slow one needs no queue of its own, only its place. Facts are kept as they were
folded and encoded when somebody first needs them; without their opaque bytes (pickled calls and results) and
their specs, which no message has.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from koubou_panel.core.codec import without_bytes
from koubou_panel.core.events import TaskCompleted, TaskFailed, TaskSubmitted
from koubou_panel.core.records import FACT_CHANNELS, Channel, Task
from koubou_panel.core.state import Folded

MAX_FACTS = 20_000
MAX_BYTES = 16 * 1024 * 1024
CHUNK_BYTES = 64 * 1024
CHUNKS_KEPT = 32
_TYPICAL_BYTES = 800
_FEW_BYTES = 512  # so many opaque bytes are cheaper kept, and counted, than taken out

Place = dict[Channel, int]


class Entry(Struct, gc=False):
    """A fact in the ring: its place among all (`number`) and in its channel (`seq`), raw or encoded."""

    number: int
    channel: Channel
    seq: int
    folded: Folded | None
    size: int
    encoded: bytes = b""


class Chunk(NamedTuple):
    """Messages in a row: joined, the place after them, and whether there are more."""

    messages: bytes
    place: Place
    has_more: bool


class Ring:
    """The last facts of each channel, bounded in number and (roughly) in bytes. `encode` makes the message."""

    def __init__(
        self, encode: Callable[[Folded], bytes], *, facts: int = MAX_FACTS, size_bytes: int = MAX_BYTES
    ) -> None:
        """An empty ring of no epoch, with at most `facts` and `size_bytes` a channel."""
        self.epoch = ""
        self.head: Place = dict.fromkeys(FACT_CHANNELS, 0)
        self._encode = encode
        self._facts = facts
        self._size_bytes = size_bytes
        self._lanes: dict[Channel, deque[Entry]] = {channel: deque() for channel in FACT_CHANNELS}
        self._sizes: Place = dict.fromkeys(FACT_CHANNELS, 0)
        self._number = 0
        self._chunks: dict[tuple[tuple[Channel, int], ...], Chunk] = {}

    def reset(self, epoch: str, seq: Mapping[Channel, int]) -> bool:
        """Begin at `seq` of `epoch`; False (and nothing forgotten) if the ring is there already."""
        if epoch == self.epoch and all(self.head[channel] == seq.get(channel, 0) for channel in self.head):
            return False
        self.epoch = epoch
        self._chunks.clear()
        for channel, lane in self._lanes.items():
            lane.clear()
            self._sizes[channel] = 0
            self.head[channel] = seq.get(channel, 0)
        return True

    def add(self, folded: Folded) -> Entry | None:
        """Take in the next fact of its channel; None if it is one that `reset` already stood after."""
        channel = folded.fact.channel
        if folded.seq <= self.head[channel]:
            return None
        lane = self._lanes[channel]
        if folded.seq != self.head[channel] + 1:  # a hole: what is before it can no longer be told in full
            lane.clear()
            self._sizes[channel] = 0
        self._number += 1
        opaque = _opaque_bytes(folded)
        if opaque > _FEW_BYTES or (type(folded.record) is Task and folded.record.request.spec):
            folded, opaque = _for_messages(folded), 0
        entry = Entry(self._number, channel, folded.seq, folded, _estimate(folded) + opaque)
        lane.append(entry)
        self.head[channel] = folded.seq
        self._sizes[channel] += entry.size
        while len(lane) > self._facts or (self._sizes[channel] > self._size_bytes and len(lane) > 1):
            self._sizes[channel] -= lane.popleft().size
        return entry

    def message(self, entry: Entry) -> bytes:
        """The entry's message, encoded at most once."""
        if entry.folded is not None:
            entry.encoded = self._encode(entry.folded)
            entry.folded = None
        return entry.encoded

    def holds(self, place: Mapping[Channel, int]) -> bool:
        """Whether every fact after `place` is still held (and `place` is not beyond the end)."""
        return all(
            self._first(channel) <= seq + 1 <= self.head[channel] + 1 for channel, seq in place.items()
        )

    def after(self, place: Mapping[Channel, int]) -> Entry | None:
        """The oldest fact after `place` in its channels; None at the end. Ask `holds` first."""
        found: Entry | None = None
        for channel, seq in place.items():
            if seq >= self.head[channel]:
                continue
            entry = self._lanes[channel][seq + 1 - self._first(channel)]
            if found is None or entry.number < found.number:
                found = entry
        return found

    def chunk(self, place: Mapping[Channel, int]) -> Chunk:
        """The messages after `place` in its channels, about `CHUNK_BYTES` of them. Ask `holds` first.

        Readers that fell behind together stand at the same places: what one was given the next gets, too.
        """
        key = tuple(place.items())
        kept = self._chunks.get(key)
        if kept is not None:
            return kept
        reached = dict(place)
        parts: list[bytes] = []
        size = 0
        while size < CHUNK_BYTES and (entry := self.after(reached)) is not None:
            reached[entry.channel] = entry.seq
            parts.append(self.message(entry))
            size += len(parts[-1])
        made = Chunk(b"".join(parts), reached, has_more=size >= CHUNK_BYTES)
        if made.has_more:
            self._chunks[key] = made
            if len(self._chunks) > CHUNKS_KEPT:
                del self._chunks[next(iter(self._chunks))]
        return made

    def _first(self, channel: Channel) -> int:
        lane = self._lanes[channel]
        return lane[0].seq if lane else self.head[channel] + 1


def _opaque_bytes(folded: Folded) -> int:
    """How many bytes the fact and its record hold that no message has."""
    fact, _, record = folded
    size = len(record.request.payload) if type(record) is Task else 0
    if type(fact) is TaskCompleted or type(fact) is TaskFailed:
        size += len(fact.value)
    return size


def _for_messages(folded: Folded) -> Folded:
    """`folded` without its opaque bytes and its spec, which may be as large as a client's message."""
    fact, seq, record = folded
    if type(record) is not Task:
        return folded
    request = replace(record.request, payload=b"", spec={})
    fact = replace(fact, request=request) if type(fact) is TaskSubmitted else without_bytes(fact)
    return Folded(fact, seq, replace(record, request=request))


def _estimate(folded: Folded) -> int:
    record = folded.record
    if type(record) is not Task:
        return _TYPICAL_BYTES
    size = _TYPICAL_BYTES + len(record.request.summary) + len(record.message)
    if record.result:
        size += len(record.result)
    if record.error is not None:
        size += len(record.error.traceback) + len(record.error.message)
    return size
