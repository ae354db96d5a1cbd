"""`koubou watch`: the WebSocket's test client, on the same client half as every other."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import click

from koubou_panel.cli.ending import clean, say
from koubou_panel.cli.link import settings_of
from koubou_panel.cli.running import running
from koubou_panel.core.records import CHANNELS, FACT_CHANNELS
from koubou_panel.core.suggest import unknown
from koubou_panel.errors import Refused, SettingsError
from koubou_panel.home import Home
from koubou_panel.servers.access import is_loopback
from koubou_panel.servers.credentials import load_or_create_token
from koubou_panel.shop.stream import stream

METRICS = ("cpu_percent", "memory_percent", "disk_percent", "active_scripts", "total_executions")
TOP = ("type", "timestamp", "seq", "id")


@click.command()
@click.option("--url", metavar="URL", help="ws://HOST:PORT/; this home's workshop unless given.")
@click.option(
    "--channel",
    "channels",
    multiple=True,
    metavar="C",
    help="task, worker, system, script, alert, output:ID.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON message a line.")
@click.pass_context
def watch(ctx: click.Context, *, url: str | None, channels: tuple[str, ...], as_json: bool) -> None:
    """Connect to the WebSocket, subscribe, and print every message; connects again by itself."""
    facts = [channel for channel in channels if not channel.startswith("output:")]
    outputs = [channel.removeprefix("output:") for channel in channels if channel.startswith("output:")]
    for channel in facts:
        if channel not in FACT_CHANNELS:
            hint = (
                "give its task: output:ID" if channel == "output" else unknown("channel", channel, CHANNELS)
            )
            raise click.UsageError(hint, ctx)
    url, token = _where(ctx, url)
    asyncio.run(
        _watch(url, token, facts or ([] if outputs else list(FACT_CHANNELS)), outputs, as_json=as_json)
    )


def _where(ctx: click.Context, url: str | None) -> tuple[str, str | None]:
    """The address, and the token to show there: this home's own goes to this machine alone."""
    settings = settings_of(ctx)
    home = Home(settings.home)
    if url is None:
        found = running(home)
        websocket = found.service("websocket") if found else None
        port = websocket.port if websocket and websocket.port else settings.socket_port
        host = found.host if found else settings.host
        url = f"ws://{f'[{host}]' if ':' in host else host}:{port}/"
    try:
        parts = urlsplit(url)
        is_here = parts.scheme in ("ws", "wss") and is_loopback(parts.hostname or "")
    except ValueError:
        is_here = False
    if not url.startswith(("ws://", "wss://")):
        raise click.UsageError(f"--url must begin with ws:// or wss://, not {url!r}", ctx)
    if "KOUBOU_TOKEN" not in os.environ and not (is_here and home.runtime.is_dir()):
        return url, None
    try:
        return url, load_or_create_token(home.runtime, environ=os.environ)
    except OSError as error:
        raise SettingsError(f"the token of {home.root} cannot be read ({error.strerror})") from error


async def _watch(
    url: str, token: str | None, channels: list[Any], outputs: list[str], *, as_json: bool
) -> None:
    has_begun = False

    def on_cut(why: str, delay_s: float) -> None:
        if not has_begun:
            raise Refused("unavailable", f"nobody answers at {url} ({why}); `koubou up` starts a workshop")
        say(f"{why}; connecting again in {delay_s:.1f} s")

    async for message in stream(url, token=token, channels=channels, outputs=outputs, on_cut=on_cut):
        has_begun = True
        print(json.dumps(message, ensure_ascii=False) if as_json else line(message), flush=True)


def line(message: Mapping[str, Any]) -> str:
    """A message on one line for people: time, type, and what is in it."""
    at = str(message.get("timestamp", ""))[11:23]
    kind = str(message.get("type", ""))
    return clean(f"{at:12} {kind:15} {_words(kind, message)}")


def _words(kind: str, message: Mapping[str, Any]) -> str:
    data = message.get("data")
    data = data if isinstance(data, dict) else {}
    match kind:
        case "initial_state":
            words = (
                f"epoch {data.get('epoch')}, tasks {_pairs(data.get('tasks'))}, {_pairs(data.get('workers'))}"
            )
        case "task_update":
            task = f"{message.get('task_id')} {message.get('status'):11}"
            words = f"{task} {data.get('name', '')}: {_detail(message)}"
        case "worker_update":
            words = f"{message.get('worker_id')} {message.get('status')}: {_detail(message)}"
        case "script_status":
            words = _script_words(data)
        case "script_update":
            words = f"{message.get('script_name')} {message.get('event')}: {_detail(message)}"
        case "system_event":
            words = f"{message.get('event')}: {_detail(message)}"
        case "output":
            words = f"{message.get('task_id')} {str(data.get('text', ''))!r}"
        case "system_metrics":
            words = _pairs({name: data.get(name) for name in METRICS})
        case _:
            rest = {name: value for name, value in message.items() if name not in (*TOP, "data")}
            words = _pairs({**rest, **data})
    return words


def _script_words(data: Mapping[str, Any]) -> str:
    parts = [f"{data.get('script_name')} {data.get('status')}", f"task {data.get('task_id')}"]
    if data.get("exit_code") is not None:
        parts.append(f"exit code {data['exit_code']}")
    if isinstance(data.get("duration"), int | float):
        parts.append(f"{data['duration'] / 1000:.2f} s")
    return ", ".join(parts)


def _detail(message: Mapping[str, Any]) -> str:
    details = message.get("details")
    return str(details.get("message") or "") if isinstance(details, dict) else str(details or "")


def _pairs(values: object) -> str:
    if not isinstance(values, dict):
        return str(values)
    return " ".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in values.items())
