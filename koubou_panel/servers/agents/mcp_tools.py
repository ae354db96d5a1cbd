"""The MCP tools: what an agent can do here. Each answers at once, but for `wait`; work goes on whoever leaves."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal

from mcp.server.mcpserver import Context
from mcp_types import CallToolResult, ToolAnnotations
from pydantic import BeforeValidator, Field

from koubou_panel.core.ports import TaskQuery
from koubou_panel.core.records import NO_LIMITS, Limits, Task, TaskId
from koubou_panel.core.suggest import nearest, unknown
from koubou_panel.errors import Refused
from koubou_panel.servers.agents.delegate import Delegation, Options
from koubou_panel.servers.agents.fields import check_folder
from koubou_panel.servers.agents.mcp_frame import Frame, caller_of_context
from koubou_panel.servers.agents.mcp_views import (
    OutputView,
    PoolView,
    ScriptListView,
    ScriptView,
    StatisticsView,
    Submitted,
    TaskListView,
    TaskView,
    WaitView,
    task_uri,
)
from koubou_panel.servers.agents.mcp_wait import MOST_TASKS, MOST_WAIT_S, WAIT_S, Waiting

MOST_OUTPUT_BYTES = 256 * 1024
MOST_LISTED = 100  # 200 would hold the loop for more than 10 ms
OUTPUT_BYTES = 16 * 1024

READS = ToolAnnotations(
    read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=False
)
SUBMITS = ToolAnnotations(
    read_only_hint=False, destructive_hint=True, idempotent_hint=False, open_world_hint=True
)
RUNS = ToolAnnotations(
    read_only_hint=False, destructive_hint=True, idempotent_hint=False, open_world_hint=True
)
CANCELS = ToolAnnotations(
    read_only_hint=False, destructive_hint=True, idempotent_hint=True, open_world_hint=False
)

Ctx = Context[Any, Any]


def _number(value: object) -> object:
    """Refuse true and false, which would be taken for 1 and 0."""
    if isinstance(value, bool):
        raise ValueError(f"must be a number, not {str(value).lower()}")  # noqa: TRY004 - pydantic's way
    return value


Number = BeforeValidator(_number)
Id = Annotated[str, Field(description="The task's id, as submitting or list_tasks gave it", max_length=100)]
Name = Annotated[str | None, Field(description="A short name to know the task by", max_length=200)]
Priority = Annotated[int | None, Number, Field(description="1 to 10, 10 first; 5 if not given", ge=1, le=10)]
TimeoutS = Annotated[
    float | None,
    Number,
    Field(description="Seconds after which a run is ended; none if not given", gt=0, lt=1e9),
]
Retries = Annotated[
    int | None,
    Number,
    Field(description="How often to try again when it fails; 0 if not given", ge=0, le=1000),
]
Labels = Annotated[
    dict[str, str] | None, Field(description="Words of your own kept with the task", max_length=64)
]
Key = Annotated[
    str | None,
    Field(
        description="Any text of your choice. Submitting again with the same key gives the same task, so that a "
        "call whose answer was lost can be repeated safely",
        min_length=1,
        max_length=100,
    ),
]
After = Annotated[
    list[str] | None,
    Field(description="Ids of tasks that must succeed before this one starts", max_length=1000),
]
Limit = Annotated[int, Number, Field(description="At most so many", ge=1, le=MOST_LISTED)]
Cursor = Annotated[str | None, Field(description="Where the last page ended: its `cursor`", max_length=200)]


class Tools:
    """The tools over one delegation. Loop thread only."""

    def __init__(self, delegation: Delegation, ending: asyncio.Event) -> None:
        """Submit and look through `delegation`, until `ending`."""
        self._delegation = delegation
        self._ending = ending

    # -- submitting -------------------------------------------------------------------------------------------

    async def submit_command(
        self,
        ctx: Ctx,
        *,
        command: Annotated[
            list[str] | str,
            Field(
                description='The program and its arguments, such as ["python", "train.py", "--epochs", "3"]. No shell '
                'stands between: for pipes or variables send ["sh", "-c", "…"]'
            ),
        ],
        cwd: Annotated[str | None, Field(description="The folder to run in; your home if not given")] = None,
        env: Annotated[
            dict[str, str] | None, Field(description="Environment variables beside the usual ones")
        ] = None,
        name: Name = None,
        priority: Priority = None,
        timeout_s: TimeoutS = None,
        retries: Retries = None,
        labels: Labels = None,
        after: After = None,
        idempotency_key: Key = None,
        memory_bytes: Annotated[
            int | None,
            Number,
            Field(description="End the task when its processes hold more memory than this", ge=1),
        ] = None,
    ) -> Annotated[CallToolResult, Submitted]:
        """Run a command as a task on this machine. Returns its id at once, when it is safely stored.

        The task runs when a worker is free, and to its end even if you disconnect. Follow it with `wait`, read what it
        prints with `read_output`.
        """
        options = _options(
            name=name,
            priority=priority,
            timeout_s=timeout_s,
            retries=retries,
            labels=labels,
            after=after,
            idempotency_key=idempotency_key,
            limits=NO_LIMITS if memory_bytes is None else Limits(memory_bytes=memory_bytes),
        )
        check_folder(cwd)
        caller = caller_of_context(ctx)
        return await self._submitted(
            await self._delegation.command(command, caller, cwd=cwd, env=env, options=options)
        )

    async def run_script(
        self,
        ctx: Ctx,
        *,
        script_name: Annotated[
            str, Field(description="The script's name, from list_scripts", max_length=200)
        ],
        parameters: Annotated[
            dict[str, Any] | None,
            Field(description="Its parameters by name, as list_scripts shows them when asked by `name`"),
        ] = None,
        priority: Priority = None,
        timeout_s: TimeoutS = None,
        labels: Labels = None,
        after: After = None,
        idempotency_key: Key = None,
    ) -> Annotated[CallToolResult, Submitted]:
        """Run a registered script as a task. Returns its id at once. What is not given is as the script says."""
        options = _options(
            priority=priority,
            timeout_s=timeout_s,
            labels=labels,
            after=after,
            idempotency_key=idempotency_key,
        )
        caller = caller_of_context(ctx)
        return await self._submitted(
            await self._delegation.script(script_name, parameters or {}, caller, options=options)
        )

    async def submit_prompt(
        self,
        ctx: Ctx,
        *,
        prompt: Annotated[str, Field(description="What to ask the model", min_length=1)],
        model: Annotated[
            str | None, Field(description="Which model; the workshop's own if not given")
        ] = None,
        system: Annotated[str | None, Field(description="Instructions that stand before the prompt")] = None,
        schema: Annotated[
            dict[str, Any] | None,
            Field(description="A JSON schema that the answer must keep to, where the model's server can"),
        ] = None,
        name: Name = None,
        priority: Priority = None,
        timeout_s: TimeoutS = None,
        labels: Labels = None,
        after: After = None,
        idempotency_key: Key = None,
    ) -> Annotated[CallToolResult, Submitted]:
        """Ask the language model on this machine, as a task. Returns its id at once; the answer is its output.

        The output grows while the model writes: `read_output` shows what is there, `wait` waits for the end.
        """
        options = _options(
            name=name,
            priority=priority,
            timeout_s=timeout_s,
            labels=labels,
            after=after,
            idempotency_key=idempotency_key,
        )
        caller = caller_of_context(ctx)
        return await self._submitted(
            await self._delegation.prompt(
                prompt, caller, model=model, system=system, schema=schema, options=options
            )
        )

    async def retry_task(self, ctx: Ctx, task_id: Id) -> Annotated[CallToolResult, Submitted]:
        """Submit a task that has ended once more, as a new task. Returns the new id at once."""
        task = await self._task(task_id)
        return await self._submitted(await self._delegation.retry(task.task_id, caller_of_context(ctx)))

    async def cancel_task(self, ctx: Ctx, task_id: Id) -> Annotated[CallToolResult, TaskView]:
        """End a task: at once if it has not begun, else by ending its processes. Returns how it stands now.

        A running task needs a moment to end: `wait` for it where that matters.
        """
        task = await self._task(task_id)
        await self._delegation.cancel(task.task_id, caller_of_context(ctx))
        return TaskView.of(await self._task(task_id)).as_result()

    async def _submitted(self, task_id: TaskId) -> CallToolResult:
        task = await self._delegation.task(task_id)
        return Submitted(
            task_id=task_id,
            status=task.status,
            name=task.request.name,
            submitted_by=task.request.submitted_by,
            resource=task_uri(task_id),
        ).as_result()

    # -- looking ----------------------------------------------------------------------------------------------

    async def wait(
        self,
        ctx: Ctx,
        task_ids: Annotated[
            list[str], Field(description="The tasks to wait for", min_length=1, max_length=MOST_TASKS)
        ],
        until: Annotated[
            Literal["all", "any"], Field(description="Wait until all of them have ended, or the first")
        ] = "all",
        timeout_s: Annotated[
            float, Number, Field(description="Return after so many seconds in any case", ge=0, le=MOST_WAIT_S)
        ] = WAIT_S,
    ) -> Annotated[CallToolResult, WaitView]:
        """Wait until tasks have ended, without asking again and again. Tells how far they are meanwhile.

        At its time limit it returns with how the tasks stand, and `is_done` false: call it again. Neither that nor
        your leaving ends a task.
        """
        ids = [TaskId(task_id) for task_id in task_ids]
        waiting = Waiting(self._delegation, ids, until=until, ending=self._ending)
        return (await waiting.run(timeout_s, ctx.report_progress)).as_result()

    async def get_task(self, task_id: Id) -> Annotated[CallToolResult, TaskView]:
        """Show a task as it stands: status, progress, result, error, times."""
        return TaskView.of(await self._task(task_id)).as_result()

    async def list_tasks(
        self,
        *,
        status: Annotated[
            Literal["pending", "in_progress", "completed", "failed", "cancelled"] | None,
            Field(description="Only tasks that stand so"),
        ] = None,
        kind: Annotated[
            str | None, Field(description="Only this kind: script (a command), prompt or function")
        ] = None,
        text: Annotated[
            str | None, Field(description="Only tasks with this in their name or summary", max_length=200)
        ] = None,
        script_name: Annotated[
            str | None, Field(description="Only runs of this registered script", max_length=200)
        ] = None,
        limit: Limit = 20,
        cursor: Cursor = None,
    ) -> Annotated[CallToolResult, TaskListView]:
        """List tasks, newest first: everybody's, yours among them."""
        query = TaskQuery(status=status, kind=kind, text=text, script=script_name, limit=limit, cursor=cursor)
        page = await self._delegation.shop.find(query)
        tasks = [TaskView.of(task) for task in page.tasks]
        return TaskListView(tasks=tasks, total=page.total, cursor=page.cursor).as_result()

    async def read_output(
        self,
        task_id: Id,
        offset: Annotated[
            int,
            Number,
            Field(
                description="The byte to begin at: 0, or the `next_offset` of the last call. Negative: so many bytes "
                "before the end",
                ge=-(2**62),
                le=2**62,
            ),
        ] = 0,
        limit: Annotated[
            int, Number, Field(description="At most so many bytes", ge=1, le=MOST_OUTPUT_BYTES)
        ] = OUTPUT_BYTES,
    ) -> Annotated[CallToolResult, OutputView]:
        """Read what a task has printed, while it runs or afterwards. stdout and stderr are one log."""
        # Looked at first: what it printed before its end is then in the page.
        task = await self._task(task_id)
        page = await self._delegation.output(task.task_id, offset, limit)
        return OutputView.of(task, page).as_result()

    async def list_scripts(
        self,
        name: Annotated[
            str | None,
            Field(description="Only the script of this name, with all its parameters", max_length=200),
        ] = None,
        limit: Limit = 50,
        cursor: Cursor = None,
    ) -> Annotated[CallToolResult, ScriptListView]:
        """List the registered scripts, by name. Ask by `name` for what one can be given, before run_script."""
        scripts = self._delegation.shop.state.scripts
        if name is None:
            return ScriptListView.page(scripts, limit, cursor).as_result()
        if name not in scripts:
            near = nearest(name, scripts)
            raise Refused("not_found", unknown("script", name, scripts), field="name", nearest=near)
        return ScriptListView(scripts=[ScriptView.of(scripts[name])], total=1, cursor=None).as_result()

    async def get_statistics(self, ctx: Ctx) -> Annotated[CallToolResult, StatisticsView]:
        """Show how busy the workshop is: tasks by status, workers, the machine, and how much you have in flight."""
        quota = self._delegation.quota
        pool = PoolView.of(self._delegation.shop.state)
        mine = quota.count(caller_of_context(ctx).by)
        return StatisticsView(**pool.model_dump(), in_flight=mine, most_in_flight=quota.most).as_result()

    async def _task(self, task_id: str) -> Task:
        return await self._delegation.task(TaskId(task_id))


def _options(*, labels: dict[str, str] | None, after: list[str] | None, **given: Any) -> Options:
    return Options(labels=labels or {}, after=tuple(map(TaskId, after or ())), **given)


def add_tools(frame: Frame, delegation: Delegation) -> None:
    """Offer the tools: each with the role it takes."""
    tools = Tools(delegation, frame.ending)
    for function, title, need, hints in (
        (tools.submit_command, "Run a command", "full", SUBMITS),
        (tools.run_script, "Run a registered script", "run", RUNS),
        (tools.submit_prompt, "Ask the local model", "full", SUBMITS),
        (tools.list_scripts, "List scripts", "read", READS),
        (tools.wait, "Wait for tasks", "read", READS),
        (tools.read_output, "Read a task's output", "read", READS),
        (tools.list_tasks, "List tasks", "read", READS),
        (tools.get_task, "Show a task", "read", READS),
        (tools.cancel_task, "Cancel a task", "full", CANCELS),
        (tools.retry_task, "Run a task again", "full", SUBMITS),
        (tools.get_statistics, "Show how busy the workshop is", "read", READS),
    ):
        frame.offer(function, title=title, need=need, annotations=hints)
