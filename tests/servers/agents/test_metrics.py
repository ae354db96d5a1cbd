"""`/metrics`: the text format of Prometheus, read by its own parser, and true."""

from __future__ import annotations

import asyncio

import pytest
from prometheus_client.parser import text_string_to_metric_families

from koubou_panel.core.commands import DrainPool
from koubou_panel.core.events import MetricsSampled, ServiceChanged
from koubou_panel.core.records import Metrics, Service, Usage
from koubou_panel.servers.agents.metrics import LOOK_S, LoopLag
from koubou_panel.testing import ended, open_inline_shop, submit, until
from tests.servers.agents.rest_door import open_door
from tests.servers.agents.test_rest import ME


@pytest.fixture
async def shop():
    """A workshop in memory, whose tasks end when the test says so."""
    async with open_inline_shop() as shop:
        yield shop


@pytest.fixture
async def rest(shop):
    """A client of its agents' port."""
    async with open_door(shop) as door, door.client() as rest:
        yield rest


async def scrape(rest) -> dict[str, dict[tuple[str, ...], float]]:
    """Every sample, by name and labels."""
    reply = await rest.get("/metrics")
    assert reply.status_code == 200
    assert reply.headers["content-type"].startswith("text/plain; version=0.0.4")
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(reply.text):
        assert family.documentation
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
    return found


async def test_tasks_and_workers_are_counted(shop, rest):
    """Each status has its count, also where it is 0; a service that runs is 1."""
    ids = [await submit(shop, "true") for _ in range(3)]
    await until(lambda: len(shop.engine.jobs) == 2)
    shop.engine.finish(ids[0], reason="exit", exit_code=1)
    await until(lambda: shop.state.tasks[ids[0]].is_finished and len(shop.engine.jobs) == 2)
    shop.hub.note(ServiceChanged(1.0, Service("agents", "running", 8765)))
    shop.hub.note(ServiceChanged(1.0, Service("model", "idle")))
    await until(lambda: len(shop.state.services) == 2)
    found = await scrape(rest)
    tasks = {labels[0]: count for labels, count in found["koubou_tasks"].items()}
    assert tasks == {"pending": 0, "in_progress": 2, "completed": 0, "failed": 1, "cancelled": 0}
    assert found["koubou_workers"][("busy",)] == 2
    assert found["koubou_workers_wanted"] == {("min",): 2, ("max",): 2}
    assert found["koubou_service_up"] == {("agents",): 1, ("model",): 0}
    assert found["koubou_takes_work"] == {(): 1}
    await shop.do(DrainPool(), ME)
    assert (await scrape(rest))["koubou_takes_work"] == {(): 0}


async def test_the_queue_has_an_age(shop, rest):
    """The oldest pending task says how long the queue is, by the clock; 0 where none waits."""
    assert (await scrape(rest))["koubou_queue_age_seconds"] == {(): 0}
    for _ in range(3):
        await submit(shop, "true")
    assert (await scrape(rest))["koubou_queue_age_seconds"][()] > 0


async def test_tokens_add_up(shop, rest):
    """Tokens of prompts that ended are counted on, whatever became of the prompts."""
    for reason in (None, "exception"):
        task_id = await submit(shop, "true")
        await until(lambda task_id=task_id: task_id in shop.engine.jobs)
        usage = Usage(prompt_tokens=5, completion_tokens=20)
        shop.engine.finish(task_id, reason=reason, usage=usage)
        await ended(shop, task_id)
    assert (await scrape(rest))["koubou_tokens_total"] == {("prompt",): 10, ("completion",): 40}


async def test_the_machine_is_told_in_base_units(shop, rest):
    """Percents become ratios, rates say per second; what is no number is left out."""
    values = {
        "cpu_percent": 25.0,
        "memory_used_bytes": 7,
        "disk_read_bytes_per_s": 1.5,
        "cpu_percents": [1.0],
    }
    shop.hub.note(MetricsSampled(1.0, Metrics(1.0, values)))
    await until(lambda: shop.state.metrics)
    found = {
        name: list(samples.values()) for name, samples in (await scrape(rest)).items() if "_host_" in name
    }
    assert found == {
        "koubou_host_cpu_ratio": [0.25],
        "koubou_host_memory_used_bytes": [7],
        "koubou_host_disk_read_bytes_per_second": [1.5],
    }


async def test_a_late_loop_is_told():
    """A loop that is held up for a while says for how long, until it is asked again."""
    lag = LoopLag()
    loop = asyncio.get_running_loop()
    lag._due = loop.time() - 0.25
    lag._look()
    assert lag.worst_s >= 0.25
    assert lag.turn() >= 0.25
    assert lag.turn() >= 0.25
    assert lag.turn() < 0.25
    assert lag._due - loop.time() <= LOOK_S
    lag.close()


async def test_nothing_is_left_behind(shop):
    """A port that is closed follows the shop no more."""
    before = shop.hub.subscribers
    async with open_door(shop) as door, door.client() as rest:
        await rest.get("/metrics")
        assert shop.hub.subscribers > before
    assert shop.hub.subscribers == before
