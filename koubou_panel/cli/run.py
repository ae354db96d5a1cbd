"""`koubou run` and `koubou logs`."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import click

from koubou_panel.cli.ending import INTERRUPTED, say
from koubou_panel.cli.follow import Interrupt, Printer, exit_code, follow
from koubou_panel.cli.link import CALLER, ask, find_task, open_shop
from koubou_panel.cli.show import print_tasks_json
from koubou_panel.cli.stdin import sending
from koubou_panel.core.commands import CancelTask, SubmitTask
from koubou_panel.core.environment import allowed
from koubou_panel.core.limit import PROCESSES
from koubou_panel.core.quantity import parse_size
from koubou_panel.core.records import Limits, OnCrash, Request, Task, TaskId
from koubou_panel.errors import Refused
from koubou_panel.shop.remote import RemoteShop


def _size(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """The bytes of an option."""
    try:
        return None if value is None else parse_size(value)
    except ValueError as error:
        raise click.BadParameter(f"it {error}", ctx, param) from None


@click.command(context_settings={"allow_interspersed_args": False})
@click.option(
    "--name", metavar="N", default="", help="A name for the list; the script's or the program's unless given."
)
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0, min_open=True),
    metavar="S",
    help="End it after S seconds (exit code 124).",
)
@click.option("--priority", type=click.IntRange(1, 10), default=5, help="10 goes first; 5 unless given.")
@click.option("--retries", type=click.IntRange(0, 1000), default=0, help="Try again N times if it fails.")
@click.option(
    "--on-crash",
    type=click.Choice(["mark", "retry"]),
    default="mark",
    help="If it is cut off: `retry` runs it again; `mark` (unless given) ends it, as lost by a crash or cancelled "
    "by a shutdown.",
)
@click.option(
    "--after", metavar="ID", multiple=True, help="Start it when task ID has succeeded; may be repeated."
)
@click.option("--memory", callback=_size, metavar="SIZE", help="End it beyond so much memory, such as 2G.")
@click.option(
    "--cpu-time",
    type=click.FloatRange(min=0, min_open=True),
    metavar="S",
    help="End it after S seconds of processor time.",
)
@click.option(
    "--processes", type=click.IntRange(*PROCESSES), metavar="N", help="Let it have at most N processes."
)
@click.option(
    "--output-limit", callback=_size, metavar="SIZE", help="Keep so much of its output; 256M unless given."
)
@click.option(
    "--label", "labels", multiple=True, metavar="K=V", help="A label to find it by; may be repeated."
)
@click.option("--env", "variables", multiple=True, metavar="K[=V]", help="A variable for it; K alone: yours.")
@click.option("--cwd", metavar="DIR", help="Its working folder; this one unless given.")
@click.option("--pty", is_flag=True, help="Give it a terminal, so that it shows live progress and colours.")
@click.option(
    "-i",
    "--input",
    "with_input",
    is_flag=True,
    help="Give it this input, to its end. With --pty its keys go to it too: Ctrl-C as well, and Enter ~ . cancels it.",
)
@click.option("-d", "--detach", is_flag=True, help="Do not follow it: print its id and end.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print its record when it ends; its output goes to stderr."
)
@click.argument("command", metavar="COMMAND [ARG]...", nargs=-1, required=True, type=click.UNPROCESSED)
@click.pass_context
def run(
    ctx: click.Context,
    *,
    name: str,
    timeout_s: float | None,
    priority: int,
    retries: int,
    on_crash: OnCrash,
    after: tuple[str, ...],
    memory: int | None,
    cpu_time: float | None,
    processes: int | None,
    output_limit: int | None,
    labels: tuple[str, ...],
    variables: tuple[str, ...],
    cwd: str | None,
    pty: bool,
    with_input: bool,
    detach: bool,
    as_json: bool,
    command: tuple[str, ...],
) -> int:
    """Run COMMAND as a task, follow its output, and end with its exit code.

    Signal n gives 128+n, a time-out 124. Ctrl-C cancels the task; one that was cancelled,
    by whomever, gives 130.
    """
    spec: dict[str, object] = {
        "command": list(command),
        "cwd": _folder(cwd),
        "env": environment(dict(os.environ), variables) | (_screen() if pty else {}),
        "pty": pty,
        "stdin": with_input,
    }
    if with_input and detach:
        raise click.UsageError("-i: nobody is left to send the input with --detach; leave out one of the two")
    if with_input and (retries or on_crash == "retry"):
        raise click.UsageError(
            "-i: input that was read cannot be given to another try; leave out the retries"
        )
    request = Request(
        task_id=TaskId(""),
        kind="script",
        created_at=0.0,
        spec=spec,
        name=name,
        labels=_labels(labels),
        priority=priority,
        timeout_s=timeout_s,
        retries=retries,
        on_crash=on_crash,
        limits=Limits(memory_bytes=memory, cpu_s=cpu_time, processes=processes, output_bytes=output_limit),
    )
    return asyncio.run(_run(ctx, request, after=after, detach=detach, as_json=as_json))


def _labels(texts: tuple[str, ...]) -> dict[str, str]:
    labels = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not key.strip() or not equals:
            raise click.UsageError(f"--label {text[:60]}: write KEY=VALUE, such as --label study=a")
        labels[key.strip()] = value.strip()
    return labels


def _folder(cwd: str | None) -> str:
    try:
        return str(Path(cwd).expanduser().absolute() if cwd else Path.cwd())
    except FileNotFoundError:
        raise Refused("invalid", "the folder you are in is gone: `cd` into another, or give --cwd") from None


def _screen() -> dict[str, str]:
    """The size of this terminal, for programs that draw."""
    columns, lines = shutil.get_terminal_size()
    return {"COLUMNS": str(columns), "LINES": str(lines)}


def environment(own: dict[str, str], variables: tuple[str, ...]) -> dict[str, str]:
    """The variables that a task is given: the allow-list out of `own`, and what `--env` says.

    Raises:
        click.UsageError: `--env K` of a variable that is not set.
    """
    env = allowed(own)
    for text in variables:
        key, equals, value = text.partition("=")
        if not key or (not equals and key not in own):
            raise click.UsageError(
                f"--env {text}: there is no variable of that name here; write --env {text}=VALUE"
            )
        env[key] = value if equals else own[key]
    return env


async def _run(
    ctx: click.Context, request: Request, *, after: Sequence[str], detach: bool, as_json: bool
) -> int:
    from msgspec.structs import replace

    async with open_shop(ctx) as shop:
        task_id = shop.next_id()
        follows = [(await find_task(shop, text)).task_id for text in after]
        request = replace(request, task_id=task_id, after=tuple(dict.fromkeys(follows)))
        await shop.do(SubmitTask(request), CALLER)
        if detach:
            await say_submitted(shop, task_id, as_json=as_json)
            return 0
        task = await follow_or_cancel(shop, task_id, request.spec, as_json=as_json)
        if task is None:
            return INTERRUPTED
        if as_json:
            print_tasks_json([task], total=1, cursor=None)
        if task.usage.lost_output_bytes:
            say(f"{task.usage.lost_output_bytes} bytes of its output could not be stored: the disk was full")
        if task.reason is not None and task.reason != "exit":
            say(f"task {task_id} {task.status}: {task.message}")
        return exit_code(task)


async def say_submitted(shop: RemoteShop, task_id: TaskId, *, as_json: bool) -> None:
    """Print the id of a task that nobody follows, or its record."""
    if not as_json:
        print(task_id)
        return
    task = await shop.get(task_id)
    print_tasks_json([task] if task else [], total=1, cursor=None)


async def follow_or_cancel(
    shop: RemoteShop, task_id: TaskId, spec: dict[str, object], *, as_json: bool
) -> Task | None:
    """Print a task's output until it has ended, and give it; None if a second Ctrl-C would not wait for it."""
    interrupt = Interrupt(shop, task_id)
    loop = asyncio.get_running_loop()
    # Who sends input is all that such a command waits for: it goes with its terminal.
    for number in (signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if spec.get("stdin") else [])):
        loop.add_signal_handler(number, interrupt.ask)
    out = (sys.stderr if as_json else sys.stdout).buffer
    following = asyncio.create_task(follow(shop, task_id, out))
    left = asyncio.create_task(interrupt.left.wait())
    async with sending(shop, task_id, spec, interrupt.ask):
        await asyncio.wait({following, left}, return_when=asyncio.FIRST_COMPLETED)
    left.cancel()
    if not following.done():
        following.cancel()
        return None
    try:
        return following.result()
    except OSError:
        # Nobody takes its output any more: as in a shell, where the command would be ended by SIGPIPE.
        with suppress(Refused):
            await shop.do(CancelTask(task_id), CALLER)
        raise


@click.command()
@click.argument("task_id", metavar="ID")
@click.option("-f", "--follow", "is_followed", is_flag=True, help="Go on until the task has ended.")
@click.pass_context
def logs(ctx: click.Context, *, task_id: str, is_followed: bool) -> None:
    """Print what task ID (or a unique end or beginning of its id) has printed, byte for byte."""

    async def show(shop: RemoteShop) -> None:
        task = await find_task(shop, task_id)
        if is_followed:
            await follow(shop, task.task_id, sys.stdout.buffer)
        else:
            await Printer(shop, task.task_id, sys.stdout.buffer).catch_up(task)

    ask(ctx, show)
