"""Who gets in at the two WebSocket doors, and what bad input leads to, row by row of the protocol's tables."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from contextlib import suppress

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from koubou_panel.servers.access import Allow, Role, token_hash
from koubou_panel.testing import open_inline_shop, until
from koubou_panel.wire.session import Limits
from tests.servers.doors import DOORS, READ, SCRIPT, TOKEN, Client, closes, open_door


@pytest.fixture
async def shop():
    """A workshop in memory, whose tasks end when the test says so."""
    async with open_inline_shop(clock=time.time) as shop:
        yield shop


@pytest.fixture(params=DOORS)
async def door(request, shop):
    """Each door in turn."""
    async with open_door(request.param, shop) as door:
        yield door


@pytest.fixture
async def client(door):
    """A client with full rights."""
    async with door.client() as client:
        yield client


# -- who asks -------------------------------------------------------------------------------------------------


async def test_auth_is_the_first_frame(door):
    """Without credentials nothing is sent until a good `auth`; then the state follows."""
    async with door.connect(None) as connection:
        client = Client(connection)
        with pytest.raises(TimeoutError):
            await client.read(timeout=0.2)
        await client.say("auth", token=TOKEN)
        assert (await client.read())["data"] == {"role": "full"}
        assert (await client.read())["type"] == "initial_state"
        assert (await client.ask("ping"))["type"] == "pong"


async def test_a_token_shown_in_a_frame_names_who_asks(shop):
    """A named token is as good a name by the `auth` frame as by a header, on both doors."""
    named = {token_hash("n" * 43): Allow(Role.FULL, "agent:ci")}
    for door_name in DOORS:
        async with open_door(door_name, shop, named=named) as door, door.connect(None) as connection:
            client = Client(connection)
            await client.say("auth", token="n" * 43)
            told = await client.ask("submit", **SCRIPT)
            assert told["data"]["submitted_by"] == "agent:ci"


@pytest.mark.parametrize("frame", ['{"command":"auth","token":"wrong"}', '{"command":"ping"}', "junk"])
async def test_another_first_frame_is_refused(door, frame):
    """Anything else as the first frame is an `error`, and close 4401."""
    async with door.connect(None) as connection:
        await connection.send(frame)
        assert json.loads(await connection.recv())["data"]["code"] == "unauthorized"
        assert (await closes(connection)).code == 4401
    await until(lambda: not door.feed._peers)


async def test_auth_must_come_in_time(shop):
    """Who says nothing is closed with 4401 (here after a fifth of a second)."""
    for name in DOORS:
        async with open_door(name, shop, limits=Limits(auth_s=0.2)) as door, door.connect(None) as connection:
            assert (await closes(connection)).code == 4401


async def test_the_read_token_only_reads(door, shop):
    """With the read token everything can be seen and nothing changed."""
    async with door.client(READ) as client:
        assert (await client.ask("submit", **SCRIPT))["data"]["code"] == "forbidden"
        assert (await client.ask("scale", workers=1))["data"]["code"] == "forbidden"
        assert (await client.ask("subscribe", channel="task"))["type"] == "subscribed"
        assert (await client.ask("list_tasks"))["type"] == "tasks"
    assert not shop.state.tasks


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Authorization": "Bearer wrong"}, 401),
        ({"Authorization": f"Bearer {TOKEN}", "Origin": "http://evil.example"}, 403),
    ],
)
async def test_strangers_are_refused_before_the_upgrade(door, headers, status):
    """A wrong token or another site's page gets an HTTP status and no socket."""
    with pytest.raises(InvalidStatus) as refused:
        async with door.connect(None, additional_headers=headers):
            """Not reached."""
    assert refused.value.response.status_code == status


async def test_a_wrong_host_is_refused(door):
    """A Host that is not ours gets 403."""
    with socket.create_connection(("127.0.0.1", door.port)) as raw:
        raw.setblocking(False)
        loop = asyncio.get_running_loop()
        lines = (
            "GET /ws HTTP/1.1",
            "Host: evil.example",
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            f"Authorization: Bearer {TOKEN}",
        )
        await loop.sock_sendall(raw, "\r\n".join([*lines, "", ""]).encode())
        assert b" 403 " in await loop.sock_recv(raw, 100)


async def test_a_changed_token_ends_every_connection(door):
    """When the token is changed those that the old one let in are closed with 4401."""
    async with door.client() as one, door.connect(None) as two:
        await until(lambda: len(door.feed._peers) == 2)
        door.feed.dismiss()
        assert (await closes(one.connection)).code == 4401
        assert (await closes(two)).code == 4401


async def test_without_auth_everyone_is_let_in(shop):
    """With `--insecure-no-auth` clients of the first system connect as they are, and `auth` does no harm."""
    for name in DOORS:
        async with open_door(name, shop, insecure_no_auth=True) as door, door.client(None) as client:
            assert (await client.ask("auth", token="whatever"))["data"] == {"role": "full"}
            assert (await client.ask("submit", **SCRIPT))["type"] == "submitted"


# -- bad input ------------------------------------------------------------------------------------------------

BAD = [
    ("{", "bad_json"),
    ('{"command":"ping","x":NaN}', "bad_json"),
    ('{"command":"ping","command":"ping"}', "bad_json"),
    ("[" * 65 + "]" * 65, "bad_json"),
    ("[]", "bad_request"),
    ("{}", "bad_request"),
    ('{"command":"pnig"}', "unknown_command"),
    ('{"command":"subscribe","channel":"taks"}', "unknown_channel"),
    ('{"command":"get_task","task_id":"nope"}', "not_found"),
    ('{"command":"cancel","task_id":"nope"}', "not_found"),
    ('{"command":"get_output","task_id":"nope"}', "not_found"),
    ('{"command":"subscribe","channel":"output","task_id":"nope"}', "not_found"),
    ('{"command":"run_script","script_name":"nope"}', "not_found"),
    ('{"command":"submit","kind":"function","spec":{}}', "invalid"),
    ('{"command":"submit","kind":"scirpt","spec":{}}', "invalid"),
    ('{"command":"submit","kind":"script","spec":{}}', "invalid"),
    ('{"command":"submit","kind":"script","spec":{"command":"a string"}}', "invalid"),
    ('{"command":"submit","kind":"script","spec":{"command":["x"]},"priority":99}', "invalid"),
]


async def test_bad_frames_are_answered_and_the_line_stays(client):
    """Every kind of bad text is an `error` with its code; the connection stays and serves on."""
    for text, code in BAD:
        await client.connection.send(text)
        got = await client.next("error")
        assert got["data"]["code"] == code, text
        assert got["data"]["message"]
    assert (await client.ask("ping"))["type"] == "pong"


async def test_a_binary_frame_closes(door):
    """A binary frame closes with 1003."""
    async with door.client() as client:
        await client.connection.send(b"\x00\x01")
        assert (await closes(client.connection)).code == 1003


async def test_invalid_utf8_closes(door):
    """Text that is no UTF-8 closes with 1007, in one frame or in two."""
    for frames in ([b"\xff\xfe"], [b'{"a":"', b'\xff"}']):
        async with door.client() as client:
            await client.connection.send(frames if len(frames) > 1 else frames[0], text=True)
            assert (await closes(client.connection)).code == 1007


async def test_too_much_closes(door):
    """A message over 1 MiB closes with 1009, whole or in pieces; one just below is read."""
    padding = "x" * ((1 << 20) - 40)
    async with door.client() as client:
        await client.connection.send(json.dumps({"command": "ping", "x": padding}))
        assert (await client.next("pong"))["type"] == "pong"
        await client.connection.send("x" * ((1 << 20) + 1))
        assert (await closes(client.connection)).code == 1009
    async with door.client() as client:
        with suppress(ConnectionClosed):
            await client.connection.send(["x" * 300_000] * 5)
        assert (await closes(client.connection)).code == 1009


async def test_too_many_commands_are_refused_then_closed(shop):
    """Beyond the rate a command is `rate_limited`; if that goes on, the connection is closed with 1008."""
    limits = Limits(commands_per_s=5, sustained_s=0.5)
    for name in DOORS:
        async with open_door(name, shop, limits=limits) as door, door.client() as client:
            for n in range(7):
                await client.say("ping", id=n)
            got = [await client.next("pong", "error") for _ in range(7)]
            assert [message["type"] for message in got] == ["pong"] * 5 + ["error"] * 2
            assert got[-1]["data"]["code"] == "rate_limited"
            flood = asyncio.create_task(ping_for_ever(client))
            assert (await closes(client.connection)).code == 1008
            flood.cancel()


async def ping_for_ever(client) -> None:
    """Ping as fast as it goes, until the connection is closed."""
    try:
        while True:
            await client.say("ping")
            await asyncio.sleep(0)
    except ConnectionClosed:
        return
