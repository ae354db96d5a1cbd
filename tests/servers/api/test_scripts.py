"""`/api/scripts` over a real workshop: what old clients send, all else, and every way to be refused."""

from __future__ import annotations

import pytest

from koubou_panel.core.records import TaskId
from koubou_panel.testing import ended
from tests.servers.api.rest import READ, open_everything, script_file

SIX = {"interval": 3600, "enabled": True, "max_log_lines": 50, "timeout": 30}


@pytest.fixture
async def rest(tmp_path):
    """A client of a dashboard over a real workshop."""
    async with open_everything(tmp_path / "home") as client:
        client.folder = tmp_path
        yield client


@pytest.fixture
async def greet(rest):
    """A script that is in the catalogue, as an old client adds it."""
    body = {"name": "greet", "path": script_file(rest.folder), **SIX}
    added = await rest.post("/api/scripts", body)
    assert added.status == 201
    return body


async def run_to_end(rest, name: str, body: object = None) -> str:
    """Run a script and wait for the end; the task's id."""
    told = await rest.post(f"/api/scripts/{name}/run", body)
    assert (told.status, set(told.body)) == (202, {"task_id", "status"})
    task_id = TaskId(told.body["task_id"])
    await ended(rest.shop, task_id)
    return task_id


async def test_the_six_fields_of_old_clients_are_enough(rest, greet):
    """What was sent is what is shown: added, listed, shown, changed, run, switched off and on, removed."""
    for shown in (
        await rest.get("/api/scripts/greet"),
        await rest.put("/api/scripts/greet", greet),
    ):
        assert shown.status == 200
        assert {name: shown.body[name] for name in greet} == greet
    listed = (await rest.get("/api/scripts")).body
    assert listed["total"] == 1
    assert {name: listed["scripts"][0][name] for name in greet} == greet
    changed = await rest.put("/api/scripts/greet", greet | {"interval": 60, "timeout": 0})
    assert (changed.body["interval"], changed.body["timeout"]) == (60, 0)
    assert rest.shop.state.scripts["greet"].script.timeout_s is None
    task_id = await run_to_end(rest, "greet")
    assert rest.shop.state.tasks[task_id].status == "completed"
    assert (await rest.post("/api/scripts/greet/disable")).body["enabled"] is False
    assert (await rest.post("/api/scripts/greet/disable")).body["enabled"] is False
    assert (await rest.post("/api/scripts/greet/enable")).body["enabled"] is True
    removed = await rest.delete("/api/scripts/greet")
    assert (removed.status, removed.body["removed"]) == (200, "greet")
    assert (await rest.get("/api/scripts/greet")).status == 404


async def test_what_is_shown_can_be_sent_back(rest, greet):
    """A client that changes one field of what it was shown, and sends all of it, changes that one alone."""
    shown = (await rest.get("/api/scripts/greet")).body
    sent = await rest.put("/api/scripts/greet", shown | {"max_log_lines": 7})
    assert sent.status == 200
    same = {"max_log_lines", "revision", "changed_at", "next_run"}
    assert {n: v for n, v in sent.body.items() if n not in same} == {
        n: v for n, v in shown.items() if n not in same
    }
    assert (sent.body["max_log_lines"], sent.body["revision"]) == (7, shown["revision"] + 1)


async def test_added_says_where(rest, greet):
    """201 with the address of the script, its name quoted, and its Etag."""
    body = {"name": "a b+c", "path": greet["path"]}
    added = await rest.post("/api/scripts", body)
    assert (added.status, added.headers["Location"]) == (201, "/api/scripts/a%20b%2Bc")
    assert added.headers["Etag"] == '"1"'
    shown = await rest.get(added.headers["Location"])
    assert (shown.body["name"], shown.body["interval"], shown.body["schedule"]) == ("a b+c", None, None)


async def test_a_schedule_is_written_whole(rest, greet):
    """Cron with its zone, a moment, an interval, none: each takes the place of the other."""
    cron = {"cron": "0 9 * * 1-5", "zone": "Asia/Taipei", "overlap": "queue"}
    shown = await rest.put("/api/scripts/greet", {"schedule": cron})
    assert shown.body["interval"] is None
    assert shown.body["schedule"] == cron | {"every_s": None, "at": None}
    assert shown.body["next_run"].endswith("Z")
    same = await rest.put("/api/scripts/greet", {"interval": None, "enabled": True})
    assert same.body["schedule"] == shown.body["schedule"], (
        "null is how an old client was shown a cron script"
    )
    at = await rest.put("/api/scripts/greet", {"schedule": {"at": "2999-01-02T03:04:05+02:00"}})
    assert at.body["next_run"] == "2999-01-02T01:04:05.000Z"
    every = await rest.put("/api/scripts/greet", at.body | {"interval": 5})
    assert (every.body["interval"], every.body["schedule"]["every_s"]) == (5, 5)
    none = await rest.put("/api/scripts/greet", {"interval": 0})
    assert (none.body["schedule"], none.body["next_run"]) == (None, None)


async def test_parameters_are_checked_and_given(rest):
    """A run takes the parameters that the script declares; others are refused with the nearest, by name."""
    path = script_file(rest.folder, 'echo "$@"\n')
    parameters = [
        {"name": "who", "is_required": True},
        {"name": "times", "type": "integer", "flag": "--times"},
    ]
    await rest.post("/api/scripts", {"name": "greet", "path": path, "parameters": parameters})
    refused = await rest.post("/api/scripts/greet/run", {"parameters": {"woh": "you"}})
    assert (refused.status, refused.error["field"], refused.error["nearest"]) == (
        400,
        "parameters.woh",
        "who",
    )
    missing = await rest.post("/api/scripts/greet/run")
    assert (missing.status, missing.error["field"]) == (400, "parameters.who")
    task_id = await run_to_end(rest, "greet", {"parameters": {"who": "you", "times": 3}})
    assert (await rest.shop.read_output(task_id, 0, 100)).text == "--times 3 you\n"
    assert rest.shop.state.tasks[task_id].request.submitted_by == "rest:127.0.0.1"


async def test_what_the_script_says_itself_is_shown_and_what_was_sent_wins(rest):
    """A header's time-out holds where none is sent; 0 is sent by old clients, and means none."""
    header = "# /// script\n# [tool.koubou]\n# timeout = 300\n# description = 'A greeting'\n# ///\n"
    body = {"name": "old", "path": script_file(rest.folder, f"{header}echo hi\n"), "enabled": True}
    read = await rest.post("/api/scripts", body)
    assert (read.body["timeout"], read.body["description"]) == (300, "A greeting")
    old = await rest.post("/api/scripts", body | {"name": "older", "timeout": 0})
    assert old.body["timeout"] == 0


async def test_a_run_asked_for_twice_is_one(rest, greet):
    """With an idempotency key the same run is answered again."""
    first = await rest.post("/api/scripts/greet/run", {"idempotency_key": "k"})
    again = await rest.post("/api/scripts/greet/run", {"idempotency_key": "k"})
    assert first.body["task_id"] == again.body["task_id"]


async def test_a_text_is_kept_in_the_home(rest):
    """With `text` a script needs no file; the text is shown with its version and changed like a field."""
    added = await rest.post("/api/scripts", {"name": "inline", "path": "a.sh", "text": "echo one\n"})
    assert (added.status, added.body["is_inline"]) == (201, True)
    shown = (await rest.get("/api/scripts/inline?text=1")).body
    assert shown["text"] == "echo one\n"
    body = {"text": "echo two\n", "version": shown["version"]}
    changed = await rest.put("/api/scripts/inline", body)
    assert changed.status == 200
    assert changed.body["version"] != shown["version"]
    task_id = await run_to_end(rest, "inline")
    assert (await rest.shop.read_output(task_id, 0, 100)).text == "two\n"
    stale = await rest.put("/api/scripts/inline", body | {"text": "echo three\n"})
    assert (stale.status, stale.error["code"], stale.error["field"]) == (409, "conflict", "version")
    assert (stale.body["yours"], stale.body["current"]) == (shown["version"], changed.body["version"])


async def test_a_text_can_make_room_for_a_file(rest):
    """With a path of its own a script is no longer kept in the home; sent back as shown, it still is."""
    await rest.post("/api/scripts", {"name": "inline", "text": "#!/bin/sh\necho one\n"})
    shown = (await rest.get("/api/scripts/inline")).body
    assert (await rest.put("/api/scripts/inline", shown)).body["is_inline"] is True
    moved = await rest.put("/api/scripts/inline", {"path": script_file(rest.folder)})
    assert (moved.body["is_inline"], moved.body["path"]) == (False, str(rest.folder / "greet.sh"))
    await run_to_end(rest, "inline")
    assert (await rest.get("/api/logs/inline")).body["lines"] == ["hello"]


async def test_a_change_on_a_stale_copy_is_refused_and_tells_both(rest, greet):
    """By `revision` 409, by If-Match 412; the answer has the script as it is, and nothing was changed."""
    first = (await rest.get("/api/scripts/greet")).body["revision"]
    second = (await rest.put("/api/scripts/greet", {"description": "mine"})).body["revision"]
    stale = await rest.put("/api/scripts/greet", {"description": "late", "revision": first})
    assert (stale.status, stale.error["code"]) == (409, "conflict")
    assert (stale.body["yours"], stale.body["current"]) == (first, second)
    assert stale.body["script"]["description"] == "mine"
    failed = await rest.put("/api/scripts/greet", {"description": "late"}, If_Match=f'"{first}"')
    assert (failed.status, failed.error["code"]) == (412, "stale")
    assert (await rest.delete("/api/scripts/greet", If_Match=f'"{first}"')).status == 412
    good = await rest.put("/api/scripts/greet", {"description": "new"}, If_Match=f'"{second}"')
    assert (good.status, good.headers["Etag"]) == (200, f'"{second + 1}"')
    assert (await rest.put("/api/scripts/greet", {"description": "any"}, If_Match="*")).status == 200
    assert (await rest.put("/api/scripts/greet", {}, If_Match="yesterday")).status == 400


@pytest.mark.parametrize(
    ("change", "field", "said"),
    [
        ({"interval": "60"}, "interval", "expected"),
        ({"interval": -1}, "interval", ">= 0"),
        ({"interval": 0.5}, "every", "1 second"),
        ({"enabled": 1}, "enabled", "bool"),
        ({"timeout": -5}, "timeout", ">= 0"),
        ({"max_log_lines": 0}, "max_log_lines", ">= 1"),
        ({"max_log_lines": 2.5}, "max_log_lines", "int"),
        ({"path": "greet.sh"}, "path", "absolute"),
        ({"path": "/nowhere/at.sh"}, "path", "/nowhere/at.sh"),
        ({"name": "other"}, "name", "keeps its name"),
        ({"intervall": 5}, "intervall", "did you mean 'interval'"),
        ({"schedule": {"cron": "* * *"}}, "cron", "no cron expression"),
        ({"schedule": {"cron": "0 9 * * *", "zone": "Mars/Base"}}, "zone", "no time zone"),
        ({"schedule": {"crom": "x"}}, "schedule.crom", "did you mean 'schedule.cron'"),
        ({"schedule": {}}, "schedule", "one of"),
        ({"schedule": {"at": "tomorrow"}}, "schedule.at", "moment"),
        ({"schedule": {"at": "2999-01-01"}}, "schedule.at", "zone"),
        ({"schedule": {"every_s": 5}, "interval": 7}, "interval", "different things"),
        ({"parameters": [{"name": "a", "typ": "text"}]}, "parameters.typ", "parameters.type"),
        ({"parameters": [{"name": "a", "type": "date"}]}, "parameters.type", "date"),
        ({"parameters": [{}]}, "parameters.name", "missing"),
        ({"limits": {"memory": 1}}, "limits.memory", "limits.memory_bytes"),
        ({"revision": 2**70}, "revision", "64 bits"),
        ({"env": {"A": 1}}, "env", "str"),
    ],
)
async def test_what_cannot_be_is_refused_with_its_field(rest, greet, change, field, said):
    """The code, the field at fault, and words that say what would be right; nothing has changed."""
    refused = await rest.put("/api/scripts/greet", change)
    assert (refused.status, refused.error["field"]) == (400, field), refused.text
    assert said in refused.error["message"]
    assert rest.shop.state.scripts["greet"].revision == 1


@pytest.mark.parametrize(
    ("asked", "body", "code"),
    [
        ("GET /api/scripts/gret", None, (404, "not_found")),
        ("PUT /api/scripts/gret", {}, (404, "not_found")),
        ("DELETE /api/scripts/gret", None, (404, "not_found")),
        ("POST /api/scripts/gret/run", None, (404, "not_found")),
        ("POST /api/scripts/gret/enable", None, (404, "not_found")),
        ("GET /api/logs/gret", None, (404, "not_found")),
        ("POST /api/scripts", {"name": "greet", "path": "/x"}, (409, "conflict")),
        ("POST /api/scripts", {"path": "/x"}, (400, "invalid")),
        ("POST /api/scripts", {"name": "x"}, (400, "invalid")),
        ("POST /api/scripts", {"name": "x", "path": "/a/b", "text": "y"}, (400, "invalid")),
        ("POST /api/scripts", {"name": "../x", "path": "/x"}, (400, "invalid")),
        ("POST /api/scripts/greet/enable", {"on": True}, (400, "invalid")),
        ("POST /api/scripts/greet/run", {"priority": 11}, (400, "invalid")),
        ("GET /api/scripts?limit=0", None, (400, "invalid")),
        ("GET /api/scripts?limt=5", None, (400, "invalid")),
        ("GET /api/scripts?limit=5&limit=6", None, (400, "invalid")),
    ],
)
async def test_what_is_not_there_is_told(rest, greet, asked, body, code):
    """Unknown scripts with the nearest name, names that are taken, fields that are missing."""
    refused = await rest.ask(*asked.split(), body)
    assert (refused.status, refused.error["code"]) == code, refused.text
    if refused.status == 404:
        assert refused.error["nearest"] == "greet"


async def test_who_may_only_read_changes_nothing(rest, greet):
    """The read token sees all but the environment that a script is given, and is refused every change."""
    await rest.put("/api/scripts/greet", {"env": {"KEY": "secret"}})
    shown = await rest.get("/api/scripts/greet", token=READ)
    assert (shown.status, shown.body["env"]) == (200, None)
    assert "secret" not in shown.text
    assert (await rest.get("/api/scripts/greet")).body["env"] == {"KEY": "secret"}
    for method, path in (
        ("POST", "/api/scripts"),
        ("PUT", "/api/scripts/greet"),
        ("DELETE", "/api/scripts/greet"),
        ("POST", "/api/scripts/greet/run"),
        ("POST", "/api/scripts/greet/disable"),
        ("PUT", "/api/config"),
        ("DELETE", "/api/logs/greet"),
    ):
        refused = await rest.ask(method, path, {}, token=READ)
        assert (refused.status, refused.error["code"]) == (403, "forbidden"), path
    assert rest.shop.state.scripts["greet"].script.is_enabled


async def test_pages_of_the_catalogue(rest, greet):
    """`limit` and `offset` cut the list, which is in the order of names."""
    for name in ("b", "a", "c"):
        await rest.post("/api/scripts", {"name": name, "path": greet["path"]})
    page = (await rest.get("/api/scripts?limit=2&offset=1")).body
    assert ([script["name"] for script in page["scripts"]], page["total"]) == (["b", "c"], 4)


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ({"text": "#!/bin/sh\necho 2\n", "version": "0123456789abcdef"}, "conflict"),
        ({"text": "#!/bin/sh\n# /// script\n# nonsense\n# ///\n"}, "invalid"),
        ({"text": "#!/bin/sh\necho 2\n", "path": "/elsewhere.sh"}, "invalid"),
        ({"text": "#!/bin/sh\necho 2\n", "revision": 7}, "conflict"),
    ],
)
async def test_fields_and_text_change_together_or_not_at_all(rest, more, code):
    """Where the text is refused its definition stays as it was, and the other way round."""
    text = "#!/bin/sh\necho 1\n"
    await rest.post("/api/scripts", {"name": "s", "text": text})
    before = (await rest.get("/api/scripts/s?text=1")).body
    refused = await rest.put("/api/scripts/s", {"timeout": 5} | more)
    assert refused.error["code"] == code
    after = (await rest.get("/api/scripts/s?text=1")).body
    assert (after["timeout"], after["revision"], after["text"]) == (0, before["revision"], text)
    changed = await rest.put("/api/scripts/s", {"timeout": 5, "text": "#!/bin/sh\necho 2\n"})
    assert (changed.status, changed.body["timeout"]) == (200, 5)
    after = (await rest.get("/api/scripts/s?text=1")).body
    assert (after["text"], after["version"]) == ("#!/bin/sh\necho 2\n", changed.body["version"])
