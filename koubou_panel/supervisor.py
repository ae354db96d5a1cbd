"""`koubou up`'s parent process: starts the services, restarts them, ends with them. No Panel, no shop's loop.

A workshop's five services live in three processes: the workshop (agents, pool and WebSocket), the dashboard, and the
model server. What is said of them here is the one truth about them: it goes to `status.json`, and to the processes,
which hand it on. Each process holds one end of a pipe whose other end is here, so that it ends even when the
supervisor is killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import TextIO

import psutil

from koubou_panel.core.records import Service
from koubou_panel.errors import SettingsError
from koubou_panel.home import Home
from koubou_panel.settings import EXIT_DATA, EXIT_FAILED, EXIT_USAGE, Settings, default_home
from koubou_panel.supervising.children import children_of, go_on_at
from koubou_panel.supervising.model import RUNS_ALREADY, Elsewhere, choose, ollama_program
from koubou_panel.supervising.patience import Patience
from koubou_panel.supervising.process import Child, StartFailed, ending_words
from koubou_panel.supervising.status import encode_services, forget_status, in_order, take_wish, write_status

END_S = 5.0
RESTART = signal.SIGUSR1
WISH = signal.SIGUSR2
DRAIN_S = 20.0  # what a workshop may take beyond the grace: TERM, 5 s, KILL, the last commit
SLOW_S = 10.0
VERDICT_S = 2.0
LOOK_S = 5.0  # how often an Ollama that is not ours is looked for


class Supervisor:
    """Runs the services of one home until it is asked to end.

    Args:
        settings: the settings in force.
        dashboard: whether to run the dashboard.
        insecure_no_auth: whether the ports ask for no credentials.
        again: the ports of an earlier start that this goes on from, by service: open pages find it there. The stored
            number of workers counts then, not the settings'. None: it is no restart.
        label: a word for what kind of workshop this is, such as "demo"; shown wherever it is.
        patience: how often what dies is started again.
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
        again: Mapping[str, int] | None = None,
        label: str = "",
        patience: Patience | None = None,
        link: Callable[[int], str],
        browse: Callable[[str], None] | None = None,
        out: TextIO | None = None,
        err: TextIO | None = None,
    ) -> None:
        """Nothing runs before `run`."""
        self._settings = settings
        self._home = Home(settings.home)
        self._patience = patience or Patience()
        self._link = link
        self._browse = browse
        self._out = out or sys.stdout
        self._err = err or sys.stderr
        self.is_to_return = False
        self._asked = asyncio.Event()
        self._skip = asyncio.Event()
        started_at = psutil.Process().create_time()
        # A restart goes on in the same process, whose own start is long ago.
        self._began_at = started_at if again is None else time.time()
        self._about = {
            "started_at": started_at,
            "began_at": self._began_at,
            "home": str(self._home.root),
            "host": settings.host,
            "insecure_no_auth": insecure_no_auth,
            "label": label,
        }
        self._code = 0
        self._holds_home = False
        self._early: list[Mapping[str, object]] | None = []
        flags = ["--insecure-no-auth"] if insecure_no_auth else []
        made = children_of(settings, dashboard=dashboard, flags=flags, label=label, say=self._say)
        self._workshop, self._dashboard, self._model = made
        self._main = [child for child in (self._workshop, self._dashboard) if child is not None]
        if again is not None:
            self._workshop.first_flags = ()
            go_on_at(self._main, again, settings.host)
        self._children = [*self._main, self._model]
        self._keepers: dict[str, asyncio.Task[None]] = {}
        self._work: set[asyncio.Task[None]] = set()
        self._said: list[Service] = []
        self._life: tuple[int, int] = (-1, -1)
        for child in self._main:
            child.on_request = self._take_request

    @property
    def ports(self) -> dict[str, int]:
        """The port of each service that has one."""
        return {service: port for child in self._main for service, port in child.ports.items() if port}

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
        self._watch_signals()
        try:
            await self._start_all()
            if not self._asked.is_set():
                self._welcome()
                for child in self._main:
                    self._keep_on(child, is_running=True)
                self._spawn(self._watch_model())
                early, self._early = self._early or [], None
                for request in early:
                    self._take_request(request)
            await self._asked.wait()
        except StartFailed as failure:
            self._say(f"koubou: {failure.message}")
            self._code = failure.code
        finally:
            await self._end_all()
        return self._code

    # -- what it is asked -------------------------------------------------------------------------------------

    def _watch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # `nohup`, and `&` in a script
                loop.add_signal_handler(number, self._ask)
        loop.add_signal_handler(RESTART, self._ask_to_return)
        loop.add_signal_handler(WISH, self._grant_wish)

    def _ask_to_return(self) -> None:
        if self.is_to_return or not self._asked.is_set():  # what was asked to end stays ended
            self._ask(is_to_return=True)

    def _ask(self, *, is_to_return: bool = False) -> None:
        self.is_to_return = is_to_return
        if self._asked.is_set():
            self._skip.set()
            return
        self._asked.set()
        if any(child.is_alive for child in self._children):
            grace = f"{self._settings.grace_s:g} s"
            word = "restarting" if is_to_return else "stopping"
            self._say(f"koubou: {word}. What runs may go on for {grace}; once more (Ctrl-C) ends it at once")

    def _grant_wish(self) -> None:
        """`koubou restart SERVICE` left a name in the home."""
        name = take_wish(self._home)
        if name is not None:
            self._take_request({"restart": name})

    def _take_request(self, request: Mapping[str, object]) -> None:
        """A process, or `koubou restart SERVICE`, asks that a service be started, or started anew."""
        if self._asked.is_set():
            return
        if self._early is not None:  # nobody keeps the processes yet
            self._early.append(request)
            return
        for word, act in (("start", self._want), ("restart", self._start_anew)):
            name = request.get(word)
            child = next((child for child in self._children if name in (child.name, *child.services)), None)
            if child is not None:
                act(child)

    def _want(self, child: Child) -> None:
        """Start what waits for being needed. What has failed is not tried again at once."""
        keeper = self._keepers.get(child.name)
        if keeper is not None and not keeper.done():
            return
        is_tired = bool(child.died_at) and time.monotonic() - child.died_at[-1] < self._patience.window_s
        if child.state == "idle" or (child.state == "failed" and not is_tired):
            child.died_at.clear()
            self._keep_on(child)

    def _start_anew(self, child: Child) -> None:
        self._keepers[child.name] = self._spawn(self._anew(child, self._keepers.get(child.name)))

    async def _anew(self, child: Child, keeper: asyncio.Task[None] | None) -> None:
        if keeper is not None:
            keeper.cancel()
            await asyncio.wait({keeper})
        self._say(f"koubou: the {child.name} is started anew, as asked")
        await self._end(child)
        child.died_at.clear()
        child.restarts += child.started_at is not None
        await self._keep(child, is_running=False)

    def _say(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            print(text, file=self._err, flush=True)

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._work.add(task)
        task.add_done_callback(self._work.discard)
        return task

    # -- the start --------------------------------------------------------------------------------------------

    async def _start_all(self) -> None:
        starts = [asyncio.create_task(self._start(child)) for child in self._main]
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

    async def _start(self, child: Child) -> None:
        await child.start(self._life[0], self._tell)
        if child is self._workshop:
            self._holds_home, self._code = True, 0
        self._tell()

    def _welcome(self) -> None:
        """Print the one line for people, and open the browser."""
        took_s = time.time() - self._began_at
        workers = self._workshop.ready.get("workers")
        low, high = workers if isinstance(workers, list) else self._settings.workers
        ports = self._workshop.ports
        parts = [f"{high} workers" if low == high else f"{low}–{high} workers", f"ws :{ports['websocket']}"]
        parts += [f"mcp :{ports['agents']}", f"history {self._home.database}"]
        if self._home.root != default_home():
            parts.append(f"in another shell: koubou --home {shlex.quote(str(self._home.root))}")
        address = self._link(self._dashboard.ports["dashboard"]) if self._dashboard else ""
        arrow = f" → {address}" if address else ""
        label = f"{self._about['label']} " if self._about["label"] else ""
        line = f"工房 {label}ready in {took_s:.1f} s{arrow}   ({' · '.join(parts)})"
        with contextlib.suppress(
            OSError, ValueError
        ):  # nobody reads it: the services are wanted all the same
            print(line, file=self._out, flush=True)
        if address and self._browse is not None:
            self._browse(address)

    # -- while they run ---------------------------------------------------------------------------------------

    def _keep_on(self, child: Child, *, is_running: bool = False) -> None:
        self._keepers[child.name] = self._spawn(self._keep(child, is_running=is_running))

    async def _keep(self, child: Child, *, is_running: bool) -> None:
        """Start a process, and again whenever it dies, unless it dies too often."""
        delay_s = 0.0
        while True:
            if is_running:
                ended = await child.wait()
                if child is self._workshop and ended == EXIT_DATA:
                    self._end_without_home()
                    return
                delay_s = self._patience.delay_after(child.died_at, time.monotonic(), delay_s)
                if not delay_s:
                    self._give_up(child, f"it {ending_words(ended)}, {self._patience.words}")
                    return
                child.state, child.pid = "restarting", None
                self._tell()
                self._say(
                    f"koubou: the {child.name} {ending_words(ended)}; starting it again in {delay_s:g} s"
                )
                await asyncio.sleep(delay_s)
                child.restarts += 1
            if child is self._model and not await self._chosen():
                return
            try:
                await self._start(child)
            except StartFailed as failure:
                if failure.is_final or failure.code == EXIT_DATA:
                    self._give_up(child, failure.message, code=failure.code)
                    return
                self._say(f"koubou: {failure.message}")
            is_running = True

    def _give_up(self, child: Child, why: str, *, code: int = EXIT_FAILED) -> None:
        """Leave a process down. The others run on: without the workshop, its dashboard says what became of it."""
        child.state, child.pid = "failed", None
        child.message = f"{why}{child.last_words()}"
        self._say(f"koubou: the {child.name} stays down: {child.message}")
        self._tell()
        if child is self._workshop:
            self._code = code
        if all(child.state == "failed" for child in self._main):
            self._asked.set()  # there is nothing to go on for
        elif child is self._workshop:
            self._say(
                "koubou: the dashboard stays; `koubou restart` starts the workshop again, Ctrl-C ends all"
            )

    def _end_without_home(self) -> None:
        """The home's folder was removed: there is nothing to go on with, and what is there now is another's."""
        self._workshop.state, self._workshop.pid = "failed", None
        self._holds_home, self._code = False, EXIT_DATA
        root = self._home.root
        self._say(f"koubou: the folder {root} was removed while it was open; `koubou up` begins a new one")
        self._asked.set()

    def _tell(self) -> None:
        """Say how everything stands, if that is new: in `status.json`, and to the processes."""
        services = in_order([record for child in self._children for record in child.records()])
        line = encode_services(services)
        is_new, self._said = services != self._said, services
        for child in self._main:
            child.tell(line)
        if is_new and self._holds_home:  # it may be another supervisor's still
            write_status(self._home, self._about, services)

    # -- the model service ------------------------------------------------------------------------------------

    async def _watch_model(self) -> None:
        """Start `ollama serve` where it is installed; see whether an Ollama that is not ours is there."""
        model = self._model
        if ollama_program(os.environ) is not None and not self._settings.model_url:
            self._want(model)
        while True:
            keeper = self._keepers.get(model.name)
            if (keeper is None or keeper.done()) and model.state in ("idle", "running", "failed"):
                found = None
                with contextlib.suppress(SettingsError):  # who asks for the model is told
                    found = await choose(self._home, os.environ)
                if isinstance(found, Elsewhere):
                    self._runs_elsewhere(found)
                elif found is not None and model.state == "running":
                    model.state, model.ports, model.message = "idle", {}, ""
                    self._tell()
            await asyncio.sleep(LOOK_S)

    async def _chosen(self) -> bool:
        """Choose what the model service is made from; False: there is none to start, one that is not ours perhaps."""
        try:
            found = await choose(self._home, os.environ)
        except SettingsError as error:
            self._model.tail.clear()
            self._give_up(self._model, error.message, code=EXIT_USAGE)
            return False
        if isinstance(found, Elsewhere):
            self._runs_elsewhere(found)
            return False
        self._model.use(found, {})
        return True

    def _runs_elsewhere(self, found: Elsewhere) -> None:
        model = self._model
        model.state, model.ports, model.message = "running", {"model": found.port}, RUNS_ALREADY
        model.pid = model.started_at = None
        self._tell()

    # -- the end ----------------------------------------------------------------------------------------------

    async def _end_all(self) -> None:
        """End the workshop (it drains), then the rest; nothing is left behind, and nothing is waited for for ever."""
        self._asked.set()
        for task in tuple(self._work):
            task.cancel()
        await asyncio.gather(*self._work, return_exceptions=True)
        await self._end(self._workshop)
        await asyncio.gather(*(self._end(child) for child in self._children if child is not self._workshop))
        os.close(self._life[0])
        os.close(self._life[1])
        forget_status(self._home)

    async def _end(self, child: Child) -> None:
        if child.is_alive:
            child.state = "stopping"
            self._tell()
            grace_s = self._settings.grace_s + DRAIN_S if child is self._workshop else END_S
            await child.end(grace_s, DRAIN_S, self._skip)
        child.hang_up()
        if child.state != "failed":
            child.state, child.pid = "stopped", None
