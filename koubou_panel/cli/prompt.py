"""`koubou prompt`: a question to a language model on this machine."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import IO

import click
from msgspec.structs import replace

from koubou_panel import registry
from koubou_panel.cli.ending import INTERRUPTED, say
from koubou_panel.cli.follow import exit_code
from koubou_panel.cli.link import CALLER, open_shop
from koubou_panel.cli.run import follow_or_cancel, say_submitted
from koubou_panel.cli.show import model_words, print_tasks_json
from koubou_panel.core.commands import SubmitTask
from koubou_panel.core.records import Request, Task, TaskId, Usage
from koubou_panel.shop.remote import RemoteShop

LAST_BYTES = 1


@click.command()
@click.argument("text", metavar="TEXT")
@click.option("--model", metavar="M", default="", help="The model; `koubou models` lists them.")
@click.option("--system", metavar="S", default="", help="How the model is to behave.")
@click.option(
    "--schema", type=click.File("rb"), metavar="FILE", help="Answer with JSON that fits this schema."
)
@click.option("--max-tokens", type=click.IntRange(min=1), metavar="N", help="Answer with at most N tokens.")
@click.option("--temperature", type=click.FloatRange(0, 2), metavar="T", help="0: the likeliest answer.")
@click.option("--seed", type=click.IntRange(min=0), metavar="N", help="The same answer to the same question.")
@click.option("--url", metavar="URL", default="", help="The model server, or `embedded`.")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0, min_open=True),
    metavar="S",
    help="End it after S seconds (exit code 124).",
)
@click.option("--name", metavar="N", default="", help="A name for the list; `prompt` unless given.")
@click.option("--priority", type=click.IntRange(1, 10), default=5, help="10 goes first; 5 unless given.")
@click.option("--retries", type=click.IntRange(0, 1000), default=0, help="Try again N times if it fails.")
@click.option("--detach", is_flag=True, help="Do not follow it: print its id and end.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print its record when it ends; its answer goes to stderr."
)
@click.pass_context
def prompt(
    ctx: click.Context,
    *,
    text: str,
    model: str,
    system: str,
    schema: IO[bytes] | None,
    max_tokens: int | None,
    temperature: float | None,
    seed: int | None,
    url: str,
    timeout_s: float | None,
    name: str,
    priority: int,
    retries: int,
    detach: bool,
    as_json: bool,
) -> int:
    """Ask a language model TEXT (`-` reads it from stdin) as a task, and print its answer as it comes.

    Ctrl-C cancels it, and the model stops writing. The code at the end is that of `koubou run`.
    """
    told = {
        "prompt": sys.stdin.read() if text == "-" else text,
        "model": model,
        "system": system,
        "schema": None if schema is None else _schema(schema),
        "max_tokens": max_tokens,
        "temperature": temperature,
        "seed": seed,
        "url": url,
    }
    spec: dict[str, object] = {field: value for field, value in told.items() if value not in (None, "")}
    spec.setdefault("prompt", "")
    request = Request(
        task_id=TaskId(""),
        kind="prompt",
        created_at=0.0,
        spec=spec,
        name=name,
        priority=priority,
        retries=retries,
        timeout_s=timeout_s,
    )
    request = registry.prepare(request, from_network=False)
    return asyncio.run(_ask(ctx, request, detach=detach, as_json=as_json))


def _schema(file: IO[bytes]) -> object:
    try:
        return json.loads(file.read())
    except ValueError as error:
        raise click.BadParameter(f"{file.name} is no JSON: {error}", param_hint="--schema") from None


async def _ask(ctx: click.Context, request: Request, *, detach: bool, as_json: bool) -> int:
    async with open_shop(ctx) as shop:
        task_id = shop.next_id()
        await shop.do(SubmitTask(replace(request, task_id=task_id)), CALLER)
        if detach:
            await say_submitted(shop, task_id, as_json=as_json)
            return 0
        task = await follow_or_cancel(shop, task_id, request.spec, as_json=as_json)
        if task is None:
            return INTERRUPTED
        await _end_line(shop, task, as_json=as_json)
        if as_json:
            print_tasks_json([task], total=1, cursor=None)
        if task.status != "completed":
            say(f"task {task_id} {task.status}: {task.message}")
        if words := " · ".join(part for part in (model_words(task), token_words(task.usage)) if part):
            say(words)
        return exit_code(task)


async def _end_line(shop: RemoteShop, task: Task, *, as_json: bool) -> None:
    """End the answer's last line: what is said next stands on a line of its own."""
    page = await shop.read_bytes(task.task_id, -LAST_BYTES, LAST_BYTES)
    if page.data and page.data != b"\n":
        print(file=sys.stderr if as_json else sys.stdout, flush=True)


def token_words(usage: Usage) -> str:
    """What a prompt took: `12 tokens · 41 tokens/s · first after 0.42 s · 32 tokens read`; empty for other tasks."""
    if usage.completion_tokens is None:
        return ""
    parts = [
        f"{usage.completion_tokens} tokens",
        "" if usage.tokens_per_s is None else f"{usage.tokens_per_s:.3g} tokens/s",
        "" if usage.first_token_s is None else f"first after {usage.first_token_s:.2f} s",
        "" if usage.prompt_tokens is None else f"{usage.prompt_tokens} tokens read",
    ]
    return " · ".join(part for part in parts if part)
