"""What a form of the page says, made a definition: every field a stranger's word, refused with its name."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Mapping
from typing import cast, get_args

from msgspec.structs import replace

from koubou_panel.core.quantity import parse_size, span_s
from koubou_panel.core.records import Limits
from koubou_panel.core.script import (
    MAX_PARAMETERS,
    Overlap,
    Parameter,
    ParameterType,
    Schedule,
    Script,
    check_value,
)
from koubou_panel.errors import Refused
from koubou_panel.views.faults import folder_in
from koubou_panel.views.language import _
from koubou_panel.views.script_rows import form_of, parameter_row

FIELD_CHARS = 20_000
_TYPES = get_args(ParameterType)
_OVERLAPS = get_args(Overlap)

Told = Mapping[str, object]


def text_in(told: Told, field: str, *, most: int = FIELD_CHARS) -> str:
    """A text of a message; empty where it has none.

    Raises:
        Refused: it is no text, or too long.
    """
    found = told.get(field, "")
    if not isinstance(found, str) or len(found) > most:
        words = _("this must be text of at most {n} characters").format(n=most)
        raise Refused("invalid", words, field=field)
    return found


def script_of(before: Script, told: Told) -> Script:
    """`before` with what the form says otherwise; a field that it does not have, or has as it was, stays.

    Raises:
        Refused: `invalid`, naming the field.
    """
    was = form_of(before)
    changed = {name for name in was if name in told and told[name] != was[name]}
    fields: dict[str, object] = {}
    for name, (field, read) in _SIMPLE.items():
        if name in changed:
            fields[field] = read(name, text_in(told, name))
    if changed & _LIMITS.keys():
        fields["limits"] = replace(
            before.limits,
            **{
                field: read(name, text_in(told, name))
                for name, (field, read) in _LIMITS.items()
                if name in changed
            },
        )
    if changed & {"when", "every", "cron", "zone", "at", "overlap"}:
        fields["schedule"] = schedule_of(told)
    if "path" in fields and before.path:
        fields["is_inline"] = False  # it is another file from now on, and not one of the home
    script = replace(before, **fields)
    if "parameters" in told:
        script = replace(script, parameters=_parameters(told["parameters"], before))
    if "timeout" in changed:  # none is an answer too: the text is not to say another
        script = replace(script, given=tuple({*script.given, "timeout_s"}))
    return script


def schedule_of(told: Told) -> Schedule | None:
    """The schedule that the form says; None where it says none. The core checks it.

    Raises:
        Refused: `invalid`, naming the field.
    """
    when = text_in(told, "when")
    if not when:
        return None
    overlap = text_in(told, "overlap") or "skip"
    if when not in ("every", "cron", "at") or overlap not in _OVERLAPS:
        raise Refused("invalid", _("there is no such schedule"), field="when")
    kept = cast("Overlap", overlap)
    if when == "every":
        return Schedule(every_s=_needed("every", _span("every", text_in(told, "every"))), overlap=kept)
    if when == "cron":
        expression = " ".join(text_in(told, "cron").split())
        if not expression:
            raise Refused("invalid", _("this must not be empty"), field="cron")
        return Schedule(cron=expression, zone=text_in(told, "zone").strip() or "UTC", overlap=kept)
    at = told.get("at")
    if isinstance(at, bool) or not isinstance(at, int | float) or not math.isfinite(at):
        raise Refused("invalid", _("choose a day and a time"), field="at")
    return Schedule(at=float(at), overlap=kept)


# -- one field ------------------------------------------------------------------------------------------------


def _needed(field: str, value: float | None) -> float:
    if value is None:
        raise Refused("invalid", _("this must not be empty"), field=field)
    return value


def _span(field: str, text: str) -> float | None:
    if not text.strip():
        return None
    try:
        return span_s(text)
    except ValueError:
        words = _("this must be a span of time such as 30s, 5m, 1h30m or 2d")
        raise Refused("invalid", words, field=field) from None


def _span_or_none(field: str, text: str) -> float | None:
    """0 is none, as everywhere else."""
    return _span(field, text) or None


def _size(field: str, text: str) -> int | None:
    if not text.strip():
        return None
    try:
        return parse_size(text)
    except ValueError:
        raise Refused("invalid", _("this must be a size such as 512M or 2G"), field=field) from None


def _whole(field: str, text: str) -> int:
    try:
        return int(text.strip()[:12])
    except ValueError:
        raise Refused("invalid", _("this must be a whole number"), field=field) from None


def _whole_or_none(field: str, text: str) -> int | None:
    return _whole(field, text) if text.strip() else None


def _days(field: str, text: str) -> float | None:
    if not text.strip():
        return None
    try:
        return float(text)
    except ValueError:
        raise Refused("invalid", _("this must be a number of days"), field=field) from None


def _words(field: str, text: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(text))
    except ValueError:
        raise Refused("invalid", _("a quotation in this has no end"), field=field) from None


def _variables(field: str, text: str) -> dict[str, str]:
    env = {}
    for one in text.splitlines():
        key, equals, value = one.partition("=")
        if not one.strip():
            continue
        if not key.strip() or not equals:
            words = _("write NAME=VALUE, one on each line; not {line}").format(line=repr(one[:60]))
            raise Refused("invalid", words, field=field)
        env[key.strip()] = value
    return env


def _plain(_field: str, text: str) -> str:
    return text.strip()


def _folder(field: str, text: str) -> str:
    return folder_in(text, field)


_SIMPLE: dict[str, tuple[str, Callable[[str, str], object]]] = {
    "description": ("description", _plain),
    "path": ("path", _plain),
    "interpreter": ("interpreter", _words),
    "arguments": ("arguments", _words),
    "cwd": ("cwd", _folder),
    "env": ("env", _variables),
    "timeout": ("timeout_s", _span_or_none),
    "retries": ("retries", _whole),
    "priority": ("priority", _whole),
    "keep_runs": ("keep_runs", _whole),
    "keep_days": ("keep_days", _days),
    "keep_size": ("keep_bytes", _size),
    "max_log_lines": ("max_log_lines", _whole),
}
_LIMITS: dict[str, tuple[str, Callable[[str, str], object]]] = {
    "memory": ("memory_bytes", _size),
    "cpu": ("cpu_s", _span),
    "processes": ("processes", _whole_or_none),
    "output": ("output_bytes", _size),
}
#: How the core calls what the form calls otherwise: a refusal is told at the field that it is about.
FIELDS = {
    **{
        f"limits.{field}": name
        for name, (field, _read) in _LIMITS.items()
        if field in Limits.__struct_fields__
    },
    **{field: name for name, (field, _read) in _SIMPLE.items()},
    "schedule": "when",
}


# -- parameters -----------------------------------------------------------------------------------------------


def _parameters(told: object, before: Script) -> tuple[Parameter, ...]:
    """The parameters as the form has them; none: they are read from the text again."""
    if not isinstance(told, list) or len(told) > MAX_PARAMETERS:
        words = _("a script has at most {n} parameters").format(n=MAX_PARAMETERS)
        raise Refused("invalid", words, field="parameters")
    known = {parameter.name: parameter for parameter in before.parameters}
    return tuple(_parameter(one, known) for one in told if isinstance(one, dict))


def _parameter(told: Told, known: Mapping[str, Parameter]) -> Parameter:
    name = text_in(told, "name", most=100).strip()
    before = known.get(name)
    if before is not None:
        was = parameter_row(before)
        if all(told.get(field, was[field]) == was[field] for field in was if field != "word"):
            return before
    sort, choices = text_in(told, "type", most=20) or "text", told.get("choices", [])
    if sort not in _TYPES:
        raise Refused("invalid", _("there is no such type"), field=f"parameters.{name}")
    if not isinstance(choices, list) or not all(isinstance(one, str) for one in choices):
        raise Refused("invalid", _("choices must be texts"), field=f"parameters.{name}")
    default = text_in(told, "default")
    parameter = replace(
        before or Parameter(name=name, flag=f"--{name.replace('_', '-')}"),
        type=sort,
        choices=tuple(one.strip() for one in choices if one.strip()) if sort == "choice" else (),
        is_required=told.get("required") is True,
        help=text_in(told, "help", most=1_000),
        default=None,
    )
    if before is None or default != parameter_row(before)["default"]:
        parameter = replace(parameter, has_own_default=False)
    if not default:
        return parameter
    return replace(parameter, default=check_value(parameter, default))
