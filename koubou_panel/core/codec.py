"""Events and snapshots as bytes, for the archive's journal and the private link (MessagePack)."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec.structs import replace

from koubou_panel.core.events import Event, Fact, TaskCompleted, TaskFailed, TaskSubmitted
from koubou_panel.core.state import Snapshot

_ENCODER = msgspec.msgpack.Encoder()
_EVENTS = msgspec.msgpack.Decoder(list[Event])
_SNAPSHOT = msgspec.msgpack.Decoder(Snapshot)


def encode_events(events: Sequence[Event]) -> bytes:
    """`events` as one blob."""
    return _ENCODER.encode(list(events))


def decode_events(blob: bytes) -> list[Event]:
    """The events of a blob made by `encode_events`.

    Raises:
        msgspec.DecodeError: the blob is not one.
    """
    return _EVENTS.decode(blob)


def encode_snapshot(snapshot: Snapshot) -> bytes:
    """`snapshot` as a blob."""
    return _ENCODER.encode(snapshot)


def decode_snapshot(blob: bytes) -> Snapshot:
    """The snapshot of a blob made by `encode_snapshot`."""
    return _SNAPSHOT.decode(blob)


def without_bytes(fact: Fact) -> Fact:
    """`fact` without its opaque bytes: no replica and no journal needs them."""
    if type(fact) is TaskCompleted:
        return replace(fact, value=b"") if fact.value else fact
    if type(fact) is TaskSubmitted:
        return replace(fact, request=replace(fact.request, payload=b"")) if fact.request.payload else fact
    if type(fact) is TaskFailed:
        return replace(fact, value=b"") if fact.value else fact
    return fact
