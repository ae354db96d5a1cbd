"""`Workshop`: the workshop in Python. It attaches to the running one of its home, or holds one here.

Everything of the shop happens on one thread with a loop of its own, so that a blocked caller (a notebook's
kernel, a script in `result()`) never stops it. Callers hand work over through a deque and one wake-up.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import random
import sys
import sysconfig
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from koubou_panel import registry, settings
from koubou_panel.core.commands import Caller, CancelTask, SubmitTask
from koubou_panel.core.events import Sample, TaskCancelled, TaskCompleted, TaskFailed
from koubou_panel.core.fold import Folded, State
from koubou_panel.core.ids import TaskIds
from koubou_panel.core.ports import Shop
from koubou_panel.core.records import FINISHED, OnCrash, Request, Task, TaskId
from koubou_panel.errors import KoubouError, Refused, TaskFailure
from koubou_panel.home import Home, HomeTaken
from koubou_panel.kinds.function import pack, pickled_arguments, pickled_function
from koubou_panel.notebook.future import TaskFuture
from koubou_panel.servers.private import PrivateServer
from koubou_panel.shop.local import LocalShop
from koubou_panel.shop.remote import RemoteShop

T = TypeVar("T")
DRAIN_ITEMS = 512
START_LIMIT_S = 30.0


class Workshop(Executor):
    """A workshop, with the face of a `concurrent.futures.Executor`.

    Args:
        home: the folder of the workshop; the usual one where not given.
        workers: how many workers, or (least, most); used when the workshop is held here.

    Raises:
        HomeTaken: another process holds the home and does not answer.
        Refused: `version`: the workshop that runs is of another version.
    """

    def __init__(
        self, home: str | Path | None = None, *, workers: int | tuple[int, int] | None = None
    ) -> None:
        self.home = Home(Path(home) if home is not None else settings.load(os.environ).home)
        self._workers = (workers, workers) if isinstance(workers, int) else workers
        self._caller = Caller(f"python:{os.getpid()}")
        self._ids = TaskIds()
        self._chance = random.Random()  # noqa: S311 - ids are names, not secrets
        self._ids_lock = threading.Lock()
        self._futures: dict[TaskId, TaskFuture] = {}
        self._outbox: deque[tuple[SubmitTask, TaskFuture]] = deque()
        self._is_woken = False
        self._is_shut = False
        self._path = caller_path()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="koubou", daemon=True)
        self._thread.start()
        self._server: PrivateServer | None = None
        try:
            self._shop: Shop = self.call(self._open())
        except BaseException:
            self._stop_loop()
            raise
        atexit.register(self.shutdown)

    async def _open(self) -> Shop:
        self.home.prepare()
        deadline = time.monotonic() + START_LIMIT_S
        while True:
            try:
                shop = await self._open_once()
            except HomeTaken:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.1)
                continue
            shop.subscribe(_Results(self))
            return shop

    async def _open_once(self) -> Shop:
        try:
            return await RemoteShop.connect(self.home.socket, by=self._caller.by)
        except Refused as refusal:
            if refusal.code != "unavailable":  # somebody answers, and will answer the same next time
                raise
        self.home.lock()
        try:
            shop = await LocalShop.open(self.home, workers=self._workers)
        except BaseException:
            self.home.unlock()
            raise
        self._server = PrivateServer(shop, self.home.socket)
        await self._server.start()
        return shop

    # -- asking -----------------------------------------------------------------------------------------------

    def submit(self, fn: Callable[..., object], /, *args: object, **kwargs: object) -> TaskFuture:
        """Run `fn(*args, **kwargs)` as a task.

        Raises:
            Refused: it cannot be pickled.
            RuntimeError: the workshop was shut down.
        """
        return self._submit(pickled_function(fn), _name(fn), args, kwargs, {})

    def submit_with(
        self,
        fn: Callable[..., object],
        /,
        *args: object,
        options: dict[str, Any],
        **kwargs: object,
    ) -> TaskFuture:
        """As `submit`, with fields of the request: `priority`, `timeout_s`, `retries`, `on_crash`, `labels`, `name`."""
        return self._submit(pickled_function(fn), _name(fn), args, kwargs, options)

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
    ) -> Iterator[T]:
        """`fn` over `zip(*iterables)`, each call a task; results in order, as they come."""
        deadline = None if timeout is None else time.monotonic() + timeout
        function, name = pickled_function(fn), _name(fn)
        futures = [self._submit(function, name, args, {}, {}) for args in zip(*iterables, strict=False)]
        return _in_order(futures, deadline)

    def run(
        self,
        *command: str,
        cwd: str | Path | None = None,
        env: dict[str, str] | None = None,
        name: str = "",
        priority: int = 5,
        timeout_s: float | None = None,
        retries: int = 0,
        on_crash: OnCrash = "mark",
    ) -> TaskFuture:
        """Run a command as a task; the future's result is None, and it raises `TaskFailure` unless it exits with 0.

        Raises:
            Refused: the command cannot be one.
        """
        spec: dict[str, object] = {"command": list(command), "cwd": str(cwd or Path.cwd())}
        if env:
            spec["env"] = dict(env)
        request = Request(
            task_id=self._next_id(),
            kind="script",
            created_at=0.0,
            spec=spec,
            name=name,
            priority=priority,
            timeout_s=timeout_s,
            retries=retries,
            on_crash=on_crash,
        )
        return self._send(registry.prepare(request, from_network=False))

    def task(self, task_id: TaskId) -> Task | None:
        """A task as it stands."""
        return self.call(self._shop.get(task_id))

    def output(self, task_id: TaskId, offset: int = 0, limit: int = 1 << 20) -> str:
        """A task's output from byte `offset`, at most `limit` bytes."""
        return self.call(self._shop.read_output(task_id, offset, limit)).text

    @property
    def shop(self) -> Shop:
        """The door to the workshop; use it on the workshop's loop, through `call`."""
        return self._shop

    @property
    def is_attached(self) -> bool:
        """Whether the workshop is held by another process."""
        return isinstance(self._shop, RemoteShop)

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the workshop's loop and wait for it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002 - Executor's own signature
        """Take no more; wait for this workshop's own tasks (or cancel them), then leave or end the workshop."""
        if self._is_shut:
            return
        self._is_shut = True
        atexit.unregister(self.shutdown)
        if cancel_futures:
            for future in list(self._futures.values()):
                future.cancel()
        if wait:
            for future in list(self._futures.values()):
                with contextlib.suppress(BaseException):
                    future.exception()
        self.call(self._close())
        self._stop_loop()

    async def _close(self) -> None:
        if self._server is not None:
            await self._server.close()
        await self._shop.close()  # type: ignore[attr-defined]
        self.home.unlock()

    def _stop_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    # -- sending ----------------------------------------------------------------------------------------------

    def _next_id(self) -> TaskId:
        with self._ids_lock:
            return self._ids.make(time.time(), self._chance.getrandbits(30))

    def _submit(
        self,
        function: bytes,
        name: str,
        args: tuple[object, ...],
        kwargs: dict[str, object],
        options: dict[str, Any],
    ) -> TaskFuture:
        payload = pack(function, pickled_arguments(args, kwargs), self._path)
        fields: dict[str, Any] = {"name": name, **options}
        return self._send(
            Request(task_id=self._next_id(), kind="function", created_at=0.0, payload=payload, **fields)
        )

    def _send(self, request: Request) -> TaskFuture:
        if self._is_shut:
            raise RuntimeError("cannot schedule new futures after shutdown")
        future = TaskFuture(request.task_id, self._cancel)
        self._futures[request.task_id] = future
        self._outbox.append((SubmitTask(request), future))
        if not self._is_woken:
            self._is_woken = True
            self._loop.call_soon_threadsafe(self._drain)
        return future

    def _drain(self) -> None:
        self._is_woken = False
        pairs: list[tuple[SubmitTask, TaskFuture]] = []
        with contextlib.suppress(IndexError):
            while len(pairs) < DRAIN_ITEMS:
                pairs.append(self._outbox.popleft())
        if not pairs:
            return
        if isinstance(self._shop, LocalShop):
            for command, future in pairs:
                self._shop.submit_now(command, self._caller, partial(self._answer, future))
        else:
            self._loop.create_task(self._send_remote(pairs))
        if self._outbox and not self._is_woken:
            self._is_woken = True
            self._loop.call_soon(self._drain)

    async def _send_remote(self, pairs: list[tuple[SubmitTask, TaskFuture]]) -> None:
        answers = await self._shop.do_many([command for command, _ in pairs], self._caller)
        for (_, future), answer in zip(pairs, answers, strict=True):
            self._answer(future, answer)

    def _answer(self, future: TaskFuture, answer: object) -> None:
        if isinstance(answer, Refused):
            self._futures.pop(future.task_id, None)
            future.set_exception(answer)

    def _cancel(self, task_id: TaskId) -> None:
        async def cancel() -> None:
            with contextlib.suppress(Refused):
                await self._shop.do(CancelTask(task_id), self._caller)

        asyncio.run_coroutine_threadsafe(cancel(), self._loop)

    # -- results ----------------------------------------------------------------------------------------------

    def settle(self, folded: Sequence[Folded]) -> None:
        """Settle the futures whose tasks have ended. Loop thread only."""
        futures = self._futures
        fetch: list[TaskId] = []
        for fact, _, _ in folded:
            kind = type(fact)
            if kind is TaskCompleted or kind is TaskFailed or kind is TaskCancelled:
                task_id = fact.task_id  # type: ignore[union-attr]
                if task_id not in futures:
                    continue
                value = getattr(fact, "value", b"")
                if value:
                    futures.pop(task_id).settle(value)
                elif kind is TaskCancelled:
                    futures.pop(task_id).settle_cancelled()
                else:
                    fetch.append(task_id)
        if fetch:
            self._loop.create_task(self._fetch(fetch))

    async def _fetch(self, task_ids: list[TaskId]) -> None:
        """The values of tasks whose facts came without: from another process, or ended without one."""
        values = await self._shop.values(task_ids)
        for task_id, value in zip(task_ids, values, strict=True):
            future = self._futures.pop(task_id, None)
            if future is None:
                continue
            if value:
                future.settle(value)
                continue
            task = await self._shop.get(task_id)
            if task is not None and task.status == "failed":
                future.set_exception(failure_of(task))
            elif task is not None and task.status == "cancelled":
                future.settle_cancelled()
            else:
                future.set_result(None)

    def resume(self, state: State) -> None:
        """After a reset: fetch what ended meanwhile. Loop thread only."""
        ended = [
            task_id
            for task_id in self._futures
            if (task := state.tasks.get(task_id)) is not None and task.status in FINISHED
        ]
        if ended:
            self._loop.create_task(self._fetch(ended))


class _Results:
    """The workshop's own subscription: it settles futures."""

    def __init__(self, workshop: Workshop) -> None:
        self._workshop = workshop

    def on_reset(self, state: State) -> None:
        self._workshop.resume(state)

    def on_facts(self, folded: Sequence[Folded]) -> None:
        self._workshop.settle(folded)

    def on_samples(self, samples: Sequence[Sample]) -> None:
        """Futures do not care."""


def failure_of(task: Task) -> KoubouError:
    """The exception that stands for a failed task without a value."""
    fault = task.error
    return TaskFailure(
        task.message or "the task failed",
        task_id=task.task_id,
        reason=task.reason,
        exit_code=task.exit_code,
        error_type=fault.type if fault else None,
        traceback=fault.traceback if fault else None,
    )


def caller_path() -> list[str]:
    """The folders that a worker needs beyond its own to import what the caller imports."""
    own = tuple({sysconfig.get_paths()[key] for key in ("stdlib", "platstdlib", "purelib", "platlib")})
    folders = [os.path.abspath(folder) for folder in sys.path]  # noqa: PTH100 - a link stays a link
    return [
        folder
        for folder in dict.fromkeys(folders)
        if not folder.startswith(own) and not folder.endswith(".zip") and Path(folder).is_dir()
    ]


def _name(function: Callable[..., object]) -> str:
    name = getattr(function, "__qualname__", None) or type(function).__name__
    return str(name)[:100]


def _in_order(futures: list[TaskFuture], deadline: float | None) -> Iterator[Any]:
    try:
        futures.reverse()
        while futures:
            left_s = None if deadline is None else deadline - time.monotonic()
            yield futures.pop().result(left_s)
    finally:
        for future in futures:
            future.cancel()
