"""The fold: facts move the state, samples colour it, and what cannot follow is a corrupt stream."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from koubou_panel.core import fold
from koubou_panel.core.events import (
    MetricsSampled,
    OutputGrew,
    SystemNoted,
    TaskCompleted,
    TaskProgressed,
    TaskReturned,
    TaskStarted,
    TaskSubmitted,
    WorkerChanged,
    WorkerSampled,
    WorkerStarted,
    WorkerStopped,
)
from koubou_panel.core.fold import evolve
from koubou_panel.core.records import Fault, Metrics, Progress
from koubou_panel.core.state import KEEP_FINISHED, KEEP_METRICS, KEEP_NOTES, State
from koubou_panel.errors import CorruptStream


def test_each_fact_gets_its_place_in_its_channel(world):
    """Places count from 1 in each channel, without a gap, whatever comes between."""
    world.given(
        SystemNoted(1.0, "a", ""),
        TaskSubmitted(1.0, world.request("t"), 1),
        WorkerStarted(1.0, "w", "here"),
        WorkerSampled(1.0, "w", 1.0, 2),
        SystemNoted(1.0, "b", ""),
        WorkerStopped(1.0, "w", "left"),
    )
    assert [(one.fact.channel, one.seq) for one in world.folded] == [
        ("system", 1),
        ("task", 1),
        ("worker", 1),
        ("system", 2),
        ("worker", 2),
    ]


def test_a_fact_comes_with_the_record_as_it_then_stood(world):
    """Later facts do not change what was told with an earlier one."""
    world.given(TaskSubmitted(1.0, world.request("t"), 1), WorkerStarted(1.0, "w", "here"))
    world.given(TaskStarted(2.0, "t", 1, "w", "here", 0))
    assert [one.record.status for one in world.folded] == ["pending", "starting", "in_progress"]


@pytest.mark.parametrize(
    "fact",
    [
        TaskStarted(1.0, "nobody", 1, "w", "here", 0),
        TaskCompleted(1.0, "nobody", 1),
        TaskCompleted(1.0, "pending", 1),
        TaskReturned(1.0, "pending", 1),
        TaskStarted(1.0, "done", 2, "w", "here", 0),
        TaskCompleted(1.0, "done", 1),
        WorkerChanged(1.0, "nobody", "idle"),
        WorkerStopped(1.0, "nobody", ""),
    ],
)
def test_a_fact_that_cannot_follow_is_a_corrupt_stream(make_world, fact):
    """A fact that was lost, repeated or made by a bug is not guessed around, and changes nothing."""
    world = make_world(1)
    for task_id in ("pending", "done"):
        world.given(TaskSubmitted(1.0, world.request(task_id), world.state.order + 1))
    world.claimed("done")
    world.end("done")
    before = world.state.snapshot()
    with pytest.raises(CorruptStream):
        evolve(world.state, fact)
    assert world.state.snapshot() == before


def test_a_second_submit_of_an_id_is_a_corrupt_stream(world):
    """`decide` lets none through."""
    task_id = world.submitted()
    with pytest.raises(CorruptStream, match="twice"):
        evolve(world.state, TaskSubmitted(1.0, world.request(task_id), 2))


def test_late_samples_are_dropped(make_world):
    """Of another run, of an ended one, of what nobody knows: a sample never fails."""
    world = make_world(1)
    task_id = world.started()
    before = world.state.snapshot()
    world.given(
        TaskProgressed(1.0, task_id, 7, Progress(0.5)),
        TaskProgressed(1.0, "nobody", 1, Progress(0.5)),
        OutputGrew(1.0, task_id, 0, 9),
        WorkerSampled(1.0, "nobody", 1.0, 2),
    )
    assert world.state.snapshot() == before
    world.end(task_id)
    before = world.state.snapshot()
    world.given(TaskProgressed(1.0, task_id, 1, Progress(0.5)), OutputGrew(1.0, task_id, 1, 9))
    assert world.state.snapshot() == before


def test_progress_that_is_not_known_any_more_is_gone(make_world):
    """A sample without any field takes back what was said before."""
    world = make_world(1)
    task_id = world.started()
    world.given(TaskProgressed(1.0, task_id, 1, Progress(0.9)))
    world.given(TaskProgressed(2.0, task_id, 1, Progress()))
    assert world.task(task_id).progress is None


def test_a_new_attempt_has_no_progress_yet(make_world):
    """What the last attempt had reached does not show for the next."""
    world = make_world(1)
    task_id = world.started(retries=1)
    world.given(TaskProgressed(1.0, task_id, 1, Progress(0.9)))
    world.end(task_id, reason="exit")
    assert world.task(task_id).progress is None


def test_finished_tasks_leave_the_state_in_the_order_of_their_end(make_world, monkeypatch):
    """The last so many stay; counts are of all there ever were."""
    monkeypatch.setattr(fold, "KEEP_FINISHED", 3)
    world = make_world(1)
    waiting = world.submitted()
    ids = [world.started() for _ in range(5)]
    for task_id in reversed(ids):
        world.end(task_id)
    assert list(world.state.finished) == [ids[2], ids[1], ids[0]]
    assert set(world.state.tasks) == {waiting, *ids[:3]}
    assert world.state.counts == {"pending": 1, "in_progress": 0, "completed": 5, "failed": 0, "cancelled": 0}
    assert KEEP_FINISHED == 2_000


def test_notes_and_metrics_are_the_last_ones(world):
    """Bounded, the latest last."""
    for number in range(KEEP_METRICS + 5):
        world.given(SystemNoted(1.0, "noted", str(number)))
        world.given(MetricsSampled(1.0, Metrics(float(number), {})))
    assert [note.details for note in world.state.notes] == [str(n) for n in range(705, 905)]
    assert len(world.state.notes) == KEEP_NOTES
    assert [sample.at for sample in world.state.metrics] == [float(n) for n in range(5, 905)]


def test_the_last_note_of_a_crash_stays(world):
    """The pool may scale all day: what a crash left is still told. Of two crashes the last one is."""
    for told in ("recovered", "storage_recovered"):
        world.given(SystemNoted(1.0, told, told))
        for number in range(KEEP_NOTES + 5):
            world.given(SystemNoted(2.0, "scaled_up", str(number)))
        assert [world.state.notes[0].details, world.state.notes[-1].details] == [told, str(KEEP_NOTES + 4)]
        assert len(world.state.notes) == KEEP_NOTES


def test_workers_count_what_they_did(make_world):
    """Each for itself, and all together, those that are gone too; a cancel counts for nobody."""
    world = make_world(2)
    for worker_id, reason in (("worker-1", None), ("worker-1", "exit"), ("worker-2", None)):
        world.end(world.started(worker_id), reason=reason)
    world.die("worker-1", begun=9)
    assert world.state.worker_totals == (2, 1)
    assert (world.state.workers["worker-2"].completed, world.state.workers["worker-2"].failed) == (1, 0)


def test_a_stopped_worker_is_told_once_more(make_world):
    """The last record says offline, and the worker is gone from the state."""
    world = make_world(1)
    world.die(begun=0)
    assert world.folded[-1].record.status == "offline"
    assert world.state.workers == {}


def test_a_worker_keeps_its_pid(make_world):
    """A change that says none leaves it."""
    world = make_world(1)
    world.given(WorkerChanged(1.0, "worker-1", "busy", "t"))
    assert world.state.workers["worker-1"].pid == 100


# -- snapshots ------------------------------------------------------------------------------------------------


def test_a_snapshot_is_a_copy(make_world):
    """What happens after it does not change it."""
    world = make_world(1)
    world.started()
    snapshot = world.state.snapshot()
    before = replace(snapshot)
    world.given(SystemNoted(1.0, "noted", ""), MetricsSampled(1.0, Metrics(1.0, {})))
    world.end("task-1")
    world.die(begun=9)
    assert snapshot == before


def test_a_snapshot_carries_no_payload_and_the_metrics_asked_for(world):
    """A replica runs nothing, and may need few samples."""
    world.submitted(payload=b"p")
    for number in range(5):
        world.given(MetricsSampled(1.0, Metrics(float(number), {})))
    snapshot = world.state.snapshot(metrics=2)
    assert snapshot.tasks[0].request.payload == b""
    assert [sample.at for sample in snapshot.metrics] == [3.0, 4.0]
    assert world.state.snapshot(metrics=0).metrics == []
    assert world.task("task-1").request.payload == b"p"


def test_a_state_from_a_snapshot_goes_on(make_world):
    """The next fact has the next place, and finds its task."""
    world = make_world(1)
    task_id = world.started()
    replica = State.from_snapshot(world.state.snapshot())
    fact = TaskCompleted(5.0, task_id, 1)
    assert evolve(replica, fact) == evolve(world.state, fact)
    assert replica.snapshot() == world.state.snapshot()


def test_a_run_that_begins_again_says_nothing_of_the_last(make_world):
    """The words of the attempt before would read as if this one were about to end."""
    world = make_world(1)
    task_id = world.submitted(retries=1)
    world.plan()
    world.end(task_id, reason="exit", message="exited with code 3", error=Fault("E", "m"))
    assert world.task(task_id).message == "exited with code 3"
    world.pass_time(60.0)
    world.plan()
    task = world.task(task_id)
    assert (task.status, task.run, task.message, task.error) == ("in_progress", 2, "", None)
