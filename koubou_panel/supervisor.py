"""`koubou up`'s parent process: starts the services, restarts them, ends with them. No Panel, no shop's loop.

Each child is a session of its own, so that a Ctrl-C reaches the supervisor alone; it holds one end of a pipe whose
other end is here, so that it ends even when the supervisor is killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import psutil

from koubou_panel.errors import SettingsError
from koubou_panel.home import Home
from koubou_panel.settings import END_NOW, EXIT_DATA, EXIT_FAILED, Settings

RESTARTS = 5
WINDOW_S = 60.0
FIRST_DELAY_S = 0.2
LONGEST_DELAY_S = 5.0
TAIL_LINES = 20
END_S = 5.0
RESTART = signal.SIGUSR1
DRAIN_S = 20.0  # what a workshop may take beyond the grace: TERM, 5 s, KILL, the last commit
SLOW_S = 10.0
VERDICT_S = 2.0


@dataclass
class Service:
    """One child process, and how it has fared."""

    name: str
    module: str
    flags: list[str]
    port_flag: str
    port: int
    first_flags: list[str] = field(default_factory=list)
    state: str = "starting"
    pid: int | None = None
    started_at: float | None = None
    restarts: int = 0
    ready: dict[str, Any] = field(default_factory=dict)
    process: asyncio.subprocess.Process | None = None
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=TAIL_LINES))
    died_at: deque[float] = field(default_factory=deque)

    def record(self) -> dict[str, object]:
        """As it stands in `status.json`."""
        names = ("name", "state", "pid", "port", "started_at", "restarts")
        return {name: getattr(self, name) for name in names}


class StartFailed(Exception):
    """A service could not start: its exit code and why."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Supervisor:
    """Runs the services of one home until it is asked to end.

    Args:
        settings: the settings in force.
        dashboard: whether to run the dashboard.
        insecure_no_auth: whether the ports ask for no credentials.
        is_restart: whether this goes on from an earlier start: the stored number of workers counts, not the settings'.
        link: gives the dashboard's address for people, of its port.
        browse: opens an address in the browser; None to open none.
        out: where the one line for people goes.
        err: where everything else goes.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        dashboard: bool = True,
        insecure_no_auth: bool = False,
        is_restart: bool = False,
        link: Callable[[int], str],
        browse: Callable[[str], None] | None = None,
        out: TextIO | None = None,
        err: TextIO | None = None,
    ) -> None:
        """Nothing runs before `run`."""
        self._settings = settings
        self._insecure_no_auth = insecure_no_auth
        self._home = Home(settings.home)
        self._link = link
        self._browse = browse
        self._out = out or sys.stdout
        self._err = err or sys.stderr
        self.is_to_return = False
        self._asked = asyncio.Event()
        self._skip = asyncio.Event()
        self._started_at = psutil.Process().create_time()
        # A restart goes on in the same process, whose own start is long ago.
        self._began_at = time.time() if is_restart else self._started_at
        self._code = 0
        self._holds_home = False
        self._services = _services(settings, dashboard=dashboard, insecure_no_auth=insecure_no_auth)
        if is_restart:
            self._services[0].first_flags = []
        self._keepers: list[asyncio.Task[None]] = []
        self._readers: set[asyncio.Task[None]] = set()
        self._life: tuple[int, int] = (-1, -1)

    async def run(self) -> int:
        """Start, keep, and end the services; gives the exit code of `koubou up`.

        Afterwards `is_to_return` says whether all is to be started again (`RESTART` was the last word).

        Raises:
            SettingsError: the home cannot be made.
        """
        try:
            self._home.prepare()
        except OSError as error:
            why = f"the home {self._home.root} cannot be made ({error.strerror}); name another with --home"
            raise SettingsError(why, name="home") from error
        self._life = os.pipe()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # `nohup`, and `&` in a script
                loop.add_signal_handler(number, self._ask)
        loop.add_signal_handler(RESTART, self._ask_to_return)
        try:
            await self._start_all()
            if not self._asked.is_set():
                self._welcome()
                self._keepers = [asyncio.create_task(self._keep(service)) for service in self._services]
            await self._asked.wait()
        except StartFailed as failure:
            self._say(f"koubou: {failure.message}")
            self._code = failure.code
        finally:
            await self._end_all()
        return self._code

    def _ask_to_return(self) -> None:
        if self.is_to_return or not self._asked.is_set():  # what was asked to end stays ended
            self._ask(is_to_return=True)

    def _ask(self, *, is_to_return: bool = False) -> None:
        self.is_to_return = is_to_return
        if self._asked.is_set():
            self._skip.set()
            return
        self._asked.set()
        if any(service.process for service in self._services):
            grace = f"{self._settings.grace_s:g} s"
            word = "restarting" if is_to_return else "stopping"
            self._say(f"koubou: {word}. What runs may go on for {grace}; once more (Ctrl-C) ends it at once")

    def _say(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            print(text, file=self._err, flush=True)

    # -- the start --------------------------------------------------------------------------------------------

    async def _start_all(self) -> None:
        starts = [asyncio.create_task(self._start(service)) for service in self._services]
        asked = asyncio.create_task(self._asked.wait())
        slow = asyncio.get_running_loop().call_later(SLOW_S, self._say, "koubou: still starting ...")
        try:
            waiting = set(starts)
            while waiting and not self._asked.is_set():
                done, _ = await asyncio.wait({*waiting, asked}, return_when=asyncio.FIRST_COMPLETED)
                waiting -= done
                if any(task is not asked and task.exception() for task in done):
                    # Of two that fail, the workshop's word says more: a taken home before a taken port.
                    await asyncio.wait({starts[0]}, timeout=VERDICT_S)
                    raise next(failure for task in starts if task.done() and (failure := task.exception()))
        finally:
            slow.cancel()
            asked.cancel()
            for task in starts:
                task.cancel()
            await asyncio.gather(*starts, return_exceptions=True)

    async def _start(self, service: Service) -> None:
        """Start a child and wait until it says that it is ready.

        Raises:
            StartFailed: it said that it cannot, or died.
        """
        service.state, service.ready = "starting", {}
        ready_read, ready_write = os.pipe()
        try:
            service.process = await asyncio.create_subprocess_exec(
                *_argv(service, ready_fd=ready_write, life_fd=self._life[0]),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=(ready_write, self._life[0]),
                start_new_session=True,
            )
        except OSError as error:
            os.close(ready_read)
            raise StartFailed(EXIT_FAILED, f"the {service.name} cannot be started: {error}") from error
        finally:
            os.close(ready_write)
        service.pid, service.started_at = service.process.pid, time.time()
        self._follow(service)
        self._write_status()
        try:
            line = await _read_line(ready_read)
        finally:
            os.close(ready_read)
        await self._judge(service, line)
        service.state = "running"
        self._holds_home |= service.name == "workshop"
        self._write_status()

    async def _judge(self, service: Service, line: bytes) -> None:
        with contextlib.suppress(ValueError):
            service.ready = dict(json.loads(line))
        port = service.ready.get("port")
        if isinstance(port, int):
            service.port = port
            service.first_flags = []  # after a crash, what `koubou scale` said counts
            return
        code = service.ready.get("exit")
        if isinstance(code, int):
            raise StartFailed(code, str(service.ready.get("error", f"the {service.name} cannot start")))
        if service.process is not None:
            ended = await service.process.wait()
            above = "; the lines above say why" if service.tail else ""
            raise StartFailed(EXIT_FAILED, f"the {service.name} {_ending(ended)} at its start{above}")

    def _follow(self, service: Service) -> None:
        """Pass on what a child prints, and keep its last lines."""

        async def pump(stream: asyncio.StreamReader) -> None:
            rest = b""
            while chunk := await stream.read(1 << 16):
                *lines, rest = (rest + chunk).split(b"\n")
                for text in [line.decode(errors="replace") for line in lines]:
                    service.tail.append(text[:1_000])
                    self._say(text)

        if service.process is not None and service.process.stdout is not None:
            task = asyncio.create_task(pump(service.process.stdout))
            self._readers.add(task)
            task.add_done_callback(self._readers.discard)

    def _welcome(self) -> None:
        """Print the one line for people, and open the browser."""
        took_s = time.time() - self._began_at
        workshop = self._services[0]
        low, high = workshop.ready.get("workers") or self._settings.workers
        parts = [f"{high} workers" if low == high else f"{low}–{high} workers", f"ws :{workshop.port}"]
        parts.append(f"history {self._home.database}")
        dashboard = next((s for s in self._services if s.name == "dashboard"), None)
        address = self._link(dashboard.port) if dashboard else ""
        arrow = f" → {address}" if address else ""
        with contextlib.suppress(
            OSError, ValueError
        ):  # nobody reads it: the services are wanted all the same
            print(f"工房 ready in {took_s:.1f} s{arrow}   ({' · '.join(parts)})", file=self._out, flush=True)
        if address and self._browse is not None:
            self._browse(address)

    # -- while they run ---------------------------------------------------------------------------------------

    async def _keep(self, service: Service) -> None:
        """Start a service again whenever it dies, unless it dies too often."""
        delay_s = FIRST_DELAY_S
        while service.process is not None:
            ended = await service.process.wait()
            if self._asked.is_set():
                return
            now = time.monotonic()
            service.died_at.append(now)
            while now - service.died_at[0] > WINDOW_S:
                service.died_at.popleft()
            if len(service.died_at) > RESTARTS:
                self._give_up(service, f"died {RESTARTS + 1} times in a minute")
                return
            delay_s = FIRST_DELAY_S if len(service.died_at) == 1 else min(LONGEST_DELAY_S, 2 * delay_s)
            service.state, service.pid = "restarting", None
            self._write_status()
            self._say(f"koubou: the {service.name} {_ending(ended)}; starting it again in {delay_s:g} s")
            await asyncio.sleep(delay_s)
            service.restarts += 1
            try:
                await self._start(service)
            except StartFailed as failure:
                if failure.code == EXIT_DATA:
                    self._give_up(service, failure.message, code=EXIT_DATA)
                    return
                self._say(f"koubou: {failure.message}")

    def _give_up(self, service: Service, why: str, *, code: int = EXIT_FAILED) -> None:
        """Leave a service down; without the workshop there is nothing to go on for."""
        service.state, service.pid = "failed", None
        self._write_status()
        self._say(f"koubou: the {service.name} stays down: {why}{_last(service)}")
        if service.name == "workshop":
            self._code = code
            self._asked.set()

    def _write_status(self) -> None:
        """Put how everything stands into `status.json`, at once or not at all."""
        if not self._holds_home:  # it may be another supervisor's still
            return
        document = {
            "pid": os.getpid(),
            "started_at": self._started_at,
            "home": str(self._home.root),
            "host": self._settings.host,
            "insecure_no_auth": self._insecure_no_auth,
            "services": [service.record() for service in self._services],
        }
        path = status_path(self._home)
        draft = path.with_suffix(".new")
        with contextlib.suppress(OSError):  # a full disk must not end what runs
            draft.write_text(json.dumps(document, indent=1))
            draft.replace(path)

    # -- the end ----------------------------------------------------------------------------------------------

    async def _end_all(self) -> None:
        """End the workshop (it drains), then the rest; nothing is left behind."""
        self._asked.set()
        for task in self._keepers:
            task.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        for service in self._services:
            grace_s = self._settings.grace_s + DRAIN_S if service.name == "workshop" else END_S
            await self._end(service, grace_s)
        os.close(self._life[0])
        os.close(self._life[1])
        await asyncio.gather(*self._readers, return_exceptions=True)
        self._forget_status()

    async def _end(self, service: Service, grace_s: float) -> None:
        process = service.process
        if process is None or process.returncode is not None:
            return
        service.state = "stopping"
        self._write_status()
        _signal(process, signal.SIGTERM)
        ended = asyncio.create_task(process.wait())
        skip = asyncio.create_task(self._skip.wait())
        await asyncio.wait({ended, skip}, timeout=grace_s, return_when=asyncio.FIRST_COMPLETED)
        if not ended.done() and skip.done():
            _signal(process, END_NOW)
            await asyncio.wait({ended}, timeout=DRAIN_S)
        if not ended.done():
            self._say(f"koubou: the {service.name} does not end; it is killed")
            _signal(process, signal.SIGKILL)
        await ended
        skip.cancel()
        service.state, service.pid = "stopped", None

    def _forget_status(self) -> None:
        """Remove `status.json`, unless it is another supervisor's."""
        path = status_path(self._home)
        with contextlib.suppress(OSError, ValueError):
            if json.loads(path.read_text()).get("pid") == os.getpid():
                path.unlink()


def status_path(home: Home) -> Path:
    """Where `koubou up` writes how its services stand."""
    return home.runtime / "status.json"


def _services(settings: Settings, *, dashboard: bool, insecure_no_auth: bool) -> list[Service]:
    common = ["--home", str(settings.home), "--host", settings.host]
    common += ["--insecure-no-auth"] if insecure_no_auth else []
    own = ["--grace", f"{settings.grace_s:g}"]
    own += ["--agents-port", str(settings.agents_port)]
    own += ["--dashboard-port", str(settings.dashboard_port)] if dashboard else []
    module = "koubou_panel.servers"
    workshop = Service("workshop", f"{module}.workshop", common + own, "--socket-port", settings.socket_port)
    if settings.sources["workers"] != "default":
        low, high = settings.workers
        workshop.first_flags = ["--workers", f"{low}:{high}"]
    page = Service("dashboard", f"{module}.dashboard", common, "--dashboard-port", settings.dashboard_port)
    return [workshop, page] if dashboard else [workshop]


def _argv(service: Service, *, ready_fd: int, life_fd: int) -> Sequence[str]:
    # -P: a file of the folder that `koubou up` was typed in must not stand in for a library.
    start = [sys.executable, "-P", "-m", service.module]
    port = [service.port_flag, str(service.port)]
    return [
        *start,
        *service.flags,
        *service.first_flags,
        *port,
        "--ready-fd",
        str(ready_fd),
        "--life-fd",
        str(life_fd),
    ]


async def _read_line(fd: int) -> bytes:
    """What is written to a pipe up to a line's end or its own."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(os.dup(fd), "rb", buffering=0)
    )
    try:
        return await reader.readline()
    finally:
        transport.close()


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(number)


def _ending(code: int) -> str:
    if code >= 0:
        return f"ended with code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


def _last(service: Service) -> str:
    return ". Its last lines:\n  " + "\n  ".join(service.tail) if service.tail else ""
