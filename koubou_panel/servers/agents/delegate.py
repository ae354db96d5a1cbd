"""Delegating work: what REST and MCP do alike. Submit with a caller and its quota, wait, and read what came of it."""

from __future__ import annotations

import asyncio
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

import msgspec
from msgspec import Struct

from koubou_panel.core.commands import Caller, CancelTask, Command, RetryTask, RunScript, SubmitTask
from koubou_panel.core.decide import check_role
from koubou_panel.core.events import Sample, TaskProgressed
from koubou_panel.core.ports import OutputPage, Shop
from koubou_panel.core.records import NO_LIMITS, Limits, OnCrash, Request, Task, TaskId
from koubou_panel.core.state import Folded, State
from koubou_panel.errors import Refused
from koubou_panel.servers.access import Allow
from koubou_panel.shop.quota import Quota

OUTPUT_BYTES = 256 * 1024
"""Of a task's output, how much its result shows: the last of it."""

CODE_SYSTEM = (
    "You are a programmer. Answer with code that is complete and runs as it stands, in one fenced block, and say "
    "after it in a few words what has to be known to use it."
)

ASKER_CHARS = 60
_PRODUCT = re.compile(r"[!-~]+")
_QUOTED = re.compile(r"""\\.|'[^']*'|"(?:\\.|[^"\\])*\"""", re.DOTALL)
_SHELL = re.compile(r"[|&;<>`\n]|\$[({\w]")


class Options(Struct, frozen=True, kw_only=True):
    """What holds for a task of any kind; None: as it is without."""

    name: str | None = None
    priority: int | None = None
    timeout_s: float | None = None
    retries: int | None = None
    on_crash: OnCrash | None = None
    labels: dict[str, str] = {}
    idempotency_key: str | None = None
    after: tuple[TaskId, ...] = ()
    limits: Limits = NO_LIMITS


NO_OPTIONS = Options()


class Result(Struct, frozen=True):
    """What came of a task that has ended: whether it succeeded, the last of its output, and what went wrong."""

    success: bool
    output: str
    error: str | None


def caller_of(verdict: Allow, face: str, product: str) -> Caller:
    """Who asks at the agents' port: a named token by its name, else the door (`rest`, `mcp`) and the program.

    Args:
        verdict: what the guard allowed.
        face: the door.
        product: what the program calls itself, such as its User-Agent or the client's name in MCP.
    """
    found = _PRODUCT.match(product.partition("/")[0].strip())
    return named_caller(verdict, face, found[0][:40] if found else "")


def named_caller(verdict: Allow, face: str, name: str) -> Caller:
    """As `caller_of`, where the program says its name alone."""
    by = f"{face}:{name}"[:ASKER_CHARS] if name else face
    if verdict.actor.startswith("agent:"):
        by = verdict.actor
    return Caller(by, verdict.role.value, from_network=True)


def split_command(line: str) -> list[str]:
    """The arguments of a command line, split as a shell does; nothing in it is expanded or piped.

    Raises:
        Refused: code `invalid`: it is empty, a quote is open, or only a shell could run it.
    """
    if _SHELL.search(_QUOTED.sub("_", line)):
        words = 'command needs a shell: send ["sh", "-c", "…"], or quote what is meant as it stands'
        raise Refused("invalid", words, field="command")
    try:
        command = shlex.split(line)
    except ValueError as error:
        raise Refused("invalid", f"command cannot be split: {error}", field="command") from None
    if not command:
        raise Refused("invalid", "command is empty", field="command")
    return command


class _Watch:
    """Somebody who waits for a task: `ended` once it has, `news` when it is time to look."""

    __slots__ = ("ended", "news", "on_change")

    def __init__(self, on_change: Callable[[Task], None] | None) -> None:
        self.ended: Task | None = None
        self.news = asyncio.Event()
        self.on_change = on_change

    def tell(self, task: Task) -> None:
        if task.is_finished:
            self.ended = task
            self.news.set()
        if self.on_change is not None:
            self.on_change(task)


class Delegation:
    """The workshop as agents use it, by whichever protocol. A subscriber of the shop; loop thread only.

    Whoever submits may go away: nothing that was taken in ends with the one who asked.

    Args:
        shop: the workshop.
        agent_tasks: how many unfinished tasks one agent may have, as the workshop counts them; only told here.
    """

    def __init__(self, shop: Shop, *, agent_tasks: int) -> None:
        """Follow the shop from now on; `close` ends it."""
        self.shop = shop
        self.quota = Quota(agent_tasks)
        self._watches: dict[TaskId, set[_Watch]] = {}
        self._asked: set[asyncio.Task[TaskId | None]] = set()
        self._unsubscribe = [shop.subscribe(self.quota), shop.subscribe(self)]

    def close(self) -> None:
        """Follow no more."""
        for unsubscribe in self._unsubscribe:
            unsubscribe()

    # -- in ---------------------------------------------------------------------------------------------------

    async def command(
        self,
        command: Sequence[str] | str,
        caller: Caller,
        *,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        options: Options = NO_OPTIONS,
    ) -> TaskId:
        """Submit a command, a list of arguments or a line that `split_command` takes; its id once it is durable.

        Raises:
            Refused: `invalid` with the field, `forbidden`, `limit`, `draining`, `storage`.
        """
        argv = split_command(command) if isinstance(command, str) else list(command)
        spec: dict[str, object] = {"command": argv}
        if cwd is not None:
            spec["cwd"] = cwd
        if env:
            spec["env"] = dict(env)
        return await self.submit("script", spec, caller, options=options)

    async def prompt(
        self,
        text: str,
        caller: Caller,
        *,
        model: str | None = None,
        system: str | None = None,
        schema: Mapping[str, object] | None = None,
        max_tokens: int | None = None,
        temperature: float | None = None,
        seed: int | None = None,
        options: Options = NO_OPTIONS,
    ) -> TaskId:
        """Submit a prompt to the local model; its id once it is durable. Raises as `command`."""
        given = {
            "model": model,
            "system": system,
            "schema": None if schema is None else dict(schema),
            "max_tokens": max_tokens,
            "temperature": temperature,
            "seed": seed,
        }
        spec: dict[str, object] = {"prompt": text}
        spec |= {name: value for name, value in given.items() if value is not None}
        return await self.submit("prompt", spec, caller, options=options)

    async def submit(
        self, kind: str, spec: Mapping[str, object], caller: Caller, *, options: Options = NO_OPTIONS
    ) -> TaskId:
        """Submit a task of any kind that is taken from the network. Raises as `command`."""
        given = {
            "name": options.name,
            "priority": options.priority,
            "timeout_s": options.timeout_s,
            "retries": options.retries,
            "on_crash": options.on_crash,
        }
        request = Request(
            task_id=self.shop.next_id(),
            kind=kind,
            created_at=0.0,
            spec=dict(spec),
            labels=options.labels,
            idempotency_key=options.idempotency_key,
            after=options.after,
            limits=options.limits,
            **{name: value for name, value in given.items() if value is not None},  # type: ignore[arg-type]
        )
        command = SubmitTask(request)
        check_role(command, caller.role)
        return await self._take_in(command, caller)

    async def script(
        self,
        name: str,
        parameters: Mapping[str, object],
        caller: Caller,
        *,
        options: Options = NO_OPTIONS,
    ) -> TaskId:
        """Submit a run of a script of the catalogue; the role `run` may do this alone. Raises as `command`."""
        try:
            msgspec.msgpack.encode(dict(parameters))
        except (OverflowError, UnicodeError) as error:
            raise Refused("invalid", f"parameters cannot be stored: {error}", field="parameters") from None
        run = RunScript(
            name=name,
            task_id=self.shop.next_id(),
            parameters=dict(parameters),
            priority=options.priority,
            timeout_s=options.timeout_s,
            retries=options.retries,
            on_crash=options.on_crash,
            labels=options.labels,
            idempotency_key=options.idempotency_key,
            after=options.after,
        )
        return await self._take_in(run, caller)

    async def retry(self, task_id: TaskId, caller: Caller) -> TaskId:
        """Submit a task that has ended again, as a new one; the new id. Raises as `command`, and `not_found`."""
        return await self._take_in(RetryTask(task_id, self.shop.next_id()), caller)

    async def cancel(self, task_id: TaskId, caller: Caller) -> None:
        """Have a task ended.

        Raises:
            Refused: `not_found`; `conflict`: it has ended already; `forbidden`.
        """
        await self.shop.do(CancelTask(task_id), caller)

    async def _take_in(self, command: Command, caller: Caller) -> TaskId:
        """Carry out what makes a task, to its end even if who asked is gone meanwhile."""
        work = asyncio.get_running_loop().create_task(self.shop.do(command, caller))
        self._asked.add(work)
        work.add_done_callback(self._asked.discard)
        task_id = await asyncio.shield(work)
        if task_id is None:
            raise Refused("internal", "the task was taken in, but its id is not known")
        return task_id

    # -- out --------------------------------------------------------------------------------------------------

    async def task(self, task_id: TaskId) -> Task:
        """A task as it stands.

        Raises:
            Refused: code `not_found`.
        """
        task = await self.shop.get(task_id)
        if task is None:
            raise Refused("not_found", f"no task {task_id[:64]!r}", field="task_id")
        return task

    async def wait(
        self,
        task_id: TaskId,
        timeout_s: float | None = None,
        *,
        on_change: Callable[[Task], None] | None = None,
    ) -> Task:
        """A task once it has ended, or as it stands after `timeout_s` seconds. Nothing is polled.

        Args:
            task_id: which.
            timeout_s: at most so long; None: to its end.
            on_change: called on the loop with the task at each fact about it and each sample of its progress.

        Raises:
            Refused: code `not_found`.
        """
        watch = _Watch(on_change)
        self._watches.setdefault(task_id, set()).add(watch)
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    return await self._end_of(task_id, watch)
            return watch.ended or await self.task(task_id)
        finally:
            others = self._watches[task_id]
            others.discard(watch)
            if not others:
                del self._watches[task_id]

    async def _end_of(self, task_id: TaskId, watch: _Watch) -> Task:
        while watch.ended is None:
            watch.news.clear()
            task = await self.task(task_id)
            if task.is_finished:
                return task
            if watch.ended is None:
                await watch.news.wait()
        return watch.ended

    async def result(self, task: Task) -> Result | None:
        """What came of `task`, with the last `OUTPUT_BYTES` of its output; None while it has not ended."""
        if not task.is_finished:
            return None
        page = await self.shop.read_output(task.task_id, -OUTPUT_BYTES, OUTPUT_BYTES)
        return Result(task.status == "completed", page.text, error_words(task))

    async def output(self, task_id: TaskId, offset: int, limit: int) -> OutputPage:
        """A piece of a task's output, from byte `offset` (negative: that many bytes before the end).

        Raises:
            Refused: code `not_found`.
        """
        await self.task(task_id)
        return await self.shop.read_output(task_id, offset, limit)

    # -- what the shop tells (Subscriber) ---------------------------------------------------------------------

    def on_reset(self, state: State) -> None:
        """Whoever waits looks again."""
        for watches in self._watches.values():
            for watch in watches:
                watch.news.set()

    def on_facts(self, folded: Sequence[Folded]) -> None:
        """Tell those who wait."""
        if not self._watches:
            return
        for _, _, record in folded:
            if isinstance(record, Task):
                for watch in tuple(self._watches.get(record.task_id, ())):
                    watch.tell(record)

    def on_samples(self, samples: Sequence[Sample]) -> None:
        """Tell those who wait how far their tasks are."""
        if not self._watches:
            return
        for sample in samples:
            if isinstance(sample, TaskProgressed) and sample.task_id in self._watches:
                task = self.shop.state.tasks.get(sample.task_id)
                # The state may know of an end that is not durable yet: its fact will tell.
                if task is not None and not task.is_finished:
                    for watch in tuple(self._watches[sample.task_id]):
                        watch.tell(task)


def error_words(task: Task) -> str | None:
    """What went wrong with a task that has ended, in one text; None where nothing did."""
    if task.status == "completed" or not task.is_finished:
        return None
    if task.error is not None:
        return f"{task.error.type}: {task.error.message}"
    return task.message or task.reason or task.status
