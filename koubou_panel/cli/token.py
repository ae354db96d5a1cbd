"""`koubou token`."""

from __future__ import annotations

import os
import time
from typing import cast

import click

from koubou_panel.cli.ending import say
from koubou_panel.cli.link import home_of
from koubou_panel.cli.show import print_json, table
from koubou_panel.errors import SettingsError
from koubou_panel.servers.credentials import derive_read_token, load_or_create_token, rotate_token
from koubou_panel.servers.named import ROLES, Scope, add_named, forget_named, list_named, revoke_named
from koubou_panel.wire.records import iso


@click.group(invoke_without_command=True)
@click.option("--read", "is_read", is_flag=True, help="The token that opens reading only.")
@click.option("--rotate", is_flag=True, help="Make a new one; the old opens nothing more, nor do named ones.")
@click.pass_context
def token(ctx: click.Context, *, is_read: bool, rotate: bool) -> None:
    """Print the token. Whoever holds it can run any code as you: send it as `Authorization: Bearer TOKEN`.

    Give agents tokens of their own: `koubou token add NAME`.
    """
    if ctx.invoked_subcommand is not None:
        if is_read or rotate:
            raise click.UsageError("--read and --rotate stand alone", ctx)
        return
    home = home_of(ctx)
    if rotate:
        if "KOUBOU_TOKEN" in os.environ:
            raise SettingsError(
                "KOUBOU_TOKEN gives the token here: change it there, and where the workshop runs"
            )
        old = load_or_create_token(home.runtime, environ={})
        rotate_token(home.runtime)
        forget_named(home.runtime, old)
        say("the old token opens nothing more; browsers sign in anew by the link of `koubou status`")
    found = load_or_create_token(home.runtime, environ=os.environ)
    print(derive_read_token(found) if is_read else found)


@token.command()
@click.argument("name")
@click.option(
    "--scope",
    type=click.Choice(list(ROLES)),
    default="edit",
    help="`read` sees everything, `run` runs scripts of the catalogue too, `edit` (unless given) does everything.",
)
@click.pass_context
def add(ctx: click.Context, *, name: str, scope: str) -> None:
    """Make a token for an agent, and print it: it is shown this once.

    What the agent does goes by NAME everywhere. The token opens the ports of a running workshop within a second.
    """
    home = home_of(ctx)
    whole = load_or_create_token(home.runtime, environ=os.environ)
    made = add_named(home.runtime, whole, name, scope=cast("Scope", scope), now=time.time())
    say(f"this token is {name}'s, and may {_MAY[scope]}; it is not shown again")
    print(made)


@token.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.pass_context
def list_(ctx: click.Context, *, as_json: bool) -> None:
    """List the tokens of agents, which are not shown themselves."""
    home = home_of(ctx)
    named = list_named(home.runtime, load_or_create_token(home.runtime, environ=os.environ))
    rows = [
        {"name": name, "scope": one.scope, "created_at": iso(one.created_at)}
        for name, one in sorted(named.items())
    ]
    if as_json:
        print_json({"tokens": rows})
    elif not rows:
        say("no agent has a token of its own; `koubou token add NAME` makes one")
    else:
        shown = [(row["name"] or "", row["scope"] or "", row["created_at"] or "") for row in rows]
        table(("name", "scope", "made"), shown)


@token.command()
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.pass_context
def revoke(ctx: click.Context, *, names: tuple[str, ...]) -> None:
    """End tokens of agents: they open nothing more, and what they have open is cut off."""
    home = home_of(ctx)
    whole = load_or_create_token(home.runtime, environ=os.environ)
    for name in names:
        revoke_named(home.runtime, whole, name)
        say(f"{name}'s token opens nothing more")


_MAY = {
    "read": "see everything",
    "run": "see everything and run scripts of the catalogue",
    "edit": "do everything",
}
