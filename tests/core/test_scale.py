"""How many workers there are, told as: so much waits for so many workers, then this is decided, for that reason."""

from __future__ import annotations

import pytest

from koubou_panel.core.commands import (
    CancelTask,
    DrainPool,
    PausePool,
    ResumePool,
    ScaleWorkers,
    WorkerReady,
    WorkerSilent,
)
from koubou_panel.core.events import MetricsSampled, PoolChanged, SystemNoted, TaskCompleted
from koubou_panel.core.plan import Retire, Spawn
from koubou_panel.core.records import Limits, Metrics, Pool, Usage
from koubou_panel.core.scale import DOWN, HELD, IDLE_S, PATIENCE_S, UP

GB = 1 << 30


def opened(world, least, most):
    """A pool of these bounds, its least workers ready."""
    world.given(PoolChanged(world.now, Pool(least, most)))
    ready(world)
    return world


def ready(world):
    """Whoever was started is there."""
    instructions = world.plan()
    for one in instructions:
        if type(one) is Spawn:
            world.report(WorkerReady(one.worker_id, 7))
    world.plan()


def notes(world):
    """What was decided, in words, by kind."""
    return [(event.event, event.details) for event in world.events if type(event) is SystemNoted]


def alive(world):
    """The workers that are not on their way out."""
    return sorted(name for name, one in world.state.workers.items() if one.status != "stopping")


def has_free(world, free_bytes):
    """The host says that it has so much memory to give."""
    values = {"memory_available_bytes": free_bytes, "memory_total_bytes": 64 * GB}
    world.given(MetricsSampled(world.now, Metrics(world.now, values)))


def test_it_begins_with_the_least(world):
    """Nobody is started whom nobody needs."""
    assert alive(opened(world, 1, 3)) == ["worker-1"]


@pytest.mark.parametrize(("tasks", "workers"), [(1, 1), (3, 1), (4, 2), (7, 3), (100, 3)])
def test_it_grows_when_more_than_two_tasks_wait_for_each_worker(world, tasks, workers):
    """One of them starts at once and does not wait; then as many workers as there is a pair for, within the bounds."""
    opened(world, 1, 3)
    for _ in range(tasks):
        world.submitted()
    world.plan()
    assert len(alive(world)) == workers


def test_growth_is_told_with_its_reason(world):
    """As a system event, in words and in numbers."""
    opened(world, 1, 3)
    for _ in range(8):
        world.submitted()
    world.plan()
    (note,) = [event for event in world.events if type(event) is SystemNoted]
    assert (note.event, note.details) == (UP, "up from 1 to 3 workers: 7 tasks wait")
    assert note.data == {"before": 1, "workers": 3}


def test_a_pool_of_none_starts_one_for_a_task(world):
    """MIN may be 0."""
    opened(world, 0, 2)
    assert alive(world) == []
    world.submitted()
    assert world.plan() == [Spawn("worker-1")]
    assert notes(world) == [(UP, "up from 0 to 1 worker: a task waits")]


def test_one_task_that_waits_for_long_gets_a_worker(world):
    """Two long tasks do not run one after the other where there may be two workers."""
    opened(world, 1, 3)
    world.submitted()
    world.submitted()
    assert Spawn("worker-2") not in world.plan()
    assert world.wake_at == world.now + PATIENCE_S
    world.pass_time(PATIENCE_S)
    assert world.plan() == [Spawn("worker-2")]
    assert notes(world) == [(UP, "up from 1 to 2 workers: a task has waited 2 s while all were busy")]


def test_a_worker_that_is_about_to_be_there_is_waited_for(world):
    """While one starts, patience does not run out."""
    opened(world, 1, 3)
    for _ in range(4):
        world.submitted()
    assert world.plan()[-1] == Spawn("worker-2")
    world.pass_time(PATIENCE_S * 3)
    assert world.plan() == []


def test_it_shrinks_after_a_long_idle_time(world):
    """To the least, the idle ones only, and says why."""
    opened(world, 1, 3)
    ids = [world.submitted() for _ in range(8)]
    ready(world)
    for _ in range(3):
        for task_id in ids:
            if world.task(task_id).status == "in_progress":
                world.end(task_id)
        world.plan()
    assert world.wake_at == world.now + IDLE_S
    world.pass_time(IDLE_S)
    assert len([one for one in world.plan() if type(one) is Retire]) == 2
    assert notes(world)[-1] == (DOWN, "down from 3 to 1 worker: worker-1, worker-2 idle for 30 s")
    assert world.plan() == []


def test_a_busy_worker_is_never_too_many(world):
    """Only who is idle goes; the pool is as large as its work."""
    opened(world, 1, 2)
    ids = [world.submitted() for _ in range(4)]
    ready(world)
    for task_id in ids[:3]:
        world.end(task_id)
        world.plan()
    world.pass_time(IDLE_S)
    (retire,) = world.plan()
    assert retire.worker_id != world.task(ids[3]).worker_id


def test_the_least_stay_however_idle(world):
    """Bounds are bounds."""
    opened(world, 2, 2)
    world.pass_time(IDLE_S * 100)
    assert world.plan() == []


def test_growth_is_held_when_the_next_task_finds_no_memory(world):
    """What tasks of its name took lately is what it is thought to need; it is said once, not at every look."""
    opened(world, 1, 3)
    first = world.submitted(name="large")
    world.plan()
    used = Usage(peak_rss_bytes=int(6.1 * GB))
    world.given(TaskCompleted(world.now, first, 1, usage=used))
    has_free(world, int(3.2 * GB))
    for _ in range(5):
        world.submitted(name="large")
    world.plan()
    has_free(world, int(3.1 * GB))
    world.plan()
    assert alive(world) == ["worker-1"]
    assert notes(world) == [(HELD, "held: 3.2 GB free, needs about 6.1 GB (1 worker; 4 tasks wait)")]


def test_growth_goes_on_when_there_is_memory_again(world):
    """As far as it reaches."""
    opened(world, 1, 9)
    limits = Limits(memory_bytes=GB)
    has_free(world, GB // 2)
    for _ in range(9):
        world.submitted(limits=limits)
    world.plan()
    assert alive(world) == ["worker-1"]
    world.pass_time(1.0)
    has_free(world, 2 * GB)
    world.plan()
    assert [event for event, _ in notes(world)] == [HELD, UP]
    assert len(alive(world)) == 3


def test_a_task_that_is_too_large_is_not_held_for_ever(world):
    """While nothing runs there is nothing to wait for: it starts, and is told what it needs if it fails."""
    opened(world, 0, 3)
    has_free(world, GB)
    world.submitted(limits=Limits(memory_bytes=8 * GB))
    assert world.plan() == [Spawn("worker-1")]


def test_waiting_in_turn_is_not_waiting_for_long(world):
    """One that was served in time says nothing of the next."""
    opened(world, 1, 3)
    ids = [world.submitted(), world.submitted()]
    world.plan()
    for _ in range(10):
        world.pass_time(PATIENCE_S * 0.9)
        world.end(ids.pop(0))
        ids.append(world.submitted())
        world.plan()
    assert alive(world) == ["worker-1"]


def test_the_last_healthy_worker_stays(world):
    """Silent ones are none that could take a task."""
    opened(world, 1, 3)
    ids = [world.submitted() for _ in range(8)]
    ready(world)
    for name in ("worker-1", "worker-2"):
        world.report(WorkerSilent(name))
    for task_id in ids:
        if world.task(task_id).status == "in_progress" and world.task(task_id).worker_id == "worker-3":
            world.end(task_id)
            world.plan()
    for task_id in ids:
        if world.task(task_id).status == "pending":
            world.do(CancelTask(task_id))
    for task_id in ids:
        if world.task(task_id).worker_id == "worker-3" and not world.task(task_id).is_finished:
            world.end(task_id)
    world.plan()
    world.pass_time(IDLE_S * 2)
    assert world.plan() == []


def test_what_waits_for_its_retry_hides_no_queue(world):
    """Nor does one that was cancelled while it waited for that."""
    opened(world, 1, 3)
    for _ in range(5):
        task_id = world.submitted(retries=1)
        world.plan()
        world.end(task_id, reason="exit")
        world.do(CancelTask(task_id))
    for _ in range(6):
        world.submitted()
    world.plan()
    assert len(alive(world)) == 3


def test_a_size_of_long_ago_is_forgotten_with_its_bounds(world):
    """Wider bounds are no reason to start what nobody waits for."""
    opened(world, 1, 3)
    ids = [world.submitted() for _ in range(8)]
    ready(world)
    for task_id in ids:
        if not world.task(task_id).is_finished:
            world.do(CancelTask(task_id))
    world.do(ScaleWorkers(1, 1))
    world.plan()
    world.do(ScaleWorkers(1, 3))
    assert world.plan() == []


def test_old_news_of_memory_holds_nobody(world):
    """A sampler that has stopped does not stop the pool."""
    opened(world, 1, 3)
    has_free(world, 0)
    world.pass_time(60.0)
    for _ in range(9):
        world.submitted()
    world.plan()
    assert len(alive(world)) == 3


def test_a_paused_pool_does_not_grow(world):
    """What waits is not to start; its idle workers say so, and go on when it is resumed."""
    opened(world, 1, 3)
    world.do(PausePool())
    for _ in range(9):
        world.submitted()
    assert world.plan() == []
    assert world.state.workers["worker-1"].status == "paused"
    world.do(ResumePool())
    world.plan()
    assert world.state.workers["worker-1"].status == "busy"
    assert len(alive(world)) == 3


def test_a_drained_pool_takes_work_again_when_it_is_resumed(world):
    """A drain by a person is not for ever."""
    opened(world, 1, 3)
    world.do(DrainPool())
    world.do(ResumePool())
    task_id = world.do(world.submission())[0].request.task_id
    world.plan()
    assert world.task(task_id).status == "in_progress"


def test_a_dead_worker_does_not_make_the_pool_smaller(world):
    """Whoever replaces it starts at once, beyond the least too."""
    opened(world, 1, 3)
    for _ in range(8):
        world.submitted()
    ready(world)
    world.die("worker-3", begun=1)
    assert Spawn("worker-3") in world.plan()


def test_new_bounds_count_at_once(world):
    """Raising MIN starts workers; lowering MAX lets idle ones go."""
    opened(world, 1, 3)
    world.do(ScaleWorkers(3, 4))
    assert world.plan() == [Spawn("worker-2"), Spawn("worker-3")]
    for name in ("worker-2", "worker-3"):
        world.report(WorkerReady(name, 7))
    world.do(ScaleWorkers(0, 1))
    assert len(world.plan()) == 2
    assert len(alive(world)) == 1


def test_what_was_cancelled_counts_for_nothing(world):
    """A queue that a person has emptied starts nobody."""
    opened(world, 1, 3)
    world.do(PausePool())
    for _ in range(9):
        world.submitted()
    for task_id in list(world.state.tasks)[2:]:
        world.do(CancelTask(task_id))
    world.do(ResumePool())
    world.plan()
    assert alive(world) == ["worker-1"]


@pytest.mark.parametrize("is_due", [False, True])
def test_what_was_cancelled_after_a_failure_counts_for_nothing(world, is_due):
    """Whether it waited to be tried again, or had its time and waited for a worker."""
    opened(world, 1, 8)
    failed = [world.started(retries=1) for _ in range(9)]
    for task_id in failed:
        world.end(task_id, reason="exit")
    world.do(PausePool())
    world.pass_time(60.0 if is_due else 0.0).plan()
    for task_id in failed:
        world.do(CancelTask(task_id))
    world.do(ResumePool())
    world.pass_time(60.0).plan()
    for _ in range(2):
        world.submitted()
    world.plan()
    assert alive(world) == ["worker-1"]
