"""The server half: every command, every kind of bad input, auth, roles and rate, in memory."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import asdict

from koubou_panel.core.commands import (
    CancelTask,
    DrainPool,
    PausePool,
    RestartWorker,
    ResumePool,
    RetryTask,
    RunScript,
    ScaleWorkers,
    SendInput,
    SubmitTask,
)
from koubou_panel.core.curve import Curve
from koubou_panel.core.ports import OutputPage, TaskPage, TaskQuery
from koubou_panel.core.records import CHANNELS, NO_LIMITS, Limits, TaskId, Use
from koubou_panel.errors import Refused
from koubou_panel.wire.commands import COMMANDS, MAX_INNER
from koubou_panel.wire.effects import Do, Find, Follow, Get, GetCurve, Read, Unfollow
from koubou_panel.wire.session import Limits as Rate
from tests.wire.pair import House, Line, noted, started, submitted

WRITES = {
    "submit": {"kind": "script", "spec": {"command": ["true"]}},
    "cancel": {"task_id": "task-1"},
    "retry": {"task_id": "task-1"},
    "scale": {"workers": 2},
    "pause_workers": {},
    "resume_workers": {},
    "drain_workers": {},
    "restart_worker": {"worker_id": "worker-1"},
    "send_input": {"task_id": "task-1", "text": "yes"},
    "run_script": {"script_name": "backup"},
}


@pytest.fixture
def house():
    """A house with one pending task."""
    house = House()
    house.fold(submitted(1, name="train"))
    return house


@pytest.fixture
def line(house):
    """A line with full rights, its first message read."""
    line = Line(house)
    line.read()
    return line


def task(house, n=1):
    """Task n as it stands."""
    return house.state.tasks[TaskId(f"task-{n}")]


def test_the_state_comes_first(house):
    """A client that may see is sent the whole state before anything else."""
    (first,) = Line(house).read()
    assert first["type"] == "initial_state"
    assert first["timestamp"].endswith("Z")
    data = first["data"]
    assert (data["protocol"], data["epoch"], data["seq"]["task"]) == (1, "one", 1)
    assert data["active_tasks"][0]["task_id"] == "task-1"
    assert data["scripts"] == []


@pytest.mark.parametrize("channel", [channel for channel in CHANNELS if channel != "output"])
def test_subscribe_says_from_where(house, line, channel):
    """The reply to `subscribe` holds the channel's seq of that moment."""
    reply = line.reply({"command": "subscribe", "channel": channel, "id": 7})
    assert reply["type"] == "subscribed"
    assert (reply["channel"], reply["seq"], reply["id"]) == (channel, house.head[channel], 7)


def test_facts_follow_a_subscription(house, line):
    """Facts after the reply come in order, those of other channels do not."""
    line.reply({"command": "subscribe", "channel": "task"})
    house.fold(noted(1), started(1))
    (fact,) = line.read()
    assert (fact["type"], fact["seq"], fact["status"]) == ("task_update", 2, "in_progress")
    assert fact["task_id"] == fact["data"]["task_id"] == "task-1"


def test_subscribe_since_tells_what_was_missed(house, line):
    """With `since`, the facts after it come before the reply."""
    house.fold(started(1))
    line.read()
    line.say({"command": "subscribe", "channel": "task", "since": 1})
    fact, reply = line.read()
    assert (fact["seq"], reply["type"], reply["seq"]) == (2, "subscribed", 2)


@pytest.mark.parametrize("since", [0, 99])
def test_subscribe_since_what_is_not_held_starts_again(since):
    """A `since` that is forgotten, or never was, is answered by a fresh state."""
    house = House(facts=1)
    house.fold(noted(1), noted(2), noted(3))
    line = Line(house)
    line.read()
    line.say({"command": "subscribe", "channel": "system", "since": since})
    assert [message["type"] for message in line.read()] == ["initial_state", "subscribed"]


def test_unsubscribe_ends_the_facts(house, line):
    """After `unsubscribed` nothing of the channel comes."""
    line.reply({"command": "subscribe", "channel": "task"})
    reply = line.reply({"command": "unsubscribe", "channel": "task", "id": "x"})
    house.fold(started(1))
    assert (reply["type"], reply["channel"], reply["id"]) == ("unsubscribed", "task", "x")
    assert line.read() == []


def test_output_is_followed_task_by_task(house, line):
    """`subscribe` to `output` takes a task's id and follows from `since`; `unsubscribe` ends it."""
    line.say({"command": "subscribe", "channel": "output", "task_id": "task-1", "since": 5})
    assert line.calls[0].question == Get(TaskId("task-1"))
    line.answer(task(house))
    (reply,) = line.read()
    assert (reply["type"], reply["channel"], reply["task_id"]) == ("subscribed", "output", "task-1")
    line.say({"command": "unsubscribe", "channel": "output"})
    assert line.followed == [Follow(TaskId("task-1"), 5), Unfollow(TaskId("task-1"))]


def test_output_of_no_task_is_refused(line):
    """Without an id the field is named; with one that is unknown it is not found."""
    assert line.reply({"command": "subscribe", "channel": "output"})["data"]["field"] == "task_id"
    line.say({"command": "subscribe", "channel": "output", "task_id": "nope"})
    line.answer(None)
    (reply,) = line.read()
    assert reply["data"]["code"] == "not_found"


def test_get_stats_counts(line):
    """`stats` counts tasks, workers and connections."""
    data = line.reply({"command": "get_stats"})["data"]
    assert data["tasks"]["pending"] == 1
    assert data["workers"]["total_workers"] == 0
    assert data["active_connections"] == 1


def test_ping_is_answered(line):
    """`ping` gives `pong`, with the id it came with."""
    reply = line.reply({"command": "ping", "id": "a", "more": "fields are ignored"})
    assert (reply["type"], reply["id"]) == ("pong", "a")


def test_resume_tells_the_missed_facts(house, line):
    """Within an epoch, the facts after `since` come in the order they happened, then `resumed`."""
    house.fold(noted(1), started(1), noted(2))
    line.read()
    line.say({"command": "resume", "epoch": "one", "since": {"system": 0, "task": 1}, "id": 3})
    *facts, end = line.read()
    assert [(fact["type"], fact["seq"]) for fact in facts] == [
        ("system_event", 1),
        ("task_update", 2),
        ("system_event", 2),
    ]
    assert (end["type"], end["data"], end["id"]) == ("resumed", {"seq": {"task": 2, "system": 2}}, 3)
    house.fold(noted(3))
    assert [fact["seq"] for fact in line.read()] == [3]


@pytest.mark.parametrize("epoch", ["one", "another"])
def test_resume_that_cannot_be_starts_again(epoch):
    """A gap no longer held, or another epoch, is answered by a fresh state; the channels are subscribed."""
    house = House(facts=1)
    house.fold(noted(1), noted(2), noted(3))
    line = Line(house)
    line.read()
    line.say({"command": "resume", "epoch": epoch, "since": {"system": 1}})
    (message,) = line.read()
    assert (message["type"], message["data"]["seq"]["system"]) == ("initial_state", 3)
    house.fold(noted(4))
    assert [fact["seq"] for fact in line.read()] == [4]


def test_submit_is_answered_once_it_is_durable(house, line):
    """`submitted` waits for the shop, and carries the task's record."""
    fields = {"name": "x", "priority": 9, "timeout_s": 5, "retries": 2, "on_crash": "retry"}
    spec = {"command": ["echo", "hi"]}
    line.say(
        {
            "command": "submit",
            "kind": "script",
            "spec": spec,
            "labels": {"a": "b"},
            "idempotency_key": "k",
            "id": 1,
        }
        | fields
    )
    assert line.read() == []
    question = line.calls[0].question
    assert isinstance(question, Do)
    assert isinstance(question.command, SubmitTask)
    request = question.command.request
    assert request.spec == spec
    assert (request.priority, request.timeout_s, request.retries) == (9, 5, 2)
    assert (request.labels, request.idempotency_key, request.on_crash) == ({"a": "b"}, "k", "retry")
    line.answer(task(house))
    (reply,) = line.read()
    assert (reply["type"], reply["task_id"], reply["id"]) == ("submitted", "task-1", 1)
    assert reply["data"]["name"] == "train"


def test_submit_takes_dependencies_and_limits(line):
    """`after` and `limits` reach the shop; null counts as not given."""
    body = {"command": "submit", "kind": "script", "spec": {}}
    limits = {"memory_bytes": 2**31, "cpu_s": 1.5, "processes": None}
    line.say(body | {"after": ["task-1", "task-2"], "limits": limits})
    line.say(body | {"after": None, "limits": None})
    given, plain = (call.question.command.request for call in line.calls)
    assert given.after == ("task-1", "task-2")
    assert given.limits == Limits(memory_bytes=2**31, cpu_s=1.5)
    assert (plain.after, plain.limits) == ((), NO_LIMITS)


@pytest.mark.parametrize(
    ("name", "field", "near"),
    [("memory", "limits.memory", "limits.memory_bytes"), ("cpu", "limits.cpu", "limits.cpu_s")],
)
def test_an_unknown_limit_gets_the_nearest(line, name, field, near):
    """A key that is no limit would be kept by nobody: it is refused, with the nearest."""
    body = {"command": "submit", "kind": "script", "spec": {}, "limits": {name: 5}}
    data = line.reply(body)["data"]
    assert (data["code"], data["field"], data["nearest"]) == ("invalid", field, near)
    assert near in data["message"]
    assert line.calls == []


@pytest.mark.parametrize(
    ("body", "command", "more"),
    [
        ({"command": "pause_workers"}, PausePool(), {}),
        ({"command": "resume_workers"}, ResumePool(), {}),
        ({"command": "drain_workers"}, DrainPool(), {}),
        (
            {"command": "send_input", "task_id": "t", "text": "工\n"},
            SendInput("t", b"\xe5\xb7\xa5\n"),
            {"task_id": "t"},
        ),
        (
            {"command": "send_input", "task_id": "t", "is_last": True},
            SendInput("t", b"", is_last=True),
            {"task_id": "t"},
        ),
        ({"command": "restart_worker", "worker_id": "w"}, RestartWorker("w"), {"worker_id": "w"}),
        (
            {"command": "restart_worker", "worker_id": "w", "at_once": True},
            RestartWorker("w", at_once=True),
            {"worker_id": "w"},
        ),
    ],
)
def test_other_commands_are_accepted(line, body, command, more):
    """Each is accepted once the shop has it."""
    line.say(body | {"id": 4})
    assert line.calls[0].question == Do(command)
    assert line.read() == []
    line.answer(None)
    (reply,) = line.read()
    assert reply | {"timestamp": ""} == {"type": "accepted", "timestamp": "", "id": 4} | more


def test_a_function_is_never_taken(line):
    """A `function` is refused, naming `kind`, and never reaches the shop."""
    reply = line.reply({"command": "submit", "kind": "function", "spec": {}})
    assert (reply["data"]["code"], reply["data"]["field"]) == ("invalid", "kind")
    assert line.calls == []


def test_retry_is_a_new_task(house, line):
    """`retry` submits the task again, with another spec if one is given."""
    line.say({"command": "retry", "task_id": "task-1", "spec": {"command": ["false"]}})
    command = line.calls[0].question.command
    assert command == RetryTask(TaskId("task-1"), TaskId("new-1"), {"command": ["false"]})
    line.answer(task(house))
    assert line.read()[0]["type"] == "submitted"


def test_cancel_is_accepted(line):
    """`cancel` is accepted once the shop has it."""
    line.say({"command": "cancel", "task_id": "task-1"})
    assert line.calls[0].question == Do(CancelTask(TaskId("task-1")))
    line.answer(None)
    assert line.read()[0] | {"timestamp": ""} == {
        "type": "accepted",
        "timestamp": "",
        "task_id": "task-1",
    }


@pytest.mark.parametrize(
    ("fields", "bounds"),
    [
        ({"workers": 4}, (4, 4)),
        ({"min_workers": 2, "max_workers": 5}, (2, 5)),
        ({"min_workers": 9}, (9, 9)),
        ({"max_workers": 8}, (1, 8)),
    ],
)
def test_scale_takes_a_number_or_bounds(line, fields, bounds):
    """`scale` sets both bounds; one alone leaves the other where it can."""
    line.say({"command": "scale"} | fields)
    assert line.calls[0].question == Do(ScaleWorkers(*bounds))
    line.answer(None)
    assert line.read()[0]["type"] == "accepted"


@pytest.mark.parametrize("fields", [{}, {"workers": 1, "max_workers": 2}])
def test_scale_without_sense_is_refused(line, fields):
    """Neither form, or both at once, is `invalid`."""
    assert line.reply({"command": "scale"} | fields)["data"]["field"] == "workers"


def test_get_task_shows_the_record(house, line):
    """`task` carries the record; an unknown id is `not_found`."""
    line.say({"command": "get_task", "task_id": "task-1"})
    line.answer(task(house))
    assert line.read()[0]["data"]["task_id"] == "task-1"
    line.say({"command": "get_task", "task_id": "nope", "id": 9})
    line.answer(None)
    (reply,) = line.read()
    assert (reply["data"]["code"], reply["id"], reply["data"]["id"]) == ("not_found", 9, 9)


def test_list_tasks_passes_the_query_on(house, line):
    """`tasks` carries records, the total and the cursor of the next page."""
    query = {"status": "pending", "kind": "script", "text": "tr", "limit": 5, "cursor": "c"}
    line.say({"command": "list_tasks"} | query)
    assert line.calls[0].question == Find(TaskQuery(**query))
    line.answer(TaskPage([task(house)], "next", 12))
    data = line.read()[0]["data"]
    assert (data["tasks"][0]["task_id"], data["cursor"], data["total"]) == ("task-1", "next", 12)


def test_get_output_reads_a_piece(line):
    """`output` carries text and byte positions."""
    line.say({"command": "get_output", "task_id": "task-1", "offset": 3, "limit": 10})
    assert line.calls[0].question == Read(TaskId("task-1"), 3, 10)
    line.answer(OutputPage("abc", 3, 6, 9, 0))
    (reply,) = line.read()
    assert (reply["type"], reply["task_id"]) == ("output", "task-1")
    assert reply["data"] == {"text": "abc", "offset": 3, "end": 6, "size": 9, "start": 0}


def test_get_usage_shows_columns(line):
    """`usage` carries what a run used over time, with moments as everywhere."""
    line.say({"command": "get_usage", "task_id": "task-1"})
    assert line.calls[0].question == GetCurve(TaskId("task-1"))
    curve = Curve()
    curve.add(1.5, Use(50.0, 1_000, 0.5, threads=2))
    curve.add(2.5, Use(75.0, 2_000, 1.25))
    line.answer(curve)
    (reply,) = line.read()
    assert (reply["type"], reply["task_id"]) == ("usage", "task-1")
    data = reply["data"]
    assert data["at"] == ["1970-01-01T00:00:01.500Z", "1970-01-01T00:00:02.500Z"]
    assert (data["cpu_percent"], data["threads"]) == ([50.0, 75.0], [2, 1])
    assert data["gpu_percent"] == [None, None]


def test_get_usage_of_nobody_is_not_found(line):
    """A task that there is not has used nothing."""
    line.say({"command": "get_usage", "task_id": "nobody"})
    line.answer(None)
    assert line.read()[0]["data"]["code"] == "not_found"


def test_run_script_submits_a_run_of_it(house, line):
    """What was given travels, what was not is as the script says, and the reply is that of `submit`."""
    given = {"parameters": {"to": "disk"}, "priority": 9, "timeout_s": 5.0, "labels": {"a": "b"}}
    more = {"idempotency_key": "k", "after": ["task-1"], "retries": 2, "on_crash": "retry"}
    line.say({"command": "run_script", "script_name": "backup", "id": 4} | given | more)
    (call,) = line.calls
    wanted = given | more | {"name": "backup", "task_id": "new-1", "request": None, "after": ("task-1",)}
    assert asdict(call.question.command) == wanted
    line.answer(task(house))
    (reply,) = line.read()
    assert (reply["type"], reply["id"], reply["task_id"]) == ("submitted", 4, "task-1")
    line.say({"command": "run_script", "script_name": "backup"})
    assert call.question != line.calls[0].question == Do(RunScript("backup", TaskId("new-2")))


def test_an_unknown_script_is_told_with_the_nearest(line):
    """The shop's refusal goes to the client."""
    line.say({"command": "run_script", "script_name": "bakcup"})
    words = "unknown script 'bakcup'; did you mean 'backup'?"
    line.answer(Refused("not_found", words, field="script_name", nearest="backup"))
    data = line.read()[0]["data"]
    assert (data["code"], data["nearest"], data["field"]) == ("not_found", "backup", "script_name")


@pytest.mark.parametrize("name", WRITES)
def test_the_role_to_run_runs_scripts_alone(house, name):
    """A client that may run registered scripts is refused every other change, with what it may."""
    line = Line(house, role="run")
    line.read()
    line.say({"command": name} | WRITES[name])
    if name == "run_script":
        assert [type(call.question.command) for call in line.calls] == [RunScript]
    else:
        (reply,) = line.read()
        assert reply["data"]["code"] == "forbidden"
        assert "run registered scripts" in reply["data"]["message"]


def test_every_command_is_tried_here():
    """Each command of the protocol has a test in this file."""
    source = Path(__file__).read_text(encoding="utf-8")
    missing = [name for name in COMMANDS if f'"command": "{name}"' not in source]
    assert missing == []


def test_replies_keep_the_order_of_commands(house, line):
    """Questions run side by side, but what was asked first is answered first."""
    line.say({"command": "get_task", "task_id": "task-1", "id": 1})
    line.say({"command": "get_task", "task_id": "task-1", "id": 2})
    line.say({"command": "ping", "id": 3})
    line.answer(task(house), place=1)
    assert line.read() == []
    line.answer(task(house))
    assert [message["id"] for message in line.read()] == [1, 2, 3]


def test_a_refusal_of_the_shop_is_an_error(line):
    """What the shop refuses reaches the client as code, words, field and nearest name."""
    line.say({"command": "submit", "kind": "scirpt", "spec": {}, "id": "s"})
    line.answer(Refused("invalid", "unknown kind", field="kind", nearest="script"))
    (reply,) = line.read()
    assert reply["data"] == {
        "code": "invalid",
        "message": "unknown kind",
        "field": "kind",
        "nearest": "script",
        "id": "s",
    }


DEEP = 65
MEMORY = "limits.memory_bytes"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "bad_json"),
        ("{", "bad_json"),
        ('{"command": "ping"} x', "bad_json"),
        ("\ufeff{}", "bad_json"),
        ('{"command": "ping", "id": NaN}', "bad_json"),
        ('{"command": "ping", "x": -Infinity}', "bad_json"),
        ('{"command": "ping", "x": 1e999}', "bad_json"),
        ('{"command": "ping", "x": "\\ud800"}', "bad_json"),
        ('{"command": "ping", "command": "ping"}', "bad_json"),
        ('{"command": "ping", "x": {"a": 1, "a": 1}}', "bad_json"),
        ("[" * DEEP + "]" * DEEP, "bad_json"),
        ("[" * 100_000, "bad_json"),
        ("1" * 5_000, "bad_json"),
        ('{"command": "ping", "x": [' + "[]," * MAX_INNER + "0]}", "bad_json"),
        ("[]", "bad_request"),
        ('"ping"', "bad_request"),
        ("null", "bad_request"),
        ("{}", "bad_request"),
        ('{"channel": "task"}', "bad_request"),
        ("[" * 64 + "]" * 64, "bad_request"),
    ],
)
def test_bad_frames_are_told_apart(line, text, code):
    """What is no JSON of ours is `bad_json`, what is no command is `bad_request`; the line stays."""
    assert line.reply(text)["data"]["code"] == code
    assert line.reply({"command": "ping"})["type"] == "pong"


def test_brackets_in_a_text_are_none(line):
    """What looks like JSON in a text is not counted as lists and objects."""
    assert line.reply({"command": "ping", "x": "[{" * MAX_INNER})["type"] == "pong"


@pytest.mark.parametrize(
    ("body", "code", "nearest"),
    [
        ({"command": "subscribed"}, "unknown_command", "subscribe"),
        ({"command": "pnig", "id": 1}, "unknown_command", "ping"),
        ({"command": "subscribe", "channel": "taks"}, "unknown_channel", "task"),
        ({"command": "resume", "epoch": "one", "since": {"wroker": 1}}, "unknown_channel", "worker"),
    ],
)
def test_unknown_names_get_the_nearest(line, body, code, nearest):
    """An unknown command or channel is answered with the nearest known name."""
    data = line.reply(body)["data"]
    assert (data["code"], data["nearest"]) == (code, nearest)
    assert nearest in data["message"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"command": 5}, "command"),
        ({"command": "ping", "id": 1.5}, "id"),
        ({"command": "ping", "id": True}, "id"),
        ({"command": "ping", "id": 2**63}, "id"),
        ({"command": "ping", "id": "x" * 201}, "id"),
        ({"command": "subscribe"}, "channel"),
        ({"command": "subscribe", "channel": 5}, "channel"),
        ({"command": "subscribe", "channel": "task", "since": -1}, "since"),
        ({"command": "subscribe", "channel": "task", "since": "0"}, "since"),
        ({"command": "resume", "epoch": "one", "since": []}, "since"),
        ({"command": "resume", "epoch": "one", "since": {"output": 1}}, "since"),
        ({"command": "resume", "since": {}}, "epoch"),
        ({"command": "auth", "token": None}, "token"),
        ({"command": "submit", "spec": {}}, "kind"),
        ({"command": "submit", "kind": "script"}, "spec"),
        ({"command": "submit", "kind": "script", "spec": []}, "spec"),
        ({"command": "submit", "kind": "script", "spec": {"n": 2**64}}, "spec"),
        ({"command": "submit", "kind": "script", "spec": {}, "priority": 11}, "priority"),
        ({"command": "submit", "kind": "script", "spec": {}, "priority": "5"}, "priority"),
        ({"command": "submit", "kind": "script", "spec": {}, "timeout_s": 0}, "timeout_s"),
        ({"command": "submit", "kind": "script", "spec": {}, "retries": -1}, "retries"),
        ({"command": "submit", "kind": "script", "spec": {}, "on_crash": "x"}, "on_crash"),
        ({"command": "submit", "kind": "script", "spec": {}, "labels": {"a": 1}}, "labels"),
        ({"command": "submit", "kind": "script", "spec": {}, "after": "task-1"}, "after"),
        ({"command": "submit", "kind": "script", "spec": {}, "after": [1]}, "after"),
        ({"command": "submit", "kind": "script", "spec": {}, "after": [""]}, "after"),
        ({"command": "submit", "kind": "script", "spec": {}, "after": ["x"] * 1001}, "after"),
        ({"command": "submit", "kind": "script", "spec": {}, "limits": []}, "limits"),
        ({"command": "submit", "kind": "script", "spec": {}, "limits": {"memory_bytes": 0}}, MEMORY),
        ({"command": "submit", "kind": "script", "spec": {}, "limits": {"memory_bytes": 2**53 + 1}}, MEMORY),
        ({"command": "submit", "kind": "script", "spec": {}, "limits": {"memory_bytes": "2G"}}, MEMORY),
        ({"command": "submit", "kind": "script", "spec": {}, "limits": {"memory_bytes": True}}, MEMORY),
        ({"command": "submit", "kind": "script", "spec": {}, "limits": {"memory_bytes": 2**64}}, MEMORY),
        ({"command": "submit", "kind": "script", "spec": {}, "limits": {"cpu_s": 0}}, "limits.cpu_s"),
        (
            {"command": "submit", "kind": "script", "spec": {}, "limits": {"processes": 1.5}},
            "limits.processes",
        ),
        (
            {"command": "submit", "kind": "script", "spec": {}, "limits": {"output_bytes": -1}},
            "limits.output_bytes",
        ),
        ({"command": "restart_worker"}, "worker_id"),
        ({"command": "send_input", "text": "a"}, "task_id"),
        ({"command": "send_input", "task_id": "t"}, "text"),
        ({"command": "send_input", "task_id": "t", "text": 1}, "text"),
        ({"command": "send_input", "task_id": "t", "text": "x" * 65_537}, "text"),
        ({"command": "send_input", "task_id": "t", "text": "a", "is_last": "yes"}, "is_last"),
        ({"command": "restart_worker", "worker_id": ""}, "worker_id"),
        ({"command": "restart_worker", "worker_id": "w", "at_once": "yes"}, "at_once"),
        ({"command": "cancel"}, "task_id"),
        ({"command": "cancel", "task_id": ""}, "task_id"),
        ({"command": "retry", "task_id": 5}, "task_id"),
        ({"command": "get_task", "task_id": []}, "task_id"),
        ({"command": "list_tasks", "status": "done"}, "status"),
        ({"command": "list_tasks", "limit": 1001}, "limit"),
        ({"command": "get_output", "task_id": "x", "limit": 0}, "limit"),
        ({"command": "scale", "workers": 0}, "workers"),
        ({"command": "scale", "workers": 257}, "workers"),
    ],
)
def test_wrong_fields_are_named(line, body, field):
    """A field of the wrong type or out of range is `invalid`, and named."""
    data = line.reply(body)["data"]
    assert (data["code"], data["field"]) == ("invalid", field)
    assert field in data["message"]
    assert line.calls == []


# -- who asks -------------------------------------------------------------------------------------------------


def test_nothing_is_sent_before_auth(house):
    """Without credentials nothing is sent, facts neither; after a good token the state follows."""
    line = Line(house, role=None)
    house.fold(started(1))
    assert line.read() == []
    line.say({"command": "auth", "token": "secret", "id": 1})
    told, state = line.read()
    assert (told["type"], told["data"], told["id"]) == ("authenticated", {"role": "full"}, 1)
    assert state["type"] == "initial_state"
    assert line.reply({"command": "ping"})["type"] == "pong"


@pytest.mark.parametrize(
    "body", [{"command": "auth", "token": "wrong"}, {"command": "ping"}, {"command": "auth"}, "nonsense"]
)
def test_anything_but_a_good_token_ends_the_line(house, body):
    """The first frame is a good `auth`, or the connection is closed with 4401."""
    line = Line(house, role=None)
    reply = line.reply(body)
    assert (reply["data"]["code"], line.closed.code) == ("unauthorized", 4401)


def test_auth_has_five_seconds(house):
    """Without a token in time the connection is closed with 4401; with one it is not."""
    silent, quick = Line(house, role=None), Line(house, role=None)
    assert silent.session.deadline == 5.0
    quick.say({"command": "auth", "token": "reader"})
    for line in (silent, quick):
        line.carry_out(line.session.expire(4.9))
    assert silent.closed is None
    for line in (silent, quick):
        line.carry_out(line.session.expire(5.0))
    assert silent.closed.code == 4401
    assert quick.closed is None


def test_a_wrong_token_later_ends_the_line_too(line):
    """`auth` with a wrong token is an error and a close at any time; with a good one it sets the role."""
    assert line.reply({"command": "auth", "token": "reader"})["data"] == {"role": "read"}
    line.say({"command": "auth", "token": "wrong"})
    assert line.closed.code == 4401


@pytest.mark.parametrize("command", WRITES)
def test_a_reader_changes_nothing(house, command):
    """With the role `read` every command that changes something is `forbidden` and reaches nobody."""
    line = Line(house, role="read")
    assert line.read()[0]["type"] == "initial_state"
    reply = line.reply({"command": command} | WRITES[command])
    assert reply["data"]["code"] == "forbidden"
    assert line.calls == []
    assert line.reply({"command": "subscribe", "channel": "task"})["type"] == "subscribed"


# -- how fast -------------------------------------------------------------------------------------------------


def test_too_many_commands_are_refused(house):
    """Beyond a second's worth each command is answered `rate_limited`; a moment later it goes on."""
    line = Line(house, limits=Rate(commands_per_s=3))
    line.read()
    for n in range(5):
        line.say({"command": "ping", "id": n})
    assert [message["type"] for message in line.read()] == ["pong"] * 3 + ["error"] * 2
    line.say({"command": "ping", "id": "last"})
    (reply,) = line.read()
    assert (reply["data"]["code"], reply["id"]) == ("rate_limited", "last")
    line.now = 1.0
    assert line.reply({"command": "ping"})["type"] == "pong"
    assert line.closed is None


def test_too_many_for_too_long_end_the_line(house):
    """Ten seconds of it close the connection with 1008; the limit is 200 a second."""
    line = Line(house)
    ended_at = None
    for tick in range(2000):
        line.now = tick / 100
        for _ in range(3):
            if line.closed is None:
                line.say('{"command":"ping"}')
            elif ended_at is None:
                ended_at = line.now
    assert line.closed.code == 1008
    assert ended_at == pytest.approx(12.0, abs=0.1)  # two seconds until the bucket is empty, then ten


def test_a_pause_forgives(house):
    """Bursts with pauses between them never end the line."""
    line = Line(house, limits=Rate(commands_per_s=2, sustained_s=10))
    for burst in range(20):
        line.now = burst * 3.0
        for _ in range(5):
            line.say({"command": "ping"})
    assert line.closed is None


def test_binary_frames_close(line):
    """A binary frame closes with 1003."""
    assert line.session.receive_binary().code == 1003
