"""`koubou export`: a snapshot of metrics and tasks, as a document."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

import click

from koubou_panel import __version__
from koubou_panel.cli.ending import say
from koubou_panel.cli.link import ask
from koubou_panel.core.ports import TaskQuery
from koubou_panel.core.records import Metrics, Task
from koubou_panel.errors import Refused
from koubou_panel.exporters import json as json_format
from koubou_panel.shop.remote import RemoteShop
from koubou_panel.wire.records import iso, task_record

PAGE_TASKS = 1_000
UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


FORMATS: dict[str, Callable[[dict[str, object], BinaryIO], None]] = {"json": json_format.write}


def moment(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """UTC seconds of a moment: so long ago (`90s`, `15m`, `1h`, `2d`, `1w`), or a date as ISO 8601."""
    if value is None:
        return None
    text = value.strip()
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])", text)
    if found:
        return time.time() - float(found[1]) * UNITS_S[found[2]]
    try:
        date = datetime.fromisoformat(text)
    except ValueError:
        words = f"{text!r} is neither a span such as 30m, 1h or 2d nor a date such as 2026-01-31"
        raise click.BadParameter(words, ctx, param) from None
    return (date if date.tzinfo else date.astimezone()).timestamp()


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
def export(ctx: click.Context, *, format_: str, what: str, since: float | None, output: Path | None) -> None:
    """Write a snapshot of metrics and tasks as one document."""

    async def collect(shop: RemoteShop) -> tuple[list[Task], list[Metrics]]:
        tasks = [] if what == "metrics" else await _tasks(shop, since or 0.0)
        metrics = [] if what == "tasks" else await shop.metrics_since(since or 0.0)
        return tasks, metrics

    tasks, metrics = ask(ctx, collect)
    document = _document(what, since, tasks, metrics)
    if output is None:
        FORMATS[format_](document, sys.stdout.buffer)
        return
    try:
        with output.open("wb") as file:
            FORMATS[format_](document, file)
    except OSError as error:
        raise Refused("invalid", f"{output} cannot be written ({error.strerror})") from error
    said = [f"{len(tasks)} tasks"] * (what != "metrics") + [f"{len(metrics)} samples"] * (what != "tasks")
    say(f"{' and '.join(said)} written to {output}")


async def _tasks(shop: RemoteShop, since: float) -> list[Task]:
    """Tasks submitted since, newest first."""
    tasks: list[Task] = []
    cursor: str | None = None
    while True:
        page = await shop.find(TaskQuery(limit=PAGE_TASKS, cursor=cursor))
        recent = [task for task in page.tasks if task.request.created_at >= since]
        tasks += recent
        cursor = page.cursor
        if cursor is None or len(recent) < len(page.tasks):
            return tasks


def _document(
    what: str, since: float | None, tasks: Sequence[Task], metrics: Sequence[Metrics]
) -> dict[str, object]:
    document: dict[str, object] = {
        "koubou": __version__,
        "exported_at": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "since": iso(since),
    }
    if what != "metrics":
        document["tasks"] = [task_record(task) for task in tasks]
    if what != "tasks":
        document["metrics"] = [{"at": iso(sample.at), **sample.values} for sample in metrics]
    return document
