"""`koubou script`: the catalogue of scripts, a file for each idea of it; what is one line stands here."""

from __future__ import annotations

import sys

import click

from koubou_panel.cli.ending import say
from koubou_panel.cli.link import CALLER, ask
from koubou_panel.cli.script_define import add, change
from koubou_panel.cli.script_run import logs, run
from koubou_panel.cli.script_show import due_words, entries_of, list_all, show
from koubou_panel.cli.script_text import edit, restore, versions
from koubou_panel.core.commands import EnableScript, RemoveScript
from koubou_panel.core.script import (
    Entry,
    find_entry,
)
from koubou_panel.shop.remote import RemoteShop


@click.group()
def script() -> None:
    """Keep scripts by name: run them by hand or on a schedule, edit them safely, search what they printed."""


for _command in (add, change, list_all, show, run, logs, edit, versions, restore):
    script.add_command(_command)


@script.command()
@click.argument("name", metavar="NAME")
@click.pass_context
def enable(ctx: click.Context, *, name: str) -> None:
    """Let the schedule of script NAME run it again; what was due meanwhile is not made up for."""
    _enable(ctx, name, is_enabled=True)


@script.command()
@click.argument("name", metavar="NAME")
@click.pass_context
def disable(ctx: click.Context, *, name: str) -> None:
    """Let the schedule of script NAME run it no more; it can be run by hand all the same."""
    _enable(ctx, name, is_enabled=False)


def _enable(ctx: click.Context, name: str, *, is_enabled: bool) -> None:
    async def do(shop: RemoteShop) -> Entry:
        await shop.do(EnableScript(name, is_enabled), CALLER)
        return find_entry(await entries_of(shop), name)

    say(f"{name} is {'enabled' if is_enabled else 'disabled'}{due_words(ask(ctx, do))}")


@script.command()
@click.argument("name", metavar="NAME")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_context
def remove(ctx: click.Context, *, name: str, yes: bool) -> None:
    """Take script NAME out of the catalogue; its file, its runs and their output stay."""
    if not yes and sys.stdin.isatty() and not click.confirm(f"Remove {name} from the catalogue?", err=True):
        raise click.Abort

    async def do(shop: RemoteShop) -> None:
        await shop.do(RemoveScript(name), CALLER)

    ask(ctx, do)
    say(f"{name} is removed; its file, its runs and their output are still there")
