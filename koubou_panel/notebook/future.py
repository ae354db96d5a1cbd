"""A future whose value stays closed until somebody asks for it, in the thread that asks."""

from __future__ import annotations

import asyncio
from _thread import allocate_lock
from collections.abc import Generator, Iterable
from concurrent.futures import CancelledError, Future, InvalidStateError
from concurrent.futures._base import CANCELLED_AND_NOTIFIED, FINISHED, LOGGER, PENDING, RUNNING
from contextlib import suppress
from threading import TIMEOUT_MAX
from typing import Any, Protocol

from koubou_panel.core.records import Task, TaskId
from koubou_panel.errors import Refused, TaskFailure
from koubou_panel.home import Home
from koubou_panel.kinds.packing import RemoteTraceback, unpack_value
from koubou_panel.notebook.cells import with_cells
from koubou_panel.notebook.shared_lock import SharedLock
from koubou_panel.notebook.task import LiveTask

OPEN = (PENDING, RUNNING)
UNOPENED = TaskFailure("in a value that nobody has opened yet")


_OURS = (KeyboardInterrupt, MemoryError, OSError)


class Keeper(Protocol):
    """Who made a future: the workshop that its task is in."""

    home: Home

    @property
    def condition(self) -> SharedLock:
        """What all its futures share."""

    def cancel(self, task_id: TaskId | TaskFuture) -> None:
        """Ask for the task's end; that of a future is not looked for first."""

    def record(self, task_id: TaskId) -> Task | None:
        """The task as it stands."""

    def output(self, task_id: TaskId, offset: int = 0, limit: int | None = None) -> str:
        """What the task has printed."""

    def future(self, task_id: TaskId) -> TaskFuture:
        """The task's future."""

    def send_input(self, future: TaskFuture, data: bytes | str, *, is_last: bool = False) -> None:
        """Give input to a command."""

    def check_may_wait(self) -> None:
        """Raise RuntimeError where waiting would last for ever: on the thread that settles futures."""


class TaskFuture(Future[Any]):
    """The result of a task, to come. A `concurrent.futures.Future`, with the task's id; `await` works too."""

    _condition: SharedLock  # type: ignore[assignment] # see `__init__`

    def __init__(self, task_id: TaskId, keeper: Keeper, *, is_own: bool = True) -> None:
        """The future of `keeper`'s task `task_id`; `is_own`: a shutdown waits for it."""
        # Not by `Future.__init__`: its lock and condition are seven objects for the garbage collector to walk, and cost
        # more than all else of a submit. One condition serves all futures of a workshop, since nobody waits on it
        # (`_wait`); as its lock can be taken twice, `concurrent.futures.wait` may take it for each of many.
        self._condition = keeper.condition
        self._state = PENDING
        self._result = None
        self._exception = None
        self._waiters: list[Any] = []
        self._done_callbacks: list[Any] = []
        self.task_id = task_id
        self.keeper = keeper
        self.is_own = is_own
        self._value = b""
        self._words = ""

    def _repr_mimebundle_(
        self, include: Iterable[str] | None = None, exclude: Iterable[str] | None = None
    ) -> tuple[dict[str, str], dict[str, Any]]:
        """In a notebook: a live card, and a dated still for where nothing can be live."""
        from koubou_panel.notebook.display import task_bundle

        return task_bundle(self.keeper, self.task_id, include, exclude, future=self)

    def __repr__(self) -> str:
        """The task's id, and how it stands."""
        state = "running" if self.running() else self._state.partition("_")[0].lower()
        return f"<TaskFuture {self.task_id} {state}>"

    @property
    def task(self) -> LiveTask:
        """The task as it stands whenever it is looked at: its `status`, `progress`, `output`, ..."""
        return LiveTask(self.task_id, self.keeper)

    @property
    def output(self) -> str:
        """All that the task has printed and that is held."""
        return self.task.output

    def settle(self, value: bytes, *, succeeded: bool = True) -> None:
        """The task has ended with this opaque value: a result where it `succeeded`, else an exception. Any thread."""
        self._value = value
        if succeeded:
            self.set_result(None)
        else:
            self.set_exception(UNOPENED)

    def set_result(self, result: Any) -> None:
        """It has ended with this. Any thread.

        Raises:
            InvalidStateError: it had ended before.
        """
        self._end(FINISHED, result)

    def set_exception(self, exception: BaseException | None) -> None:
        """It has ended with this error. Any thread; raises as `set_result`."""
        self._end(FINISHED, None, exception)

    def _end(self, state: str, result: Any = None, error: BaseException | None = None) -> None:
        while True:
            with self._condition:
                if self._state not in OPEN:
                    raise InvalidStateError(f"{self._state}: {self!r}")
                if not self._condition.is_looked_at():
                    self._result, self._exception, self._state = result, error, state
                    for waiter in self._waiters:
                        _tell(waiter, self)
                    break
            self._condition.wait_turn()
        for callback in self._done_callbacks:
            try:
                callback(self)
            except BaseException:  # noqa: BLE001 - `result` may raise a task's SystemExit, which would end this thread
                LOGGER.exception("exception calling callback for %r", self)

    def running(self) -> bool:
        """Whether the task is at work now."""
        if self._state != PENDING:
            return self._state == RUNNING
        try:
            record = self.keeper.record(self.task_id)
        except Refused:  # nobody is there to run it
            return False
        return record is not None and record.status == "in_progress"

    def result(self, timeout: float | None = None) -> Any:
        """What the task returned.

        Raises:
            TimeoutError: it has not ended within `timeout` seconds.
            CancelledError: it was cancelled.
            DependencyFailed: a task that it was to follow did not succeed, so it was not started.
            TaskFailure: it ended without a result: killed, timed out, lost.
            BaseException: what the function raised, with the remote traceback as its cause.
        """
        self._wait(timeout)
        if self._value:
            self._open()
        if self._state != FINISHED:
            raise CancelledError(self._words)
        if self._exception is None:
            return self._result
        try:
            raise _fresh(self._exception)
        finally:
            # As the standard library does: the exception has this frame, which is not to have the exception.
            self = None  # type: ignore[assignment] # noqa: PLW0642

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """What the task raised, or None; also what keeps its result from being opened here."""
        self._wait(timeout)
        try:
            if self._value:
                self._open()
        except (MemoryError, OSError) as error:
            return error
        try:
            return super().exception(0)
        except CancelledError:
            raise CancelledError(self._words) from None

    def _open(self) -> None:
        """Open the value, once: whoever asks is given the same object."""
        value = self._value
        if not value:
            return
        try:
            result, error = unpack_value(value, self.keeper.home.values, self.task_id), None
        except BaseException as raised:
            if isinstance(raised, _OURS) and not isinstance(raised.__cause__, RemoteTraceback):
                raise  # of who opens it, not of the task: it may be asked for again
            result, error = None, _fresh(raised)
            if isinstance(raised.__cause__, RemoteTraceback):
                raised.__cause__.tb = with_cells(raised.__cause__.tb)
        with self._condition:
            if self._value:
                self._result, self._exception = result, error
                self._value = b""

    def _wait(self, timeout_s: float | None) -> None:
        """Wait for this future alone, not for news that it would share with others."""
        if self._state not in OPEN:
            return
        if timeout_s is None or timeout_s > 0:
            self.keeper.check_may_wait()
        waiter = _Waiter()
        try:
            with self._condition:
                if self._state not in OPEN:
                    return
                self._waiters.append(waiter)
            waiter.ended.acquire(timeout=-1 if timeout_s is None else min(max(timeout_s, 0), TIMEOUT_MAX))
        finally:
            with self._condition:
                if waiter in self._waiters:  # else interrupted before
                    self._waiters.remove(waiter)
        if self._state in OPEN:
            raise TimeoutError(f"task {self.task_id} has not ended after {timeout_s:g} s")

    def __await__(self) -> Generator[Any, None, Any]:
        """The result, in a cell or any coroutine; one that is cancelled while it waits cancels the task."""
        # Not by `asyncio.wrap_future`, which waits for ever where `result` raises what `exception` did not give.
        loop = asyncio.get_running_loop()
        waiting: asyncio.Future[Any] = loop.create_future()
        waiting.add_done_callback(self._given_up)

        def ended(_: Future[Any]) -> None:
            with suppress(RuntimeError):  # that loop is closed
                loop.call_soon_threadsafe(_hand_over, self, waiting)

        self.add_done_callback(ended)
        return waiting.__await__()

    def _given_up(self, waiting: asyncio.Future[Any]) -> None:
        if waiting.cancelled():
            self.cancel()

    def cancel(self) -> bool:
        """Ask for the task's end, running or not (a running one's process tree then ends too).

        Returns: False if it has already ended, else True; the future becomes cancelled when the task has.
        """
        if self.done():
            return self.cancelled()
        self.keeper.cancel(self)
        return True

    def send_input(self, data: bytes | str, *, is_last: bool = False) -> None:
        """Give input to a command that was run with `stdin=True`, and wait until it has read it, or the pipe holds it.

        A command that has not begun is waited for.

        Args:
            data: bytes, or a text, which is sent as UTF-8.
            is_last: whether this is the end of its input.

        Raises:
            Refused: `conflict`: it has ended, reads no more, or takes no input.
            TypeError: neither bytes nor a text.
        """
        self.keeper.send_input(self, data, is_last=is_last)

    def settle_cancelled(self, words: str = "") -> None:
        """The task was cancelled, and `words` say by whom. Any thread."""
        self._words = f"task {self.task_id} was {words}" if words else f"task {self.task_id} was cancelled"
        with suppress(InvalidStateError):
            self._end(CANCELLED_AND_NOTIFIED)


def _fresh(error: BaseException) -> BaseException:
    """What a task raised, without the places where it was raised again here."""
    return error.with_traceback(None) if isinstance(error.__cause__, RemoteTraceback) else error


class _Waiter:
    """Wakes the one thread that waits for one future, before callbacks are called: they may wait for that thread."""

    __slots__ = ("ended",)

    def __init__(self) -> None:
        self.ended = allocate_lock()
        self.ended.acquire()

    def add_result(self, future: TaskFuture) -> None:
        self.ended.release()

    add_exception = add_cancelled = add_result


def _tell(waiter: Any, future: TaskFuture) -> None:
    """Have who waits (`_wait`, `concurrent.futures.wait`, `as_completed`) know that `future` has ended."""
    if future._state == CANCELLED_AND_NOTIFIED:  # noqa: SLF001 - of this module
        waiter.add_cancelled(future)
    elif future._exception is not None:  # noqa: SLF001
        waiter.add_exception(future)
    else:
        waiter.add_result(future)


def _hand_over(future: TaskFuture, waiting: asyncio.Future[Any]) -> None:
    """Give `waiting` what an ended future raises or returns. On the loop of `waiting`."""
    if waiting.done():
        return
    try:
        result = future.result(0)
    except CancelledError as error:
        waiting.cancel(*error.args)
    except StopIteration as error:  # which no coroutine may raise
        told = RuntimeError(f"the task raised {error!r}")
        told.__cause__ = error
        waiting.set_exception(told)
    except BaseException as error:  # noqa: BLE001 - as the task raised it
        waiting.set_exception(_fresh(error))
    else:
        waiting.set_result(result)
