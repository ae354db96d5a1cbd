"""The thread that commits: everything that waits goes into one transaction."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from queue import Empty, SimpleQueue
from threading import Thread

from koubou_panel.archive.sqlite import Archive, Batch

Done = Callable[[BaseException | None], None]
_Waiting = tuple[Batch, Done]

log = logging.getLogger(__name__)


class Writer:
    """Commits batches in the order they are put, as many at once as there are. After a failure none, until `reset`.

    Args:
        archive: where to; nobody else commits to it meanwhile.
        loop_call: carries out a function on the loop, from any thread (`loop.call_soon_threadsafe`).

    """

    def __init__(self, archive: Archive, loop_call: Callable[[Callable[[], None]], object]) -> None:
        """Start the thread."""
        self._archive = archive
        self._loop_call = loop_call
        self._queue: SimpleQueue[_Waiting | None] = SimpleQueue()
        self._prune_before: float | None = None
        self._is_closing = False
        self._failure: BaseException | None = None
        self._thread = Thread(target=self._run, name="archive-writer", daemon=True)
        self._thread.start()

    def put(self, batch: Batch, done: Done) -> None:
        """Store `batch`; `done` is called on the loop, with None or with why nothing of it was stored."""
        self._queue.put((batch, done))

    async def commit(self, batch: Batch) -> None:
        """Store `batch`; returns once it is durable, with all that was put before it. On the loop.

        Raises:
            Exception: why nothing of it was stored.
        """
        stored: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def finish(error: BaseException | None) -> None:
            if stored.done():
                """Nobody waits any more."""
            elif error is None:
                stored.set_result(None)
            else:
                stored.set_exception(error)

        self.put(batch, finish)
        await stored

    def reset(self) -> None:
        """Store again after a failure. Until then every batch is refused: it was built on what was not stored."""
        self._failure = None

    def close(self) -> None:
        """Commit what waits and end the thread. The archive stays open."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while not self._is_closing:
            group = self._take()
            if group:
                self._commit(group)
            if self._prune_before is not None:
                self._prune(self._prune_before)

    def _take(self) -> list[_Waiting]:
        """All that waits; waits itself if there is nothing, and nothing else to do."""
        group: list[_Waiting] = []
        try:
            if self._prune_before is None:
                self._sort(self._queue.get(), group)
            while True:
                self._sort(self._queue.get_nowait(), group)
        except Empty:
            return group

    def _sort(self, item: _Waiting | None, group: list[_Waiting]) -> None:
        if item is None:
            self._is_closing = True
            return
        group.append(item)
        if item[0].prune_before is not None:
            self._prune_before = item[0].prune_before

    def _commit(self, group: list[_Waiting]) -> None:
        failure = self._failure
        if failure is None:
            try:
                self._archive.commit([batch for batch, _ in group])
            except Exception as error:  # noqa: BLE001 - whatever it was, those who wait are told
                failure = self._failure = error
        try:
            self._loop_call(lambda: _tell(group, failure))
        except RuntimeError:
            log.warning("the loop was closed before %d batches were acknowledged", len(group))

    def _prune(self, now: float) -> None:
        """One bite, so that a commit never waits long."""
        try:
            has_more = self._archive.prune(now)
        except Exception:
            log.exception("the archive could not forget what is too old")
            has_more = False
        if not has_more:
            self._prune_before = None


def _tell(group: list[_Waiting], failure: BaseException | None) -> None:
    for _, done in group:
        try:
            done(failure)
        except Exception:
            log.exception("a callback of the archive failed")
