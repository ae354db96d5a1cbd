"""What a task was asked to do, so that people can read it: each kind in its own words."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator, Mapping

from koubou_panel.core.records import Request
from koubou_panel.views.escape import block, line
from koubou_panel.views.language import _

TEXT_LIMIT = 100_000
VALUE_LIMIT = 2_000
MOST_NAMES = 100

Entry = dict[str, object]


def given(request: Request) -> list[Entry]:
    """Of label and text, in the order in which they are read; `form` is `code`, `text`, or empty for a short value.

    Of the environment only the names are told: values are often secrets.
    """
    by_kind = _KINDS.get(request.kind, _other)
    return [entry for entry in (*by_kind(request), *_around(request)) if entry["text"]]


def command_line(spec: Mapping[str, object]) -> str:
    """The command of a spec as a shell would take it; empty where it has none."""
    command = spec.get("command")
    return shlex.join(map(str, command)) if isinstance(command, list | tuple) else ""


def _entry(label: str, text: object, form: str = "") -> Entry:
    return {"label": label, "text": block(text, TEXT_LIMIT if form else VALUE_LIMIT), "form": form}


def _script(request: Request) -> Iterator[Entry]:
    spec = request.spec
    if request.script_name:
        yield _entry(_("Script"), line(request.script_name, 120))
        for name, value in list(request.parameters.items())[:MOST_NAMES]:
            yield _entry(line(name, 60), _value(value))
    yield _entry(_("Command"), command_line(spec), "code")
    yield _entry(_("Folder"), spec.get("cwd") or "")
    env = spec.get("env")
    if isinstance(env, Mapping):
        yield _entry(_("Environment"), ", ".join(line(name, 60) for name in list(env)[:MOST_NAMES]))
    if spec.get("pty"):
        yield _entry(_("Input"), _("it runs in a terminal, and takes what is typed"))
    elif spec.get("stdin"):
        yield _entry(_("Input"), _("it takes what is typed"))


def _function(request: Request) -> Iterator[Entry]:
    yield _entry(_("Function"), request.summary or request.name, "code")
    yield _entry(_("Arguments"), _("pickled by the program that asked; only a worker opens them"))


def _prompt(request: Request) -> Iterator[Entry]:
    spec = request.spec
    yield _entry(_("System"), spec.get("system") or "", "text")
    yield _entry(_("Prompt"), spec.get("prompt") or "", "text")
    messages = spec.get("messages")
    roles = {"system": _("System"), "user": _("User"), "assistant": _("Assistant")}
    for message in messages if isinstance(messages, list | tuple) else ():
        if isinstance(message, Mapping):
            role = line(message.get("role"), 20)
            yield _entry(roles.get(role, role), message.get("content") or "", "text")
    yield _entry(_("Model asked for"), spec.get("model") or "")
    yield _entry(_("Server"), spec.get("url") or "")
    for label, name in (
        (_("Most tokens"), "max_tokens"),
        (_("Temperature"), "temperature"),
        (_("Seed"), "seed"),
    ):
        if spec.get(name) is not None:
            yield _entry(label, _value(spec[name]))
    if spec.get("schema") is not None:
        yield _entry(_("Answer's schema"), _json(spec["schema"]), "code")


def _pull(request: Request) -> Iterator[Entry]:
    yield _entry(_("Model"), request.spec.get("model") or "")
    yield _entry(_("Server"), request.spec.get("url") or "")


def _other(request: Request) -> Iterator[Entry]:
    for name, value in list(request.spec.items())[:MOST_NAMES]:
        yield _entry(line(name, 60), _value(value))


def _around(request: Request) -> Iterator[Entry]:
    """What is told of any kind, where it is not as usual."""
    yield _entry(_("Asked by"), line(request.submitted_by, 60))
    if request.priority != _USUAL.priority:
        yield _entry(_("Priority"), str(request.priority))
    labels = [f"{line(name, 60)}: {line(value, 60)}" for name, value in request.labels.items()]
    yield _entry(_("Labels"), ", ".join(labels))
    if request.on_crash == "retry":
        yield _entry(_("After a crash"), _("it is run again"))


def _value(value: object) -> str:
    return value if isinstance(value, str) else _json(value)


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2, default=str)


_USUAL = Request(task_id="", kind="", created_at=0.0)  # type: ignore[arg-type]
_KINDS: dict[str, Callable[[Request], Iterator[Entry]]] = {
    "script": _script,
    "function": _function,
    "prompt": _prompt,
    "pull": _pull,
}
