"""`shop.state`: the workshop as Param models, kept up to date where they are used.

Each loop has models of its own, and each session of a Panel server: their watchers are called there, and end there.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

from koubou_panel.core.records import Task
from koubou_panel.core.state import State
from koubou_panel.notebook.hop import HoppedShop, Hops
from koubou_panel.notebook.loop_thread import LoopThread
from koubou_panel.reactive.mirror import Changes, Mirror
from koubou_panel.reactive.models import ServiceModel, ShopModel, WorkerModel

SHOW_TASKS = 100
FRAME_S = 0.1
TICK_S = 1.0
MOST_SHARE = 0.2  # of its thread's time, that keeping models up to date may take, watchers included
TURN_LIMIT_S = 1.0

__all__ = ["ShopModel", "States"]

log = logging.getLogger(__name__)


class StateMirror(Mirror):
    """A mirror whose lists are told anew when one of their members changed, so that watching a list is enough."""

    def flush(self) -> Changes:
        """Set every dirty model once, and give what changed."""
        changes = super().flush()
        if changes.metrics:
            self.model.param.trigger("metrics")
        return changes

    def _flush_tasks(self, state: State, waiting: list[Task], changes: Changes) -> dict[str, object]:
        lists = super()._flush_tasks(state, waiting, changes)
        for name, models in lists.items():
            if any(model.task_id in changes.tasks for model in models):  # type: ignore[attr-defined]
                self._forget(name)
        return lists

    def _flush_workers(self, state: State, changes: Changes) -> list[WorkerModel]:
        models = super()._flush_workers(state, changes)
        if changes.workers:
            self._forget("workers")
        return models

    def _flush_services(self, state: State, changes: Changes) -> list[ServiceModel]:
        models = super()._flush_services(state, changes)
        if changes.services:
            self._forget("services")
        return models

    def _forget(self, name: str) -> None:
        """Have a list be set, though it has the same members."""
        self._values.get("shop", {}).pop(name, None)


class Following:
    """A workshop's models for one audience, set a few times a second at most. Only on the loop that it is made on.

    Args:
        hops: the workshop's doors.
        document: the session of a Panel server that they are for.
        on_over: called once the workshop has been shut down and the models say so.
    """

    def __init__(self, hops: Hops, document: Any = None, on_over: Callable[[], None] | None = None) -> None:
        """Begin; the models are filled at once."""
        self._on_over = on_over
        self._hopped: HoppedShop = hops.acquire()
        self._document = document
        self._cost_s = 0.0
        self._flushed_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._mirror = StateMirror(self._hopped, newest=SHOW_TASKS, on_dirty=self._soon)
        self._is_closed = False
        self.is_flushing = False
        self._again()

    @property
    def model(self) -> ShopModel:
        """The models."""
        return self._mirror.model

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """Where they are kept up to date."""
        return self._hopped.loop

    def refresh(self) -> None:
        """Take in now what has come over."""
        self._hopped.catch_up()
        if self._mirror.is_dirty:
            self._flush()

    def close(self) -> None:
        """Follow no more; the models stay as they are."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._mirror.close()
        self._hopped.release()

    def _soon(self) -> None:
        """Something waits: in the next frame, which comes later where the last one took long."""
        rest_s = max(FRAME_S, self._cost_s / MOST_SHARE)
        self._again(max(0.0, self._flushed_at + rest_s - time.monotonic()))

    def _again(self, delay_s: float = TICK_S) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if not self._is_closed:
            self._timer = self.loop.call_later(delay_s, self._turn)

    def _turn(self) -> None:
        """In a session, with its document: what a watcher shows there is sent at once."""
        if self._document is None:
            self._flush()
        else:
            self._document.add_next_tick_callback(self._flush)

    def _flush(self) -> None:
        if self._is_closed:
            return
        # Processor time: where the machine is busy with other things, waiting for it would make that no better.
        begun, self.is_flushing = time.thread_time(), True
        try:
            self._mirror.flush()
        except BaseException as error:
            self._mirror.on_samples(())  # what stood behind it is set the next time
            if not isinstance(error, Exception):  # an interrupt, or it exits
                raise
            log.exception("a watcher of shop.state failed")
        finally:
            self.is_flushing = False
            self._flushed_at = time.monotonic()
            self._cost_s = time.thread_time() - begun
            self._go_on()

    def _go_on(self) -> None:
        if self._mirror.is_dirty:
            self._soon()
        elif not self._hopped.is_over:
            self._again()  # rates, and how fresh all this is, change by themselves
        elif self._on_over is not None:
            self._on_over()


class States:
    """A workshop's models for everybody in this process who uses them. Any thread.

    Args:
        hops: the workshop's doors on other loops.
        thread: the workshop's own thread.
    """

    def __init__(self, hops: Hops, thread: LoopThread) -> None:
        """With none made."""
        self._hops = hops
        self._thread = thread
        self._lock = threading.Lock()
        self._own: LoopThread | None = None
        self._made: dict[object, Following] = {}
        self._making: dict[object, Future[Following]] = {}

    def __len__(self) -> int:
        """How many audiences there are."""
        return len(self._made)

    def model(self) -> ShopModel:
        """The models of who asks: of its session, else of its loop, else (in a script) of a thread for them.

        What this thread was told before, such as a result, they contain.

        Raises:
            RuntimeError: the workshop was shut down before; or this is its own thread.
        """
        document, loop = _session(), _running_loop()
        key = document if document is not None else loop
        following = self._made.get(key)
        if following is None:
            self._thread.check_may_wait()
            return self._following(key, document, loop).model
        if following.loop is not loop or not following.is_flushing:  # no watcher asks
            self._catch_up(following, loop)
        return following.model

    def _following(self, key: object, document: Any, loop: asyncio.AbstractEventLoop | None) -> Following:
        """The one of `key`, made by the first who asks; nobody else waits for that."""
        mine: Future[Following] = Future()
        with self._lock:
            made = self._made.get(key)
            if made is not None:
                return made
            making = self._making.setdefault(key, mine)
        if making is mine:
            self._make(key, making, document, loop)
        return making.result()

    def _make(
        self,
        key: object,
        making: Future[Following],
        document: Any,
        loop: asyncio.AbstractEventLoop | None,
    ) -> None:
        """Without the lock: it waits for the workshop's thread, where somebody may ask for models of his own."""
        try:
            following = Following(self._hops, document) if loop else self._begin_apart(document)
        except BaseException as error:  # noqa: BLE001 - it is raised to all who asked
            with self._lock:
                del self._making[key]
            making.set_exception(error)
            return
        with self._lock:
            del self._making[key]
            self._let_go()
            self._made[key] = following
        if document is not None:
            document.on_session_destroyed(lambda _: self._end(document))
        making.set_result(following)

    def _begin_apart(self, document: Any) -> Following:
        """No loop runs here: on a thread for it, so that a slow watcher holds up neither workshop nor script."""
        if self._thread.is_closed:
            raise RuntimeError(self._thread.why)
        own = self._own_thread()

        async def begin() -> Following:
            return Following(self._hops, document, on_over=lambda: own.end(_nothing()))

        try:
            return own.call(begin())
        except BaseException:
            if not any(made.loop is own.loop for made in list(self._made.values())):
                own.end(_nothing())
            raise

    def _own_thread(self) -> LoopThread:
        with self._lock:
            if self._own is None or self._own.is_closed:
                self._own = LoopThread()
            return self._own

    def _catch_up(self, following: Following, loop: asyncio.AbstractEventLoop | None) -> None:
        """Have what was told before be in the models."""
        if not self._thread.is_closed:
            self._thread.check_may_wait()
            with suppress(RuntimeError, TimeoutError):  # it ends just now; it is held up
                self._thread.start(_nothing()).result(TURN_LIMIT_S)
        if following.loop is loop:
            following.refresh()
        else:
            refreshed: Future[None] = Future()
            # That loop has ended with the workshop; or a watcher waits there for who asks here.
            with suppress(RuntimeError, TimeoutError):
                following.loop.call_soon_threadsafe(_do, following.refresh, refreshed)
                refreshed.result(TURN_LIMIT_S)

    def _let_go(self) -> None:
        """Forget what belongs to loops that are closed."""
        self._made = {key: made for key, made in self._made.items() if not made.loop.is_closed()}

    def _end(self, document: Any) -> None:
        """The session is over."""
        with self._lock:
            following = self._made.pop(document, None)
        if following is None:
            return
        if following.loop is _running_loop():
            following.close()
        else:
            following.loop.call_soon_threadsafe(following.close)


def _session() -> Any:
    """The document of the Panel session that this runs in; None: it runs in none."""
    panel = sys.modules.get("panel.io.state")
    document = None if panel is None else panel.state.curdoc
    return document if document is not None and document.session_context else None


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


async def _nothing() -> None:
    """One turn of a loop."""


def _do(work: Callable[[], None], done: Future[None]) -> None:
    try:
        work()
    finally:
        done.set_result(None)
