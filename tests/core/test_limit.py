"""Limits: what is refused, what is ended, and the words for it."""

from __future__ import annotations

import pytest

from koubou_panel.core.commands import RunsSampled, SendInput
from koubou_panel.core.events import MetricsSampled, StopRequested, TasksSampled
from koubou_panel.core.plan import Stop
from koubou_panel.core.quantity import size_text
from koubou_panel.core.records import Limits, Metrics, Usage, Use
from koubou_panel.errors import Refused

MB, GB = 1 << 20, 1 << 30


@pytest.mark.parametrize(
    ("limits", "field"),
    [
        (Limits(memory_bytes=0), "memory_bytes"),
        (Limits(memory_bytes=1000), "memory_bytes"),
        (Limits(cpu_s=0.0), "cpu_s"),
        (Limits(cpu_s=float("nan")), "cpu_s"),
        (Limits(cpu_s=float("inf")), "cpu_s"),
        (Limits(processes=0), "processes"),
        (Limits(output_bytes=10), "output_bytes"),
        (Limits(memory_bytes=2**62), "memory_bytes"),
        (Limits(processes=2**31), "processes"),
    ],
)
def test_a_limit_that_cannot_be_kept_is_refused(world, limits, field):
    """The field is named, with its least and its most."""
    with pytest.raises(Refused, match=r"must be [\d.]+ to \d+ (bytes|seconds|processes)$") as refusal:
        world.do(world.submission(limits=limits))
    assert (refusal.value.code, refusal.value.field) == ("invalid", f"limits.{field}")


@pytest.mark.parametrize(
    ("limits", "use", "reason", "message"),
    [
        (
            Limits(memory_bytes=2 * GB),
            Use(1.0, 3 * GB, 1.0),
            "memory",
            "killed: reached its 2 GB memory limit",
        ),
        (Limits(cpu_s=60.0), Use(1.0, 1, 60.5), "killed", "killed: used its 60 s of processor time"),
        (
            Limits(processes=4),
            Use(1.0, 1, 1.0, processes=5),
            "killed",
            "killed: ran more than its 4 processes",
        ),
    ],
)
def test_a_run_over_its_limit_is_ended_with_the_reason(make_world, limits, use, reason, message):
    """Whatever the signal that ended it in the end: the task says which limit it was."""
    world = make_world(1)
    task_id = world.submitted(limits=limits)
    world.plan()
    sampled, stop = world.report(RunsSampled([(task_id, 1, use)]))
    assert (type(sampled), type(stop)) == (TasksSampled, StopRequested)
    (instruction,) = [one for one in world.plan() if type(one) is Stop]
    assert instruction.cause == stop.cause
    world.end(task_id, reason="killed", message="killed by signal 9", exit_code=137)
    task = world.task(task_id)
    assert (task.status, task.reason, task.message) == ("failed", reason, message)


def test_a_run_within_its_limits_goes_on(make_world):
    """Exactly at a limit is within it."""
    world = make_world(1)
    task_id = world.submitted(limits=Limits(memory_bytes=MB, cpu_s=1.0, processes=2))
    world.plan()
    assert len(world.report(RunsSampled([(task_id, 1, Use(1.0, MB, 1.0, processes=2))]))) == 1


def test_a_run_that_is_being_stopped_is_stopped_once(make_world):
    """Further samples over the limit ask for nothing more."""
    world = make_world(1)
    task_id = world.submitted(limits=Limits(memory_bytes=MB))
    world.plan()
    over = RunsSampled([(task_id, 1, Use(1.0, GB, 1.0))])
    assert len(world.report(over)) == 2
    assert len(world.report(over)) == 1


def test_samples_of_another_run_are_nothing(make_world):
    """A sample that was taken before a run ended says nothing about the next."""
    world = make_world(1)
    task_id = world.submitted()
    world.plan()
    assert world.report(RunsSampled([(task_id, 2, Use(1.0, 1, 1.0)), ("nobody", 1, Use(1.0, 1, 1.0))])) == []


def test_what_was_seen_of_the_tree_is_on_the_record(make_world):
    """Peaks and totals of the samples, or what the worker told at the end where that is more."""
    world = make_world(1)
    task_id = world.submitted()
    world.plan()
    first = Use(
        90.0, 5 * MB, 1.0, read_bytes=10, written_bytes=20, threads=3, processes=2, gpu_memory_bytes=7
    )
    for use in (first, Use(10.0, MB, 2.0, read_bytes=15, written_bytes=20)):
        world.report(RunsSampled([(task_id, 1, use)]))
    assert world.task(task_id).use.cpu_percent == 10.0
    assert world.task(task_id).usage.peak_rss_bytes == 5 * MB
    world.end(task_id, usage=Usage(cpu_s=2.5, peak_rss_bytes=MB, output_bytes=3, duration_s=9.0))
    task = world.task(task_id)
    assert task.use is None
    assert task.usage == Usage(2.5, 5 * MB, 3, 9.0, 15, 20, 3, 2, 7)


@pytest.mark.parametrize(("free_mb", "reason"), [(80, "memory"), (8_000, "killed")])
def test_a_kill_that_nobody_here_sent_is_explained(make_world, free_mb, reason):
    """Where the host was short of memory in the last seconds, it was likely that."""
    world = make_world(1)
    values = {"memory_available_bytes": free_mb * MB, "memory_total_bytes": 64 * GB}
    if free_mb < 1000:
        values["memory_total_bytes"] = 2 * GB
    world.given(MetricsSampled(world.now, Metrics(world.now, values)))
    task_id = world.submitted()
    world.plan()
    world.end(task_id, reason="killed", message="killed by signal 9 (SIGKILL)", exit_code=137)
    task = world.task(task_id)
    assert task.reason == reason
    if reason == "memory":
        assert task.message == "killed by signal 9, likely out of memory: the host had 80 MB free"


def test_a_worker_that_was_killed_is_explained_too(make_world):
    """The kernel may have chosen the worker of a function."""
    world = make_world(1)
    values = {"memory_available_bytes": MB, "memory_total_bytes": GB}
    world.given(MetricsSampled(world.now, Metrics(world.now, values)))
    task_id = world.submitted()
    world.plan()
    world.die("worker-1", begun=1)
    assert world.task(task_id).reason == "memory"


@pytest.mark.parametrize(
    ("size_bytes", "words"),
    [
        (0, "0 B"),
        (812, "812 B"),
        (80 * MB, "80 MB"),
        (2 * GB, "2 GB"),
        (6.1 * GB, "6.1 GB"),
        (999 * GB, "999 GB"),
        (2048 * GB, "2 TB"),
    ],
)
def test_sizes_are_told_as_people_do(size_bytes, words):
    """In powers of 1,024, with one digit where it matters."""
    assert size_text(size_bytes) == words


def test_only_a_running_task_with_an_input_takes_input(make_world):
    """Else it is said what helps."""
    world = make_world(1)
    task_id = world.submitted()
    with pytest.raises(Refused, match="is pending"):
        world.do(SendInput(task_id, b"x"))
    world.plan()
    with pytest.raises(Refused, match="run -i"):
        world.do(SendInput(task_id, b"x"))
    able = world.submitted(spec={"stdin": True})
    world.end(task_id)
    world.plan()
    assert world.do(SendInput(able, b"x")) == []
