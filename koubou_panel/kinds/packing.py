"""Calls, results and errors of kind `function` as bytes, and what a caller is given of those that come back.

What is large of them is in files (`kinds/crossing.py`).
"""

from __future__ import annotations

import copyreg
import io
import pickle
import reprlib
from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from types import CodeType
from typing import Any

import msgspec

from koubou_panel.core.quantity import size_text
from koubou_panel.errors import Refused
from koubou_panel.kinds import source
from koubou_panel.kinds.crossing import (
    Aside,
    Packed,
    Stream,
    as_value,
    aside_to,
    from_value,
    in_files,
    put_down,
)
from koubou_panel.kinds.spill import LARGE_BYTES, Gone, NotStored, Piece, Place, Spill, spilling
from koubou_panel.kinds.warm import is_importable

SHORT = 200
MOST_ERROR_BYTES = 16 << 20
NO_RESULT = pickle.dumps((True, None), protocol=5)
INSTALLED = ""
NO_ARGUMENTS = pickle.dumps(((), {}), protocol=5)


class Call(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A payload, taken apart.

    `path` has the folders beyond Python's own from which the caller imports, in their order. `INSTALLED` stands between
    those before and those after where its packages are installed; without it all come after. `folder` is where the
    caller was, empty where it was nowhere.
    """

    function: bytes | Piece
    arguments: bytes | Packed
    path: list[str]
    folder: str = ""


class ForeignFuture(TypeError):
    """A future stands among the arguments that no worker can put a value in for."""


Reducers = Mapping[type, Callable[[Any], tuple[Callable[..., object], tuple[object, ...]]]]

_ENCODER = msgspec.msgpack.Encoder()
_CACHED = type(lru_cache(len))
_PLAIN = frozenset((int, float, complex, str, bytes, bool, type(None)))


def pack(function: bytes | Piece, arguments: bytes | Packed, path: list[str], folder: str = "") -> bytes:
    """The payload of a call."""
    return _ENCODER.encode(Call(function, arguments, path, folder))


def pickled_function(function: Callable[..., object], reducers: Reducers | None = None) -> bytes:
    """`function` as bytes: by reference where a worker can import it, else by value; `reducers` as for arguments.

    Raises:
        Refused: code `invalid`: it cannot be pickled, and why.
        ForeignFuture: as a reducer raised it.
    """
    try:
        if getattr(function, "__module__", None) != "__main__":
            blob = pickle.dumps(function, protocol=5)
            if b"__main__" not in blob:  # as in a partial's function
                return blob
    except Exception:  # noqa: BLE001, S110 - whatever plain pickle cannot do, cloudpickle tries next
        pass
    return _by_value(function, "the function", reducers)


def plain_arguments(args: tuple[object, ...], kwargs: dict[str, object]) -> bytes | None:
    """Arguments that are numbers and texts alone, as bytes, in a fraction of the time; None: there are others."""
    if not args and not kwargs:
        return NO_ARGUMENTS
    is_plain = _PLAIN.issuperset(map(type, args)) and _PLAIN.issuperset(map(type, kwargs.values()))
    return pickle.dumps((args, kwargs), protocol=5) if is_plain else None


def pickled_arguments(
    args: tuple[object, ...], kwargs: dict[str, object], reducers: Reducers | None = None
) -> bytes:
    """Arguments as bytes, however large; `reducers` say how objects of some types are put down, wherever they stand.

    Raises:
        Refused: code `invalid`: they cannot be pickled, and why.
        ForeignFuture: as a reducer raised it.
    """
    plain = plain_arguments(args, kwargs)
    if plain is not None:
        return plain
    reducers = reducers or {}
    buffer = io.BytesIO()
    try:
        plain_pickler(buffer, reducers).dump((args, kwargs))
    except ForeignFuture:
        raise
    except Exception:  # noqa: BLE001 - whatever plain pickle cannot do, cloudpickle tries next
        return _by_value((args, kwargs), "an argument", reducers)
    blob = buffer.getvalue()
    return _by_value((args, kwargs), "an argument", reducers) if b"__main__" in blob else blob


def plain_pickler(file: Any, reducers: Reducers, aside: Aside | None = None) -> pickle.Pickler:
    """The interpreter's own pickler, which cannot do what is in `__main__`."""
    pickler = pickle.Pickler(file, protocol=5, buffer_callback=aside)
    pickler.dispatch_table = {**copyreg.dispatch_table, **reducers}
    return pickler


def cloud_pickler(file: Any, reducers: Reducers, aside: Aside | None = None) -> pickle.Pickler:
    """One that puts down functions and classes by value."""
    import cloudpickle

    known = cloudpickle.Pickler.dispatch_table
    own = {_CACHED: _reduced_cached, CodeType: source.reducer(known[CodeType])}
    table = ChainMap({**reducers, **own}, known)
    pickler_type = type("Pickler", (cloudpickle.Pickler,), {"dispatch_table": table})
    pickler: pickle.Pickler = pickler_type(file, protocol=5, buffer_callback=aside)
    return pickler


def _lru_cached(function: Callable[..., object], parameters: dict[str, Any]) -> Callable[..., object]:
    cached: Callable[..., object] = lru_cache(**parameters)(function)
    return cached


def _reduced_cached(cached: Any) -> str | tuple[Callable[..., object], tuple[object, ...]]:
    """A function with a cache: by name where it has one that a worker knows, else anew, and empty."""
    if cached.__module__ != "__main__" and is_importable(cached):
        return str(cached.__qualname__)
    return _lru_cached, (cached.__wrapped__, cached.cache_parameters())


def _by_value(thing: object, what: str, reducers: Reducers | None = None) -> bytes:
    buffer = io.BytesIO()
    with refused_pickling(what):
        cloud_pickler(buffer, reducers or {}).dump(thing)
    return buffer.getvalue()


@contextmanager
def refused_pickling(what: str) -> Iterator[None]:
    """Within it something is pickled; what keeps it from that is a refusal."""
    try:
        yield
    except (ForeignFuture, NotStored):
        raise
    except Exception as error:
        raise Refused(
            "invalid",
            f"{what} cannot be pickled ({safe_str(error)}); pass what it needs as plain data and open "
            "files, locks and connections inside the function",
            field="function",
        ) from error


def unpack_value(value: bytes, folder: Path | None = None, task_id: str = "") -> object:
    """The result of a run.

    Args:
        value: as it was stored.
        folder, task_id: where the files of large values are, and of which task this is the result.

    Raises:
        Refused: `not_found`: it is large, and its files are not there any more.
        BaseException: what the function raised, with the remote traceback as its cause.
    """
    try:
        opened_value: Any = from_value(value, folder, task_id)
    except Gone as gone:
        cure = "`koubou retry` runs it again while its arguments are kept"
        words = f"the result of task {task_id} is not kept any more: {gone}; {cure}"
        raise Refused("not_found", words) from None
    succeeded, content = opened_value
    if succeeded:
        return content
    error, text = content
    error.__cause__ = RemoteTraceback(text)
    raise error


class RemoteTraceback(Exception):
    """The traceback of the worker, as text, to be shown above the caller's own."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.tb = text  # as the standard library's pool calls it

    def __str__(self) -> str:
        return f'\n"""\n{self.tb}"""'


def packed_result(result: object, place: Callable[[], Place]) -> bytes:
    """What is stored as the result; large ones are in files at `place`, on the disk, when this returns.

    Raises:
        NotStored: there is no room for them.
        BaseException: whatever its pickling raises.
    """
    views: list[memoryview] = []
    blob = b""
    with suppress(Exception):  # whatever plain pickle cannot do, cloudpickle tries next
        blob = pickle.dumps((True, result), protocol=5, buffer_callback=aside_to(views))
    if blob and not views and len(blob) < LARGE_BYTES:
        return blob
    spill = Spill(place())
    with spilling(spill):
        if blob:
            return as_value(in_files(blob, views, spill))
        return as_value(put_down((True, result), spill, _by_value_pickler))


def _by_value_pickler(stream: Stream, aside: Aside) -> pickle.Pickler:
    return cloud_pickler(stream, {}, aside)


def safe_str(error: BaseException) -> str:
    """What an error says; never raises."""
    try:
        return encodable(str(error))
    except Exception as worse:  # noqa: BLE001 - the user's __str__ may raise anything
        return f"<no text: its __str__ raised {type(worse).__name__}>"


def pickled_error(error: BaseException, text: str, message: str, reason: str) -> bytes:
    """The exception itself where it survives a round trip, else one that says what it was."""
    why = ""
    for dumps in (_plain_dumps, _cloud_dumps):  # the second also holds exceptions that a notebook defines
        try:
            blob = dumps((False, (error, text)))
            if len(blob) > MOST_ERROR_BYTES:
                why = f"the exception itself, {size_text(len(blob))}, is too large to be brought here"
                break
            pickle.loads(blob)  # noqa: S301 - our own bytes
        except Exception as worse:  # noqa: BLE001 - the user's __reduce__ may raise anything
            why = (
                f"the exception itself cannot be brought here: pickle cannot rebuild a {type(error).__name__} "
                f"({safe_str(worse)[:SHORT]}); hand all arguments to super().__init__(), or define __reduce__"
            )
            continue
        return blob
    from koubou_panel.errors import TaskFailure

    name = type(error).__name__
    failure = TaskFailure(f"{message} ({why})", reason=reason, error_type=name, traceback=text)
    return pickle.dumps((False, (failure, text)), protocol=5)


def _plain_dumps(value: object) -> bytes:
    return pickle.dumps(value, protocol=5)


def _cloud_dumps(value: object) -> bytes:
    import cloudpickle

    return bytes(cloudpickle.dumps(value, protocol=5))


def encodable(text: str) -> str:
    """`text` with what UTF-8 cannot say (lone surrogates) spelt out."""
    return text.encode("utf-8", "backslashreplace").decode()


def short_repr(value: object) -> str:
    """At most 200 characters that tell what a value is; never raises."""
    kind = type(value)
    try:
        if kind is int or kind is float or kind is bool:
            return repr(value)[:SHORT]
        return encodable(reprlib.repr(value)[:SHORT])
    except Exception:  # noqa: BLE001 - the user's __repr__ may raise anything, and that of a very large int does
        return f"<{kind.__name__}>"
