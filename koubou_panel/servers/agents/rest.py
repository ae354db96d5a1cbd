"""REST for agents: what each operation of the table does, over one delegation."""

from __future__ import annotations

import asyncio
import os
import platform
import sys
import time
from collections.abc import Callable
from functools import cache
from importlib.metadata import version

import msgspec
from starlette.routing import Route

from koubou_panel import registry
from koubou_panel.core.commands import Caller
from koubou_panel.core.decide import role_refusal
from koubou_panel.core.ids import is_task_id
from koubou_panel.core.ports import TaskQuery
from koubou_panel.core.records import Task, TaskId, Worker
from koubou_panel.core.suggest import nearest, unknown
from koubou_panel.errors import Refused
from koubou_panel.servers.agents import schema
from koubou_panel.servers.agents.delegate import CODE_SYSTEM, Delegation, Options
from koubou_panel.servers.agents.fields import REST_FIELDS, REST_KIND_FIELDS, check_folder, renamed
from koubou_panel.servers.agents.metrics import CONTENT_TYPE, Exposition
from koubou_panel.servers.agents.openapi import document
from koubou_panel.servers.agents.operations import OPERATIONS
from koubou_panel.servers.agents.rest_files import check_files, read_files
from koubou_panel.servers.agents.rest_http import Call, Handler, Reply, Resource, reply
from koubou_panel.servers.agents.schema import Delegate, DelegateOptions
from koubou_panel.wire.records import iso

WAIT_S = 600.0
GENERAL = ("general", "code")
GIVEN = ("prompt", "command", "script")
# What says what is to be done, by type; any other kind is described by its parameters.
TAKES = {"general": GIVEN, "code": GIVEN, "prompt": ("prompt",), "script": ("command", "script")}


class Rest:
    """The operations. Loop thread only.

    Args:
        delegation: the workshop.
        exposition: its metrics.
        ending: set when the port is about to close; who waits for a task is answered then.
        now: UTC seconds.
    """

    def __init__(
        self,
        delegation: Delegation,
        exposition: Exposition,
        *,
        ending: asyncio.Event | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Nothing is served before the routes are mounted."""
        self._ending = ending or asyncio.Event()
        self._delegation = delegation
        self._exposition = exposition
        self._now = now
        self._began_at = now()
        self._version = version("koubou-panel")
        self._document: bytes | None = None

    def routes(self) -> list[Route]:
        """One route for each path of the table."""
        handlers: dict[str, Handler] = {
            "health": self._health,
            "delegate": self._delegate,
            "task_status": self._status,
            "status_of_task": self._status,
            "cancel": self._cancel,
            "tasks": lambda call: self._list(call, call.query.status),
            "pending": lambda call: self._list(call, "pending"),
            "active": lambda call: self._list(call, "in_progress"),
            "completed": lambda call: self._list(call, "completed"),
            "workers": self._workers,
            "system": self._system,
            "metrics": self._metrics,
            "openapi": self._openapi,
        }
        paths = dict.fromkeys(operation.path for operation in OPERATIONS)
        return [
            Route(
                path,
                Resource({op.method: (op, handlers[op.name]) for op in OPERATIONS if op.path == path}),
            )
            for path in paths
        ]

    # -- delegating -------------------------------------------------------------------------------------------

    async def _delegate(self, call: Call) -> Reply:
        body: Delegate = call.body
        try:
            task_id = await self._submit(body, call.caller)
        except Refused as refused:
            fields = REST_FIELDS if body.type in TAKES else REST_KIND_FIELDS
            raise renamed(refused, fields) from None
        if not body.sync:
            return reply(schema.Delegated(task_id, "delegated"))
        wait_s = body.options.wait if body.options is not None else None
        task = await self._wait(call, task_id, WAIT_S if wait_s is None else wait_s)
        return reply(schema.Ended(task_id, task.status, await self._result(task)))

    async def _wait(self, call: Call, task_id: TaskId, wait_s: float) -> Task:
        """Wait for a task, no longer than the client does or the port is open; it goes on without."""
        loop = asyncio.get_running_loop()
        waiting = loop.create_task(self._delegation.wait(task_id, wait_s))
        others = (loop.create_task(_gone(call)), loop.create_task(self._ending.wait()))
        try:
            await asyncio.wait({waiting, *others}, return_when=asyncio.FIRST_COMPLETED)
            return await waiting if waiting.done() else await self._delegation.task(task_id)
        finally:
            for one in (waiting, *others):
                one.cancel()

    async def _submit(self, body: Delegate, caller: Caller) -> TaskId:
        given = _given(body)
        options = body.options or DelegateOptions()
        _check_given(body, given, options)
        common = _common(body, options)
        if body.script is not None:
            return await self._delegation.script(body.script, body.parameters or {}, caller, options=common)
        if caller.role != "full":  # before any file is looked at
            raise role_refusal(caller.role, "full")
        if given == "parameters":
            return await self._delegation.submit(body.type, body.parameters or {}, caller, options=common)
        if body.command is not None:
            return await self._command(body, options, caller, common)
        return await self._prompt(body, options, caller, common)

    async def _command(
        self, body: Delegate, options: DelegateOptions, caller: Caller, common: Options
    ) -> TaskId:
        cwd, env = options.cwd, dict(options.env or {})
        check_folder(cwd)
        if body.files:
            paths = await asyncio.to_thread(check_files, body.files)
            cwd = cwd or str(paths[0].parent)
            env.setdefault("TASK_FILES", "\n".join(map(str, paths)))
        return await self._delegation.command(body.command or [], caller, cwd=cwd, env=env, options=common)

    async def _prompt(
        self, body: Delegate, options: DelegateOptions, caller: Caller, common: Options
    ) -> TaskId:
        text = body.prompt or ""
        if body.files:
            text = f"{text}\n\n{await asyncio.to_thread(read_files, body.files)}"
        system = options.system or (CODE_SYSTEM if body.type == "code" else None)
        return await self._delegation.prompt(
            text,
            caller,
            model=options.model,
            system=system,
            schema=options.schema,
            max_tokens=options.max_tokens,
            temperature=options.temperature,
            seed=options.seed,
            options=common,
        )

    # -- tasks ------------------------------------------------------------------------------------------------

    async def _status(self, call: Call) -> Reply:
        task = await self._task(call)
        line = schema.TaskStatus(
            task.task_id, task.status, await self._result(task), _iso(task.request.created_at), _updated(task)
        )
        return reply(line)

    async def _cancel(self, call: Call) -> Reply:
        task = await self._task(call)
        await self._delegation.cancel(task.task_id, call.caller)
        task = await self._delegation.task(task.task_id)
        return reply(schema.Cancelled(task.task_id, task.status))

    async def _list(self, call: Call, status: str | None) -> Reply:
        query = TaskQuery(status=status, limit=call.query.limit, offset=call.query.offset)
        page = await self._delegation.shop.find(query)
        return reply(schema.Tasks([_line(task) for task in page.tasks], page.total))

    async def _task(self, call: Call) -> Task:
        task_id = call.parameters["task_id"]
        if not is_task_id(task_id):
            raise Refused("not_found", f"no task {task_id[:64]!r}", field="task_id")
        return await self._delegation.task(TaskId(task_id))

    async def _result(self, task: Task) -> schema.TaskResult | None:
        return schema.TaskResult.of(await self._delegation.result(task))

    # -- the workshop -----------------------------------------------------------------------------------------

    async def _health(self, _call: Call) -> Reply:
        state = self._delegation.shop.state
        return reply(
            schema.Health("healthy" if state.pool.takes_work else "draining", self._version, state.epoch)
        )

    async def _workers(self, _call: Call) -> Reply:
        state = self._delegation.shop.state
        lines = [_worker(worker) for worker in state.workers.values()]
        pool = state.pool
        wanted = schema.PoolLine(pool.min_workers, pool.max_workers, pool.paused, pool.draining, pool.closing)
        return reply(schema.Workers(lines, len(lines), wanted))

    async def _system(self, _call: Call) -> Reply:
        state = self._delegation.shop.state
        services = [
            schema.ServiceLine(one.name, one.state, one.port, one.restarts, one.message)
            for one in state.services.values()
        ]
        info = schema.SystemInfo(
            version=self._version,
            epoch=state.epoch,
            node=platform.node(),
            platform=platform.platform(),
            python=".".join(map(str, sys.version_info[:3])),
            pid=os.getpid(),
            uptime_s=round(max(0.0, self._now() - self._began_at), 3),
            types=list(types()),
            agent_tasks=self._delegation.quota.most,
            tasks={str(status): count for status, count in state.counts.items()},
            services=services,
            metrics=state.metrics[-1].values if state.metrics else {},
        )
        return reply(info)

    async def _metrics(self, _call: Call) -> Reply:
        return Reply(self._exposition.text(), media=CONTENT_TYPE)

    async def _openapi(self, _call: Call) -> Reply:
        if self._document is None:
            self._document = msgspec.json.encode(
                document(self._version, [kind for kind in types() if kind not in TAKES])
            )
        return Reply(self._document)


@cache
def types() -> tuple[str, ...]:
    """What `type` can be: every kind that is taken from the network, and the two of older clients."""
    # Kept: to look what is installed takes tens of milliseconds.
    kinds = [name for name in registry.names("kinds") if registry.kind(name).from_network]
    return (*GENERAL, *kinds)


def _given(body: Delegate) -> str:
    """The field that says what is to be done.

    Raises:
        Refused: code `invalid`: the type is unknown, none is given, or one that does not belong to the type.
    """
    known = types()
    if body.type not in known:
        near = nearest(body.type, known)
        raise Refused("invalid", unknown("type", body.type, known), field="type", nearest=near)
    given = [name for name in GIVEN if getattr(body, name) is not None]
    takes = TAKES.get(body.type, ("parameters",))
    if not given and takes == ("parameters",):
        return "parameters"
    if len(given) != 1:
        words = f"not {' and '.join(given)}" if given else "and it is missing"
        field = given[1] if given else takes[0]
        raise Refused("invalid", f"type {body.type} takes {' or '.join(takes)}, {words}", field=field)
    if given[0] not in takes:
        words = f"type {body.type} takes {' or '.join(takes)}, not {given[0]}"
        raise Refused("invalid", words, field=given[0])
    return given[0]


def _check_given(body: Delegate, given: str, options: DelegateOptions) -> None:
    """Refuse what would have no effect: whoever sent it means something by it."""
    if body.parameters and given not in ("script", "parameters"):
        raise Refused("invalid", f"parameters go with script, not {given}", field="parameters")
    if body.files and given not in ("prompt", "command"):
        words = "files go with prompt and command; name them in parameters"
        raise Refused("invalid", words, field="files")
    # Older clients send a model with everything: it does no harm beside a command.
    for belongs, names in (
        ("prompt", ("system", "schema", "max_tokens", "temperature", "seed")),
        ("command", ("cwd", "env")),
    ):
        for name in names:
            if getattr(options, name) is not None and given != belongs:
                raise Refused("invalid", f"options.{name} goes with {belongs} alone", field=f"options.{name}")


def _common(body: Delegate, options: DelegateOptions) -> Options:
    return Options(
        name=options.name,
        priority=body.priority,
        timeout_s=options.timeout or None,
        retries=options.retries,
        on_crash=options.on_crash,
        labels=options.labels or {},
        idempotency_key=options.idempotency_key,
        after=tuple(map(TaskId, options.after or ())),
    )


async def _gone(call: Call) -> None:
    """Return when the client has gone."""
    while (await call.receive())["type"] != "http.disconnect":
        """What is left of the request is of no interest."""


def _line(task: Task) -> schema.TaskLine:
    request = task.request
    return schema.TaskLine(
        task_id=request.task_id,
        status=task.status,
        type=request.kind,
        name=request.name,
        summary=request.summary,
        priority=request.priority,
        submitted_by=request.submitted_by,
        message=task.message,
        created_at=_iso(request.created_at),
        updated_at=_updated(task),
    )


def _worker(worker: Worker) -> schema.WorkerLine:
    return schema.WorkerLine(
        worker.worker_id,
        worker.status,
        worker.current_task,
        worker.pid,
        worker.completed,
        worker.failed,
        worker.cpu_percent,
        worker.rss_bytes,
        _iso(worker.started_at),
    )


def _iso(at: float) -> str:
    return iso(at) or ""


def _updated(task: Task) -> str:
    return _iso(task.finished_at or task.started_at or task.request.created_at)
