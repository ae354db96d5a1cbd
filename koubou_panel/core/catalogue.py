"""The catalogue of scripts: what follows from a change or a due schedule, and how its facts are folded. Pure."""

from __future__ import annotations

from msgspec.structs import replace

from koubou_panel.core.commands import EnableScript, RemoveScript, RunScript, SaveScript, ScheduleDue
from koubou_panel.core.events import (
    Event,
    Fact,
    ScheduleFired,
    ScriptEdited,
    ScriptFact,
    ScriptRan,
    ScriptRemoved,
    ScriptSaved,
    TaskCancelled,
    TaskCompleted,
    TaskFailed,
    TaskRetried,
    TaskStarted,
    TaskSubmitted,
)
from koubou_panel.core.records import Request, Task, TaskId
from koubou_panel.core.schedule import LAST_YEAR_S, check_schedule, next_fire
from koubou_panel.core.script import (
    MAX_QUEUED,
    MAX_TOGETHER,
    Entry,
    RunStatus,
    Script,
    check_script,
    find_entry,
    request_of,
)
from koubou_panel.core.state import State
from koubou_panel.errors import CorruptStream, Refused

MAX_SCRIPTS = 10_000
FAR_AHEAD_S = 24 * 3600.0


# -- commands -------------------------------------------------------------------------------------------------


def save_script(state: State, command: SaveScript, now: float, by: str) -> list[Event]:
    """What follows from adding or changing a script.

    Raises:
        Refused: it is not valid; `conflict`: the name is taken, or it was changed meanwhile.
    """
    script = command.script
    check_script(script)
    if script.schedule is not None:
        check_schedule(script.schedule)
    if command.anchor is not None and not 0 < command.anchor < LAST_YEAR_S:
        raise Refused("invalid", "anchor must be a moment before the year 10000", field="anchor")
    entry = state.scripts.get(script.name)
    if entry is None:
        return [_added(state, command, now, by)]
    if command.revision is None:
        words = f"there is a script {script.name!r} already; edit it, or take another name"
        raise Refused("conflict", words, field="name")
    if command.revision != entry.revision:
        words = f"script {script.name!r} was changed meanwhile (revision {entry.revision}); "
        raise Refused("conflict", words + "look at it again and repeat the change", field="revision")
    if script == entry.script:
        return []
    if not _is_timed_alike(script, entry.script):
        _check_moment(script, now)
    return [_changed(entry, script, now, by, anchor=command.anchor)]


def _added(state: State, command: SaveScript, now: float, by: str) -> ScriptSaved:
    """A script that was not there; what one of its name was due for before it was removed is over."""
    script = command.script
    if command.revision is not None:
        raise Refused("not_found", f"script {script.name!r} was removed meanwhile; add it anew")
    if len(state.scripts) >= MAX_SCRIPTS:
        raise Refused("conflict", f"the catalogue holds {MAX_SCRIPTS} scripts; remove one first")
    _check_moment(script, now)
    anchor = now if command.anchor is None else command.anchor
    next_at = _next_of(script, now, anchor, command.fired_at)
    return ScriptSaved(now, script, 1, anchor, next_at, by, command.fired_at)


def _check_moment(script: Script, now: float) -> None:
    at = script.schedule.at if script.schedule is not None else None
    if at is not None and at <= now:
        raise Refused("invalid", "at is over: it must be a moment to come", field="at")


def enable_script(state: State, command: EnableScript, now: float, by: str) -> list[Event]:
    """What follows from letting a script's schedule run it, or no more."""
    entry = find_entry(state.scripts, command.name)
    if entry.script.is_enabled == command.is_enabled:
        return []
    return [_changed(entry, replace(entry.script, is_enabled=command.is_enabled), now, by)]


def remove_script(state: State, command: RemoveScript, now: float, by: str) -> list[Event]:
    """What follows from taking a script out of the catalogue."""
    find_entry(state.scripts, command.name)
    return [ScriptRemoved(now, command.name, by)]


def run_request(script: Script, command: RunScript) -> Request:
    """What a run that was asked for is submitted as.

    Raises:
        Refused: code `invalid`, naming the parameter.
    """
    request = request_of(script, command.task_id, command.parameters)
    given = {
        "priority": command.priority,
        "timeout_s": command.timeout_s,
        "retries": command.retries,
        "on_crash": command.on_crash,
        "idempotency_key": command.idempotency_key,
    }
    changed = {name: value for name, value in given.items() if value is not None}
    return replace(request, labels=command.labels, after=command.after, **changed)


def check_narrower(script: Script, command: RunScript) -> None:
    """Check that a run takes no more than the script's owner registered, as one must who may only run scripts.

    Raises:
        Refused: code `forbidden`, naming the field.
    """
    most = {"timeout_s": script.timeout_s, "retries": script.retries, "priority": script.priority}
    wider = [
        (field, f"at most {limit:g}")
        for field, limit in most.items()
        if limit is not None and (getattr(command, field) or 0) > limit
    ]
    if command.on_crash not in (None, "mark"):
        wider.append(("on_crash", "'mark'"))
    for field, allowed in wider:
        words = f"this token runs scripts as they are registered, {script.name} with {field} {allowed}"
        raise Refused("forbidden", f"{words}; leave it out", field=field)


def _changed(
    entry: Entry, script: Script, now: float, by: str, *, anchor: float | None = None
) -> ScriptSaved:
    """A change; a schedule that stays as it was stays due when it was, and never begins with what it missed."""
    same = _is_timed_alike(script, entry.script) and script.is_enabled == entry.script.is_enabled
    same = same and not _is_far_ahead(entry.fired_at, now)
    if anchor is None:
        anchor = entry.anchor if same else now
    elif anchor != entry.anchor:
        same = False
    next_at = entry.next_at if same else _next_of(script, now, anchor, entry.fired_at)
    return ScriptSaved(now, script, entry.revision + 1, anchor, next_at, by, entry.fired_at)


def _is_timed_alike(one: Script, other: Script) -> bool:
    """Whether two definitions are due at the same moments, whatever becomes of those that overlap."""
    if one.schedule is None or other.schedule is None:
        return one.schedule is other.schedule
    return replace(one.schedule, overlap="skip") == replace(other.schedule, overlap="skip")


def _next_of(script: Script, now: float, anchor: float, fired_at: float | None) -> float | None:
    """When a script is next due; never again when it was, although the clock may have been set back a little."""
    if script.schedule is None or not script.is_enabled:
        return None
    after = now if fired_at is None or _is_far_ahead(fired_at, now) else max(now, fired_at)
    return next_fire(script.schedule, after, anchor=anchor)


def _is_far_ahead(fired_at: float | None, now: float) -> bool:
    """Whether a script ran by a clock that was so wrong that waiting until then would be never."""
    return fired_at is not None and fired_at - now > FAR_AHEAD_S


# -- what a schedule leads to ---------------------------------------------------------------------------------


def fire(state: State, report: ScheduleDue, now: float) -> list[Event]:
    """What follows from a due schedule: one run at most for each due time, whatever else happens.

    While no work is taken, nothing: it stays due.
    """
    entry = state.scripts.get(report.name)
    if entry is None or not state.pool.takes_work:
        return []
    fire_at = report.fire_at
    was_queued = fire_at in entry.queued
    schedule = entry.script.schedule
    if not was_queued and (schedule is None or entry.next_at is None or not entry.next_at <= fire_at <= now):
        return []  # it was dealt with, or is no longer meant
    if was_queued and (entry.active or entry.queued[0] != fire_at):
        return []  # its turn has not come
    next_at = entry.next_at
    if not was_queued and schedule is not None:
        next_at = next_fire(schedule, max(now, fire_at), anchor=entry.anchor)
    fired = ScheduleFired(
        now, report.name, fire_at, next_at, None, report.missed, report.why, was_queued=was_queued
    )
    if report.request is None:
        return [fired]
    most = MAX_TOGETHER if schedule is not None and schedule.overlap == "together" else 1
    if len(entry.active) >= most and not was_queued and schedule is not None:
        return [_held(entry, fired, overlap=schedule.overlap)]
    request = replace(report.request, created_at=now, submitted_by="schedule")
    submitted = TaskSubmitted(now, request, state.order + 1)
    return [replace(fired, task_id=request.task_id), submitted]


def _held(entry: Entry, fired: ScheduleFired, *, overlap: str) -> ScheduleFired:
    running = f"task {entry.active[-1]} of it has not ended"
    if overlap == "together":
        return replace(fired, message=f"skipped: {len(entry.active)} runs of it have not ended")
    if overlap == "skip" or len(entry.queued) >= MAX_QUEUED:
        full = "" if overlap == "skip" else f", and {MAX_QUEUED} wait"
        return replace(fired, message=f"skipped: {running}{full}")
    return replace(fired, message=f"queued: {running}", is_queued=True)


# -- what the runs of scripts lead to -------------------------------------------------------------------------


def ran(fact: Fact, task: Task) -> ScriptRan | None:
    """What a fact about a script's run (`task` as it stands after it) is for the script; None: nothing new."""
    name = task.request.script_name
    if name is None:
        return None
    kind = type(fact)
    status: RunStatus
    if kind is TaskSubmitted:
        return ScriptRan(fact.at, name, task.task_id, "starting")
    if kind is TaskStarted:
        return ScriptRan(fact.at, name, task.task_id, "running", task.run)
    if kind is TaskRetried:
        return ScriptRan(fact.at, name, task.task_id, "failed", task.run)
    if kind is TaskCompleted:
        status = "completed"
    elif kind is TaskFailed or kind is TaskCancelled:
        status = "failed"
    else:
        return None
    duration_s = None if task.started_at is None else max(0.0, fact.at - task.started_at)
    return ScriptRan(fact.at, name, task.task_id, status, task.run, task.exit_code, duration_s, is_final=True)


# -- folding --------------------------------------------------------------------------------------------------


def fold_script(state: State, fact: ScriptFact) -> Entry | None:
    """Fold a fact of the catalogue; the script as it then stands, as it last stood if it was removed.

    Raises:
        CorruptStream: the fact cannot follow this state.
    """
    if isinstance(fact, ScriptRan):
        return _fold_ran(state, fact)
    if isinstance(fact, ScriptSaved):
        entry = _saved(state.scripts.get(fact.script.name) or _anew(state, fact), fact)
    elif isinstance(fact, ScriptEdited):
        if fact.name not in state.scripts:  # it was removed while its text was saved
            return None
        entry = replace(state.scripts[fact.name], changed_at=fact.at)
    else:
        entry = _known(state, fact)
        if type(fact) is ScriptRemoved:
            return state.scripts.pop(fact.name)
        if type(fact) is ScheduleFired:
            entry = _fired(entry, fact)
    state.scripts[entry.script.name] = entry
    return entry


def _known(state: State, fact: ScriptRemoved | ScheduleFired) -> Entry:
    entry = state.scripts.get(fact.name)
    if entry is None:
        raise CorruptStream(f"{type(fact).__name__} about an unknown script {fact.name}")
    return entry


def _anew(state: State, fact: ScriptSaved) -> Entry:
    """A script that was not there; where one of its name was, and ran by a schedule, its runs may still go on."""
    name = fact.script.name
    active: tuple[TaskId, ...] = ()
    if fact.fired_at is not None:
        tasks = (task for task in state.tasks.values() if task.request.script_name == name)
        active = tuple(task.task_id for task in tasks if not task.is_finished)
    return Entry(
        script=fact.script, created_at=fact.at, changed_at=fact.at, anchor=fact.anchor, active=active
    )


def _saved(before: Entry, fact: ScriptSaved) -> Entry:
    return replace(
        before,
        script=fact.script,
        changed_at=fact.at,
        anchor=fact.anchor,
        revision=fact.revision,
        next_at=fact.next_at,
        fired_at=fact.fired_at,
        queued=before.queued if fact.script.schedule is not None and fact.script.is_enabled else (),
    )


def _fired(entry: Entry, fact: ScheduleFired) -> Entry:
    if fact.was_queued:
        return replace(entry, queued=tuple(at for at in entry.queued if at != fact.fire_at))
    queued = (*entry.queued, fact.fire_at) if fact.is_queued else entry.queued
    return replace(entry, next_at=fact.next_at, fired_at=fact.fire_at, queued=queued)


def _fold_ran(state: State, fact: ScriptRan) -> Entry | None:
    state.executions += fact.is_final
    entry = state.scripts.get(fact.name)
    if entry is None:  # it was removed while this went on
        return None
    others = tuple(task_id for task_id in entry.active if task_id != fact.task_id)
    has_ended = fact.status in ("completed", "failed")
    state.scripts[fact.name] = entry = replace(
        entry,
        active=others if fact.is_final else (*others, fact.task_id),
        runs=entry.runs + fact.is_final,
        failures=entry.failures + (fact.is_final and fact.status == "failed"),
        last_task=fact.task_id,
        last_status=fact.status,
        last_started_at=fact.at if fact.status == "running" else entry.last_started_at,
        last_ended_at=fact.at if has_ended else entry.last_ended_at,
    )
    return entry
