"""The feed: one encoding and one write for many, samples merged, bursts in pieces, nothing for nobody."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from koubou_panel.core.events import MetricsSampled, TaskProgressed, TasksSampled
from koubou_panel.core.fold import evolve
from koubou_panel.core.records import Metrics, Progress, TaskId, Use
from koubou_panel.core.state import State
from koubou_panel.servers import feed as feed_module
from koubou_panel.servers.feed import CHUNKS_AT_ONCE, Feed
from koubou_panel.testing import until
from koubou_panel.wire.ring import CHUNK_BYTES
from tests.wire.pair import noted, started, submitted


class Source:
    """A shop that only emits what it is told."""

    def __init__(self) -> None:
        self.state = State("one")
        self.subscribers: list = []

    def subscribe(self, subscriber):
        self.subscribers.append(subscriber)
        subscriber.on_reset(self.state)
        return lambda: self.subscribers.remove(subscriber)

    def emit(self, *events) -> None:
        """All of these at once."""
        folded = [evolve(self.state, event) for event in events]
        for subscriber in self.subscribers:
            subscriber.on_facts(folded)

    def sample(self, *samples) -> None:
        """These samples."""
        for sample in samples:
            evolve(self.state, sample)
        for subscriber in self.subscribers:
            subscriber.on_samples(samples)


class Sink:
    """A transport that takes everything at once."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []

    def write(self, data):
        self.writes.append(data)

    def backlog(self):
        return 0

    def abort(self):
        raise AssertionError("nobody is stuck here")

    def messages(self) -> list[dict]:
        """What was written, decoded."""
        data, found = b"".join(self.writes), []
        while data:
            size, at = data[1], 2
            if size >= 126:
                at = 4 if size == 126 else 10
                size = int.from_bytes(data[2:at], "big")
            found.append(json.loads(data[at : at + size]))
            data = data[at + size :]
        return found


@pytest.fixture
async def source():
    """A shop."""
    return Source()


@pytest.fixture
async def feed(source):
    """A feed of it."""
    feed = Feed(source, clock=time.time)
    yield feed
    await feed.close()
    assert source.subscribers == []


async def join(feed, *channels) -> tuple:
    """A connection that follows these channels, and its transport, emptied."""
    sink = Sink()
    peer = feed.join(
        sink,
        role="full",
        verify=lambda _: None,
        by="test",
        close=lambda *_: None,
        channels=frozenset(channels),
    )
    for channel in channels:
        await peer.receive(json.dumps({"command": "subscribe", "channel": channel}))
    sink.writes.clear()
    return peer, sink


def count(monkeypatch) -> list[int]:
    """The seq of every fact that is encoded from now on."""
    made: list[int] = []
    encode = feed_module.message_of
    monkeypatch.setattr(feed_module, "message_of", lambda item: made.append(item.seq) or encode(item))
    return made


async def test_facts_of_one_pass_are_one_write_and_one_encoding(feed, source, monkeypatch):
    """What comes within a pass of the loop is written once to each, and encoded once for all."""
    made = count(monkeypatch)
    sinks = [(await join(feed, "system"))[1] for _ in range(3)]
    source.emit(noted(1))
    source.emit(noted(2), noted(3))
    await asyncio.sleep(0)
    assert [len(sink.writes) for sink in sinks] == [1, 1, 1]
    assert [message["seq"] for message in sinks[0].messages()] == [1, 2, 3]
    assert made == [1, 2, 3]


async def test_nobody_means_no_work(feed, source, monkeypatch):
    """Without a reader of a channel its facts are not encoded."""
    made = count(monkeypatch)
    source.emit(noted(1))
    _, sink = await join(feed, "task")
    source.emit(noted(2))
    await asyncio.sleep(0)
    assert (made, sink.writes) == ([], [])


async def test_a_subscription_begins_where_it_says(feed, source):
    """Facts that wait to go out when somebody subscribes are told to the others only."""
    _, before = await join(feed, "system")
    source.emit(noted(1))
    peer, after = await join(feed)
    await peer.receive('{"command":"subscribe","channel":"system"}')
    source.emit(noted(2))
    await until(lambda: len(before.messages()) == 2)
    assert [message["seq"] for message in before.messages()] == [1, 2]
    told = after.messages()
    assert [(message["type"], message["seq"]) for message in told] == [("subscribed", 1), ("system_event", 2)]


async def test_of_samples_the_last_of_each_counts(feed, source):
    """Progress of one task is merged within a pass; of a task that has ended none is told."""
    source.emit(submitted(1), started(1), submitted(2))
    _, sink = await join(feed, "task", "system")
    source.sample(
        *[TaskProgressed(0.0, TaskId("task-1"), 1, Progress(fraction=n / 4)) for n in range(4)],
        TaskProgressed(0.0, TaskId("task-2"), 1, Progress(fraction=0.5)),
        *[MetricsSampled(0.0, Metrics(0.0, {"cpu_percent": float(n)})) for n in range(3)],
    )
    await asyncio.sleep(0)
    progress, metrics = sink.messages()
    assert (progress["task_id"], progress["data"]["fraction"]) == ("task-1", 0.75)
    assert metrics["data"]["cpu_percent"] == 2.0


async def test_what_runs_use_is_told_task_by_task(feed, source):
    """One sample of all runs is a message for each; the last counts, and of a task that has ended none is told."""
    source.emit(submitted(1), started(1), submitted(2), started(2), submitted(3))
    _, sink = await join(feed, "task")
    for percent in (10.0, 20.0):
        uses = [(TaskId(f"task-{n}"), 1, Use(percent + n, 5, 0.5)) for n in (1, 2, 3)]
        source.sample(TasksSampled(0.0, uses))
    await asyncio.sleep(0)
    told = [(message["task_id"], message["data"]["cpu_percent"]) for message in sink.messages()]
    assert told == [("task-1", 21.0), ("task-2", 22.0)]


async def test_a_burst_goes_out_in_pieces(feed, source):
    """Of very many facts only the first pieces go out at once; the rest follows, in order, in its turns."""
    _, sink = await join(feed, "system")
    total = 3000
    source.emit(*[noted(n) for n in range(total)])
    feed.flush()
    at_once = sum(len(data) for data in sink.writes)
    assert len(sink.writes) == CHUNKS_AT_ONCE
    assert at_once < CHUNKS_AT_ONCE * (CHUNK_BYTES + 1000)
    source.emit(noted(total))
    await until(lambda: len(sink.messages()) == total + 1)
    assert [message["seq"] for message in sink.messages()] == list(range(1, total + 2))


async def test_the_feed_rests_after_work(feed, source):
    """After a fan-out that took long the next waits some multiple of it, and is not forgotten."""
    _, sink = await join(feed, "system")
    source.emit(noted(1))
    feed.flush()
    feed._rest_until = asyncio.get_running_loop().time() + 0.05
    source.emit(noted(2))
    await asyncio.sleep(0)
    assert len(sink.messages()) == 1
    await until(lambda: len(sink.messages()) == 2)


async def test_the_state_is_made_once_for_many(feed, source, monkeypatch):
    """Connections that come at once are sent the same state; after a fact it is made anew."""
    made = []
    build = feed_module.initial_state
    monkeypatch.setattr(
        feed_module, "initial_state", lambda *args, **more: made.append(1) or build(*args, **more)
    )
    for _ in range(5):
        await join(feed)
    assert len(made) == 1
    source.emit(noted(1))
    _, sink = await join(feed)
    assert len(made) == 2
    assert json.loads(feed.initial_state())["data"]["seq"]["system"] == 1
    assert sink.messages() == []


async def test_the_same_state_again_changes_nothing(feed, source):
    """A reset to where everybody is already (a link that came back) sends nothing."""
    _, sink = await join(feed, "system")
    source.emit(noted(1))
    feed.flush()
    feed.on_reset(source.state)
    await asyncio.sleep(0)
    assert [message["type"] for message in sink.messages()] == ["system_event"]
    source.state = State("two")
    feed.on_reset(source.state)
    assert [message["type"] for message in sink.messages()] == ["system_event", "initial_state"]
