"""What a call brings with it, and the results of many."""

from __future__ import annotations

import os
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from koubou_panel.kinds.packing import INSTALLED
from koubou_panel.kinds.warm import present_folder
from koubou_panel.notebook.future import TaskFuture


def caller_path() -> list[str]:
    """The folders that a worker needs beyond its own to import what the caller imports; see `packing.Call`."""
    places = sysconfig.get_paths()
    own = tuple({places[key] for key in ("stdlib", "platstdlib", "purelib", "platlib")})
    here = present_folder()  # a folder that was removed has no name, and nothing to import either
    folders = [
        os.path.normpath(os.path.join(here, folder))  # noqa: PTH118 - a link stays a link
        for folder in sys.path
        if here or os.path.isabs(folder)  # noqa: PTH117 - of a text
    ]
    found: list[str] = []
    for folder in dict.fromkeys(folders):
        if folder in (places["purelib"], places["platlib"]) and found and INSTALLED not in found:
            found.append(INSTALLED)
        elif not folder.startswith(own) and not folder.endswith(".zip") and Path(folder).is_dir():
            found.append(folder)
    return found


class CallerPath:
    """The caller's path as it is now: `folders` is one list, brought up to date by `refresh`."""

    def __init__(self) -> None:
        """As it is now."""
        self.folders = caller_path()
        self._note()

    def refresh(self) -> None:
        """Look whether a folder was put on it or taken off, or this process is elsewhere now."""
        if sys.path != self._seen or (self._is_relative and present_folder() != self._where):
            self.folders[:] = caller_path()
            self._note()

    def _note(self) -> None:
        self._seen = list(sys.path)
        self._is_relative = not all(map(os.path.isabs, self._seen))  # a notebook's has "" for where it is
        self._where = present_folder()


def name_of(function: Callable[..., object]) -> str:
    """What a task of `function` is called unless told."""
    name = getattr(function, "__qualname__", None) or type(function).__name__
    return str(name)[:100]


def in_order(futures: list[TaskFuture], deadline: float | None) -> Iterator[Any]:
    """The results of `futures` as they come, until `deadline`; what is left then, or when nobody asks, is cancelled."""
    try:
        futures.reverse()
        while futures:
            left_s = None if deadline is None else deadline - time.monotonic()
            yield _last_result(futures, left_s)
    finally:
        for future in futures:
            future.cancel()


def _last_result(futures: list[TaskFuture], timeout_s: float | None) -> Any:
    """The result of the last of `futures`, which is taken out once it has come: nothing is kept that was given out."""
    result = futures[-1].result(timeout_s)
    del futures[-1]
    return result
