"""`koubou models`: the model servers that answer, and which of them prompts go to."""

from __future__ import annotations

import asyncio
import os
from typing import NamedTuple

import click
from msgspec.structs import replace

from koubou_panel import registry
from koubou_panel.cli.ending import INTERRUPTED, say
from koubou_panel.cli.follow import exit_code
from koubou_panel.cli.link import CALLER, open_shop, settings_of
from koubou_panel.cli.run import follow_or_cancel, say_submitted
from koubou_panel.cli.show import print_json, print_tasks_json, size, table
from koubou_panel.core.commands import SubmitTask
from koubou_panel.core.records import Request, TaskId
from koubou_panel.kinds.model import (
    EMBEDDED,
    Choice,
    Guide,
    NoModel,
    Place,
    Server,
    choose,
    embedded_file,
    get_json,
    look_at_all,
    no_model_words,
    places,
    read_embedded,
)
from koubou_panel.settings import EXIT_FAILED, Settings, ollama_address
from koubou_panel.shop.prompting import guide_of

ENDED = "not running: the first prompt starts it"


class Model(NamedTuple):
    """One model: which server has it, and whether it is loaded, where that is told."""

    name: str
    server: str
    url: str
    state: str
    size_bytes: int | None = None


class Found(NamedTuple):
    """All that was found: the servers, what Ollama says of each of its models, and where prompts go."""

    servers: list[Server]
    details: dict[str, dict[str, object]]
    loaded: set[str]
    choice: Choice | None
    guide: Guide


@click.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.pass_context
def models(ctx: click.Context, *, as_json: bool) -> int:
    """List the models of every server that answers, and say which one prompts go to."""
    if ctx.invoked_subcommand is not None:
        return 0
    settings = settings_of(ctx)
    found = find(settings, ollama_address(os.environ))
    rows = list(_models(found))
    goes, why = where_prompts_go(found)
    if as_json:
        servers = [
            {
                "name": s.place.name,
                "url": s.place.url,
                "state": s.state,
                "models": list(s.models),
                "why": s.why,
            }
            for s in found.servers
        ]
        chosen = None if goes is None else goes._asdict()
        print_json({"models": [m._asdict() for m in rows], "servers": servers, "prompts": chosen, "why": why})
    else:
        if rows:
            cells = [(m.name, m.server, m.url, m.state, size(m.size_bytes)) for m in rows]
            table(("MODEL", "SERVER", "URL", "STATE", "SIZE"), cells)
            print()
        print(why if goes is None else f"prompts go to {goes.name} ({goes.server}): {why}")
    return 0 if goes is not None else EXIT_FAILED


@models.command()
@click.argument("name", metavar="NAME")
@click.option("--detach", is_flag=True, help="Do not follow it: print its id and end.")
@click.option("--json", "as_json", is_flag=True, help="Print its record when it ends.")
@click.pass_context
def pull(ctx: click.Context, *, name: str, detach: bool, as_json: bool) -> int:
    """Have Ollama fetch model NAME, as a task with its progress; Ctrl-C ends it."""
    request = Request(task_id=TaskId(""), kind="pull", created_at=0.0, spec={"model": name})
    request = registry.prepare(request, from_network=False)
    return asyncio.run(_pull(ctx, request, detach=detach, as_json=as_json))


async def _pull(ctx: click.Context, request: Request, *, detach: bool, as_json: bool) -> int:
    async with open_shop(ctx) as shop:
        task_id = shop.next_id()
        await shop.do(SubmitTask(replace(request, task_id=task_id)), CALLER)
        if detach:
            await say_submitted(shop, task_id, as_json=as_json)
            return 0
        task = await follow_or_cancel(shop, task_id, request.spec, as_json=as_json)
        if task is None:
            return INTERRUPTED
        if as_json:
            print_tasks_json([task], total=1, cursor=None)
        if task.status != "completed":
            say(f"task {task_id} {task.status}: {task.message}")
        return exit_code(task)


def find(settings: Settings, ollama: tuple[str, int] | None) -> Found:
    """Look at every server that a prompt could go to."""
    # Whether the workshop runs, and starts the model, is not asked here: it may be started by then.
    guide = guide_of(settings, ollama, is_supervised=True)
    embedded = read_embedded(settings.home)
    wanted = places("", guide, embedded)
    others = [place for place in places("", replace(guide, url=""), embedded) if place not in wanted]
    servers = look_at_all([*wanted, *others])
    details: dict[str, dict[str, object]] = {}
    loaded: set[str] = set()
    for server in servers:
        if server.place.name == "Ollama" and server.state == "ready":
            details = {str(model.get("name")): model for model in _listed(server.place, "/api/tags")}
            loaded = {str(model.get("name")) for model in _listed(server.place, "/api/ps")}
    choice = choose(servers[: len(wanted)], guide.model)
    return Found(servers, details, loaded, choice, guide)


def _listed(place: Place, path: str) -> list[dict[str, object]]:
    """The models that Ollama lists."""
    try:
        _, found = get_json(place, path)
    except OSError:
        return []
    listed = found.get("models")
    return [item for item in listed if isinstance(item, dict)] if isinstance(listed, list) else []


def _models(found: Found) -> list[Model]:
    rows = []
    for server in found.servers:
        name = server.place.name or "model_url"
        for model in server.models:
            told = found.details.get(model, {}).get("size") if name == "Ollama" else None
            size_bytes = told if isinstance(told, int) else None
            rows.append(Model(model, name, server.place.url, _state(found, name, model), size_bytes))
    if found.guide.embedded and not any(row.server == EMBEDDED for row in rows):
        rows.append(Model(found.guide.embedded, EMBEDDED, "", ENDED))
    return rows


def _state(found: Found, server: str, model: str) -> str:
    """Whether a model is loaded, where that is known."""
    if server == EMBEDDED:
        return "loaded"
    if server != "Ollama":
        return ""
    return "loaded" if model in found.loaded else "not loaded"


def where_prompts_go(found: Found) -> tuple[Model | None, str]:
    """The model that a prompt without a wish goes to, and why; or why there is none."""
    guide, choice = found.guide, found.choice
    if choice is not None:
        why = "the first server that answers"
        if guide.url:
            why = "the setting model_url names it"
        elif guide.model:
            why = "the setting model names it"
        name = choice.server.place.name or choice.server.place.url
        return Model(choice.model, name, choice.server.place.url, choice.server.state), why
    if guide.embedded and guide.url in ("", EMBEDDED) and guide.model in ("", guide.embedded):
        return Model(guide.embedded, EMBEDDED, "", ENDED), f"no other server answers; {ENDED}"
    try:
        reason = guide.reason or f"{embedded_file()} has no model of that name"
    except NoModel as error:
        reason = error.message
    is_usual = guide.url in ("", EMBEDDED)
    tried = found.servers if is_usual else found.servers[:1]
    return None, no_model_words(tried, guide.model, replace(guide, reason=reason), embedded=is_usual)
