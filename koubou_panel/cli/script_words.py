"""Scripts as people type them and read them: spans, moments, parameters, schedules."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from itertools import islice

import click
from msgspec.structs import replace

from koubou_panel.core.quantity import span_s, span_words
from koubou_panel.core.schedule import never_given, next_fire
from koubou_panel.core.script import Entry, Overlap, Parameter, ParameterType, Schedule, Script
from koubou_panel.errors import Refused

NEXT_DUES = 5
_PARAMETER = re.compile(r"(\w[\w.-]*)(!?)(?::([^=]*))?(?:=(.*))?", re.DOTALL)
_OVERLAPS: dict[Overlap, str] = {
    "skip": "",
    "queue": ", queues what overlaps",
    "together": ", lets runs overlap",
}
_TYPES: dict[str, ParameterType] = {
    "text": "text",
    "integer": "integer",
    "number": "number",
    "boolean": "boolean",
    "path": "path",
}


def cannot_start_words(script: Script) -> str:
    """Why a script's schedule cannot start it, and what to do; empty where it can, or where there is none."""
    missing = never_given(script)
    if not missing:
        return ""
    names = " and ".join(missing)
    return f"its schedule cannot start it: {names} must be given; give it a default: --param {missing[0]}=…"


def moment(text: str, now: float) -> float:
    """The UTC second of `2026-12-24 18:00`, `18:00` (the next), `+10m`, or an ISO 8601 time with its own zone.

    Raises:
        ValueError: it is none of these, or over.
    """
    text = text.strip()
    if text.startswith("+"):
        return now + span_s(text[1:])
    if shape := re.fullmatch(r"(\d{1,2}):(\d{2})(?::(\d{2}))?", text):
        here = datetime.fromtimestamp(now)  # noqa: DTZ006 - the clock on this wall
        try:
            at = here.replace(
                hour=int(shape[1]), minute=int(shape[2]), second=int(shape[3] or 0), microsecond=0
            )
        except ValueError:
            raise ValueError(f"must be a moment, and no clock shows {text!r}") from None
        return (at if at.timestamp() > now else at + timedelta(days=1)).timestamp()
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        words = "must be a moment such as 18:00, '2026-12-24 18:00' or +10m"
        raise ValueError(f"{words}, not {text[:40]!r}") from None


def system_zone() -> str:
    """The name of this machine's time zone."""
    from tzlocal import get_localzone_name

    try:
        return get_localzone_name() or "UTC"
    except Exception:  # noqa: BLE001 - whatever is odd about this machine, UTC is a zone
        return "UTC"


def schedule_of(
    *,
    every: str | None,
    cron: str | None,
    zone: str | None,
    at: str | None,
    overlap: Overlap | None,
    now: float,
    before: Schedule | None = None,
) -> Schedule | None:
    """The schedule that was typed, where one stood `before` with what was not said of that; None if none was.

    Raises:
        click.UsageError: more than one was, or it cannot be read.
    """
    said = [
        f"--{name}" for name, value in (("every", every), ("cron", cron), ("at", at)) if value is not None
    ]
    if len(said) > 1:
        raise click.UsageError(f"{' and '.join(said)} exclude each other: a script has one schedule")
    old_cron = before.cron if before is not None else None
    if zone is not None and cron is None and (old_cron is None or said):
        raise click.UsageError("--zone goes with --cron")
    if not said:
        if overlap is None and zone is None:
            return None
        if before is None:
            raise click.UsageError("--overlap goes with --every, --cron or --at")
        return replace(before, overlap=overlap or before.overlap, zone=zone or before.zone)
    kept: Overlap = overlap or (before.overlap if before is not None else "skip")
    try:
        if every is not None:
            return Schedule(every_s=span_s(every), overlap=kept)
        if at is not None:
            return Schedule(at=moment(at, now), overlap=kept)
    except ValueError as error:
        raise click.UsageError(f"{said[0]} {error}") from None
    old_zone = before.zone if before is not None and old_cron is not None else None
    return Schedule(cron=cron, zone=zone or old_zone or system_zone(), overlap=kept)


def schedule_words(schedule: Schedule | None, *, is_enabled: bool = True) -> str:
    """A schedule for people: `every 5m`, `0 9 * * 1-5 (Europe/Berlin)`, `once at …`."""
    if schedule is None:
        return ""
    if schedule.every_s is not None:
        words = f"every {span_words(schedule.every_s)}"
    elif schedule.cron is not None:
        words = f"{schedule.cron} ({schedule.zone})"
    else:
        words = f"once at {moment_words(schedule.at)}"
    return f"{words}{_OVERLAPS[schedule.overlap]}{'' if is_enabled else ', disabled'}"


def moment_words(at: float | None) -> str:
    """A moment on the clock of this machine."""
    return "" if at is None else f"{datetime.fromtimestamp(at).astimezone():%Y-%m-%d %H:%M:%S}"


def next_dues(entry: Entry, count: int = NEXT_DUES) -> list[float]:
    """When a script is next due, `count` times at most."""
    return list(islice(_dues(entry), count))


def _dues(entry: Entry) -> Iterator[float]:
    at, schedule = entry.next_at, entry.script.schedule
    while at is not None and schedule is not None:
        yield at
        at = next_fire(schedule, at, anchor=entry.anchor)


def parameter_of(text: str) -> Parameter:
    """The parameter that `NAME[!][:TYPE][=DEFAULT]` says; a type is a word or the choices, as in `mode:fast|slow=fast`.

    Raises:
        ValueError: it says none.
    """
    shape = _PARAMETER.fullmatch(text)
    if shape is None:
        raise ValueError(f"must be NAME[!][:TYPE][=DEFAULT], such as epochs:integer=3, not {text[:60]!r}")
    name, must, sort, default = shape.groups()
    choices: tuple[str, ...] = ()
    kind: ParameterType = "text"
    if sort is not None and "|" in sort:
        kind, choices = "choice", tuple(sort.split("|"))
    elif sort:
        if sort not in _TYPES:
            raise ValueError(
                f"has a type of {', '.join(_TYPES)}, or choices such as fast|slow; not {sort[:40]!r}"
            )
        kind = _TYPES[sort]
    return Parameter(
        name=name,
        type=kind,
        default=default,
        is_required=bool(must),
        choices=choices,
        flag=f"--{name.replace('_', '-')}",
    )


def merged_parameters(known: Sequence[Parameter], texts: Sequence[str]) -> tuple[Parameter, ...]:
    """The parameters `known` with what was typed of some of them; what was not said of one stays.

    Raises:
        ValueError: a text says no parameter.
    """
    found = {parameter.name: parameter for parameter in known}
    for text in texts:
        told = parameter_of(text)
        before = found.get(told.name)
        if before is not None:
            has_type, has_default = ":" in text.partition("=")[0], told.default is not None
            told = replace(
                before,
                type=told.type if has_type else before.type,
                choices=told.choices if has_type else before.choices,
                default=told.default if has_default else before.default,
                is_required=told.is_required or (before.is_required and not has_default),
                has_own_default=before.has_own_default and not has_default,
            )
        found[told.name] = told
    return tuple(found.values())


def parameter_words(parameter: Parameter) -> str:
    """A parameter for people: `epochs=INTEGER (3)  how many`."""
    kinds = {"choice": "|".join(parameter.choices), "boolean": "true|false"}
    kind = kinds.get(parameter.type, parameter.type.upper())
    default = "" if parameter.default is None else f" ({parameter.default})"
    must = " required" if parameter.is_required else ""
    return f"{parameter.name}={kind}{default}{must}{f'  {parameter.help}' if parameter.help else ''}"


def given_parameters(texts: Sequence[str]) -> dict[str, object]:
    """What `K=V…` gives; a value is checked where the script is known.

    Raises:
        click.UsageError: one is no `K=V`, or was given twice.
    """
    found: dict[str, object] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise click.UsageError(f"{text[:60]!r} is no parameter: write NAME=VALUE")
        if name in found:
            raise click.UsageError(f"{name} was given twice")
        found[name] = value
    return found


def split_words(text: str) -> tuple[str, ...]:
    """The words of a command line.

    Raises:
        Refused: a quotation in it has no end.
    """
    import shlex

    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise Refused("invalid", f"{text[:60]!r} cannot be read: {error}", field="interpreter") from None
