"""Workers that fall silent, are replaced, or keep a slot too long."""

from __future__ import annotations

import pytest

from koubou_panel.core.agenda import LONG_STOP_S
from koubou_panel.core.commands import CancelTask, RestartWorker, WorkerHeard, WorkerReady, WorkerSilent
from koubou_panel.core.plan import Retire, Spawn, Start, Stop
from koubou_panel.errors import Refused


def test_a_silent_worker_is_shown_and_given_nothing(make_world):
    """Its task goes on; the next task goes elsewhere."""
    world = make_world(2)
    running = world.submitted()
    world.plan()
    world.report(WorkerSilent("worker-1"))
    worker = world.state.workers["worker-1"]
    assert (worker.status, worker.current_task, worker.changed_at) == ("unresponsive", running, world.now)
    world.report(WorkerSilent("worker-2"))
    world.submitted()
    assert [one for one in world.plan() if type(one) is Start] == []
    assert world.task(running).status == "in_progress"


@pytest.mark.parametrize("is_busy", [True, False])
def test_a_worker_that_is_heard_again_goes_on(make_world, is_busy):
    """As what it was: with its task, or free for another."""
    world = make_world(1)
    if is_busy:
        world.submitted()
        world.plan()
    world.report(WorkerSilent("worker-1"))
    world.report(WorkerHeard("worker-1"))
    world.plan()
    assert world.state.workers["worker-1"].status == ("busy" if is_busy else "idle")
    assert world.report(WorkerHeard("worker-1")) == []


def test_a_silent_worker_whose_task_ended_is_free_when_heard(make_world):
    """What it is said to do is not older than what it does."""
    world = make_world(1)
    task_id = world.submitted()
    world.plan()
    world.report(WorkerSilent("worker-1"))
    world.end(task_id)
    world.report(WorkerHeard("worker-1"))
    world.plan()
    assert world.state.workers["worker-1"].status == "idle"


def test_the_time_out_of_a_silent_workers_task_counts(make_world):
    """It is one of the two things that end it."""
    world = make_world(1)
    world.submitted(timeout_s=20.0)
    world.plan()
    world.report(WorkerSilent("worker-1"))
    world.pass_time(20.0)
    assert any(type(one) is Stop and one.cause == "timeout" for one in world.plan())


def test_a_person_replaces_a_worker_after_its_task(make_world):
    """It is told to end; another starts when it has, so that never more run than may."""
    world = make_world(1)
    task_id = world.submitted()
    world.plan()
    world.do(RestartWorker("worker-1"), by="cli")
    assert world.plan() == [Retire("worker-1")]
    assert world.task(task_id).stopping is None
    assert world.do(RestartWorker("worker-1")) == []
    world.end(task_id)
    assert world.plan() == [Spawn("worker-2")]


def test_a_person_replaces_a_worker_with_its_task(make_world):
    """At once: what it runs is cancelled by that person."""
    world = make_world(1)
    task_id = world.submitted()
    world.plan()
    world.do(RestartWorker("worker-1", at_once=True), by="cli")
    assert Retire("worker-1", at_once=True) in world.plan()
    world.die("worker-1", begun=1)
    task = world.task(task_id)
    assert (task.status, task.reason, task.message) == ("cancelled", "user", "cancelled by cli")


def test_a_worker_is_not_ended_with_another_task_than_was_meant(make_world):
    """Who asks for one task to be cancelled with its worker is refused once it runs the next one."""
    world = make_world(1)
    first, second = world.submitted(), world.submitted()
    world.plan()
    world.end(first)
    world.plan()
    with pytest.raises(Refused, match="does not run task") as refusal:
        world.do(RestartWorker("worker-1", at_once=True, task_id=first))
    assert (refusal.value.code, refusal.value.field) == ("conflict", "task_id")
    world.do(RestartWorker("worker-1", at_once=True, task_id=second))


def test_only_the_run_of_a_worker_ended_at_once_is_cancelled(make_world):
    """What it held and had not begun goes back; whatever its record said that it was busy with."""
    world = make_world(1)
    world.paced("quick", 0.0001)
    first, running, held = (world.submitted(kind="function", name="quick") for _ in range(3))
    world.plan()
    world.end(first)
    world.do(RestartWorker("worker-1", at_once=True), by="cli")
    world.plan()
    world.end(running, reason="killed", exit_code=137)
    world.die("worker-1", begun=world.task(held).claim)
    assert world.task(running).message == "cancelled by cli"
    assert world.task(held).status == "pending"


def test_an_idle_silent_worker_is_no_slot(make_world):
    """There is nothing in it to wait for: another starts beside it; when it is heard again, one goes."""
    world = make_world(1)
    world.report(WorkerSilent("worker-1"))
    assert world.plan() == [Spawn("worker-2")]
    world.report(WorkerReady("worker-2", 7))
    world.plan()
    world.pass_time(60.0)
    assert world.plan() == []
    world.report(WorkerHeard("worker-1"))
    assert [type(one) for one in world.plan()] == [Retire]


def test_a_silent_worker_is_replaced_only_at_once(make_world):
    """It would not hear that it is to end after its task."""
    world = make_world(1)
    world.report(WorkerSilent("worker-1"))
    with pytest.raises(Refused, match="--now") as refusal:
        world.do(RestartWorker("worker-1"))
    assert refusal.value.code == "conflict"
    world.do(RestartWorker("worker-1", at_once=True))


def test_an_unknown_worker_cannot_be_replaced(make_world):
    """The nearest name is told."""
    with pytest.raises(Refused, match="worker-1") as refusal:
        make_world(1).do(RestartWorker("worker-11"))
    assert refusal.value.code == "not_found"


def test_a_run_that_is_long_in_ending_keeps_no_slot(make_world):
    """After a second its worker counts no more: another starts in its place, and it leaves with its run."""
    world = make_world(1)
    stubborn = world.submitted()
    world.plan()
    world.do(CancelTask(stubborn))
    assert [type(one) for one in world.plan()] == [Stop]
    assert world.wake_at == world.now + LONG_STOP_S
    world.pass_time(LONG_STOP_S)
    assert world.plan() == [Retire("worker-1"), Spawn("worker-2")]
    assert world.task(stubborn).status == "in_progress"


def test_a_worker_whose_run_is_being_ended_is_given_nothing(make_world):
    """However short the tasks: what ends that run might end the next one."""
    world = make_world(1)
    world.paced("quick", 0.0001)
    running = world.submitted(kind="function", name="quick")
    world.plan()
    world.do(CancelTask(running))
    world.submitted(kind="function", name="quick")
    assert [type(one) for one in world.plan()] == [Stop]
    world.end(running, reason="killed")
    assert [type(one) for one in world.plan()] == [Start]


def test_a_run_that_ends_in_time_keeps_its_worker(make_world):
    """Most do."""
    world = make_world(1)
    task_id = world.submitted()
    world.plan()
    world.do(CancelTask(task_id))
    world.plan()
    world.end(task_id, reason="killed")
    world.pass_time(LONG_STOP_S)
    assert world.plan() == []
