"""`koubou script run` and `koubou script logs`."""

from __future__ import annotations

import asyncio
import shlex
import sys

import click

from koubou_panel.cli.ending import INTERRUPTED, clean, say
from koubou_panel.cli.follow import Printer, exit_code
from koubou_panel.cli.link import CALLER, ask, open_shop
from koubou_panel.cli.run import follow_or_cancel, say_submitted
from koubou_panel.cli.script_words import given_parameters
from koubou_panel.cli.show import print_json, print_tasks_json, task_table
from koubou_panel.core.commands import RunScript
from koubou_panel.core.ports import OutputMatches, TaskPage, TaskQuery
from koubou_panel.core.script import find_entry
from koubou_panel.shop.remote import RemoteShop


@click.command()
@click.argument("name", metavar="NAME")
@click.argument("parameters", metavar="[K=V]...", nargs=-1)
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0, min_open=True),
    metavar="S",
    help="End it after S seconds, whatever the script says.",
)
@click.option(
    "--priority", type=click.IntRange(1, 10), help="10 goes first; as the script says unless given."
)
@click.option("--detach", is_flag=True, help="Do not follow it: print its id and end.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print its record when it ends; its output goes to stderr."
)
@click.pass_context
def run(
    ctx: click.Context,
    *,
    name: str,
    parameters: tuple[str, ...],
    timeout_s: float | None,
    priority: int | None,
    detach: bool,
    as_json: bool,
) -> int:
    """Run script NAME now with these parameters, follow its output, and end with its exit code."""
    given = given_parameters(parameters)

    async def main() -> int:
        async with open_shop(ctx) as shop:
            task_id = shop.next_id()
            command = RunScript(name, task_id, given, priority=priority, timeout_s=timeout_s)
            await shop.do(command, CALLER)
            if detach:
                await say_submitted(shop, task_id, as_json=as_json)
                return 0
            task = await follow_or_cancel(shop, task_id, {}, as_json=as_json)
            if task is None:
                return INTERRUPTED
            if as_json:
                print_tasks_json([task], total=1, cursor=None)
            if task.reason is not None and task.reason != "exit":
                say(f"task {task_id} {task.status}: {task.message}")
            return exit_code(task)

    return asyncio.run(main())


@click.command()
@click.argument("name", metavar="NAME")
@click.option("--search", "text", metavar="TEXT", help="The lines with TEXT, newest run first.")
@click.option("--runs", "as_list", is_flag=True, help="List the runs instead.")
@click.option(
    "--limit", type=click.IntRange(1, 1000), default=50, help="At most N lines or runs; 50 unless given."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document; with --search or --runs.")
@click.pass_context
def logs(
    ctx: click.Context, *, name: str, text: str | None, as_list: bool, limit: int, as_json: bool
) -> None:
    """Print what the last run of script NAME printed; or search all its runs, or list them."""
    if text is not None and as_list:
        raise click.UsageError("--search and --runs exclude each other")
    if as_json and text is None and not as_list:
        raise click.UsageError("--json goes with --search or --runs")
    if text is not None:
        _search(ctx, name, text, limit, as_json=as_json)
        return
    page = ask(ctx, lambda shop: _runs(shop, name, limit if as_list else 1))
    if as_list and as_json:
        print_tasks_json(page.tasks, total=page.total, cursor=page.cursor)
    elif not page.tasks:
        say(f"{name} has not run yet; `koubou script run {shlex.quote(name)}` runs it")
    elif as_list:
        task_table(page.tasks)
    else:
        ask(ctx, lambda shop: Printer(shop, page.tasks[0].task_id, sys.stdout.buffer).catch_up(page.tasks[0]))


async def _runs(shop: RemoteShop, name: str, limit: int) -> TaskPage:
    page = await shop.find(TaskQuery(script=name, limit=limit))
    if not page.total:
        find_entry({entry.name: entry for entry in (await shop.look()).scripts}, name)
    return page


def _search(ctx: click.Context, name: str, text: str, limit: int, *, as_json: bool) -> None:
    async def search(shop: RemoteShop) -> OutputMatches:
        return await shop.search_output(name, text, limit)

    found = ask(ctx, search)
    if as_json:
        print_json(found)
        return
    for match in found.matches:
        print(f"{match.task_id}:{match.line}: {clean(match.text)}")
    if found.is_cut:
        say(f"there may be more: the search ended after {found.runs} runs; --limit, or a rarer text")
    elif not found.matches:
        runs = "its only run" if found.runs == 1 else f"the {found.runs} runs of it"
        say(f"no line of {runs} has {text!r}" if found.runs else f"{name} has not run yet")
