"""The part of a `Workshop` that is about tasks that were submitted before, by whomever."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Protocol, cast

from koubou_panel.core.records import Task, TaskId
from koubou_panel.errors import Refused
from koubou_panel.notebook.future import Keeper, TaskFuture
from koubou_panel.notebook.inputs import input_bytes, send_input
from koubou_panel.notebook.options import most, whole_number
from koubou_panel.notebook.seat import Seat
from koubou_panel.notebook.task import LiveTask, id_of

PIECE_BYTES = 1 << 20
CHARACTER_BYTES = 4  # of the longest in UTF-8: a piece is cut between two
KNOWN_LIMIT_S = 1.0


class HasId(Protocol):
    """Whatever is of one task: a model of `shop.state`, a record."""

    @property
    def task_id(self) -> str:
        """The task's id."""


# A task's id, or whatever has it: its future, a live view, a model of `shop.state`.
Named = str | TaskFuture | LiveTask | HasId


class TaskAccess:
    """Tasks, their results and their output, by id."""

    _seat: Seat

    @property
    def _keeper(self) -> Keeper:
        return cast("Keeper", self)

    def task(self, task_id: Named) -> LiveTask:
        """A task of the workshop, whoever submitted it; its attributes are read when they are asked for.

        Raises:
            Refused: `not_found`: there is no such task.
        """
        live = LiveTask(id_of(task_id), self._keeper)
        _ = live.record  # refused at once
        return live

    def record(self, task_id: TaskId) -> Task | None:
        """A task at this moment; in a future's callback, and after the shutdown, as it was last heard of."""
        return self._seat.record(task_id)

    def future(self, task_id: Named) -> TaskFuture:
        """The future of a task that was submitted before: by this handle, by an earlier kernel, by anybody.

        A shutdown does not wait for it, unless this handle submitted the task.

        Raises:
            Refused: `not_found`: there is no such task.
        """
        return self._seat.recall(id_of(task_id), self._keeper)

    def result(self, task_id: Named, timeout: float | None = None) -> Any:
        """What a task returned that was submitted before, by an earlier kernel too.

        Raises:
            Refused: `not_found`: there is no such task, or its result is not kept any more.
            TimeoutError: it has not ended within `timeout` seconds.
            CancelledError, TaskFailure, BaseException: as of `TaskFuture.result`.
        """
        return self.future(task_id).result(timeout)

    def output(self, task_id: Named, offset: int = 0, limit: int | None = None) -> str:
        """A task's output, all of it that is held.

        Args:
            task_id: its id, its future, or another object of it.
            offset: from this byte on; negative: from as many before the end.
            limit: at most so many bytes, 4 or more (the longest character) or 0; None: all.

        Raises:
            Refused: `not_found`: there is no such task.
            TypeError, ValueError: an offset or a limit that cannot be.
        """
        named = id_of(task_id)
        text = self._seat.thread.call(self._output(named, whole_number("offset", offset), _most_bytes(limit)))
        if not text:
            self._check_known(named)
        return text

    async def _output(self, task_id: TaskId, offset: int, limit: int | None) -> str:
        if limit == 0:
            return ""
        read = self._seat.shop.read_output
        page = await read(task_id, offset, PIECE_BYTES if limit is None else limit)
        pieces, size = [page.text], page.size  # of now: what is printed meanwhile may never end
        end = size if limit is None else min(size, page.offset + limit)
        while (begun := page.end) < end:
            page = await read(task_id, begun, min(end - begun, PIECE_BYTES))
            pieces.append(page.text if page.end <= end else _head(page.text, end - begun))
            if page.end <= begun:
                break
        return "".join(pieces)

    def send_input(self, future: Named, data: bytes | str, *, is_last: bool = False) -> None:
        """Give input to the command of a future, or of a task that is named otherwise; see `TaskFuture.send_input`."""
        given, seat = input_bytes(data), self._seat
        waiting = future if isinstance(future, TaskFuture) else self.future(future)
        seat.thread.call(send_input(seat.shop, waiting, given, seat.caller, is_last=bool(is_last)))

    def cancel(self, task_id: Named) -> None:
        """Ask for the end of a task; what has already ended stays as it is. Any thread; does not wait for the end.

        Raises:
            Refused: `not_found`: there is no such task.
            RuntimeError: the workshop was shut down.
        """
        named = id_of(task_id)
        if not isinstance(task_id, TaskFuture) and named not in self._seat.futures:
            self._check_known(named)  # a future's task was submitted, if perhaps not stored yet
        self._seat.cancel(named)

    def _check_known(self, task_id: TaskId) -> None:
        """Refuse an id that is no task's, where the workshop can say so at once."""
        thread = self._seat.thread
        if thread.is_here or thread.is_closed or task_id in self._seat.shop.state.tasks:
            return
        with suppress(TimeoutError):
            if thread.start(self._seat.find(task_id)).result(KNOWN_LIMIT_S) is None:
                raise Refused("not_found", f"no task {task_id!r} in {self._seat.home.root}", field="task_id")


def _head(text: str, size: int) -> str:
    """What of `text` takes at most `size` bytes: a piece has at least one character."""
    return text.encode()[:size].decode(errors="ignore")


def _most_bytes(value: object) -> int | None:
    limit = most(value)
    if limit is not None and 0 < limit < CHARACTER_BYTES:
        raise ValueError(
            f"limit must be 4 bytes or more, which the longest character takes, or 0, not {limit}"
        )
    return limit
