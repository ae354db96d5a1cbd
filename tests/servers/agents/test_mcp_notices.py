"""Notices that a resource changed, on both protocol versions, and what is left when those who asked are gone."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest
from mcp.server.streamable_http import StreamableHTTPServerTransport
from mcp.shared.exceptions import MCPError
from mcp.shared.subscriptions import ResourcesListChanged, ResourceUpdated
from mcp_types import ResourceUpdatedNotification

from koubou_panel.core.commands import Caller
from koubou_panel.core.records import Progress
from koubou_panel.servers.agents import mcp_frame, mcp_notices
from koubou_panel.testing import open_inline_shop, open_shop, submission, submit, until
from tests.servers.agents.mcp_door import LEGACY, MODERN, READ, TOKEN, good, open_door

POOL = "koubou://pool"
INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": LEGACY,
        "capabilities": {},
        "clientInfo": {"name": "raw", "version": "1"},
    },
}
HEADERS = {"Accept": "application/json, text/event-stream"}


@pytest.fixture
async def shop():
    """A workshop in memory, whose tasks end when the test says so."""
    async with open_inline_shop() as shop:
        yield shop


@pytest.fixture
async def door(shop):
    """Its MCP server."""
    async with open_door(shop) as door:
        yield door


async def test_a_listener_is_told_that_its_task_and_its_output_changed(tmp_path):
    """A real task's start and end arrive on 2026-07-28 as notices for its address, and nothing else does."""
    async with open_shop(tmp_path) as shop, open_door(shop) as door, door.client(MODERN) as client:
        other = await submit(shop, "true")
        submitted = await client.call_tool("submit_command", {"command": ["sleep", "60"]})
        task_id = good(submitted)["task_id"]
        uris = [f"koubou://task/{task_id}", f"koubou://task/{task_id}/output"]
        async with client.listen(resource_subscriptions=uris) as listening:
            await client.call_tool("cancel_task", {"task_id": task_id})
            await client.call_tool("wait", {"task_ids": [task_id, other]})
            async with asyncio.timeout(10):
                seen = {(await anext(listening)).uri for _ in uris}
        assert seen == set(uris)
        await until(lambda: not door.frame.notices.wanted)


async def test_a_listener_is_told_of_new_tasks_and_of_the_pool(shop, door):
    """Who asked for the list is told when there is one task more; the pool changes with it."""
    async with (
        door.client(MODERN) as client,
        client.listen(resource_subscriptions=[POOL], resources_list_changed=True) as listening,
    ):
        await submit(shop)
        async with asyncio.timeout(10):
            seen = {await anext(listening), await anext(listening)}
        assert seen == {ResourceUpdated(POOL), ResourcesListChanged()}


async def test_a_session_is_told_of_what_it_subscribed_to_until_it_unsubscribes(shop, door):
    """On 2025-11-25 progress and the end of a task arrive as notices, and none after `unsubscribe`."""
    told = []

    async def hear(message):
        if isinstance(message, ResourceUpdatedNotification):
            told.append(str(message.params.uri))

    task_id = await submit(shop)
    await until(lambda: task_id in shop.engine.jobs)
    uri = f"koubou://task/{task_id}"
    async with door.client(LEGACY, message_handler=hear) as client:
        await client.session.send_request(*_subscription("subscribe", uri))
        await client.session.send_request(*_subscription("subscribe", POOL))
        shop.engine.progress(task_id, Progress(0.5))
        await until(lambda: uri in told)
        await client.session.send_request(*_subscription("unsubscribe", POOL))
        await until(lambda: door.frame.notices._telling is None)
        told.clear()
        shop.engine.finish(task_id)
        await until(lambda: told)
        assert set(told) == {uri}
        assert dict(door.frame.notices.wanted) == {uri: 1}
    await until(lambda: not door.frame.notices.wanted)
    assert door.frame.notices.sessions == 0


def _subscription(verb: str, uri: str):
    from mcp_types import (
        EmptyResult,
        SubscribeRequest,
        SubscribeRequestParams,
        UnsubscribeRequest,
        UnsubscribeRequestParams,
    )

    if verb == "subscribe":
        return SubscribeRequest(params=SubscribeRequestParams(uri=uri)), EmptyResult
    return UnsubscribeRequest(params=UnsubscribeRequestParams(uri=uri)), EmptyResult


async def test_a_subscription_to_nothing_is_refused(door):
    """An address that no resource has or can have is told, on 2025-11-25."""
    async with door.client(LEGACY) as client:
        for uri in ("koubou://pol", "file:///etc/passwd"):
            with pytest.raises(MCPError, match="Unknown resource"):
                await client.session.send_request(*_subscription("subscribe", uri))
        assert door.frame.notices.sessions == 0 or not door.frame.notices.wanted


async def test_so_many_subscriptions_and_no_more(door, monkeypatch):
    """One client may follow a bounded number of resources, whichever version it speaks."""
    monkeypatch.setattr(mcp_notices, "MOST_URIS", 3)
    uris = [f"koubou://task/{number:014}" for number in range(4)]
    async with door.client(LEGACY) as client:
        for uri in uris[:3]:
            await client.session.send_request(*_subscription("subscribe", uri))
        with pytest.raises(MCPError, match="at most 3"):
            await client.session.send_request(*_subscription("subscribe", uris[3]))
    async with door.client(MODERN) as client:
        with pytest.raises(MCPError, match="at most 3"):
            async with client.listen(resource_subscriptions=uris):
                pass


async def test_many_changes_in_a_row_are_few_notices(shop, door):
    """A burst of facts about one task is told at once and then as one, not fact by fact."""
    published = []
    async with door.client(MODERN) as client, client.listen(resource_subscriptions=[POOL]) as listening:
        unsubscribe = door.frame.notices.bus.subscribe(published.append)
        ids = await shop.do_many([submission(shop) for _ in range(200)], Caller("test"))
        for task_id in ids:
            await until(lambda task_id=task_id: task_id in shop.engine.jobs)
            shop.engine.finish(task_id)
        await until(lambda: shop.state.counts["completed"] == 200)
        async with asyncio.timeout(10):
            assert await anext(listening) == ResourceUpdated(POOL)
        unsubscribe()
    assert 1 <= len(published) < 100, "of 600 facts"


async def test_facts_cost_nothing_where_nobody_listens(shop, door):
    """Without a listener no task of ours is begun for a fact."""
    await submit(shop)
    await until(lambda: shop.engine.jobs)
    assert door.frame.notices._telling is None


async def test_sessions_that_are_never_closed_end_by_themselves(shop):
    """A client that opens sessions and goes leaves none behind once they were idle, nor a subscription."""
    transports: weakref.WeakSet[StreamableHTTPServerTransport] = weakref.WeakSet()
    async with open_door(shop, idle_s=0.3) as door, door.http() as http:
        for _ in range(20):
            answer = await http.post(door.url, json=INITIALIZE, headers=HEADERS)
            assert answer.status_code == 200
            session = {"Mcp-Session-Id": answer.headers["mcp-session-id"], "MCP-Protocol-Version": LEGACY}
            await http.post(
                door.url,
                json={"jsonrpc": "2.0", "method": "notifications/initialized"},
                headers=HEADERS | session,
            )
            subscribe = {"jsonrpc": "2.0", "id": 2, "method": "resources/subscribe", "params": {"uri": POOL}}
            assert (await http.post(door.url, json=subscribe, headers=HEADERS | session)).status_code == 200
        transports.update(door.mount.manager._server_instances.values())
        assert door.frame.notices.wanted[POOL] > 0
        await until(lambda: door.sessions() == 0)
        await until(lambda: not door.frame.notices.wanted)
        assert door.frame.notices.sessions == 0
        answer = await http.post(door.url, json=subscribe, headers=HEADERS | session)
        assert answer.status_code == 404
    gc.collect()
    assert not list(transports)


async def test_there_are_only_so_many_sessions_at_once(shop):
    """One more than the bound is refused with 503; those that stand alone need none."""
    async with open_door(shop, max_sessions=2) as door, door.http() as http:
        answers = [await http.post(door.url, json=INITIALIZE, headers=HEADERS) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 503]
        assert int(answers[-1].headers["retry-after"]) > 0
        async with door.client(MODERN) as client:
            good(await client.call_tool("get_statistics"))


async def test_nobody_takes_the_sessions_of_others(shop):
    """One token has so many sessions; one more ends its own that was idle longest, and no one else's."""
    ask = {"jsonrpc": "2.0", "id": 2, "method": "tools/list"}
    async with open_door(shop, most_each=3) as door, door.http() as owner, door.http(READ) as reader:

        async def opened(http) -> dict[str, str]:
            answer = await http.post(door.url, json=INITIALIZE, headers=HEADERS)
            assert answer.status_code == 200
            return {"Mcp-Session-Id": answer.headers["mcp-session-id"], "MCP-Protocol-Version": LEGACY}

        async def status(http, session) -> int:
            return (await http.post(door.url, json=ask, headers=HEADERS | session)).status_code

        owners = await opened(owner)
        mine = [await opened(reader) for _ in range(3)]
        assert await status(reader, mine[0]) == 200
        mine += [await opened(reader) for _ in range(2)]
        assert [await status(reader, session) for session in mine] == [200, 404, 404, 200, 200]
        assert await status(owner, owners) == 200
        assert door.sessions() == 4


async def test_a_session_that_is_only_opened_ends_soon(shop, monkeypatch):
    """Who never comes back to a session holds it for a short time; who does, for the whole."""
    monkeypatch.setattr(mcp_frame, "FRESH_IDLE_S", 0.2)
    async with open_door(shop) as door, door.http() as http:
        kept = (await http.post(door.url, json=INITIALIZE, headers=HEADERS)).headers["mcp-session-id"]
        session = {"Mcp-Session-Id": kept, "MCP-Protocol-Version": LEGACY}
        told = {"jsonrpc": "2.0", "method": "notifications/initialized"}
        assert (await http.post(door.url, json=told, headers=HEADERS | session)).status_code == 202
        for _ in range(4):
            await http.post(door.url, json=INITIALIZE, headers=HEADERS)
        await until(lambda: door.sessions() == 1)
        assert list(door.mount.manager._server_instances) == [kept]


async def test_a_body_that_is_too_large_is_refused_as_json(shop):
    """Announced or not, and told in the protocol's own way."""

    async def pieces():
        for _ in range(5):
            yield b" " * (1 << 18)

    async with open_door(shop) as door, door.http() as http:
        for body in (b" " * (5 << 18), pieces()):
            answer = await http.post(
                door.url, content=body, headers=HEADERS | {"Content-Type": "application/json"}
            )
            assert (answer.status_code, answer.headers["content-type"]) == (413, "application/json")
            assert "larger than 1048576 bytes" in answer.json()["error"]["message"]


async def test_a_session_belongs_to_the_token_that_opened_it(shop, door):
    """With another token the session does not exist."""
    async with door.http() as http, door.http(READ) as reader:
        answer = await http.post(door.url, json=INITIALIZE, headers=HEADERS)
        session = {"Mcp-Session-Id": answer.headers["mcp-session-id"], "MCP-Protocol-Version": LEGACY}
        ask = {"jsonrpc": "2.0", "id": 2, "method": "tools/list"}
        assert (await reader.post(door.url, json=ask, headers=HEADERS | session)).status_code == 404
        assert (await http.post(door.url, json=ask, headers=HEADERS | session)).status_code == 200


async def test_twenty_clients_that_come_and_go_leave_nothing(shop, door):
    """After as many clients of both versions, listening and waiting, there is no listener, wait or session more."""
    task_id = await submit(shop)
    before = len(shop.hub._subscribers)
    for version in [MODERN, LEGACY] * 10:
        async with door.client(version) as client:
            if version == MODERN:
                async with client.listen(resource_subscriptions=[POOL]):
                    await client.call_tool("wait", {"task_ids": [task_id], "timeout_s": 0.01})
            else:
                await client.session.send_request(*_subscription("subscribe", POOL))
                await client.call_tool("wait", {"task_ids": [task_id], "timeout_s": 0.01})
    await until(lambda: not door.frame.notices.wanted and door.waits() == 0 and door.sessions() == 0)
    assert not door.frame.notices.bus._listeners
    assert len(shop.hub._subscribers) == before


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"Host": "evil.example"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Authorization": "Bearer wrong"}, 401),
        ({"Authorization": ""}, 401),
        ({}, 200),
    ],
)
async def test_the_guard_stands_before_it(door, headers, code):
    """Host, Origin and token are looked at before MCP is."""
    async with door.http(None) as http:
        base = HEADERS | {"Authorization": f"Bearer {TOKEN}"} | headers
        assert (await http.post(door.url, json=INITIALIZE, headers=base)).status_code == code
        if code != 200:
            assert door.sessions() == 0
