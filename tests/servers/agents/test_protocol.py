"""Who connects to the agents' port and asks nothing: bounded in time and in number, and unheard in the log."""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import suppress

import pytest

from koubou_panel.servers.agents import protocol
from koubou_panel.testing import open_inline_shop
from tests.servers.agents.rest_door import TOKEN, open_door


@pytest.fixture
async def door():
    """The agents' port of a workshop in memory."""
    async with open_inline_shop() as shop, open_door(shop) as door:
        yield door


def head_of(door) -> bytes:
    """A whole request."""
    lines = ["GET /health HTTP/1.1", f"Host: 127.0.0.1:{door.port}", f"Authorization: Bearer {TOKEN}"]
    return "\r\n".join([*lines, "", ""]).encode()


async def connect(door, data: bytes = b""):
    """A connection on which this was sent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
    writer.write(data)
    return reader, writer


async def rest_of(reader) -> bytes:
    """What still comes, to the end of the connection."""
    async with asyncio.timeout(10):
        return await reader.read()


async def answer(reader) -> bytes:
    """One answer's head; what follows it is read too."""
    async with asyncio.timeout(10):
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        await reader.readexactly(length)
    return head


@pytest.mark.parametrize("sent", [b"", b"GET /health HTTP/1.1\r\nHost: "])
async def test_a_connection_without_a_whole_head_is_dropped(door, monkeypatch, sent):
    """Nothing, or half a head, is waited for so long and no longer; it takes no credentials to be dropped."""
    monkeypatch.setattr(protocol, "HEAD_S", 0.2)
    reader, writer = await connect(door, sent)
    assert await rest_of(reader) == b""
    writer.close()


async def test_dribbled_bytes_give_no_more_time(door, monkeypatch):
    """A head that comes byte by byte is cut off at the same time; after a whole request too."""
    monkeypatch.setattr(protocol, "HEAD_S", 0.5)
    reader, writer = await connect(door, head_of(door))
    assert b" 200 " in await answer(reader)
    began = asyncio.get_running_loop().time()
    ends = asyncio.create_task(rest_of(reader))
    writer.write(b"GET /health HTTP/1.1\r\nX: ")
    while not ends.done():
        with suppress(OSError):
            writer.write(b"a")
        await asyncio.wait({ends}, timeout=0.05)
    assert asyncio.get_running_loop().time() - began < 30
    with suppress(ConnectionResetError):  # what was on its way when it was cut off
        assert await ends == b""
    writer.close()


async def test_connections_that_wait_are_bounded(door, monkeypatch):
    """Beyond the bound the one that has waited longest goes; a request in flight stays, and others get in."""
    monkeypatch.setattr(protocol, "MOST_WAITING", 5)
    body = json.dumps({"command": ["true"], "sync": True, "options": {"after": []}}).encode()
    lines = ["POST /task/delegate HTTP/1.1", f"Host: 127.0.0.1:{door.port}", f"Authorization: Bearer {TOKEN}"]
    lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    busy = await connect(door, "\r\n".join([*lines, "", ""]).encode() + body[:-1])
    idle = [await connect(door) for _ in range(12)]
    for reader, _ in idle[:7]:
        assert await rest_of(reader) == b""
    reader, writer = await connect(door, head_of(door))
    assert b" 200 " in await answer(reader)
    assert not busy[0].at_eof()
    for one in (writer, busy[1], *(writer for _, writer in idle)):
        one.close()


async def test_strangers_write_nothing_into_the_log(door, caplog):
    """What is no HTTP is answered 400 as JSON, and what asks for a WebSocket as without; neither is worth a line."""
    caplog.set_level(logging.DEBUG)
    reader, odd = await connect(door, b"\x16\x03\x01 nonsense\r\n\r\n")
    head, _, body = (await rest_of(reader)).partition(b"\r\n\r\n")
    assert b" 400 " in head
    assert json.loads(body)["error"]["code"] == "bad_request"
    upgrade = b"Upgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
    reader, writer = await connect(door, head_of(door)[:-2] + upgrade)
    assert b" 200 " in await answer(reader)
    writer.close()
    odd.close()
    assert not [record for record in caplog.records if record.name.startswith("uvicorn")]
