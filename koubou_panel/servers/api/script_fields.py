"""A script as REST clients write it: the six fields of the first system, and all that a script has beside them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType
from msgspec.structs import asdict, fields, replace

from koubou_panel.core.records import NO_LIMITS, Limits
from koubou_panel.core.script import Overlap, Parameter, ParameterType, Schedule, Script
from koubou_panel.errors import Refused
from koubou_panel.servers.api.fault import read_as
from koubou_panel.wire.commands import Labels, Name, SubmitLimits
from koubou_panel.wire.script import ScriptRecord

LONG = 10_000
Long = Annotated[str, Meta(max_length=LONG)]
Words = Annotated[list[Long], Meta(max_length=1_000)]
Seconds = Annotated[float, Meta(ge=0, lt=1e9)]
Lines = Annotated[int, Meta(ge=1, le=1_000_000)]


class ScheduleFields(Struct, frozen=True, forbid_unknown_fields=True):
    """When a script runs by itself: one of `every_s`, `cron` and `at`."""

    every_s: float | None = None
    cron: Name | None = None
    at: str | float | None = None
    zone: Name = "UTC"
    overlap: Overlap = "skip"


class ParameterFields(Struct, frozen=True, forbid_unknown_fields=True):
    """What a script can be given."""

    name: Annotated[str, Meta(min_length=1, max_length=100)]
    type: ParameterType = "text"
    default: object = None
    is_required: bool = False
    choices: Words = []
    help: Long = ""
    flag: Name = ""
    negative_flag: Name = ""
    has_own_default: bool = False


class ScriptFields(Struct, frozen=True):
    """What may be written; what is left out stays as it is."""

    name: Name | UnsetType = UNSET
    path: Long | UnsetType = UNSET
    interval: Seconds | UnsetType | None = UNSET
    enabled: bool | UnsetType = UNSET
    max_log_lines: Lines | UnsetType = UNSET
    timeout: Seconds | UnsetType | None = UNSET
    description: Long | UnsetType = UNSET
    interpreter: Words | UnsetType = UNSET
    arguments: Words | UnsetType = UNSET
    cwd: Long | UnsetType = UNSET
    env: Labels | UnsetType = UNSET
    parameters: list[ParameterFields] | UnsetType = UNSET
    schedule: ScheduleFields | UnsetType | None = UNSET
    priority: Annotated[int, Meta(ge=1, le=10)] | UnsetType = UNSET
    retries: Annotated[int, Meta(ge=0, le=1_000)] | UnsetType = UNSET
    limits: SubmitLimits | UnsetType | None = UNSET
    keep_runs: Lines | UnsetType = UNSET
    keep_days: Annotated[float, Meta(gt=0, lt=1000000.0)] | UnsetType | None = UNSET
    keep_bytes: Annotated[int, Meta(ge=1, lt=2**53)] | UnsetType | None = UNSET
    text: str | UnsetType = UNSET
    version: Name | UnsetType = UNSET
    revision: Annotated[int, Meta(ge=1, lt=2**53)] | UnsetType = UNSET


WRITTEN = tuple(field.name for field in fields(ScriptFields))
SHOWN = tuple(name for name in ScriptRecord.__struct_fields__ if name not in WRITTEN)
"""What a client that sends back all that it was shown may send, and which changes nothing."""
NULLABLE = ("interval", "timeout", "schedule", "limits", "keep_days", "keep_bytes")
AS_THEY_ARE = ("name", "path", "max_log_lines", "description", "cwd", "priority", "retries", "keep_runs")
NESTED: tuple[tuple[str, type[Struct]], ...] = (
    ("schedule", ScheduleFields),
    ("parameters", ParameterFields),
    ("limits", SubmitLimits),
)
KNOWN = [f"{name}.{field}" for name, shape in NESTED for field in shape.__struct_fields__]


def definition(script: Script, *, shows_env: bool) -> dict[str, object]:
    """The fields of a script that its record leaves out."""
    limits = {name: getattr(script.limits, name) for name in Limits.__struct_fields__}
    return {
        "interpreter": script.interpreter,
        "arguments": script.arguments,
        "cwd": script.cwd,
        "env": script.env if shows_env else None,
        "priority": script.priority,
        "retries": script.retries,
        "limits": limits,
        "keep_runs": script.keep_runs,
        "keep_days": script.keep_days,
        "keep_bytes": script.keep_bytes,
    }


def read_fields(body: Mapping[str, object]) -> ScriptFields:
    """The fields of a body; null counts as left out where it means nothing of its own.

    Raises:
        ProtocolFault: `invalid`, naming the field.
    """
    told = {
        name: value
        for name, value in body.items()
        if name not in SHOWN and (value is not None or name in NULLABLE or name not in WRITTEN)
    }
    return read_as(told, ScriptFields, KNOWN)


def merged(script: Script, told: ScriptFields) -> Script:
    """`script` with what was told.

    Raises:
        Refused: `invalid`, naming the field.
    """
    changes: dict[str, object] = {name: getattr(told, name) for name in AS_THEY_ARE}
    changes["is_enabled"] = told.enabled
    if told.path not in (UNSET, script.path):
        changes["is_inline"] = False  # it is another file from now on, and not one of the home
    changes["timeout_s"] = _or_none(told.timeout)
    changes["env"] = told.env
    for name in ("interpreter", "arguments"):
        words = getattr(told, name)
        changes[name] = words if words is UNSET else tuple(words)
    for name in ("keep_days", "keep_bytes"):
        changes[name] = getattr(told, name)
    if told.parameters is not UNSET:
        changes["parameters"] = tuple(map(_parameter, told.parameters))
    if told.limits is not UNSET:
        changes["limits"] = NO_LIMITS if told.limits is None else Limits(**asdict(told.limits))
    changes["schedule"] = _schedule(script.schedule, told)
    return replace(script, **{name: value for name, value in changes.items() if value is not UNSET})


def _or_none(seconds: float | UnsetType | None) -> float | UnsetType | None:
    return seconds if seconds is UNSET or seconds else None


def _parameter(told: ParameterFields) -> Parameter:
    return Parameter(**{**asdict(told), "choices": tuple(told.choices)})


def _schedule(before: Schedule | None, told: ScriptFields) -> Schedule | UnsetType | None:
    """The schedule that `interval` and `schedule` together say; of two that differ, the one that was changed."""
    had = None if before is None else before.every_s
    wanted = UNSET if told.schedule is UNSET else _schedule_of(told.schedule)
    interval = _or_none(told.interval)
    if interval is UNSET or (wanted is not UNSET and interval == had):
        return wanted
    if wanted is not UNSET and wanted != before:
        said = None if wanted is None else wanted.every_s
        if interval != said:
            raise Refused("invalid", "interval and schedule say different things: send one", field="interval")
        return wanted
    if interval is None:
        return None if had is not None else before
    return replace(before or Schedule(), every_s=interval, cron=None, at=None, zone="UTC")


def _schedule_of(told: ScheduleFields | None) -> Schedule | None:
    if told is None:
        return None
    return Schedule(
        every_s=told.every_s, cron=told.cron, zone=told.zone, at=_moment(told.at), overlap=told.overlap
    )


def _moment(at: str | float | None) -> float | None:
    if not isinstance(at, str):
        return at
    try:
        moment = datetime.fromisoformat(at)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        words = "schedule.at must be a moment with its zone, such as 2026-01-02T03:04:05Z"
        raise Refused("invalid", words, field="schedule.at")
    return moment.timestamp()
