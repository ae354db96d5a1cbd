"""A workshop's `Shop` door on another loop: the kernel's, while the workshop has a thread and a loop of its own.

    hopped = workshop.hops.acquire()  # on the loop that will use it; everybody there gets the same one
    ...                               # hopped.state, hopped.subscribe(…), await hopped.do(…)
    hopped.release()                  # the last release ends its subscription

or `with hopped(workshop) as shop`.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import Any, Protocol, TypeVar

from koubou_panel.core.commands import Caller, Command
from koubou_panel.core.curve import Curve
from koubou_panel.core.events import MetricsSampled, Sample
from koubou_panel.core.ids import TaskIds
from koubou_panel.core.ports import (
    MOST_SPANS,
    Link,
    OutputBytes,
    OutputHits,
    OutputMatches,
    OutputPage,
    OutputRemoved,
    OutputSearch,
    RunSpans,
    ScriptText,
    ScriptVersion,
    Shop,
    Subscriber,
    TaskPage,
    TaskQuery,
)
from koubou_panel.core.records import Metrics, Task, TaskId
from koubou_panel.core.state import Snapshot, State
from koubou_panel.errors import CorruptStream, Refused
from koubou_panel.notebook.loop_thread import SHUT, LoopThread
from koubou_panel.notebook.relay import BACKLOG, News, Relay
from koubou_panel.wire.link import Facts, Reset
from koubou_panel.wire.replica import Replica

T = TypeVar("T")

log = logging.getLogger(__name__)


class HoppedShop:
    """The workshop of another thread, with a state of its own. Only for the loop that it was made on.

    Everything that becomes durable there comes over in order and is folded again here; every question and command
    goes over and is waited for here. So a subscriber finds what a `Shop` promises, and nothing is shared but records
    that do not change. Made and ended by `Hops`.
    """

    def __init__(
        self, shop: Shop, thread: LoopThread, *, end: Callable[[HoppedShop], None], most: int = BACKLOG
    ) -> None:
        """Copy the state and follow from that moment on; waits for the workshop's thread."""
        self.loop = asyncio.get_running_loop()
        self.users = 0
        self._shop = shop
        self._thread = thread
        self._end = end
        self._replica = Replica()
        self._subscribers: list[Subscriber] = []
        self._calls: set[Future[Any]] = set()
        self._ids = TaskIds()
        self.is_over = False
        self._relay = Relay(self._wake, most)
        self._unsubscribe: Callable[[], None] = thread.call(self._begin())
        self.catch_up()

    async def _begin(self) -> Callable[[], None]:
        """On the workshop's loop: the copy and the subscription are of one moment."""
        return self._shop.subscribe(self._relay)

    def release(self) -> None:
        """Say that one of its users is done with it; the last one ends it."""
        self._end(self)

    def close(self) -> None:
        """Follow no more; whoever still waits for an answer is refused."""
        self._over()
        with suppress(RuntimeError):  # the workshop's loop has ended, and its subscriptions with it
            self._thread.loop.call_soon_threadsafe(self._unsubscribe)

    def shut(self) -> None:
        """Tell that the workshop has ended. On the workshop's thread."""
        with suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self._shut)

    def _shut(self) -> None:
        self.catch_up()
        self._over()
        self._tell(lambda subscriber: subscriber.on_samples(()))  # who shows the link looks at it

    def _over(self) -> None:
        self.is_over = True
        for call in tuple(self._calls):
            call.cancel()

    # -- what comes over --------------------------------------------------------------------------------------

    def _wake(self) -> None:
        """On the workshop's loop: have what waits be taken."""
        try:
            self.loop.call_soon_threadsafe(self.catch_up)
        except RuntimeError:  # that loop was closed: nobody is there any more
            self._thread.loop.call_soon(self._unsubscribe)
            self._end(self)

    def catch_up(self) -> None:
        """Take in at once what waits here; it happens by itself when the loop turns."""
        if self.is_over:
            return
        try:
            for piece in self._relay.take():
                self._take(piece)
        except CorruptStream:
            log.exception("what came from the workshop's thread does not fit; its state is copied anew")
            self._relay.drop()
        if self._relay.ask():
            with suppress(RuntimeError):
                self._thread.loop.call_soon_threadsafe(self._renew)

    def _renew(self) -> None:
        """On the workshop's loop: copy the state again."""
        self._relay.on_reset(self._shop.state)

    def _take(self, news: News) -> None:
        if isinstance(news, Snapshot):
            self._replica.reset(Reset(news, more=False))
            self._tell(lambda subscriber: subscriber.on_reset(self.state))
        elif isinstance(news, Facts):
            if folded := self._replica.fold(news):
                self._tell(lambda subscriber: subscriber.on_facts(folded))
        else:
            samples = [sample for sample in news.samples if not self._has(sample)]
            self._replica.fold_samples(samples)
            self._tell(lambda subscriber: subscriber.on_samples(samples))

    def _has(self, sample: Sample) -> bool:
        """Whether the copy of the state held it already: it was folded there, and not yet told."""
        if not isinstance(sample, MetricsSampled):
            return False
        return any(sample.metrics is held for held in self.state.metrics)

    def _tell(self, tell: Callable[[Subscriber], None]) -> None:
        for subscriber in tuple(self._subscribers):
            try:
                tell(subscriber)
            except Exception:
                log.exception("a subscriber failed and was dropped")
                self._subscribers.remove(subscriber)

    # -- what goes over ---------------------------------------------------------------------------------------

    async def _hop(self, work: Coroutine[Any, Any, T]) -> T:
        """What `work` gives on the workshop's loop.

        Raises:
            Refused: `unavailable`: the workshop was shut down; or what `work` raises.
        """
        try:
            call = self._thread.start(work)
        except RuntimeError:
            work.close()
            raise Refused("unavailable", SHUT) from None
        self._calls.add(call)
        try:
            return await asyncio.wrap_future(call)
        except asyncio.CancelledError:
            if self.is_over or self._thread.is_closed:
                raise Refused("unavailable", SHUT) from None
            raise
        finally:
            self._calls.discard(call)

    # -- the Shop door ----------------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """The state as it has come over, to read; never to change."""
        return self._replica.state

    @property
    def link(self) -> Link:
        """How fresh the workshop's own state is; `closed` once it was shut down."""
        link = self._shop.link  # a few attributes that are read, so not a matter of threads
        return Link("closed", link.lag_s) if self.is_over or self._thread.is_closed else link

    def next_id(self) -> TaskId:
        """A new id for a task that is about to be submitted."""
        return self._ids.make(time.time(), secrets.randbits(30))

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Follow the workshop; calling the result ends it."""
        self._subscribers.append(subscriber)
        subscriber.on_reset(self.state)

        def unsubscribe() -> None:
            if subscriber in self._subscribers:
                self._subscribers.remove(subscriber)

        return unsubscribe

    @property
    def subscribers(self) -> int:
        """How many follow."""
        return len(self._subscribers)

    async def do(self, command: Command, caller: Caller) -> TaskId | None:
        """Carry out `command`; the state has it when this returns, unless this loop is held up."""
        return await self._hop(self._shop.do(command, caller))

    async def do_many(self, commands: Sequence[Command], caller: Caller) -> list[TaskId | Refused | None]:
        """Carry out many commands in order; see `core.ports.Shop.do_many`."""
        return await self._hop(self._shop.do_many(commands, caller))

    async def find(self, query: TaskQuery) -> TaskPage:
        """Tasks by query, from the archive."""
        return await self._hop(self._shop.find(query))

    async def get(self, task_id: TaskId) -> Task | None:
        """One task, finished long ago or not."""
        return await self._hop(self._shop.get(task_id))

    async def values(self, task_ids: Sequence[TaskId]) -> list[bytes]:
        """The opaque results of finished tasks, in that order."""
        return await self._hop(self._shop.values(task_ids))

    async def read_output(self, task_id: TaskId, offset: int, limit: int) -> OutputPage:
        """Output as text; see `core.ports.Shop.read_output`."""
        return await self._hop(self._shop.read_output(task_id, offset, limit))

    async def read_bytes(self, task_id: TaskId, offset: int, limit: int) -> OutputBytes:
        """Output as it was printed, byte for byte."""
        return await self._hop(self._shop.read_bytes(task_id, offset, limit))

    async def curve(self, task_id: TaskId) -> Curve | None:
        """What a task's last run uses, or used, over time; see `core.ports.Shop.curve`."""
        return await self._hop(self._shop.curve(task_id))

    async def metrics_binned(self, at: float, step_s: float) -> list[Metrics]:
        """The host since the UTC second `at` in spans; see `core.ports.Shop.metrics_binned`."""
        return await self._hop(self._shop.metrics_binned(at, step_s))

    async def metrics_since(self, at: float) -> list[Metrics]:
        """Samples of the host since the UTC second `at`, oldest first."""
        return await self._hop(self._shop.metrics_since(at))

    async def spans(self, start: float, end: float, most: int = MOST_SPANS) -> RunSpans:
        """The runs that ended between two UTC seconds, or stood over them; see `core.ports.Shop.spans`."""
        return await self._hop(self._shop.spans(start, end, most))

    async def read_script(self, name: str, version: str | None = None) -> ScriptText:
        """A script's text, as its file holds it, or of an earlier version."""
        return await self._hop(self._shop.read_script(name, version))

    async def script_versions(self, name: str) -> list[ScriptVersion]:
        """The texts that are kept of a script, newest first."""
        return await self._hop(self._shop.script_versions(name))

    async def save_script_text(self, name: str, text: str, base: str, caller: Caller) -> str:
        """Save a script's text; see `core.ports.Shop.save_script_text`."""
        return await self._hop(self._shop.save_script_text(name, text, base, caller))

    async def restore_script(self, name: str, version: str, base: str, caller: Caller) -> str:
        """Save a kept version as the present text; its whole version."""
        return await self._hop(self._shop.restore_script(name, version, base, caller))

    async def search_output(self, script: str, text: str, limit: int = 100) -> OutputMatches:
        """Lines with `text` in the output of a script's runs, newest run first."""
        return await self._hop(self._shop.search_output(script, text, limit))

    async def search_logs(self, search: OutputSearch) -> OutputHits:
        """Lines in the output of tasks; see `core.ports.Shop.search_logs`."""
        return await self._hop(self._shop.search_logs(search))

    async def held_output(self, task_ids: Sequence[TaskId]) -> list[int]:
        """How many bytes of output are held of each of these tasks."""
        return await self._hop(self._shop.held_output(task_ids))

    async def remove_output(self, script: str, caller: Caller) -> OutputRemoved:
        """Remove what the runs of a script that have ended printed."""
        return await self._hop(self._shop.remove_output(script, caller))


class Hops:
    """A workshop's doors on other loops: one for each loop where somebody uses one. Any thread.

    Args:
        shop: the workshop, on the loop of `thread`.
        thread: where it is.
    """

    def __init__(self, shop: Shop, thread: LoopThread) -> None:
        """With none made."""
        self._shop: Shop | None = shop
        self._thread = thread
        self._lock = threading.Lock()
        self._made: dict[asyncio.AbstractEventLoop, HoppedShop] = {}

    def __len__(self) -> int:
        """How many loops have one."""
        return len(self._made)

    def acquire(self) -> HoppedShop:
        """The door for the running loop; it lasts until `release` was called on it as often as this was.

        The first one on a loop waits for a turn of the workshop's thread, a millisecond or so.

        Raises:
            RuntimeError: no loop runs here; the workshop was shut down; or this is the workshop's own thread.
        """
        loop = asyncio.get_running_loop()
        hopped = self._made.get(loop)
        if hopped is None:  # nobody else makes one for this loop meanwhile: it runs this
            shop = self._shop
            if shop is None:
                raise RuntimeError(self._thread.why)
            hopped = HoppedShop(shop, self._thread, end=self._released)
            with self._lock:
                self._made[loop] = hopped
        hopped.users += 1
        return hopped

    def shut(self) -> None:
        """Tell every loop that the workshop has ended, and let go of it. On the workshop's thread.

        What was shown under cells keeps this for as long as the kernel runs, and must not keep all tasks with it.
        """
        self._shop = None
        with self._lock:
            made = list(self._made.values())
        for hopped in made:
            hopped.shut()

    def _released(self, hopped: HoppedShop) -> None:
        """One user less; no user is left where its loop was closed."""
        hopped.users = 0 if hopped.loop.is_closed() else hopped.users - 1
        if hopped.users <= 0:
            with self._lock:
                if self._made.get(hopped.loop) is hopped:
                    del self._made[hopped.loop]
            hopped.close()


class HasHops(Protocol):
    """What `hopped` needs of a workshop."""

    @property
    def hops(self) -> Hops:
        """Its doors on other loops."""


@contextmanager
def hopped(workshop: HasHops) -> Iterator[HoppedShop]:
    """The door to `workshop` for the running loop, for the length of a block.

    Raises:
        RuntimeError: as of `Hops.acquire`.
    """
    shop = workshop.hops.acquire()
    try:
        yield shop
    finally:
        shop.release()
