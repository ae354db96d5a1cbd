"""The open workshops of this process: they end with the interpreter, and a fork of it lets go of them."""

from __future__ import annotations

import concurrent.futures.thread  # noqa: F401 - see the last lines
import os
import threading
from pathlib import Path
from typing import Protocol
from weakref import WeakSet

from koubou_panel.home import Home


class Living(Protocol):
    """What is open."""

    home: Home

    @property
    def is_ending(self) -> bool:
        """Whether it is about to let go of its home."""

    def shut(self) -> None:
        """End once all own tasks have; does not wait."""

    def abandon(self) -> None:
        """This process is a fork of the one that it is open in."""

    def join(self) -> None:
        """Wait until it has ended."""


_SEATS: WeakSet[Living] = WeakSet()
_HOLDERS: WeakSet[Holder] = WeakSet()


class Holder(Protocol):
    """A handle that holds a workshop in this process."""

    @property
    def holds(self) -> Path | None:
        """The folder of the workshop that it holds; None: it is attached to another's, or shut."""


def add(seat: Living) -> None:
    """Have `seat` end with the interpreter, after its tasks; and be abandoned in forks."""
    _SEATS.add(seat)


def wait_for_ending(root: Path) -> None:
    """Wait for those of this process that are about to let go of the home at `root`."""
    for seat in list(_SEATS):
        if seat.is_ending and seat.home.root == root:
            seat.join()


def add_holder(holder: Holder) -> None:
    """Let others of this process find the handle."""
    _HOLDERS.add(holder)


def holder_of(root: Path) -> Holder | None:
    """The handle that holds the workshop of `root` in this process, if one does."""
    return next((holder for holder in _HOLDERS if holder.holds == root), None)


def _end_all() -> None:
    seats = list(_SEATS)
    for seat in seats:
        seat.shut()
    for seat in seats:
        seat.join()


def _abandon_all() -> None:
    for seat in list(_SEATS):
        seat.abandon()
    _SEATS.clear()


# As concurrent.futures does, and before it: the last one registered, which its import above does, is the first called.
# Later, at the time of `atexit`, its executors take nothing any more, and the end of a workshop needs some.
threading._register_atexit(_end_all)  # type: ignore[attr-defined] # noqa: SLF001
os.register_at_fork(after_in_child=_abandon_all)
