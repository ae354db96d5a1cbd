"""How values cross between processes: a pickle, its large buffers beside it in files.

Small ones are pickles as ever. Of large ones (LARGE_BYTES and more) the buffers, which pickle protocol 5 hands out, and
a pickle that is large in itself go into files (`kinds/spill.py`), and the record says where they are. Who opens them
maps the files: nothing is copied, and what is changed there is this process's alone.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import msgspec
from msgspec import Struct

from koubou_panel.core.quantity import size_text
from koubou_panel.kinds.spill import (
    LARGE_BYTES,
    OWN_FILE_BYTES,
    Gone,
    Growing,
    Piece,
    Place,
    Spill,
    cut,
    opened,
)

IN_BAND_BYTES = 4096
_PICKLE_BEGINS = b"\x80"  # whatever begins otherwise is a `Packed`, an array of MessagePack

Aside = Callable[[pickle.PickleBuffer], bool | None]


class Packed(Struct, frozen=True, array_like=True, gc=False):
    """A pickle that is large: `content` itself, its `buffers` in order, and (`stem`) of what its files are."""

    stem: str
    content: bytes | Piece
    buffers: list[bytes | Piece] = []

    @property
    def size_bytes(self) -> int:
        """How large it is in all."""
        parts = (self.content, *self.buffers)
        return sum(part.size if isinstance(part, Piece) else len(part) for part in parts)


class Stream:
    """What a pickler writes to: held, and from LARGE_BYTES on in a file."""

    def __init__(self, spill: Spill) -> None:
        """Nothing is written."""
        self._spill = spill
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._file: Growing | None = None

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Take in what comes next."""
        size = len(data)
        if self._file is not None:
            self._file.append(data)
            return size
        if self._held_bytes + size >= LARGE_BYTES:
            self._file = self._spill.new()
            for held in self._held:
                self._file.append(held)
            self._held.clear()
            self._file.append(data)
            return size
        self._held.append(bytes(data))
        self._held_bytes += size
        return size

    def content(self) -> bytes | Piece:
        """All that was written."""
        if self._file is not None:
            return Piece(self._file.number, 0, self._file.size)
        return b"".join(self._held)


class _Pickler(Protocol):
    def dump(self, thing: object, /) -> object:
        """Put down `thing`."""


MakePickler = Callable[[Stream, Aside], _Pickler]


def put_down(thing: object, spill: Spill, make: MakePickler) -> bytes | Packed:
    """`thing` as a pickle made by `make`, written as it is made."""
    stream = Stream(spill)
    views: list[memoryview] = []
    make(stream, aside_to(views)).dump(thing)
    content = stream.content()
    if not views and type(content) is bytes:
        return content
    return Packed(spill.place.stem, content, _placed(views, spill))


def aside_to(views: list[memoryview]) -> Aside:
    """What a pickler asks about each buffer: those that are worth it go to `views`, in order."""

    def aside(buffer: pickle.PickleBuffer) -> bool:
        try:
            view = buffer.raw()
        except BufferError:  # it is not in one piece
            return True
        if view.nbytes < IN_BAND_BYTES:
            return True
        views.append(view)
        return False

    return aside


def in_files(blob: bytes, views: list[memoryview], spill: Spill) -> bytes | Packed:
    """A pickle that was made with `aside_to(views)`: what is large of it in files."""
    is_large = len(blob) >= LARGE_BYTES
    if not is_large and not views:
        return blob
    content = spill.new().append(blob) if is_large else blob
    return Packed(spill.place.stem, content, _placed(views, spill))


def _placed(views: list[memoryview], spill: Spill) -> list[bytes | Piece]:
    """Very large buffers have a file each, so that each is known again; the others are together."""
    others = sum(view.nbytes for view in views if view.nbytes < OWN_FILE_BYTES)
    together = spill.new() if others >= LARGE_BYTES else None
    placed: list[bytes | Piece] = []
    for view in views:
        if view.nbytes >= OWN_FILE_BYTES:
            placed.append(spill.add(view))
        else:
            placed.append(bytes(view) if together is None else together.append(view, aligned=True))
    return placed


def take_up(packed: Packed, folder: Path, task_id: str) -> object:
    """What was put down for a task.

    Raises:
        Gone: files of it are missing.
    """
    place = Place(folder, task_id, packed.stem)
    maps: dict[int, memoryview] = {}

    def part_of(part: bytes | Piece) -> bytes | bytearray | memoryview:
        if not isinstance(part, Piece):
            return bytearray(part)  # as an array that was pickled whole, it can be written to
        if part.file not in maps:
            maps[part.file] = opened(place, part.file)
        return cut(maps[part.file], part, place)

    try:
        content = part_of(packed.content) if isinstance(packed.content, Piece) else packed.content
        buffers = [part_of(part) for part in packed.buffers]
    except Gone as gone:
        raise Gone(f"{gone} ({size_text(packed.size_bytes)})") from None
    return pickle.loads(content, buffers=buffers)  # noqa: S301 - of this user's own processes


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Packed)


def as_value(packed: bytes | Packed) -> bytes:
    """What is stored as a task's result."""
    return packed if isinstance(packed, bytes) else _ENCODER.encode(packed)


def from_value(value: bytes, folder: Path | None, task_id: str) -> object:
    """What `as_value` stands for.

    Raises:
        Gone: files of it are missing.
    """
    if value.startswith(_PICKLE_BEGINS):
        return pickle.loads(value)  # noqa: S301 - of this user's own processes
    packed = _DECODER.decode(value)
    if folder is None:
        raise Gone(f"its files cannot be found from here ({size_text(packed.size_bytes)})")
    return take_up(packed, folder, task_id)
