"""MCP over the agents' port, driven by the SDK's own client: real workers, real HTTP, both protocol versions."""

from __future__ import annotations

import sys

import pytest

from koubou_panel.testing import open_shop
from tests.servers.agents.mcp_door import VERSIONS, bad, good, open_door

COUNT = """
import time
for i in range(5):
    print("line", i, flush=True)
    time.sleep(0.05)
print("end", flush=True)
"""


@pytest.fixture
async def door(tmp_path):
    """The port of a workshop with two workers."""
    async with open_shop(tmp_path) as shop, open_door(shop) as door:
        door.shop = shop
        yield door


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_command_is_submitted_awaited_and_read(door, version):
    """Submitting gives an id at once; waiting tells the end, and the output is read by offset."""
    async with door.client(version) as client:
        command = [sys.executable, "-c", COUNT]
        submitted = good(await client.call_tool("submit_command", {"command": command, "name": "count"}))
        waited = good(await client.call_tool("wait", {"task_ids": [submitted["task_id"]]}))
        assert waited["is_done"]
        assert waited["tasks"][0]["status"] == "completed"
        page = good(await client.call_tool("read_output", {"task_id": submitted["task_id"], "limit": 7}))
        assert (page["text"], page["next_offset"], page["is_end"]) == ("line 0\n", 7, False)


async def test_an_unknown_task_is_told(door):
    """A task that is none is an error of the tool, with a code and the field."""
    async with door.client() as client:
        error = bad(await client.call_tool("get_task", {"task_id": "00000000000000"}))
        assert (error["code"], error["field"]) == ("not_found", "task_id")


async def test_what_is_offered_is_described(door):
    """Every tool, argument, field of an answer, resource and prompt says what it is."""
    async with door.client() as client:
        for tool in (await client.list_tools()).tools:
            assert tool.title, tool.name
            assert tool.description, tool.name
            assert tool.annotations.read_only_hint is not None, tool.name
            for schema in (tool.input_schema, tool.output_schema):
                for name, field in schema.get("properties", {}).items():
                    assert field.get("description"), (tool.name, name)
        for template in (await client.list_resource_templates()).resource_templates:
            assert template.description
        for prompt in (await client.list_prompts()).prompts:
            assert prompt.description
            assert all(argument.description for argument in prompt.arguments)
