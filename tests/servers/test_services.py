"""A process' line to its supervisor."""

from __future__ import annotations

import asyncio
import json
import socket

import pytest

from koubou_panel.core.records import Service
from koubou_panel.servers.services import ServiceNotes, Services
from koubou_panel.supervising.status import encode_services
from koubou_panel.testing import Collector, open_inline_shop, until


@pytest.fixture
def line():
    """Both ends of a line; the supervisor's is closed after the test."""
    ours, theirs = socket.socketpair()
    ours.settimeout(5)
    yield ours, theirs
    ours.close()


async def attached(line, on_change=None) -> Services:
    """A process' end, as the supervisor gives it."""
    return await Services.attach(line[1].detach(), on_change)


async def test_what_is_asked_is_one_line_of_json(line) -> None:
    """A process asks by name, and hears at once that somebody will see to it."""
    services = await attached(line)
    assert services.start("model") is True
    assert services.restart("dashboard") is True
    assert services.is_supervised
    await asyncio.sleep(0)
    said = line[0].recv(1000).decode().splitlines()
    assert [json.loads(text) for text in said] == [{"start": "model"}, {"restart": "dashboard"}]
    services.close()


async def test_only_changes_are_told_on(line) -> None:
    """The supervisor writes all services each time; who listens hears of those that differ."""
    heard: list[Service] = []
    services = await attached(line, heard.append)
    pool, model = Service("pool", "running", pid=7), Service("model", "idle")
    line[0].sendall(encode_services([pool, model]))
    await until(lambda: len(heard) == 2)
    failed = Service(
        "model", "failed", message="it ended with code 3. Its last lines:\n  \x00" + "x" * 100_000
    )
    line[0].sendall(encode_services([pool, failed]))
    await until(lambda: len(heard) == 3)
    assert heard == [pool, model, failed]
    assert services.records == {"pool": pool, "model": failed}
    services.close()


async def test_without_a_supervisor_nothing_is_started() -> None:
    """A workshop in a notebook has nobody to ask, and says so."""
    services = await Services.attach(None)
    assert services.start("model") is False
    assert services.restart("pool") is False
    assert not services.is_supervised
    services.close()


async def test_a_supervisor_that_is_gone_is_not_asked(line) -> None:
    """Once its end is closed, nobody starts anything."""
    services = await attached(line)
    line[0].close()
    await until(lambda: services._reading is not None and services._reading.done())
    assert services.start("model") is False


async def test_services_are_facts_of_the_workshop_in_every_epoch() -> None:
    """They are told to who follows; a state that was read again from the archive, which keeps none, has them too."""
    async with open_inline_shop() as shop:
        notes = ServiceNotes(shop.hub, shop.clock)
        pool = Service("pool", "running", pid=7, started_at=1.0)
        collector = Collector()
        unsubscribe = shop.subscribe(collector)
        notes.note(pool)
        await until(lambda: shop.state.services.get("pool") == pool)
        await shop.hub.stored()
        assert [folded.fact.service for folded in collector.facts] == [pool]
        del shop.state.services["pool"]
        notes.on_reset(shop.state)
        await until(lambda: shop.state.services.get("pool") == pool)
        unsubscribe()
        notes.close()
