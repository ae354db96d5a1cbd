"""MCP through the whole agents' application, by tokens of their own: who may do what, and what a revoked one keeps."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress

import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.client.subscriptions import SubscriptionLost
from mcp_types import Implementation

from koubou_panel.core.commands import Caller, SaveScript
from koubou_panel.core.script import Script
from koubou_panel.servers.access import Allow, Role, token_hash
from koubou_panel.servers.agents.server import END_S
from koubou_panel.testing import open_inline_shop
from tests.servers.agents.mcp_door import LEGACY, MODERN, MODES, VERSIONS, bad, good
from tests.servers.agents.rest_door import open_door

CI, NIGHT = "c" * 43, "n" * 43
NAMED = {
    token_hash(CI): Allow(Role.FULL, "agent:ci"),
    token_hash(NIGHT): Allow(Role.RUN, "agent:night"),
}


@pytest.fixture
async def shop():
    """A workshop in memory."""
    async with open_inline_shop() as shop:
        yield shop


@pytest.fixture
async def door(shop):
    """Its agents' port, with REST and MCP as they are served."""
    async with open_door(shop, named=NAMED) as door:
        yield door


@asynccontextmanager
async def connected(door, version: str, token: str):
    """The SDK's client."""
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx2.AsyncClient(headers=headers, timeout=90, trust_env=False) as http:
        transport = streamable_http_client(f"http://127.0.0.1:{door.port}/mcp", http_client=http)
        info = Implementation(name="program", version="1")
        async with Client(transport, mode=MODES[version], client_info=info) as client:
            yield client


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_named_token_is_who_asked(shop, door, version) -> None:
    """Not the program's own name but the token's goes on record."""
    async with connected(door, version, CI) as client:
        task_id = good(await client.call_tool("submit_command", {"command": ["true"]}))["task_id"]
        assert shop.state.tasks[task_id].request.submitted_by == "agent:ci"


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_token_for_scripts_runs_those_and_nothing_else(shop, door, version) -> None:
    """It sees the reading tools and run_script; what it may not do says which token it takes."""
    await shop.do(SaveScript(Script(name="nightly", path="/bin/true")), Caller("test"))
    async with connected(door, version, NIGHT) as client:
        names = {tool.name for tool in (await client.list_tools()).tools}
        assert "run_script" in names
        assert not {"submit_command", "submit_prompt", "cancel_task", "retry_task"} & names
        task_id = good(await client.call_tool("run_script", {"script_name": "nightly"}))["task_id"]
        assert shop.state.tasks[task_id].request.submitted_by == "agent:night"
        for tool, arguments in (
            ("submit_command", {"command": ["true"]}),
            ("submit_prompt", {"prompt": "hi"}),
            ("cancel_task", {"task_id": task_id}),
            ("retry_task", {"task_id": task_id}),
        ):
            assert bad(await client.call_tool(tool, arguments))["code"] == "forbidden"


async def test_a_prompt_is_a_task_of_its_kind(shop, door) -> None:
    """What is asked, of which model, and how the answer must look stand in its spec."""
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    async with connected(door, MODERN, CI) as client:
        arguments = {"prompt": "The capital of France?", "model": "tiny", "schema": schema, "name": "capital"}
        task_id = good(await client.call_tool("submit_prompt", arguments))["task_id"]
        request = shop.state.tasks[task_id].request
        assert (request.kind, request.name) == ("prompt", "capital")
        assert request.spec["prompt"] == "The capital of France?"
        assert (request.spec["model"], request.spec["schema"]) == ("tiny", schema)


async def test_a_revoked_token_hears_nothing_more(shop, door) -> None:
    """Whoever listens by it is cut off at once, and is let in no more."""
    async with connected(door, MODERN, CI) as client:
        async with client.listen(resource_subscriptions=["koubou://pool"]) as listening:
            door.server.guard.name({})
            with pytest.raises(SubscriptionLost):
                await asyncio.wait_for(anext(listening), 10)
        with pytest.raises(Exception, match=r"401|nauthorized|rror"):
            await client.call_tool("get_statistics")


async def test_a_revoked_stream_ends_without_a_word_in_the_log(shop, door, caplog) -> None:
    """What is cut off while it streams comes to its end as a response does."""
    async with connected(door, MODERN, CI) as client:
        with suppress(SubscriptionLost):
            async with client.listen(resource_subscriptions=["koubou://pool"]) as listening:
                door.server.guard.name({})
                assert [event async for event in listening] == []
    assert not [record.message for record in caplog.records if record.name.startswith("uvicorn")]


async def test_a_revoked_session_hears_nothing_more(shop, door) -> None:
    """Nor does a session of 2025-11-25."""
    async with connected(door, LEGACY, CI) as client:
        good(await client.call_tool("get_statistics"))
        door.server.guard.name({})
        with pytest.raises(Exception, match=r"401|nauthorized|rror"):
            await client.call_tool("get_statistics")


async def test_a_port_that_closes_tells_those_who_listen_and_wait(shop, door) -> None:
    """A stream ends in the protocol's own way and a wait with how its task stands; neither holds up the end."""
    async with connected(door, MODERN, CI) as client, connected(door, LEGACY, CI) as other:
        task_id = good(await client.call_tool("submit_command", {"command": ["true"]}))["task_id"]
        waits = [
            asyncio.create_task(one.call_tool("wait", {"task_ids": [task_id]})) for one in (client, other)
        ]
        async with client.listen(resource_subscriptions=["koubou://scripts"]) as listening:
            began = asyncio.get_running_loop().time()
            await door.server.close()
            assert asyncio.get_running_loop().time() - began < END_S
            assert [event async for event in listening] == []
        assert not good(await waits[0])["is_done"]
        await asyncio.gather(*waits, return_exceptions=True)
