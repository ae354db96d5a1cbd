"""One process of the supervisor's, and how it has fared.

Each is a session of its own, so that a Ctrl-C reaches the supervisor alone. Its output goes through a pipe of ours and
not of asyncio's, whose `wait` returns only once everybody who inherited the pipe has closed it: a process that
is gone would count as running for as long as anything that it left behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO

from koubou_panel.core.records import Service, ServiceState
from koubou_panel.settings import END_NOW, EXIT_FAILED

TAIL_LINES = 20
LINE_BYTES = 1 << 16
SHOWN_CHARS = 1_000
AFTER_KILL_S = 5.0  # what the kernel may take to end a process that was killed
LEAVE_S = 2.0  # what a process may take to end that has said it cannot serve, and again once it is asked to
REST_S = 1.0  # how long its last words are waited for, where something else holds the pipe open


@dataclass(frozen=True)
class Program:
    """What a process of the supervisor's is made from.

    Args:
        argv: the command, without what the supervisor adds.
        port_flags: for each of its services that has a port, the flag that is given it.
        is_told: whether it takes `--services-fd`: the services' records, and requests about them.
        message: what is told of it beside its state.
    """

    argv: Sequence[str]
    port_flags: Mapping[str, str]
    is_told: bool = False
    message: str = ""


class StartFailed(Exception):
    """A process could not start: its exit code and why; `is_final` where trying again is of no use."""

    def __init__(self, code: int, message: str, *, is_final: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.is_final = is_final


@dataclass
class Child:
    """A process that the supervisor keeps, or would.

    `services` are those that it holds, by the names of `Service`; `ports` are theirs, as wanted, and then as they are
    (0: any); `ready` is what it said when it was ready.
    """

    name: str
    services: tuple[str, ...]
    program: Program
    ports: dict[str, int]
    say: Callable[[str], None]
    first_flags: Sequence[str] = ()
    state: ServiceState = "starting"
    pid: int | None = None
    started_at: float | None = None
    restarts: int = 0
    message: str = ""
    ready: Mapping[str, object] = field(default_factory=dict)
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=TAIL_LINES))
    died_at: deque[float] = field(default_factory=deque)
    on_request: Callable[[Mapping[str, object]], None] | None = None
    _process: asyncio.subprocess.Process | None = None
    _reading: asyncio.Task[None] | None = None
    _line: asyncio.StreamWriter | None = None
    _listening: asyncio.Task[None] | None = None

    def records(self) -> list[Service]:
        """Its services as they stand."""
        about = (self.pid, self.started_at, self.restarts, self.message)
        return [Service(name, self.state, self.ports.get(name) or None, *about) for name in self.services]

    def use(self, program: Program, ports: Mapping[str, int]) -> None:
        """Be made from `program` at the next start, with these ports."""
        if program.argv != self.program.argv:
            self.program, self.ports = program, dict(ports)

    @property
    def is_alive(self) -> bool:
        """Whether there is a process that has not ended."""
        return self._process is not None and self._process.returncode is None

    async def start(self, life_fd: int, on_spawn: Callable[[], None]) -> None:
        """Start it and wait until it says that it is ready.

        Args:
            life_fd: the pipe whose end tells it that the supervisor is gone.
            on_spawn: called once the process is there.

        Raises:
            StartFailed: it said that it cannot, or died.
        """
        self.state, self.message, self.ready = "starting", "", {}
        ready_read = await self._spawn(life_fd)
        on_spawn()
        try:
            said = await _read_line(ready_read)
        finally:
            os.close(ready_read)
        await self._judge(said)
        self.state, self.message = "running", self.program.message

    async def _spawn(self, life_fd: int) -> int:
        """Start the process; gives the pipe on which it says that it is ready."""
        ready_read, ready_write = os.pipe()
        out_read, out_write = os.pipe()
        argv = [*self.program.argv, *self.first_flags]
        for name, flag in self.program.port_flags.items():
            argv += [flag, str(self.ports.get(name, 0))]
        argv += ["--ready-fd", str(ready_write), "--life-fd", str(life_fd)]
        passed = [ready_write, life_fd]
        ours: socket.socket | None = None
        with contextlib.ExitStack() as theirs, contextlib.ExitStack() as kept:
            theirs.callback(os.close, ready_write)
            theirs.callback(os.close, out_write)
            kept.callback(os.close, ready_read)
            kept.callback(os.close, out_read)
            if self.program.is_told:
                ours, their_end = socket.socketpair()
                theirs.callback(their_end.close)
                kept.callback(ours.close)
                passed.append(their_end.fileno())
                argv += ["--services-fd", str(their_end.fileno())]
            try:
                self._process = await asyncio.create_subprocess_exec(
                    *argv,
                    stdin=subprocess.DEVNULL,
                    stdout=out_write,
                    stderr=subprocess.STDOUT,
                    pass_fds=passed,
                    start_new_session=True,
                )
            except OSError as error:
                self._process = None
                raise StartFailed(EXIT_FAILED, f"the {self.name} cannot be started: {error}") from error
            kept.pop_all()
        self.pid, self.started_at = self._process.pid, time.time()
        self.tail.clear()
        self._reading = asyncio.create_task(self._follow(os.fdopen(out_read, "rb", buffering=0)))
        await self._listen(ours)
        return ready_read

    async def _listen(self, ours: socket.socket | None) -> None:
        """Take its requests from now on, in place of those of the process before it."""
        self.hang_up()
        if ours is not None:
            reader, self._line = await asyncio.open_connection(sock=ours)
            self._listening = asyncio.create_task(self._take_requests(reader))

    async def _take_requests(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(OSError, ValueError):  # it is gone, or speaks no language of ours
            while line := await reader.readline():
                request = json.loads(line)
                if self.on_request is not None and isinstance(request, dict):
                    self.on_request(request)

    def tell(self, line: bytes) -> None:
        """Tell it something, if it listens."""
        if self._line is not None and not self._line.is_closing():
            self._line.write(line)

    def hang_up(self) -> None:
        """Tell it nothing any more, and hear nothing."""
        if self._listening is not None:
            self._listening.cancel()
        if self._line is not None:
            self._line.close()
        self._line = self._listening = None

    async def _judge(self, said: bytes) -> None:
        with contextlib.suppress(ValueError):
            self.ready = dict(json.loads(said))
        port, ports = self.ready.get("port"), self.ready.get("ports")
        if isinstance(port, int):
            # It is to come back on the same ones after a crash.
            self.ports |= ports if isinstance(ports, dict) else {self.services[0]: port}
            self.first_flags = ()  # after a crash, what `koubou scale` said counts
            holder = self.ready.get("holds")
            self.pid = holder if isinstance(holder, int) else self.pid
            return
        ended = await self._leave()
        code = self.ready.get("exit")
        if isinstance(code, int):
            why = str(self.ready.get("error", f"the {self.name} cannot start"))
            raise StartFailed(code, why, is_final=self.name == "model")
        above = "; the lines above say why" if self.tail else ""
        raise StartFailed(EXIT_FAILED, f"the {self.name} {ending_words(ended)} at its start{above}")

    async def _leave(self) -> int:
        """Its exit code, now that it cannot serve; what does not end by itself then is ended."""
        if self._process is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), LEAVE_S)
            await self.end(LEAVE_S, LEAVE_S, asyncio.Event())
        return await self.wait()

    async def wait(self) -> int:
        """Its exit code, once it has ended and what it printed last is read; 1 if it never was."""
        if self._process is None:
            return EXIT_FAILED
        code = await self._process.wait()
        await self.finish_reading()
        return code

    async def finish_reading(self) -> None:
        """Read what it printed last. Something that it started may hold the pipe: that is not waited for."""
        if self._reading is not None:
            await asyncio.wait({self._reading}, timeout=REST_S)
            self._reading.cancel()
            await asyncio.wait({self._reading})

    async def end(self, grace_s: float, drain_s: float, skip: asyncio.Event) -> None:
        """End it in order; once `skip` is set at once; after all that by a kill. It returns in any case.

        Args:
            grace_s: how long it may take.
            drain_s: how long it may take once it was told to end at once.
            skip: set when nobody wants to wait.
        """
        process = self._process
        if process is None or process.returncode is not None:
            return
        self.signal(signal.SIGTERM)
        ended = asyncio.create_task(process.wait())
        skipped = asyncio.create_task(skip.wait())
        await asyncio.wait({ended, skipped}, timeout=grace_s, return_when=asyncio.FIRST_COMPLETED)
        if not ended.done() and skipped.done():
            self.signal(END_NOW)
            await asyncio.wait({ended}, timeout=drain_s)
        if not ended.done():
            self.say(f"koubou: the {self.name} does not end; it is killed")
            self.signal(signal.SIGKILL)
            await asyncio.wait({ended}, timeout=AFTER_KILL_S)
        if not ended.done():
            self.say(f"koubou: the {self.name} (pid {process.pid}) is left behind: not even a kill ends it")
        for task in (ended, skipped):
            task.cancel()
        await self.finish_reading()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, if it lives."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    def last_words(self) -> str:
        """The last lines that it printed, for people; empty if there are none."""
        return ". Its last lines:\n  " + "\n  ".join(self.tail) if self.tail else ""

    async def _follow(self, out: IO[bytes]) -> None:
        """Pass on what it prints, and keep its last lines."""
        rest = b""
        async with _reading(out) as reader:
            while chunk := await reader.read(LINE_BYTES):
                *lines, rest = (rest + chunk).split(b"\n")
                if len(rest) > LINE_BYTES:
                    lines, rest = [*lines, rest], b""
                self._keep(lines)
        self._keep([rest] if rest else [])

    def _keep(self, lines: Sequence[bytes]) -> None:
        for text in [line.decode(errors="replace") for line in lines]:
            self.tail.append(text[:SHOWN_CHARS])
            self.say(text)


def ending_words(code: int) -> str:
    """How a process ended, for people."""
    if code >= 0:
        return f"ended with code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


@contextlib.asynccontextmanager
async def _reading(file: IO[bytes]) -> AsyncIterator[asyncio.StreamReader]:
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), file
    )
    try:
        yield reader
    finally:
        transport.close()


async def _read_line(fd: int) -> bytes:
    """What is written to a pipe up to a line's end or its own."""
    async with _reading(os.fdopen(os.dup(fd), "rb", buffering=0)) as reader:
        return await reader.readline()
