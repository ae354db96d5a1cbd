"""`koubou token`."""

from __future__ import annotations

import os

import click

from koubou_panel.cli.ending import say
from koubou_panel.cli.link import home_of
from koubou_panel.errors import SettingsError
from koubou_panel.servers.credentials import derive_read_token, load_or_create_token, rotate_token


@click.command()
@click.option("--read", "is_read", is_flag=True, help="The token that opens reading only.")
@click.option("--rotate", is_flag=True, help="Make a new one; the old opens nothing more.")
@click.pass_context
def token(ctx: click.Context, *, is_read: bool, rotate: bool) -> None:
    """Print the token. Whoever holds it can run any code as you: send it as `Authorization: Bearer TOKEN`."""
    home = home_of(ctx)
    if rotate:
        if "KOUBOU_TOKEN" in os.environ:
            raise SettingsError(
                "KOUBOU_TOKEN gives the token here: change it there, and where the workshop runs"
            )
        rotate_token(home.runtime)
        say("the old token opens nothing more; browsers sign in anew by the link of `koubou status`")
    found = load_or_create_token(home.runtime, environ=os.environ)
    print(derive_read_token(found) if is_read else found)
