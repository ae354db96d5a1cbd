"""Kind `function`: a Python callable with its arguments, pickled by the caller and opened by a worker alone.

A payload is three byte strings: the function, (args, kwargs), and the caller's import path. The function's part
is the same for all tasks of one `map`, so a worker keeps the last ones loaded.
"""

from __future__ import annotations

import copyreg
import importlib
import io
import os
import pickle
import reprlib
import sys
import traceback
from collections import ChainMap
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from time import perf_counter, process_time
from typing import Any

import msgspec

from koubou_panel.core.ports import Prepared, RunContext
from koubou_panel.core.quantity import size_text
from koubou_panel.core.records import Fault, Job, Outcome, TaskId, Usage
from koubou_panel.errors import Refused
from koubou_panel.kinds.limit import memory_limit

KEPT_FUNCTIONS = 64
SHORT = 200
MOST_BYTES = 200 << 20
PREPARED = Prepared({}, "function", "")
NO_USAGE = Usage()
NONE = pickle.dumps((True, None), protocol=5)


class Call(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A payload, taken apart."""

    function: bytes
    arguments: bytes
    path: list[str]


class ForeignFuture(TypeError):
    """A future stands among the arguments that no worker can put a value in for."""


Reducers = Mapping[type, Callable[[Any], tuple[Callable[..., object], tuple[object, ...]]]]

_RUN: ContextVar[RunContext] = ContextVar("run")
_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Call)
_NO_ARGUMENTS = pickle.dumps(((), {}), protocol=5)
_PLAIN = frozenset((int, float, complex, str, bytes, bool, type(None)))


def pack(function: bytes, arguments: bytes, path: list[str]) -> bytes:
    """The payload of a call."""
    return _ENCODER.encode(Call(function, arguments, path))


def pickled_function(function: Callable[..., object], reducers: Reducers | None = None) -> bytes:
    """`function` as bytes: by reference where a worker can import it, else by value; `reducers` as for arguments.

    Raises:
        Refused: code `invalid`: it cannot be pickled, and why.
        ForeignFuture: as a reducer raised it.
    """
    try:
        if getattr(function, "__module__", None) != "__main__":
            return pickle.dumps(function, protocol=5)
    except Exception:  # noqa: BLE001, S110 - whatever plain pickle cannot do, cloudpickle tries next
        pass
    return _by_value(function, "the function", reducers)


def plain_arguments(args: tuple[object, ...], kwargs: dict[str, object]) -> bytes | None:
    """Arguments that are numbers and texts alone, as bytes, in a fraction of the time; None: there are others."""
    if not args and not kwargs:
        return _NO_ARGUMENTS
    is_plain = _PLAIN.issuperset(map(type, args)) and _PLAIN.issuperset(map(type, kwargs.values()))
    return pickle.dumps((args, kwargs), protocol=5) if is_plain else None


def pickled_arguments(
    args: tuple[object, ...], kwargs: dict[str, object], reducers: Reducers | None = None
) -> bytes:
    """Arguments as bytes; `reducers` say how objects of some types are put down, wherever they stand.

    Raises:
        Refused: code `invalid`: they cannot be pickled, and why.
        ForeignFuture: as a reducer raised it.
    """
    plain = plain_arguments(args, kwargs)
    if plain is not None:
        return plain
    reducers = reducers or {}
    buffer = io.BytesIO()
    pickler = pickle.Pickler(buffer, protocol=5)
    pickler.dispatch_table = {**copyreg.dispatch_table, **reducers}
    try:
        pickler.dump((args, kwargs))
    except ForeignFuture:
        raise
    except Exception:  # noqa: BLE001 - whatever plain pickle cannot do, cloudpickle tries next
        return _by_value((args, kwargs), "an argument", reducers)
    blob = buffer.getvalue()
    return _by_value((args, kwargs), "an argument", reducers) if b"__main__" in blob else blob


def result_of(task_id: str) -> object:
    """What the task returned: stands in a pickle for its future. While a worker loads arguments."""
    value = _RUN.get().value_of(TaskId(task_id))
    return unpack_value(value) if value else None


def _by_value(thing: object, what: str, reducers: Reducers | None = None) -> bytes:
    import cloudpickle

    buffer = io.BytesIO()
    table = ChainMap(dict(reducers or {}), cloudpickle.Pickler.dispatch_table)
    pickler_type = type("Pickler", (cloudpickle.Pickler,), {"dispatch_table": table})
    try:
        pickler_type(buffer, protocol=5).dump(thing)
        return buffer.getvalue()
    except ForeignFuture:
        raise
    except Exception as error:
        raise Refused(
            "invalid",
            f"{what} cannot be pickled ({_safe_str(error)}); pass what it needs as plain data and open "
            "files, locks and connections inside the function",
            field="function",
        ) from error


def unpack_value(value: bytes) -> object:
    """The result of a run.

    Raises:
        BaseException: what the function raised, with the remote traceback as its cause.
    """
    succeeded, content = pickle.loads(value)  # noqa: S301 - only the submitter opens what its own worker made
    if succeeded:
        return content
    error, text = content
    error.__cause__ = RemoteTraceback(text)
    raise error


class RemoteTraceback(Exception):
    """The traceback of the worker, as text, to be shown above the caller's own."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


class FunctionKind:
    """A callable in a warm interpreter."""

    name = "function"
    from_network = False
    batches = True
    shares_worker = True

    def __init__(self) -> None:
        """With nothing loaded."""
        self._loaded: dict[bytes, Callable[..., object]] = {}
        self._base = list(sys.path)
        self._path: list[str] = []

    def prepare(self, spec: Mapping[str, object], payload: bytes) -> Prepared:
        """The payload stays closed; its name comes with the request."""
        if not payload:
            raise Refused("invalid", "a function comes from Python: use Workshop.submit", field="payload")
        if len(payload) > MOST_BYTES:
            raise Refused(
                "invalid",
                f"the arguments are {len(payload) >> 20} MB, more than {MOST_BYTES >> 20}; write them to a file "
                "and pass its name",
                field="payload",
            )
        return PREPARED if not spec else Prepared(dict(spec), "function", "")

    def run(self, job: Job, context: RunContext) -> Outcome:
        """Call it; whatever it raises is its outcome."""
        try:
            _RUN.set(context)
            function, args, kwargs = self._load(job.payload)
        except BaseException as error:  # noqa: BLE001 - opening it runs the user's code
            return _raised(job, error, "start", "could not load the function: ")
        cpu_s, started = process_time(), perf_counter()
        try:
            if job.limits.memory_bytes is None:
                result = function(*args, **kwargs)
            else:
                with memory_limit(job.limits.memory_bytes):
                    result = function(*args, **kwargs)
        except BaseException as error:  # noqa: BLE001 - the user's code may raise anything
            return _raised(job, error, "exception", "", _usage(cpu_s, started))
        usage = _usage(cpu_s, started)
        if result is None:
            return Outcome(job.task_id, job.run, value=NONE, result="None", usage=usage)
        try:
            value = _pickled_result(result)
        except Exception as error:  # noqa: BLE001 - pickling runs the user's code
            return _raised(job, error, "exception", "the result cannot be pickled: ", usage)
        if len(value) > MOST_BYTES:
            large = ValueError(
                f"{len(value) >> 20} MB are too many; write them to a file and return its name"
            )
            return _raised(job, large, "exception", "the result is too large: ", usage)
        return Outcome(job.task_id, job.run, value=value, result=short_repr(result), usage=usage)

    def _load(self, payload: bytes) -> tuple[Callable[..., object], tuple[object, ...], dict[str, object]]:
        call = _DECODER.decode(payload)
        if call.path != self._path:
            self._serve(call.path)
        function = self._loaded.get(call.function)
        if function is None:
            function = pickle.loads(call.function)  # noqa: S301 - only a worker opens it
            self._loaded[call.function] = function
            if len(self._loaded) > KEPT_FUNCTIONS:
                del self._loaded[next(iter(self._loaded))]
        if call.arguments == _NO_ARGUMENTS:
            return function, (), {}
        args, kwargs = pickle.loads(call.arguments)  # noqa: S301 - only a worker opens it
        return function, args, kwargs

    def _serve(self, path: list[str]) -> None:
        """Import as another caller does: two callers' modules of one name are two modules."""
        theirs = tuple(f"{folder}{os.sep}" for folder in self._path if folder not in self._base)
        for name, module in list(sys.modules.items()):
            file = getattr(module, "__file__", None)
            if file is not None and file.startswith(theirs):
                del sys.modules[name]
        self._loaded.clear()
        self._path = path
        sys.path[:] = [*self._base, *(folder for folder in path if folder not in self._base)]
        importlib.invalidate_caches()


def _pickled_result(result: object) -> bytes:
    try:
        return pickle.dumps((True, result), protocol=5)
    except Exception:  # noqa: BLE001 - whatever plain pickle cannot do, cloudpickle tries next
        import cloudpickle

        return bytes(cloudpickle.dumps((True, result), protocol=5))


def _usage(cpu_s: float, started: float) -> Usage:
    """What a call cost since this process had used `cpu_s` and the clock said `started`."""
    return Usage(cpu_s=process_time() - cpu_s, duration_s=perf_counter() - started)


def _raised(job: Job, error: BaseException, reason: str, prefix: str, usage: Usage = NO_USAGE) -> Outcome:
    text = _traceback(error)
    error.__traceback__ = None
    if isinstance(error, MemoryError) and job.limits.memory_bytes is not None:
        error = MemoryError(f"could get no more than its {size_text(job.limits.memory_bytes)}")
        reason, prefix = "memory", ""
    name = type(error).__name__
    said = _safe_str(error)
    message = prefix + (f"{name}: {said}" if said else name)
    return Outcome(
        job.task_id,
        job.run,
        reason,  # type: ignore[arg-type]
        message[:2000],
        value=_pickled_error(error, text, message),
        error=Fault(name, said[:2000], text),
        usage=usage,
    )


def _traceback(error: BaseException) -> str:
    try:
        lines = traceback.format_exception(type(error), error, error.__traceback__)
    except Exception:  # noqa: BLE001 - an exception's own __str__ may raise
        lines = traceback.format_tb(error.__traceback__)
    return _encodable("".join(lines)[-20_000:])


def _safe_str(error: BaseException) -> str:
    try:
        return _encodable(str(error))
    except Exception as worse:  # noqa: BLE001 - the user's __str__ may raise anything
        return f"<no text: its __str__ raised {type(worse).__name__}>"


def _pickled_error(error: BaseException, text: str, message: str) -> bytes:
    """The exception itself where it survives a round trip, else one that says what it was."""
    try:
        blob = pickle.dumps((False, (error, text)), protocol=5)
        pickle.loads(blob)  # noqa: S301 - our own bytes
    except Exception:  # noqa: BLE001 - the user's __reduce__ may raise anything
        from koubou_panel.errors import TaskFailure

        return pickle.dumps((False, (TaskFailure(message), text)), protocol=5)
    return blob


def _encodable(text: str) -> str:
    """`text` with what UTF-8 cannot say (lone surrogates) spelt out."""
    return text.encode("utf-8", "backslashreplace").decode()


def short_repr(value: object) -> str:
    """At most 200 characters that tell what a value is; never raises."""
    kind = type(value)
    if kind is int or kind is float or kind is bool:
        return repr(value)[:SHORT]
    try:
        return _encodable(reprlib.repr(value)[:SHORT])
    except Exception:  # noqa: BLE001 - the user's __repr__ may raise anything
        return f"<{kind.__name__}>"
