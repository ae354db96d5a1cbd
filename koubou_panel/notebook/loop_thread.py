"""A thread with an event loop, on which everything of one workshop happens, however its callers block."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import CancelledError, Future
from typing import Any, TypeVar

T = TypeVar("T")
SHUT = "the workshop handle was shut down; open another with koubou_panel.Workshop()"


class LoopThread:
    """Runs coroutines for other threads, until it is closed."""

    def __init__(self) -> None:
        """Begin at once."""
        self.loop = asyncio.new_event_loop()
        self.is_closed = False
        self._thread = threading.Thread(target=self._serve, name="koubou", daemon=True)
        self._thread.start()

    @property
    def is_here(self) -> bool:
        """Whether this is asked on the thread itself, as in a future's callback."""
        return threading.current_thread() is self._thread

    def check_may_wait(self) -> None:
        """Check that who asks may wait for what happens on this thread.

        Raises:
            RuntimeError: it is asked on the thread itself, which would wait for ever.
        """
        if self.is_here:
            raise RuntimeError(
                "a callback of a future runs on the workshop's own thread, where nothing may wait: call this from "
                "another thread, or await it"
            )

    def start(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Begin `work`; any thread.

        Raises:
            RuntimeError: closed.
        """
        if not self.is_closed:
            return asyncio.run_coroutine_threadsafe(work, self.loop)
        work.close()
        raise RuntimeError(SHUT)

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Carry out `work` and wait for it; any other thread.

        Raises:
            RuntimeError: closed; or asked on the thread itself.
        """
        if self.is_here:
            work.close()
        self.check_may_wait()
        try:
            return self.start(work).result()
        except CancelledError:
            if self.is_closed:
                raise RuntimeError(SHUT) from None
            raise

    def close(self, last: Coroutine[Any, Any, None] | None = None) -> None:
        """Take nothing more, carry out `last`, and end."""
        self.is_closed = True
        try:
            if last is not None:
                asyncio.run_coroutine_threadsafe(last, self.loop).result()
        finally:
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join()

    def _serve(self) -> None:
        self.loop.run_forever()
        self.loop.run_until_complete(_cancel_rest())
        self.loop.close()


async def _cancel_rest() -> None:
    """End what is still under way, so that nobody waits for it for ever."""
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)
