"""A workshop in another process, behind the same `Shop` door: a replica kept over the private link.

It connects again by itself. A command that may have arrived before the link was cut is sent again only if that
is safe by its id (`SubmitTask`, `RetryTask`); any other is refused, with the advice to look first.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from itertools import groupby
from pathlib import Path
from typing import Self, cast

from koubou_panel.core.commands import Caller, Command, SendInput, SubmitTask
from koubou_panel.core.curve import Curve
from koubou_panel.core.ids import TaskIds
from koubou_panel.core.ports import (
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
from koubou_panel.core.records import Metrics, Service, Task, TaskId
from koubou_panel.core.state import Snapshot, State
from koubou_panel.errors import ProtocolFault, Refused
from koubou_panel.shop.connection import AskCall, Connection, DoCall, WhyEnded, is_repeatable
from koubou_panel.wire import link as wire
from koubou_panel.wire import questions
from koubou_panel.wire.replica import Replica

FRAME_COMMANDS = 1_000
# Of arguments in one frame. One that cannot be sent is cut in two, and the next overtakes its second half.
FRAME_BYTES = 32 << 20
FRAMES_ON_THE_WAY = 8
FRAME_VALUES = 256
ANSWER_S = 5.0

Result = TaskId | Refused | None

log = logging.getLogger(__name__)


class RemoteShop:
    """A running workshop, seen from another process of the same user. Loop thread only; made by `connect`."""

    def __init__(self, path: Path, *, by: str, replica: bool, why_ended: WhyEnded = lambda: None) -> None:
        """Put together by `connect`."""
        self._is_replica = replica
        self._replica = Replica()
        self._connection = Connection(path, by=by, replica=replica, handler=self._take, why_ended=why_ended)
        self._connection.on_cut = self._cut
        self._ready = asyncio.Event()
        self._subscribers: list[Subscriber] = []
        self._followers: dict[TaskId, list[Follower]] = {}
        self._ids = TaskIds()
        self._open: _Batch | None = None
        self._services: dict[str, Service] = {}
        self.welcome: wire.Welcome | None = None

    @classmethod
    async def connect(
        cls,
        path: Path,
        *,
        by: str,
        replica: bool = True,
        wait_s: float = 0.0,
        why_ended: WhyEnded = lambda: None,
    ) -> RemoteShop:
        """Attach to the workshop at `path`.

        Args:
            path: its socket, `Home.socket`.
            by: who connects, for its log.
            replica: whether to keep a replica; without, `state` stays empty and `follow` tells of single tasks.
            wait_s: how long to try again where nobody answers, seconds.
            why_ended: says why a workshop that does not answer is not to be waited for; None: it may be back by itself.

        Raises:
            Refused: `unavailable`: no workshop answers; `version`: it is of another version.
        """
        shop = cls(path, by=by, replica=replica, why_ended=why_ended)
        connection = shop._connection
        connection.start()
        ready = asyncio.ensure_future(shop._ready.wait())
        tried = asyncio.ensure_future(connection.tried.wait())
        try:
            await asyncio.wait({ready, tried}, timeout=ANSWER_S, return_when=asyncio.FIRST_COMPLETED)
            if (
                not shop._ready.is_set()
                and wait_s
                and (connection.why is None or connection.why.code != "version")
            ):
                await asyncio.wait({ready}, timeout=wait_s)
        except asyncio.CancelledError:
            await shop.close()
            raise
        finally:
            tried.cancel()
            ready.cancel()
        if not shop._ready.is_set():
            await shop.close()
            raise connection.why or Refused("unavailable", f"the workshop at {path} does not answer")
        return shop

    async def close(self) -> None:
        """Hang up."""
        await self._connection.close()
        for followers in self._followers.values():
            for follower in followers:
                follower.wake()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *args: object) -> None:
        await self.close()

    # -- the Shop door ----------------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """The replica, to read; never to change."""
        return self._replica.state

    @property
    def link(self) -> Link:
        """How fresh the replica is."""
        return self._connection.status

    def next_id(self) -> TaskId:
        """A new id for a task that is about to be submitted."""
        return self._ids.make(time.time(), secrets.randbits(30))

    async def do(self, command: Command, caller: Caller) -> TaskId | None:
        """Carry out one command; those asked for in one turn of the loop cross together."""
        batch = self._open
        if batch is None or not batch.takes(command, caller):
            self._flush(batch)
            batch = self._open = _Batch(command, caller)
            asyncio.get_running_loop().call_soon(self._flush, batch)
        place = batch.add(command)
        results = await asyncio.shield(batch.results)
        result = results[place]
        if isinstance(result, Refused):
            raise result
        return result

    async def do_many(self, commands: Sequence[Command], caller: Caller) -> list[Result]:
        """Carry out many commands in order, in few frames, a few of them on the way at once."""
        self._flush(self._open)
        results: list[Result] = []
        on_the_way: deque[asyncio.Task[list[Result]]] = deque()
        for part in _parts(commands):
            if len(on_the_way) >= FRAMES_ON_THE_WAY:
                results += await on_the_way.popleft()
            on_the_way.append(asyncio.create_task(self._perform(part, caller)))
        while on_the_way:
            results += await on_the_way.popleft()
        return results

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Follow the workshop; calling the result ends it."""
        self._subscribers.append(subscriber)
        subscriber.on_reset(self.state)

        def unsubscribe() -> None:
            if subscriber in self._subscribers:
                self._subscribers.remove(subscriber)

        return unsubscribe

    async def find(self, query: TaskQuery) -> TaskPage:
        """Tasks by query, from the archive."""
        return cast("TaskPage", await self._ask(questions.Find(query)))

    async def get(self, task_id: TaskId) -> Task | None:
        """One task, finished long ago or not."""
        return cast("Task | None", await self._ask(questions.Get(task_id)))

    async def values(self, task_ids: Sequence[TaskId]) -> list[bytes]:
        """The opaque results of finished tasks, in that order."""
        values: list[bytes] = []
        for at in range(0, len(task_ids), FRAME_VALUES):
            values += await self._values(list(task_ids[at : at + FRAME_VALUES]))
        return values

    async def read_output(self, task_id: TaskId, offset: int, limit: int) -> OutputPage:
        """Output as text; see `core.ports.Shop.read_output`."""
        return cast("OutputPage", await self._ask(questions.Read(task_id, offset, limit)))

    async def read_bytes(self, task_id: TaskId, offset: int, limit: int) -> OutputBytes:
        """Output as it was printed, byte for byte."""
        return cast("OutputBytes", await self._ask(questions.ReadBytes(task_id, offset, limit)))

    async def metrics_binned(self, at: float, step_s: float) -> list[Metrics]:
        """The host since the UTC second `at` in spans; see `core.ports.Shop.metrics_binned`."""
        return cast("list[Metrics]", await self._ask(questions.MetricsBinned(at, step_s)))

    async def metrics_since(self, at: float) -> list[Metrics]:
        """Samples of the host since the UTC second `at`, oldest first."""
        return cast("list[Metrics]", await self._ask(questions.MetricsSince(at)))

    async def spans(self, start: float, end: float, most: int = MOST_SPANS) -> RunSpans:
        """The runs that ended between two UTC seconds, or stood over them; see `core.ports.Shop.spans`."""
        return cast("RunSpans", await self._ask(questions.Spans(start, end, most)))

    async def curve(self, task_id: TaskId) -> Curve | None:
        """What a task's last run uses, or used, over time; see `core.ports.Shop.curve`."""
        return cast("Curve | None", await self._ask(questions.GetCurve(task_id)))

    async def read_script(self, name: str, version: str | None = None) -> ScriptText:
        """A script's text, as its file holds it, or of an earlier version."""
        return cast("ScriptText", await self._ask(questions.ReadScript(name, version)))

    async def script_versions(self, name: str) -> list[ScriptVersion]:
        """The texts that are kept of a script, newest first."""
        return cast("list[ScriptVersion]", await self._ask(questions.ListVersions(name)))

    async def save_script_text(self, name: str, text: str, base: str, caller: Caller) -> str:
        """Save a script's text; see `core.ports.Shop.save_script_text`."""
        return cast("str", await self._ask(questions.SaveText(name, text, base, caller)))

    async def restore_script(self, name: str, version: str, base: str, caller: Caller) -> str:
        """Save a kept version as the present text; its whole version."""
        return cast("str", await self._ask(questions.RestoreText(name, version, base, caller)))

    async def search_output(self, script: str, text: str, limit: int = 100) -> OutputMatches:
        """Lines with `text` in the output of a script's runs, newest run first."""
        return cast("OutputMatches", await self._ask(questions.SearchOutput(script, text, limit)))

    async def search_logs(self, search: OutputSearch) -> OutputHits:
        """Lines in the output of tasks; see `core.ports.Shop.search_logs`."""
        return cast("OutputHits", await self._ask(questions.SearchLogs(search)))

    async def held_output(self, task_ids: Sequence[TaskId]) -> list[int]:
        """How many bytes of output are held of each of these tasks."""
        return cast("list[int]", await self._ask(questions.HeldOutput(list(task_ids))))

    async def remove_output(self, script: str, caller: Caller) -> OutputRemoved:
        """Remove what the runs of a script that have ended printed."""
        return cast("OutputRemoved", await self._ask(questions.RemoveOutput(script, caller)))

    # -- beyond the Shop door ---------------------------------------------------------------------------------

    @property
    def ended(self) -> str:
        """Why the workshop is not waited for, in words; empty while it answers, or may be back by itself."""
        return self._connection.ended

    def note_service(self, service: Service) -> None:
        """Take the supervisor's own word on a service: it counts also while the workshop is away."""
        self._services[service.name] = service
        self.state.services[service.name] = service
        self._tell(lambda subscriber: subscriber.on_samples(()))

    async def look(self) -> Snapshot:
        """How the workshop stands, its tasks apart. Needs no replica."""
        return cast("Snapshot", await self._ask(questions.Look()))

    @asynccontextmanager
    async def follow(self, task_id: TaskId) -> AsyncIterator[Follower]:
        """Be told of one task: its record whenever it changes or has printed more. Needs no replica."""
        follower = Follower()
        self._followers.setdefault(task_id, []).append(follower)
        self._connection.post(wire.Follow(task_id))
        try:
            yield follower
        finally:
            self._followers[task_id].remove(follower)
            if not self._followers[task_id]:
                del self._followers[task_id]
                self._connection.post(wire.Unfollow(task_id))

    # -- commands on their way --------------------------------------------------------------------------------

    def _flush(self, batch: _Batch | None) -> None:
        """Send a batch of single commands, unless it has left already."""
        if batch is not None and batch is self._open:
            self._open = None
            work = asyncio.ensure_future(self._perform(batch.commands, batch.caller))
            work.add_done_callback(batch.settle)

    async def _perform(self, commands: Sequence[Command], caller: Caller) -> list[Result]:
        """Send commands as one frame, or as several if one cannot hold or say them all; never raises Refused."""
        try:
            replies = await self._connection.call(DoCall(commands, caller))
        except Refused as refused:
            if refused.code != "invalid" or len(commands) == 1:  # else one of them cannot be read: which?
                return [refused] * len(commands)
        except ProtocolFault as fault:
            if len(commands) == 1:
                return [Refused(fault.code, fault.message)]
        else:
            return [wire.refused(reply) if isinstance(reply, wire.Refusal) else reply for reply in replies]
        half = len(commands) // 2
        first = await self._perform(commands[:half], caller)
        return first + await self._perform(commands[half:], caller)

    async def _ask(self, question: questions.Question) -> object:
        try:
            return await self._connection.call(AskCall(question))
        except ProtocolFault as fault:
            raise Refused(fault.code, fault.message) from None

    async def _values(self, task_ids: list[TaskId]) -> list[bytes]:
        try:
            return cast("list[bytes]", await self._ask(questions.Values(task_ids)))
        except Refused as refused:
            if refused.code != "too_large" or len(task_ids) == 1:
                raise
        half = len(task_ids) // 2
        return await self._values(task_ids[:half]) + await self._values(task_ids[half:])

    # -- what the workshop tells ------------------------------------------------------------------------------

    def _take(self, message: wire.ServerMessage) -> None:
        match message:
            case wire.Facts():
                news = self._replica.fold(message)
                self.state.services.update(self._services)
                if news:
                    self._tell(lambda subscriber: subscriber.on_facts(news))
            case wire.Samples(samples=samples):
                self._replica.fold_samples(samples)
                self._tell(lambda subscriber: subscriber.on_samples(samples))
            case wire.Reset() | wire.More():
                if self._replica.reset(message):
                    self._renewed()
            case wire.Now(task_id=task_id, task=task):
                for follower in self._followers.get(task_id, ()):
                    follower.put(task)
            case wire.Welcome():
                self._welcomed(message)

    def _cut(self) -> None:
        """Have who shows the link look at it."""
        self._tell(lambda subscriber: subscriber.on_samples(()))

    def _welcomed(self, welcome: wire.Welcome) -> None:
        self.welcome = welcome
        for task_id in self._followers:
            self._connection.post(wire.Follow(task_id))
        if not self._is_replica:
            self._replica.state = State(welcome.epoch)
            self._renewed()

    def _renewed(self) -> None:
        self.state.services.update(self._services)
        self._ready.set()
        self._tell(lambda subscriber: subscriber.on_reset(self.state))

    def _tell(self, tell: Callable[[Subscriber], None]) -> None:
        for subscriber in tuple(self._subscribers):
            try:
                tell(subscriber)
            except Exception:
                log.exception("a subscriber failed and was dropped")
                self._subscribers.remove(subscriber)


class Follower:
    """The latest word about one task. Loop thread only."""

    def __init__(self) -> None:
        """Nothing heard yet."""
        self._news = asyncio.Event()
        self._task: Task | None = None
        self._is_told = False

    def put(self, task: Task | None) -> None:
        """Take in the task as it stands; None: there is none."""
        self._task, self._is_told = task, True
        self._news.set()

    def wake(self) -> None:
        """Let whoever waits look."""
        self._news.set()

    async def next(self, timeout_s: float | None = None) -> Task | None:
        """The task as it stands, once something was told since the last call or `timeout_s` has passed."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._news.wait()
        except TimeoutError:
            pass
        self._news.clear()
        return self._task

    @property
    def is_told(self) -> bool:
        """Whether anything was heard yet, so that None means that there is no such task."""
        return self._is_told


class _Batch:
    """Single commands of one turn of the loop, by one caller."""

    def __init__(self, command: Command, caller: Caller) -> None:
        self.caller = caller
        self.commands: list[Command] = []
        self.results: asyncio.Future[list[Result]] = asyncio.get_running_loop().create_future()
        self._is_repeatable = is_repeatable(command)
        self._is_slow = isinstance(command, SendInput)

    def takes(self, command: Command, caller: Caller) -> bool:
        """Whether `command` may travel in this batch."""
        # Input is answered when the process has read it: nobody else is to wait for that.
        is_slow = self._is_slow or isinstance(command, SendInput)
        fits = len(self.commands) < FRAME_COMMANDS and self._is_repeatable == is_repeatable(command)
        return (fits and not is_slow) and self.caller == caller

    def add(self, command: Command) -> int:
        """Its place among the results."""
        self.commands.append(command)
        return len(self.commands) - 1

    def settle(self, work: asyncio.Task[list[Result]]) -> None:
        """Pass on the results."""
        if self.results.done():
            return
        if work.cancelled():
            self.results.cancel()
        elif (error := work.exception()) is not None:
            self.results.set_exception(error)
        else:
            self.results.set_result(work.result())


def _parts(commands: Sequence[Command]) -> Iterator[list[Command]]:
    """Runs of commands that may cross in one frame."""
    for _, run in groupby(commands, key=is_repeatable):
        part: list[Command] = []
        size = 0
        for command in run:
            more = len(command.request.payload) if isinstance(command, SubmitTask) else 0
            if part and (len(part) >= FRAME_COMMANDS or size + more > FRAME_BYTES):
                yield part
                part, size = [], 0
            part.append(command)
            size += more
        yield part
