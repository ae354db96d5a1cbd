"""This process's standard input, sent on to a running task: `koubou run -i`."""

from __future__ import annotations

import asyncio
import os
import termios
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, nullcontext, suppress
from threading import Semaphore, Thread

from koubou_panel.cli.ending import say
from koubou_panel.cli.link import CALLER
from koubou_panel.core.commands import SendInput
from koubou_panel.core.records import TaskId
from koubou_panel.errors import Refused
from koubou_panel.shop.remote import RemoteShop

PIECE_BYTES = 1 << 16
LOOK_S = 0.1


class Reader:
    """Reads standard input piece by piece, each when it is wanted.

    On a thread of its own, which nobody waits for: a read of a terminal cannot be given up.
    """

    def __init__(self, fd: int = 0) -> None:
        """Begin with the first `read`. Loop thread only."""
        self._fd = fd
        self._loop = asyncio.get_running_loop()
        self._wanted = Semaphore(0)
        self._pieces: asyncio.Queue[bytes] = asyncio.Queue()
        Thread(target=self._run, name="stdin", daemon=True).start()

    async def read(self) -> bytes:
        """What there is next, once there is something; nothing at the end."""
        self._wanted.release()
        return await self._pieces.get()

    def _run(self) -> None:
        data = b" "
        while data:
            self._wanted.acquire()
            try:
                data = os.read(self._fd, PIECE_BYTES)
            except OSError:  # it is closed, or its terminal is gone
                data = b""
            with suppress(RuntimeError):  # the loop has ended, and with it the wish
                self._loop.call_soon_threadsafe(self._pieces.put_nowait, data)


class Escape:
    """Finds the way out in what is typed: `~.` at the beginning of a line, as in ssh; `~~` there is one `~`."""

    def __init__(self) -> None:
        """At the beginning of a line."""
        self.is_asked = False
        self._is_start = True
        self._is_held = False

    def filter(self, data: bytes) -> bytes:
        """What is for the program."""
        passed = bytearray()
        for byte in data:
            passed += self._take(byte)
        return bytes(passed)

    def _take(self, byte: int) -> bytes:
        char = bytes([byte])
        if self._is_held:
            self._is_held = False
            if char == b".":
                self.is_asked = True
                return b""
            if char != b"~":
                char = b"~" + char
        elif self._is_start and char == b"~":
            self._is_held = True
            return b""
        self._is_start = char[-1:] in b"\r\n"
        return char


@contextmanager
def raw_terminal(fd: int = 0) -> Iterator[None]:
    """Every key as it is pressed, unseen and with no meaning of its own; as it was before at the end."""
    before = termios.tcgetattr(fd)
    mode = termios.tcgetattr(fd)
    mode[0] &= ~(termios.BRKINT | termios.ICRNL | termios.INPCK | termios.ISTRIP | termios.IXON)
    mode[2] = mode[2] & ~(termios.CSIZE | termios.PARENB) | termios.CS8
    mode[3] &= ~(termios.ECHO | termios.ICANON | termios.IEXTEN | termios.ISIG)
    termios.tcsetattr(fd, termios.TCSADRAIN, mode)
    try:
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


@asynccontextmanager
async def sending(
    shop: RemoteShop, task_id: TaskId, spec: Mapping[str, object], leave: Callable[[], None]
) -> AsyncIterator[None]:
    """Standard input goes to a task meanwhile, if its `spec` takes any.

    Somebody at a terminal of their own types at the terminal of the program; `leave` is called when they want out.
    """
    if not spec.get("stdin"):
        yield
        return
    is_typed = bool(spec.get("pty")) and os.isatty(0)
    work = asyncio.create_task(forward(shop, task_id, leave if is_typed else None))
    work.add_done_callback(_say_why)
    try:
        with raw_terminal() if is_typed else nullcontext():
            yield
    finally:
        work.cancel()


def _say_why(work: asyncio.Task[None]) -> None:
    if not work.cancelled() and (error := work.exception()) is not None:
        say(f"its input was cut off: {error}")


async def forward(shop: RemoteShop, task_id: TaskId, leave: Callable[[], None] | None = None) -> None:
    """Send standard input to a task once it runs, until the end of either. With `leave`, keys can ask for that."""
    await _begun(shop, task_id)
    reader = Reader()
    escape = Escape()
    is_last = False
    while not is_last:
        data = await reader.read()
        is_last = not data
        if leave is not None and data:
            data = escape.filter(data)
            if escape.is_asked:
                escape.is_asked = False
                leave()
            if not data:
                continue
        try:
            await shop.do(SendInput(task_id, data, is_last), CALLER)
        except Refused as refused:
            if refused.code == "conflict":  # it has ended, or reads no more: as a pipe that is broken
                return
            raise


async def _begun(shop: RemoteShop, task_id: TaskId) -> None:
    async with shop.follow(task_id) as news:
        task = await news.next(LOOK_S)
        while task is None or task.status == "pending":
            task = await news.next(LOOK_S)
