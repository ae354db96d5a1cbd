"""What leaves on the public wire has the shapes that clients were promised."""

from __future__ import annotations

import json
import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from koubou_panel.core.events import (
    TASK_FACTS,
    MetricsSampled,
    OutputGrew,
    PoolChanged,
    ScriptRan,
    StopRequested,
    SystemNoted,
    TaskCancelled,
    TaskCompleted,
    TaskFailed,
    TaskProgressed,
    TaskReleased,
    TaskRetried,
    TaskReturned,
    TasksSampled,
    TaskStarted,
    TaskSubmitted,
    WorkerChanged,
    WorkerRetired,
    WorkerSampled,
    WorkerStarted,
    WorkerStopped,
)
from koubou_panel.core.fold import evolve
from koubou_panel.core.records import (
    Fault,
    Limits,
    Metrics,
    Pool,
    Progress,
    Request,
    TaskId,
    Usage,
    Use,
    WorkerId,
)
from koubou_panel.core.state import State
from koubou_panel.wire.messages import encode, initial_state, message_of, message_of_sample, system_data
from koubou_panel.wire.records import active_task, iso, task_record

AT = 1_700_000_000.0
ONE, WORKER = TaskId("task-1"), WorkerId("worker-1")
TASK_FIELDS = (
    "task_id name kind status reason message summary priority labels submitted_by created_at started_at "
    "finished_at wait_s duration_s run retries timeout_s on_crash assigned_to node exit_code result error "
    "progress output_bytes peak_rss_bytes cpu_s script_name rerun_of after waits_for limits read_bytes "
    "written_bytes peak_threads peak_processes peak_gpu_memory_bytes use prompt_tokens completion_tokens "
    "first_token_s tokens_per_s parameters fire_at"
)
WORKER_FIELDS = {
    "worker_id",
    "status",
    "current_task",
    "node",
    "pid",
    "cpu_percent",
    "rss_bytes",
    "changed_at",
}
LATER = {
    TaskReturned: TaskReturned(AT, ONE, 1),
    TaskRetried: TaskRetried(AT, ONE, 1, "exit", "exited with 1", AT + 1),
    TaskCompleted: TaskCompleted(AT + 3, ONE, 1, 0, "42", b"secret bytes", Usage(1.5, 2048, 7, 1.25)),
    TaskFailed: TaskFailed(
        AT + 3, ONE, 1, "exit", "exited with 1", 1, b"", Fault("ValueError", "no", "trace")
    ),
    StopRequested: StopRequested(AT, ONE, 1, "user", "cli"),
    TaskCancelled: TaskCancelled(AT + 3, ONE, 1, "user", "cancelled by cli"),
}


def begun(**fields) -> tuple[State, list]:
    """A state in which one task runs, and what was folded on the way."""
    state = State("one")
    request = Request(task_id=ONE, kind="script", created_at=AT, name="train", **fields)
    events = [
        WorkerStarted(AT, WORKER, "here"),
        WorkerChanged(AT, WORKER, "idle", None, 4711),
        TaskSubmitted(AT, request, 1, (TaskId("task-0"),)),
        TaskReleased(AT, ONE),
        TaskStarted(AT + 2, ONE, 1, WORKER, "here", 0),
        WorkerChanged(AT, WORKER, "busy", ONE),
    ]
    return state, [evolve(state, event) for event in events]


def body(folded) -> dict:
    """The message of a fact, decoded."""
    return json.loads(message_of(folded)[1])


@pytest.mark.parametrize("fact", TASK_FACTS, ids=lambda fact: fact.__name__)
def test_every_task_fact_is_a_task_update(fact):
    """Each fact of a task is a `task_update` with the whole record, and the fields old clients read on top."""
    state, folded = begun()
    made = LATER.get(fact)
    found = evolve(state, made) if made else next(item for item in folded if type(item.fact) is fact)
    channel, _ = message_of(found)
    update = body(found)
    assert channel == "task"
    assert (update["type"], update["task_id"], update["seq"]) == ("task_update", ONE, found.seq)
    assert update["status"] == update["data"]["status"] == found.record.status
    assert isinstance(update["details"], dict)
    assert update["details"]["message"]
    assert list(update["data"]) == TASK_FIELDS.split()
    assert update["timestamp"].endswith("Z")
    assert "secret" not in json.dumps(update)


def test_the_record_says_how_long():
    """Waiting and running times are worked out; a run's own measure of itself counts before the clock's."""
    state, _ = begun()
    running = task_record(state.tasks[ONE])
    assert (running.wait_s, running.duration_s, running.assigned_to) == (2.0, None, WORKER)
    assert running.created_at == "2023-11-14T22:13:20.000Z"
    evolve(state, LATER[TaskCompleted])
    done = task_record(state.tasks[ONE])
    assert (done.duration_s, done.cpu_s, done.peak_rss_bytes, done.output_bytes) == (1.25, 1.5, 2048, 7)
    state, _ = begun()
    evolve(state, LATER[TaskFailed])
    failed = task_record(state.tasks[ONE])
    assert (failed.duration_s, failed.reason, failed.exit_code) == (1.0, "exit", 1)
    assert failed.error == Fault("ValueError", "no", "trace")


def test_the_record_says_what_it_uses():
    """While a task runs its record has what it uses now, its totals and its peaks so far; later only the latter."""
    state, _ = begun()
    assert task_record(state.tasks[ONE]).use is None
    first, second = Use(150.0, 5_000, 1.5, 10, 20, 4, 2, 30.0, 700), Use(10.0, 3_000, 2.5, 10, 60)
    for use in (first, second):
        evolve(state, TasksSampled(AT, [(ONE, 1, use)]))
    running = json.loads(encode(task_record(state.tasks[ONE])))
    assert running["use"] == {
        "cpu_percent": 10.0,
        "rss_bytes": 3_000,
        "cpu_s": 2.5,
        "read_bytes": 10,
        "written_bytes": 60,
        "threads": 1,
        "processes": 1,
        "gpu_percent": None,
        "gpu_memory_bytes": None,
    }
    assert (running["cpu_s"], running["peak_rss_bytes"], running["written_bytes"]) == (2.5, 5_000, 60)
    assert (running["peak_threads"], running["peak_processes"], running["peak_gpu_memory_bytes"]) == (
        4,
        2,
        700,
    )
    evolve(state, LATER[TaskCompleted])
    assert task_record(state.tasks[ONE]).use is None


def test_the_record_says_what_it_waits_for():
    """`after` stays as it was submitted, `waits_for` until all have succeeded; every limit is told."""
    state = State("one")
    zero = TaskId("task-0")
    request = Request(
        task_id=ONE,
        kind="script",
        created_at=AT,
        after=(zero, TaskId("x")),
        limits=Limits(memory_bytes=2**31),
    )
    waiting = body(evolve(state, TaskSubmitted(AT, request, 1, (zero,))))
    assert waiting["details"]["message"] == "queued: waits for 1 task"
    assert (waiting["data"]["after"], waiting["data"]["waits_for"]) == (["task-0", "x"], ["task-0"])
    limits = {"memory_bytes": 2**31, "cpu_s": None, "processes": None, "output_bytes": None}
    assert waiting["data"]["limits"] == limits
    released = body(evolve(state, TaskReleased(AT, ONE)))["data"]
    assert (released["after"], released["waits_for"]) == (["task-0", "x"], [])


def test_worker_facts_are_worker_updates():
    """Each fact of a worker is a `worker_update`; a worker that is gone is `offline`."""
    state, folded = begun()
    update = body(folded[-1])
    assert (update["type"], update["worker_id"], update["status"]) == ("worker_update", WORKER, "busy")
    assert set(update["data"]) >= WORKER_FIELDS
    assert (update["data"]["current_task"], update["data"]["pid"]) == (ONE, 4711)
    retired = body(evolve(state, WorkerRetired(AT, WORKER, "cli")))
    assert (retired["status"], retired["details"]["message"]) == (
        "stopping",
        "ends when it has ended what it runs, asked by cli",
    )
    gone = body(evolve(state, WorkerStopped(AT, WORKER, "killed by signal 9")))
    assert (gone["status"], gone["details"]["message"]) == ("offline", "killed by signal 9")


def test_system_facts_are_system_events():
    """Notes and changes of the pool are `system_event`, with `event` and `details` on top."""
    state = State("one")
    note = body(evolve(state, SystemNoted(AT, "recovered", "2 lost", {"lost": 2})))
    assert (note["type"], note["event"], note["data"]) == ("system_event", "recovered", {"lost": 2})
    assert note["details"] == {"message": "2 lost", "lost": 2}
    pool = body(evolve(state, PoolChanged(AT, Pool(2, 5), "cli")))
    assert pool["event"] == "pool_changed"
    wanted = {"min_workers": 2, "max_workers": 5, "paused": False, "draining": False, "closing": False}
    assert pool["data"] == wanted | {"by": "cli"}
    assert json.loads(initial_state(state, state.seq, AT))["data"]["pool"] == wanted


@pytest.mark.parametrize(
    ("pool", "words"),
    [
        (Pool(2, 5), "workers 2:5"),
        (Pool(paused=True), "workers 1:3, paused: no work is started"),
        (Pool(draining=True, paused=True), "draining: no work is taken or started"),
        (Pool(closing=True, draining=True), "shutting down: no work is taken or started"),
    ],
)
def test_a_change_of_the_pool_is_told_in_words(pool, words):
    """What matters most about the pool comes first."""
    assert body(evolve(State("one"), PoolChanged(AT, pool, "cli")))["details"]["message"] == words


def test_metrics_carry_what_old_clients_read():
    """`system_metrics` has the three percentages and the two counts beside all that was sampled."""
    state, _ = begun(script_name="train")
    assert system_data(state) is None
    sample = MetricsSampled(
        AT, Metrics(AT, {"cpu_percent": 12.5, "memory_percent": 50.0, "disk_percent": 7.0, "load_1": 0.5})
    )
    evolve(state, sample)
    channel, key, text = message_of_sample(sample, state)
    assert (channel, key) == ("system", "system_metrics")
    data = json.loads(text)["data"]
    assert (data["cpu_percent"], data["load_1"]) == (12.5, 0.5)
    assert (data["active_scripts"], data["total_executions"]) == (1, 0)
    evolve(state, LATER[TaskCompleted])
    evolve(state, ScriptRan(AT, "train", ONE, "completed", 1, 0, 1.0, is_final=True))
    data = system_data(state)
    assert (data["active_scripts"], data["total_executions"]) == (0, 1)


def test_a_command_is_no_script_of_the_catalogue():
    """What was submitted as a command counts as a task alone."""
    state, _ = begun()
    evolve(state, MetricsSampled(AT, Metrics(AT, {})))
    assert system_data(state)["active_scripts"] == 0


def test_the_record_of_a_script_run_says_what_it_was_given():
    """Parameters and the due time are those of a run of a script; of any other task they are null."""
    plain = task_record(begun()[0].tasks[ONE])
    assert (plain.script_name, plain.parameters, plain.fire_at) == (None, None, None)
    state, _ = begun(script_name="train", parameters={"epochs": 3}, fire_at=AT)
    run = task_record(state.tasks[ONE])
    assert (run.parameters, run.fire_at) == ({"epochs": 3}, "2023-11-14T22:13:20.000Z")


def test_the_record_of_a_prompt_counts_its_tokens():
    """Tokens read and written, the wait for the first, and the rate after it."""
    state, _ = begun()
    assert task_record(state.tasks[ONE]).prompt_tokens is None
    usage = Usage(prompt_tokens=12, completion_tokens=40, first_token_s=0.2, tokens_per_s=43.5)
    evolve(state, TaskCompleted(AT + 3, ONE, 1, None, "hello", b"", usage))
    record = task_record(state.tasks[ONE])
    assert (record.prompt_tokens, record.completion_tokens) == (12, 40)
    assert (record.first_token_s, record.tokens_per_s) == (0.2, 43.5)


def test_what_a_run_uses_is_a_sample_of_its_task():
    """`task_usage` has every field of `use`, and replaces an older one of the same task."""
    state, _ = begun()
    sample = TasksSampled(AT, [(ONE, 1, Use(12.5, 1_000, 0.5, gpu_percent=3.0))])
    evolve(state, sample)
    channel, key, text = message_of_sample(sample, state)
    assert (channel, key) == ("task", ONE)
    told = json.loads(text)
    assert (told["type"], told["task_id"]) == ("task_usage", ONE)
    assert told["data"] == json.loads(encode(task_record(state.tasks[ONE]).use))
    assert (told["data"]["cpu_percent"], told["data"]["gpu_memory_bytes"]) == (12.5, None)


def test_progress_is_a_sample_of_its_task():
    """`task_progress` has every field, and replaces an older one of the same task."""
    state, _ = begun()
    sample = TaskProgressed(AT, ONE, 1, Progress(fraction=0.5))
    evolve(state, sample)
    channel, key, text = message_of_sample(sample, state)
    assert (channel, key) == ("task", ONE)
    data = json.loads(text)["data"]
    assert data == {
        "fraction": 0.5,
        "done": None,
        "total": None,
        "unit": "",
        "eta_s": None,
        "message": "",
        "rate_per_s": None,
    }
    assert task_record(state.tasks[ONE]).progress.fraction == 0.5


@pytest.mark.parametrize("sample", [OutputGrew(AT, ONE, 1, 5), WorkerSampled(AT, WORKER, 1.0, 5)])
def test_other_samples_are_not_sent(sample):
    """Growing output is told by reading it, and a worker's use of the machine by its record."""
    assert message_of_sample(sample, State("one")) is None


def test_initial_state_shows_what_is_active():
    """What runs comes first, then what waits, at most 500; what is over is only counted."""
    state, _ = begun()
    for n in range(2, 700):
        evolve(state, TaskSubmitted(AT, Request(task_id=TaskId(f"t{n}"), kind="script", created_at=AT), n))
    evolve(state, TaskStarted(AT, TaskId("t699"), 1, WORKER, "here", 1))
    evolve(state, TaskCancelled(AT, TaskId("t2"), 0, "user", "cancelled"))
    data = json.loads(initial_state(state, state.seq, AT))["data"]
    names = [entry["task_id"] for entry in data["active_tasks"]]
    assert (names[:3], len(names)) == ([ONE, "t699", "t3"], 500)
    assert data["tasks"] == {
        "pending": 696,
        "in_progress": 2,
        "completed": 0,
        "failed": 0,
        "cancelled": 1,
    }
    assert data["workers"] == {
        "total_workers": 1,
        "busy_workers": 1,
        "idle_workers": 0,
        "total_completed": 0,
        "total_failed": 0,
    }
    assert set(data["active_workers"][0]) >= WORKER_FIELDS


def test_an_active_task_has_a_short_summary():
    """`summary` is at most 100 characters, and `type` says what `kind` says."""
    state, _ = begun(summary="x" * 300)
    entry = msgspec.to_builtins(active_task(state.tasks[ONE]))
    assert (len(entry["summary"]), entry["type"], entry["kind"]) == (100, "script", "script")


@given(st.floats(0, 4e9))
def test_times_are_iso_in_utc(at):
    """Any moment is written as RFC 3339 with milliseconds and `Z`, and reads back."""
    from datetime import datetime

    text = iso(at)
    assert text.endswith("Z")
    assert len(text) == len("2026-01-02T03:04:05.678Z")
    assert abs(datetime.fromisoformat(text).timestamp() - at) < 0.001
    assert iso(None) is None


def test_anything_can_be_encoded():
    """Text that is no valid Unicode and numbers that JSON lacks do not stop a message."""
    assert json.loads(encode({"name": "a\ud800b"})) == {"name": "a\ud800b"}
    assert json.loads(encode({"x": math.nan})) == {"x": None}
