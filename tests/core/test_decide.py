"""Commands and reports, told as: given these facts, when this is asked or told, then these facts follow."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from koubou_panel.core.commands import (
    CancelTask,
    CloseShop,
    DrainPool,
    RetryTask,
    RunEnded,
    RunProgressed,
    ScaleWorkers,
    SubmitTask,
    WorkerDied,
    WorkerReady,
)
from koubou_panel.core.conclude import lose
from koubou_panel.core.events import (
    OutputGrew,
    PoolChanged,
    StopRequested,
    TaskCancelled,
    TaskCompleted,
    TaskFailed,
    TaskProgressed,
    TaskRetried,
    TaskReturned,
    TaskSubmitted,
    WorkerChanged,
    WorkerStopped,
)
from koubou_panel.core.records import Fault, Outcome, Pool, Progress, Usage
from koubou_panel.core.retry import LONGEST_DELAY_S, delay_s
from koubou_panel.errors import Refused


@pytest.fixture
def busy(make_world):
    """A workshop whose one worker is there."""
    return make_world(1)


# -- submit ---------------------------------------------------------------------------------------------------


def test_submit_takes_a_task_in(world):
    """It is stamped with the moment and with who asked, and gets the next place in the order."""
    request = world.request(name="n")
    stamped = replace(request, created_at=world.now, submitted_by="ann")
    assert world.do(SubmitTask(request), by="ann") == [TaskSubmitted(world.now, stamped, 1)]
    assert world.do(world.submission())[0].order == 2


def test_a_resent_submit_is_one_task(world):
    """The id says that it is the same; nothing happens."""
    command = SubmitTask(world.request())
    world.do(command)
    assert world.do(command) == []
    assert world.state.counts["pending"] == 1


def test_whoever_submitted_it_for_somebody_is_kept(world):
    """A shell that knows better than its caller's name says so in the request."""
    (event,) = world.do(world.submission(submitted_by="schedule nightly"), by="koubou")
    assert event.request.submitted_by == "schedule nightly"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("priority", 0),
        ("priority", 11),
        ("timeout_s", 0.0),
        ("timeout_s", -1.0),
        ("timeout_s", 1e9),
        ("timeout_s", float("nan")),
        ("timeout_s", float("inf")),
        ("retries", -1),
        ("retries", 1_001),
        ("name", "n" * 201),
        ("summary", "s" * 201),
        ("idempotency_key", "k" * 201),
        ("labels", {"k" * 201: "v"}),
        ("labels", {"k": "v" * 201}),
        ("labels", {str(number): "" for number in range(65)}),
    ],
)
def test_a_request_out_of_range_is_refused(world, field, value):
    """The refusal names the field, and nothing has happened."""
    with pytest.raises(Refused) as refusal:
        world.do(world.submission(**{field: value}))
    assert (refusal.value.code, refusal.value.field) == ("invalid", field)
    assert world.state.tasks == {}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("priority", 1),
        ("priority", 10),
        ("timeout_s", 0.001),
        ("retries", 1_000),
        ("name", "n" * 200),
        ("labels", {f"{number:0200}": "v" * 200 for number in range(64)}),
    ],
)
def test_a_request_at_the_edge_of_its_range_is_taken(world, field, value):
    """The bounds themselves are allowed."""
    assert len(world.do(world.submission(**{field: value}))) == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"spec": {"command": ["\ud800"]}},
        {"spec": {"count": 2**70}},
        {"spec": {"what": object()}},
        {"name": "\udcff"},
        {"labels": {"\ud800": "x"}},
        {"idempotency_key": "\ud800"},
        {"parameters": {"n": 2**70}},
    ],
)
def test_what_cannot_be_stored_is_refused(world, fields):
    """Text that is no Unicode, numbers beyond 64 bits, things that are no data: refused before anybody relies on it."""
    with pytest.raises(Refused, match="cannot be stored") as refusal:
        world.do(world.submission(**fields))
    assert refusal.value.code == "invalid"


@pytest.mark.parametrize(
    ("command", "words"), [(DrainPool(), "koubou resume"), (CloseShop(), "shutting down")]
)
def test_a_draining_workshop_takes_no_work(world, command, words):
    """It says so, and what helps."""
    world.do(command)
    with pytest.raises(Refused, match=words) as refusal:
        world.do(world.submission())
    assert refusal.value.code == "draining"


@pytest.mark.parametrize("command", [CancelTask("t"), DrainPool(), ScaleWorkers(1, 1), RetryTask("t", "u")])
def test_a_reader_may_command_nothing(world, command):
    """Whatever the command, before anything else is looked at."""
    with pytest.raises(Refused, match="only read") as refusal:
        world.do(command, role="read")
    assert refusal.value.code == "forbidden"


# -- cancel ---------------------------------------------------------------------------------------------------


def test_cancel_ends_a_pending_task_at_once(world):
    """It never ran; the message says who did it."""
    task_id = world.submitted()
    assert world.do(CancelTask(task_id), by="ann") == [
        TaskCancelled(world.now, task_id, 0, "user", "cancelled by ann before it started")
    ]


def test_cancel_stops_a_running_task_first(busy):
    """It is cancelled when its run has ended, whatever the signal made of it."""
    task_id = busy.started()
    assert busy.do(CancelTask(task_id), by="ann") == [StopRequested(busy.now, task_id, 1, "user", "ann")]
    usage = Usage(output_bytes=5)
    (event,) = busy.end(task_id, reason="killed", message="killed by signal 15", usage=usage)
    assert event == TaskCancelled(busy.now, task_id, 1, "user", "cancelled by ann", usage)
    assert busy.task(task_id).status == "cancelled"


def test_a_cancel_may_be_for_what_has_not_begun_alone(busy):
    """Then what runs is left alone."""
    running, waiting = busy.started(), busy.submitted()
    with pytest.raises(Refused, match="has begun") as refusal:
        busy.do(CancelTask(running, only_pending=True))
    assert (refusal.value.code, busy.task(running).stopping) == ("conflict", None)
    busy.do(CancelTask(waiting, only_pending=True))
    assert busy.task(waiting).status == "cancelled"


def test_a_second_cancel_changes_nothing(busy):
    """It is being stopped already."""
    task_id = busy.started()
    busy.do(CancelTask(task_id), by="ann")
    assert busy.do(CancelTask(task_id), by="bob") == []


def test_a_run_that_succeeds_all_the_same_is_completed(busy):
    """The cancel came too late; the result is not thrown away."""
    task_id = busy.started()
    busy.do(CancelTask(task_id))
    (event,) = busy.end(task_id, result="42", value=b"v")
    assert type(event) is TaskCompleted
    assert (busy.task(task_id).status, busy.task(task_id).stopping) == ("completed", None)


def test_cancel_of_an_ended_task_is_refused(busy):
    """It says how it ended."""
    task_id = busy.started()
    busy.end(task_id)
    with pytest.raises(Refused, match=r"already ended \(completed") as refusal:
        busy.do(CancelTask(task_id))
    assert refusal.value.code == "conflict"


def test_cancel_of_an_unknown_task_is_refused(world):
    """There is no such task."""
    with pytest.raises(Refused, match="no task nobody") as refusal:
        world.do(CancelTask("nobody"))
    assert refusal.value.code == "not_found"


def test_a_cancelled_task_that_waits_for_a_retry_ends_at_once(busy):
    """Between two attempts it is pending."""
    task_id = busy.started(retries=1)
    busy.end(task_id, reason="exit")
    (event,) = busy.do(CancelTask(task_id))
    assert type(event) is TaskCancelled


# -- retry ----------------------------------------------------------------------------------------------------


def test_retry_submits_the_same_again(busy):
    """As a new task that names the old one, without its idempotency key."""
    task_id = busy.started(name="n", priority=7, idempotency_key="k", labels={"a": "b"}, submitted_by="ann")
    busy.end(task_id, reason="exit", message="exit code 1")
    (event,) = busy.do(RetryTask(task_id, "again"), by="bob")
    request = event.request
    assert (request.task_id, request.rerun_of, request.idempotency_key) == ("again", task_id, None)
    assert (request.name, request.priority, request.labels, request.submitted_by) == (
        "n",
        7,
        {"a": "b"},
        "bob",
    )


def test_retry_may_change_the_spec(busy):
    """The rest stays."""
    task_id = busy.started(spec={"command": ["false"]}, timeout_s=5.0)
    busy.end(task_id, reason="exit")
    (event,) = busy.do(RetryTask(task_id, "again", {"command": ["true"]}))
    assert (event.request.spec, event.request.timeout_s) == ({"command": ["true"]}, 5.0)


def test_retry_takes_the_archives_record_with_its_payload(busy):
    """The state has let the payload go; what the archive found comes with the command."""
    task_id = busy.started(payload=b"function")
    whole = busy.task(task_id)
    busy.end(task_id)
    assert busy.task(task_id).request.payload == b""
    (event,) = busy.do(RetryTask(task_id, "again"), found=replace(whole, status="completed"))
    assert event.request.payload == b"function"


def test_retry_of_a_task_that_left_the_state_is_found(world):
    """The archive's record is enough."""
    task_id = world.submitted()
    old = replace(world.task(task_id), status="completed")
    (event,) = type(world)().do(RetryTask(task_id, "again"), found=old)
    assert event.request.rerun_of == task_id


def test_retry_of_a_task_that_goes_on_is_refused(busy):
    """It says what to do first."""
    task_id = busy.started()
    with pytest.raises(Refused, match="cancel it first") as refusal:
        busy.do(RetryTask(task_id, "again"))
    assert refusal.value.code == "conflict"


# -- the pool -------------------------------------------------------------------------------------------------


def test_scale_sets_the_bounds(world):
    """And says who did."""
    assert world.do(ScaleWorkers(2, 5), by="ann") == [PoolChanged(world.now, Pool(2, 5), "ann")]
    assert world.do(ScaleWorkers(2, 5)) == []


@pytest.mark.parametrize("bounds", [(2, 1), (-1, 1), (0, 0), (1, 257), (300, 300)])
def test_impossible_bounds_are_refused(world, bounds):
    """The refusal gives the range."""
    with pytest.raises(Refused, match="MIN:MAX") as refusal:
        world.do(ScaleWorkers(*bounds))
    assert (refusal.value.code, refusal.value.field) == ("invalid", "max_workers")


def test_drain_keeps_the_bounds(world):
    """A drained pool can be opened again as it was."""
    world.do(ScaleWorkers(2, 5))
    assert world.do(DrainPool()) == [PoolChanged(world.now, Pool(2, 5, draining=True), "")]
    assert world.do(DrainPool()) == []


# -- how a run ends -------------------------------------------------------------------------------------------


def test_a_success_is_completed(busy):
    """With all that the worker told."""
    task_id = busy.started()
    usage = Usage(1.0, 2, 3, 4.0)
    assert busy.end(task_id, exit_code=0, result="ok", value=b"v", usage=usage) == [
        TaskCompleted(busy.now, task_id, 1, 0, "ok", b"v", usage)
    ]
    task = busy.task(task_id)
    assert (task.status, task.exit_code, task.result, task.usage) == ("completed", 0, "ok", usage)
    assert (task.finished_at, task.worker_id) == (busy.now, "worker-1")


def test_a_failure_is_failed_with_its_reason(busy):
    """In a word, in words, and with the error's text."""
    task_id = busy.started()
    fault = Fault("ValueError", "bad", "Traceback …")
    busy.end(task_id, reason="exception", message="ValueError: bad", value=b"e", error=fault)
    task = busy.task(task_id)
    assert (task.status, task.reason, task.message, task.error) == (
        "failed",
        "exception",
        "ValueError: bad",
        fault,
    )


@pytest.mark.parametrize(
    "report",
    [
        RunEnded("worker-1", Outcome("task-1", 2)),
        RunEnded("worker-1", Outcome("task-1", 0)),
        RunEnded("worker-2", Outcome("task-1", 1)),
        RunEnded("worker-1", Outcome("nobody", 1)),
        RunProgressed("task-1", 2, Progress(0.5)),
        RunProgressed("nobody", 1, Progress(0.5)),
        WorkerReady("worker-1", 5),
        WorkerReady("worker-9", 5),
        WorkerDied("worker-9", 0, ""),
    ],
)
def test_a_report_about_something_else_gives_nothing(busy, report):
    """Another run, another worker, an unknown task: the fence."""
    assert busy.started() == "task-1"
    assert busy.report(report) == []


def test_a_report_after_the_end_gives_nothing(busy):
    """Finished stays finished."""
    task_id = busy.started()
    busy.end(task_id)
    assert busy.end(task_id, reason="exit") == []
    assert busy.report(RunProgressed(task_id, 1, Progress(1.0))) == []


def test_progress_and_output_are_samples(busy):
    """One report may bring either or both."""
    task_id = busy.started()
    progress = Progress(0.5, 1.0, 2.0)
    assert busy.report(RunProgressed(task_id, 1, progress, 77)) == [
        TaskProgressed(busy.now, task_id, 1, progress),
        OutputGrew(busy.now, task_id, 1, 77),
    ]
    assert (busy.task(task_id).progress, busy.task(task_id).usage.output_bytes) == (progress, 77)
    assert busy.report(RunProgressed(task_id, 1)) == []


def test_a_time_out_fails_with_its_limit(busy):
    """Whatever the killed process said; and it can be tried again like any failure."""
    task_id = busy.started(timeout_s=2.5)
    busy.given(StopRequested(busy.now, task_id, 1, "timeout"))
    busy.end(task_id, reason="killed", message="killed by signal 15", error=Fault("X", "x"))
    task = busy.task(task_id)
    assert (task.status, task.reason, task.message) == ("failed", "timeout", "reached its time-out of 2.5 s")
    assert task.error is None


def test_a_shutdown_cancels_or_keeps(busy):
    """By what the task asked for: `mark` is cancelled, `retry` is pending again, at once, with no attempt used up."""
    for on_crash, status in (("mark", "cancelled"), ("retry", "pending")):
        task_id = busy.started(on_crash=on_crash)
        busy.given(StopRequested(busy.now, task_id, 1, "shutdown"))
        busy.end(task_id, reason="killed")
        task = busy.task(task_id)
        assert (task.status, task.failures, task.crashes) == (status, 0, 0)
    assert task.not_before == busy.now


# -- retries by themselves ------------------------------------------------------------------------------------


def test_a_failed_attempt_is_tried_again_as_often_as_asked(busy):
    """Two retries are three runs of the same task; then it has failed for the last reason."""
    task_id = busy.submitted(retries=2)
    for attempt in (1, 2, 3):
        busy.claimed(task_id)
        (event,) = busy.end(task_id, reason="exit", message=f"exit code {attempt}")
        assert type(event) is (TaskFailed if attempt == 3 else TaskRetried)
    task = busy.task(task_id)
    assert (task.run, task.failures, task.message) == (3, 2, "exit code 3")


def test_the_wait_between_attempts_doubles(busy):
    """From about a second to five minutes, each within a fifth of its length."""
    task_id = busy.submitted(retries=12)
    for attempt in range(12):
        busy.claimed(task_id)
        (event,) = busy.end(task_id, reason="exception")
        wait_s = event.not_before - busy.now
        assert min(LONGEST_DELAY_S, 2.0**attempt) * 0.8 <= wait_s <= min(LONGEST_DELAY_S, 2.0**attempt) * 1.2


def test_the_waits_of_a_batch_differ(world):
    """Tasks that failed together do not come back together, and a replay gives the same."""
    tasks = [world.task(world.submitted()) for _ in range(50)]
    waits = [delay_s(task) for task in tasks]
    assert len(set(waits)) > 40
    assert waits == [delay_s(task) for task in tasks]


def test_what_could_not_start_is_not_tried_again(busy):
    """A command that is not there will not be there in a second."""
    task_id = busy.started(retries=5)
    (event,) = busy.end(task_id, reason="start", message="no such command")
    assert type(event) is TaskFailed


def test_a_success_after_a_failure_forgets_it(busy):
    """The record of a completed task carries no message of an earlier attempt."""
    task_id = busy.started(retries=1)
    busy.end(task_id, reason="exception", message="bad", error=Fault("E", "bad"))
    assert busy.task(task_id).error is not None
    busy.claimed(task_id)
    busy.end(task_id)
    task = busy.task(task_id)
    assert (task.status, task.reason, task.message, task.error) == ("completed", None, "", None)


# -- crashes --------------------------------------------------------------------------------------------------


def test_a_worker_that_dies_takes_what_it_ran_with_it(busy):
    """What it had begun ends with the reason of the death; what it had not begun is pending again."""
    ids = [busy.submitted(kind="function") for _ in range(3)]
    for task_id in ids:
        busy.claimed(task_id)
    events = busy.die(begun=1)
    assert [type(event) for event in events] == [TaskFailed, TaskReturned, TaskReturned, WorkerStopped]
    task = busy.task(ids[0])
    assert (task.status, task.reason, task.exit_code) == ("failed", "killed", 137)
    assert [busy.task(task_id).status for task_id in ids[1:]] == ["pending", "pending"]
    assert busy.task(ids[1]).run == 0
    assert busy.state.workers == {}


def test_a_worker_that_ends_by_itself_is_an_exit(busy):
    """With its exit code."""
    task_id = busy.started()
    busy.report(WorkerDied("worker-1", 1, "exit code 3", exit_code=3))
    task = busy.task(task_id)
    assert (task.reason, task.exit_code, task.message) == ("exit", 3, "exit code 3")


def test_by_default_a_crash_is_not_run_again(busy):
    """At most once: `mark`."""
    task_id = busy.started()
    busy.die(begun=1)
    assert busy.task(task_id).status == "failed"


def test_a_crash_is_run_again_if_asked_until_it_loops(busy):
    """`retry` runs it again; the third crash in a row is a loop, and says of what."""
    task_id = busy.submitted(on_crash="retry")
    for crash in (1, 2):
        busy.claimed(task_id)
        (event,) = busy.end(task_id, reason="killed", message="killed by signal 9")
        assert (type(event), event.crashed) == (TaskRetried, True)
        assert busy.task(task_id).crashes == crash
    busy.claimed(task_id)
    busy.end(task_id, reason="memory", message="out of memory")
    task = busy.task(task_id)
    assert (task.status, task.reason) == ("failed", "crash_loop")
    assert task.message == "crashed 3 times in a row; last: out of memory"


def test_another_failure_between_crashes_breaks_the_row(busy):
    """Only crashes in a row are a loop."""
    task_id = busy.submitted(on_crash="retry", retries=9)
    for reason in ("killed", "killed", "exit", "killed", "killed"):
        busy.claimed(task_id)
        (event,) = busy.end(task_id, reason=reason)
        assert type(event) is TaskRetried
    assert busy.task(task_id).crashes == 2


def test_a_lost_run_is_marked_or_run_again(busy):
    """A workshop that died under it is no attempt of the task's own."""
    for on_crash, kind in (("mark", TaskFailed), ("retry", TaskRetried)):
        task_id = busy.started(on_crash=on_crash, retries=3)
        event = lose(busy.task(task_id), busy.now)
        assert (type(event), event.reason) == (kind, "lost")
        busy.given(event)
        assert busy.task(task_id).failures == 0


@pytest.mark.parametrize(
    ("cause", "kind", "reason"),
    [
        ("user", TaskCancelled, "user"),
        ("timeout", TaskFailed, "timeout"),
        ("shutdown", TaskCancelled, "shutdown"),
    ],
)
def test_a_lost_run_that_was_being_stopped_has_ended_by_that(busy, cause, kind, reason):
    """The workshop died after the stop was asked for: it is what was asked for."""
    task_id = busy.started(timeout_s=5.0)
    busy.given(StopRequested(busy.now, task_id, 1, cause))
    event = lose(busy.task(task_id), busy.now)
    assert (type(event), event.reason) == (kind, reason)


# -- given back -----------------------------------------------------------------------------------------------


def test_a_returned_run_was_none(busy):
    """The same task has the same run number again, and nothing of the claim is left."""
    task_id = busy.started()
    assert busy.give_back("worker-1", task_id) == [TaskReturned(busy.now, task_id, 1)]
    task = busy.task(task_id)
    assert (task.status, task.run, task.worker_id, task.started_at) == ("pending", 0, None, None)


def test_a_returned_run_that_was_cancelled_is_cancelled(busy):
    """It never began."""
    task_id = busy.started()
    busy.do(CancelTask(task_id))
    assert busy.give_back("worker-1", task_id) == [
        TaskCancelled(busy.now, task_id, 1, "user", "cancelled before it started")
    ]


def test_only_the_owner_gives_back(busy):
    """Others, and tasks that nobody knows, change nothing."""
    task_id = busy.started()
    assert busy.give_back("worker-2", task_id) == []
    assert busy.give_back("worker-1", "nobody") == []


def test_a_ready_worker_is_idle(world):
    """With its pid."""
    world.given(PoolChanged(1.0, Pool(1, 1)))
    world.plan()
    assert world.report(WorkerReady("worker-1", 77)) == [
        WorkerChanged(world.now, "worker-1", "idle", None, 77)
    ]
    assert world.state.workers["worker-1"].pid == 77
