"""Following a task: its output byte for byte as it comes, and the exit code that its end stands for."""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import suppress
from typing import BinaryIO

from koubou_panel.archive.output import QUOTA_BYTES
from koubou_panel.cli.ending import INTERRUPTED, say
from koubou_panel.cli.show import size
from koubou_panel.cli.waiting import why_waiting
from koubou_panel.core.commands import CancelTask
from koubou_panel.core.records import Task, TaskId
from koubou_panel.errors import Refused
from koubou_panel.settings import EXIT_FAILED
from koubou_panel.shop.remote import RemoteShop

PIECE_BYTES = 1 << 20
LOOK_S = 0.1  # output is looked at as often while a task runs, told of or not
WAIT_WORD_S = 2.0
GONE_S = 60.0
TIMED_OUT = 124


def exit_code(task: Task) -> int:
    """What `koubou run` ends with: the command's own code, 128+n for signal n, 124 time-out, 130 cancelled."""
    if task.status == "completed":
        return task.exit_code or 0
    if task.status == "cancelled":
        return INTERRUPTED
    if task.reason == "timeout":
        return TIMED_OUT
    return EXIT_FAILED if task.exit_code in (None, 0) else task.exit_code


class Printer:
    """Writes a task's output to a file as far as it has come."""

    def __init__(self, shop: RemoteShop, task_id: TaskId, out: BinaryIO) -> None:
        """From the first byte that is still held."""
        self._shop = shop
        self._task_id = task_id
        self._out = out
        self._offset = 0
        self._missed = self._said = 0

    async def catch_up(self, task: Task) -> None:
        """Write what there is; where some is no longer held, it is said once, and at the end if it became more."""
        while True:
            page = await self._shop.read_bytes(self._task_id, self._offset, PIECE_BYTES)
            data = page.data
            if page.offset > self._offset:
                # A line that has lost its beginning would look like a whole one.
                data = data[data.find(b"\n") + 1 :]
                self._missed += page.offset - self._offset + len(page.data) - len(data)
            if data:
                self._out.write(data)
                self._out.flush()
            moved = page.end > self._offset
            self._offset = page.end
            if page.end >= page.size or not moved:
                break
        if self._missed > self._said and (task.is_finished or not self._said):
            words = "in all, " if self._said else ""
            say(
                f"{words}{size(self._missed)} of earlier output were not kept (limit {size(_quota_bytes(task))})"
            )
            self._said = self._missed


def _quota_bytes(task: Task) -> int:
    """How much of a task's output is held."""
    limit = task.request.limits.output_bytes
    return QUOTA_BYTES if limit is None else limit


async def follow(shop: RemoteShop, task_id: TaskId, out: BinaryIO) -> Task:
    """Write a task's output until the task has ended, and give its record.

    Raises:
        Refused: `not_found`; or `unavailable`: the workshop went away and did not come back.
    """
    printer = Printer(shop, task_id, out)
    patience = _Patience(shop)
    async with shop.follow(task_id) as news:
        while True:
            task = await news.next(LOOK_S)
            if task is None:
                if news.is_told:
                    raise Refused("not_found", f"no task {task_id}")
                await patience.look(None)
                continue
            await patience.look(task)
            try:
                if task.status != "pending":
                    await printer.catch_up(task)
            except Refused as refused:
                if refused.code != "unavailable":
                    raise
                continue
            if task.is_finished:
                return task


class _Patience:
    """What is said while nothing happens: what a task waits for, and that the workshop is away."""

    def __init__(self, shop: RemoteShop) -> None:
        self._shop = shop
        self._look_at = time.monotonic() + WAIT_WORD_S
        self._said: set[str] = set()

    async def look(self, task: Task | None) -> None:
        """Say what has to be said now, each thing once."""
        link = self._shop.link
        if link.status != "live" and link.lag_s > GONE_S:
            task_words = f"; `koubou logs -f {task.task_id}` goes on when it is back" if task else ""
            raise Refused("unavailable", f"the workshop is gone{task_words}")
        if link.status != "live":
            if link.lag_s > WAIT_WORD_S and sys.stderr.isatty():
                self._say_once("away", "the workshop is away; waiting for it")
        elif task is not None and task.status == "pending" and time.monotonic() > self._look_at:
            self._look_at = time.monotonic() + WAIT_WORD_S
            with suppress(Refused):  # it went away just now
                waiting = await why_waiting(self._shop, task)
                if waiting is not None:
                    self._say_once(waiting.cause, f"waiting: {waiting.words}")

    def _say_once(self, cause: str, words: str) -> None:
        if cause not in self._said:
            say(words)
        self._said.add(cause)


class Interrupt:
    """Ctrl-C while a task is followed: the first cancels the task, the second leaves at once."""

    def __init__(self, shop: RemoteShop, task_id: TaskId) -> None:
        """Not asked yet."""
        self.left = asyncio.Event()
        self._shop = shop
        self._task_id = task_id
        self._cancelling: asyncio.Task[None] | None = None

    def ask(self, way: str = "Ctrl-C") -> None:
        """Take in a Ctrl-C, or another `way` to ask for the end. Loop thread only."""
        if self._cancelling is not None:
            self.left.set()
            return
        if sys.stderr.isatty():
            say(f"cancelling {self._task_id}; {way} again leaves without waiting")
        self._cancelling = asyncio.get_running_loop().create_task(self._cancel())

    async def _cancel(self) -> None:
        from koubou_panel.cli.link import CALLER

        try:
            await self._shop.do(CancelTask(self._task_id), CALLER)
        except Refused as refused:
            if refused.code != "conflict":  # it has just ended by itself
                say(refused.message)
                self.left.set()
