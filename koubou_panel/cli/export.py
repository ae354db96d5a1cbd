"""`koubou export`: a snapshot of metrics and tasks, as a document."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import click

from koubou_panel.cli.ending import say
from koubou_panel.cli.link import open_shop
from koubou_panel.errors import Refused
from koubou_panel.exporters import json as json_format
from koubou_panel.shop.snapshot import What, since_of, take

FORMATS: dict[str, Callable[[dict[str, object], BinaryIO], None]] = {"json": json_format.write}


def moment(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """UTC seconds of a moment: so long ago (`90s`, `15m`, `1h`, `2d`, `1w`), or a date as ISO 8601."""
    try:
        return since_of(value, time.time())
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from None


@click.command()
@click.option("--format", "format_", type=click.Choice(list(FORMATS)), default="json", help="json.")
@click.option("--what", type=click.Choice(["metrics", "tasks", "all"]), default="all", help="What to write.")
@click.option(
    "--since", callback=moment, metavar="1h", help="Only what is newer; all that is kept unless given."
)
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="A file; stdout if not given."
)
@click.pass_context
def export(ctx: click.Context, *, format_: str, what: What, since: float | None, output: Path | None) -> None:
    """Write a snapshot of metrics and tasks as one document."""

    async def collect() -> dict[str, Any]:
        async with open_shop(ctx, replica=True) as shop:
            return await take(shop, now=time.time(), since=since, what=what)

    document = asyncio.run(collect())
    if output is None:
        FORMATS[format_](document, sys.stdout.buffer)
        return
    try:
        with output.open("wb") as file:
            FORMATS[format_](document, file)
    except OSError as error:
        raise Refused("invalid", f"{output} cannot be written ({error.strerror})") from error
    words = {"tasks": "tasks", "metrics": "samples"}
    said = [f"{len(document[key])} {word}" for key, word in words.items() if key in document]
    say(f"{' and '.join(said)} written to {output}")
