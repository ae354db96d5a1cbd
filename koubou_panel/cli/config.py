"""`koubou config`: every setting, what it is and why, and the home's file that keeps them."""

from __future__ import annotations

import json
import os

import click

from koubou_panel.cli.ending import say
from koubou_panel.cli.link import home_of
from koubou_panel.cli.running import running
from koubou_panel.cli.show import print_json, table
from koubou_panel.config import Change, change_settings, find_setting, setting_records
from koubou_panel.settings import FILE


@click.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.pass_context
def config(ctx: click.Context, *, as_json: bool) -> None:
    """Show the settings, and change them in the home's settings.toml.

    A flag wins over a KOUBOU_* variable, that over the file, and that over the default.
    """
    if ctx.invoked_subcommand is None:
        ctx.invoke(list_, as_json=as_json)


@config.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.pass_context
def list_(ctx: click.Context, *, as_json: bool = False) -> None:
    """Every setting, its value at the next start, and where that comes from."""
    records = setting_records(home_of(ctx), os.environ)
    if as_json:
        print_json({"settings": records})
        return
    rows = [
        (record.name, text_of(record.value), record.source.rpartition("/")[2], record.help)
        for record in records
    ]
    table(("NAME", "VALUE", "FROM", "WHAT"), rows)


@config.command("get")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.pass_context
def get(ctx: click.Context, *, name: str, as_json: bool) -> None:
    """The value of the setting NAME at the next start."""
    find_setting(name)
    record = next(record for record in setting_records(home_of(ctx), os.environ) if record.name == name)
    if as_json:
        print_json(record)
    else:
        print(text_of(record.value))


@config.command("set")
@click.argument("name")
@click.argument("value", required=False)
@click.option("--unset", is_flag=True, help="Take it out of the file instead.")
@click.pass_context
def set_(ctx: click.Context, *, name: str, value: str | None, unset: bool) -> None:
    """Write the setting NAME to the home's file; comments there stay."""
    if (value is None) is not unset:
        raise click.UsageError("give a VALUE, or --unset", ctx)
    home = home_of(ctx)
    change = change_settings(home, {name: value}, os.environ)
    if not change.changed:
        say(f"{home.root / FILE} {'does not have it' if unset else 'has it so'} already")
    elif running(home) is not None:
        say("it counts from the next `koubou restart` on")
    _say_overridden(change)


def _say_overridden(change: Change) -> None:
    for name, source in change.overridden.items():
        say(f"but {source} is set, and wins over the file for {name}")


def text_of(value: object) -> str:
    """A setting's value as a person types it."""
    return value if isinstance(value, str) else json.dumps(value)
