"""Scripts of the catalogue: their records, and what a run of one is submitted as. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Literal

import msgspec
from msgspec import Struct

from koubou_panel.core.limit import check_limits
from koubou_panel.core.records import NO_LIMITS, Limits, Request, Status, TaskId
from koubou_panel.core.suggest import nearest, unknown
from koubou_panel.errors import Refused

ParameterType = Literal["text", "integer", "number", "boolean", "choice", "path"]
Overlap = Literal["skip", "queue", "together"]
RunStatus = Literal["starting", "running", "completed", "failed"]

PARAMETER_NAME = re.compile(r"\w[\w.-]{0,99}")
FLAG = re.compile(r"-[^\s\0=]{1,100}")
NAME = re.compile(r"[\w][\w .+@-]{0,98}[\w+]|[\w]")
KEEP_RUNS = 100
MAX_QUEUED = 100
MAX_TOGETHER = 100
MAX_PARAMETERS = 64
MAX_TEXT_BYTES = 1 << 20
MAX_DEFINITION_BYTES = 1 << 16
MAX_TIMEOUT_S = 1e9
LEAST_INTEGER, MOST_INTEGER = -(1 << 63), (1 << 63) - 1
_ENCODE = msgspec.msgpack.Encoder().encode
# What runs a file that says nothing itself, by the end of its name.
INTERPRETERS: dict[str, tuple[str, ...]] = {
    ".py": ("python",),
    ".sh": ("sh",),
    ".bash": ("bash",),
    ".js": ("node",),
    ".mjs": ("node",),
    ".rb": ("ruby",),
    ".pl": ("perl",),
    ".r": ("Rscript",),
    ".R": ("Rscript",),
    ".lua": ("lua",),
    ".php": ("php",),
}


class Parameter(Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """What a script can be given: by `flag` before the value (`--epochs`), or by its place where `flag` is empty.

    A boolean's flag stands alone for true; `negative_flag`, where there is one, for false. `has_own_default`: the
    script knows its default by itself, so that it is passed only what it is given.
    """

    name: str
    type: ParameterType = "text"
    default: object = None
    is_required: bool = False
    choices: tuple[str, ...] = ()
    help: str = ""
    flag: str = ""
    negative_flag: str = ""
    has_own_default: bool = False


class Schedule(Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """When a script runs by itself: every `every_s` seconds, by a cron expression, or once at `at`; one of the three.

    `zone` is the IANA name of the time zone of `cron`; `overlap` is what becomes of a due time while an earlier run
    has not ended: skip it, queue it, or run both together.
    """

    every_s: float | None = None
    cron: str | None = None
    zone: str = "UTC"
    at: float | None = None
    overlap: Overlap = "skip"


class Script(Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """A script as its owner defined it.

    `path` is an absolute path; `is_inline`: its text lives in the home. `interpreter` empty: by its first line, or the
    end of its name. `timeout_s` None: none. Of its runs' output the last `keep_runs` are kept, none older than
    `keep_days`, together at most `keep_bytes`; `max_log_lines` is how many lines of a log are shown. `given` names the
    fields that its owner gave although the text may say them (`interpreter`, `parameters`, `timeout_s`,
    `description`): the others are read from the text whenever it is saved.
    """

    name: str
    path: str
    is_inline: bool = False
    description: str = ""
    interpreter: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    cwd: str = ""
    env: dict[str, str] = {}
    parameters: tuple[Parameter, ...] = ()
    timeout_s: float | None = None
    retries: int = 0
    priority: int = 5
    limits: Limits = NO_LIMITS
    keep_runs: int = KEEP_RUNS
    keep_days: float | None = None
    keep_bytes: int | None = None
    max_log_lines: int = 1_000
    is_enabled: bool = True
    schedule: Schedule | None = None
    given: tuple[str, ...] = ()


class Entry(Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """A script as it stands in the catalogue.

    `revision` counts its changes, so that one made on a stale copy is noticed; `anchor` is what an interval counts
    from; `next_at` when its schedule is next due; `fired_at` the last due time that was dealt with; `queued` due times
    that wait for the runs before them; `active` its runs that have not ended. `runs` counts those that have, `failures`
    those of them that did not complete.
    """

    script: Script
    created_at: float
    changed_at: float
    anchor: float
    revision: int = 1
    next_at: float | None = None
    fired_at: float | None = None
    queued: tuple[float, ...] = ()
    active: tuple[TaskId, ...] = ()
    runs: int = 0
    failures: int = 0
    last_task: TaskId | None = None
    last_status: RunStatus | None = None
    last_started_at: float | None = None
    last_ended_at: float | None = None

    @property
    def name(self) -> str:
        """The script's name."""
        return self.script.name


def check_script(script: Script) -> None:
    """Check what holds for every script; its schedule is checked where it is read.

    Raises:
        Refused: code `invalid`, naming the field.
    """
    if not NAME.fullmatch(script.name):
        words = (
            "name must be 1 to 100 letters, digits and . _ + @ - or spaces, and begin with a letter or digit"
        )
        raise Refused("invalid", f"{words}, not {script.name[:110]!r}", field="name")
    if not script.path.startswith("/") or "\0" in script.path:
        raise Refused("invalid", "path must be an absolute path", field="path")
    if script.cwd and not script.cwd.startswith("/"):
        raise Refused("invalid", "cwd must be an absolute path", field="cwd")
    _check_numbers(script)
    check_limits(script.limits)
    _check_start(script)
    _check_parameters(script.parameters)
    try:
        size = len(_ENCODE(script))
    except (UnicodeError, OverflowError, TypeError, ValueError, RecursionError) as error:
        raise Refused("invalid", f"the script cannot be stored: {error}") from None
    if size > MAX_DEFINITION_BYTES:
        raise Refused("too_large", f"a definition has at most {MAX_DEFINITION_BYTES} bytes, not {size}")


def _check_numbers(script: Script) -> None:
    if script.timeout_s is not None and not 0 < script.timeout_s < MAX_TIMEOUT_S:
        raise Refused("invalid", "timeout must be seconds above 0; leave it out for none", field="timeout")
    if script.keep_days is not None and not 0 < script.keep_days < math.inf:
        raise Refused("invalid", "keep_days must be days above 0; leave it out for no end", field="keep_days")
    for name, value, least, most in (
        ("keep_runs", script.keep_runs, 1, 1_000_000),
        ("keep_bytes", 0 if script.keep_bytes is None else script.keep_bytes, 0, 1 << 50),
        ("max_log_lines", script.max_log_lines, 1, 1_000_000),
        ("priority", script.priority, 1, 10),
        ("retries", script.retries, 0, 1_000),
    ):
        if not least <= value <= most:
            raise Refused("invalid", f"{name} must be {least} to {most}, not {value}", field=name)


def _check_start(script: Script) -> None:
    for name, words in (("interpreter", script.interpreter), ("arguments", script.arguments)):
        if any("\0" in word for word in words):
            raise Refused("invalid", f"{name} must not contain NUL", field=name)
    if script.interpreter and not script.interpreter[0]:
        raise Refused("invalid", "interpreter names no program", field="interpreter")
    for key, value in script.env.items():
        if not key or "=" in key or "\0" in key + value:
            raise Refused("invalid", f"env has a bad name or value at {key[:40]!r}", field="env")


def _check_parameters(parameters: tuple[Parameter, ...]) -> None:
    if len(parameters) > MAX_PARAMETERS:
        raise Refused("invalid", f"a script has at most {MAX_PARAMETERS} parameters", field="parameters")
    if len({parameter.name for parameter in parameters}) < len(parameters):
        raise Refused("invalid", "two parameters have the same name", field="parameters")
    for parameter in parameters:
        field = f"parameters.{parameter.name[:100]}"
        if not PARAMETER_NAME.fullmatch(parameter.name):
            words = "a parameter's name must be 1 to 100 letters, digits, _ . and -"
            raise Refused("invalid", f"{words}, not {parameter.name[:100]!r}", field="parameters")
        if any(flag and not FLAG.fullmatch(flag) for flag in (parameter.flag, parameter.negative_flag)):
            raise Refused("invalid", "flag must begin with - and have no spaces, such as --name", field=field)
        if parameter.type == "choice" and not parameter.choices:
            raise Refused("invalid", f"parameter {parameter.name!r} has no choices", field=field)
        if parameter.type == "boolean" and not parameter.flag and not parameter.negative_flag:
            words = "needs a flag: it is given, or not"
            raise Refused("invalid", f"parameter {parameter.name!r} is a boolean and {words}", field=field)
        if parameter.default is not None:
            check_value(parameter, parameter.default)


def find_entry(scripts: Mapping[str, Entry], name: str) -> Entry:
    """The script of that name.

    Raises:
        Refused: code `not_found`, with the nearest name.
    """
    entry = scripts.get(name)
    if entry is None:
        near = nearest(name, scripts)
        raise Refused("not_found", unknown("script", name, scripts), nearest=near, field="script_name")
    return entry


def spec_of(
    script: Script, parameters: Mapping[str, object], *, fire_at: float | None = None
) -> dict[str, object]:
    """What a run of `script` with these parameters is, as a spec of kind `script`.

    Raises:
        Refused: code `invalid`, naming the parameter.
    """
    command = [*_start(script), *script.arguments, *arguments_of(script.parameters, parameters)]
    folder = script.cwd or script.path.rpartition("/")[0] or "/"
    spec: dict[str, object] = {"command": command, "cwd": folder, "file": script.path}
    if fire_at is not None:
        spec["fire_at"] = fire_at
    if script.env:
        spec["env"] = script.env
    return spec


def _start(script: Script) -> list[str]:
    if script.interpreter:
        return [*script.interpreter, script.path]
    dot = script.path.rpartition("/")[2].rfind(".")
    ending = script.path.rpartition("/")[2][dot:] if dot > 0 else ""
    return [*INTERPRETERS.get(ending, ()), script.path]


def arguments_of(known: tuple[Parameter, ...], given: Mapping[str, object]) -> list[str]:
    """The arguments that stand for parameters: flags first, then those that go by their place.

    Raises:
        Refused: code `invalid`: one is unknown, missing, or of another type.
    """
    names = [parameter.name for parameter in known]
    for name in given:
        if name not in names:
            words = unknown("parameter", name, names)
            raise Refused("invalid", words, nearest=nearest(name, names), field=f"parameters.{name}")
    flags: list[str] = []
    places: list[str] = []
    for parameter in known:
        value = given.get(parameter.name)
        if value is None and not parameter.has_own_default:
            value = parameter.default
        if value is None and parameter.is_required:
            field = f"parameters.{parameter.name}"
            raise Refused("invalid", f"parameter {parameter.name!r} is required", field=field)
        if value is None:
            continue
        checked = check_value(parameter, value)
        if isinstance(checked, bool):
            flag = parameter.flag if checked else parameter.negative_flag
            flags += [flag] if flag else []
        elif parameter.flag:
            text = _text(checked)
            # argparse takes what follows for one more value of an option that may have several, but for this.
            is_one = text.startswith("-") or (parameter.has_own_default and parameter.flag.startswith("--"))
            flags += [f"{parameter.flag}={text}"] if is_one else [parameter.flag, text]
        else:
            places.append(_text(checked))
    return [*flags, *(["--"] if any(place.startswith("-") for place in places) else []), *places]


def check_value(parameter: Parameter, value: object) -> str | float | bool:
    """`value` as this parameter's type; text that says it is taken too, as a terminal gives it.

    Raises:
        Refused: code `invalid`, naming the parameter and what it takes.
    """
    if parameter.type == "boolean":
        return _boolean(parameter, value)
    if parameter.type in ("integer", "number"):
        return _number(parameter, value)
    if not isinstance(value, str) or "\0" in value:
        raise _wrong(parameter, "text", value)
    if parameter.type == "choice" and value not in parameter.choices:
        raise _wrong(parameter, "one of " + ", ".join(parameter.choices), value)
    return value


def _boolean(parameter: Parameter, value: object) -> bool:
    if isinstance(value, bool):
        return value
    word = value.strip().lower() if isinstance(value, str) else ""
    if word in ("true", "yes", "on", "1"):
        return True
    if word in ("false", "no", "off", "0"):
        return False
    raise _wrong(parameter, "true or false", value)


def _number(parameter: Parameter, value: object) -> float:
    """The number, whole where it was said so: a script that wants `3` may not take `3.0`."""
    is_whole = parameter.type == "integer"
    wrong = _wrong(parameter, "a whole number" if is_whole else "a number", value)
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise wrong
    number: float = 0
    try:
        number = int(value) if not isinstance(value, float) else value
    except ValueError:
        if is_whole:
            raise wrong from None
        try:
            number = float(value)
        except ValueError:
            raise wrong from None
    if isinstance(number, float):
        if not math.isfinite(number):
            raise wrong
        if not is_whole:
            return number
        if number != int(number):
            raise wrong
    if LEAST_INTEGER <= number <= MOST_INTEGER:
        return int(number)
    if is_whole:
        raise _wrong(parameter, "a whole number of at most 64 bits", value)
    try:
        return float(number)
    except OverflowError:
        raise wrong from None


def _wrong(parameter: Parameter, wanted: str, value: object) -> Refused:
    try:
        shown = repr(str(value)[:100])
    except ValueError:  # Python writes no number of more than 4,300 digits
        shown = "a number of thousands of digits"
    words = f"parameter {parameter.name!r} must be {wanted}, not {shown}"
    return Refused("invalid", words, field=f"parameters.{parameter.name}")


def _text(value: str | float) -> str:
    return value if isinstance(value, str) else repr(value)


def request_of(
    script: Script, task_id: TaskId, parameters: Mapping[str, object], *, fire_at: float | None = None
) -> Request:
    """What a run of `script` is submitted as; who submits it stamps it.

    Raises:
        Refused: code `invalid`, naming the parameter.
    """
    return Request(
        task_id=task_id,
        kind="script",
        created_at=0.0,
        spec=spec_of(script, parameters, fire_at=fire_at),
        name=script.name,
        priority=script.priority,
        timeout_s=script.timeout_s,
        retries=script.retries,
        limits=script.limits,
        script_name=script.name,
        parameters=dict(parameters),
        fire_at=fire_at,
    )


def run_status(status: Status) -> RunStatus:
    """The word of `script_status` for a task's status."""
    if status == "pending":
        return "starting"
    if status == "in_progress":
        return "running"
    return "completed" if status == "completed" else "failed"
