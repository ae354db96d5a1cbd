"""A workshop's door on another loop: one for all there, nothing lost or doubled, bounded, and ended."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from koubou_panel.core.commands import Caller, ScaleWorkers, SubmitTask
from koubou_panel.core.events import MetricsSampled, SystemNoted
from koubou_panel.core.records import Metrics, Request
from koubou_panel.errors import Refused
from koubou_panel.notebook import hop
from koubou_panel.notebook.hop import Hops, hopped
from koubou_panel.notebook.loop_thread import LoopThread
from koubou_panel.servers.private import PrivateServer
from koubou_panel.shop.remote import RemoteShop
from koubou_panel.testing import Collector, open_inline_shop, until

CALLER = Caller("test")


class There:
    """A workshop on a thread of its own, as a notebook holds it."""

    def __init__(self) -> None:
        self.thread = LoopThread()
        self.stack = AsyncExitStack()
        self.shop = self.thread.call(self.stack.enter_async_context(open_inline_shop()))
        self.hops = Hops(self.shop, self.thread)

    async def _on_loop(self, function, *args):
        return function(*args)

    def call(self, function, *args):
        """Do it on the workshop's thread, and wait."""
        return self.thread.call(self._on_loop(function, *args))

    def note(self, words):
        """Make the workshop note something."""
        self.shop.hub.note(SystemNoted(0.0, "noted", words))

    def close(self):
        """End as `Workshop.shutdown` does."""
        self.thread.close(self._close())

    async def _close(self):
        await self.stack.aclose()
        self.hops.shut()


class Follower(Collector):
    """What the state held when it was last given, and what was told since."""

    def on_reset(self, state):
        """Begin anew: on a busy machine this loop is left behind by one that does nothing but talk."""
        super().on_reset(state)
        self.held = words(state)
        self.facts.clear()


@pytest.fixture
def there():
    """A workshop on a thread."""
    opened = There()
    yield opened
    if not opened.thread.is_closed:
        opened.close()


def submission(door):
    """A command to run."""
    spec = {"command": ["true"]}
    return SubmitTask(Request(task_id=door.next_id(), kind="script", created_at=0.0, spec=spec))


def words(state):
    """What the notes say that these tests made, in order."""
    return [note.details for note in state.notes if note.event == "noted"]


async def test_all_users_of_a_loop_share_one_subscription(there) -> None:
    """Two users have the same door; the last of them ends it, and the next has a new one."""
    before = there.shop.hub.subscribers
    first, second = there.hops.acquire(), there.hops.acquire()
    assert first is second
    assert there.shop.hub.subscribers == before + 1
    first.release()
    assert there.shop.hub.subscribers == before + 1
    second.release()
    await until(lambda: there.shop.hub.subscribers == before)
    assert len(there.hops) == 0
    with hopped(there) as third:
        assert third is not first
    await until(lambda: there.shop.hub.subscribers == before)


async def test_the_state_is_there_at_once(there) -> None:
    """Who has the door has the state, before any turn of this loop."""
    there.call(there.note, "before")
    with hopped(there) as door:
        assert door.state.epoch == there.shop.state.epoch
        assert len(door.state.workers) == 2


async def test_nothing_is_lost_or_doubled_while_it_begins(there) -> None:
    """Doors that are opened in the middle of a stream of facts and samples all end with each of them once."""
    stop = threading.Event()
    made = 0

    async def talk():
        nonlocal made
        while not stop.is_set():
            there.note(str(made))
            there.shop.hub.note(MetricsSampled(made, Metrics(float(made), {"cpu_percent": 1.0})))
            made += 1
            await asyncio.sleep(0)

    talking = there.thread.start(talk())
    for _ in range(30):
        with hopped(there) as door:
            follower = Follower()
            door.subscribe(follower)
            await until(lambda follower=follower: len(follower.facts) > 5)
            told = [f.fact.details for f in follower.facts if f.fact.event == "noted"]
            all_of = [int(word) for word in [*follower.held, *told]]
            assert all_of == list(range(all_of[0], all_of[0] + len(all_of)))
            at = [metrics.at for metrics in door.state.metrics]
            assert at == sorted(set(at))
    stop.set()
    talking.result(10)
    with hopped(there) as door:
        await until(lambda: words(door.state)[-1] == str(made - 1))


async def test_a_loop_that_is_held_up_costs_no_memory(there, monkeypatch) -> None:
    """Past the bound what waits is dropped, and the state is copied anew when the loop is free again."""
    door = hop.HoppedShop(there.shop, there.thread, end=lambda _: None, most=50)
    collector = Collector()
    door.subscribe(collector)
    for number in range(300):  # this loop does not turn meanwhile
        there.call(there.note, str(number))
    there.thread.call(there.shop.hub.stored())
    assert door._relay.take() == []
    there.call(there.note, "unheard")
    there.thread.call(there.shop.hub.stored())
    assert door._relay.take() == []
    copies = []
    monkeypatch.setattr(door, "_renew", lambda renew=door._renew: (copies.append(1), renew()))
    for _ in range(3):
        door.catch_up()
    await until(lambda: collector.resets == 2)
    assert len(copies) == 1, "once, however often it was found to be behind"
    assert not collector.facts
    assert words(door.state)[-1] == "unheard"
    there.call(there.note, "heard")
    await until(lambda: [f.fact.details for f in collector.facts] == ["heard"])
    door.close()


async def test_a_copy_that_was_dropped_before_it_was_taken_is_made_again(there) -> None:
    """A loop that is still held up when its copy comes has that dropped too, and is not left behind for ever."""
    door = hop.HoppedShop(there.shop, there.thread, end=lambda _: None, most=50)
    for _ in range(2):
        for number in range(100):  # this loop does not turn meanwhile
            there.call(there.note, str(number))
        there.thread.call(there.shop.hub.stored())
        door.catch_up()
        there.thread.call(there.shop.hub.stored())  # by now the copy waits
    there.call(there.note, "last")
    await until(lambda: words(door.state)[-1:] == ["last"])
    door.close()


async def test_one_wake_up_brings_all_that_waits(there, monkeypatch) -> None:
    """However much is told while the loop is busy, it is woken once."""
    with hopped(there) as door:
        await until(lambda: not door._relay._is_woken)
        wakes = []
        monkeypatch.setattr(door._relay, "_wake", lambda wake=door._relay._wake: (wakes.append(1), wake()))
        collector = Collector()
        door.subscribe(collector)
        for number in range(20):
            there.call(there.note, str(number))
        there.thread.call(there.shop.hub.stored())
        await until(lambda: len(collector.facts) == 20)
        assert len(wakes) == 1


async def test_a_gap_is_mended_by_a_new_copy(there) -> None:
    """Should a fact ever be missing, the state is copied anew and no wrong one is shown."""
    with hopped(there) as door:
        collector = Collector()
        door.subscribe(collector)
        there.call(there.note, "lost")
        await until(lambda: door._relay._waiting or words(door.state))
        door._replica.state.seq["system"] -= 1
        there.call(there.note, "kept")
        await until(lambda: collector.resets == 2)
        assert words(door.state) == ["lost", "kept"]
        there.call(there.note, "after")
        await until(lambda: words(door.state)[-1] == "after")


async def test_no_loop_is_said(there) -> None:
    """Without a running loop there is no door, and on the workshop's own thread neither."""
    raised = []

    def without_loop():
        try:
            there.hops.acquire()
        except RuntimeError as error:
            raised.append(str(error))

    thread = threading.Thread(target=without_loop)
    thread.start()
    thread.join()
    assert raised == ["no running event loop"]
    with pytest.raises(RuntimeError, match="another thread"):
        there.call(there.hops.acquire)


async def test_closing_while_facts_hop_loses_no_thread(there) -> None:
    """A door that is closed while it is told is told no more, and the workshop goes on."""
    stop = threading.Event()

    async def talk():
        while not stop.is_set():
            there.note("again")
            await asyncio.sleep(0)

    before = there.shop.hub.subscribers
    talking = there.thread.start(talk())
    for _ in range(50):
        door = there.hops.acquire()
        collector = Collector()
        door.subscribe(collector)
        await asyncio.sleep(0)
        door.release()
        told = len(collector.facts)
        await asyncio.sleep(0)
        assert len(collector.facts) == told
    stop.set()
    talking.result(10)
    await until(lambda: there.shop.hub.subscribers == before)


async def test_a_loop_that_is_gone_leaves_no_subscription(there) -> None:
    """A loop that was closed without a word is found out at the next fact."""
    before = there.shop.hub.subscribers

    async def leave():
        there.hops.acquire()
        there.hops.acquire()

    thread = threading.Thread(target=lambda: asyncio.run(leave()))
    thread.start()
    thread.join()
    assert there.shop.hub.subscribers == before + 1
    there.call(there.note, "anyone?")
    await until(lambda: there.shop.hub.subscribers == before)
    assert len(there.hops) == 0


async def test_the_end_of_the_workshop_is_told(there) -> None:
    """After a shutdown the last state stays, the link is closed, subscribers look again, and all else is refused."""
    door = there.hops.acquire()
    collector = Collector()
    door.subscribe(collector)
    task_id = await door.do(submission(door), CALLER)
    looked = []
    collector.on_samples = lambda samples: looked.append(door.link.status)
    await asyncio.to_thread(there.close)
    await until(lambda: "closed" in looked)
    assert door.state.tasks[task_id].status == "cancelled"
    with pytest.raises(Refused, match="Workshop") as caught:
        await door.do(ScaleWorkers(1, 1), CALLER)
    assert caught.value.code == "unavailable"
    door.release()
    with pytest.raises(RuntimeError, match="shut down"):
        there.hops.acquire()


async def test_who_waits_at_the_end_is_refused(there, monkeypatch) -> None:
    """A question that the workshop cannot answer any more is no cancelled task here."""
    with hopped(there) as door:

        async def never(task_id):
            await asyncio.Event().wait()

        monkeypatch.setattr(there.shop, "get", never)
        asked = asyncio.ensure_future(door.get("x"))
        await asyncio.sleep(0)
        await asyncio.to_thread(there.close)
        with pytest.raises(Refused, match="shut down"):
            await asked


@asynccontextmanager
async def serving(path):
    """A workshop that others attach to."""
    async with open_inline_shop() as shop:
        server = PrivateServer(shop, path)
        await server.start()
        yield shop
        await server.close()


async def test_a_restarted_workshop_is_a_reset(tmp_path) -> None:
    """Attached to a workshop that goes and comes back, the door shows so, and then the new one."""
    path, thread = tmp_path / "shop.sock", LoopThread()
    async with serving(path):
        remote = await asyncio.to_thread(thread.call, RemoteShop.connect(path, by="test"))
        door = Hops(remote, thread).acquire()
        collector = Collector()
        door.subscribe(collector)
        old = door.state.epoch
    await until(lambda: door.link.status == "reconnecting")
    async with serving(path) as shop:
        await until(lambda: door.state.epoch == shop.state.epoch)
        assert door.state.epoch != old
        assert collector.resets == 2
        assert door.link.status == "live"
        door.release()
        await asyncio.to_thread(thread.call, remote.close())
    thread.close()


def test_doors_of_a_workshop_that_was_shut_down_keep_nothing_of_it(there) -> None:
    """What was shown keeps its doors for as long as the kernel runs: not the workshop with all its tasks too."""
    shop = weakref.ref(there.shop)
    there.close()
    there.shop = None
    there.stack = None
    gc.collect()
    assert shop() is None
    with pytest.raises(RuntimeError, match="shut down"):
        asyncio.run(acquired(there.hops))


async def acquired(hops):
    """A door."""
    return hops.acquire()
