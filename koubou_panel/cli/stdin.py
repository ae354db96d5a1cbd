"""This process's standard input, sent on to a running task: `koubou run -i`."""

from __future__ import annotations

import asyncio
import os
import termios
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from threading import Semaphore, Thread

from koubou_panel.cli.ending import say
from koubou_panel.cli.link import CALLER
from koubou_panel.core.commands import SendInput
from koubou_panel.core.records import TaskId
from koubou_panel.errors import Refused
from koubou_panel.shop.remote import RemoteShop

PIECE_BYTES = 1 << 16
LOOK_S = 0.1
PIPED_PIECES = 1
TYPED_PIECES = 1_024  # a terminal gives at most 4 KiB at a time
WAY_OUT = "Enter ~ ."

Leave = Callable[[str], None]


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
    mode[1] &= ~termios.OPOST
    mode[2] = mode[2] & ~(termios.CSIZE | termios.PARENB) | termios.CS8
    mode[3] &= ~(termios.ECHO | termios.ICANON | termios.IEXTEN | termios.ISIG)
    termios.tcsetattr(fd, termios.TCSANOW, mode)
    try:
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


@asynccontextmanager
async def sending(
    shop: RemoteShop, task_id: TaskId, spec: Mapping[str, object], leave: Leave
) -> AsyncIterator[None]:
    """Standard input goes to a task meanwhile, if its `spec` takes any.

    Somebody at a terminal of their own types at the terminal of the program, once that runs; `leave` is called, with
    the keys that ask for it, when they want out.
    """
    if not spec.get("stdin"):
        yield
        return
    is_typed = bool(spec.get("pty")) and os.isatty(0)
    with ExitStack() as until_end:
        work = asyncio.create_task(
            _typing(shop, task_id, leave, until_end) if is_typed else _piping(shop, task_id)
        )
        work.add_done_callback(_say_why)
        try:
            yield
        finally:
            work.cancel()


async def _piping(shop: RemoteShop, task_id: TaskId) -> None:
    """Send what comes as it is taken, once the task runs."""
    await _begun(shop, task_id)
    reader = Reader()
    with _sender(shop, task_id, PIPED_PIECES) as pieces:
        data = b" "
        while data:
            data = await reader.read()
            await pieces.put(data)
        await pieces.join()


async def _typing(shop: RemoteShop, task_id: TaskId, leave: Leave, until_end: ExitStack) -> None:
    """Take every key once the task runs, and send it; the keys that ask for the way out count whatever is taken."""
    await _begun(shop, task_id)
    until_end.enter_context(raw_terminal())
    reader, escape = Reader(), Escape()
    with _sender(shop, task_id, TYPED_PIECES) as pieces:
        while data := await reader.read():
            keys = escape.filter(data)
            if escape.is_asked:
                escape.is_asked = False
                leave(WAY_OUT)
            if keys:
                with suppress(
                    asyncio.QueueFull
                ):  # as at any terminal: so much is not kept for a deaf program
                    pieces.put_nowait(keys)
        await pieces.put(b"")
        await pieces.join()


@contextmanager
def _sender(shop: RemoteShop, task_id: TaskId, most_pieces: int) -> Iterator[asyncio.Queue[bytes]]:
    """What is put here is sent, one piece after the other; an empty one is the end."""
    pieces: asyncio.Queue[bytes] = asyncio.Queue(most_pieces)
    work = asyncio.create_task(_send(shop, task_id, pieces))
    work.add_done_callback(_say_why)
    try:
        yield pieces
    finally:
        work.cancel()


async def _send(shop: RemoteShop, task_id: TaskId, pieces: asyncio.Queue[bytes]) -> None:
    data = b" "
    while data:
        data = await pieces.get()
        try:
            await shop.do(SendInput(task_id, data, is_last=not data), CALLER)
        except Refused as refused:
            if refused.code == "conflict":  # it has ended, or reads no more: as a pipe that is broken
                return
            raise
        pieces.task_done()


def _say_why(work: asyncio.Task[None]) -> None:
    if not work.cancelled() and (error := work.exception()) is not None:
        say(f"its input was cut off: {error}")


async def _begun(shop: RemoteShop, task_id: TaskId) -> None:
    async with shop.follow(task_id) as news:
        task = await news.next(LOOK_S)
        while task is None or task.status == "pending":
            task = await news.next(LOOK_S)
