"""`koubou scale`, `pause`, `resume` and `drain`, and the restart of one worker."""

from __future__ import annotations

import asyncio

import click

from koubou_panel.cli.ending import say
from koubou_panel.cli.link import CALLER, ask
from koubou_panel.core.commands import (
    Command,
    DrainPool,
    PausePool,
    RestartWorker,
    ResumePool,
    ScaleWorkers,
)
from koubou_panel.core.ports import TaskQuery
from koubou_panel.core.records import Task, WorkerId
from koubou_panel.settings import parse_workers
from koubou_panel.shop.remote import RemoteShop

LOOK_S = 0.25
NAMED = 5


def _do(ctx: click.Context, command: Command) -> None:
    async def change(shop: RemoteShop) -> None:
        await shop.do(command, CALLER)

    ask(ctx, change)


@click.command()
@click.argument("bounds", metavar="MIN:MAX")
@click.pass_context
def scale(ctx: click.Context, *, bounds: str) -> None:
    """Have at least MIN and at most MAX workers."""
    low, high = parse_workers(bounds)
    _do(ctx, ScaleWorkers(low, high))
    say(f"{low} to {high} workers")


@click.command()
@click.pass_context
def pause(ctx: click.Context) -> None:
    """Start no new work until `koubou resume`. What runs goes on, and new tasks are taken in and wait."""
    _do(ctx, PausePool())
    say("paused: no new work is started; `koubou resume` ends that")


@click.command()
@click.pass_context
def resume(ctx: click.Context) -> None:
    """Take and start work again, after `koubou pause` or `koubou drain`."""
    _do(ctx, ResumePool())
    say("work is taken and started")


@click.command()
@click.option("--no-wait", is_flag=True, help="Do not wait for what runs.")
@click.pass_context
def drain(ctx: click.Context, *, no_wait: bool) -> None:
    """Take and start no new work until `koubou resume`, and wait until nothing runs. What waits is kept."""

    async def change(shop: RemoteShop) -> None:
        await shop.do(DrainPool(), CALLER)
        say("drained: no new work is taken or started; `koubou resume` ends that")
        if not no_wait:
            await _until_idle(shop)

    ask(ctx, change)


async def _until_idle(shop: RemoteShop) -> None:
    """Wait until nothing runs, and say what still does whenever that has changed."""
    said = ""
    while (await shop.look()).counts["in_progress"]:
        page = await shop.find(TaskQuery(status="in_progress", limit=NAMED))
        words = _running_words(page.tasks, page.total)
        if words and words != said:
            say(words)
            said = words
        await asyncio.sleep(LOOK_S)
    say("nothing runs any more")


def _running_words(tasks: list[Task], total: int) -> str:
    if not tasks:
        return ""
    names = [f"{task.task_id} ({task.request.name})" for task in tasks]
    rest = f" and {total - len(tasks)} more" if total > len(tasks) else ""
    return f"waiting for {', '.join(names)}{rest}"


def restart_worker(ctx: click.Context, worker: str, *, at_once: bool) -> None:
    """Replace one worker."""
    _do(ctx, RestartWorker(WorkerId(worker), at_once))
    say(f"{worker} is replaced {'at once' if at_once else 'when it has ended what it runs'}")
