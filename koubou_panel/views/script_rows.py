"""What the page says about the scripts of the catalogue, as plain data: made from their entries, drawn by the card."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from koubou_panel.core.ports import OutputMatch, ScriptVersion
from koubou_panel.core.records import Status, Task
from koubou_panel.core.schedule import never_given, next_fire
from koubou_panel.core.script import INTERPRETERS, Entry, Parameter, Schedule, Script
from koubou_panel.views.escape import block, line, seen
from koubou_panel.views.language import _, later
from koubou_panel.views.rows import notice
from koubou_panel.views.script_words import exact_size, exact_span, schedule_words
from koubou_panel.views.words import size

ABOUT_CHARS = 160
MATCH_CHARS = 400
NEXT_DUES = 5
SHOWN_RUNS = 10

Row = dict[str, object]

#: The mark and the word of how a run stands.
STATES: dict[Status, tuple[str, str]] = {
    "pending": ("wait", later("waiting")),
    "in_progress": ("run", later("running")),
    "completed": ("ok", later("completed")),
    "failed": ("fail", later("failed")),
    "cancelled": ("cancel", later("cancelled")),
}
_OF_SCRIPT: dict[str | None, Status] = {
    "starting": "pending",
    "running": "in_progress",
    "completed": "completed",
    "failed": "failed",
}
_TYPES = {
    "text": later("text"),
    "integer": later("whole number"),
    "number": later("number"),
    "boolean": later("yes or no"),
    "choice": later("choice"),
    "path": later("path"),
}


class Looked(NamedTuple):
    """What was read of a script's runs: the last ones, newest first, and what is held of their output."""

    runs: Sequence[Task] = ()
    held_bytes: int = 0
    held_runs: int = 0


def script_row(entry: Entry, looked: Looked | None) -> Row:
    """A script as a line of the catalogue."""
    script = entry.script
    mark, word = _last(entry, looked)
    return {
        "name": entry.name,
        "about": line(script.description, ABOUT_CHARS),
        "mark": mark,
        "word": word,
        "at": entry.last_started_at if entry.active else entry.last_ended_at or entry.last_started_at,
        "task": entry.last_task or "",
        "marks": [_run_mark(task) for task in looked.runs] if looked else [],
        "schedule": schedule_words(script.schedule),
        "cron": line(_cron_of(script.schedule)),
        "once": script.schedule.at if script.schedule is not None else None,
        "next": entry.next_at,
        "enabled": script.is_enabled,
        "timed": script.schedule is not None,
        "missing": line(", ".join(never_given(script))),
        "queued": len(entry.queued),
        "runs": entry.runs,
        "failures": entry.failures,
        "held": size(looked.held_bytes) if looked and looked.held_bytes else "",
    }


def _last(entry: Entry, looked: Looked | None) -> tuple[str, str]:
    """How the last run stands; the catalogue itself does not tell one that was cancelled from one that failed."""
    if looked and looked.runs and looked.runs[0].task_id == entry.last_task and looked.runs[0].is_finished:
        mark, word = STATES[looked.runs[0].status]
        return mark, _(word)
    if entry.last_status is None:
        return "", _("never ran")
    mark, word = STATES[_OF_SCRIPT[entry.last_status]]
    return mark, _(word)


def _run_mark(task: Task) -> list[object]:
    """A run: its id, its mark, how it stands in words, and when it began."""
    mark, word = STATES[task.status]
    return [task.task_id, mark, _(word), task.started_at or task.request.created_at]


def _cron_of(schedule: Schedule | None) -> str:
    if schedule is None or schedule.cron is None:
        return ""
    return f"{schedule.cron} ({schedule.zone})"


def stuck_notices(entries: Iterable[Entry]) -> Iterator[Row]:
    """A notice for each script whose schedule is due and can never start it, with the way to it."""
    for entry in entries:
        if entry.next_at is not None and (missing := never_given(entry.script)):
            words = _("The schedule of {name} cannot start it: {names} must be given.")
            text = words.format(name=line(entry.name), names=line(", ".join(missing)))
            goes = ("scripts", _("Go to the script"), {"script": entry.name})
            yield notice(f"stuck {entry.name}", "warn", text, goes)


# -- one script -----------------------------------------------------------------------------------------------


def script_detail(entry: Entry, looked: Looked | None, *, shows_env: bool) -> Row:
    """A script in full: its row, its definition as a form shows it, its next times, and its last runs."""
    script = entry.script
    return script_row(entry, looked) | {
        "revision": entry.revision,
        "path": line(script.path, 300),
        "inline": script.is_inline,
        "program": line(" ".join(program_of(script)), 200),
        "changed_at": entry.changed_at,
        "dues": list(islice(dues(entry), NEXT_DUES)) if script.schedule else [],
        "last_runs": [_run_row(task) for task in looked.runs] if looked else [],
        "held_runs": looked.held_runs if looked else 0,
        "form": form_of(script, shows_env=shows_env),
        "takes": [parameter_row(parameter) for parameter in script.parameters],
    }


def program_of(script: Script) -> tuple[str, ...]:
    """What runs the file; empty where it runs by itself."""
    return script.interpreter or INTERPRETERS.get("." + script.path.rpartition(".")[2], ())


def _run_row(task: Task) -> Row:
    mark, word = STATES[task.status]
    return {
        "id": task.task_id,
        "mark": mark,
        "word": _(word),
        "at": task.started_at or task.request.created_at,
        "end": task.finished_at,
        "why": line(task.message or "", 200) if task.status == "failed" else "",
        "timed": task.request.fire_at is not None,
    }


def dues(entry: Entry) -> Iterator[float]:
    """When it is due, from the next time on."""
    at, schedule = entry.next_at, entry.script.schedule
    while at is not None and schedule is not None:
        yield at
        at = next_fire(schedule, at, anchor=entry.anchor)


def parameter_row(parameter: Parameter) -> Row:
    """A parameter as it is declared."""
    default = parameter.default
    return {
        "name": parameter.name,
        "type": parameter.type,
        "word": _(_TYPES[parameter.type]),
        "default": ""
        if default is None
        else str(default).lower()
        if isinstance(default, bool)
        else str(default),
        "required": parameter.is_required,
        "choices": list(parameter.choices),
        "help": block(parameter.help, 500),
        "flag": parameter.flag,
        "negative_flag": parameter.negative_flag,
    }


def form_of(script: Script, *, shows_env: bool = True) -> Row:
    """What the form's fields hold, each as a person would type it; see `script_form.script_of` for the way back."""
    schedule, limits = script.schedule or Schedule(), script.limits
    return {
        "description": script.description,
        "path": script.path,
        "interpreter": shlex.join(script.interpreter),
        "arguments": shlex.join(script.arguments),
        "cwd": script.cwd,
        "env": "\n".join(f"{key}={value}" for key, value in script.env.items()) if shows_env else "",
        "timeout": exact_span(script.timeout_s),
        "retries": str(script.retries),
        "priority": str(script.priority),
        "memory": exact_size(limits.memory_bytes),
        "cpu": exact_span(limits.cpu_s),
        "processes": "" if limits.processes is None else str(limits.processes),
        "output": exact_size(limits.output_bytes),
        "keep_runs": str(script.keep_runs),
        "keep_days": "" if script.keep_days is None else f"{script.keep_days:g}",
        "keep_size": exact_size(script.keep_bytes),
        "max_log_lines": str(script.max_log_lines),
        "when": _when(script.schedule),
        "every": exact_span(schedule.every_s),
        "cron": schedule.cron or "",
        "zone": schedule.zone if schedule.cron is not None else "",
        "at": schedule.at,
        "overlap": schedule.overlap,
    }


def _when(schedule: Schedule | None) -> str:
    if schedule is None:
        return ""
    return "every" if schedule.every_s is not None else "cron" if schedule.cron is not None else "at"


# -- texts and searches ---------------------------------------------------------------------------------------


def version_rows(versions: Iterable[ScriptVersion]) -> list[Row]:
    """The kept texts of a script, newest first."""
    return [
        {
            "version": one.version,
            "at": one.saved_at,
            "size": size(one.size_bytes),
            "by": line(one.by) if one.by else _("outside of the workshop"),
            "current": one.is_current,
            "refused": one.is_refused,
        }
        for one in versions
    ]


def match_row(match: OutputMatch) -> Row:
    """A line that a search found."""
    text = match.text.rstrip("\n")
    return {"task": match.task_id, "line": match.line, "text": line(seen(text[:MATCH_CHARS]), MATCH_CHARS)}
