"""Scripts and services on the public wire: their records and the messages of their facts."""

from __future__ import annotations

import json

import pytest
from msgspec.structs import replace

from koubou_panel.core.events import (
    SCRIPT_FACTS,
    ScheduleFired,
    ScriptEdited,
    ScriptRan,
    ScriptRemoved,
    ScriptSaved,
    ServiceChanged,
)
from koubou_panel.core.fold import evolve
from koubou_panel.core.records import Service, TaskId
from koubou_panel.core.script import Parameter, Schedule, Script
from koubou_panel.core.state import State
from koubou_panel.wire.messages import encode, initial_state, message_of
from koubou_panel.wire.script import script_record

AT = 1_700_000_000.0
RUN = TaskId("run-1")
SCRIPT = Script(
    name="backup",
    path="/srv/backup.sh",
    description="Copies it all.",
    parameters=(Parameter(name="to", type="path", is_required=True),),
    timeout_s=90.0,
    schedule=Schedule(every_s=60.0),
)
FIELDS = (
    "name path interval enabled max_log_lines timeout description parameters schedule next_run last_run "
    "last_status last_task runs failures active is_inline revision created_at changed_at"
)
FACTS = {
    ScriptSaved: (ScriptSaved(AT, replace(SCRIPT, timeout_s=None), 2, AT, AT + 60, "cli"), "changed by cli"),
    ScriptEdited: (ScriptEdited(AT, "backup", "v2", "cli"), "a new version of its text was saved by cli"),
    ScriptRemoved: (ScriptRemoved(AT, "backup", "cli"), "removed by cli"),
    ScheduleFired: (
        ScheduleFired(AT, "backup", AT - 1, AT + 59, RUN, 2),
        "due: its run is submitted; 2 earlier times were missed",
    ),
    ScriptRan: (ScriptRan(AT, "backup", RUN, "completed", 1, 0, 1.2344, is_final=True), "completed"),
}


@pytest.fixture
def state():
    """A state with one script, due every minute."""
    state = State("one")
    evolve(state, ScriptSaved(AT, SCRIPT, 1, AT, AT + 60, "cli"))
    return state


def body(folded) -> dict:
    """The message of a fact, decoded."""
    return json.loads(message_of(folded)[1])


@pytest.mark.parametrize("kind", SCRIPT_FACTS, ids=lambda kind: kind.__name__)
def test_every_fact_of_a_script_is_a_message_of_its_channel(state, kind):
    """Runs are `script_status`, all else `script_update`, each with the channel's next `seq` and words."""
    fact, words = FACTS[kind]
    folded = evolve(state, fact)
    told = body(folded)
    assert message_of(folded)[0] == "script"
    assert told["type"] == ("script_status" if kind is ScriptRan else "script_update")
    assert (told["seq"], told["script_name"], told["details"]["message"]) == (2, "backup", words)
    assert told["timestamp"] == "2023-11-14T22:13:20.000Z"


def test_a_run_is_told_as_the_protocol_says(state):
    """`script_status` has name, status, exit code, milliseconds and task; name and status on top too."""
    told = body(evolve(state, FACTS[ScriptRan][0]))
    assert told["data"] == {
        "script_name": "backup",
        "status": "completed",
        "exit_code": 0,
        "duration": 1234,
        "task_id": RUN,
        "run": 1,
    }
    assert told["status"] == "completed"
    starting = body(evolve(state, ScriptRan(AT, "backup", RUN, "starting")))["data"]
    assert (starting["status"], starting["exit_code"], starting["duration"]) == ("starting", None, None)


def test_a_failure_says_whether_it_is_tried_again(state):
    """In words: the exit code, or that another attempt follows."""
    last = body(evolve(state, ScriptRan(AT, "backup", RUN, "failed", 1, 3, 0.5, is_final=True)))
    assert last["details"]["message"] == "failed with exit code 3"
    again = body(evolve(state, ScriptRan(AT, "backup", RUN, "failed", 1)))
    assert again["details"]["message"] == "failed; it is tried again"


def test_a_run_outlives_its_script(state):
    """The end of a run of a script that was removed meanwhile is told all the same."""
    removed = body(evolve(state, ScriptRemoved(AT, "backup")))
    assert (removed["event"], removed["data"]["name"]) == ("removed", "backup")
    assert body(evolve(state, FACTS[ScriptRan][0]))["data"]["status"] == "completed"


def test_the_record_has_what_old_clients_read(state):
    """The six fields of the first system, seconds as integers where they are, then all else."""
    evolve(state, ScriptRan(AT + 5, "backup", RUN, "running", 1))
    record = json.loads(encode(script_record(state.scripts["backup"])))
    assert list(record) == FIELDS.split()
    assert (record["name"], record["path"], record["enabled"]) == ("backup", "/srv/backup.sh", True)
    assert (repr(record["interval"]), repr(record["timeout"]), record["max_log_lines"]) == ("60", "90", 1000)
    assert record["schedule"] == {"every_s": 60, "cron": None, "zone": "UTC", "at": None, "overlap": "skip"}
    assert (record["last_run"], record["last_status"]) == ("2023-11-14T22:13:25.000Z", "running")
    assert (record["active"], record["runs"], record["revision"]) == ([RUN], 0, 1)
    assert record["parameters"][0]["is_required"] is True


def test_a_script_without_limits_is_told_so(state):
    """No interval is null, no time-out 0; a cron schedule is no interval."""
    evolve(
        state,
        ScriptSaved(
            AT,
            replace(SCRIPT, timeout_s=None, schedule=Schedule(cron="0 9 * * *", zone="Asia/Taipei")),
            2,
            AT,
        ),
    )
    record = script_record(state.scripts["backup"])
    assert (record.interval, record.timeout, record.schedule.cron) == (None, 0, "0 9 * * *")
    evolve(state, ScriptSaved(AT, replace(SCRIPT, schedule=None), 3, AT))
    assert script_record(state.scripts["backup"]).schedule is None


def test_a_service_is_a_system_event():
    """`service_changed` says in its details which service, its state and where it is."""
    service = Service("agents", "running", 8765, 42, AT, 1)
    told = body(evolve(State("one"), ServiceChanged(AT, service)))
    assert (told["type"], told["event"]) == ("system_event", "service_changed")
    assert told["details"] == {
        "message": "agents is running on port 8765",
        "name": "agents",
        "state": "running",
        "port": 8765,
        "pid": 42,
        "restarts": 1,
    }
    assert told["data"]["started_at"] == "2023-11-14T22:13:20.000Z"
    failed = body(evolve(State("one"), ServiceChanged(AT, Service("model", "failed", message="no memory"))))
    assert failed["details"]["message"] == "model is failed: no memory"


def test_a_large_catalogue_fits_into_a_message():
    """At most a thousand scripts, in less than the 1 MiB that clients take unless told otherwise."""
    state = State("one")
    for n in range(1_200):
        evolve(state, ScriptSaved(AT, replace(SCRIPT, name=f"backup-{n}", parameters=()), 1, AT, AT + 60))
    text = initial_state(state, state.seq, AT)
    assert len(json.loads(text)["data"]["scripts"]) == 1_000
    assert len(text) < 1 << 20


def test_the_first_message_has_scripts_and_services(state):
    """`initial_state` lists both as they stand."""
    evolve(state, ServiceChanged(AT, Service("agents", "idle")))
    data = json.loads(initial_state(state, state.seq, AT))["data"]
    assert [script["name"] for script in data["scripts"]] == ["backup"]
    assert [(service["name"], service["state"]) for service in data["services"]] == [("agents", "idle")]


def test_a_script_that_changed_is_shown_as_it_now_stands(state):
    """What was made for one client serves the next, as long as it is true."""

    def shown():
        return json.loads(initial_state(state, state.seq, AT))["data"]["scripts"][0]

    assert shown() == shown()
    evolve(state, FACTS[ScriptSaved][0])
    assert (shown()["revision"], shown()["timeout"]) == (2, 0)
