"""The shop's clock: the one place where time comes from."""

from __future__ import annotations

import time
from collections.abc import Callable

Clock = Callable[[], float]


def utc_now() -> float:
    """UTC seconds since the epoch."""
    return time.time()
