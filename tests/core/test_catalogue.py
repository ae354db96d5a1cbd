"""The catalogue of scripts: what changes and due times lead to, told as given, when, then."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from koubou_panel.core.catalogue import MAX_SCRIPTS, ran
from koubou_panel.core.commands import (
    DrainPool,
    EnableScript,
    PausePool,
    RemoveScript,
    ResumePool,
    RetryTask,
    RunScript,
    SaveScript,
    ScheduleDue,
    SubmitTask,
)
from koubou_panel.core.decide import Context, decide
from koubou_panel.core.events import (
    ScheduleFired,
    ScriptEdited,
    ScriptRan,
    ScriptRemoved,
    ScriptSaved,
    TaskSubmitted,
)
from koubou_panel.core.script import MAX_QUEUED, MAX_TOGETHER, Entry, Schedule, Script, request_of
from koubou_panel.errors import CorruptStream, Refused

EACH_MINUTE = Schedule(every_s=60)


class Catalogue:
    """A world whose tasks tell their scripts of themselves, as they do in the hub."""

    def __init__(self, world):
        self.world = world
        self._runs = 0

    @property
    def entry(self):
        """The script of these tests."""
        return self.world.state.scripts["backup"]

    def tell(self, events):
        """Fold what the runs among `events` are for their scripts."""
        for folded in self.world.folded[len(self.world.folded) - len(events) :]:
            told = ran(folded.fact, folded.record) if hasattr(folded.record, "request") else None
            if told is not None:
                self.world.given(told)
        return events

    def add(self, schedule=EACH_MINUTE, **fields):
        """Put the script in."""
        script = Script(name="backup", path="/srv/backup.sh", schedule=schedule, **fields)
        return self.world.do(SaveScript(script))

    def change(self, **fields):
        """Change it, as it stands."""
        changed = replace(self.entry.script, **fields)
        return self.world.do(SaveScript(changed, revision=self.entry.revision))

    def due(self, fire_at=None, missed=0, **fields):
        """Its schedule is due."""
        fire_at = self.entry.next_at if fire_at is None else fire_at
        self._runs += 1
        request = request_of(self.entry.script, f"run-{self._runs}", {}, fire_at=fire_at)
        report = {"request": request, **fields}
        return self.tell(self.world.report(ScheduleDue("backup", fire_at, missed, **report)))

    def end(self, task_id, **outcome):
        """A run of it ends."""
        before = len(self.world.folded)
        if self.world.task(task_id).status == "pending":
            self.world.claimed(task_id)
            self.tell(self.world.folded[before:])
        before = len(self.world.folded)
        self.world.end(task_id, **outcome)
        self.tell(self.world.folded[before:])


@pytest.fixture
def catalogue(make_world):
    """A workshop with a worker, and nothing in its catalogue."""
    return Catalogue(make_world(1))


# -- adding, changing, removing -------------------------------------------------------------------------------


def test_a_script_is_added(catalogue):
    """It is due one interval later, and its first revision is 1."""
    now = catalogue.world.now
    script = Script(name="backup", path="/srv/backup.sh", schedule=EACH_MINUTE)
    events = catalogue.world.do(SaveScript(script), by="ann")
    assert events == [ScriptSaved(now, script, 1, now, now + 60, "ann")]
    expected = Entry(script=script, created_at=now, changed_at=now, anchor=now, next_at=now + 60)
    assert catalogue.entry == expected


def test_a_name_is_taken_once(catalogue):
    """Adding is no way to overwrite."""
    catalogue.add()
    with pytest.raises(Refused, match="already") as refusal:
        catalogue.add()
    assert refusal.value.code == "conflict"


def test_a_change_on_a_stale_copy_is_refused(catalogue):
    """Who changes says what the change was made on."""
    catalogue.add()
    stale = catalogue.entry
    catalogue.change(description="mine")
    with pytest.raises(Refused, match="changed meanwhile") as refusal:
        catalogue.world.do(SaveScript(replace(stale.script, description="yours"), revision=stale.revision))
    assert (refusal.value.code, refusal.value.field) == ("conflict", "revision")
    assert catalogue.entry.script.description == "mine"


def test_a_change_of_what_was_removed_is_refused(catalogue):
    """It does not come back by that."""
    catalogue.add()
    gone = catalogue.entry
    catalogue.world.do(RemoveScript("backup"))
    with pytest.raises(Refused, match="removed meanwhile"):
        catalogue.world.do(SaveScript(gone.script, revision=gone.revision))


def test_a_change_that_changes_nothing_is_none(catalogue):
    """No fact, no revision."""
    catalogue.add()
    assert catalogue.change() == []


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": " x"}, "name"),
        ({"name": "a/b"}, "name"),
        ({"name": "n" * 101}, "name"),
        ({"path": "backup.sh"}, "path"),
        ({"path": "/a\0b"}, "path"),
        ({"timeout_s": 0.0}, "timeout"),
        ({"timeout_s": float("nan")}, "timeout"),
        ({"keep_runs": 0}, "keep_runs"),
        ({"keep_days": 0.0}, "keep_days"),
        ({"keep_days": float("nan")}, "keep_days"),
        ({"keep_bytes": -1}, "keep_bytes"),
        ({"priority": 11}, "priority"),
        ({"retries": -1}, "retries"),
        ({"env": {"A=B": "x"}}, "env"),
        ({"cwd": "there"}, "cwd"),
        ({"schedule": Schedule(every_s=0.1)}, "every"),
    ],
)
def test_what_is_no_script_is_refused(catalogue, fields, field):
    """The refusal names the field."""
    script = replace(Script(name="backup", path="/srv/backup.sh"), **fields)
    with pytest.raises(Refused) as refusal:
        catalogue.world.do(SaveScript(script))
    assert (refusal.value.code, refusal.value.field) == ("invalid", field)


@pytest.mark.parametrize("name", ["backup", "工房 1", "ü.sh", "a+b@c-d", "1"])
def test_names_may_be_of_any_script(catalogue, name):
    """Letters of every alphabet."""
    catalogue.world.do(SaveScript(Script(name=name, path="/x")))
    assert name in catalogue.world.state.scripts


def test_the_catalogue_has_an_end(catalogue):
    """The refusal says what to do."""
    catalogue.add()
    catalogue.world.state.scripts.update((f"s{n}", catalogue.entry) for n in range(MAX_SCRIPTS))
    with pytest.raises(Refused, match="remove one first"):
        catalogue.world.do(SaveScript(Script(name="more", path="/x")))


def test_an_unknown_script_is_told_with_the_nearest(catalogue):
    """By every command that names one."""
    catalogue.add()
    for command in (EnableScript("bakcup"), RemoveScript("bakcup"), RunScript("bakcup", "new")):
        with pytest.raises(Refused, match="backup") as refusal:
            catalogue.world.do(command)
        assert (refusal.value.code, refusal.value.nearest) == ("not_found", "backup")


def test_the_run_role_runs_and_nothing_else(catalogue):
    """It may not change what it runs."""
    catalogue.add()
    for command in (RemoveScript("backup"), EnableScript("backup"), SaveScript(catalogue.entry.script)):
        with pytest.raises(Refused) as refusal:
            catalogue.world.do(command, role="run")
        assert refusal.value.code == "forbidden"
    request = request_of(catalogue.entry.script, "new", {})
    assert catalogue.world.do(RunScript("backup", "new", request=request), role="run")


@pytest.mark.parametrize(
    ("field", "wider", "narrower"),
    [("timeout_s", 601.0, 600.0), ("retries", 3, 0), ("priority", 7, 1), ("on_crash", "retry", "mark")],
)
def test_the_run_role_takes_no_more_than_is_registered(catalogue, field, wider, narrower):
    """What it gives may only be narrower than what the owner registered; the owner may take more."""
    catalogue.add(timeout_s=600.0, retries=2, priority=6)
    request = request_of(catalogue.entry.script, "new", {})
    wide = RunScript("backup", "new", request=request, **{field: wider})
    with pytest.raises(Refused, match="as they are registered") as refusal:
        catalogue.world.do(wide, role="run")
    assert (refusal.value.code, refusal.value.field) == ("forbidden", field)
    for command, role in ((RunScript("backup", "new", **{field: narrower}), "run"), (wide, "full")):
        assert decide(catalogue.world.state, replace(command, request=request), Context(1.0, role=role))


def test_a_refusal_for_a_role_says_what_would_do(catalogue):
    """A token of that scope is what an agent asks for, never the owner's own."""
    with pytest.raises(Refused, match="koubou token add NAME --scope edit"):
        catalogue.world.do(RemoveScript("backup"), role="run")
    with pytest.raises(Refused, match="koubou token add NAME --scope run"):
        catalogue.world.do(RunScript("backup", "new"), role="read")


def test_a_text_that_was_saved_is_told(catalogue):
    """The script has changed; where it was removed meanwhile, nothing has."""
    catalogue.add()
    catalogue.world.pass_time(5).given(ScriptEdited(catalogue.world.now, "backup", "abcd"))
    assert catalogue.entry.changed_at == catalogue.world.now
    catalogue.world.given(ScriptEdited(catalogue.world.now, "gone", "abcd"))
    assert set(catalogue.world.state.scripts) == {"backup"}


def test_a_stream_that_contradicts_itself_is_told(catalogue):
    """A removal of what is not there cannot follow."""
    with pytest.raises(CorruptStream):
        catalogue.world.given(ScriptRemoved(1.0, "backup"))


# -- due times ------------------------------------------------------------------------------------------------


def test_a_due_schedule_is_one_run(catalogue):
    """The fact of the due time and the run come together; the next due time is known."""
    catalogue.add()
    catalogue.world.pass_time(60)
    fired, submitted = catalogue.due()
    now = catalogue.world.now
    assert fired == ScheduleFired(now, "backup", now, now + 60, "run-1")
    assert type(submitted) is TaskSubmitted
    assert (submitted.request.submitted_by, submitted.request.fire_at) == ("schedule", now)
    assert (catalogue.entry.fired_at, catalogue.entry.next_at) == (now, now + 60)
    assert catalogue.entry.active == ("run-1",)


def test_a_due_time_told_twice_is_one_run(catalogue):
    """The second report leads to nothing."""
    catalogue.add()
    catalogue.world.pass_time(60)
    fire_at = catalogue.entry.next_at
    assert catalogue.due()
    assert catalogue.due(fire_at) == []


def test_what_is_not_due_yet_is_no_run(catalogue):
    """Whoever tells too early, as after a clock that was set back."""
    catalogue.add()
    catalogue.world.pass_time(59)
    assert catalogue.due() == []


def test_missed_due_times_are_one_run(catalogue):
    """After a downtime the last is dealt with; the next is in the future."""
    catalogue.add()
    anchor = catalogue.world.now
    catalogue.world.pass_time(3_630)
    fired, _ = catalogue.due(anchor + 3_600, 59)
    assert (fired.missed, fired.next_at) == (59, anchor + 3_660)


def test_a_single_moment_is_over_after_its_run(catalogue):
    """There is no next; the script stays."""
    catalogue.add(Schedule(at=catalogue.world.now + 10))
    catalogue.world.pass_time(3_600)
    fired, _ = catalogue.due()
    assert fired.next_at is None
    assert catalogue.due(fired.fire_at) == []


def test_a_single_moment_must_come(catalogue):
    """One that is over is refused, when it is given; later changes of something else are not."""
    with pytest.raises(Refused, match="is over") as refusal:
        catalogue.add(Schedule(at=catalogue.world.now))
    assert refusal.value.field == "at"
    catalogue.add(Schedule(at=catalogue.world.now + 1))
    catalogue.world.pass_time(60)
    catalogue.due()
    assert catalogue.change(description="changed")
    assert catalogue.entry.next_at is None


def test_a_run_that_cannot_be_made_is_told(catalogue):
    """The due time is dealt with, and why there was no run is said."""
    catalogue.add()
    catalogue.world.pass_time(60)
    (fired,) = catalogue.due(request=None, why="not run: parameter 'n' is required")
    assert (fired.task_id, fired.message) == (None, "not run: parameter 'n' is required")
    assert catalogue.entry.next_at == catalogue.world.now + 60


# -- runs that overlap ----------------------------------------------------------------------------------------


def running(catalogue, overlap):
    """A script of which a run goes on, due again."""
    catalogue.add(replace(EACH_MINUTE, overlap=overlap))
    catalogue.world.pass_time(60)
    catalogue.due()
    catalogue.world.pass_time(60)


def test_skip_passes_over_what_overlaps(catalogue):
    """It says what has not ended; the next due time comes."""
    running(catalogue, "skip")
    (fired,) = catalogue.due()
    assert (fired.task_id, fired.message) == (None, "skipped: task run-1 of it has not ended")
    catalogue.end("run-1")
    catalogue.world.pass_time(60)
    assert len(catalogue.due()) == 2


def test_together_runs_both(catalogue):
    """Both are active, up to a number that no script needs."""
    running(catalogue, "together")
    assert len(catalogue.due()) == 2
    assert catalogue.entry.active == ("run-1", "run-2")
    for _ in range(MAX_TOGETHER - 2):
        catalogue.world.pass_time(60)
        assert len(catalogue.due()) == 2
    catalogue.world.pass_time(60)
    (fired,) = catalogue.due()
    assert fired.message == f"skipped: {MAX_TOGETHER} runs of it have not ended"


def test_queue_runs_one_after_another(catalogue):
    """Those that are due meanwhile wait, in order, and each has its run."""
    running(catalogue, "queue")
    first, second = catalogue.entry.next_at, catalogue.entry.next_at + 60
    (fired,) = catalogue.due()
    assert fired.is_queued
    catalogue.world.pass_time(60)
    catalogue.due()
    assert catalogue.entry.queued == (first, second)
    assert catalogue.due(first) == []
    catalogue.end("run-1")
    assert catalogue.due(second) == []
    fired, submitted = catalogue.due(first)
    assert fired.was_queued
    assert submitted.request.fire_at == first
    assert catalogue.entry.queued == (second,)
    assert catalogue.due(second) == []
    catalogue.end(submitted.request.task_id)
    assert len(catalogue.due(second)) == 2
    assert catalogue.due(second) == []
    assert catalogue.entry.queued == ()


def test_a_queue_has_an_end(catalogue):
    """Beyond it due times are passed over, and say so."""
    running(catalogue, "queue")
    for _ in range(MAX_QUEUED):
        (fired,) = catalogue.due()
        assert fired.is_queued
        catalogue.world.pass_time(60)
    (fired,) = catalogue.due()
    assert fired.message == f"skipped: task run-1 of it has not ended, and {MAX_QUEUED} wait"


def test_a_run_by_hand_counts_as_one_that_goes_on(catalogue):
    """What is due meanwhile is passed over."""
    catalogue.add()
    request = request_of(catalogue.entry.script, "mine", {})
    catalogue.tell(catalogue.world.do(RunScript("backup", "mine", request=request)))
    catalogue.world.pass_time(60)
    (fired,) = catalogue.due()
    assert fired.message == "skipped: task mine of it has not ended"


# -- changes while it is due, or waits ------------------------------------------------------------------------


def test_a_change_of_something_else_keeps_what_is_due(catalogue):
    """Also of what becomes of overlaps."""
    catalogue.add()
    catalogue.world.pass_time(61)
    due_at = catalogue.entry.next_at
    catalogue.change(description="changed")
    catalogue.change(schedule=replace(EACH_MINUTE, overlap="queue"))
    assert catalogue.entry.next_at == due_at
    assert len(catalogue.due()) == 2


def test_another_schedule_begins_anew(catalogue):
    """What the old one was due for is not made up for."""
    catalogue.add()
    catalogue.world.pass_time(61)
    due_at = catalogue.entry.next_at
    catalogue.change(schedule=Schedule(every_s=3_600))
    assert catalogue.entry.next_at == catalogue.world.now + 3_600
    assert catalogue.due(due_at) == []


def test_a_disabled_script_is_not_due(catalogue):
    """Enabled again, it goes on from then, and makes up for nothing."""
    catalogue.add()
    catalogue.world.do(EnableScript("backup", is_enabled=False))
    assert catalogue.entry.next_at is None
    assert catalogue.world.do(EnableScript("backup", is_enabled=False)) == []
    catalogue.world.pass_time(600)
    assert catalogue.due(catalogue.world.now) == []
    catalogue.world.do(EnableScript("backup"))
    assert catalogue.entry.next_at == catalogue.world.now + 60


def test_what_waits_goes_on_after_a_change_and_not_after_a_disabling(catalogue):
    """A single moment that waits is not lost by a new description."""
    catalogue.add(Schedule(at=catalogue.world.now + 60, overlap="queue"))
    request = request_of(catalogue.entry.script, "mine", {})
    catalogue.tell(catalogue.world.do(RunScript("backup", "mine", request=request)))
    catalogue.world.pass_time(60)
    fire_at = catalogue.entry.next_at
    catalogue.due()
    catalogue.change(description="changed")
    assert catalogue.entry.queued == (fire_at,)
    catalogue.world.do(EnableScript("backup", is_enabled=False))
    assert catalogue.entry.queued == ()


def test_a_removed_script_is_not_due(catalogue):
    """Its runs go on, and count among all."""
    catalogue.add()
    catalogue.world.pass_time(60)
    catalogue.due()
    entry = catalogue.entry
    catalogue.world.do(RemoveScript("backup"))
    report = ScheduleDue("backup", entry.next_at, 0, request_of(entry.script, "late", {}))
    assert catalogue.world.pass_time(60).report(report) == []
    catalogue.end("run-1")
    assert catalogue.world.state.executions == 1


@pytest.mark.parametrize("back_s", [0.5, 7_200])
def test_a_clock_that_was_set_back_repeats_nothing(catalogue, back_s):
    """Neither by a change of the schedule, nor enabled again, nor added anew under its name."""
    catalogue.add()
    catalogue.world.pass_time(60)
    fire_at = catalogue.entry.next_at
    catalogue.due()
    catalogue.end("run-1")
    catalogue.world.pass_time(-back_s)
    catalogue.change(schedule=Schedule(cron="* * * * *"))
    assert catalogue.entry.next_at > fire_at
    catalogue.world.do(EnableScript("backup", is_enabled=False))
    catalogue.world.do(EnableScript("backup"))
    assert catalogue.entry.next_at > fire_at
    script = catalogue.entry.script
    catalogue.world.do(RemoveScript("backup"))
    catalogue.world.do(SaveScript(script, fired_at=fire_at))
    assert catalogue.entry.next_at > fire_at
    assert catalogue.entry.fired_at == fire_at


def test_a_drained_workshop_is_not_due(catalogue):
    """What was due meanwhile is one run when it takes work again."""
    catalogue.add()
    catalogue.world.do(DrainPool())
    catalogue.world.pass_time(60)
    assert catalogue.due() == []
    catalogue.world.do(ResumePool())
    assert len(catalogue.due()) == 2


def test_a_paused_workshop_takes_what_is_due(catalogue):
    """It waits as any task does."""
    catalogue.add()
    catalogue.world.do(PausePool())
    catalogue.world.pass_time(60)
    assert len(catalogue.due()) == 2


# -- what runs lead to ----------------------------------------------------------------------------------------


def test_start_end_and_error_of_a_run_are_told(catalogue):
    """With exit code and duration at the end; the script counts them."""
    catalogue.add(retries=1)
    catalogue.world.pass_time(60)
    catalogue.due()
    catalogue.world.claimed("run-1")
    catalogue.tell(catalogue.world.folded[-1:])
    catalogue.world.pass_time(2)
    before = len(catalogue.world.folded)
    catalogue.world.end("run-1", reason="exit", exit_code=3, message="exited with code 3")
    catalogue.tell(catalogue.world.folded[before:])
    assert (catalogue.entry.runs, catalogue.entry.last_status) == (0, "failed")
    assert catalogue.entry.active == ("run-1",)
    catalogue.world.pass_time(60)
    catalogue.end("run-1", exit_code=0)
    assert (catalogue.entry.runs, catalogue.entry.failures, catalogue.entry.last_status) == (
        1,
        0,
        "completed",
    )
    assert catalogue.entry.active == ()
    told = [event for event in catalogue.world.events if type(event) is ScriptRan]
    assert [one.status for one in told] == ["starting", "running", "failed", "running", "completed"]
    assert [one.is_final for one in told] == [False, False, False, False, True]
    assert told[-1].exit_code == 0
    assert catalogue.world.state.executions == 1


def test_a_retried_run_of_a_schedule_is_a_run_by_hand(catalogue):
    """The due time has had its run: the new one has none."""
    catalogue.add()
    catalogue.world.pass_time(60)
    catalogue.due()
    catalogue.end("run-1")
    (submitted,) = catalogue.world.do(RetryTask("run-1", "again"))
    assert (submitted.request.script_name, submitted.request.fire_at) == ("backup", None)


def test_a_task_of_no_script_tells_none(catalogue):
    """Ordinary commands are none of the catalogue's."""
    catalogue.world.do(SubmitTask(catalogue.world.request("plain")))
    assert catalogue.tell(catalogue.world.events[-1:])
    assert catalogue.world.state.scripts == {}


@pytest.mark.parametrize("mended", ["disabled", "changed", "described", "added"])
def test_a_clock_that_was_far_ahead_silences_nothing_for_good(catalogue, mended):
    """Whoever does something about it has the schedule begin from now."""
    catalogue.add()
    catalogue.world.now += 1_000 * 24 * 3600.0
    catalogue.due(catalogue.world.now)
    catalogue.world.now -= 1_000 * 24 * 3600.0 - 600.0
    entry, now = catalogue.entry, catalogue.world.now
    assert entry.next_at > now + 900 * 24 * 3600.0
    if mended == "disabled":
        catalogue.world.do(EnableScript("backup", is_enabled=False))
        catalogue.world.do(EnableScript("backup", is_enabled=True))
    elif mended == "added":
        catalogue.world.do(RemoveScript("backup"))
        catalogue.world.do(SaveScript(entry.script, fired_at=entry.fired_at))
    else:
        more = {"schedule": Schedule(every_s=30)} if mended == "changed" else {"description": "new"}
        catalogue.world.do(SaveScript(replace(entry.script, **more), revision=entry.revision))
    assert now < catalogue.entry.next_at <= now + 60.0


def test_a_script_added_anew_knows_of_the_run_that_goes_on(catalogue):
    """It does not overlap with what was begun before the script was removed."""
    catalogue.add()
    catalogue.world.now += 60.0
    catalogue.due()
    (task_id,) = catalogue.entry.active
    entry = catalogue.entry
    catalogue.world.do(RemoveScript("backup"))
    catalogue.world.do(SaveScript(entry.script, fired_at=entry.fired_at))
    assert catalogue.entry.active == (task_id,)
