"""A thread with an event loop, on which everything of one workshop happens, however its callers block."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Coroutine
from concurrent.futures import CancelledError, Future
from typing import Any, TypeVar

T = TypeVar("T")
SHUT = "the workshop handle was shut down; open another with koubou_panel.Workshop()"

log = logging.getLogger(__name__)


class LoopThread:
    """Runs coroutines for other threads, until it is ended."""

    loop: asyncio.AbstractEventLoop

    def __init__(self) -> None:
        """Begin at once."""
        self.is_closed = False
        self.why = SHUT
        self._is_over = False
        self._begun: Future[None] = Future()
        self._ended: Future[None] = Future()
        self._thread = threading.Thread(target=self._serve, name="koubou", daemon=True)
        try:
            self._thread.start()
            self._begun.result()
        except BaseException:  # interrupted: nobody will have this thread
            self._begun.add_done_callback(lambda _: self.end(_nothing()))
            raise

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
        raise RuntimeError(self.why)

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Carry out `work` and wait for it; any other thread. Who is interrupted while it waits, ends the work.

        Raises:
            RuntimeError: closed; or asked on the thread itself.
        """
        if self.is_here:
            work.close()
        self.check_may_wait()
        started = self.start(work)
        try:
            return started.result()
        except CancelledError:
            if self.is_closed:
                raise RuntimeError(self.why) from None
            raise
        finally:
            started.cancel()  # that which has ended stays as it is

    def end(self, last: Coroutine[Any, Any, None]) -> None:
        """Take nothing more, carry out `last`, and end; any thread. Does not wait."""
        if self.is_closed:
            last.close()
            return
        self.is_closed = True
        self.loop.call_soon_threadsafe(self._begin_last, last)

    def join(self) -> None:
        """Wait until it has ended; any other thread. What `last` raised is raised here."""
        self._ended.result()

    def close(self, last: Coroutine[Any, Any, None] | None = None) -> None:
        """As `end`, and wait for it."""
        self.end(_nothing() if last is None else last)
        self.join()

    def abandon(self, why: str) -> None:
        """This process was forked from the thread's: it is not here. Whoever asks is told `why`."""
        self.is_closed = True
        self.why = why
        self._ended = Future()
        self._ended.set_result(None)
        _blank(self.loop)

    def _begin_last(self, last: Coroutine[Any, Any, None]) -> None:
        self._last = self.loop.create_task(_finish(last))
        self._last.add_done_callback(lambda _: self._stop())

    def _stop(self) -> None:
        self._is_over = True  # a callback that exits in this very turn has the loop forget that it is to stop
        self.loop.stop()

    def _serve(self) -> None:
        # Made here, where no interrupt can leave half of one behind.
        self.loop = asyncio.new_event_loop()
        self._begun.set_result(None)
        while not self._is_over:
            try:
                self.loop.run_forever()
            except (SystemExit, KeyboardInterrupt):  # all else that a callback raises the loop logs by itself
                log.exception("exception in a callback on the workshop's thread, which goes on")
        self.loop.close()
        error = self._last.exception()
        if error is None:
            self._ended.set_result(None)
        else:
            self._ended.set_exception(error)


async def _nothing() -> None:
    """The last work of a thread that needs none."""


async def _finish(last: Coroutine[Any, Any, None]) -> None:
    try:
        await last
    finally:
        await _cancel_rest()


async def _cancel_rest() -> None:
    """End what is still under way, so that nobody waits for it for ever."""
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)


def _blank(loop: asyncio.AbstractEventLoop) -> None:
    """Put nothing in the place of every socket of a loop that another process has, numbers kept.

    A copy that stays open here would keep its peers from seeing that process's end.
    """
    selector = getattr(loop, "_selector", None)
    fds = [] if selector is None else [*selector.get_map(), selector.fileno()]
    nothing = os.open(os.devnull, os.O_RDWR)
    for fd in fds:
        os.dup2(nothing, fd, inheritable=False)
    os.close(nothing)
