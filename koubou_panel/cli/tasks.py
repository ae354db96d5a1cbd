"""`koubou ps`, `show`, `cancel` and `retry`."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Awaitable, Callable
from datetime import datetime

import click
import msgspec

from koubou_panel.cli.ending import say
from koubou_panel.cli.link import CALLER, ask, find_task
from koubou_panel.cli.show import (
    ago,
    duration,
    model_words,
    print_fields,
    print_json,
    print_tasks_json,
    progress_words,
    prompt_words,
    size,
    status_words,
    task_table,
    took_s,
)
from koubou_panel.core.commands import CancelTask, RetryTask
from koubou_panel.core.ports import TaskPage, TaskQuery
from koubou_panel.core.records import STATUSES, Limits, Request, Task, Usage, Use
from koubou_panel.errors import Refused
from koubou_panel.settings import EXIT_REFUSED
from koubou_panel.shop.remote import RemoteShop
from koubou_panel.wire.records import spec_record, task_record

IDS_HELP = (
    "An id may be shortened to an end or a beginning that only one recent task has (3 characters or more)."
)


@click.command(epilog=IDS_HELP)
@click.option("--status", type=click.Choice(STATUSES), help="Only those of this status.")
@click.option("--kind", metavar="K", help="Only those of this kind: script, function.")
@click.option("--text", metavar="T", help="Only those whose name or command has this text.")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, help="At most N; 50 unless given.")
@click.option("--cursor", metavar="C", help="Go on where a list ended, by its `cursor`.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.pass_context
def ps(
    ctx: click.Context,
    *,
    status: str | None,
    kind: str | None,
    text: str | None,
    limit: int,
    cursor: str | None,
    as_json: bool,
) -> None:
    """List tasks, newest first."""
    query = TaskQuery(status=status, kind=kind, text=text, limit=limit, cursor=cursor)

    async def find(shop: RemoteShop) -> TaskPage:
        return await shop.find(query)

    page = ask(ctx, find)
    if as_json:
        print_tasks_json(page.tasks, total=page.total, cursor=page.cursor)
        return
    if page.tasks:
        task_table(page.tasks)
    if page.total > len(page.tasks):
        say(f"{len(page.tasks)} of {page.total} tasks; --limit shows more")
    elif not page.tasks:
        say("no task" + (" like that" if status or kind or text else " yet; `koubou run COMMAND` runs one"))


@click.command(epilog=IDS_HELP)
@click.argument("task_id", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.pass_context
def show(ctx: click.Context, *, task_id: str, as_json: bool) -> None:
    """Show task ID in full."""

    async def find(shop: RemoteShop) -> Task:
        return await find_task(shop, task_id)

    task = ask(ctx, find)
    if as_json:
        record = msgspec.to_builtins(task_record(task)) | {"spec": spec_record(task.request)}
        print_json({"tasks": [record], "total": 1, "cursor": None})
    else:
        print_fields(_fields(task, time.time()))


def _fields(task: Task, now: float) -> list[tuple[str, str]]:
    request, usage = task.request, task.usage
    spec = spec_record(request)
    command = spec.get("command")
    words = f"{status_words(task)}: {task.message}" if task.message else status_words(task)
    waited_s = (task.started_at or now) - request.created_at
    return [
        ("task", task.task_id),
        ("name", request.name),
        ("status", words),
        ("kind", request.kind),
        ("command", _command(command, request)),
        ("folder", str(spec.get("cwd") or "")),
        ("model", model_words(task)),
        ("system", str(spec.get("system") or "")),
        ("prompt", prompt_words(spec)),
        (
            "submitted",
            _moment(request.created_at, now)
            + (f" by {request.submitted_by}" if request.submitted_by else ""),
        ),
        ("follows", ", ".join(request.after)),
        ("waits for", ", ".join(task.waits_for)),
        ("limits", _limits(request.limits)),
        ("started", _moment(task.started_at, now)),
        ("ended", _moment(task.finished_at, now)),
        ("waited", duration(waited_s) if not task.is_finished or task.started_at else ""),
        ("took", duration(took_s(task, now))),
        (
            "run",
            f"{task.run} ({request.retries} retries allowed)" if request.retries else str(task.run or ""),
        ),
        ("script", _script(request)),
        ("was due", _moment(request.fire_at, now)),
        ("tokens", _tokens(usage)),
        ("progress", progress_words(task.progress) if task.status == "in_progress" else ""),
        ("uses now", _use(task.use)),
        ("worker", f"{task.worker_id} on {task.node}" if task.worker_id else ""),
        ("exit code", "" if task.exit_code is None else str(task.exit_code)),
        ("result", task.result or ""),
        ("CPU time", duration(usage.cpu_s)),
        ("peak memory", size(usage.peak_rss_bytes)),
        ("GPU memory", size(usage.peak_gpu_memory_bytes)),
        ("storage", _storage(usage)),
        ("most at once", _most(usage)),
        ("output", f"{size(usage.output_bytes)}; koubou logs {task.task_id}" if usage.output_bytes else ""),
        ("not stored", f"{size(usage.lost_output_bytes)} of output" if usage.lost_output_bytes else ""),
        ("rerun of", request.rerun_of or ""),
        ("error", task.error.traceback or f"{task.error.type}: {task.error.message}" if task.error else ""),
    ]


def _command(command: object, request: Request) -> str:
    if isinstance(command, list | tuple):
        return shlex.join(map(str, command))
    return "" if request.kind == "prompt" else request.summary


def _script(request: Request) -> str:
    if request.script_name is None:
        return ""
    given = " ".join(
        f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in request.parameters.items()
    )
    return f"{request.script_name}{f' with {given}' if given else ''}"


def _tokens(usage: Usage) -> str:
    parts = [
        "" if usage.prompt_tokens is None else f"{usage.prompt_tokens} read",
        "" if usage.completion_tokens is None else f"{usage.completion_tokens} written",
        "" if usage.first_token_s is None else f"the first after {duration(usage.first_token_s)}",
        "" if usage.tokens_per_s is None else f"{usage.tokens_per_s:.1f} a second",
    ]
    return ", ".join(part for part in parts if part)


def _limits(limits: Limits) -> str:
    parts = [
        limits.memory_bytes and f"{size(limits.memory_bytes)} of memory",
        limits.cpu_s and f"{limits.cpu_s:g} s of processor time",
        limits.processes and f"{limits.processes} processes",
        limits.output_bytes and f"{size(limits.output_bytes)} of output",
    ]
    return ", ".join(part for part in parts if part)


def _use(use: Use | None) -> str:
    if use is None:
        return ""
    parts = [
        f"{use.cpu_percent:.0f} % of a core",
        size(use.rss_bytes),
        f"{use.processes} processes" if use.processes > 1 else "",
        f"{use.threads} threads" if use.threads > 1 else "",
        "" if use.gpu_percent is None else f"{use.gpu_percent:.0f} % of a GPU",
        "" if use.gpu_memory_bytes is None else f"{size(use.gpu_memory_bytes)} of GPU memory",
    ]
    return ", ".join(part for part in parts if part)


def _storage(usage: Usage) -> str:
    if not usage.read_bytes and not usage.written_bytes:
        return ""
    return f"{size(usage.read_bytes or 0)} read, {size(usage.written_bytes or 0)} written"


def _most(usage: Usage) -> str:
    parts = [(usage.peak_processes, "processes"), (usage.peak_threads, "threads")]
    return ", ".join(f"{count} {name}" for count, name in parts if count is not None and count > 1)


def _moment(at: float | None, now: float) -> str:
    if at is None:
        return ""
    local = datetime.fromtimestamp(at).astimezone()
    return f"{local:%Y-%m-%d %H:%M:%S} ({ago(at, now)} ago)"


@click.command(epilog=IDS_HELP)
@click.argument("task_ids", metavar="ID...", nargs=-1, required=True)
@click.pass_context
def cancel(ctx: click.Context, *, task_ids: tuple[str, ...]) -> int:
    """End tasks: those that wait at once, those that run by ending their processes."""

    async def one(shop: RemoteShop, text: str) -> None:
        task = await find_task(shop, text)
        await shop.do(CancelTask(task.task_id), CALLER)
        say(f"{task.task_id} {'is cancelled' if task.status == 'pending' else 'is being ended'}")

    return _each(ctx, task_ids, one)


@click.command(epilog=IDS_HELP)
@click.argument("task_ids", metavar="ID...", nargs=-1, required=True)
@click.pass_context
def retry(ctx: click.Context, *, task_ids: tuple[str, ...]) -> int:
    """Run finished tasks again, each as a new task; prints the new ids.

    What was once sent to a task as its input is not kept: the new one waits for its own.
    """

    async def one(shop: RemoteShop, text: str) -> None:
        task = await find_task(shop, text)
        new_id = await shop.do(RetryTask(task.task_id, shop.next_id()), CALLER)
        print(new_id)
        if task.request.spec.get("stdin"):
            say(
                f"{new_id} waits for its input: type it in the task's view on the dashboard, or `send_input` it"
            )

    return _each(ctx, task_ids, one)


def _each(
    ctx: click.Context, task_ids: tuple[str, ...], one: Callable[[RemoteShop, str], Awaitable[None]]
) -> int:
    """Do `one` for every id; what is refused is said, and does not keep the others."""

    async def everything(shop: RemoteShop) -> int:
        code = 0
        for text in task_ids:
            try:
                await one(shop, text)
            except Refused as refused:
                if refused.code == "unavailable":
                    raise
                say(refused.message)
                code = EXIT_REFUSED
        return code

    return ask(ctx, everything)
