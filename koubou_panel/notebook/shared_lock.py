"""The lock that all futures of a workshop share, and that no interrupt leaves held."""

from __future__ import annotations

import sys
import threading
import time
from _thread import RLock
from types import FrameType

TURN_S = 0.001


class SharedLock(RLock):  # type: ignore[misc] # final to typeshed alone
    """In the place of a future's condition; `with` takes it.

    `with` on a lock of the interpreter's own is one step, so that an interrupt finds it taken and let go, or not taken.
    `concurrent.futures.wait` and `as_completed` do not take it so: they call `acquire` for one future after another, an
    interrupt in between leaves some held for ever, and then the thread that settles futures would stand still. So
    `acquire` here only notes which call is looking, and `until_settled` waits while that call lasts. Those that look do
    not exclude each other, which they need not: all they do is to read states and to append to lists.
    """

    def __init__(self) -> None:
        """Free."""
        self._lookers: set[FrameType] = set()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:  # noqa: FBT001, FBT002 - as a lock has it
        """Have nothing be settled until `release`, or the end of the call that this belongs to."""
        looker = _looker()
        with self:
            self._lookers.add(looker)
        return True

    def release(self) -> None:
        """The call that `acquire` noted has looked."""
        self._lookers.discard(_looker())

    def notify_all(self) -> None:
        """Nobody waits on it."""

    def is_looked_at(self) -> bool:
        """Whether a call on another thread is looking now; who asks has it taken with `with`."""
        if not self._lookers:
            return False
        me, running = threading.get_ident(), set[FrameType]()
        for thread, top in sys._current_frames().items():  # noqa: SLF001 - its documented use: looking for a deadlock
            frame: FrameType | None = None if thread == me else top
            while frame is not None:
                running.add(frame)
                frame = frame.f_back
        self._lookers &= running  # what is not there any more was interrupted
        return bool(self._lookers)

    def wait_turn(self) -> None:
        """Give a call that looks a moment; without the lock."""
        time.sleep(TURN_S)


def _looker() -> FrameType:
    """The call, such as `concurrent.futures.wait`, whose `with` statement takes many of these."""
    taking = sys._getframe(2)  # noqa: SLF001 - a name that threads' frames can be compared with
    return taking.f_back or taking
