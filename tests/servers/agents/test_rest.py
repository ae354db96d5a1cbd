"""REST for agents over a real port: what each operation gives, and what bad requests lead to."""

from __future__ import annotations

import asyncio
import json

import pytest

from koubou_panel.core.commands import Caller, CloseShop, DrainPool, ResumePool, SaveScript
from koubou_panel.core.script import Parameter, Script
from koubou_panel.servers.access import Allow, Role, token_hash
from koubou_panel.servers.agents import rest_http
from koubou_panel.servers.agents.server import END_S
from koubou_panel.testing import ended, open_inline_shop, open_shop, submit, until
from tests.servers.agents.rest_door import JSON, READ, TOKEN, open_door

ME = Caller("test")
RUN = "n" * 43


@pytest.fixture
async def shop():
    """A workshop in memory, whose tasks end when the test says so."""
    async with open_inline_shop() as shop:
        yield shop


@pytest.fixture
async def door(shop):
    """Its agents' port, which knows a token that may run scripts."""
    async with open_door(shop, named={token_hash(RUN): Allow(Role.RUN, "agent:ci")}) as door:
        yield door


@pytest.fixture
async def rest(door):
    """A client with full rights."""
    async with door.client() as rest:
        yield rest


async def delegate(rest, **body):
    """Delegate; the reply."""
    return await rest.post("/task/delegate", json=body)


def problem(reply, status):
    """The error of a reply with this status."""
    assert reply.status_code == status, reply.text
    assert reply.headers["content-type"] == "application/json"
    found = reply.json()
    assert set(found) == {"error"}
    assert set(found["error"]) <= {"code", "message", "field", "nearest"}
    assert found["error"]["message"]
    return found["error"]


# -- delegating -----------------------------------------------------------------------------------------------


async def test_a_command_is_delegated_at_once(shop, rest):
    """The reply is the id and `delegated`; the task is stored, and says who asked."""
    reply = await delegate(rest, type="script", command=["echo", "hi"], priority=8)
    task_id = reply.json()["task_id"]
    assert reply.json() == {"task_id": task_id, "status": "delegated"}
    request = shop.state.tasks[task_id].request
    assert (request.kind, request.priority, request.submitted_by) == ("script", 8, "rest:curl")


@pytest.mark.parametrize("kind", ["general", "code", "prompt"])
async def test_a_prompt_of_an_older_client_is_a_prompt(shop, rest, kind):
    """`general` and `code` with a prompt go to the language model; `code` tells it to answer with code."""
    reply = await delegate(rest, type=kind, prompt="Add two numbers.", options={"model": "m", "timeout": 9})
    request = shop.state.tasks[reply.json()["task_id"]].request
    assert request.kind == "prompt"
    assert request.spec["prompt"] == "Add two numbers."
    assert request.spec["model"] == "m"
    assert request.timeout_s == 9
    assert ("system" in request.spec) is (kind == "code")


async def test_sync_gives_the_result(tmp_path):
    """With `sync` the reply comes when the task has ended, with its output or with what went wrong."""
    async with open_shop(tmp_path, workers=1) as shop, open_door(shop) as door, door.client() as rest:
        good = (await delegate(rest, command="echo 'hello you'", sync=True)).json()
        assert good == {
            "task_id": good["task_id"],
            "status": "completed",
            "result": {"success": True, "output": "hello you\n", "error": None},
        }
        bad = (await delegate(rest, command=["sh", "-c", "echo no; exit 3"], sync=True)).json()
        assert (bad["status"], bad["result"]["success"], bad["result"]["output"]) == ("failed", False, "no\n")
        assert "3" in bad["result"]["error"]
        status = (await rest.get(f"/task/{good['task_id']}/status")).json()
        assert set(status) == {"task_id", "status", "result", "created_at", "updated_at"}
        assert status["result"] == good["result"]
        assert (await rest.get(f"/task/status/{good['task_id']}")).json() == status


async def test_waiting_is_bounded(rest):
    """When `options.wait` is over, the task is told of as it stands, and goes on."""
    reply = (await delegate(rest, command="sleep 60", sync=True, options={"wait": 0.05})).json()
    assert (reply["status"], reply["result"]) == ("in_progress", None)


async def test_a_port_that_closes_answers_who_waits(shop, caplog):
    """Who waits for a task is told at once how it stands; a body that does not come is answered 503 in the end."""
    async with open_door(shop) as door, door.client() as rest:
        asked = asyncio.create_task(delegate(rest, command="sleep 60", sync=True))
        await until(lambda: shop.engine.jobs)
        began = asyncio.get_running_loop().time()
        await door.server.close()
        assert asyncio.get_running_loop().time() - began < END_S
        assert ((await asked).status_code, asked.result().json()["status"]) == (200, "in_progress")
    async with open_door(shop) as door:
        reader, writer = await open_raw(door, 100, "Expect: 100-continue")
        assert (await reader.readline()).split()[1] == b"100"
        await door.server.close()
        head, _, body = (await asyncio.wait_for(reader.read(), 10)).partition(b"{")
        assert (b" 503 " in head, b"retry-after" in head, b"unavailable" in body) == (True, True, True)
        writer.close()
    assert not [record for record in caplog.records if record.exc_info]


async def test_who_goes_away_cancels_nothing(shop, door):
    """A client that hangs up while it waits leaves the task as it is, and nobody waiting."""
    async with door.client() as rest:
        asked = asyncio.create_task(delegate(rest, command="sleep 60", sync=True))
        await until(lambda: shop.engine.jobs)
        asked.cancel()
    (task_id,) = shop.engine.jobs
    before = len(asyncio.all_tasks())
    await until(lambda: len(asyncio.all_tasks()) < before or before <= 12)
    assert shop.state.tasks[task_id].status == "in_progress"
    shop.engine.finish(task_id)
    await ended(shop, task_id)


async def test_a_script_of_the_catalogue_is_run(shop, rest, tmp_path):
    """`script` names one, and `parameters` are checked as it says."""
    (tmp_path / "backup.sh").write_text("echo $1")
    script = Script(
        name="backup",
        path=str(tmp_path / "backup.sh"),
        parameters=(Parameter(name="days", type="integer", is_required=True),),
    )
    await shop.do(SaveScript(script), ME)
    reply = await delegate(rest, type="script", script="backup", parameters={"days": 7})
    request = shop.state.tasks[reply.json()["task_id"]].request
    assert (request.script_name, request.parameters) == ("backup", {"days": 7})
    found = problem(await delegate(rest, script="backup", parameters={"days": "many"}), 400)
    assert found["field"] == "parameters.days"
    found = problem(await delegate(rest, script="backpu"), 404)
    assert (found["field"], found["nearest"]) == ("script", "backup")


async def test_files_are_made_known(shop, rest, tmp_path):
    """A prompt is given the text of files; a command begins beside the first and is told of all."""
    first, second = tmp_path / "a.txt", tmp_path / "b.txt"
    first.write_text("alpha")
    second.write_text("beta")
    files = [str(first), str(second)]
    reply = await delegate(rest, prompt="Compare.", files=files)
    text = shop.state.tasks[reply.json()["task_id"]].request.spec["prompt"]
    assert text.startswith("Compare.")
    assert f"File {first}:\nalpha" in text
    assert "beta" in text
    reply = await delegate(rest, command=["cat"], files=files)
    spec = shop.state.tasks[reply.json()["task_id"]].request.spec
    assert spec["cwd"] == str(tmp_path)
    assert spec["env"] == {"TASK_FILES": f"{first}\n{second}"}


async def test_a_file_that_is_none_is_refused(rest):
    """A name that is not absolute, not there, or no plain file is refused with the field."""
    for name in ("a.txt", "/nowhere/x", "/tmp", "/dev/zero", "/a\0b", ""):
        for body in ({"command": ["cat"]}, {"prompt": "x"}):
            assert problem(await delegate(rest, files=[name], **body), 400)["field"] == "files"


async def test_files_are_bounded(rest, tmp_path):
    """Files that are too long for a prompt, or no text, are refused; nothing of them is shown."""
    long, odd = tmp_path / "long", tmp_path / "odd"
    long.write_bytes(b"x" * (256 * 1024 + 1))
    odd.write_bytes(b"\xff\xfe")
    for path in (long, odd):
        assert problem(await delegate(rest, prompt="x", files=[str(path)]), 400)["field"] == "files"


async def test_a_resend_is_one_task(shop, rest):
    """The same `idempotency_key` gives the same task."""
    body = {"command": ["true"], "options": {"idempotency_key": "k"}}
    first, second = await delegate(rest, **body), await delegate(rest, **body)
    assert first.json() == second.json()
    assert len(shop.state.tasks) == 1


# -- tasks ----------------------------------------------------------------------------------------------------


async def test_lists_are_by_status_and_piece_by_piece(shop, rest):
    """`/tasks` gives newest first, with the total; three addresses are for three statuses."""
    ids = [(await delegate(rest, command=["true"])).json()["task_id"] for _ in range(4)]
    await until(lambda: len(shop.engine.jobs) == 2)
    shop.engine.finish(ids[0])
    await until(lambda: shop.state.tasks[ids[0]].is_finished and len(shop.engine.jobs) == 2)
    await shop.hub.stored()
    listed = (await rest.get("/tasks", params={"limit": 2, "offset": 1})).json()
    assert [task["task_id"] for task in listed["tasks"]] == [ids[2], ids[1]]
    assert listed["total"] == 4
    for name, found in (("completed", ids[:1]), ("active", ids[1:3]), ("pending", ids[3:])):
        listed = (await rest.get(f"/tasks/{name}")).json()
        assert sorted(task["task_id"] for task in listed["tasks"]) == found
        assert listed["total"] == len(found)
    assert (await rest.get("/tasks?status=completed")).json()["total"] == 1


async def test_a_task_is_ended(shop, rest):
    """DELETE ends a task, whoever submitted it; one that has ended is a conflict, an unknown one not found."""
    task_id = await submit(shop, "sleep", "60")
    reply = await rest.delete(f"/task/{task_id}")
    assert reply.json()["task_id"] == task_id
    await until(lambda: shop.state.tasks[task_id].status == "cancelled")
    assert "rest:curl" in shop.state.tasks[task_id].message
    assert problem(await rest.delete(f"/task/{task_id}"), 409)["code"] == "conflict"
    for other in ("nope", "2myksd00370fvk"):
        assert problem(await rest.delete(f"/task/{other}"), 404)["code"] == "not_found"
        assert problem(await rest.get(f"/task/{other}/status"), 404)["code"] == "not_found"


async def test_the_workshop_is_shown(shop, rest):
    """Workers, machine and health are there; a drained workshop says so."""
    assert (await rest.get("/health")).json()["status"] == "healthy"
    workers = (await rest.get("/workers/status")).json()
    assert workers["total"] == len(workers["workers"]) == 2
    assert workers["pool"]["max_workers"] == 2
    info = (await rest.get("/system/info")).json()
    assert info["agent_tasks"] == 100
    assert {"general", "code", "script", "prompt"} <= set(info["types"])
    assert "function" not in info["types"]
    await shop.do(DrainPool(), ME)
    assert (await rest.get("/health")).json()["status"] == "draining"


# -- what is refused ------------------------------------------------------------------------------------------

BAD = [
    ({}, "prompt", None),
    ({"prompt": "x", "command": ["true"]}, "command", None),
    ({"type": "scirpt", "command": ["true"]}, "type", "script"),
    ({"type": "function", "command": ["true"]}, "type", None),
    ({"type": "prompt", "command": ["true"]}, "command", None),
    ({"type": "script", "prompt": "x"}, "prompt", None),
    ({"type": 1, "prompt": "x"}, "type", None),
    ({"comand": ["true"]}, "comand", "command"),
    ({"command": []}, "command", None),
    ({"command": [""]}, "command", None),
    ({"command": [1]}, "command", None),
    ({"command": ""}, "command", None),
    ({"command": "a | b"}, "command", None),
    ({"command": ["a\0b"]}, "command", None),
    ({"prompt": ""}, "prompt", None),
    ({"prompt": "  "}, "prompt", None),
    ({"prompt": "\ud800"}, None, None),
    ({"command": ["true"], "priority": 0}, "priority", None),
    ({"command": ["true"], "priority": 11}, "priority", None),
    ({"command": ["true"], "priority": "high"}, "priority", None),
    ({"command": ["true"], "priority": True}, "priority", None),
    ({"command": ["true"], "sync": "yes"}, "sync", None),
    ({"command": ["true"], "files": "a"}, "files", None),
    ({"command": ["true"], "parameters": {"a": 1}}, "parameters", None),
    ({"command": ["true"], "options": []}, "options", None),
    ({"command": ["true"], "options": {"timeout": -1}}, "options.timeout", None),
    ({"command": ["true"], "options": {"cwd": "here"}}, "options.cwd", None),
    ({"command": ["true"], "options": {"timeout": 1e400}}, None, None),
    ({"command": ["true"], "options": {"timout": 1}}, "options.timout", "options.timeout"),
    ({"command": ["true"], "options": {"cwd": "a\0"}}, "options.cwd", None),
    ({"command": ["true"], "options": {"env": {"A=B": "x"}}}, "options.env", None),
    ({"command": ["true"], "options": {"schema": {}}}, "options.schema", None),
    ({"prompt": "x", "options": {"cwd": "/"}}, "options.cwd", None),
    ({"command": ["true"], "options": {"after": ["nope"]}}, "options.after", None),
    ({"script": "x", "parameters": {"a": 2**70}}, "parameters", None),
    ({"script": "x", "files": ["/etc/passwd"]}, "files", None),
]


async def test_bad_fields_are_refused_by_name(shop, rest):
    """What is wrong is 400 (404 where something named is unknown) with the field, and the nearest name."""
    for body, field, near in BAD:
        reply = await rest.post("/task/delegate", content=json.dumps(body), headers=JSON)
        found = problem(reply, 404 if field == "options.after" else 400)
        assert (found.get("field"), found.get("nearest")) == (field, near), body
    assert not shop.state.tasks


NO_OBJECT = [b"", b"{", b"[]", b"null", b'"x"', b"\xff", b'{"prompt":"a","prompt":"b"}', b'{"prompt":NaN}']


async def test_what_is_no_json_object_is_refused(rest):
    """A body that is no JSON object, or not strictly one, is 400."""
    for content in (*NO_OBJECT, b"[" * 5000):
        reply = await rest.post("/task/delegate", content=content, headers=JSON)
        found = problem(reply, 400)
        assert found["code"] in ("bad_json", "bad_request")
        assert "frame" not in found["message"]


async def test_nothing_is_as_left_out(shop, rest):
    """An empty value in an address, and a timeout of 0, are as if they were not there."""
    assert (await rest.get("/tasks?status=&limit=&offset=")).json() == {"tasks": [], "total": 0}
    task_id = (await delegate(rest, command=["true"], options={"timeout": 0})).json()["task_id"]
    assert shop.state.tasks[task_id].request.timeout_s is None


async def test_another_media_type_is_refused(rest):
    """A body that is said to be something else is 415, whatever it is."""
    for media in ("text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin-1"):
        reply = await rest.post("/task/delegate", content=b"{}", headers={"Content-Type": media})
        assert problem(reply, 415)["code"] == "media_type"


async def test_a_body_is_bounded(shop, rest):
    """More than 1 MiB is 413, announced or in chunks; just below it is read."""

    async def chunks():
        for _ in range(20):
            yield b" " * 65_536

    reply = await rest.post("/task/delegate", content=b" " * ((1 << 20) + 1), headers=JSON)
    assert problem(reply, 413)["code"] == "too_large"
    reply = await rest.post("/task/delegate", content=chunks(), headers=JSON)
    assert problem(reply, 413)["code"] == "too_large"
    body = json.dumps({"command": ["true"]}).encode()
    reply = await rest.post("/task/delegate", content=body + b" " * ((1 << 20) - len(body)), headers=JSON)
    assert reply.status_code == 200
    assert len(shop.state.tasks) == 1


BAD_QUERIES = [
    ("status=complted", "status"),
    ("statsu=", "statsu"),
    ("limit=0", "limit"),
    ("limit=1001", "limit"),
    ("limit=x", "limit"),
    ("offset=-1", "offset"),
    ("offset=99999999999999999999", "offset"),
    ("limt=1", "limt"),
    ("limit=1&limit=2", "limit"),
    ("limit=%ff", "limit"),
]


async def test_a_bad_query_is_refused_by_name(rest):
    """What stands in the address is checked as strictly as a body."""
    for query, field in BAD_QUERIES:
        assert problem(await rest.get(f"/tasks?{query}"), 400)["field"] == field, query


async def test_paths_and_verbs_are_told(rest):
    """An unknown path is 404, an unknown verb 405 with what there is; HEAD and OPTIONS behave."""
    for path in ("/nope", "/tasks/", "/task/a/b/c", "/"):
        assert problem(await rest.get(path), 404)["code"] == "not_found"
    reply = await rest.put("/tasks")
    assert problem(reply, 405)["code"] == "method"
    assert reply.headers["allow"] == "GET, HEAD, OPTIONS"
    reply = await rest.delete("/task/delegate")
    assert problem(reply, 405)
    assert reply.headers["allow"] == "OPTIONS, POST"
    reply = await rest.options("/task/delegate")
    assert (reply.status_code, reply.content, reply.headers["allow"]) == (204, b"", "OPTIONS, POST")
    whole, head = await rest.get("/tasks"), await rest.head("/tasks")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == whole.headers["content-length"]


async def test_a_drained_or_closing_workshop_takes_nothing(shop, rest):
    """503 with Retry-After while new work is not taken; all else is answered."""
    await shop.do(DrainPool(), ME)
    reply = await delegate(rest, command=["true"])
    assert problem(reply, 503)["code"] == "draining"
    assert int(reply.headers["retry-after"]) > 0
    await shop.do(ResumePool(), ME)
    assert (await delegate(rest, command=["true"])).status_code == 200
    await shop.do(CloseShop(), ME)
    assert problem(await delegate(rest, command=["true"]), 503)["code"] == "draining"
    assert (await rest.get("/tasks")).status_code == 200


async def test_an_archive_that_fails_is_told(shop, rest, monkeypatch):
    """503 with Retry-After when the task cannot be stored; nothing is said to have been taken in."""

    def fail(batches):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shop._archive, "commit", fail)
    reply = await delegate(rest, command=["true"])
    assert problem(reply, 503)["code"] == "storage"
    assert "retry-after" in reply.headers
    monkeypatch.undo()
    await until(lambda: not shop.hub._is_failing)
    assert not shop.state.tasks


async def test_too_many_tasks_are_refused():
    """429 with Retry-After when an agent has as many unfinished tasks as it may have; another one goes on."""
    async with (
        open_inline_shop(agent_tasks=2) as shop,
        open_door(shop, agent_tasks=2) as door,
        door.client() as rest,
    ):
        replies = await asyncio.gather(*(delegate(rest, command=["true"]) for _ in range(4)))
        assert sorted(reply.status_code for reply in replies) == [200, 200, 429, 429]
        refused = next(reply for reply in replies if reply.status_code == 429)
        assert problem(refused, 429)["code"] == "limit"
        assert int(refused.headers["retry-after"]) > 0
        other = await rest.post("/task/delegate", json={"command": ["true"]}, headers={"User-Agent": "b/1"})
        assert other.status_code == 200


# -- who may --------------------------------------------------------------------------------------------------


async def test_the_read_token_only_reads(shop, door):
    """With the read token everything is seen, and nothing changed; its body is not even looked at."""
    task_id = await submit(shop, "true")
    async with door.client(READ) as rest:
        assert (await rest.get("/tasks")).status_code == 200
        assert problem(await rest.post("/task/delegate", content=b"{"), 403)["code"] == "forbidden"
        assert problem(await rest.delete(f"/task/{task_id}"), 403)["code"] == "forbidden"
    assert list(shop.state.tasks) == [task_id]


async def test_the_role_run_runs_scripts_alone(shop, door, tmp_path):
    """A token with the scope `run` reads and runs scripts of the catalogue; no command, prompt, file or cancel."""
    (tmp_path / "s.sh").write_text("true")
    await shop.do(SaveScript(Script(name="s", path=str(tmp_path / "s.sh"))), ME)
    async with door.client(RUN) as rest:
        reply = await delegate(rest, script="s")
        assert shop.state.tasks[reply.json()["task_id"]].request.submitted_by == "agent:ci"
        for body in ({"command": ["true"]}, {"prompt": "x"}, {"prompt": "x", "files": ["/nowhere"]}):
            assert problem(await delegate(rest, **body), 403)["code"] == "forbidden"
        assert problem(await rest.delete(f"/task/{reply.json()['task_id']}"), 403)["code"] == "forbidden"
        assert (await rest.get("/tasks")).json()["total"] == 1


# -- clients that misbehave -----------------------------------------------------------------------------------


async def open_raw(door, length: int, *more: str):
    """A connection on which a body of `length` bytes was announced."""
    reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
    lines = ["POST /task/delegate HTTP/1.1", f"Host: 127.0.0.1:{door.port}", f"Authorization: Bearer {TOKEN}"]
    lines += ["Content-Type: application/json", f"Content-Length: {length}", *more]
    writer.write("\r\n".join([*lines, "", ""]).encode())
    return reader, writer


async def test_a_body_that_does_not_come_is_not_waited_for(shop, door, monkeypatch):
    """Who announces a body and sends none is told so after a while, and nothing is left of it."""
    monkeypatch.setattr(rest_http, "BODY_S", 0.05)
    reader, writer = await open_raw(door, 100)
    writer.write(b'{"prompt"')
    assert (await asyncio.wait_for(reader.readline(), 10)).split()[1] == b"408"
    writer.close()
    assert not shop.state.tasks


async def test_a_body_that_is_cut_off_submits_nothing(shop, door):
    """Who hangs up in the middle of a body has asked for nothing."""
    body = json.dumps({"command": ["true"]}).encode()
    reader, writer = await open_raw(door, len(body) + 1)
    writer.write(body)
    await writer.drain()
    writer.write_eof()
    writer.close()
    await asyncio.wait_for(reader.read(), 10)
    async with door.client() as rest:
        assert (await rest.get("/tasks")).json()["total"] == 0
    assert not shop.state.tasks


async def test_who_asks_before_sending_is_told_to_go_on(door):
    """`Expect: 100-continue` is answered, but only once the request is let in and its body wanted."""
    reader, writer = await open_raw(door, 2, "Expect: 100-continue")
    assert (await asyncio.wait_for(reader.readline(), 10)).split()[1] == b"100"
    writer.write(b"{}")
    assert b" 400 " in await asyncio.wait_for(reader.readuntil(b"Bad Request"), 10)
    writer.close()
    reader, writer = await open_raw(door, 1 << 30, "Expect: 100-continue", "Origin: http://evil.example")
    assert (await asyncio.wait_for(reader.readline(), 10)).split()[1] == b"403"
    writer.close()
