"""joblib's calls under way: each a task, told to joblib in the batches that it gave them in."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any

from koubou_panel.core.records import TaskId
from koubou_panel.errors import TaskFailure
from koubou_panel.notebook.joblib_arrays import Arrays, Parcel
from koubou_panel.notebook.joblib_batch import name_of_batch, run_batch
from koubou_panel.notebook.joblib_pace import Pace
from koubou_panel.notebook.workshop import Workshop

Answer = Callable[[Any], None]


class Part:
    """A task of a batch: one call, or a few.

    Args:
        batch: of which.
        calls: a `BatchedCalls` of joblib.
    """

    def __init__(self, batch: Batch, calls: Any) -> None:
        """Not sent yet."""
        self.batch = batch
        self.size = len(calls)
        self.name = name_of_batch(calls.items)
        self.future: Future[Any] | None = None
        self._calls = calls
        self._parcel: Parcel | None = None

    def pack(self, arrays: Arrays) -> None:
        """Make its calls bytes; where that fails, its future has failed."""
        try:
            self._parcel = arrays.packed(self._calls)
        except Exception as error:  # noqa: BLE001 - it is told where the results are waited for
            self._fail(error)
        self._calls = None

    def send(self, workshop: Workshop, options: dict[str, Any], arrays: Arrays, variables: str) -> None:
        """Have it be a task, once it is packed; where that fails, its future has failed."""
        parcel, self._parcel = self._parcel, None
        if parcel is None:
            return
        try:
            used = " ".join(map(":".join, parcel.used))
            future = self.future = workshop.submit_with(
                run_batch,
                parcel.blob,
                variables,
                used,
                *parcel.brought,
                options={"name": self.name} | options,
            )
            arrays.lend(parcel, future.task_id)
        except Exception as error:  # noqa: BLE001 - it is told where the results are waited for
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        self.future = Future()
        self.future.set_exception(error)

    @property
    def has_failed(self) -> bool:
        """Whether it has ended without a result."""
        future = self.future
        return future is not None and future.done() and (future.cancelled() or future.exception() is not None)

    def results(self) -> list[object]:
        """A result for each call.

        Raises:
            TaskFailure: the task was cancelled, or ended without a result.
            BaseException: what a call raised.
        """
        if self.future is None:
            raise CancelledError
        try:
            results = self.future.result()
        except CancelledError:
            task_id = str(getattr(self.future, "task_id", ""))
            words = f"the call {self.name} was cancelled (task {task_id})"
            raise TaskFailure(words, task_id=task_id, reason="user") from None
        return [results] if self.size == 1 else list(results)


Ended = SimpleQueue[Part | None]


class Batch:
    """Calls that joblib gave together and is told of together.

    Args:
        calls: a `BatchedCalls` of joblib.
        callback: told of their end.
        in_one: how many calls are one task.
    """

    def __init__(self, calls: Any, callback: Answer | None, in_one: int) -> None:
        """None is sent yet."""
        self.size = len(calls)
        self.parts = [Part(self, each) for each in _split(calls, in_one)]
        self._callback = callback
        self._left = len(self.parts)

    def results(self) -> list[object]:
        """A result for each call; raises as `Part.results`, of one that has failed if any has."""
        for part in self.parts:
            if part.has_failed:
                part.results()
        return [result for part in self.parts for result in part.results()]

    def ended(self, part: Part) -> bool:
        """Take note of a part's end; whether joblib is to be told: all have ended, or this one has failed."""
        self._left -= 1
        if self._callback is not None and part.has_failed:
            self._left = min(self._left, 0)
        return self._left <= 0

    def answer(self) -> None:
        """Tell joblib, once; it may put further batches now."""
        callback, self._callback = self._callback, None
        if callback is not None:
            callback(self)


def _split(calls: Any, in_one: int) -> list[Any]:
    items = calls.items
    if len(items) <= in_one:
        return [calls]
    around = (calls._backend, calls._n_jobs)  # noqa: SLF001 - as joblib makes them itself
    return [
        type(calls)(items[at : at + in_one], around, None, calls._pickle_cache)  # noqa: SLF001
        for at in range(0, len(items), in_one)
    ]


class Calls:
    """Tasks under way: no more at once than wanted. What comes back is told on a thread of its own.

    joblib takes the next calls from the caller's iterator where it is told of an end, which may take long, and the
    workshop's own thread must not wait.

    Args:
        workshop: where they go.
        at_once: how many run at once.
        options: those of every task.
        arrays: packs them.
        variables: of `run_batch`.
        fail: told what was raised on that thread, such as by the caller's iterator.
    """

    def __init__(
        self,
        workshop: Workshop,
        at_once: int,
        options: dict[str, Any],
        arrays: Arrays,
        variables: str,
        *,
        fail: Callable[[BaseException], None],
    ) -> None:
        """Nothing is under way."""
        self.pace = Pace()
        self._workshop = workshop
        self._options = options
        self._arrays = arrays
        self._variables = variables
        self._fail = fail
        # Where the pool has no more workers than that, tasks may wait in its queue, so that no worker ever waits.
        self._has_more = workshop.shop.state.pool.max_workers > at_once
        self._at_once = at_once
        self._waiting: deque[Part] = deque()
        self._sent: set[Part] = set()
        self._ended = Ended()
        self._lock = threading.RLock()
        self._is_over = False
        self._teller: threading.Thread | None = None

    def open(self) -> None:
        """Take calls, again after `abort`."""
        self._is_over = False

    def put(self, batch: Batch) -> Batch:
        """Send its parts, now or when their turn comes. Any thread."""
        with self._lock:
            if is_taken := not self._is_over:
                self._take(batch)
        if not is_taken:
            batch.answer()
        return batch

    def _take(self, batch: Batch) -> None:
        self._waiting += batch.parts
        if threading.current_thread() is self._teller:
            return  # in its turn: what joblib gives for several ends goes out together
        self._send()
        if self._teller is None:
            name = "koubou-joblib"
            self._teller = threading.Thread(target=self._tell, args=[self._ended], name=name, daemon=True)
            self._teller.start()

    def abort(self) -> None:
        """Cancel all that has not ended, and take no more."""
        with self._lock:
            self._is_over = True
            self._waiting.clear()
            sent, self._sent = self._sent, set()
            ended, self._ended = self._ended, Ended()
            self._teller = None
        ended.put(None)  # an interrupt may have come between a part's `_sent` and its `_ended`
        for part in sent:
            if part.future is not None:
                part.future.cancel()

    def close(self) -> None:
        """The calls are over: their arrays go."""
        self.abort()
        self._arrays.close()

    def _send(self) -> None:
        packed: list[Part] = []
        for _ in range(min(self._room(), len(self._waiting))):
            part = self._waiting.popleft()
            part.pack(self._arrays)
            packed.append(part)
            if len(self._sent) < 2 * self._at_once:  # a worker may be waiting
                self._send_all(packed)
        self._send_all(packed)  # one right after the other, so that they are stored together

    def _send_all(self, packed: list[Part]) -> None:
        for part in packed:
            self._sent.add(part)
            part.send(self._workshop, self._options, self._arrays, self._variables)
            if part.future is not None:
                part.future.add_done_callback(partial(_put_ended, self._ended, part))
        packed.clear()

    def _room(self) -> int:
        """How many more may be sent now. Short ones wait until a good number can go together."""
        if self._has_more:
            return max(0, self._at_once - len(self._sent))
        in_hand = self.pace.in_hand()
        is_enough = in_hand is not None and len(self._sent) > in_hand * self._at_once
        return 0 if is_enough else len(self._waiting)

    def _tell(self, ended: Ended) -> None:
        """Until nothing is under way; what is raised here is raised where the results are waited for."""
        try:
            while parts := _some(ended):
                self._tell_of(parts)
                if not self._goes_on(ended):
                    return
        except BaseException as error:  # noqa: BLE001 - also an interrupt that the caller's iterator raises
            if ended is self._ended:
                self._fail(error)

    def _tell_of(self, parts: list[Part]) -> None:
        for part in parts:
            with self._lock:
                self._sent.discard(part)
            if part.batch.ended(part):
                self._learn(part.batch)
                part.batch.answer()

    def _goes_on(self, ended: Ended) -> bool:
        """Send what may be sent now; whether there is more to tell of."""
        with self._lock:
            if ended is not self._ended:  # aborted
                return False
            self._send()
            if not self._sent:
                self._teller = None
            return self._teller is not None

    def _learn(self, batch: Batch) -> None:
        tasks = self._workshop.shop.state.tasks
        found = [tasks.get(TaskId(getattr(part.future, "task_id", ""))) for part in batch.parts]
        used = [task.usage for task in found if task is not None and task.usage.duration_s is not None]
        if len(used) == len(found):
            took_s, cpu_s = (
                sum(each.duration_s or 0.0 for each in used),
                sum(each.cpu_s or 0.0 for each in used),
            )
            self.pace.learn(batch.size, len(batch.parts), took_s, cpu_s)


def _put_ended(ended: Ended, part: Part, _: Future[Any]) -> None:
    ended.put(part)


def _some(ended: Ended) -> list[Part]:
    """What has ended, waiting for the first; nothing where no more is to be told of."""
    found = [ended.get()]
    with suppress(Empty):
        while True:
            found.append(ended.get_nowait())
    return [] if None in found else [part for part in found if part is not None]
