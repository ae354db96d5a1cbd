"""A workshop held by this process: home, archive, hub, engine and samplers behind the `Shop` door."""

from __future__ import annotations

import asyncio
import os
import platform
import secrets
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TypeVar

from msgspec.structs import replace

from koubou_panel import registry
from koubou_panel.archive.output import OutputLog, output_path, read_output, read_output_bytes
from koubou_panel.archive.sqlite import Archive
from koubou_panel.core.commands import (
    Caller,
    CloseShop,
    Command,
    SaveScript,
    ShutDown,
    SubmitTask,
)
from koubou_panel.core.curve import Curve, decode_curve
from koubou_panel.core.ids import TaskIds
from koubou_panel.core.ports import (
    MOST_BINS,
    MOST_SPANS,
    Link,
    OutputBytes,
    OutputHits,
    OutputMatches,
    OutputPage,
    OutputRemoved,
    OutputSearch,
    RunSpans,
    ScriptText,
    ScriptVersion,
    Subscriber,
    TaskPage,
    TaskQuery,
)
from koubou_panel.core.records import Job, Metrics, Task, TaskId
from koubou_panel.core.state import State
from koubou_panel.engines.local import LocalEngine
from koubou_panel.errors import Refused
from koubou_panel.home import Home
from koubou_panel.kinds.limit import oom_kills
from koubou_panel.shop.asking import Asking
from koubou_panel.shop.clock import Clock, utc_now
from koubou_panel.shop.hub import Hub
from koubou_panel.shop.idle import Idle, at_most
from koubou_panel.shop.kept import USUAL, Kept, Retention
from koubou_panel.shop.recovery import begin
from koubou_panel.shop.rotation import Rotation, held_each, removal
from koubou_panel.shop.sampling import Sampling
from koubou_panel.shop.schedules import Schedules
from koubou_panel.shop.scripts import Scripts
from koubou_panel.shop.step import Ask

T = TypeVar("T")

MOST_OUTPUT_BYTES = 1 << 20
PRUNE_EVERY_S = 3600.0
END_LIMIT_S = 7.0
STORE_LIMIT_S = 15.0
# Of the four readers: a crowd of long lists leaves the others to who asks for one task, and the loop waits for the
# interpreter's lock behind one thread that decodes, not two: with eight such clients 12 ms instead of 51.
MOST_FINDING = 1
OF_FILES: frozenset[object] = frozenset({read_output, read_output_bytes})


class LocalShop:
    """The workshop itself. Loop thread only."""

    def __init__(self, *, hub: Hub, archive: Archive, home: Home, clock: Clock) -> None:
        """Put together by `open`."""
        self.hub = hub
        self.home = home
        self.engine: LocalEngine | None = None
        self.clock = clock
        self._archive = archive
        self._ids = TaskIds()
        self._readers = ThreadPoolExecutor(4, thread_name_prefix="reader")
        self._finding = asyncio.Semaphore(MOST_FINDING)
        self._spanning = asyncio.Semaphore(MOST_FINDING)
        self._background: list[asyncio.Task[None]] = []
        self._schedules: Schedules | None = None
        self._rotation: Rotation | None = None
        self._asking = Asking(
            hub=hub,
            archive=archive,
            values=home.values,
            read=self._read,
            clock=clock,
            engine=lambda: self.engine,
        )
        self._scripts = Scripts(hub=hub, archive=archive, home=home, clock=clock, read=self._read)

    @classmethod
    async def open(
        cls,
        home: Home,
        *,
        workers: tuple[int, int] | None = None,
        clock: Clock = utc_now,
        steady: Clock = time.monotonic,
        open_files: int = 0,
        agent_tasks: int | None = None,
        retention: Retention = USUAL,
    ) -> LocalShop:
        """Hold `home` (prepared and locked by the caller), rescue what is in it, and start the workers.

        Args:
            workers: (least, most); the stored bounds where not given, 1 to 3 at first.
            clock: UTC seconds.
            steady: seconds of which none pass while the machine sleeps: time-outs do not count those.
            open_files: how many files tasks may have open; 0: as many as this process.
            agent_tasks: how many unfinished tasks one agent may have; None: as many as it likes.
            retention: what is kept of the files of large values.

        Raises:
            HomeRefused: the home's data are corrupt or of a newer version.
        """
        loop = asyncio.get_running_loop()
        archive = await loop.run_in_executor(None, Archive.open, home.database)
        stored = await loop.run_in_executor(None, begin, archive, home.marks, workers, clock)
        hub = Hub(
            loop=loop,
            archive=archive,
            stored=stored,
            batches=registry.batches,
            clock=clock,
            node=platform.node() or "local",
            agent_tasks=agent_tasks,
            steady=steady,
        )
        shop = cls(hub=hub, archive=archive, home=home, clock=clock)
        shop.engine = LocalEngine(
            loop=loop,
            marks_folder=home.marks,
            output_folder=home.output,
            report=hub.report,
            shares_worker=registry.shares_worker,
            keep_output=partial(keep_output, home.output),
            oom_kills=oom_kills,
            database=home.database,
            open_files=open_files,
        )
        hub.start(shop.engine)
        sampling = Sampling(hub=hub, engine=shop.engine, folder=home.root, clock=clock)
        shop._schedules = Schedules(hub=hub, clock=clock, next_id=shop.next_id)
        shop._rotation = Rotation(hub=hub, archive=archive, home=home, clock=clock, read=shop._read)
        kept = Kept(
            hub=hub, archive=archive, folder=home.values, clock=clock, read=shop._read, retention=retention
        )
        work = (sampling.run(), shop._prune(), kept.run())
        shop._background = [loop.create_task(one) for one in work]
        return shop

    # -- the Shop door ----------------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """The state, to read; never to change."""
        return self.hub.state

    @property
    def link(self) -> Link:
        """Always live: this is the workshop."""
        return Link()

    def next_id(self) -> TaskId:
        """A new id for a task that is about to be submitted."""
        return self._ids.make(self.clock(), secrets.randbits(30))

    async def do(self, command: Command, caller: Caller) -> TaskId | None:
        """Carry out one command; see `core.ports.Shop.do`."""
        (answer,) = await self.do_many([command], caller)
        if isinstance(answer, Refused):
            raise answer
        return answer

    async def do_many(self, commands: Sequence[Command], caller: Caller) -> list[TaskId | Refused | None]:
        """Carry out commands in order; see `core.ports.Shop.do_many`."""
        answers: list[TaskId | Refused | None] = [None] * len(commands)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        left = len(commands)

        def keep(place: int, answer: TaskId | Refused | None) -> None:
            nonlocal left
            answers[place] = answer
            left -= 1
            if not left and not done.done():
                done.set_result(None)

        for place, command in enumerate(commands):
            try:
                if type(command) is SaveScript:
                    await self._scripts.save(command, caller, partial(keep, place))
                else:
                    self.hub.ask(await self._asking.ask(command, caller, partial(keep, place)))
            except Refused as refusal:
                keep(place, refusal)
        if left:
            await done
        return answers

    def submit_now(
        self, command: SubmitTask, caller: Caller, reply: Callable[[TaskId | Refused | None], None]
    ) -> None:
        """Take in a task without waiting; `reply` is called once it is durable or refused."""
        try:
            request = registry.prepare(command.request, from_network=False)
        except Refused as refusal:
            reply(refusal)
            return
        if request is not command.request:
            command = SubmitTask(request)
        self.hub.ask(Ask(command, caller, reply))

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Follow the shop; calling the result ends it."""
        return self.hub.subscribe(subscriber)

    async def find(self, query: TaskQuery) -> TaskPage:
        """Tasks by query, newest first; those that the state holds as they stand now."""
        async with self._finding:
            page = await self._read(self._archive.find, query)
        return replace(page, tasks=[self.state.tasks.get(task.task_id, task) for task in page.tasks])

    async def get(self, task_id: TaskId) -> Task | None:
        """One task, finished long ago or not."""
        return self.state.tasks.get(task_id) or await self._read(self._archive.get, task_id)

    async def values(self, task_ids: Sequence[TaskId]) -> list[bytes]:
        """The opaque results of finished tasks."""
        return await self._read(self._archive.values, task_ids)

    async def read_output(self, task_id: TaskId, offset: int, limit: int) -> OutputPage:
        """A piece of a task's output, at most 1 MiB; a line that says so where it was removed."""
        path = output_path(self.home.output, task_id)
        page = await self._read(read_output, path, offset, min(limit, MOST_OUTPUT_BYTES))
        if page.size:
            return page
        gone = await self._removal(task_id, offset, limit)
        return OutputPage(gone.data.decode("utf-8", "replace"), gone.offset, gone.end, gone.size)

    async def read_bytes(self, task_id: TaskId, offset: int, limit: int) -> OutputBytes:
        """As `read_output`, byte for byte."""
        path = output_path(self.home.output, task_id)
        page = await self._read(read_output_bytes, path, offset, min(limit, MOST_OUTPUT_BYTES))
        return page if page.size else await self._removal(task_id, offset, limit)

    async def _removal(self, task_id: TaskId, offset: int, limit: int) -> OutputBytes:
        task = await self.get(task_id)
        entry = self.state.scripts.get(task.request.script_name or "") if task is not None else None
        return removal(task, None if entry is None else entry.script, offset, limit)

    async def metrics_binned(self, at: float, step_s: float) -> list[Metrics]:
        """The host since the UTC second `at` in spans; see `core.ports.Shop.metrics_binned`."""
        if not step_s > 0 or not (self.clock() - at) / step_s <= MOST_BINS:
            raise Refused("invalid", f"that is more than {MOST_BINS} spans: ask for longer ones")
        async with self._spanning:  # a day's samples hold a reader for a second
            return await self._read(self._archive.metrics_binned, at, step_s)

    async def metrics_since(self, at: float) -> list[Metrics]:
        """Samples of the host since the UTC second `at`, oldest first."""
        held = self.state.metrics
        if held and held[0].at <= at:
            return [metrics for metrics in held if metrics.at >= at]
        stored = await self._read(self._archive.metrics_since, at)
        last = stored[-1].at if stored else at
        return stored + [metrics for metrics in self.state.metrics if metrics.at > last]

    async def spans(self, start: float, end: float, most: int = MOST_SPANS) -> RunSpans:
        """The runs that ended between two UTC seconds, or stood over them; see `core.ports.Shop.spans`."""
        async with self._spanning:
            return await self._read(self._archive.spans, start, end, most)

    async def curve(self, task_id: TaskId) -> Curve | None:
        """What a task's last run uses, or used, over time; None where it was too short to be looked at."""
        task = self.state.tasks.get(task_id)
        curve = None if task is None else self.hub.curves.get(task_id, task.run)
        if curve is None and (blob := await self._read(self._archive.curve, task_id)) is not None:
            curve = decode_curve(blob)
        return curve

    async def read_script(self, name: str, version: str | None = None) -> ScriptText:
        """A script's text, as its file holds it, or of an earlier version."""
        return await self._scripts.read_text(name, version)

    async def script_versions(self, name: str) -> list[ScriptVersion]:
        """The texts that are kept of a script, newest first."""
        return await self._scripts.versions(name)

    async def save_script_text(self, name: str, text: str, base: str, caller: Caller) -> str:
        """Save a script's text; see `core.ports.Shop.save_script_text`."""
        return await self._scripts.save_text(name, text, base, caller)

    async def restore_script(self, name: str, version: str, base: str, caller: Caller) -> str:
        """Save a kept version as the present text; its whole version."""
        return await self._scripts.restore(name, version, base, caller)

    async def search_output(self, script: str, text: str, limit: int = 100) -> OutputMatches:
        """Lines with `text` in the output of a script's runs, newest run first."""
        return await self._scripts.search(script, text, limit)

    async def search_logs(self, search: OutputSearch) -> OutputHits:
        """Lines in the output of tasks; see `core.ports.Shop.search_logs`."""
        return await self._scripts.search_logs(search)

    async def held_output(self, task_ids: Sequence[TaskId]) -> list[int]:
        """How many bytes of output are held of each of these tasks."""
        return await self._read(held_each, self.home, task_ids)

    async def remove_output(self, script: str, caller: Caller) -> OutputRemoved:
        """Remove what the runs of a script that have ended printed."""
        return await self._scripts.remove_output(script, caller)

    async def _read(self, function: Callable[..., T], *args: object) -> T:
        try:
            reading = asyncio.get_running_loop().run_in_executor(self._readers, function, *args)
        except RuntimeError:  # the readers have ended before the doors
            if function in OF_FILES:
                return function(*args)  # a file: who follows a task reads how it ended
            raise Refused(
                "unavailable", "the workshop ends and answers no more; `koubou up` starts it"
            ) from None
        return await reading

    # -- background -------------------------------------------------------------------------------------------

    async def _prune(self) -> None:
        while True:
            await asyncio.sleep(PRUNE_EVERY_S)
            self.hub.prune()
            if self._rotation is not None:
                self._rotation.look_at_all()

    # -- its end ----------------------------------------------------------------------------------------------

    async def drain(self, grace_s: float, skip: asyncio.Event | None = None) -> None:
        """Take no new work and start none; running tasks go on for `grace_s` seconds, or until `skip` is set."""
        await self.do(CloseShop(), Caller("koubou"))
        await self._until_idle(grace_s, skip)

    async def _until_idle(self, limit_s: float, skip: asyncio.Event | None = None) -> None:
        """Wait until nothing runs, for at most `limit_s` seconds, or until `skip` is set."""
        idle = Idle()
        unsubscribe = self.subscribe(idle)
        waits = [asyncio.ensure_future(event.wait()) for event in (idle.event, skip) if event is not None]
        try:
            await asyncio.wait(waits, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            unsubscribe()
            for wait in waits:
                wait.cancel()

    async def close(self, grace_s: float = 0.0, skip: asyncio.Event | None = None) -> None:
        """Drain, end what still runs (`shutdown`), store everything, and let go of the archive.

        No step waits for ever: what does not end in its time is told in the log, and left.
        """
        try:
            with suppress(Refused):  # it cannot be stored just now; the end comes all the same
                await at_most(grace_s + END_LIMIT_S, self.drain(grace_s, skip), "what runs")
            self.hub.report(ShutDown("koubou"))
            await self._until_idle(END_LIMIT_S)
        finally:
            if self._schedules is not None:
                self._schedules.close()
            if self._rotation is not None:
                await self._rotation.close()
            await at_most(END_LIMIT_S, self._scripts.close(), "the save of a script")
            for task in self._background:
                task.cancel()
            await asyncio.gather(*self._background, return_exceptions=True)
            if self.engine is not None:
                await at_most(END_LIMIT_S, self.engine.close(), "a worker")
            is_stored = await at_most(STORE_LIMIT_S, self.hub.close(), "the archive")
            self._readers.shutdown(wait=is_stored, cancel_futures=True)
            if is_stored:  # else a thread is still at it
                self._archive.close()


def keep_output(folder: Path, job: Job, fd: int, begin: int) -> int:
    """Append what the file `fd` has from `begin` on to the log of a run whose worker died; the log's size."""
    quota_bytes = job.limits.output_bytes
    path = output_path(folder, job.task_id)
    log = OutputLog(path) if quota_bytes is None else OutputLog(path, quota_bytes)
    while data := os.pread(fd, MOST_OUTPUT_BYTES, begin):
        log.write(data)
        begin += len(data)
    log.close()
    return log.size
