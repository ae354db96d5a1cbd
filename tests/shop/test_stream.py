"""The stream of a real client: whole over cuts, begun again after a restart, honest about a wrong token."""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest

from koubou_panel.core.events import OutputGrew, SystemNoted
from koubou_panel.core.ports import OutputPage
from koubou_panel.errors import Refused
from koubou_panel.servers.access import Access
from koubou_panel.servers.feed import Feed
from koubou_panel.servers.socket import SocketServer
from koubou_panel.shop.stream import stream
from koubou_panel.testing import open_inline_shop, submit, until
from koubou_panel.wire.session import Limits
from tests.ports import free_port

TOKEN = "t" * 43


@asynccontextmanager
async def serving(shop, port, *, feed=None, limits=None):
    """The port, open."""
    access = Access(token=TOKEN, port=port, auth_by_frame=("*",))
    server = SocketServer(shop, access, port=port, feed=feed, limits=limits)
    await server.start()
    try:
        yield
    finally:
        await server.close()


async def collect(url, into, *, token=TOKEN, **options):
    """Read a stream for ever."""
    async with aclosing(stream(url, token=token, jitter=lambda: 1.0, **options)) as messages:
        async for message in messages:
            into.append(message)


def note(shop, n):
    """Something happens in the channel `system`."""
    shop.hub.note(SystemNoted(time.time(), "note", f"number {n}", {"n": n}))


def noted(messages):
    """Which notes were told."""
    return [message["data"]["n"] for message in messages if message["type"] == "system_event"]


async def test_cuts_do_not_show():
    """However often the port goes away, the stream has each fact once, in order, and one state."""
    port, messages, cuts = free_port(), [], []
    async with open_inline_shop(clock=time.time) as shop:
        feed = Feed(shop)
        url = f"ws://127.0.0.1:{port}/"
        reading = asyncio.create_task(
            collect(url, messages, channels=["system"], on_cut=lambda why, delay_s: cuts.append(delay_s))
        )
        for n in range(0, 12, 3):
            async with serving(shop, port, feed=feed):
                await until(lambda: feed.connections() == 1)
                note(shop, n)
                await until(lambda n=n: n in noted(messages))
                note(shop, n + 1)
            note(shop, n + 2)
        async with serving(shop, port, feed=feed):
            await until(lambda: 11 in noted(messages))
        reading.cancel()
        await feed.close()
    assert noted(messages) == list(range(12))
    assert [message["type"] for message in messages].count("initial_state") == 1
    assert len(cuts) >= 4
    assert all(0.1 <= delay_s <= 15 for delay_s in cuts)


async def test_a_killed_server_is_found_again():
    """After a kill -9 and a restart the stream goes on with the new state and the facts after it."""
    port, messages = free_port(), []
    reading = asyncio.create_task(collect(f"ws://127.0.0.1:{port}/", messages, channels=["system"]))
    for round_ in range(1, 3):
        server = await asyncio.create_subprocess_exec(
            sys.executable,
            str(Path(__file__).with_name("notes_server.py")),
            str(port),
            stdout=asyncio.subprocess.PIPE,
        )
        assert await server.stdout.readline() == b"ready\n"
        await until(lambda r=round_: epochs(messages) == r and len(noted(after_state(messages))) > 20)
        server.kill()
        await server.wait()
    reading.cancel()
    place = None
    for message in messages:
        if message["type"] == "initial_state":
            place = message["data"]["seq"]["system"]
        elif message["type"] == "system_event":
            assert message["seq"] == place + 1
            place += 1


def epochs(messages) -> int:
    """How many epochs were told of."""
    return len({message["data"]["epoch"] for message in messages if message["type"] == "initial_state"})


def after_state(messages) -> list[dict]:
    """What came since the last state."""
    states = [at for at, message in enumerate(messages) if message["type"] == "initial_state"]
    return messages[states[-1] :] if states else []


async def test_output_goes_on_over_a_cut():
    """Followed output is whole over a cut: each byte once."""
    port, messages, log = free_port(), [], b""

    async def read_output(task_id, offset, limit):
        start = max(0, len(log) + offset) if offset < 0 else min(offset, len(log))
        piece = log[start : start + limit]
        return OutputPage(piece.decode(), start, start + len(piece), len(log))

    def text():
        return "".join(message["data"]["text"] for message in messages if message["type"] == "output")

    async with open_inline_shop(clock=time.time) as shop:
        shop.read_output = read_output
        task_id = await submit(shop)
        url = f"ws://127.0.0.1:{port}/"
        reading = asyncio.create_task(collect(url, messages, channels=[], outputs=[task_id]))
        for piece in (b"one ", b"two ", b"three"):
            async with serving(shop, port):
                log += piece
                shop.hub.note(OutputGrew(time.time(), task_id, 1, len(log)))
                await until(lambda: text().encode() == log)  # noqa: B023 - called before the next round
        reading.cancel()
    assert text() == "one two three"


@pytest.mark.parametrize("token", ["wrong", None])
async def test_a_wrong_token_ends_the_stream(token):
    """A workshop that does not let the token in (or asks for one) is not asked again and again."""
    port = free_port()
    limits = Limits(auth_s=0.2)
    async with open_inline_shop(clock=time.time) as shop, serving(shop, port, limits=limits):
        with pytest.raises(Refused) as refused:
            await collect(f"ws://127.0.0.1:{port}/", [], token=token)
    assert refused.value.code == "unauthorized"
    assert "koubou token" in refused.value.message
