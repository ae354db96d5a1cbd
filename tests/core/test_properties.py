"""Whatever happens in whatever order, the workshop's promises hold: a machine of many random lives.

The engine here is a few lists: what each worker was handed, and how far it got. It reports late, dies, gives back,
and goes on in any order; the workshop itself may die, and go on from what was stored. After every step the
invariants below are looked at.
"""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)
from msgspec.structs import replace

from koubou_panel.core.agenda import Agenda
from koubou_panel.core.catalogue import ran
from koubou_panel.core.codec import decode_events, decode_snapshot, encode_events, encode_snapshot
from koubou_panel.core.commands import (
    CancelTask,
    DrainPool,
    EnableScript,
    PausePool,
    RemoveScript,
    RestartWorker,
    ResumePool,
    RetryTask,
    RunEnded,
    RunProgressed,
    RunScript,
    RunsReturned,
    RunsSampled,
    SaveScript,
    ScaleWorkers,
    ScheduleDue,
    SubmitTask,
    WorkerDied,
    WorkerHeard,
    WorkerReady,
    WorkerSilent,
)
from koubou_panel.core.conclude import conclude, give_back, lose
from koubou_panel.core.decide import Context, decide
from koubou_panel.core.events import MetricsSampled, PoolChanged, ScriptEdited, TaskSubmitted
from koubou_panel.core.fold import evolve
from koubou_panel.core.plan import AHEAD_S, WINDOW_S, WINDOW_TASKS, Recall, Retire, Spawn, Start, Stop, plan
from koubou_panel.core.records import (
    NO_LIMITS,
    STATUSES,
    Limits,
    Metrics,
    Outcome,
    Pool,
    Progress,
    Request,
    Usage,
    Use,
)
from koubou_panel.core.scale import UP, _waiting
from koubou_panel.core.schedule import latest_due
from koubou_panel.core.script import Schedule, Script, request_of
from koubou_panel.core.state import State
from koubou_panel.errors import Refused

SCHEDULES = st.sampled_from(
    [
        None,
        Schedule(every_s=60.0),
        Schedule(every_s=7.0, overlap="queue"),
        Schedule(every_s=1.0, overlap="together"),
        Schedule(cron="* * * * *", overlap="queue"),
        Schedule(cron="*/5 * * * *"),
        Schedule(at=1_200.0, overlap="queue"),
    ]
)
DURATIONS_S = {"short": 0.0001, "middling": 0.006, "long": 0.5}
LIFE = 60
FAILURES = ["exit", "exception", "killed", "memory", "start"]
MB = 1 << 20
LIMITED = Limits(memory_bytes=64 * MB, cpu_s=10.0, processes=4)


def batches(kind):
    """Functions may share a window."""
    return kind == "function"


class Slot:
    """One worker of the engine: what it was handed and has not ended, how many it ever was handed, and ever began."""

    def __init__(self):
        self.jobs = []
        self.given = 0
        self.begun = 0
        self.is_leaving = False

    @property
    def is_running(self):
        """Whether the first job has begun."""
        return bool(self.jobs) and self.jobs[0].claim < self.begun


class Workshop(RuleBasedStateMachine):
    """A hub without a loop, its engine, and a replica far away."""

    tasks = Bundle("tasks")
    scripts = Bundle("scripts")

    @initialize(bounds=st.sampled_from([(0, 1), (1, 1), (1, 3), (2, 2), (3, 3)]))
    def open(self, bounds):
        """Begin with a pool."""
        self.now = 1_000.0
        self.state = State("epoch-1")
        self.agenda = Agenda(batches)
        self.slots = {}
        self.log = []
        self.replica = State.from_snapshot(self.state.snapshot())
        self.replica_is_lost = False
        self.submitted = set()
        self.ended = {}
        self.begun = Counter()
        self.runs = Counter()
        self.marked = set()
        self.stopped = set()
        self.fired = Counter()
        self.last_fires = {}
        self.executions = 0
        self.step([PoolChanged(self.now, Pool(*bounds))])
        for name in list(self.slots):
            self.report(WorkerReady(name, 7))

    # -- the hub ----------------------------------------------------------------------------------------------

    def step(self, events):
        """Fold, plan until there is no more, release: what one step of the hub does."""
        self.fold(events)
        instructions = []
        for _ in range(20):
            self.look_at_ready()
            planned = plan(self.state, self.agenda, self.now, node="here")
            self.check_assignment(planned.instructions)
            instructions += planned.instructions
            if not planned.events:
                break
            self.fold(planned.events)
        else:
            raise AssertionError("the plan finds no end")
        self.wake_at = planned.wake_at
        for instruction in instructions:
            self.carry_out(instruction)

    def fold(self, events):
        """Every event reaches state, agenda, log, and, if it is not lost, the replica; as bytes."""
        folded = []
        told = []
        for event in events:
            folded.append(evolve(self.state, event))
            told.append(event)
            record = None if folded[-1] is None else folded[-1].record
            of_script = ran(folded[-1].fact, record) if hasattr(record, "request") else None
            if of_script is not None:
                folded.append(evolve(self.state, of_script))
                told.append(of_script)
                self.executions += of_script.is_final
            if type(event) is TaskSubmitted and event.request.fire_at is not None:
                self.fired[event.request.script_name, event.request.fire_at] += 1
                self.last_fires[event.request.script_name] = event.request.fire_at
        self.log += decode_events(encode_events(told))
        facts = [one for one in folded if one is not None]
        self.agenda.note(facts)
        for event in told:
            if not self.replica_is_lost:
                evolve(self.replica, event)
        for _, _, record in facts:
            if getattr(record, "is_finished", False):
                assert record.task_id not in self.ended, "a task ended twice"
                self.ended[record.task_id] = record

    def carry_out(self, instruction):
        """What an engine does, if only on paper."""
        worker_id = instruction.worker_id
        if isinstance(instruction, Spawn):
            assert worker_id not in self.slots
            self.slots[worker_id] = Slot()
        elif isinstance(instruction, Start):
            held = {job.task_id for slot in self.slots.values() for job in slot.jobs}
            assert not held & {job.task_id for job in instruction.jobs}, "a task is with two workers"
            slot = self.slots[worker_id]
            claims = [job.claim for job in instruction.jobs]
            assert claims == list(range(slot.given, slot.given + len(claims))), "claims are not counted up"
            slot.given += len(claims)
            slot.jobs += instruction.jobs
        elif isinstance(instruction, Retire):
            self.slots[worker_id].is_leaving = True
        elif isinstance(instruction, Stop):
            job = next(job for job in self.slots[worker_id].jobs if job.task_id == instruction.task_id)
            assert job.run == instruction.run
            self.stopped.add((job.task_id, job.run))

    def look_at_ready(self):
        """Which priorities may start, before a plan."""
        self.waiting = [
            task.request.priority
            for task in self.state.tasks.values()
            if task.status == "pending" and (task.not_before or 0) <= self.now and not task.waits_for
        ]

    def check_assignment(self, instructions):
        """What is handed over obeys priorities and windows."""
        given = [job for one in instructions if type(one) is Start for job in one.jobs]
        priorities = sorted((self.state.tasks[job.task_id].request.priority for job in given), reverse=True)
        assert priorities == sorted(self.waiting, reverse=True)[: len(priorities)]
        for one in instructions:
            if type(one) is not Start:
                continue
            held = self.agenda.lanes[one.worker_id].claims
            tasks = [self.state.tasks[job.task_id] for job in one.jobs]
            expected = [self.agenda.expected_s(task) for task in tasks]
            if len(tasks) + len(held) > 1:
                assert all(task.request.timeout_s is None and batches(task.request.kind) for task in tasks)
                is_ahead = len(tasks) == len(held) == 1
                most_s = AHEAD_S if is_ahead else WINDOW_S
                assert sum(expected) + sum(held.values()) <= most_s * (1 + 1e-9)

    def report(self, report):
        """Take in what the engine says."""
        self.step(conclude(self.state, report, self.now))

    def do(self, command):
        """Take in a command; whether it was not refused."""
        try:
            events = decide(self.state, command, Context(self.now, "somebody"))
        except Refused:
            return False
        self.step(events)
        return True

    # -- commands ---------------------------------------------------------------------------------------------

    @rule(
        target=tasks,
        count=st.integers(1, 8),
        kind=st.sampled_from(["function", "function", "script"]),
        name=st.sampled_from(sorted(DURATIONS_S)),
        priority=st.sampled_from([1, 5, 5, 10]),
        timeout_s=st.none() | st.sampled_from([None, 5.0]),
        retries=st.integers(0, 2),
        on_crash=st.sampled_from(["mark", "mark", "retry"]),
        limits=st.sampled_from([NO_LIMITS, LIMITED]),
    )
    def submit(self, count, **fields):
        """Some tasks of one sort come in, unless none are taken."""
        made = []
        if not self.state.pool.takes_work:
            assert not self.do(SubmitTask(Request(task_id="no", created_at=0.0, **fields)))
            return multiple()
        for _ in range(count):
            task_id = f"task-{len(self.submitted) + 1}"
            request = Request(task_id=task_id, created_at=0.0, payload=b"p", **fields)
            self.submitted.add(task_id)
            if fields["on_crash"] == "mark" and not fields["retries"]:
                self.marked.add(task_id)
            assert self.do(SubmitTask(request))
            made.append(task_id)
        return multiple(*made[-2:])

    @rule(task_id=tasks)
    def submit_again(self, task_id):
        """A resend is the same task, whatever became of it."""
        before = dict(self.state.counts)
        self.do(SubmitTask(Request(task_id=task_id, kind="script", created_at=0.0)))
        assert self.state.counts == before

    @precondition(lambda self: self.state.pool.takes_work)
    @rule(target=tasks, first=tasks, second=tasks)
    def follow(self, first, second):
        """A task comes in that is to start when two others have succeeded."""
        task_id = f"task-{len(self.submitted) + 1}"
        request = Request(
            task_id=task_id, kind="script", name="long", created_at=0.0, after=(first, second, first)
        )
        self.submitted.add(task_id)
        assert self.do(SubmitTask(request))
        return task_id

    @rule(task_id=tasks)
    def cancel(self, task_id):
        """It is refused for an ended task only."""
        is_over = task_id in self.ended
        assert self.do(CancelTask(task_id)) is not is_over

    def tried_again(self):
        """The tasks that have failed and are to run again, in order: before their time, or held up since."""
        return [t.task_id for t in self.state.tasks.values() if t.status == "pending" and t.not_before]

    @precondition(lambda self: self.tried_again())
    @rule(draw=st.data(), wait_s=st.sampled_from([0.0, 2.5, 400.0]))
    def cancel_what_is_tried_again(self, draw, wait_s):
        """A person has seen enough of one, at once or when its time has come."""
        task_id = draw.draw(st.sampled_from(self.tried_again()))
        self.now += wait_s
        self.step([])
        assert self.do(CancelTask(task_id))

    @rule(target=tasks, task_id=consumes(tasks))
    def run_again(self, task_id):
        """A finished task is submitted as a new one."""
        new_id = f"task-{len(self.submitted) + 1}"
        if not self.do(RetryTask(task_id, new_id)):
            return task_id
        self.submitted.add(new_id)
        if task_id in self.marked:
            self.marked.add(new_id)
        return new_id

    @rule(bounds=st.sampled_from([(0, 1), (1, 2), (2, 2), (1, 4)]))
    def scale(self, bounds):
        """Another size of the pool."""
        self.do(ScaleWorkers(*bounds))

    @rule(command=st.sampled_from([PausePool(), DrainPool(), ResumePool(), ResumePool(), ResumePool()]))
    def hold_or_resume(self, command):
        """A person stops the flow of work, or lets it go on."""
        assert self.do(command)

    @precondition(lambda self: self.slots)
    @rule(draw=st.data(), at_once=st.booleans())
    def restart_worker(self, draw, at_once):
        """A person wants a fresh one; it is refused for one that could not hear of it."""
        name = draw.draw(st.sampled_from(sorted(self.slots)))
        is_deaf = self.state.workers[name].status == "unresponsive"
        assert self.do(RestartWorker(name, at_once)) is not (is_deaf and not at_once)

    @rule(seconds=st.sampled_from([0.0001, 0.06, 1.0, 2.5, 400.0]), free_mb=st.sampled_from([10, 200, 9_000]))
    def pass_time(self, seconds, free_mb):
        """The clock goes on, the loop wakes, and the host tells of its memory."""
        self.now += seconds
        values = {"memory_available_bytes": free_mb * MB}
        self.step([MetricsSampled(self.now, Metrics(self.now, values))])

    # -- the catalogue ----------------------------------------------------------------------------------------

    @rule(target=scripts, name=st.sampled_from(["one", "two"]), schedule=SCHEDULES, text=st.integers(0, 3))
    def save_script(self, name, schedule, text):
        """A script is added, or changed as it stands; the shop knows when one of its name was last due."""
        entry = self.state.scripts.get(name)
        script = Script(name=name, path="/s.sh", schedule=schedule, description=str(text))
        revision = None if entry is None else entry.revision
        fired_at = self.last_fires.get(name) if entry is None else None
        is_over = schedule is not None and schedule.at is not None and schedule.at <= self.now
        assert self.do(SaveScript(script, revision, fired_at=fired_at)) or is_over
        assert not self.do(SaveScript(script, 1_000)), "a stale change was taken"
        return name

    @rule(name=scripts, is_enabled=st.booleans())
    def enable_script(self, name, is_enabled):
        """A person holds a schedule, or lets it go on."""
        assert self.do(EnableScript(name, is_enabled)) is (name in self.state.scripts)

    @rule(name=scripts)
    def edit_script(self, name):
        """Its text was saved, though it may have been removed meanwhile."""
        self.step([ScriptEdited(self.now, name, "abcd")])

    @rule(name=consumes(scripts))
    def remove_script(self, name):
        """It goes, and leaves its runs."""
        self.do(RemoveScript(name))

    @precondition(lambda self: self.state.pool.takes_work)
    @rule(target=tasks, name=scripts)
    def run_script(self, name):
        """A person runs it now."""
        task_id = f"task-{len(self.submitted) + 1}"
        entry = self.state.scripts.get(name)
        if entry is None:
            assert not self.do(RunScript(name, task_id))
            return multiple()
        request = replace(request_of(entry.script, task_id, {}), name="long")
        self.submitted.add(task_id)
        assert self.do(RunScript(name, task_id, request=request))
        return task_id

    @rule(again=st.booleans())
    def look_at_schedules(self, again):
        """What watches the clock tells what is due, and perhaps tells it twice; runs of late reports are none."""
        reports = []
        for entry in self.state.scripts.values():
            if entry.queued and not entry.active:
                reports.append((entry, entry.queued[0], 0))
            if entry.next_at is not None and entry.next_at <= self.now:
                due, missed = latest_due(entry.script.schedule, entry.next_at, self.now, anchor=entry.anchor)
                reports.append((entry, due, missed))
        for entry, fire_at, missed in reports * (1 + again):
            task_id = f"task-{len(self.submitted) + 1}"
            request = request_of(entry.script, task_id, {}, fire_at=fire_at)
            report = ScheduleDue(entry.name, fire_at, missed, replace(request, name="short"))
            events = conclude(self.state, report, self.now)
            if any(type(event) is TaskSubmitted for event in events):
                self.submitted.add(task_id)
            self.step(events)

    @rule(seconds=st.sampled_from([-4_000.0, -0.5, 61.0, 90_000.0]))
    def set_the_clock(self, seconds):
        """The machine's clock jumps; not back while a retry waits, whose turn is not taken back."""
        waits = any(task.not_before for task in self.state.tasks.values() if task.status == "pending")
        self.now = max(self.now if waits else 1_000.0, self.now + seconds)
        self.step([])

    # -- the engine -------------------------------------------------------------------------------------------

    def has(self, accept):
        """The workers that are so, in order."""
        return sorted(name for name, slot in self.slots.items() if accept(name, slot))

    def starting(self):
        """The workers that are not there yet."""
        return self.has(lambda name, slot: self.state.workers[name].status == "starting")

    def working(self):
        """The workers that hold something."""
        return self.has(lambda name, slot: slot.jobs)

    @precondition(lambda self: self.starting())
    @rule()
    def get_ready(self):
        """Worker processes have started."""
        for name in self.starting():
            self.report(WorkerReady(name, 7))

    @precondition(lambda self: self.working())
    @rule(draw=st.data(), count=st.integers(1, 6))
    def complete(self, draw, count):
        """A worker does some of its jobs, well."""
        name = draw.draw(st.sampled_from(self.working()))
        while count and self.slots[name].jobs:
            count -= 1
            job = self.begin(name)
            self.slots[name].jobs.pop(0)
            duration_s = DURATIONS_S[self.state.tasks[job.task_id].request.name]
            self.now += duration_s
            outcome = Outcome(job.task_id, job.run, value=b"v", usage=Usage(duration_s=duration_s))
            self.report(RunEnded(name, outcome))

    @precondition(lambda self: self.slots)
    @rule(draw=st.data(), report=st.sampled_from([WorkerSilent, WorkerHeard]))
    def fall_silent(self, draw, report):
        """A worker does not answer, or does so again."""
        self.report(report(draw.draw(st.sampled_from(sorted(self.slots)))))

    @precondition(lambda self: any(slot.is_leaving for slot in self.slots.values()))
    @rule(is_killed=st.booleans())
    def leave(self, is_killed):
        """Workers that are to end do so: after what they hold, or killed with it."""
        for name in self.has(lambda name, slot: slot.is_leaving):
            slot = self.slots[name]
            if is_killed or not slot.jobs:
                del self.slots[name]
                signal = 9 if is_killed else None
                self.report(WorkerDied(name, slot.begun, "left", exit_code=0, signal=signal, expected=True))

    @precondition(lambda self: self.working())
    @rule(
        rss_mb=st.sampled_from([1, 63, 65]), cpu_s=st.sampled_from([0.0, 11.0]), processes=st.integers(1, 5)
    )
    def sample(self, rss_mb, cpu_s, processes):
        """What runs is measured; who is over a limit of its own is to end, and nobody else."""
        use = Use(50.0, rss_mb * MB, cpu_s, processes=processes)
        running = [t for t in self.state.tasks.values() if t.status == "in_progress"]
        before = {t.task_id: t.stopping for t in running}
        self.report(RunsSampled([(t.task_id, t.run, use) for t in running]))
        is_over = rss_mb > 64 or cpu_s > 10 or processes > 4
        for task_id, stopping in before.items():
            task = self.state.tasks[task_id]
            assert task.use == use
            is_ended = is_over and task.request.limits is not NO_LIMITS
            assert (task.stopping is not None) is (stopping is not None or is_ended)

    @precondition(lambda self: self.working())
    @rule(draw=st.data(), reason=st.sampled_from(FAILURES))
    def fail(self, draw, reason):
        """A worker ends its first job badly; so does one that was stopped."""
        name = draw.draw(st.sampled_from(self.working()))
        job = self.begin(name)
        self.slots[name].jobs.pop(0)
        self.report(RunEnded(name, Outcome(job.task_id, job.run, reason, "bad")))

    @precondition(lambda self: self.working())
    @rule(draw=st.data())
    def work(self, draw):
        """A worker begins, and tells how far it is."""
        name = draw.draw(st.sampled_from(self.working()))
        job = self.begin(name)
        self.report(RunProgressed(job.task_id, job.run, Progress(0.5), 10))

    def begin(self, name):
        """A worker marks its first job as begun before it does anything of it."""
        slot = self.slots[name]
        job = slot.jobs[0]
        if not slot.is_running:
            slot.begun = job.claim + 1
            self.begun[job.task_id] += 1
            assert job.run == self.runs[job.task_id] + 1, "runs are not counted up"
            self.runs[job.task_id] = job.run
            assert not (job.task_id in self.marked and self.begun[job.task_id] > 1), "a `mark` task ran twice"
        return job

    @precondition(lambda self: self.working())
    @rule(draw=st.data())
    def give_back(self, draw):
        """A worker gives back what it has not begun, recalled or not."""
        name = draw.draw(st.sampled_from(self.working()))
        slot = self.slots[name]
        kept = 1 if slot.is_running else 0
        returned = [job.task_id for job in slot.jobs[kept:]]
        slot.jobs = slot.jobs[:kept]
        self.report(RunsReturned(name, returned))

    @precondition(lambda self: self.working())
    @rule(draw=st.data(), signal=st.sampled_from([9, None]))
    def die(self, draw, signal):
        """A worker process is gone."""
        name = draw.draw(st.sampled_from(sorted(self.slots)))
        slot = self.slots.pop(name)
        self.report(WorkerDied(name, slot.begun, "gone", exit_code=1, signal=signal))

    # -- replicas and crashes ---------------------------------------------------------------------------------

    @rule()
    def lose_the_replica(self):
        """It misses what comes next."""
        self.replica_is_lost = True

    @rule()
    def reset_the_replica(self):
        """It is given the state as bytes, and follows from there."""
        self.replica = State.from_snapshot(decode_snapshot(encode_snapshot(self.state.snapshot())))
        self.replica_is_lost = False

    @rule()
    def reload(self):
        """The hub makes its agenda anew from the state, workers living on, as it does after a failed commit."""
        self.agenda = Agenda.from_state(self.state, batches)
        for name, lane in self.agenda.lanes.items():
            lane.given = self.slots[name].given
        self.stopped = set()
        self.step([])

    @precondition(lambda self: len(self.log) > LIFE)  # else most lives would be too short for anything else
    @rule(has_marks=st.booleans())
    def crash(self, has_marks):
        """The workshop dies with all its workers, and goes on from the stored tasks and, if it has them, the marks."""
        marks = {name: slot.begun for name, slot in self.slots.items()}
        self.slots, self.stopped = {}, set()
        old, self.state = self.state, State(f"{self.state.epoch}'")
        self.state.tasks, self.state.finished = dict(old.tasks), old.finished
        self.state.counts, self.state.order, self.state.pool = dict(old.counts), old.order, old.pool
        self.state.scripts, self.state.executions = dict(old.scripts), old.executions
        events = []
        for task in self.state.tasks.values():
            if task.status == "in_progress":
                begun = marks.get(task.worker_id) if has_marks else None
                is_untouched = begun is not None and task.claim >= begun
                if not is_untouched:
                    self.runs[task.task_id] = task.run
                events.append((give_back if is_untouched else lose)(task, self.now))
        self.log = [("restart", decode_snapshot(encode_snapshot(self.state.snapshot())))]
        self.replica_is_lost = True
        for event in events:
            folded = evolve(self.state, event)
            record = folded.record
            self.log.append(event)
            if (told := ran(folded.fact, record)) is not None:
                evolve(self.state, told)
                self.log.append(told)
                self.executions += told.is_final
            if record.is_finished:
                self.ended[record.task_id] = record
        self.agenda = Agenda.from_state(self.state, batches)
        self.step([])

    # -- what holds, always -----------------------------------------------------------------------------------

    @invariant()
    def tasks_are_conserved(self):
        """No task is lost, none is counted twice."""
        assert set(self.state.tasks) == self.submitted
        counted = Counter(task.status for task in self.state.tasks.values())
        assert self.state.counts == {status: counted[status] for status in STATUSES}

    @invariant()
    def a_due_time_has_one_run(self):
        """Whatever becomes of clocks, workshops and definitions."""
        assert all(count == 1 for count in self.fired.values()), self.fired

    @invariant()
    def scripts_know_their_runs(self):
        """Active are those that have not ended, and what waits does so for them; all executions are counted."""
        assert self.state.executions == self.executions
        for name, entry in self.state.scripts.items():
            unended = {
                task.task_id
                for task in self.state.tasks.values()
                if task.request.script_name == name and not task.is_finished
            }
            # One that was added anew comes to know of a run of its name when that goes on.
            assert set(entry.active) <= unended
            assert len(set(entry.active)) == len(entry.active)
            schedule = entry.script.schedule
            assert entry.next_at is None or (schedule is not None and entry.script.is_enabled)
            assert not entry.queued or (schedule is not None and entry.script.is_enabled)
            if entry.fired_at is not None and entry.next_at is not None:
                assert entry.next_at > entry.fired_at

    @invariant()
    def finished_stays_finished(self):
        """The record of an ended task is the one with which it ended."""
        for task_id, record in self.ended.items():
            assert self.state.tasks[task_id] == record
        assert len(self.ended) == sum(task.is_finished for task in self.state.tasks.values())

    @invariant()
    def each_run_is_in_one_lane(self):
        """Of a task in progress its worker's lane knows, and no other; and the engine has what the lanes say."""
        lanes = [(task_id, name) for name, lane in self.agenda.lanes.items() for task_id in lane.claims]
        runs = [(t.task_id, t.worker_id) for t in self.state.tasks.values() if t.status == "in_progress"]
        assert sorted(lanes) == sorted(runs)
        assert sorted(lanes) == sorted(
            (job.task_id, name) for name, slot in self.slots.items() for job in slot.jobs
        )
        assert set(self.agenda.lanes) == set(self.state.workers) == set(self.slots)

    @invariant()
    def what_is_to_be_stopped_is_stopped(self):
        """Whoever asked for the end of a run, the engine was told."""
        stopping = {(t.task_id, t.run) for t in self.state.tasks.values() if t.stopping and not t.is_finished}
        assert stopping <= self.stopped

    @invariant()
    def old_reports_change_nothing(self):
        """The end of another run, on another worker, or of an ended task leads to nothing."""
        for task in self.state.tasks.values():
            current = (task.run, task.worker_id) if task.status == "in_progress" else None
            for run, worker_id in (
                (task.run, task.worker_id),
                (task.run - 1, task.worker_id),
                (task.run, "w-9"),
            ):
                if (run, worker_id) != current and worker_id is not None:
                    report = RunEnded(worker_id, Outcome(task.task_id, run))
                    assert conclude(self.state, report, self.now) == []

    @invariant()
    def windows_are_small(self):
        """However short tasks are."""
        assert all(len(lane.claims) <= WINDOW_TASKS for lane in self.agenda.lanes.values())

    @invariant()
    def nobody_idles_while_work_waits(self):
        """Every task that may start has, or every worker that may take it is at work."""
        tasks = self.state.tasks
        pending = [t for t in tasks.values() if t.status == "pending" and not t.waits_for]
        waiting = [t for t in pending if (t.not_before or 0) <= self.now]
        idle = [name for name, worker in self.state.workers.items() if worker.status == "idle"]
        assert not (waiting and idle)

    @invariant()
    def the_pool_counts_what_waits(self):
        """Those that wait for a worker alone: neither for their time nor for another task, whatever was cancelled."""
        pending = [t for t in self.state.tasks.values() if t.status == "pending" and not t.waits_for]
        waiting = [t for t in pending if (t.not_before or 0) <= self.now]
        assert _waiting(self.state, self.agenda) == len(waiting)

    @invariant()
    def a_held_pool_starts_nothing_and_says_so(self):
        """While it is paused or drained nobody is idle, but `paused`; else nobody is."""
        shown = {worker.status for worker in self.state.workers.values()}
        assert ("idle" if not self.state.pool.starts_work else "paused") not in shown

    @invariant()
    def tasks_follow_what_they_wait_for(self):
        """One that runs or ran waits for nothing; one that waits does so for what has not ended."""
        tasks = self.state.tasks
        for task in tasks.values():
            others = [tasks[task_id].status for task_id in task.request.after]
            if task.status == "pending" and task.waits_for:
                assert not {"failed", "cancelled"} & set(others)
                assert set(others) != {"completed"}
            elif task.status != "cancelled":
                assert set(others) <= {"completed"}

    @invariant()
    def a_cancelled_follower_had_a_reason(self):
        """Whoever was not started for another's sake: that other has not succeeded."""
        tasks = self.state.tasks
        for task in tasks.values():
            if task.reason == "dependency":
                assert {"failed", "cancelled"} & {tasks[other].status for other in task.request.after}
                assert "to follow" in task.message

    @invariant()
    def growth_has_its_reason(self):
        """Every step of the pool's size is told in words, and is a step within the bounds."""
        for note in self.state.notes:
            assert note.details
            if note.event == UP:
                assert note.data["before"] < note.data["workers"] <= 4

    @invariant()
    def workers_say_what_they_do(self):
        """Busy with work, idle without."""
        for name, worker in self.state.workers.items():
            if worker.status in ("idle", "busy"):
                assert (worker.status == "busy") is bool(self.agenda.lanes[name].claims)

    @invariant()
    def the_pool_is_what_is_wanted(self):
        """Never more than the most, but for those that are busy; fewer than the least only while a start must wait."""
        pool = self.state.pool
        alive = [worker for worker in self.state.workers.values() if worker.status != "stopping"]
        slots = len(alive) + sum(map(self.ends_its_run_first, self.state.workers.values()))
        assert slots >= pool.min_workers or self.agenda.respawn_at > self.now or pool.draining
        is_idle = any(worker.status in ("idle", "paused") for worker in alive)
        deaf = [w for w in alive if w.status == "unresponsive" and not self.agenda.lanes[w.worker_id].claims]
        assert len(alive) - len(deaf) <= pool.max_workers or not is_idle

    def ends_its_run_first(self, worker):
        """Whether a worker that is to leave keeps its slot until then."""
        claims = self.agenda.lanes[worker.worker_id].claims
        is_running = any(self.state.tasks[task_id].stopping is None for task_id in claims)
        return worker.status == "stopping" and worker.ended_by is None and is_running

    @invariant()
    def it_wakes_when_something_is_due(self):
        """A delayed task or a time-out is not slept over."""
        due = [t.not_before for t in self.state.tasks.values() if t.status == "pending" and t.not_before]
        due += [at for at, _, _ in self.agenda.deadlines]
        assert all(self.wake_at is not None and self.wake_at <= at for at in due if at > self.now)

    @invariant()
    def a_replica_that_follows_is_equal(self):
        """Whatever it was reset from, it has the same state, but for what only workers need."""
        if not self.replica_is_lost:
            assert self.replica.snapshot() == self.state.snapshot()

    def teardown(self):
        """All events folded into an empty state (or that of the last restart) are the state; a replica converges."""
        if not hasattr(self, "state"):
            return
        events, replayed = self.log, State(self.state.epoch)
        if events and isinstance(events[0], tuple):
            replayed = State.from_snapshot(events[0][1])
            replayed.tasks = {task.task_id: task for task in events[0][1].tasks}
            events = events[1:]
        for event in events:
            evolve(replayed, event)
        assert replayed.snapshot() == self.state.snapshot()
        self.reset_the_replica()
        assert self.replica.snapshot() == self.state.snapshot()


Workshop.TestCase.settings = settings(max_examples=80, stateful_step_count=80, deadline=None)


@pytest.mark.timeout(600)  # finding the shortest life that breaks a promise takes minutes
class TestWorkshop(Workshop.TestCase):
    """Random lives of a workshop."""


def test_a_log_of_submits_is_replayed_in_order():
    """The plainest case of replay, by hand."""
    events = [
        TaskSubmitted(1.0, Request(task_id=f"t{n}", kind="script", created_at=1.0), n) for n in range(1, 4)
    ]
    live, replayed = State("e"), State("e")
    for event in events:
        evolve(live, event)
    for event in decode_events(encode_events(events)):
        evolve(replayed, event)
    assert live.snapshot() == replayed.snapshot()
    assert Recall not in map(type, plan(live, Agenda.from_state(live, batches), 1.0).instructions)
