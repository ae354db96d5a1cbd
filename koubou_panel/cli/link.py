"""What the commands share: the home in force, the link to its workshop, and task ids as people type them."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import click

from koubou_panel.cli.ending import say
from koubou_panel.core.commands import Caller
from koubou_panel.core.ids import is_task_id
from koubou_panel.core.ports import TaskQuery
from koubou_panel.core.records import Task, TaskId
from koubou_panel.errors import Refused
from koubou_panel.home import Home
from koubou_panel.settings import Settings, load
from koubou_panel.shop.remote import RemoteShop

T = TypeVar("T")

CALLER = Caller("cli")
RECENT_TASKS = 1_000
SHORTEST = 3
RESTART_S = 10.0
POLL_S = 0.2


def settings_of(ctx: click.Context, **given: object) -> Settings:
    """The settings in force, by flags, variables and the home's file."""
    home = (ctx.find_root().obj or {}).get("home")
    return load(os.environ, {"home": home, **given})


def home_of(ctx: click.Context) -> Home:
    """The home in force."""
    return Home(settings_of(ctx).home)


@asynccontextmanager
async def open_shop(ctx: click.Context, *, replica: bool = False) -> AsyncIterator[RemoteShop]:
    """The running workshop of the home.

    Raises:
        Refused: `unavailable`: none answers.
    """
    async with await _connected(home_of(ctx), replica=replica) as shop:
        yield shop


async def _connected(home: Home, *, replica: bool) -> RemoteShop:
    """The workshop of `home`; one that its supervisor is starting anew is waited for, a while."""
    deadline = time.monotonic() + RESTART_S
    is_told = False
    while True:
        try:
            return await RemoteShop.connect(home.socket, by=CALLER.by, replica=replica)
        except Refused as refused:
            if refused.code != "unavailable" or not _is_to_come(home) or time.monotonic() > deadline:
                raise
        if not is_told:
            say("the workshop is restarting; waiting")
            is_told = True
        await asyncio.sleep(POLL_S)


def _is_to_come(home: Home) -> bool:
    """Whether a supervisor lives that will have the workshop answer again.

    Raises:
        Refused: it has given the workshop up.
    """
    from koubou_panel.cli.running import running

    found = running(home)
    if found is not None and found.has_failed:
        raise Refused("unavailable", "the workshop has failed; `koubou restart` starts it again")
    return found is not None and found.service("pool") is not None


def ask(ctx: click.Context, question: Callable[[RemoteShop], Coroutine[Any, Any, T]]) -> T:
    """What the running workshop answers."""

    async def main() -> T:
        async with open_shop(ctx) as shop:
            return await question(shop)

    return asyncio.run(main())


async def find_task(shop: RemoteShop, text: str) -> Task:
    """The task with this id; or the one recent task whose id begins or ends with it.

    Raises:
        Refused: `not_found`: there is none, or more than one.
    """
    text = text.strip().lower()
    if is_task_id(text):
        task = await shop.get(TaskId(text))
        if task is not None:
            return task
    elif len(text) >= SHORTEST:
        page = await shop.find(TaskQuery(limit=RECENT_TASKS))
        found = [t for t in page.tasks if t.task_id.endswith(text)]
        found = found or [t for t in page.tasks if t.task_id.startswith(text)]
        if len(found) == 1:
            return found[0]
        if found:
            some = ", ".join(t.task_id for t in found[:3])
            raise Refused(
                "not_found", f"{text!r} could be {len(found)} tasks ({some} ...): give more of the id"
            )
    raise Refused("not_found", f"no task {text[:100]!r}; `koubou ps` lists them")
