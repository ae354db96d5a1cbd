"""Kind `function`: a Python callable with its arguments, pickled by the caller and opened by a worker alone.

A payload has three parts: the function, (args, kwargs), and the caller's import path. The function's part is the same
for all tasks of one `map`, so a worker keeps the last ones loaded. What is large of it, and of a result, is in files
(`kinds/crossing.py`).
"""

from __future__ import annotations

import importlib
import os
import pickle
import sys
import sysconfig
import traceback
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import suppress
from contextvars import ContextVar
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import msgspec

from koubou_panel.core.ports import Prepared, RunContext
from koubou_panel.core.quantity import size_text
from koubou_panel.core.records import Fault, Job, Outcome, TaskId, Usage
from koubou_panel.errors import Refused
from koubou_panel.kinds.crossing import Packed, take_up
from koubou_panel.kinds.limit import memory_limit
from koubou_panel.kinds.modules import Modules
from koubou_panel.kinds.packing import (
    INSTALLED,
    NO_ARGUMENTS,
    NO_RESULT,
    Call,
    encodable,
    packed_result,
    pickled_error,
    safe_str,
    short_repr,
    unpack_value,
)
from koubou_panel.kinds.spill import VALUES, Gone, NotStored, Piece, Place, cut, opened
from koubou_panel.kinds.warm import LASTING, Kept, Surroundings, end_fork, present_folder

KEPT_FUNCTIONS = 64
MOST_BYTES = 200 << 20
PREPARED = Prepared({}, "function", "")
NO_USAGE = Usage()

_RUN: ContextVar[RunContext] = ContextVar("run")
_DECODER = msgspec.msgpack.Decoder(Call)


def result_of(task_id: str) -> object:
    """What the task returned: stands in a pickle for its future. While a worker loads arguments."""
    context = _RUN.get()
    value = context.value_of(TaskId(task_id))
    return unpack_value(value, Path(context.home, VALUES), task_id) if value else None


def arguments_of(task_id: str) -> tuple[object, ...]:
    """The arguments of another task, which was submitted before this one. While a worker runs a function."""
    context = _RUN.get()
    call = _DECODER.decode(context.payload_of(TaskId(task_id)))
    return _arguments(call, context, task_id)[0]


def _arguments(call: Call, context: RunContext, task_id: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(call.arguments, Packed):
        return take_up(call.arguments, Path(context.home, VALUES), task_id)  # type: ignore[return-value]
    return pickle.loads(call.arguments)  # type: ignore[no-any-return] # noqa: S301 - only a worker opens it


class FunctionKind:
    """A callable in a warm interpreter."""

    name = "function"
    from_network = False
    batches = True
    shares_worker = True

    def __init__(self) -> None:
        """With nothing loaded."""
        self._loaded: dict[bytes, Kept] = {}
        self._base = list(sys.path)
        installed = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
        self._library = next(
            (n for n, folder in enumerate(self._base) if folder in installed), len(self._base)
        )
        self._path: list[str] = []
        self._first_folder = present_folder()
        self._modules = Modules()
        self._large: tuple[tuple[int, int], memoryview, Callable[..., object]] | None = None

    def prepare(self, spec: Mapping[str, object], payload: bytes) -> Prepared:
        """The payload stays closed; its name comes with the request."""
        if not payload:
            raise Refused("invalid", "a function comes from Python: use Workshop.submit", field="payload")
        if len(payload) > MOST_BYTES:
            raise Refused(
                "invalid",
                f"the function and its arguments are {size_text(len(payload))}, more than the "
                f"{size_text(MOST_BYTES)} that a request holds; Workshop.submit keeps large ones in files",
                field="payload",
            )
        return PREPARED if not spec else Prepared(dict(spec), "function", "")

    def run(self, job: Job, context: RunContext) -> Outcome:
        """Call it; whatever it raises is its outcome."""
        try:
            return self._run(job, context)
        finally:
            self._modules.note()  # also what a run imported that failed: it is edited next

    def _run(self, job: Job, context: RunContext) -> Outcome:
        try:
            _RUN.set(context)
            function, args, kwargs = self._load(job, context)
            self._modules.note()
            LASTING.make_way(function)
        except BaseException as error:  # noqa: BLE001 - opening it runs the user's code
            return _not_loaded(job, error)
        around = Surroundings()
        pid, cpu_s, started = os.getpid(), process_time(), perf_counter()
        try:
            if job.limits.memory_bytes is None:
                result = function(*args, **kwargs)
            else:
                with memory_limit(job.limits.memory_bytes):
                    result = function(*args, **kwargs)
            around.put_back()
        except BaseException as error:  # noqa: BLE001 - the user's code may raise anything
            end_fork(pid, error)
            around.put_back()
            return _raised(job, error, "exception", "", _usage(cpu_s, started))
        end_fork(pid)
        usage = _usage(cpu_s, started)
        if result is None:
            return Outcome(job.task_id, job.run, value=NO_RESULT, result="None", usage=usage)
        try:
            value = _packed(result, job, context)
        except NotStored as error:
            return _raised(job, OSError(str(error)), "exception", "the result could not be stored: ", usage)
        except BaseException as error:  # noqa: BLE001 - pickling runs the user's code
            _explain(error, _left_behind(result))
            return _raised(job, error, "exception", "the result cannot be pickled: ", usage)
        return Outcome(job.task_id, job.run, value=value, result=short_repr(result), usage=usage)

    def _load(
        self, job: Job, context: RunContext
    ) -> tuple[Callable[..., object], tuple[object, ...], dict[str, object]]:
        call = _DECODER.decode(job.payload)
        self._enter(call.folder)
        if call.path != self._path:
            self._serve(call.path)
        elif self._modules.forget_changed():
            self._loaded.clear()
            self._large = None
        function = self._function(call.function, job, context)
        if call.arguments == NO_ARGUMENTS:
            return function, (), {}
        return function, *_arguments(call, context, job.task_id)

    def _enter(self, folder: str) -> None:
        """Be where the caller was; where that is gone, where this process began, and never where another's run was."""
        for place in (folder, self._first_folder):
            with suppress(OSError):
                return os.chdir(place)
        return os.chdir("/")

    def _function(self, pickled: bytes | Piece, job: Job, context: RunContext) -> Callable[..., object]:
        if isinstance(pickled, Piece):
            return self._large_function(pickled, job, context)
        kept = self._loaded.get(pickled)
        if kept is None:
            kept = Kept(pickle.loads(pickled))  # noqa: S301 - only a worker opens it
            if kept.is_kept:
                self._loaded[pickled] = kept
                if len(self._loaded) > KEPT_FUNCTIONS:
                    del self._loaded[next(iter(self._loaded))]
        return kept.again()

    def _large_function(self, piece: Piece, job: Job, context: RunContext) -> Callable[..., object]:
        """A function that is in a file. Of these the last one is kept: many tasks' names may be of one file."""
        place = Place(Path(context.home, VALUES), job.task_id, "f")
        with suppress(FileNotFoundError):
            found = place.path(piece.file).stat()
            if self._large is not None and self._large[0] == (found.st_dev, found.st_ino):
                return self._large[2]
        self._large = None
        view = cut(opened(place, piece.file), piece, place)
        function: Callable[..., object] = pickle.loads(view)  # noqa: S301 - only a worker opens it
        # As long as the file is mapped, no other one gets its number.
        self._large = ((found.st_dev, found.st_ino), view, function)
        return function

    def _serve(self, path: list[str]) -> None:
        """Import as another caller does: two callers' modules of one name are two modules."""
        theirs = tuple(f"{folder}{os.sep}" for part in self._own(self._path) for folder in part)
        self._modules.forget_below(theirs)
        self._loaded.clear()
        self._large = None
        self._path = path
        before, after = self._own(path)
        # Python's own modules come first in any case: not all that is imported here would stand a `random.py`.
        sys.path[:] = [*self._base[: self._library], *before, *self._base[self._library :], *after]
        importlib.invalidate_caches()

    def _own(self, path: list[str]) -> tuple[list[str], list[str]]:
        """A caller's own folders: those before what is installed, and those after."""
        at = path.index(INSTALLED) if INSTALLED in path else 0
        others = (INSTALLED, *self._base)
        before, after = (
            [folder for folder in part if folder not in others] for part in (path[:at], path[at:])
        )
        return before, after


def _packed(result: object, job: Job, context: RunContext) -> bytes:
    return packed_result(result, lambda: Place(Path(context.home, VALUES), job.task_id, f"r{job.run}"))


def _left_behind(result: object) -> str:
    """Why a result stays in its process, and what to return instead."""
    what = f"the task's result, a {type(result).__name__}, cannot leave its process"
    if isinstance(result, Coroutine):
        result.close()  # or it complains that nobody awaited it
        return f"{what}: submit a function that calls asyncio.run with it"
    return (
        f"{what}: return {'a list of what it gives' if isinstance(result, Iterator) else 'plain data of it'}"
    )


def _explain(error: BaseException, words: str) -> None:
    """Have an error say `words` as well: in its message where it is plain text, else below it."""
    if len(error.args) == 1 and isinstance(error.args[0], str):
        error.args = (f"{error.args[0]}; {words}",)
    else:
        error.add_note(words)


def _usage(cpu_s: float, started: float) -> Usage:
    """What a call cost since this process had used `cpu_s` and the clock said `started`."""
    return Usage(cpu_s=process_time() - cpu_s, duration_s=perf_counter() - started)


def _not_loaded(job: Job, error: BaseException) -> Outcome:
    if isinstance(error, Gone):
        words = f"the arguments are not kept any more: {error}; submit it again"
        return _raised(job, Refused("not_found", words), "start", "")
    return _raised(job, error, "start", "could not load the function: ")


def _raised(job: Job, error: BaseException, reason: str, prefix: str, usage: Usage = NO_USAGE) -> Outcome:
    text = _traceback(error)
    error.__traceback__ = None
    if isinstance(error, MemoryError) and job.limits.memory_bytes is not None:
        error = MemoryError(f"could get no more than its {size_text(job.limits.memory_bytes)}")
        reason, prefix = "memory", ""
    name = type(error).__name__
    said = safe_str(error)
    message = prefix + (f"{name}: {said}" if said else name)
    return Outcome(
        job.task_id,
        job.run,
        reason,  # type: ignore[arg-type]
        message[:2000],
        value=pickled_error(error, text, message, reason),
        error=Fault(name, said[:2000], text),
        usage=usage,
    )


def _traceback(error: BaseException) -> str:
    """From the function on: how it came to be called is nobody's concern."""
    begun = error.__traceback__
    while begun is not None and begun.tb_next is not None and begun.tb_frame.f_code.co_filename == __file__:
        begun = begun.tb_next
    try:
        lines = traceback.format_exception(type(error), error, begun)
    except Exception:  # noqa: BLE001 - an exception's own __str__ may raise
        lines = traceback.format_tb(begun)
    return encodable("".join(lines)[-20_000:])
