"""What a call brings with it, and the results of many."""

from __future__ import annotations

import os
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from koubou_panel.notebook.future import TaskFuture


def caller_path() -> list[str]:
    """The folders that a worker needs beyond its own to import what the caller imports."""
    own = tuple({sysconfig.get_paths()[key] for key in ("stdlib", "platstdlib", "purelib", "platlib")})
    folders = [os.path.abspath(folder) for folder in sys.path]  # noqa: PTH100 - a link stays a link
    return [
        folder
        for folder in dict.fromkeys(folders)
        if not folder.startswith(own) and not folder.endswith(".zip") and Path(folder).is_dir()
    ]


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
            yield futures.pop().result(left_s)
    finally:
        for future in futures:
            future.cancel()
