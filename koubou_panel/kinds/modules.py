"""The caller's own modules in a worker: a run sees them as they are on the disk when it starts.

What belongs to Python or is installed does not change while a worker lives, and is not looked at. Of the rest (the
notebook's neighbours, a package that is being written) each file's time and size are noted when it has been imported,
and compared before a run. If one has changed, all of them are imported anew: they hold each other's functions.
"""

from __future__ import annotations

import importlib
import os
import sys
import sysconfig
from contextlib import suppress
from importlib.util import cache_from_source
from pathlib import Path
from time import monotonic, thread_time
from types import ModuleType

# Looking takes a microsecond or two a file, and as a rule this part of the time at most, so that thousands of short
# tasks do not pay for it; between two looks lies less than a person or a program needs for an edit and a task.
SHARE = 0.02
LONGEST_S = 0.002

Stamp = tuple[int, int]


class Modules:
    """What is imported of the caller's own."""

    def __init__(self) -> None:
        """Nothing is known yet."""
        paths = sysconfig.get_paths()
        self._foreign = tuple(f"{paths[name]}/" for name in ("stdlib", "platstdlib", "purelib", "platlib"))
        self._own: dict[str, tuple[str, Stamp]] = {}
        self._seen: set[str] = set()
        self._mark: tuple[int, str] | None = None
        self._due = 0.0

    def note(self) -> None:
        """Note what was imported since the last call. To be called before anybody can have edited it."""
        mark = (len(sys.modules), next(reversed(sys.modules)))  # of dictionaries the end grows
        if mark == self._mark:
            return
        for name, module in list(sys.modules.items()):
            if name not in self._seen and (file := self._file_of(name, module)) is not None:
                stamp = _stamp(file)
                if stamp is not None:
                    self._own[name] = (file, stamp)
        self._seen = set(sys.modules)
        self._own = {name: known for name, known in self._own.items() if name in self._seen}
        self._mark = mark

    def forget_changed(self) -> bool:
        """Forget all of the caller's own if one has changed, so that they are imported anew; whether one had."""
        now = monotonic()
        if now < self._due:
            return False
        began = thread_time()
        changed = [name for name, (file, stamp) in self._own.items() if _stamp(file) not in (stamp, None)]
        if changed:
            self._forget(changed)
        self._due = now + min((thread_time() - began) / SHARE, LONGEST_S)
        return bool(changed)

    def forget_below(self, folders: tuple[str, ...]) -> None:
        """Forget what is imported from these folders alone; what stays is as it is on the disk, and known."""
        self._due = 0.0
        self.forget_changed()
        for name in _names_below(folders):
            _remove(name)
            self._own.pop(name, None)
            self._seen.discard(name)
        self._mark = None

    def _forget(self, changed: list[str]) -> None:
        own, self._own = self._own, {}
        for name in changed:
            # Python takes its compiled copy for good when the second and the size are the same.
            with suppress(OSError, NotImplementedError):
                Path(cache_from_source(own[name][0])).unlink()
        for name in own:
            _remove(name)
        self._seen = set(sys.modules)
        self._mark = None
        importlib.invalidate_caches()

    def _file_of(self, name: str, module: ModuleType) -> str | None:
        if name == "__main__" or name.partition(".")[0] == "koubou_panel":
            return None
        file = getattr(module, "__file__", None)
        is_own = isinstance(file, str) and file.endswith(".py") and not file.startswith(self._foreign)
        return file if is_own else None


def _names_below(folders: tuple[str, ...]) -> list[str]:
    """What is imported from these folders alone: modules, and packages that have no `__init__.py`."""
    return [name for name, module in list(sys.modules.items()) if _is_below(module, folders)]


def _is_below(module: ModuleType, folders: tuple[str, ...]) -> bool:
    file: str | None = getattr(module, "__file__", None)
    if file is not None:
        return file.startswith(folders)
    try:
        places = [f"{place}{os.sep}" for place in getattr(module, "__path__", ())]
    except KeyError:  # a task removed the package that it is in
        return False
    return bool(places) and all(place.startswith(folders) for place in places)


def _remove(name: str) -> None:
    """Have a module imported anew; it need not be there, as a task may have removed it itself."""
    sys.modules.pop(name, None)
    package, _, child = name.rpartition(".")
    known = getattr(sys.modules.get(package), "__dict__", {})
    # A package that stays, as one without `__init__.py`, would give it to `from package import child`.
    if isinstance(known.get(child), ModuleType):
        del known[child]


def _stamp(file: str) -> Stamp | None:
    """What tells two texts of a file apart; None while there is none, as in the middle of a save."""
    try:
        found = os.stat(file)  # a quarter of the time, and it is asked before each run
    except OSError:
        return None
    return (found.st_mtime_ns, found.st_size)
