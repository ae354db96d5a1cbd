"""A future whose value stays closed until somebody asks for it, in the thread that asks."""

from __future__ import annotations

from concurrent.futures import Future, wait
from concurrent.futures._base import FINISHED, PENDING
from threading import Condition
from typing import Any, Protocol

from koubou_panel.core.records import Task, TaskId
from koubou_panel.home import Home
from koubou_panel.kinds.function import unpack_value


class Keeper(Protocol):
    """Who made a future: the workshop that its task is in."""

    home: Home
    condition: Condition

    def cancel(self, task_id: TaskId) -> None:
        """Ask for the task's end."""

    def task(self, task_id: TaskId) -> Task | None:
        """The task as it stands."""

    def send_input(self, future: TaskFuture, data: bytes, *, is_last: bool = False) -> None:
        """Give input to a command."""

    def check_may_wait(self) -> None:
        """Raise RuntimeError where waiting would last for ever: on the thread that settles futures."""


class TaskFuture(Future[Any]):
    """The result of a task, to come. A `concurrent.futures.Future`, with the task's id."""

    def __init__(self, task_id: TaskId, keeper: Keeper) -> None:
        """The future of `keeper`'s task `task_id`."""
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
        self._value = b""

    @property
    def task(self) -> Task | None:
        """The task as it stands: its status, `progress`, `use`, ...; None before it is taken in."""
        return self.keeper.task(self.task_id)

    def settle(self, value: bytes) -> None:
        """The task has ended with this opaque value. Any thread."""
        self._value = value
        self.set_result(None)

    def result(self, timeout: float | None = None) -> Any:
        """What the task returned.

        Raises:
            TimeoutError: it has not ended within `timeout` seconds.
            CancelledError: it was cancelled.
            DependencyFailed: a task that it was to follow did not succeed, so it was not started.
            TaskFailure: it ended without a result: killed, timed out, lost.
            BaseException: what the function raised, with the remote traceback as its cause.
        """
        if self._value and self._state == FINISHED:
            return unpack_value(self._value)
        self._wait(timeout)
        plain = super().result(0)
        return unpack_value(self._value) if self._value else plain

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """What the task raised, or None."""
        self._wait(timeout)
        raised = super().exception(0)
        if raised is not None or not self._value:
            return raised
        try:
            unpack_value(self._value)
        except BaseException as error:  # noqa: BLE001 - it is given back, not swallowed
            return error
        return None

    def _wait(self, timeout_s: float | None) -> None:
        """Wait for this future alone, not for the condition that it shares with others."""
        if self._state == PENDING:
            if timeout_s != 0:
                self.keeper.check_may_wait()
            wait([self], timeout_s)

    def cancel(self) -> bool:
        """Ask for the task's end, running or not (a running one's process tree then ends too).

        Returns: False if it has already ended, else True; the future becomes cancelled when the task has.
        """
        if self.done():
            return self.cancelled()
        self.keeper.cancel(self.task_id)
        return True

    def send_input(self, data: bytes | str, *, is_last: bool = False) -> None:
        """Give input to a command that was run with `stdin=True`, and wait until it has read it, or the pipe holds it.

        A command that has not begun is waited for.

        Args:
            data: bytes, or a text, which is sent as UTF-8.
            is_last: whether this is the end of its input.

        Raises:
            Refused: `conflict`: it has ended, reads no more, or takes no input.
        """
        self.keeper.send_input(self, data.encode() if isinstance(data, str) else data, is_last=is_last)

    def settle_cancelled(self) -> None:
        """The task was cancelled. Any thread."""
        if super().cancel():
            self.set_running_or_notify_cancel()
