"""A task as a line to copy: how to ask for the same from Python, by REST, over the WebSocket, from an AI agent.

Secrets are in none of them: a token is read by the line itself where it is run, and the environment is left out.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from msgspec.structs import asdict

from koubou_panel.core.records import NO_LIMITS, Request, Service
from koubou_panel.views.language import _

AGENTS_PORT, SOCKET_PORT = 8765, 8766
TOKEN = "${KOUBOU_TOKEN:-$(koubou token)}"  # noqa: S105 - how a shell reads it, not one
_PROMPT_FIELDS = ("model", "system", "schema", "max_tokens", "temperature", "seed", "url")


class Copy(NamedTuple):
    """One way: what it is called, what to copy (empty: there is none), and what is to be known of it."""

    name: str
    text: str
    note: str


@dataclass(frozen=True)
class Doors:
    """Where a workshop is asked: its home, and the ports of its agents' door and of its WebSocket."""

    home: str | None = None
    agents: int = AGENTS_PORT
    socket: int = SOCKET_PORT

    @classmethod
    def of(cls, home: Path | None, services: Mapping[str, Service]) -> Doors:
        """As the services tell; the usual ports where they do not."""
        agents, socket = (services.get(name) for name in ("agents", "websocket"))
        return cls(
            home=None if home is None else str(home),
            agents=(agents.port if agents else None) or AGENTS_PORT,
            socket=(socket.port if socket else None) or SOCKET_PORT,
        )


def copies(request: Request, doors: Doors) -> list[Copy]:
    """Every way, in the order in which they are offered."""
    return [
        Copy("Python", *_python(request, doors)),
        Copy("curl", *_curl(request, doors)),
        Copy("WebSocket", *_socket(request, doors)),
        Copy("MCP", *_mcp(request, doors)),
    ]


# -- Python ---------------------------------------------------------------------------------------------------


def _python(request: Request, doors: Doors) -> tuple[str, str]:
    if request.kind == "function":
        call = f"future = shop.submit({request.name or 'function'})"
        note = _(
            "Import the function, and give it its arguments: they are not kept in a form that can be shown."
        )
        return _in_workshop(doors, [call, "print(future.result())"]), note
    if request.kind == "script":
        note = _("It runs the command itself.") if request.script_name else ""
        ended = ["future.exception()  # waits for its end", "print(shop.output(future.task_id))"]
        return _in_workshop(doors, [f"future = shop.run({_command_call(request)})", *ended]), _left_out(
            request, note, pty=True
        )
    if request.kind == "prompt":
        return _in_workshop(doors, [f"print(shop.prompt({_prompt_call(request)}).result())"]), ""
    return "", _("The Python face has no such task: use one of the others.")


def _in_workshop(doors: Doors, lines: list[str]) -> str:
    home = "" if doors.home is None else repr(doors.home)
    body = "\n".join(f"    {line}" for line in lines)
    return f"from koubou_panel import Workshop\n\nwith Workshop({home}) as shop:\n{body}\n"


def _command_call(request: Request) -> str:
    spec = request.spec
    parts = [repr(str(part)) for part in _command(spec)]
    given: dict[str, object] = {"cwd": spec.get("cwd") or str(Path.home())}
    if spec.get("stdin"):
        given["stdin"] = True
    return ", ".join([*parts, *_keywords(given | _python_options(request))])


def _prompt_call(request: Request) -> str:
    spec = request.spec
    given = {name: spec[name] for name in _PROMPT_FIELDS if spec.get(name) not in (None, "")}
    text = spec.get("messages") or spec.get("prompt") or ""
    return ", ".join([repr(text), *_keywords(given | _python_options(request))])


def _python_options(request: Request) -> dict[str, object]:
    names = {"memory_bytes": "memory", "output_bytes": "output"}
    limits = {names.get(name, name): value for name, value in _limits(request).items()}
    return _options(request) | limits


def _keywords(values: Mapping[str, object]) -> list[str]:
    return [f"{name}={value!r}" for name, value in values.items()]


# -- REST -----------------------------------------------------------------------------------------------------


def _curl(request: Request, doors: Doors) -> tuple[str, str]:
    body, note = _delegated(request)
    if body is None:
        return "", note
    if request.priority != _USUAL.priority:
        body["priority"] = request.priority
    url = f"http://127.0.0.1:{doors.agents}/task/delegate"
    return (
        f'curl -H "Authorization: Bearer {TOKEN}" -H "Content-Type: application/json" {url} '
        f"-d {shlex.quote(_json(body))}"
    ), note


def _delegated(request: Request) -> tuple[dict[str, object] | None, str]:
    """The body that delegates the same; None where that cannot be done."""
    spec, options = request.spec, _options(request)
    options.pop("priority", None)
    if "timeout_s" in options:
        options["timeout"] = options.pop("timeout_s")
    limits = _("Its limits are left out: REST has none.") if _limits(request) else ""
    if request.kind == "function":
        return None, _only_python()
    if request.script_name:
        body: dict[str, object] = {"script": request.script_name, "parameters": request.parameters}
        options.pop("name", None)
        return _with_options(body, options), ""
    if request.kind == "script":
        if spec.get("cwd"):
            options["cwd"] = spec["cwd"]
        return _with_options({"command": _command(spec)}, options), _left_out(request, limits, typed=True)
    if request.kind == "prompt" and spec.get("prompt"):
        names = [name for name in _PROMPT_FIELDS if name != "url" and spec.get(name) not in (None, "")]
        return _with_options({"prompt": spec["prompt"]}, options | {name: spec[name] for name in names}), ""
    if request.kind == "prompt":
        return None, _("REST takes one prompt, not a conversation: use Python or the WebSocket.")
    return _with_options({"type": request.kind, "parameters": spec}, options), limits


def _with_options(body: dict[str, object], options: dict[str, object]) -> dict[str, object]:
    return body | ({"options": options} if options else {})


# -- WebSocket ------------------------------------------------------------------------------------------------


def _socket(request: Request, doors: Doors) -> tuple[str, str]:
    where = _("Send it to {url}, after the header or the first message that has the token.").format(
        url=f"ws://127.0.0.1:{doors.socket}/"
    )
    if request.kind == "function":
        return _json({"command": "retry", "task_id": request.task_id}), f"{_only_python()} {where}"
    if request.script_name:
        told: dict[str, object] = {"command": "run_script", "script_name": request.script_name}
        told["parameters"] = request.parameters
        options = _options(request)
        options.pop("name", None)
        return _json(told | options), where
    told = {"command": "submit", "kind": request.kind, "spec": _spec(request)} | _options(request)
    if limits := _limits(request):
        told["limits"] = limits
    return _json(told), _left_out(request, where)


# -- MCP ------------------------------------------------------------------------------------------------------


def _mcp(request: Request, doors: Doors) -> tuple[str, str]:
    where = _("A call of a tool, at {url}.").format(url=f"http://127.0.0.1:{doors.agents}/mcp")
    spec, options = request.spec, _options(request)
    options.pop("on_crash", None)
    if request.kind == "function":
        return _tool("retry_task", {"task_id": request.task_id}), f"{_only_python()} {where}"
    if request.script_name:
        named = {"script_name": request.script_name, "parameters": request.parameters}
        rest = {name: value for name, value in options.items() if name not in ("name", "retries")}
        return _tool("run_script", named | rest), where
    if request.kind == "script":
        told = {"command": _command(spec)} | ({"cwd": spec["cwd"]} if spec.get("cwd") else {})
        memory = _limits(request).get("memory_bytes")
        kept = {} if memory is None else {"memory_bytes": memory}
        return _tool("submit_command", told | options | kept), _left_out(request, where, typed=True)
    if request.kind == "prompt" and spec.get("prompt"):
        names = [name for name in ("model", "system", "schema") if spec.get(name) not in (None, "")]
        options.pop("retries", None)
        told = {"prompt": spec["prompt"]} | {name: spec[name] for name in names}
        return _tool("submit_prompt", told | options), where
    return "", _("No tool does this: use Python or the WebSocket.")


def _tool(name: str, arguments: Mapping[str, object]) -> str:
    return _json({"name": name, "arguments": arguments})


# -- what they share ------------------------------------------------------------------------------------------


def _command(spec: Mapping[str, object]) -> list[str]:
    command = spec.get("command")
    return [str(part) for part in command] if isinstance(command, list | tuple) else []


def _spec(request: Request) -> dict[str, object]:
    return {name: value for name, value in request.spec.items() if name not in ("env", "fire_at")}


def _options(request: Request) -> dict[str, object]:
    """What was asked for beside the work itself, where it is not as usual."""
    names = ("name", "priority", "timeout_s", "retries", "on_crash", "labels")
    return {name: getattr(request, name) for name in names if getattr(request, name) != getattr(_USUAL, name)}


def _limits(request: Request) -> dict[str, object]:
    if request.limits == NO_LIMITS:
        return {}
    return {name: value for name, value in asdict(request.limits).items() if value is not None}


def _left_out(request: Request, note: str, *, pty: bool = False, typed: bool = False) -> str:
    """`note`, and before it what of the task the text does not hold."""
    env, notes = request.spec.get("env"), []
    if isinstance(env, Mapping) and env:
        names = ", ".join(str(name) for name in list(env)[:20])
        notes.append(_("Its environment ({names}) is left out: values may be secrets.").format(names=names))
    if (pty or typed) and request.spec.get("pty"):
        notes.append(_("It runs without a terminal."))
    elif typed and request.spec.get("stdin"):
        notes.append(_("It takes no typed input."))
    return " ".join([*notes, *([note] if note else [])])


def _only_python() -> str:
    return _("Only Python can submit a function; an ended one can be run again with what it was given.")


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


_USUAL = Request(task_id="", kind="", created_at=0.0)  # type: ignore[arg-type]
