"""What the MCP tools answer with: the protocol's records, without the fields that say nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from heapq import nsmallest
from typing import Any
from urllib.parse import quote

from mcp_types import CallToolResult, TextContent
from pydantic import BaseModel, ConfigDict, Field

from koubou_panel.core.ports import OutputPage
from koubou_panel.core.records import Progress, Task
from koubou_panel.core.script import Entry
from koubou_panel.core.state import State
from koubou_panel.wire.records import iso

TASK = "koubou://task/"
OUTPUT = "/output"
POOL = "koubou://pool"
SCRIPTS = "koubou://scripts"
SCRIPT = "koubou://script/"
ERROR_CHARS = 4_000
DESCRIPTION_CHARS = 200


def task_uri(task_id: str) -> str:
    """The address of a task as a resource."""
    return TASK + task_id


def output_uri(task_id: str) -> str:
    """The address of a task's output as a resource."""
    return TASK + task_id + OUTPUT


def script_uri(name: str) -> str:
    """The address of a registered script as a resource."""
    return SCRIPT + quote(name, safe="")


class View(BaseModel):
    """A record for an agent: what is null is left out."""

    model_config = ConfigDict(frozen=True)

    def as_plain(self) -> dict[str, Any]:
        """As JSON values, without what is null."""
        return self.model_dump(mode="json", exclude_none=True)

    def as_text(self) -> str:
        """As JSON text."""
        return json.dumps(self.as_plain(), ensure_ascii=False, separators=(",", ":"))

    def as_result(self) -> CallToolResult:
        """As a tool's result: structured, and the same as text for those who read only that."""
        plain = self.as_plain()
        text = json.dumps(plain, ensure_ascii=False, separators=(",", ":"))
        return CallToolResult(content=[TextContent(type="text", text=text)], structured_content=plain)


class Submitted(View):
    """A task that was taken in; it runs by itself from here on, whoever leaves."""

    task_id: str = Field(description="The task's id, for every other tool")
    status: str = Field(description="pending, unless it began or ended already")
    name: str = Field(description="The task's name")
    submitted_by: str = Field(description="Who asked, as it is on record")
    resource: str = Field(description="The address of the task as a resource, to read or to subscribe to")


class ProgressView(View):
    """How far a run is."""

    fraction: float | None = Field(None, description="0 to 1; absent while it is not known")
    done: float | None = Field(None, description="How much is done, in `unit`")
    total: float | None = Field(None, description="Of how much")
    unit: str | None = Field(None, description="The unit of done and total")
    eta_s: float | None = Field(None, description="Seconds left, as far as can be told")
    message: str | None = Field(None, description="What the task says itself")


class ErrorView(View):
    """The error of the task's own code."""

    type: str = Field(description="The exception's name")
    message: str = Field(description="Its words")
    traceback: str | None = Field(None, description="The end of its traceback")


class TaskView(View):
    """A task as it stands."""

    task_id: str = Field(description="The task's id")
    name: str = Field(description="Its name")
    kind: str = Field(description="script (a command), prompt or function")
    summary: str | None = Field(None, description="What it does, in a line")
    status: str = Field(description="pending, in_progress, completed, failed or cancelled")
    is_finished: bool = Field(description="Whether it has ended for good")
    reason: str | None = Field(None, description="Why it failed or was cancelled, as one word")
    message: str | None = Field(None, description="The same in words")
    exit_code: int | None = Field(None, description="What the command ended with")
    result: str | None = Field(None, description="The result in short; a command's last line of output")
    error: ErrorView | None = Field(None, description="The error of the task's own code")
    progress: ProgressView | None = Field(None, description="How far it is")
    output_bytes: int = Field(description="How much output there is to read, in bytes")
    priority: int = Field(description="1 to 10, 10 first")
    labels: dict[str, str] | None = Field(None, description="Labels it was given")
    submitted_by: str = Field(description="Who asked for it")
    created_at: str | None = Field(None, description="When it was taken in (ISO 8601, UTC)")
    started_at: str | None = Field(None, description="When its present or last run began")
    finished_at: str | None = Field(None, description="When it ended")
    duration_s: float | None = Field(None, description="How long its last run took, in seconds")
    run: int = Field(description="The number of the present or last attempt; 0: none yet")
    retries: int | None = Field(None, description="How often it may be tried again")
    timeout_s: float | None = Field(None, description="After how many seconds a run is ended")
    worker_id: str | None = Field(None, description="The worker that runs or ran it")
    script_name: str | None = Field(None, description="The registered script it is a run of")
    rerun_of: str | None = Field(None, description="The task that this one repeats")
    waits_for: list[str] | None = Field(None, description="Tasks that must succeed before it starts")
    prompt_tokens: int | None = Field(None, description="Of a prompt: tokens read")
    completion_tokens: int | None = Field(None, description="Of a prompt: tokens written")
    tokens_per_s: float | None = Field(None, description="Of a prompt: tokens written a second")

    @classmethod
    def of(cls, task: Task) -> TaskView:
        """The view of `task`."""
        request, usage = task.request, task.usage
        duration_s = usage.duration_s
        if duration_s is None and task.started_at is not None and task.finished_at is not None:
            duration_s = round(max(0.0, task.finished_at - task.started_at), 6)
        error = task.error
        return cls(
            task_id=task.task_id,
            name=request.name,
            kind=request.kind,
            summary=request.summary or None,
            status=task.status,
            is_finished=task.is_finished,
            reason=task.reason,
            message=task.message or None,
            exit_code=task.exit_code,
            result=task.result,
            error=None
            if error is None
            else ErrorView(
                type=error.type, message=error.message, traceback=error.traceback[-ERROR_CHARS:] or None
            ),
            progress=progress_view(task.progress),
            output_bytes=usage.output_bytes,
            priority=request.priority,
            labels=request.labels or None,
            submitted_by=request.submitted_by,
            created_at=iso(request.created_at),
            started_at=iso(task.started_at),
            finished_at=iso(task.finished_at),
            duration_s=duration_s,
            run=task.run,
            retries=request.retries or None,
            timeout_s=request.timeout_s,
            worker_id=task.worker_id,
            script_name=request.script_name,
            rerun_of=request.rerun_of,
            waits_for=list(task.waits_for) or None,
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
            tokens_per_s=usage.tokens_per_s,
        )


def progress_view(progress: Progress | None) -> ProgressView | None:
    """The view of a run's progress."""
    if progress is None:
        return None
    return ProgressView(
        fraction=progress.fraction,
        done=progress.done,
        total=progress.total,
        unit=progress.unit or None,
        eta_s=progress.eta_s,
        message=progress.message or None,
    )


class TaskListView(View):
    """A page of tasks, newest first."""

    tasks: list[TaskView] = Field(description="The tasks, newest first")
    total: int = Field(description="How many match in all")
    cursor: str | None = Field(
        None, description="Give it as `cursor` for the next page; absent: the last page"
    )


class WaitView(View):
    """How the awaited tasks stand."""

    is_done: bool = Field(
        description="Whether what was waited for has happened; false: time was up, wait again"
    )
    waited_s: float = Field(description="How long this call waited, in seconds")
    tasks: list[TaskView] = Field(description="The tasks, in the order they were asked for")


class OutputView(View):
    """A piece of a task's output; stdout and stderr are one log."""

    task_id: str = Field(description="The task")
    text: str = Field(description="The piece, cut at a character; bytes that are no UTF-8 are U+FFFD")
    offset: int = Field(description="Where it begins in the log, in bytes")
    next_offset: int = Field(description="Where to read on: give it as `offset`")
    size: int = Field(description="How long the log is now, in bytes")
    start: int = Field(description="The oldest byte still held")
    is_end: bool = Field(description="Whether there is nothing more: the task has ended and all was read")

    @classmethod
    def of(cls, task: Task, page: OutputPage) -> OutputView:
        """The view of a page of the output of `task`."""
        return cls(
            task_id=task.task_id,
            text=page.text,
            offset=page.offset,
            next_offset=page.end,
            size=page.size,
            start=page.start,
            is_end=task.is_finished and page.end >= page.size,
        )


class ParameterView(View):
    """A parameter of a script."""

    name: str = Field(description="Its name, as a key of `parameters`")
    type: str = Field(description="text, integer, number, boolean, choice or path")
    is_required: bool = Field(description="Whether it must be given")
    default: Any = Field(None, description="What it is when it is not given")
    choices: list[str] | None = Field(None, description="The values it can have")
    help: str | None = Field(None, description="What it is for")


class ScriptLine(View):
    """A registered script in a list."""

    name: str = Field(description="Its name, for run_script")
    description: str | None = Field(None, description="What it does")
    parameter_names: list[str] | None = Field(
        None, description="What it can be given; list_scripts by `name` says more"
    )
    is_enabled: bool = Field(description="Whether its schedule runs it; run_script runs it all the same")
    next_at: str | None = Field(None, description="When its schedule runs it next")
    last_status: str | None = Field(None, description="How its last run stands")

    @classmethod
    def of(cls, entry: Entry) -> ScriptLine:
        """The line for a script of the catalogue."""
        script = entry.script
        return cls(
            name=script.name,
            description=script.description[:DESCRIPTION_CHARS] or None,
            parameter_names=[parameter.name for parameter in script.parameters] or None,
            is_enabled=script.is_enabled,
            next_at=iso(entry.next_at),
            last_status=entry.last_status,
        )


class ScriptView(View):
    """A registered script."""

    name: str = Field(description="Its name, for run_script")
    description: str | None = Field(None, description="What it does")
    path: str = Field(description="The file it runs")
    is_enabled: bool = Field(description="Whether its schedule runs it; run_script runs it all the same")
    parameters: list[ParameterView] = Field(description="What it can be given")
    timeout_s: float | None = Field(None, description="After how many seconds a run is ended")
    next_at: str | None = Field(None, description="When its schedule runs it next")
    runs: int = Field(description="How many runs have ended")
    failures: int = Field(description="How many of those did not complete")
    active: list[str] = Field(description="Ids of its runs that have not ended")
    last_task_id: str | None = Field(None, description="Its last run")
    last_status: str | None = Field(None, description="How that stands: starting, running, completed, failed")

    @classmethod
    def of(cls, entry: Entry) -> ScriptView:
        """The view of a script of the catalogue."""
        script = entry.script
        return cls(
            name=script.name,
            description=script.description or None,
            path=script.path,
            is_enabled=script.is_enabled,
            parameters=[
                ParameterView(
                    name=parameter.name,
                    type=parameter.type,
                    is_required=parameter.is_required,
                    default=parameter.default,
                    choices=list(parameter.choices) or None,
                    help=parameter.help or None,
                )
                for parameter in script.parameters
            ],
            timeout_s=script.timeout_s,
            next_at=iso(entry.next_at),
            runs=entry.runs,
            failures=entry.failures,
            active=list(entry.active),
            last_task_id=entry.last_task,
            last_status=entry.last_status,
        )


class ScriptListView(View):
    """A page of the catalogue, by name."""

    scripts: list[ScriptView | ScriptLine] = Field(
        description="The registered scripts, by name: each in short, or the one asked for whole"
    )
    total: int = Field(description="How many there are in all")
    cursor: str | None = Field(
        None, description="Give it to list_scripts as `cursor` for the next page; absent: the last page"
    )

    @classmethod
    def page(cls, scripts: Mapping[str, Entry], limit: int, cursor: str | None = None) -> ScriptListView:
        """At most `limit` scripts, from after the name `cursor` on."""
        names = [name for name in scripts if cursor is None or name > cursor]
        shown = nsmallest(limit, names)
        return cls(
            scripts=[ScriptLine.of(scripts[name]) for name in shown],
            total=len(scripts),
            cursor=shown[-1] if len(names) > limit else None,
        )


class WorkersView(View):
    """The pool's workers."""

    total: int = Field(description="How many there are")
    busy: int = Field(description="How many run a task now")
    idle: int = Field(description="How many wait for one")
    least: int = Field(description="The pool keeps at least so many")
    most: int = Field(description="And at most so many: the number of tasks that can run at once")
    completed: int = Field(description="Tasks completed by all workers")
    failed: int = Field(description="Tasks failed on all workers")


class HostView(View):
    """The machine."""

    cpu_percent: float | None = Field(None, description="Processor in use, 0 to 100")
    memory_percent: float | None = Field(None, description="Memory in use, 0 to 100")
    disk_percent: float | None = Field(None, description="Disk in use, 0 to 100")
    load_1m: float | None = Field(None, description="Load average of the last minute")
    cores: int | None = Field(None, description="Processor cores")


class PoolView(View):
    """The pool: its workers, its queue and the machine."""

    state: str = Field(description="open; paused (starts nothing), draining or closing (takes nothing)")
    tasks: dict[str, int] = Field(description="How many tasks there are, by status")
    workers: WorkersView = Field(description="The workers")
    host: HostView = Field(description="The machine")

    @classmethod
    def of(cls, state: State) -> PoolView:
        """The view of the pool of `state`."""
        pool = state.pool
        statuses = [worker.status for worker in state.workers.values()]
        closed = "closing" if pool.closing else "draining" if pool.draining else ""
        return cls(
            state=closed or ("paused" if pool.paused else "open"),
            tasks={str(status): count for status, count in state.counts.items()},
            workers=WorkersView(
                total=sum(status != "offline" for status in statuses),
                busy=statuses.count("busy"),
                idle=statuses.count("idle"),
                least=pool.min_workers,
                most=pool.max_workers,
                completed=state.worker_totals[0],
                failed=state.worker_totals[1],
            ),
            host=_host(state.metrics[-1].values if state.metrics else {}),
        )


class StatisticsView(PoolView):
    """The pool, and what the asker has in it."""

    in_flight: int = Field(description="Your tasks that have not ended")
    most_in_flight: int = Field(description="How many of them you may have at once")


def _host(values: Mapping[str, object]) -> HostView:
    def number(name: str) -> float | None:
        value = values.get(name)
        return float(value) if isinstance(value, int | float) else None

    cores = values.get("cpu_percents")
    return HostView(
        cpu_percent=number("cpu_percent"),
        memory_percent=number("memory_percent"),
        disk_percent=number("disk_percent"),
        load_1m=number("load_1m"),
        cores=len(cores) if isinstance(cores, list | tuple) else None,
    )
