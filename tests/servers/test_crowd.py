"""Crowds and vandals at both doors: stuck readers, floods of nonsense, and a healthy client beside them."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import statistics
import sys
import time
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import psutil
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode

from koubou_panel.core.commands import Caller
from koubou_panel.testing import open_inline_shop, submission, until
from koubou_panel.wire.session import Limits
from tests.servers.doors import DOORS, TOKEN, open_door

LIVE, STUCK = 200, 20
TASKS = 600
FACTS = 3 * TASKS


@asynccontextmanager
async def raw_client(door, *, receive_bytes=None):
    """A socket that has upgraded and says what it likes, in whatever bytes."""
    raw = socket.socket()
    if receive_bytes:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    raw.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(raw, ("127.0.0.1", door.port))
    lines = (
        "GET /ws HTTP/1.1",
        f"Host: 127.0.0.1:{door.port}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        f"Authorization: Bearer {TOKEN}",
    )
    await loop.sock_sendall(raw, "\r\n".join([*lines, "", ""]).encode())
    assert b" 101 " in await loop.sock_recv(raw, 20)
    try:
        yield raw
    finally:
        raw.close()


def text(message: object) -> bytes:
    """A client's text frame."""
    body = message if isinstance(message, bytes) else json.dumps(message).encode()
    return Frame(Opcode.TEXT, body).serialize(mask=True)


async def work(shop, tasks: int) -> None:
    """Run tasks to their end, with results of some size."""
    await shop.do_many([submission(shop, name="n" * 200) for _ in range(tasks)], Caller("test"))
    while shop.state.counts["completed"] < tasks:
        for task_id in list(shop.engine.jobs):
            shop.engine.finish(task_id, result="r" * 1000)
        await asyncio.sleep(0)


@pytest.mark.alone
@pytest.mark.faults
@pytest.mark.timeout(180)
@pytest.mark.parametrize("name", DOORS)
async def test_stuck_readers_are_gone_and_the_others_miss_nothing(name):
    """200 live subscribers see every fact in order beside 20 that never read; those are gone within 10 s."""
    process = psutil.Process()
    async with AsyncExitStack() as stack:
        shop = await stack.enter_async_context(open_inline_shop(workers=8, clock=time.time))
        door = await stack.enter_async_context(open_door(name, shop))
        crowd = await asyncio.create_subprocess_exec(
            sys.executable,
            str(Path(__file__).with_name("crowd.py")),
            door.url,
            TOKEN,
            str(LIVE),
            str(FACTS),
            stdout=asyncio.subprocess.PIPE,
        )
        assert (await crowd.stdout.readline()).strip() == b"ready"
        loop = asyncio.get_running_loop()
        for _ in range(STUCK):
            raw = await stack.enter_async_context(raw_client(door, receive_bytes=4096))
            await loop.sock_sendall(raw, text({"command": "subscribe", "channel": "task"}))
        await until(lambda: sum("task" in peer.session.channels for peer in door.feed._peers) == LIVE + STUCK)
        stuck = set(list(door.feed._peers)[LIVE:])
        before, began = process.memory_info().rss, time.monotonic()
        working = asyncio.create_task(work(shop, TASKS))
        await until(lambda: not stuck & set(door.feed._peers))
        gone_s = time.monotonic() - began
        grown = process.memory_info().rss - before
        await working
        told = json.loads(await crowd.stdout.readline())
        await crowd.wait()
        assert told == {"in_order": LIVE, "restarts": 0}
        assert gone_s < 10
        assert grown < 50 << 20


def nonsense(chance: random.Random) -> bytes:
    """A frame that no honest client sends."""
    pieces = [
        '{"command":',
        '"subscribe"',
        "[",
        "}",
        '"channel":"task"',
        "NaN",
        "\\ud800",
        "1e999",
        ",",
        "日本",
    ]
    match chance.randrange(6):
        case 0:
            return text(chance.randbytes(chance.randrange(60)).decode("latin-1").encode())
        case 1:
            return text("".join(chance.choices(pieces, k=chance.randrange(1, 12))).encode())
        case 2:
            return text(b"[" * chance.randrange(1, 3000))
        case 3:
            name = chance.choice(
                ["submit", "scale", "get_output", "resume", "list_tasks", "subscribe", "auth"]
            )
            value = chance.choice([None, -1, 1.5, "", [], {}, "x" * 300, 2**70])
            fields = ["kind", "spec", "workers", "task_id", "epoch", "since", "limit", "channel", "id"]
            return text({"command": name, chance.choice(fields): value})
        case 4:
            return text({"command": chance.choice(["get_task", "cancel", "retry"]), "task_id": "nobody"})
        case _:
            return text({"command": "p" * chance.randrange(2000), "id": chance.randrange(9)})


def broken(chance: random.Random) -> bytes:
    """Bytes that break the framing, or the rules that end a connection."""
    match chance.randrange(5):
        case 0:
            return chance.randbytes(chance.randrange(1, 200))
        case 1:
            return Frame(Opcode.BINARY, chance.randbytes(9)).serialize(mask=True)
        case 2:
            return Frame(Opcode.TEXT, b"unmasked").serialize(mask=False)
        case 3:
            return text(b"\xff\xfe")
        case _:
            return b"\x81\xff" + (1 << 40).to_bytes(8, "big") + b"1234"


async def listen(raw: socket.socket) -> None:
    """Read and forget."""
    loop = asyncio.get_running_loop()
    with suppress(OSError):
        while await loop.sock_recv(raw, 1 << 16):
            pass


@pytest.mark.timeout(180)
@pytest.mark.parametrize("name", DOORS)
async def test_nonsense_does_no_harm(name):
    """Three thousand malformed frames later a healthy client has been served all along, and promptly."""
    chance = random.Random(20)
    loop = asyncio.get_running_loop()
    limits = Limits(commands_per_s=1e9)
    async with open_inline_shop(clock=time.time) as shop, open_door(name, shop, limits=limits) as door:
        async with door.client() as client:
            waits: list[float] = []
            before = psutil.Process().memory_info().rss
            for _ in range(30):
                async with raw_client(door) as raw:
                    listener = asyncio.create_task(listen(raw))
                    for _ in range(100):
                        await loop.sock_sendall(raw, nonsense(chance))
                    began = time.monotonic()
                    assert (await client.ask("ping"))["type"] == "pong"
                    waits.append(time.monotonic() - began)
                    with suppress(OSError):
                        await loop.sock_sendall(raw, broken(chance))
                        raw.shutdown(socket.SHUT_WR)
                    await listener
            await until(lambda: len(door.feed._peers) == 1)
            assert statistics.median(waits) < 1.0
            assert psutil.Process().memory_info().rss - before < 20 << 20
        assert not shop.state.tasks


async def test_a_flood_of_questions_by_one_who_does_not_read_is_held_back():
    """A client that asks for much and reads nothing is not read from either, and ends like any stuck one."""
    async with open_inline_shop(clock=time.time) as shop, open_door("socket", shop) as door:
        await shop.do_many([submission(shop) for _ in range(200)], Caller("test"))
        before = psutil.Process().memory_info().rss
        async with raw_client(door, receive_bytes=4096) as raw:
            flood = asyncio.create_task(ask_for_ever(raw))
            await until(lambda: not door.feed._peers)
            flood.cancel()
        assert psutil.Process().memory_info().rss - before < 30 << 20


async def ask_for_ever(raw: socket.socket) -> None:
    """Ask for every task, again and again."""
    loop = asyncio.get_running_loop()
    with suppress(OSError, ConnectionClosed):
        while True:
            await loop.sock_sendall(raw, text({"command": "list_tasks", "limit": 1000}))
            await asyncio.sleep(0.005)
