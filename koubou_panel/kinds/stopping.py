"""The end of a run that shares its worker's process: TERM becomes an exception, so that what came is told of."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Stopped(BaseException):
    """The run is to end."""


@contextmanager
def stoppable() -> Iterator[None]:
    """While it lasts, TERM raises `Stopped` here. On another thread than the main one it changes nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough
        raise Stopped

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
