"""Rescue at start: what an earlier workshop of this home left behind, told by proof and not by time-out."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path

from koubou_panel.core.records import WorkerId
from koubou_panel.engines import marks
from koubou_panel.engines.guard import descendants, send

PATIENCE_S = 2.0


def sweep(folder: Path) -> dict[WorkerId, int | None]:
    """How far each worker of the earlier workshop had begun, once all of them are dead. Blocks; not on the loop.

    A guard ends by itself when its workshop dies; if one was killed before it could, what it left behind still
    holds the mark's lock and is killed here. The marks stay, until what they prove is stored: see `clear`.

    Returns: claims begun by worker, None where the mark proves nothing (another boot, unreadable).
    """
    found: dict[WorkerId, int | None] = {}
    for path in sorted(folder.glob("*.mark")):
        _wait_for_death(path)
        mark = marks.read(path)
        found[WorkerId(path.stem)] = mark[0] if mark else None
    return found


def clear(folder: Path, workers: Iterable[WorkerId]) -> None:
    """Remove the marks of these workers. One that stays does no harm: its name's next worker makes its own."""
    for worker_id in workers:
        with contextlib.suppress(OSError):
            (folder / f"{worker_id}.mark").unlink()


def _wait_for_death(path: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while marks.is_held(path):
        if time.monotonic() > deadline:
            _kill_holders(path)
            deadline += PATIENCE_S
        time.sleep(0.005)


def _kill_holders(path: Path) -> None:
    """KILL every process that has the mark open, and what is below it."""
    target = os.stat(path)
    holders = [int(name) for name in os.listdir("/proc") if name.isdigit() and _holds(int(name), target)]
    holders = [pid for pid in holders if pid != os.getpid()]
    send([below for pid in holders for below in descendants(pid)] + holders, signal.SIGKILL)


def _holds(pid: int, target: os.stat_result) -> bool:
    with contextlib.suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                found = os.stat(f"/proc/{pid}/fd/{name}")
                if (found.st_dev, found.st_ino) == (target.st_dev, target.st_ino):
                    return True
    return False
