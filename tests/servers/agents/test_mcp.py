"""MCP over the agents' port, driven by the SDK's own client: real workers, real HTTP, both protocol versions."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest
from mcp.shared.exceptions import MCPError
from mcp_types import PromptReference, ResourceTemplateReference

from koubou_panel.core.commands import Caller, SaveScript
from koubou_panel.core.script import Parameter, Script
from koubou_panel.testing import open_shop, until
from tests.servers.agents.mcp_door import READ, VERSIONS, bad, good, open_door

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]
COUNT = """
import time
for i in range(5):
    print("line", i, flush=True)
    time.sleep(0.05)
print("end", flush=True)
"""
# Goes on only when told, so that a test waits for nothing by the clock.
STEPS = """
import sys
from pathlib import Path
import time
import koubou_panel as kp
gate = Path(sys.argv[1])
for done in (1, 2, 3):
    while not (gate / str(done)).exists():
        time.sleep(0.01)
    kp.progress(done, 4)
while not (gate / "4").exists():
    time.sleep(0.01)
print("finished")
"""


@pytest.fixture
async def door(tmp_path):
    """The port of a workshop with two workers."""
    async with open_shop(tmp_path / "home") as shop, open_door(shop) as door:
        yield door


async def submitted(client, command, **options) -> str:
    """The id of a command that was submitted."""
    return good(await client.call_tool("submit_command", {"command": command, **options}))["task_id"]


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_command_goes_from_submit_over_wait_to_its_output(door, version):
    """Submitting gives an id at once; waiting tells the end, and the output is read by offset."""
    async with door.client(version) as client:
        assert client.protocol_version == version
        task_id = await submitted(client, [sys.executable, "-c", COUNT], name="count")
        waited = good(await client.call_tool("wait", {"task_ids": [task_id]}))
        assert waited["is_done"]
        assert (waited["tasks"][0]["status"], waited["tasks"][0]["name"]) == ("completed", "count")
        page = good(await client.call_tool("read_output", {"task_id": task_id, "limit": 7}))
        assert (page["text"], page["next_offset"], page["is_end"]) == ("line 0\n", 7, False)
        page = good(await client.call_tool("read_output", {"task_id": task_id, "offset": 7}))
        assert (page["text"][-4:], page["next_offset"], page["is_end"]) == ("end\n", page["size"], True)


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_wait_tells_how_far_the_task_is(door, version, tmp_path):
    """Progress arrives while the call waits, and never goes back."""
    told = []

    async def hear(progress, total, message):
        told.append((progress, total, message))
        if message and message.startswith("running, 50%"):
            (tmp_path / "3").touch()
            (tmp_path / "4").touch()

    (tmp_path / "1").touch()
    (tmp_path / "2").touch()
    async with door.client(version) as client:
        task_id = await submitted(client, [sys.executable, "-c", STEPS, str(tmp_path)])
        result = await client.call_tool("wait", {"task_ids": [task_id]}, progress_callback=hear)
        assert good(result)["tasks"][0]["status"] == "completed"
    assert any(message.startswith("running, 50%") for _, _, message in told)
    seconds = [progress for progress, _, _ in told]
    assert seconds == sorted(set(seconds))
    assert all(total is None or total >= progress for progress, total, _ in told)


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_wait_ends_at_its_limit_and_a_cancel_ends_the_task(door, version):
    """At its time limit a wait tells the present state; cancelling ends the task, which the next wait tells."""
    async with door.client(version) as client:
        task_id = await submitted(client, SLEEP)
        waited = good(await client.call_tool("wait", {"task_ids": [task_id], "timeout_s": 0.05}))
        assert not waited["is_done"]
        assert waited["tasks"][0]["status"] in ("pending", "in_progress")
        good(await client.call_tool("cancel_task", {"task_id": task_id}))
        waited = good(await client.call_tool("wait", {"task_ids": [task_id]}))
        assert (waited["tasks"][0]["status"], waited["tasks"][0]["reason"]) == ("cancelled", "user")
        error = bad(await client.call_tool("cancel_task", {"task_id": task_id}))
        assert error["code"] == "conflict"


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_client_that_leaves_in_the_middle_of_a_wait_ends_no_task(door, version):
    """The task runs on, and another client waits for it."""
    async with door.client(version) as client:
        task_id = await submitted(client, SLEEP)
        waiting = asyncio.create_task(client.call_tool("wait", {"task_ids": [task_id]}))
        await until(lambda: door.waits() == 1)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    await until(lambda: door.waits() == 0)
    await until(lambda: door.shop.state.tasks[task_id].status == "in_progress")
    async with door.client(version) as client:
        assert good(await client.call_tool("get_task", {"task_id": task_id}))["status"] == "in_progress"
        good(await client.call_tool("cancel_task", {"task_id": task_id}))
        assert good(await client.call_tool("wait", {"task_ids": [task_id]}))["is_done"]


async def test_a_wait_for_any_ends_with_the_first(door):
    """`until="any"` returns when one has ended; the others are told as they stand."""
    async with door.client() as client:
        slow, quick = await submitted(client, SLEEP), await submitted(client, ["true"])
        waited = good(await client.call_tool("wait", {"task_ids": [slow, quick], "until": "any"}))
        assert waited["is_done"]
        assert {task["task_id"]: task["is_finished"] for task in waited["tasks"]} == {
            slow: False,
            quick: True,
        }
        good(await client.call_tool("cancel_task", {"task_id": slow}))


async def test_two_clients_at_once_have_their_own_names_and_one_shop(door):
    """Each task says which program asked, on either version; both see all tasks."""
    async with (
        door.client(VERSIONS[0], name="one") as one,
        door.client(VERSIONS[1], name="two\n\x1b[0m ") as two,
    ):
        ids = await asyncio.gather(submitted(one, ["true"]), submitted(two, ["true"]))
        listed = good(await one.call_tool("list_tasks"))
        assert listed["total"] == 2
        assert {task["task_id"]: task["submitted_by"] for task in listed["tasks"]} == {
            ids[0]: "mcp:one",
            ids[1]: "mcp:two [0m",
        }
        waited = await two.call_tool("wait", {"task_ids": ids})
        assert good(waited)["is_done"]


async def test_a_long_name_of_a_program_is_cut(door):
    """Who asks is at most 60 characters on record."""
    async with door.client(name="x" * 500) as client:
        task_id = await submitted(client, ["true"])
        assert door.shop.state.tasks[task_id].request.submitted_by == "mcp:" + "x" * 56


async def test_an_agent_has_only_so_many_tasks_in_flight(tmp_path):
    """One more than the limit is refused, of this agent alone; it has room again when one has ended."""
    async with (
        open_shop(tmp_path, agent_tasks=2) as shop,
        open_door(shop, agent_tasks=2) as door,
        door.client(name="greedy") as client,
        door.client(name="other") as other,
    ):
        ids = [await submitted(client, SLEEP) for _ in range(2)]
        error = bad(await client.call_tool("submit_command", {"command": ["true"]}))
        assert error["code"] == "limit"
        statistics = good(await client.call_tool("get_statistics"))
        assert (statistics["in_flight"], statistics["most_in_flight"]) == (2, 2)
        await submitted(other, ["true"])
        good(await client.call_tool("cancel_task", {"task_id": ids[0]}))
        good(await client.call_tool("wait", {"task_ids": [ids[0]]}))
        await submitted(client, ["true"])
        good(await client.call_tool("cancel_task", {"task_id": ids[1]}))


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_read_token_sees_the_reading_tools_and_is_refused_the_others(door, version):
    """What is not open is not listed, and says why it is refused; looking is open."""
    async with door.client(version, token=READ) as client:
        names = {tool.name for tool in (await client.list_tools()).tools}
        assert names == {"list_scripts", "wait", "read_output", "list_tasks", "get_task", "get_statistics"}
        good(await client.call_tool("get_statistics"))
        for tool, arguments in (
            ("submit_command", {"command": ["true"]}),
            ("submit_prompt", {"prompt": "hi"}),
            ("run_script", {"script_name": "x"}),
            ("cancel_task", {"task_id": "00000000000000"}),
            ("retry_task", {"task_id": "00000000000000"}),
        ):
            assert bad(await client.call_tool(tool, arguments))["code"] == "forbidden"
        assert not door.shop.state.tasks


async def test_what_is_wrong_with_a_call_names_the_field_and_the_nearest_name(door):
    """Unknown tools, tasks, arguments and scripts, and values out of range, are errors of the tool with a code."""
    none = "00000000000000"
    cases = [
        ("submit_comand", {}, "unknown_tool", "name", "submit_command"),
        ("get_task", {"task_id": none}, "not_found", "task_id", None),
        ("wait", {"task_ids": [none]}, "not_found", "task_id", None),
        ("wait", {"task_ids": []}, "invalid", "task_ids", None),
        ("wait", {"task_ids": [none], "timeout_s": 1e9}, "invalid", "timeout_s", None),
        ("read_output", {"task_id": none}, "not_found", "task_id", None),
        ("read_output", {"task_id": "../../etc/passwd"}, "not_found", "task_id", None),
        ("cancel_task", {"task_id": none}, "not_found", "task_id", None),
        ("retry_task", {"task_id": none}, "not_found", "task_id", None),
        ("submit_command", {}, "invalid", "command", None),
        ("submit_command", {"command": ["true"], "priorty": 3}, "invalid", "priorty", "priority"),
        ("submit_command", {"command": ["true"], "priority": 11}, "invalid", "priority", None),
        ("submit_command", {"command": []}, "invalid", "command", None),
        ("submit_command", {"command": ["true"], "cwd": "here"}, "invalid", "cwd", None),
        ("submit_command", {"command": ["true"], "env": {"A=B": "x"}}, "invalid", "env", None),
        ("submit_command", {"command": ["true"], "memory_bytes": 10**30}, "invalid", "memory_bytes", None),
        ("submit_command", {"command": ["true"], "priority": True}, "invalid", "priority", None),
        ("list_tasks", {"limit": True}, "invalid", "limit", None),
        ("list_scripts", {"limit": 0}, "invalid", "limit", None),
        ("submit_command", {"command": "ls | wc"}, "invalid", "command", None),
        ("run_script", {"script_name": "nightl"}, "not_found", "script_name", "nightly"),
        (
            "run_script",
            {"script_name": "nightly", "parameters": {"deph": 1}},
            "invalid",
            "parameters.deph",
            "depth",
        ),
        ("list_tasks", {"status": "done"}, "invalid", "status", None),
    ]
    await save_script(door.shop)
    async with door.client() as client:
        for tool, arguments, code, field, nearest in cases:
            error = bad(await client.call_tool(tool, arguments))
            assert (error["code"], error.get("field"), error.get("nearest")) == (code, field, nearest), (
                tool,
                error,
            )
            assert "spec." not in error["message"], error
            assert "limits." not in error["message"], error
            assert error["message"]


async def save_script(shop) -> None:
    """Register the script `nightly`, which says how deep it was asked to go."""
    path = Path(shop.home.root) / "nightly.py"
    path.write_text("import sys; print('depth', sys.argv[1:])")
    parameter = Parameter(name="depth", type="integer", default=1, flag="--depth", help="How deep")
    script = Script(name="nightly", path=str(path), interpreter=(sys.executable,), parameters=(parameter,))
    await shop.do(SaveScript(script), Caller("test"))


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_registered_script_runs_with_its_parameters(door, version):
    """It is listed with what it can be given, and its run is a task that says whose it is."""
    await save_script(door.shop)
    async with door.client(version) as client:
        assert good(await client.call_tool("list_scripts"))["scripts"][0]["parameter_names"] == ["depth"]
        listed = good(await client.call_tool("list_scripts", {"name": "nightly"}))["scripts"]
        assert listed[0]["parameters"][0] == {
            "name": "depth",
            "type": "integer",
            "is_required": False,
            "default": 1,
            "help": "How deep",
        }
        arguments = {"script_name": "nightly", "parameters": {"depth": 3}}
        task_id = good(await client.call_tool("run_script", arguments))["task_id"]
        waited = good(await client.call_tool("wait", {"task_ids": [task_id]}))
        assert (waited["tasks"][0]["script_name"], waited["tasks"][0]["status"]) == ("nightly", "completed")
        page = good(await client.call_tool("read_output", {"task_id": task_id}))
        assert page["text"] == "depth ['--depth', '3']\n"
        assert good(await client.call_tool("list_tasks", {"script_name": "nightly"}))["total"] == 1


async def test_scripts_are_listed_page_by_page(door):
    """However many there are, a page has at most `limit` of them in short; the resource shows the first hundred."""
    for n in range(120):
        await door.shop.do(SaveScript(Script(name=f"s{n:03}", path="/bin/true")), Caller("test"))
    async with door.client() as client:
        names, cursor, pages = [], None, 0
        while cursor is not None or not pages:
            more = {} if cursor is None else {"cursor": cursor}
            page = good(await client.call_tool("list_scripts", {"limit": 50} | more))
            names += [script["name"] for script in page["scripts"]]
            cursor, pages = page.get("cursor"), pages + 1
        assert (names, pages) == ([f"s{n:03}" for n in range(120)], 3)
        shown = json.loads(await read(client, "koubou://scripts"))
        assert (len(shown["scripts"]), shown["total"], shown["cursor"]) == (100, 120, "s099")


async def test_a_call_that_is_repeated_with_its_key_is_one_task(door):
    """An idempotency key makes the same task of two calls; retry_task makes another."""
    async with door.client() as client:
        once, again = [await submitted(client, ["true"], idempotency_key="build-7") for _ in range(2)]
        assert once == again
        good(await client.call_tool("wait", {"task_ids": [once]}))
        retried = good(await client.call_tool("retry_task", {"task_id": once}))
        assert retried["task_id"] != once
        waited = good(await client.call_tool("wait", {"task_ids": [retried["task_id"]]}))
        assert waited["tasks"][0]["rerun_of"] == once


@pytest.mark.parametrize("version", VERSIONS)
async def test_what_is_offered_is_described(door, version):
    """Every tool, argument, field of an answer, resource and prompt says what it is."""
    async with door.client(version) as client:
        assert "wait" in client.instructions
        for tool in (await client.list_tools()).tools:
            assert tool.title, tool.name
            assert tool.description, tool.name
            hints = tool.annotations
            assert None not in (hints.read_only_hint, hints.destructive_hint, hints.idempotent_hint)
            for schema in (tool.input_schema, tool.output_schema):
                for name, field in schema.get("properties", {}).items():
                    assert field.get("description"), (tool.name, name)
        for resource in (await client.list_resources()).resources:
            assert resource.description
        for template in (await client.list_resource_templates()).resource_templates:
            assert template.description
        for prompt in (await client.list_prompts()).prompts:
            assert prompt.description
            assert all(argument.description for argument in prompt.arguments)


@pytest.mark.parametrize("version", VERSIONS)
async def test_resources_show_tasks_output_pool_and_scripts(door, version):
    """Each is read by its address; the newest tasks are listed, and what does not exist is told."""
    await save_script(door.shop)
    async with door.client(version) as client:
        task_id = await submitted(client, ["echo", "hello"], name="greet")
        good(await client.call_tool("wait", {"task_ids": [task_id]}))
        listed = {str(resource.uri): resource for resource in (await client.list_resources()).resources}
        assert {"koubou://pool", "koubou://scripts", f"koubou://task/{task_id}"} <= set(listed)
        task = json.loads(await read(client, f"koubou://task/{task_id}"))
        assert (task["name"], task["status"]) == ("greet", "completed")
        assert await read(client, f"koubou://task/{task_id}/output") == "hello\n"
        assert json.loads(await read(client, "koubou://pool"))["tasks"]["completed"] == 1
        assert json.loads(await read(client, "koubou://scripts"))["scripts"][0]["name"] == "nightly"
        assert json.loads(await read(client, "koubou://script/nightly"))["parameters"][0]["name"] == "depth"
        for uri in (
            "koubou://script/none",
            "koubou://task/00000000000000",
            "koubou://nothing",
            "koubou://task/../pool",
        ):
            with pytest.raises(MCPError):
                await client.read_resource(uri)


async def read(client, uri: str) -> str:
    """The text of a resource."""
    return (await client.read_resource(uri, cache_mode="bypass")).contents[0].text


async def test_prompts_teach_to_delegate_and_explain_a_task(door):
    """One carries the goal, the other a task with the end of its output; an unknown task is told."""
    async with door.client() as client:
        delegate = await client.get_prompt("delegate", {"goal": "Train the model."})
        assert "Train the model." in delegate.messages[0].content.text
        task_id = await submitted(client, ["sh", "-c", "echo no disk; exit 3"])
        good(await client.call_tool("wait", {"task_ids": [task_id]}))
        explained = await client.get_prompt("explain_task", {"task_id": task_id})
        assert '"exit_code":3' in explained.messages[0].content.text
        assert "no disk" in explained.messages[0].content.text
        with pytest.raises(MCPError, match="no task"):
            await client.get_prompt("explain_task", {"task_id": "00000000000000"})


async def test_task_ids_and_names_of_scripts_are_completed(door):
    """A task's id is offered for the template of a task and for the prompt about one, a name for that of a script."""
    await save_script(door.shop)
    async with door.client() as client:
        script = ResourceTemplateReference(type="ref/resource", uri="koubou://script/{script_name}")
        found = await client.complete(script, {"name": "script_name", "value": "ni"})
        assert found.completion.values == ["nightly"]
        task_id = await submitted(client, ["true"])
        refs = [
            ResourceTemplateReference(type="ref/resource", uri="koubou://task/{task_id}"),
            PromptReference(type="ref/prompt", name="explain_task"),
        ]
        for ref in refs:
            found = await client.complete(ref, {"name": "task_id", "value": task_id[:6]})
            assert found.completion.values == [task_id]
        found = await client.complete(refs[0], {"name": "task_id", "value": "zzz"})
        assert found.completion.values == []
