"""The caller's half of kind `function`: a call becomes a payload, what is large of it in files."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from koubou_panel.core.quantity import size_text
from koubou_panel.errors import Refused
from koubou_panel.kinds.crossing import Aside, Packed, aside_to, in_files, put_down
from koubou_panel.kinds.packing import (
    Call,
    ForeignFuture,
    Reducers,
    cloud_pickler,
    pack,
    plain_arguments,
    plain_pickler,
    refused_pickling,
)
from koubou_panel.kinds.spill import (
    LARGE_BYTES,
    Gone,
    Known,
    NotStored,
    Piece,
    Place,
    Spill,
    link_arguments,
    spilling,
)

_DECODER = msgspec.msgpack.Decoder(Call)


class Desk:
    """Where a caller packs its calls: what is large of them goes into files below `folder`. Any thread.

    Args:
        folder: the home's folder of large values.
        path: the caller's import path.
        here: tells where the caller is.
    """

    def __init__(self, folder: Path, path: list[str], here: Callable[[], str] = str) -> None:
        """Nothing was packed yet."""
        self._folder = folder
        self._path = path
        self._here = here
        self._known = Known()

    def packed(
        self,
        task_id: str,
        function: bytes,
        args: tuple[object, ...],
        kwargs: dict[str, object],
        reducers: Callable[[], Reducers],
    ) -> bytes:
        """The payload of a call; large values are on the disk when this returns.

        Raises:
            Refused: `invalid`: an argument cannot be pickled, and why; `storage`: it cannot be stored.
            ForeignFuture: as a reducer raised it.
        """
        views: list[memoryview] = []
        blob = _plain(args, kwargs, reducers, views)
        if blob is not None and not views and len(blob) < LARGE_BYTES and len(function) < LARGE_BYTES:
            return pack(function, blob, self._path, self._here())
        spill = Spill(Place(self._folder, task_id, "a"), self._known)
        with _refusing(spill, "the arguments"):
            if blob is None:
                arguments = _put_down_by_value(args, kwargs, reducers(), spill)
            else:
                arguments = in_files(blob, views, spill)
        try:
            called = function if len(function) < LARGE_BYTES else self._kept_function(function, task_id)
        except BaseException:
            spill.drop()
            raise
        return pack(called, arguments, self._path, self._here())

    def _kept_function(self, function: bytes, task_id: str) -> Piece:
        spill = Spill(Place(self._folder, task_id, "f"), self._known)
        with _refusing(spill, f"the function ({size_text(len(function))})"):
            return spill.add(memoryview(function))


def hand_on(payload: bytes, folder: Path, task_id: str, new_id: str) -> None:
    """Have what is large of a task's function and arguments also be another task's. Blocks.

    Raises:
        Gone: some of it is not there any more, for either of them.
        OSError: it cannot be done.
    """
    for end in _ends(payload):
        if not any((folder / f"{each}.{end}").exists() for each in (task_id, new_id)):
            raise Gone(f"{folder / task_id}.{end} is not there any more")
    link_arguments(folder, task_id, new_id)


def _ends(payload: bytes) -> set[str]:
    """How the names of the files end that belong to a payload."""
    try:
        call = _DECODER.decode(payload)
    except msgspec.DecodeError:  # then its run says what is wrong
        return set()
    parts: list[tuple[str, bytes | Piece]] = [("f", call.function)]
    if isinstance(call.arguments, Packed):
        stem = call.arguments.stem
        parts += [(stem, part) for part in (call.arguments.content, *call.arguments.buffers)]
    return {f"{stem}-{part.file}" for stem, part in parts if isinstance(part, Piece)}


@contextmanager
def _refusing(spill: Spill, what: str) -> Iterator[None]:
    """Within it something is put into files; what keeps it from there is a refusal."""
    try:
        with spilling(spill):
            yield
    except NotStored as error:
        raise Refused("storage", f"{what} could not be stored: {error}", field="payload") from None


def _plain(
    args: tuple[object, ...],
    kwargs: dict[str, object],
    reducers: Callable[[], Reducers],
    views: list[memoryview],
) -> bytes | None:
    """Most arguments, as bytes, with large buffers in `views`; None: they cannot be pickled in this way."""
    plain = plain_arguments(args, kwargs)
    if plain is not None:
        return plain
    buffer = io.BytesIO()
    try:
        plain_pickler(buffer, reducers(), aside_to(views)).dump((args, kwargs))
    except ForeignFuture:
        raise
    except Exception:  # noqa: BLE001 - whatever plain pickle cannot do, cloudpickle tries next
        return None
    blob = buffer.getvalue()
    return None if b"__main__" in blob else blob


def _put_down_by_value(
    args: tuple[object, ...], kwargs: dict[str, object], reducers: Reducers, spill: Spill
) -> bytes | Packed:
    """What no name stands for goes along."""

    def by_value(stream: Any, aside: Aside) -> pickle.Pickler:
        return cloud_pickler(stream, reducers, aside)

    with refused_pickling("an argument"):
        return put_down((args, kwargs), spill, by_value)
