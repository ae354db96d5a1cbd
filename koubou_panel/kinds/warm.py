"""What keeps the tasks of one warm worker apart: none finds what another has left behind in the process."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import builtins
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import TypeGuard

from koubou_panel import running

_PLAIN = frozenset((int, float, complex, str, bytes, bool, type(None)))
_SIGNALS = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGALRM,
    signal.SIGVTALRM,
    signal.SIGPROF,
    signal.SIGTERM,
    signal.SIGCHLD,
)
_TIMERS = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
_handler = _signal.getsignal  # a twentieth of the time: what it gives is not made an enum's


class Kept:
    """A function that was loaded once, and whether it may serve many runs.

    Args:
        function: as it was loaded.
    """

    __slots__ = ("_globals", "_was", "function", "is_kept")

    def __init__(self, function: Callable[..., object]) -> None:
        """It `is_kept` where no run would find in it what another has changed."""
        self.function = function
        self._globals: dict[str, object] | None = None
        self._was: dict[str, object] = {}
        self.is_kept = is_importable(function)
        if not self.is_kept and _is_plain(function):
            self.is_kept = True
            self._globals = function.__globals__
            self._was = dict(self._globals)

    def again(self) -> Callable[..., object]:
        """The function as it was loaded, for another run."""
        here = self._globals
        if here is not None:
            here.update(self._was)
            if len(here) != len(self._was):
                for name in here.keys() - self._was.keys():
                    del here[name]
        return self.function


def is_importable(function: object) -> bool:
    """Whether it is a name's of a module, whose state is the process's anyhow."""
    found: object = sys.modules.get(getattr(function, "__module__", None) or "builtins")
    name = getattr(function, "__qualname__", None)
    if not isinstance(name, str):
        return False
    for part in name.split("."):
        found = getattr(found, part, None)
    return found is function


def _is_plain(function: object) -> TypeGuard[FunctionType]:
    """Whether a run can change nothing of it but what its global names stand for."""
    return (
        type(function) is FunctionType
        and not function.__closure__
        and not function.__dict__
        and not function.__kwdefaults__
        and all(map(_is_constant, function.__defaults__ or ()))
        and all(_is_constant(value) for name, value in function.__globals__.items() if name != "__builtins__")
    )


def _is_constant(value: object) -> bool:
    if type(value) is ModuleType:
        return sys.modules.get(value.__name__) is value
    return type(value) in _PLAIN or (type(value) is BuiltinFunctionType and is_importable(value))


class Surroundings:
    """The working folder, the variables, the import path, signal handlers and a few names, as when this was made."""

    __slots__ = ("_environ", "_folder", "_folders", "_handlers", "_names", "_path", "_variables")

    def __init__(self) -> None:
        """Note them."""
        self._folder = present_folder()
        self._environ = os.environ
        self._variables = os.environ._data.copy()  # type: ignore[attr-defined] # noqa: SLF001 - a tenth of the time
        self._path = sys.path
        self._folders = sys.path.copy()
        self._handlers = list(map(_handler, _SIGNALS))
        self._names = builtins.print, builtins.open, builtins.input, time.sleep

    def put_back(self) -> None:
        """Undo what was changed of them since, and stop the timers, whose signals would come later."""
        if running.is_worker():  # elsewhere they may be somebody else's
            for timer in _TIMERS:
                signal.setitimer(timer, 0)
        if self._folder and present_folder() != self._folder:
            with suppress(OSError):
                os.chdir(self._folder)
        os.environ = self._environ  # noqa: B003 - the very one
        if self._environ._data != self._variables:  # type: ignore[attr-defined] # noqa: SLF001
            self._put_back_variables()
        sys.path = self._path
        if sys.path != self._folders:
            sys.path[:] = self._folders
        if list(map(_handler, _SIGNALS)) != self._handlers:
            self._put_back_handlers()
        builtins.print, builtins.open, builtins.input, time.sleep = self._names

    def _put_back_variables(self) -> None:
        for name in os.environb.keys() - self._variables.keys():
            del os.environb[name]
        for name, value in self._variables.items():
            if os.environb.get(name) != value:
                os.environb[name] = value

    def _put_back_handlers(self) -> None:
        for number, handler in zip(_SIGNALS, self._handlers, strict=True):
            if handler is not None:  # what is not Python's cannot be set from here
                signal.signal(number, handler)


class Lasting:
    """What the runs of one function leave in force for each other: it is undone before another function's run."""

    def __init__(self) -> None:
        """Nothing is."""
        self._owner: Callable[..., object] | None = None
        self._undo: Callable[[], object] | None = None

    def keep(self, owner: Callable[..., object], undo: Callable[[], object]) -> None:
        """Something is in force from now on, for the runs of `owner` alone."""
        self.make_way()
        self._owner, self._undo = owner, undo

    def make_way(self, function: Callable[..., object] | None = None) -> None:
        """Undo it, unless it is `function` that is to run."""
        if self._undo is None or function is self._owner:
            return
        undo, self._owner, self._undo = self._undo, None, None
        undo()


LASTING = Lasting()


def present_folder() -> str:
    """Where this process is; empty where that folder was removed."""
    try:
        return os.getcwd()
    except OSError:
        return ""


def end_fork(of_pid: int, error: BaseException | None = None) -> None:
    """End this process if it is a fork that a function made of the worker `of_pid`; `error` is what it raised there.

    The worker's sockets, marks and results are the other process's: a fork that went on here would answer for it.
    """
    if os.getpid() == of_pid:
        return
    code = 0
    try:
        if isinstance(error, SystemExit) and (error.code is None or isinstance(error.code, int)):
            code = error.code or 0
        elif error is not None:
            code = 1
            traceback.print_exception(error)
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):
                stream.flush()
    finally:
        os._exit(code & 0xFF)
