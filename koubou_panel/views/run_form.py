"""What was filled in under ＋Run, as a command of the workshop; and a task, as what would be filled in for it.

A browser's message is a stranger's word: whatever is not as a form sends it is refused, naming the field of the form.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from koubou_panel.core.commands import Command, RunScript, SubmitTask
from koubou_panel.core.decide import check_request, role_refusal
from koubou_panel.core.ids import is_task_id
from koubou_panel.core.quantity import parse_size, span_s, span_words
from koubou_panel.core.records import NO_LIMITS, Limits, OnCrash, Request, Task, TaskId
from koubou_panel.core.script import Entry, Parameter, find_entry, request_of
from koubou_panel.errors import Refused
from koubou_panel.registry import prepare
from koubou_panel.views.faults import Form, all_faults, folder_in
from koubou_panel.views.language import _

KINDS = ("command", "script", "prompt")
MOST_CHARS = 1 << 20
MOST_PARAMETERS = 64
# The workshop's own words for what is called otherwise in the form.
_FIELDS = {
    "spec.command": "command",
    "spec.cwd": "cwd",
    "spec.env": "env",
    "spec.prompt": "prompt",
    "spec.system": "system",
    "spec.model": "model",
    "spec.max_tokens": "max_tokens",
    "spec.temperature": "temperature",
    "timeout_s": "timeout",
    "limits.memory_bytes": "memory",
    "limits.cpu_s": "cpu",
    "limits.processes": "processes",
    "limits.output_bytes": "output",
    "script_name": "script",
}
# What nobody asks for, but could be.
_WELL = {"command": "true", "prompt": "-"}
_ENV_NAME = re.compile(r"[^=\0\s]+")
_QUOTED = re.compile(r"""\\.|'[^']*'|"(?:\\.|[^"\\])*\"""", re.DOTALL)
_SHELL = re.compile(r"[|&;<>`]|\$[({\w]|(?:^|\s)[~*]|\*(?:\s|$)")


def field_of(refused: Refused) -> str | None:
    """The field of the form that a refusal is about."""
    field = refused.field
    if field is None:
        return None
    whole = next((ours for theirs, ours in _FIELDS.items() if field.startswith(f"{theirs}.")), field)
    return _FIELDS.get(field, whole)


def check_may(form: Form, role: str) -> None:
    """Check that somebody of `role` may submit the form, before anything on this machine is looked at for it.

    Raises:
        Refused: code `forbidden`.
    """
    need = "run" if form.get("what") == "script" else "full"
    if role not in ("full", need):
        raise role_refusal(role, need)


def command_of(form: Form, scripts: Mapping[str, Entry], new_id: Callable[[], TaskId]) -> Command:
    """What the form asks for, checked by all that can be checked before it is submitted.

    Args:
        form: as the browser sent it.
        scripts: the catalogue.
        new_id: gives the id of the task.

    Raises:
        Refused: naming the field, in the form's own words for it.
    """
    what = form.get("what")
    try:
        if what == "script":
            return _run_script(form, scripts, new_id())
        if what in ("command", "prompt"):
            return _submit(form, str(what), new_id())
    except Refused as refused:
        raise Refused(
            refused.code, refused.message, field=field_of(refused), nearest=refused.nearest
        ) from None
    raise Refused("invalid", "what is run is a command, a script or a prompt", field="what")


def faults_of(
    first: Refused, form: Form, scripts: Mapping[str, Entry], new_id: Callable[[], TaskId]
) -> Refused:
    """The refusal of a form, with all else that is wrong with it; see `command_of`."""

    def check(mended: Form) -> Command:
        return command_of(mended, scripts, new_id)

    return all_faults(first, check, form, partial(_mended, scripts=scripts))


def _mended(form: Form, field: str, scripts: Mapping[str, Entry]) -> Form:
    """The form with something in this field that is well."""
    given = form.get("parameters")
    if not field.startswith("parameters.") or not isinstance(given, dict):
        return {**form, field: _WELL.get(field, "")}
    name, entry = field.removeprefix("parameters."), scripts.get(str(form.get("script")))
    known = {parameter.name: parameter for parameter in entry.script.parameters} if entry else {}
    rest = {key: value for key, value in given.items() if key != name}
    if name in known:
        rest[name] = (
            known[name].choices[0] if known[name].choices else "1"
        )  # which is a number, a yes and a text
    return {**form, "parameters": rest}


def _submit(form: Form, what: str, task_id: TaskId) -> SubmitTask:
    spec = _command_spec(form) if what == "command" else _prompt_spec(form)
    again = _text(form, "again")
    request = Request(
        task_id=task_id,
        kind="script" if what == "command" else "prompt",
        created_at=0.0,
        spec=spec,
        name=_text(form, "name").strip(),
        priority=_whole(form, "priority", 5) or 5,
        labels=_labels(form),
        timeout_s=_span(form, "timeout"),
        retries=_whole(form, "retries", 0) or 0,
        on_crash=_on_crash(form) or "mark",
        idempotency_key=_text(form, "key")[:60] or None,
        rerun_of=TaskId(again) if is_task_id(again) else None,
        limits=_limits(form),
    )
    prepared = prepare(request, from_network=False)
    check_request(prepared)
    return SubmitTask(prepared)


def _run_script(form: Form, scripts: Mapping[str, Entry], task_id: TaskId) -> RunScript:
    entry = find_entry(scripts, _text(form, "script"))
    given = form.get("parameters")
    if not isinstance(given, dict) or len(given) > MOST_PARAMETERS:
        raise Refused("invalid", "parameters must be an object", field="parameters")
    parameters = {str(name): value for name, value in given.items() if value not in (None, "")}
    prepare(request_of(entry.script, task_id, parameters), from_network=False)
    return RunScript(
        entry.name,
        task_id,
        parameters=parameters,
        priority=_whole(form, "priority", None),
        timeout_s=_span(form, "timeout"),
        retries=_whole(form, "retries", None),
        on_crash=_on_crash(form),
        labels=_labels(form),
        idempotency_key=_text(form, "key")[:60] or None,
    )


# -- fields ---------------------------------------------------------------------------------------------------


def _text(form: Form, name: str) -> str:
    value = form.get(name, "")
    if not isinstance(value, str) or "\0" in value or len(value) > MOST_CHARS:
        raise Refused("invalid", f"{name} must be text", field=name)
    return value


def _whole(form: Form, name: str, default: int | None) -> int | None:
    text = _text(form, name).strip()
    if not text:
        return default
    try:
        return int(text[:20])
    except ValueError:
        raise Refused("invalid", _("this must be a whole number"), field=name) from None


def _span(form: Form, name: str) -> float | None:
    text = _text(form, name).strip()
    try:
        return span_s(text) if text else None
    except ValueError:
        words = _("this must be a span of time such as 30s, 5m, 1h30m or 2d")
        raise Refused("invalid", words, field=name) from None


def _size(form: Form, name: str) -> int | None:
    text = _text(form, name).strip()
    try:
        return parse_size(text) if text else None
    except ValueError:
        raise Refused("invalid", _("this must be a size such as 512M or 2G"), field=name) from None


def _limits(form: Form) -> Limits:
    limits = Limits(
        memory_bytes=_size(form, "memory"),
        cpu_s=_span(form, "cpu"),
        processes=_whole(form, "processes", None),
        output_bytes=_size(form, "output"),
    )
    return NO_LIMITS if limits == NO_LIMITS else limits


def _on_crash(form: Form) -> OnCrash | None:
    word = _text(form, "on_crash")
    if word in ("", "mark", "retry"):
        return word or None  # type: ignore[return-value]
    raise Refused("invalid", "on_crash must be mark or retry", field="on_crash")


def _labels(form: Form) -> dict[str, str]:
    labels: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in re.split(r"[,\n]", _text(form, "labels")))):
        key, equals, value = part.partition("=")
        if not key.strip() or not equals:
            words = _("a label is written name=value, unlike {text}").format(text=repr(part[:40]))
            raise Refused("invalid", words, field="labels")
        labels[key.strip()] = value.strip()
    return labels


def _env(form: Form) -> dict[str, str]:
    env: dict[str, str] = {}
    for row in filter(None, (row.strip() for row in _text(form, "env").splitlines())):
        key, equals, value = row.partition("=")
        if not equals or not _ENV_NAME.fullmatch(key):
            words = _("write NAME=VALUE, one on each line; not {line}").format(line=repr(row[:40]))
            raise Refused("invalid", words, field="env")
        env[key] = value
    return env


def _command_spec(form: Form) -> dict[str, object]:
    spec: dict[str, object] = {"command": words_of(_text(form, "command"))}
    folder = folder_in(_text(form, "cwd"), "cwd")
    if folder:
        if not Path(folder).is_dir():
            words = _("there is no folder {name}").format(name=repr(folder[:200]))
            raise Refused("invalid", words, field="cwd")
        spec["cwd"] = folder
    env = _env(form)
    if env:
        spec["env"] = env
    for name in ("pty", "stdin"):
        if form.get(name) is True:
            spec[name] = True
    return spec


def _prompt_spec(form: Form) -> dict[str, object]:
    spec: dict[str, object] = {"prompt": _text(form, "prompt")}
    for name in ("model", "system"):
        if text := _text(form, name).strip():
            spec[name] = text
    tokens = _whole(form, "max_tokens", None)
    if tokens is not None:
        spec["max_tokens"] = tokens
    if text := _text(form, "temperature").strip():
        try:
            spec["temperature"] = float(text)
        except ValueError:
            raise Refused("invalid", _("this must be a number"), field="temperature") from None
    return spec


def words_of(line: str) -> list[str]:
    """The words of a command line, as a shell would take them apart; nothing else of a shell is done.

    Raises:
        Refused: a quote has no end.
    """
    try:
        words = shlex.split(line)
    except ValueError as error:
        is_open = "quotation" in str(error)
        why = _("a quotation in this has no end") if is_open else _("a \\ at its end stands before nothing")
        raise Refused("invalid", why, field="command") from None
    if not words:
        raise Refused("invalid", _("the command is empty"), field="command")
    return words


def wants_shell(line: str) -> bool:
    """Whether a command line has, outside of quotes, what only a shell would understand."""
    return _SHELL.search(_QUOTED.sub("", line)) is not None


# -- the other way --------------------------------------------------------------------------------------------


def form_of(task: Task, scripts: Mapping[str, Entry]) -> dict[str, object]:
    """The form filled in as for `task`.

    Raises:
        Refused: it is of a kind that no form is for.
    """
    request = task.request
    shared: dict[str, object] = {
        "priority": str(request.priority),
        "retries": str(request.retries) if request.retries else "",
        "timeout": "" if request.timeout_s is None else span_words(request.timeout_s),
        "labels": ", ".join(f"{key}={value}" for key, value in request.labels.items()),
        "on_crash": request.on_crash if request.on_crash != "mark" else "",
    }
    if request.script_name and request.script_name in scripts:
        given = {name: _said(value) for name, value in request.parameters.items()}
        return shared | {"what": "script", "script": request.script_name, "parameters": given}
    limits = request.limits
    shared |= {
        "again": request.task_id,
        "name": request.name,
        "memory": "" if limits.memory_bytes is None else f"{limits.memory_bytes}B",
        "cpu": "" if limits.cpu_s is None else span_words(limits.cpu_s),
        "processes": "" if limits.processes is None else str(limits.processes),
        "output": "" if limits.output_bytes is None else f"{limits.output_bytes}B",
    }
    return shared | _spec_form(request)


def _spec_form(request: Request) -> dict[str, object]:
    spec = request.spec
    command, env = spec.get("command"), spec.get("env")
    if request.kind == "script" and isinstance(command, list):
        return {
            "what": "command",
            "command": shlex.join(str(word) for word in command),
            "cwd": str(spec.get("cwd") or ""),
            "env": "\n".join(f"{key}={value}" for key, value in env.items()) if isinstance(env, dict) else "",
            "pty": spec.get("pty") is True,
            "stdin": spec.get("stdin") is True,
        }
    if request.kind == "prompt" and isinstance(spec.get("prompt"), str):
        names = ("prompt", "model", "system", "max_tokens", "temperature")
        return {"what": "prompt"} | {name: _said(spec.get(name)) for name in names}
    raise Refused("invalid", _("What this task ran cannot be edited here; “Run again” runs it as it was."))


def _said(value: object) -> object:
    """A value as a field of the form holds it."""
    if value is None:
        return ""
    return value if isinstance(value, bool) else str(value)


def parameter_row(parameter: Parameter) -> dict[str, object]:
    """What the browser needs to make a field for `parameter`."""
    return {
        "name": parameter.name,
        "type": parameter.type,
        "default": None if parameter.default is None else _said(parameter.default),
        "required": parameter.is_required,
        "choices": list(parameter.choices),
        "help": parameter.help,
        "negative": bool(parameter.negative_flag),
    }
