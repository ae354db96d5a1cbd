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
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, TypeVar

from koubou_panel import registry, settings
from koubou_panel.core.commands import (
    Caller,
    CancelTask,
    Command,
    DrainPool,
    PausePool,
    ResumePool,
    ScaleWorkers,
    SubmitTask,
)
from koubou_panel.core.ids import TaskIds
from koubou_panel.core.ports import Shop
from koubou_panel.core.records import OnCrash, Request, Task, TaskId
from koubou_panel.errors import Refused
from koubou_panel.home import Home
from koubou_panel.kinds.function import pack, pickled_arguments, pickled_function, plain_arguments
from koubou_panel.notebook.calls import caller_path, in_order, name_of
from koubou_panel.notebook.future import TaskFuture
from koubou_panel.notebook.inputs import send_input
from koubou_panel.notebook.loop_thread import LoopThread
from koubou_panel.notebook.opening import Held, opened
from koubou_panel.notebook.options import request_fields
from koubou_panel.notebook.references import INSIDE, reducers
from koubou_panel.notebook.results import Results, settle_rest
from koubou_panel.notebook.sender import Sender
from koubou_panel.shop.idle import Idle
from koubou_panel.shop.remote import RemoteShop

T = TypeVar("T")


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
        self.condition = threading.Condition()
        self._futures: dict[TaskId, TaskFuture] = {}
        self._is_shut = False
        self._path = caller_path()
        self._thread = LoopThread()
        self._held: Held | None = None
        try:
            self._shop: Shop = self.call(self._open())
        except BaseException:
            self._thread.close()
            raise
        self._sender = Sender(self._shop, loop=self._thread.loop, caller=self._caller, futures=self._futures)
        atexit.register(self.shutdown)

    async def _open(self) -> Shop:
        shop, self._held = await opened(self.home, by=self._caller.by, workers=self._workers)
        shop.subscribe(Results(shop, self._futures))
        return shop

    # -- asking -----------------------------------------------------------------------------------------------

    def submit(self, fn: Callable[..., object], /, *args: object, **kwargs: object) -> TaskFuture:
        """Run `fn(*args, **kwargs)` as a task.

        A future of this workshop among the arguments, however deep, stands for its result: the task waits for it.

        Raises:
            Refused: it cannot be pickled.
            TypeError: a future of another workshop or executor is among the arguments.
            RuntimeError: the workshop was shut down.
        """
        return self._submit(pickled_function(fn, INSIDE), name_of(fn), args, kwargs, {})

    def submit_with(
        self,
        fn: Callable[..., object],
        /,
        *args: object,
        options: dict[str, Any],
        **kwargs: object,
    ) -> TaskFuture:
        """As `submit`, with options.

        Args:
            fn, args, kwargs: as for `submit`.
            options: `name`, `priority`, `timeout_s`, `retries`, `on_crash`, `labels`; `after`: futures or ids of tasks
                that must succeed first; `limits` (a `Limits`), or `memory`, `cpu_s`, `processes`, `output`, where
                sizes are bytes or texts such as `"2G"`.

        Raises:
            TypeError: an unknown option, or one of a wrong type.
            ValueError: a text that is no size.
        """
        return self._submit(pickled_function(fn, INSIDE), name_of(fn), args, kwargs, options)

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
    ) -> Iterator[T]:
        """`fn` over `zip(*iterables)`, each call a task; results in order, as they come."""
        deadline = None if timeout is None else time.monotonic() + timeout
        function, name = pickled_function(fn, INSIDE), name_of(fn)
        futures = [self._submit(function, name, args, {}, {}) for args in zip(*iterables, strict=False)]
        return in_order(futures, deadline)

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
        stdin: bool = False,
        **options: Any,
    ) -> TaskFuture:
        """Run a command as a task; the future's result is None, and it raises `TaskFailure` unless it exits with 0.

        Args:
            command: the program and its arguments.
            cwd, env: its working folder, the present one unless given, and its variables.
            name, priority, timeout_s, retries, on_crash: as `submit_with` has them.
            stdin: whether it waits for input, which the future's `send_input` gives.
            options: any other of `submit_with`: `after=`, `memory=`, ...

        Raises:
            Refused: the command cannot be one.
            TypeError: an unknown option, or one of a wrong type.
            ValueError: with input, it is to be tried again.
        """
        spec: dict[str, object] = {"command": list(command), "cwd": str(cwd or Path.cwd())}
        if env:
            spec["env"] = dict(env)
        if stdin:
            if retries or on_crash == "retry":
                raise ValueError(
                    "stdin: input that was read cannot be given to another try; leave out the retries"
                )
            spec["stdin"] = stdin
        told = {
            "name": name,
            "priority": priority,
            "timeout_s": timeout_s,
            "retries": retries,
            "on_crash": on_crash,
        }
        request = Request(
            task_id=self._next_id(),
            kind="script",
            created_at=0.0,
            spec=spec,
            **request_fields(options | told, self),
        )
        return self._send(registry.prepare(request, from_network=False))

    def prompt(
        self,
        text: str | list[dict[str, str]],
        *,
        model: str = "",
        system: str = "",
        schema: dict[str, Any] | None = None,
        max_tokens: int | None = None,
        temperature: float | None = None,
        seed: int | None = None,
        url: str = "",
        **options: Any,
    ) -> TaskFuture:
        """Ask a language model; the future's result is its answer, a text; `output` has it as it comes.

        Args:
            text: what is asked, or a conversation of `{"role": …, "content": …}`.
            model, url: which model, and at which server; else the first that answers on this machine.
            system: how the model is to behave.
            schema: a JSON schema; the answer is then JSON that fits it.
            max_tokens, temperature, seed: how long and how free the answer may be.
            options: those of `submit_with`: `timeout_s=`, `after=`, ...

        Raises:
            Refused: it cannot be asked, and which argument is wrong.
            TypeError: an unknown option, or one of a wrong type.
        """
        told = {
            "prompt" if isinstance(text, str) else "messages": text,
            "model": model,
            "system": system,
            "schema": schema,
            "max_tokens": max_tokens,
            "temperature": temperature,
            "seed": seed,
            "url": url,
        }
        request = Request(
            task_id=self._next_id(),
            kind="prompt",
            created_at=0.0,
            spec={name: value for name, value in told.items() if value is not None},
            **request_fields(options, self),
        )
        return self._send(registry.prepare(request, from_network=False))

    def task(self, task_id: TaskId) -> Task | None:
        """A task as it stands: in a future's callback, and after the shutdown, as it was last heard of."""
        if self._thread.is_here or self._thread.is_closed:
            return self._shop.state.tasks.get(task_id)
        return self.call(self._shop.get(task_id))

    def output(self, task_id: TaskId, offset: int = 0, limit: int = 1 << 20) -> str:
        """A task's output from byte `offset`, at most `limit` bytes."""
        return self.call(self._shop.read_output(task_id, offset, limit)).text

    def send_input(self, future: TaskFuture, data: bytes, *, is_last: bool = False) -> None:
        """Give input to the command of `future`; see `TaskFuture.send_input`."""
        self.call(send_input(self._shop, future, data, self._caller, is_last=is_last))

    # -- the workers ------------------------------------------------------------------------------------------

    def scale(self, least: int, most: int | None = None) -> None:
        """Have at least `least` and at most `most` workers; as many as `least` where `most` is not given.

        Raises:
            Refused: bounds that cannot be.
        """
        self._do(ScaleWorkers(least, least if most is None else most))

    def pause(self) -> None:
        """Start no new work until `resume`; what runs goes on, and work is taken."""
        self._do(PausePool())

    def drain(self, *, wait: bool = True, timeout: float | None = None) -> None:
        """Take and start no new work until `resume`; then wait until nothing runs.

        Raises:
            TimeoutError: something runs after `timeout` seconds; the drain goes on.
        """
        self._do(DrainPool())
        if wait:
            self.call(self._until_idle(timeout))

    def resume(self) -> None:
        """Take and start work again, after a pause or a drain."""
        self._do(ResumePool())

    def _do(self, command: Command) -> None:
        self.call(self._shop.do(command, self._caller))

    async def _until_idle(self, timeout_s: float | None) -> None:
        idle = Idle()
        unsubscribe = self._shop.subscribe(idle)
        try:
            async with asyncio.timeout(timeout_s):
                await idle.event.wait()
        finally:
            unsubscribe()

    @property
    def shop(self) -> Shop:
        """The door to the workshop; use it on the workshop's loop, through `call`."""
        return self._shop

    @property
    def is_attached(self) -> bool:
        """Whether the workshop is held by another process."""
        return isinstance(self._shop, RemoteShop)

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the workshop's loop and wait for it.

        Raises:
            RuntimeError: the workshop was shut down; or this is a future's callback, where nothing may wait.
        """
        return self._thread.call(work)

    def check_may_wait(self) -> None:
        """Check that this thread may wait for a task: a future's callback may not.

        Raises:
            RuntimeError: it may not.
        """
        self._thread.check_may_wait()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002 - Executor's own signature
        """Take no more; wait for this workshop's own tasks (or cancel them), then leave or end the workshop.

        While the pool is paused or drained, the wait for tasks that have not begun lasts until somebody resumes it.
        With `wait=False`, futures of tasks that have not ended raise `TaskFailure`; what becomes of the tasks is in the
        workshop's list.
        """
        self.check_may_wait()
        if self._is_shut:
            return
        self._is_shut = True
        atexit.unregister(self.shutdown)
        if cancel_futures:
            self.call(self._cancel_all())
        if wait:
            for future in list(self._futures.values()):
                with contextlib.suppress(BaseException):
                    future.exception()
        self._thread.close(self._close())

    async def _close(self) -> None:
        try:
            await self._sender.all_sent()
            if self._held is not None:
                await self._held.close()
            await self._shop.close()  # type: ignore[attr-defined]
            self.home.unlock()
        finally:
            settle_rest(self._futures, self._shop.state)

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
        found: dict[TaskId, None] = {}
        arguments = plain_arguments(args, kwargs)
        if arguments is None:
            arguments = pickled_arguments(args, kwargs, reducers(found, self))
        payload = pack(function, arguments, self._path)
        fields = {"name": name} | (request_fields(options, self) if options else {})
        if found:
            fields["after"] = tuple(dict.fromkeys((*fields.get("after", ()), *found)))
        return self._send(
            Request(task_id=self._next_id(), kind="function", created_at=0.0, payload=payload, **fields)
        )

    def _send(self, request: Request) -> TaskFuture:
        if self._is_shut:
            raise RuntimeError("cannot schedule new futures after shutdown")
        future = TaskFuture(request.task_id, self)
        self._futures[request.task_id] = future
        self._sender.put(SubmitTask(request), future)
        return future

    def cancel(self, task_id: TaskId) -> None:
        """Ask for the end of a task; what has already ended stays as it is. Any thread; does not wait.

        Raises:
            RuntimeError: the workshop was shut down.
        """
        self._thread.start(self._cancel(task_id))

    async def _cancel(self, task_id: TaskId) -> None:
        await self._sender.sent(task_id)
        with contextlib.suppress(Refused):
            await self._shop.do(CancelTask(task_id), self._caller)

    async def _cancel_all(self) -> None:
        await asyncio.gather(*map(self._cancel, list(self._futures)))
