"""Scripts of the catalogue and services as they stand on every public face, and the messages of a script's facts."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from koubou_panel.core.events import (
    ScheduleFired,
    ScriptEdited,
    ScriptFact,
    ScriptRan,
    ScriptRemoved,
    ScriptSaved,
)
from koubou_panel.core.records import Service
from koubou_panel.core.script import Entry, Parameter, Schedule
from koubou_panel.wire.records import iso


class ParameterRecord(Struct, gc=False):
    """What a script can be given, every field present."""

    name: str
    type: str
    default: object
    is_required: bool
    choices: tuple[str, ...]
    help: str
    flag: str
    negative_flag: str
    has_own_default: bool


class ScheduleRecord(Struct, gc=False):
    """When a script runs by itself: one of `every_s`, `cron` and `at` is not null."""

    every_s: float | None
    cron: str | None
    zone: str
    at: str | None
    overlap: str


class ScriptRecord(Struct, gc=False):
    """The script record of the protocol: `initial_state`, `script_update`, REST and `koubou script --json`.

    `interval` and `timeout` are seconds: null where no interval is kept to, 0 where nothing limits a run.
    """

    name: str
    path: str
    interval: float | None
    enabled: bool
    max_log_lines: int
    timeout: float
    description: str
    parameters: list[ParameterRecord]
    schedule: ScheduleRecord | None
    next_run: str | None
    last_run: str | None
    last_status: str | None
    last_task: str | None
    runs: int
    failures: int
    active: list[str]
    is_inline: bool
    revision: int
    created_at: str | None
    changed_at: str | None


class ServiceRecord(Struct, gc=False):
    """One of the workshop's services, every field present; `message` says why it is not running."""

    name: str
    state: str
    port: int | None
    pid: int | None
    started_at: str | None
    restarts: int
    message: str


class ScriptRun(Struct, gc=False):
    """`data` of `script_status`; `duration` in milliseconds, it and `exit_code` null before the end."""

    script_name: str
    status: str
    exit_code: int | None
    duration: int | None
    task_id: str
    run: int


class ScriptRunDetails(Struct, gc=False):
    """What happened to a run of a script, in words."""

    message: str


class ScriptStatus(Struct, gc=False):
    """The message of a start, an end or an error of a script's run."""

    type: str
    script_name: str
    status: str
    details: ScriptRunDetails
    seq: int
    timestamp: str | None
    data: ScriptRun


class ScriptUpdate(Struct, gc=False):
    """The message of any other fact about a script: `event` is `saved`, `edited`, `removed` or `fired`."""

    type: str
    script_name: str
    event: str
    details: dict[str, object]
    seq: int
    timestamp: str | None
    data: ScriptRecord | None


# -- records --------------------------------------------------------------------------------------------------


def script_record(entry: Entry) -> ScriptRecord:
    """The protocol's record of a script as it stands in the catalogue."""
    script = entry.script
    schedule = script.schedule
    return ScriptRecord(
        script.name,
        script.path,
        None if schedule is None or schedule.every_s is None else whole(schedule.every_s),
        script.is_enabled,
        script.max_log_lines,
        0 if script.timeout_s is None else whole(script.timeout_s),
        script.description,
        [parameter_record(parameter) for parameter in script.parameters],
        schedule_record(schedule),
        iso(entry.next_at),
        iso(entry.last_started_at),
        entry.last_status,
        entry.last_task,
        entry.runs,
        entry.failures,
        list(entry.active),
        script.is_inline,
        entry.revision,
        iso(entry.created_at),
        iso(entry.changed_at),
    )


def parameter_record(parameter: Parameter) -> ParameterRecord:
    """`parameter` with every field."""
    return ParameterRecord(
        parameter.name,
        parameter.type,
        parameter.default,
        parameter.is_required,
        parameter.choices,
        parameter.help,
        parameter.flag,
        parameter.negative_flag,
        parameter.has_own_default,
    )


def schedule_record(schedule: Schedule | None) -> ScheduleRecord | None:
    """`schedule` with every field."""
    if schedule is None:
        return None
    every_s = None if schedule.every_s is None else whole(schedule.every_s)
    return ScheduleRecord(every_s, schedule.cron, schedule.zone, iso(schedule.at), schedule.overlap)


def service_record(service: Service) -> ServiceRecord:
    """`service` with every field."""
    return ServiceRecord(
        service.name,
        service.state,
        service.port,
        service.pid,
        iso(service.started_at),
        service.restarts,
        service.message,
    )


def service_words(service: Service) -> str:
    """How a service stands, for people."""
    port = f" on port {service.port}" if service.port and service.state == "running" else ""
    return f"{service.name} is {service.state}{port}{f': {service.message}' if service.message else ''}"


def whole(number: float) -> float:
    """`number` as an integer where it is one: clients of the first system read seconds as integers."""
    return int(number) if number == int(number) else number


# -- messages -------------------------------------------------------------------------------------------------


def script_message(fact: ScriptFact, seq: int, entry: Entry | None) -> ScriptStatus | ScriptUpdate:
    """The message of a script's fact; `entry` is the script as it then stood, None where it is removed already."""
    if isinstance(fact, ScriptRan):
        return _status(fact, seq)
    event, words = _WORDS[type(fact)]
    name = fact.script.name if isinstance(fact, ScriptSaved) else fact.name
    details: dict[str, object] = {"message": words(fact)}
    if isinstance(fact, ScheduleFired):
        details |= {
            "fire_at": iso(fact.fire_at),
            "next_run": iso(fact.next_at),
            "task_id": fact.task_id,
            "missed": fact.missed,
        }
    elif isinstance(fact, ScriptEdited):
        details |= {"version": fact.version, "by": fact.by}
    else:
        details |= {"by": fact.by}
    data = None if entry is None else script_record(entry)
    return ScriptUpdate("script_update", name, event, details, seq, iso(fact.at), data)


def _status(fact: ScriptRan, seq: int) -> ScriptStatus:
    duration = None if fact.duration_s is None else round(fact.duration_s * 1000)
    run = ScriptRun(fact.name, fact.status, fact.exit_code, duration, fact.task_id, fact.run)
    details = ScriptRunDetails(_run_words(fact))
    return ScriptStatus("script_status", fact.name, fact.status, details, seq, iso(fact.at), run)


def _run_words(fact: ScriptRan) -> str:
    if fact.status == "failed" and not fact.is_final:
        return "failed; it is tried again"
    if fact.status == "failed" and fact.exit_code:
        return f"failed with exit code {fact.exit_code}"
    return {"starting": "queued", "running": "started"}.get(fact.status, fact.status)


def _by(by: str) -> str:
    return f" by {by}" if by else ""


def _fired_words(fact: ScheduleFired) -> str:
    words = fact.message or ("its turn has come" if fact.was_queued else "due: its run is submitted")
    return f"{words}; {fact.missed} earlier times were missed" if fact.missed else words


_WORDS: dict[type[ScriptFact], tuple[str, Callable[..., str]]] = {
    ScriptSaved: ("saved", lambda fact: f"{'changed' if fact.revision > 1 else 'added'}{_by(fact.by)}"),
    ScriptEdited: ("edited", lambda fact: f"a new version of its text was saved{_by(fact.by)}"),
    ScriptRemoved: ("removed", lambda fact: f"removed{_by(fact.by)}"),
    ScheduleFired: ("fired", _fired_words),
}
