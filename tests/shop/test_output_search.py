"""A search through the output of all tasks: what it finds, and where it ends."""

from __future__ import annotations

import asyncio
import threading

import pytest
from msgspec.structs import replace

from koubou_panel.archive.sqlite import Batch
from koubou_panel.core.ports import OutputSearch, TaskQuery
from koubou_panel.core.records import Usage
from koubou_panel.errors import Refused
from koubou_panel.home import Home
from koubou_panel.servers.private import PrivateServer
from koubou_panel.shop import output_search
from koubou_panel.shop.remote import RemoteShop
from koubou_panel.testing import ended, open_shop, submit, until


@pytest.fixture
async def shop(tmp_path):
    """A real workshop."""
    async with open_shop(tmp_path / "home", workers=1) as shop:
        yield shop


@pytest.fixture
async def remote(shop, tmp_path):
    """The same, over its private link."""
    path = Home(tmp_path / "home").socket
    server = PrivateServer(shop, path)
    await server.start()
    try:
        async with await RemoteShop.connect(path, by="test") as remote:
            yield remote
    finally:
        await server.close()


async def run(shop, script, **fields):
    """Run a line of shell to its end."""
    task_id = await submit(shop, "sh", "-c", script, **fields)
    await ended(shop, task_id)
    return task_id


async def test_all_tasks_are_searched_newest_first(shop, remote):
    """By task, with the lines around each hit, of the tasks that are asked for."""
    first = await run(shop, "echo a; echo Disk FULL; echo b", name="first")
    await run(shop, "echo nothing; exit 3", name="other")
    second = await run(shop, "echo disk full; exit 1", name="second")
    hits = await remote.search_logs(OutputSearch(text="disk full", context=1))
    found = [
        (one.task.task_id, hit.line, hit.text, hit.before, hit.after)
        for one in hits.found
        for hit in one.hits
    ]
    assert found == [(second, 1, "disk full", [], []), (first, 2, "Disk FULL", ["a"], ["b"])]
    assert (hits.tasks, hits.is_cut) == (3, False)
    failed = await remote.search_logs(OutputSearch(text="disk full", tasks=TaskQuery(status="failed")))
    assert [one.task.request.name for one in failed.found] == ["second"]
    assert failed.tasks == 2


async def test_what_runs_is_searched_too(shop):
    """Also what its record does not know of yet."""
    task_id = await submit(shop, "sh", "-c", "echo needle; sleep 60")
    await until(lambda: shop.state.tasks[task_id].status == "in_progress")

    async def is_found():
        return (await shop.search_logs(OutputSearch(text="needle"))).found

    await until(is_found)


async def test_it_ends_where_it_has_enough(shop):
    """At most so many lines of a task, and so many in all; both say so."""
    await run(shop, "seq 1 50 | sed s/^/line-/")
    await run(shop, "seq 1 50 | sed s/^/line-/")
    hits = await shop.search_logs(OutputSearch(text="line-", per_task=3, context=0))
    assert [(len(one.hits), one.is_cut) for one in hits.found] == [(3, True), (3, True)]
    assert hits.is_cut is False
    hits = await shop.search_logs(OutputSearch(text="line-", limit=60))
    assert sum(len(one.hits) for one in hits.found) == 60 - 20
    hits = await shop.search_logs(OutputSearch(text="line-", limit=30))
    assert ([len(one.hits) for one in hits.found], hits.is_cut) == ([20, 10], True)


async def test_it_ends_when_its_time_is_over(shop, monkeypatch):
    """What was found until then is told, and that it is not all."""
    await run(shop, "echo needle")
    await run(shop, "echo needle")
    monkeypatch.setattr(output_search, "SEARCH_S", -1.0)
    hits = await shop.search_logs(OutputSearch(text="needle"))
    assert (hits.is_cut, hits.tasks) == (True, 1)


async def test_a_newer_search_of_the_same_asker_ends_the_older(shop, monkeypatch):
    """It is answered with what it has; one of somebody else goes on."""
    await run(shop, "seq 1 1000")
    await run(shop, "seq 1 1000")
    go, begun = threading.Event(), threading.Event()
    search_log = output_search.search_log

    def slow(*args):
        begun.set()
        go.wait(20)
        return search_log(*args)

    monkeypatch.setattr(output_search, "search_log", slow)
    older = asyncio.ensure_future(shop.search_logs(OutputSearch(text="999", by="me")))
    await until(begun.is_set)
    other = asyncio.ensure_future(shop.search_logs(OutputSearch(text="999", by="you")))
    newer = asyncio.ensure_future(shop.search_logs(OutputSearch(text="1000", by="me")))
    await until(lambda: shop._scripts._searches == 3)
    go.set()
    assert [found.is_cut for found in await asyncio.gather(older, other, newer)] == [True, False, False]
    assert shop._scripts._stops == {}


@pytest.mark.parametrize(
    ("search", "field"),
    [
        (OutputSearch(text=" "), "text"),
        (OutputSearch(text="a\nb"), "text"),
        (OutputSearch(text="x" * 1_001), "text"),
        (OutputSearch(text="x", limit=0), "limit"),
        (OutputSearch(text="x", per_task=1_001), "per_task"),
        (OutputSearch(text="x", context=-1), "context"),
        (OutputSearch(text="x", tasks=TaskQuery(status="faild")), "status"),
    ],
)
async def test_what_cannot_be_searched_is_refused(remote, search, field):
    """The refusal names the field, over the private link too."""
    with pytest.raises(Refused) as refusal:
        await remote.search_logs(search)
    assert (refusal.value.code, refusal.value.field) == ("invalid", field)


async def test_what_a_crash_of_the_workshop_left_is_searched(shop):
    """The record of a run that was lost does not know how much it had printed."""
    task_id = await run(shop, "echo needle")
    lost = replace(shop.state.tasks[task_id], status="failed", reason="lost", usage=Usage())
    shop._archive.commit([Batch(tasks={task_id: lost})])
    found = await shop.search_logs(OutputSearch(text="needle"))
    assert [one.task.task_id for one in found.found] == [task_id]
