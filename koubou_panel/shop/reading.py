"""How the shop's parts read files and the archive: off the loop."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

T = TypeVar("T")


class Read(Protocol):
    """Runs a blocking function on a thread of its own."""

    def __call__(self, function: Callable[..., T], *args: object) -> Awaitable[T]:
        """What `function(*args)` gives."""
