"""`koubou_panel.progress`: what a function or a Python script says about how far it is.

A function's worker names whom to tell. A script is told by its environment where its output goes (`KOUBOU_OUTPUT`, a
device and an inode, as systemd's `JOURNAL_STREAM`): it prints the line of docs/progress.md there, and nothing where its
output goes anywhere else, so that no other program's data are mixed up with it. Elsewhere nothing happens.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, SupportsFloat

if TYPE_CHECKING:  # scripts import this: it should cost them next to nothing
    from pathlib import Path

Tell = Callable[[float | None, float | None, str, str], None]
Said = tuple[float | None, float | None, str, str]
Hint = Callable[[Said | None], None]

EVERY_S = 0.05
_NUMBERS = (int, float, type(None))
OUTPUT_VARIABLE = "KOUBOU_OUTPUT"
_MOST_VALUE, _MOST_PLACES = 10**18, 30
_MOST_UNIT = 16


def progress(
    done: SupportsFloat | None, total: SupportsFloat | None = None, message: str = "", unit: str = ""
) -> None:
    """Tell how far the task is that this code runs in; cheap enough for every turn of a loop.

    Args:
        done: how much is done; None if that is not known.
        total: of how much; None if that is not known.
        message: what is being done, in a few words.
        unit: of what `done` and `total` are, such as "files"; "B" for bytes.

    Raises:
        TypeError: `done` or `total` is no number.
    """
    if not isinstance(done, _NUMBERS):
        done = _number(done)
    if not isinstance(total, _NUMBERS):
        total = _number(total)
    # Made text here, where a failure is the caller's, and not on a thread of the worker's own.
    if type(message) is not str:
        message = str(message)
    if type(unit) is not str:
        unit = str(unit)
    _teller.tell(done, total, unit, message)


def _number(value: SupportsFloat) -> float:
    """The numbers of other libraries, and nothing else."""
    found = type(value).__name__
    if found not in {"str", "bytes"}:
        with contextlib.suppress(TypeError, ValueError):
            return float(value)
    raise TypeError(f"progress takes numbers, such as progress(12, 80), not {found}")


class _Teller:
    """Whom to tell in this process; found out at the first call, unless a worker said so."""

    def __init__(self) -> None:
        self.tell: Tell = self._find
        self.hint: Hint = _nothing
        self.is_worker = False
        self.home: Path | None = None

    def _find(self, done: float | None, total: float | None, unit: str, message: str) -> None:
        named = os.environ.get(OUTPUT_VARIABLE, "")
        self.tell = _nobody if _output(named) is None else Printer(named).tell
        self.tell(done, total, unit, message)


def begin_worker(home: Path) -> None:
    """From now on this process is a worker of the workshop at `home`."""
    _teller.is_worker = True
    _teller.home = home


def is_worker() -> bool:
    """Whether this process is a worker, or a fork of one."""
    return _teller.is_worker


def home_of_worker() -> Path | None:
    """Where the workshop is whose worker this process is, if it is one."""
    return _teller.home


def tell_to(tell: Tell | None, hint: Hint | None = None) -> None:
    """From now on this process tells `tell`, and `hint` what libraries say; None: nobody. Worker only."""
    _teller.tell = _nobody if tell is None else tell
    _teller.hint = _nothing if hint is None else hint


def hint(said: Said | None) -> None:
    """What a library says of itself: less than what the task says, more than what is read from its output."""
    _teller.hint(said)


def _nothing(said: Said | None) -> None:
    """Nobody wants to know."""


def _nobody(done: float | None, total: float | None, unit: str, message: str) -> None:
    """Nobody wants to know."""


def _output(named: str) -> int | None:
    """Which of the standard streams is the file that `named` names, now: a script may redirect itself."""
    for fd in (1, 2):
        try:
            stat = os.fstat(fd)
        except OSError:
            continue
        if named == f"{stat.st_dev}:{stat.st_ino}":
            return fd
    return None


class Printer:
    """Prints the protocol's line, at most every `EVERY_S` seconds; what was held back follows soon. Any thread."""

    def __init__(self, named: str) -> None:
        """Print to the file that `named` names, also when the interpreter ends."""
        self.named = named
        self._next_s = 0.0
        self._held: tuple[float | None, float | None, str, str] | None = None
        self._follows = False
        self._lock = threading.Lock()
        atexit.register(self._flush)

    def tell(self, done: float | None, total: float | None, unit: str, message: str) -> None:
        """Print it now or soon."""
        self._held = (done, total, unit, message)
        if time.monotonic() >= self._next_s:
            self._flush()
        elif not self._follows:
            self._follows = True
            threading.Thread(target=self._follow, name="koubou-progress", daemon=True).start()

    def _follow(self) -> None:
        """Print what was held back, as long as there is any."""
        idle = 0
        while idle < 2:  # noqa: PLR2004 - one empty turn may be chance
            time.sleep(EVERY_S)
            idle = idle + 1 if self._held is None else 0
            self._flush()
        self._follows = False
        self._flush()

    def _flush(self) -> None:
        with self._lock:
            held, self._held = self._held, None
            if held is None:
                return
            self._next_s = time.monotonic() + EVERY_S
            fd = _output(self.named)
            if fd is None:
                return
            data = line(*held).encode("utf-8", "replace")
            try:
                os.write(fd, data)
            except OSError:
                """Whoever read it is gone; the script need not care."""


def line(done: float | None, total: float | None, unit: str, message: str) -> str:
    """The protocol's line; without a number or a unit that it cannot say."""
    value, of = _text(done), _text(total)
    message = " ".join(message.split()).replace("::koubou progress", "koubou progress")
    shown = _printable(message).lstrip()
    if value and not of and (shown[:1] == "%" or (shown[:1] == "/" and not shown[1:2].isalpha())):
        message = f"- {message}"  # or it would be part of the number
    value = (value + (f"/{of}" if of else "") + _unit(unit)) if value else "?"
    return f"::koubou progress {value} {message}".rstrip() + "\n"


def _text(value: float | None) -> str:
    """A number as the protocol has it; empty for none, and for one that makes no sense."""
    if value is None or not 0 <= value <= _MOST_VALUE:
        return ""
    if isinstance(value, int) and value < _MOST_VALUE:
        return str(int(value))
    return f"{round(abs(float(value)), _MOST_PLACES):.12g}"


def _unit(unit: str) -> str:
    """`unit` where it can stand behind a number and is no part of it; else empty, as the numbers matter more."""
    unit = "".join(_printable(unit).split())[:_MOST_UNIT]
    is_exponent = unit[:1] in {"e", "E"} and unit[1:].lstrip("+-")[:1].isdigit()
    is_fraction = any(part[:1].isdigit() for part in unit.split("/")[1:])
    return unit if unit[:1].isalpha() and not is_exponent and not is_fraction else ""


def _printable(text: str) -> str:
    return text if text.isprintable() else "".join(c if c.isprintable() else " " for c in text)


_teller = _Teller()


def _after_fork() -> None:
    """A fork has the printer but not its thread, and whoever held its lock is not there."""
    printer = getattr(_teller.tell, "__self__", None)
    if isinstance(printer, Printer):
        _teller.tell = Printer(printer.named).tell


os.register_at_fork(after_in_child=_after_fork)
