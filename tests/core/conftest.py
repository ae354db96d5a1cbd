"""A workshop without a shell: facts are given, a command is made, what follows is looked at. Time is set by hand."""

from __future__ import annotations

import pytest

from koubou_panel.core.agenda import Agenda
from koubou_panel.core.commands import RunEnded, RunsReturned, SubmitTask, WorkerDied, WorkerReady
from koubou_panel.core.conclude import conclude
from koubou_panel.core.decide import Context, decide
from koubou_panel.core.events import PoolChanged, TaskCompleted, TaskStarted, TaskSubmitted
from koubou_panel.core.fold import evolve
from koubou_panel.core.plan import Start, plan
from koubou_panel.core.records import Outcome, Pool, Request, TaskId, Usage, WorkerId
from koubou_panel.core.state import State


class World:
    """State and agenda, kept as the hub keeps them: what is decided is folded at once, and noted."""

    def __init__(self, workers=0):
        self.now = 1_000.0
        self.state = State("epoch")
        self.agenda = Agenda(lambda kind: kind == "function")
        self.events = []
        self.folded = []
        self._count = 0
        if workers:
            self.given(PoolChanged(self.now, Pool(workers, workers)))
            self.plan()
            for worker_id in list(self.state.workers):
                self.report(WorkerReady(worker_id, 100))
            self.plan()

    # -- given ------------------------------------------------------------------------------------------------

    def given(self, *events):
        """These happened."""
        folded = [evolve(self.state, event) for event in events]
        facts = [one for one in folded if one is not None]
        self.agenda.note(facts)
        self.events += events
        self.folded += facts
        return self

    def submitted(self, *, status="pending", **fields):
        """A task was submitted; its id."""
        task_id = self.new_id()
        request = self.request(task_id, **fields)
        self.given(TaskSubmitted(self.now, request, self.state.order + 1))
        return task_id

    def started(self, worker_id="worker-1", **fields):
        """A task was submitted and claimed; its id."""
        task_id = self.submitted(**fields)
        self.claimed(task_id, worker_id)
        return task_id

    def claimed(self, task_id, worker_id="worker-1"):
        """A pending task was claimed for a worker."""
        run = self.state.tasks[task_id].run + 1
        given = self.agenda.lanes[worker_id].given
        self.given(TaskStarted(self.now, task_id, run, WorkerId(worker_id), "here", given))

    def paced(self, name, duration_s, worker_id="worker-1"):
        """A function of that name ran, and took so long."""
        task_id = self.started(worker_id, kind="function", name=name)
        self.given(TaskCompleted(self.now, task_id, 1, usage=Usage(duration_s=duration_s)))
        self.plan()

    # -- when -------------------------------------------------------------------------------------------------

    def do(self, command, **context):
        """What a command leads to; it is folded. Raises Refused."""
        events = decide(self.state, command, Context(self.now, **context))
        self.given(*events)
        return events

    def report(self, report):
        """What an engine's report leads to; it is folded."""
        events = conclude(self.state, report, self.now)
        self.given(*events)
        return events

    def end(self, task_id, **outcome):
        """What the end of a run leads to."""
        task = self.state.tasks[task_id]
        return self.report(RunEnded(task.worker_id, Outcome(task_id, task.run, **outcome)))

    def die(self, worker_id="worker-1", *, begun, signal=9, **fields):
        """What the death of a worker leads to."""
        return self.report(
            WorkerDied(WorkerId(worker_id), begun, "killed by signal 9", signal=signal, **fields)
        )

    def give_back(self, worker_id, *task_ids):
        """What follows when a worker gives back runs."""
        return self.report(RunsReturned(WorkerId(worker_id), list(task_ids)))

    def plan(self):
        """What the shell is to do now; the plan's facts are folded, until it has no more."""
        instructions = []
        for _ in range(20):
            planned = plan(self.state, self.agenda, self.now, node="here")
            instructions += planned.instructions
            self.wake_at = planned.wake_at
            if not planned.events:
                return instructions
            self.given(*planned.events)
        raise AssertionError("the plan finds no end")

    def pass_time(self, seconds):
        """Move on."""
        self.now += seconds
        return self

    # -- what is looked at ------------------------------------------------------------------------------------

    def new_id(self):
        """Another id."""
        self._count += 1
        return TaskId(f"task-{self._count}")

    @staticmethod
    def request(task_id="new", *, kind="script", **fields):
        """A request."""
        return Request(task_id=TaskId(task_id), kind=kind, created_at=0.0, **fields)

    def submission(self, **fields):
        """A command that submits a new task."""
        return SubmitTask(self.request(self.new_id(), **fields))

    def task(self, task_id):
        """A task's record."""
        return self.state.tasks[task_id]

    @staticmethod
    def handed(instructions):
        """What was handed to whom: task ids by worker."""
        return {
            one.worker_id: [job.task_id for job in one.jobs] for one in instructions if type(one) is Start
        }


@pytest.fixture
def world():
    """A workshop with no worker."""
    return World()


@pytest.fixture
def make_world():
    """Makes a workshop with so many idle workers."""
    return World
