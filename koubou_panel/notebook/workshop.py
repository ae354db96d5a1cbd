"""`Workshop`: the workshop in Python. It attaches to the running one of its home, or holds one here.

Everything of the shop happens on one thread with a loop of its own (`seat.py`), so that a blocked caller (a notebook's
kernel, a script in `result()`) never stops it. Callers hand work over through a deque and one wake-up.
"""

from __future__ import annotations

import os
import random
import threading
import time
import weakref
from collections.abc import Callable, Coroutine, Iterable, Iterator
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from koubou_panel.core.commands import Caller
from koubou_panel.core.ids import TaskIds
from koubou_panel.core.ports import Shop
from koubou_panel.core.records import OnCrash, Request, TaskId
from koubou_panel.errors import Refused
from koubou_panel.home import Home
from koubou_panel.kinds.call import Desk
from koubou_panel.kinds.packing import pickled_function
from koubou_panel.kinds.warm import present_folder
from koubou_panel.notebook import living
from koubou_panel.notebook.calls import CallerPath, in_order, name_of
from koubou_panel.notebook.current import CURRENT
from koubou_panel.notebook.future import TaskFuture
from koubou_panel.notebook.hop import Hops
from koubou_panel.notebook.looking import Looking
from koubou_panel.notebook.lookup import TaskAccess
from koubou_panel.notebook.opening import usual_home
from koubou_panel.notebook.options import request_fields
from koubou_panel.notebook.pool import PoolControl
from koubou_panel.notebook.references import INSIDE
from koubou_panel.notebook.requests import (
    check_home,
    checked_workers,
    command_request,
    function_fields,
    prompt_request,
    unpicklable,
    with_options,
)
from koubou_panel.notebook.seat import Seat
from koubou_panel.notebook.shared_lock import SharedLock
from koubou_panel.shop.remote import RemoteShop

T = TypeVar("T")


class Workshop(TaskAccess, PoolControl, Looking, Executor):
    """A workshop, with the face of a `concurrent.futures.Executor`.

    It is open until `shutdown`, the end of a `with` block, or of the interpreter, or until nothing refers to it and
    none of its tasks is left.

    Args:
        home: the folder of the workshop; the usual one where not given.
        workers: how many workers, or (least, most); used when the workshop is held here.

    Raises:
        HomeTaken: another process holds the home and does not answer.
        Refused: `version`: the workshop that runs is of another version.
        TypeError: an argument is of another type.
        ValueError: no worker.
    """

    def __init__(
        self, home: str | Path | None = None, *, workers: int | tuple[int, int] | None = None
    ) -> None:
        workers = checked_workers(workers)
        check_home(home)
        self.home = Home(Path(home) if home is not None else usual_home())
        self._ids = TaskIds()
        self._chance = random.Random()  # noqa: S311 - ids are names, not secrets
        self._ids_lock = threading.Lock()
        self._path = CallerPath()
        self._desk = Desk(self.home.values, self._path.folders, present_folder)
        self._seat = Seat(self.home, workers, Caller(f"python:{os.getpid()}"))
        # Of one process, the handle that holds the workshop is open as long as those that are attached to it.
        self._holder = living.holder_of(self.home.root) if self.is_attached else None
        living.add_holder(self)
        CURRENT.note(self)
        weakref.finalize(self, self._seat.shut).atexit = False

    # -- asking -----------------------------------------------------------------------------------------------

    def submit(self, fn: Callable[..., object], /, *args: object, **kwargs: object) -> TaskFuture:
        """Run `fn(*args, **kwargs)` as a task.

        A future of this workshop among the arguments, however deep, stands for its result: the task waits for it. What
        cannot be pickled is the future's exception, a `Refused`.

        Raises:
            TypeError: a future of another workshop or executor is among the arguments.
            RuntimeError: the workshop was shut down.
        """
        return self._submit_function(fn, args, kwargs, {})

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
        return self._submit_function(fn, args, kwargs, options)

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
    ) -> Iterator[T]:
        """`fn` over `zip(*iterables)`, each call a task; results in order, as they come.

        What is left when an error, or an interrupt, ends the wait for them is cancelled.

        Args:
            fn, iterables: as for the built-in `map`.
            timeout: how long to wait for all results, seconds from now.
            chunksize: 1 or more; short tasks are handed to workers many at a time anyhow.

        Raises:
            ValueError: a chunk of nothing.
        """
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        self._seat.check_open()
        deadline = None if timeout is None else time.monotonic() + timeout
        try:
            function, name = pickled_function(fn, INSIDE), name_of(fn)
        except Refused as refused:
            return in_order([self._refused(refused)], deadline)
        futures: list[TaskFuture] = []
        try:
            futures.extend(
                self._submit(function, name, args, {}, {}) for args in zip(*iterables, strict=False)
            )
        except BaseException:
            for future in futures:
                future.cancel()
            raise
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
            cwd, env: its working folder, the present one unless given; its variables, beside those that any task of
                the workshop is given (docs/security.md).
            name, priority, timeout_s, retries, on_crash: as `submit_with` has them.
            stdin: whether it waits for input, which the future's `send_input` gives.
            options: any other of `submit_with`: `after=`, `memory=`, ...

        Raises:
            Refused: the command cannot be one.
            TypeError: an unknown option, or an argument of a wrong type.
            ValueError: with input, it is to be tried again.
        """
        told = {
            "name": name,
            "priority": priority,
            "timeout_s": timeout_s,
            "retries": retries,
            "on_crash": on_crash,
        }
        return self._send(
            command_request(
                self._next_id(), command, cwd=cwd, env=env, stdin=stdin, options=options | told, keeper=self
            )
        )

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
        return self._send(prompt_request(self._next_id(), told, options, self))

    # -- the workshop itself ----------------------------------------------------------------------------------

    @property
    def shop(self) -> Shop:
        """The door to the workshop; use it on the workshop's loop, through `call`."""
        return self._seat.shop

    @property
    def hops(self) -> Hops:
        """Its doors on other loops."""
        return self._seat.hops

    @property
    def condition(self) -> SharedLock:
        """What all its futures share."""
        return self._seat.condition

    @property
    def is_attached(self) -> bool:
        """Whether the workshop is held by another handle, as a rule in another process."""
        return isinstance(self.shop, RemoteShop)

    @property
    def is_shut(self) -> bool:
        """Whether it takes no work any more."""
        return self._seat.is_shut

    @property
    def holds(self) -> Path | None:
        """The folder of the workshop that this handle holds; None: it is attached, or shut."""
        return self.home.root if self._seat.holds else None

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the workshop's loop and wait for it.

        Raises:
            RuntimeError: the workshop was shut down; or this is a future's callback, where nothing may wait.
        """
        return self._seat.thread.call(work)

    def check_may_wait(self) -> None:
        """Check that this thread may wait for a task: a future's callback may not.

        Raises:
            RuntimeError: it may not, or this process is a fork of the workshop's.
        """
        self._seat.check_may_wait()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002 - Executor's own signature
        """Take no more; once the tasks of this handle have ended, leave or end the workshop.

        While the pool is paused or drained, tasks that have not begun wait until somebody resumes it. Who is
        interrupted while it waits, waits no more; the shutdown goes on.

        Args:
            wait: whether to wait for that; the end of the interpreter does in any case.
            cancel_futures: whether to cancel the tasks that have not begun.
        """
        if wait:
            self._seat.thread.check_may_wait()
        self._seat.shut(cancel_pending=cancel_futures)
        if wait:
            self._seat.join()

    def leave(self) -> None:
        """Take no more and leave at once: futures of tasks that have not ended raise `TaskFailure`.

        The tasks go on where the workshop is another's. One that is held here ends, with what runs; what has not begun
        does when the home is opened again.
        """
        self._seat.thread.check_may_wait()
        self._seat.leave()
        self._seat.join()

    def __reduce__(self) -> NoReturn:
        """Say that it stays here.

        Raises:
            TypeError: always.
        """
        raise TypeError(
            "a Workshop stays in its process; what needs one elsewhere opens its own: koubou_panel.Workshop()"
        )

    # -- sending ----------------------------------------------------------------------------------------------

    def _next_id(self) -> TaskId:
        with self._ids_lock:
            return self._ids.make(time.time(), self._chance.getrandbits(30))

    def _submit_function(
        self,
        fn: Callable[..., object],
        args: tuple[object, ...],
        kwargs: dict[str, object],
        options: dict[str, Any],
    ) -> TaskFuture:
        self._seat.check_open()
        # Before anything is written: large arguments of a task that is never one would be left behind.
        told = request_fields(options, self) if options else {}
        try:
            function = pickled_function(fn, INSIDE)
        except Refused as refused:
            return self._refused(refused)
        return self._submit(function, name_of(fn), args, kwargs, told)

    def _submit(
        self,
        function: bytes,
        name: str,
        args: tuple[object, ...],
        kwargs: dict[str, object],
        told: dict[str, Any],
    ) -> TaskFuture:
        task_id = self._next_id()
        self._path.refresh()
        try:
            fields = function_fields(task_id, function, args, kwargs, desk=self._desk, keeper=self)
        except Refused as refused:
            return self._refused(refused)
        if told:
            fields = with_options(fields, told)
        return self._send(
            Request(task_id=task_id, kind="function", created_at=0.0, **({"name": name} | fields))
        )

    def _send(self, request: Request) -> TaskFuture:
        return self._seat.send(request, self)

    def _refused(self, refused: Refused) -> TaskFuture:
        """The future of a task that was never one."""
        future = TaskFuture(self._next_id(), self)
        future.set_exception(unpicklable(refused))
        return future
