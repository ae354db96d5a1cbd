"""What every `Shop` keeps to: the workshop itself, one in another process, and one on another thread's loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import pytest

from koubou_panel.core.commands import Caller, CancelTask, PausePool, ScaleWorkers, SubmitTask
from koubou_panel.core.ports import Shop, TaskQuery
from koubou_panel.core.records import Progress, Request, TaskId
from koubou_panel.errors import Refused
from koubou_panel.notebook.hop import Hops
from koubou_panel.notebook.loop_thread import LoopThread
from koubou_panel.servers.private import PrivateServer
from koubou_panel.shop.local import LocalShop
from koubou_panel.shop.remote import RemoteShop
from koubou_panel.testing import Collector, open_inline_shop, until

CALLER = Caller("test")


@dataclass
class Case:
    """A door, the workshop behind it, and a way to do something where that is."""

    door: Shop
    shop: LocalShop
    there: Callable[..., None]


def here(function: Callable[..., object], *args: object, **kwargs: object) -> None:
    """Do it in this loop."""
    function(*args, **kwargs)


@asynccontextmanager
async def local(path) -> AsyncIterator[Case]:
    """The workshop itself."""
    async with open_inline_shop() as shop:
        yield Case(shop, shop, here)


@asynccontextmanager
async def remote(path) -> AsyncIterator[Case]:
    """A replica over the private link."""
    async with open_inline_shop() as shop, AsyncExitStack() as stack:
        server = PrivateServer(shop, path)
        await server.start()
        stack.push_async_callback(server.close)
        yield Case(await stack.enter_async_context(await RemoteShop.connect(path, by="test")), shop, here)


@asynccontextmanager
async def on_thread(opened) -> AsyncIterator[Case]:
    """A case that is opened on a thread's loop, with a door on this one."""
    thread, stack = LoopThread(), AsyncExitStack()
    try:
        case = thread.call(stack.enter_async_context(opened))
        door = Hops(case.door, thread).acquire()

        def there(function, *args, **kwargs):
            thread.loop.call_soon_threadsafe(lambda: function(*args, **kwargs))

        yield Case(door, case.shop, there)
        door.release()
    finally:
        thread.call(stack.aclose())
        thread.close()


CASES = {
    "local": local,
    "remote": remote,
    "hopped": lambda path: on_thread(local(path)),
    "hopped remote": lambda path: on_thread(remote(path)),
}


@pytest.fixture(params=CASES)
async def case(request, tmp_path):
    """Each door there is."""
    async with CASES[request.param](tmp_path / "shop.sock") as opened:
        yield opened


def submission(door: Shop, **fields) -> SubmitTask:
    """A command to run."""
    spec = {"command": ["true"]}
    return SubmitTask(Request(task_id=door.next_id(), kind="script", created_at=0.0, spec=spec, **fields))


def looks(state) -> tuple[object, ...]:
    """What two copies of one state have in common."""
    return (
        state.epoch,
        dict(state.seq),
        dict(state.counts),
        state.pool,
        {task_id: (t.status, t.run, t.message, t.progress) for task_id, t in state.tasks.items()},
        list(state.finished),
        {worker_id: w.status for worker_id, w in state.workers.items()},
    )


async def test_what_was_done_is_in_the_state(case) -> None:
    """When a command returns, the state has it."""
    task_id = await case.door.do(submission(case.door, name="hello"), CALLER)
    assert case.door.state.tasks[task_id].request.name == "hello"


async def test_a_state_follows_the_workshop(case) -> None:
    """Start, progress and end come; in the end it is the workshop's own state."""
    task_id = await case.door.do(submission(case.door), CALLER)
    await until(lambda: task_id in case.shop.engine.jobs)
    case.there(case.shop.engine.progress, task_id, Progress(done=1, total=4))
    await until(lambda: case.door.state.tasks[task_id].progress is not None)
    case.there(case.shop.engine.finish, task_id, exit_code=0)
    await until(lambda: case.door.state.tasks[task_id].status == "completed")
    await until(lambda: looks(case.door.state) == looks(case.shop.state))


async def test_refusals_keep_their_words(case) -> None:
    """What the workshop refuses raises with code and field; alone and among others."""
    with pytest.raises(Refused) as caught:
        await case.door.do(submission(case.door, priority=11), CALLER)
    assert (caught.value.code, caught.value.field) == ("invalid", "priority")
    answers = await case.door.do_many(
        [submission(case.door), CancelTask(TaskId("nonesuch")), ScaleWorkers(2, 3)], CALLER
    )
    assert [getattr(answer, "code", None) for answer in answers] == [None, "not_found", None]


async def test_many_that_follow_each_other_are_all_taken(case) -> None:
    """Each may name the one before it, also where they are more than cross at once."""
    await case.door.do(PausePool(), CALLER)
    chain = [submission(case.door)]
    for _ in range(1_499):
        chain.append(submission(case.door, after=(chain[-1].request.task_id,)))
    assert await case.door.do_many(chain, CALLER) == [command.request.task_id for command in chain]


async def test_a_subscriber_is_reset_and_then_told_each_fact_once(case) -> None:
    """It begins with the state, is told in order and once, and nothing after it has left."""
    collector = Collector()
    leave = case.door.subscribe(collector)
    assert collector.resets == 1
    seen = dict(case.door.state.seq)
    task_ids = await case.door.do_many([submission(case.door) for _ in range(3)], CALLER)
    await until(lambda: sum(f.fact.channel == "task" for f in collector.facts) >= 5)
    told = [f.seq for f in collector.facts if f.fact.channel == "task"]
    assert told == list(range(seen["task"] + 1, seen["task"] + 1 + len(told)))
    assert {f.record.task_id for f in collector.facts if f.fact.channel == "task"} == set(task_ids)
    leave()
    before = len(collector.facts)
    other = await case.door.do(submission(case.door), CALLER)
    await until(lambda: other in case.door.state.tasks)
    assert len(collector.facts) == before


async def test_a_subscriber_that_fails_is_dropped_alone(case) -> None:
    """Others are told on."""
    broken, collector = Collector(), Collector()
    broken.on_facts = lambda folded: 1 / 0
    case.door.subscribe(broken)
    case.door.subscribe(collector)
    await case.door.do(submission(case.door), CALLER)
    await case.door.do(submission(case.door), CALLER)
    await until(lambda: len({f.seq for f in collector.facts if f.fact.channel == "task"}) >= 4)


async def test_questions_are_answered(case) -> None:
    """The archive is asked through it."""
    task_id = await case.door.do(submission(case.door), CALLER)
    assert (await case.door.get(task_id)).task_id == task_id
    assert await case.door.get(TaskId("00000000000000")) is None
    assert [task.task_id for task in (await case.door.find(TaskQuery())).tasks] == [task_id]
    assert await case.door.values([task_id]) == [b""]
    assert (await case.door.read_output(task_id, 0, 10)).text == ""
    assert (await case.door.read_bytes(task_id, 0, 10)).data == b""
    assert await case.door.curve(task_id) is None
    assert await case.door.metrics_since(0.0) == []
    assert await case.door.metrics_binned(case.shop.clock() - 60.0, 10.0) == []
    assert (await case.door.spans(0.0, 1.0)).spans == []
    assert await case.door.held_output([task_id]) == [0]
    for question in (
        case.door.read_script("none"),
        case.door.script_versions("none"),
        case.door.save_script_text("none", "", "", CALLER),
        case.door.restore_script("none", "0000", "", CALLER),
        case.door.remove_output("none", CALLER),
    ):
        with pytest.raises(Refused):
            await question


async def test_ids_sort_in_their_order(case) -> None:
    """Ids are new each time, and later ones sort later."""
    made = [case.door.next_id() for _ in range(50)]
    assert made == sorted(set(made))


async def test_a_given_up_wait_leaves_the_command_to_the_workshop(case) -> None:
    """Who is cancelled while he waits is cancelled, and no other."""
    asked = asyncio.ensure_future(case.door.do(submission(case.door), CALLER))
    other = asyncio.ensure_future(case.door.do(submission(case.door), CALLER))
    await asyncio.sleep(0)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    assert await other in case.door.state.tasks
    assert case.door.link.status == "live"
