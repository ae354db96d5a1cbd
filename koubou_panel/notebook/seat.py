"""One handle's end of a workshop: the thread that it lives on, who waits for what, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from concurrent.futures import Future

from koubou_panel.core.commands import Caller, CloseShop, Command, SubmitTask
from koubou_panel.core.ports import Shop
from koubou_panel.core.records import Request, Task, TaskId
from koubou_panel.errors import Refused
from koubou_panel.home import Home
from koubou_panel.notebook import living
from koubou_panel.notebook.canceller import Canceller
from koubou_panel.notebook.future import Keeper, TaskFuture
from koubou_panel.notebook.hop import Hops
from koubou_panel.notebook.loop_thread import LoopThread
from koubou_panel.notebook.opening import Held, opened
from koubou_panel.notebook.patience import Patience
from koubou_panel.notebook.results import SHUT, Results, settle_rest
from koubou_panel.notebook.sender import Sender
from koubou_panel.notebook.shared_lock import SharedLock
from koubou_panel.shop.idle import WATCH_S, Idle, until_removed
from koubou_panel.shop.local import LocalShop
from koubou_panel.shop.remote import RemoteShop

REMOVED = (
    "the workshop's folder {root} was removed while it was open: it takes no more, and ends with what runs; "
    "koubou_panel.Workshop() opens another"
)
AFTER_SHUTDOWN = "cannot schedule new futures after shutdown"
FORKED = (
    "this process was forked from the one that opened the workshop (pid {pid}), whose handle is of no use here; "
    "open another with koubou_panel.Workshop()"
)

log = logging.getLogger(__name__)


class Seat:
    """What a `Workshop` has on its thread. It knows nothing of the `Workshop`, so that one can be garbage before it.

    Args:
        home: the workshop's folder.
        workers: (least, most), where it is held here.
        caller: who asks.

    Raises:
        HomeTaken, Refused: as of `opened`.
    """

    shop: Shop
    sender: Sender
    canceller: Canceller
    hops: Hops

    def __init__(self, home: Home, workers: tuple[int, int] | None, caller: Caller) -> None:
        self.home = home
        self.caller = caller
        self.condition = SharedLock()
        self.futures: dict[TaskId, TaskFuture] = {}
        self.is_shut = False
        self._pid = os.getpid()
        self.is_abandoned = False
        self._why = AFTER_SHUTDOWN
        self._held: Held | None = None
        living.wait_for_ending(home.root)
        self.thread = LoopThread()
        living.add(self)
        opening = self.thread.start(self._open(workers))
        try:
            opening.result()
        except BaseException as error:
            # An opening that is cut off half-way would leave a locked home behind: it is let through, and undone.
            self.is_shut = True
            self.thread.end(self._undo(opening))
            if isinstance(error, Exception):
                self.thread.join()
            raise

    async def _open(self, workers: tuple[int, int] | None) -> None:
        shop, self._held = await opened(self.home, by=self.caller.by, workers=workers)
        self._results = Results(shop, self.futures)
        shop.subscribe(self._results)
        self.hops = Hops(shop, self.thread)
        self.sender = Sender(shop, loop=self.thread.loop, caller=self.caller, futures=self.futures)
        self.canceller = Canceller(shop, loop=self.thread.loop, caller=self.caller, sender=self.sender)
        self.shop = shop
        if isinstance(shop, RemoteShop):
            Patience(shop, self.futures)
        else:
            self._watching = asyncio.create_task(self._watch_home(shop))

    # -- asking -----------------------------------------------------------------------------------------------

    def check_open(self) -> None:
        """Check that tasks may be sent.

        Raises:
            RuntimeError: it was shut down; or this process was forked from its own.
        """
        if self.is_shut:
            raise RuntimeError(self._why)

    def check_may_wait(self) -> None:
        """Check that this thread may wait for a task.

        Raises:
            RuntimeError: it is the workshop's own; or this process was forked from the workshop's.
        """
        if self.is_abandoned:
            raise RuntimeError(self._why)
        self.thread.check_may_wait()

    def send(self, request: Request, keeper: Keeper) -> TaskFuture:
        """Submit a task; any thread. An interrupt leaves it sent, or unheard of."""
        self.check_open()
        future = TaskFuture(request.task_id, keeper)
        self.sender.put(SubmitTask(request), future)
        return future

    def cancel(self, task_id: TaskId) -> None:
        """Ask for the end of a task; what has already ended stays as it is. Any thread; does not wait."""
        if self.thread.is_closed:
            raise RuntimeError(self.thread.why)
        self.canceller.put(task_id)

    async def do(self, command: Command) -> None:
        """Carry out a command after what was submitted and cancelled before it."""
        await self.sender.sent(TaskId(""))
        await self.canceller.all_sent()
        await self.shop.do(command, self.caller)

    # -- tasks as they stand ----------------------------------------------------------------------------------

    def record(self, task_id: TaskId) -> Task | None:
        """A task as it stands, or where nobody can be asked (in a callback, after the end) as it was last heard of."""
        found = self.shop.state.tasks.get(task_id)  # one step for the interpreter, so not a matter of threads
        if found is not None or self.thread.is_here or self.thread.is_closed:
            return found
        return self.thread.call(self.find(task_id))

    async def find(self, task_id: TaskId) -> Task | None:
        """The task that has this id, after what was submitted before."""
        await self.sender.answered(task_id)
        return await self.shop.get(task_id)

    def recall(self, task_id: TaskId, keeper: Keeper) -> TaskFuture:
        """The future of a task that is known already: the one that waits for it, or a new one.

        Raises:
            Refused: `not_found`: no such task.
            RuntimeError: as of `LoopThread.call`.
        """
        return self.thread.call(self._recall(task_id, keeper))

    async def _recall(self, task_id: TaskId, keeper: Keeper) -> TaskFuture:
        task = await self.find(task_id)
        if task is None:
            raise Refused("not_found", f"no task {task_id!r} in {self.home.root}", field="task_id")
        waiting = self.futures.get(task_id)
        if waiting is None:
            waiting = self.futures[task_id] = TaskFuture(task_id, keeper, is_own=False)
            now = self.shop.state.tasks.get(task_id, task)
            if task.is_finished or now.is_finished:
                self._results.fetch_soon([task_id])
        return waiting

    async def until_idle(self, timeout_s: float | None) -> None:
        """Wait until nothing runs.

        Raises:
            TimeoutError: something does after `timeout_s` seconds.
        """
        idle = Idle()
        unsubscribe = self.shop.subscribe(idle)
        try:
            async with asyncio.timeout(timeout_s):
                await idle.event.wait()
        finally:
            unsubscribe()

    async def _watch_home(self, shop: LocalShop) -> None:
        """Once the home's folder is removed, take nothing, and end with what runs: nothing that is told would last."""
        await until_removed(self.home)
        if self.thread.is_closed:  # `_close` has let go of the home by itself
            return
        self.is_shut = True
        self._why = self.thread.why = REMOVED.format(root=self.home.root)
        log.warning("%s", self._why)
        try:
            await self._run_out(shop)
        finally:
            self.thread.end(self._close())

    async def _run_out(self, shop: LocalShop) -> None:
        """Begin nothing more, and wait for what runs, as long as its end can be noted."""
        await self.sender.all_sent()
        with contextlib.suppress(Refused):
            await shop.do(CloseShop(), self.caller)
        tasks = shop.state.tasks
        waiting = [name for name in self.futures if name in tasks and tasks[name].status == "pending"]
        settle_rest({name: self.futures.pop(name) for name in waiting}, shop.state, self._why_ended())
        while shop.state.counts["in_progress"] and not shop.hub.is_failing:  # noqa: ASYNC110 - either may be
            await asyncio.sleep(WATCH_S)

    def _why_ended(self) -> str:
        """Why a future ends before its task, in words that `settle_rest` takes."""
        return SHUT if self._why == AFTER_SHUTDOWN else self._why.replace("{", "{{").replace("}", "}}")

    # -- its end ----------------------------------------------------------------------------------------------

    def shut(self, *, cancel_pending: bool = False) -> None:
        """Take no more, and end once all own tasks have; any thread, does not wait."""
        is_first, self.is_shut = not self.is_shut, True
        with contextlib.suppress(RuntimeError):  # it ends already
            if cancel_pending:
                self.thread.start(self._cancel_pending())
            if is_first:
                self.thread.start(self._finish())

    def leave(self) -> None:
        """Take no more, and end now; any thread, does not wait."""
        self.is_shut = True
        self.thread.end(self._close())

    def join(self) -> None:
        """Wait until it has ended; any thread but its own."""
        self.thread.join()

    @property
    def is_ending(self) -> bool:
        """Whether it is about to let go of its home."""
        return self.thread.is_closed

    @property
    def holds(self) -> bool:
        """Whether the workshop is held by this process, and open."""
        return self._held is not None and not self.thread.is_closed

    async def _cancel_pending(self) -> None:
        await self.sender.all_sent()
        own = [task_id for task_id, future in self.futures.items() if future.is_own]
        await self.canceller.cancel(own, only_pending=True)

    async def _finish(self) -> None:
        """End the workshop's thread when no future of its own waits any more; this is cancelled with it."""
        await self.sender.all_sent()
        while own := [future for future in self.futures.values() if future.is_own]:
            await _settled(own[0])
        self.thread.end(self._close())

    async def _undo(self, opening: Future[None]) -> None:
        """Undo an opening that nobody waits for any more."""
        with contextlib.suppress(Exception):
            await asyncio.wrap_future(opening)
        if hasattr(self, "shop"):
            await self._close()

    async def _close(self) -> None:
        try:
            await self.sender.all_sent()
            # First: who is attached is to see what becomes of his tasks.
            await self.shop.close()  # type: ignore[attr-defined]
            if self._held is not None:
                await self._held.close()
            self.home.unlock()
        finally:
            self.hops.shut()
            settle_rest(self.futures, self.shop.state, self._why_ended())
            self.sender.refuse_rest(RuntimeError(self._why))

    # -- a fork of this process ---------------------------------------------------------------------------------

    def abandon(self) -> None:
        """This process is a fork: let go of what the thread had open, which is not here, and refuse everything."""
        self.is_shut = self.is_abandoned = True
        self._why = FORKED.format(pid=self._pid)
        self.condition._at_fork_reinit()  # type: ignore[attr-defined] # noqa: SLF001 - as threading does for its own
        self.thread.abandon(self._why)
        self.home.unlock()  # this process's descriptor of the lock; the other's holds it


async def _settled(future: TaskFuture) -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    future.add_done_callback(lambda _: loop.call_soon_threadsafe(ended.set))
    await ended.wait()
