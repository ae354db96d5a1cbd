"""One connection's outgoing side: what a reader gets that keeps up, lags, forgets or is stuck."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from koubou_panel.core.records import FACT_CHANNELS
from koubou_panel.servers.outbox import CHUNK_BYTES, MAX_SAMPLES, ROOM_BYTES, STUCK_S, Outbox
from tests.wire.pair import House, noted, submitted

FACTS = ("task", "system")


class Pipe:
    """A transport whose reader takes `flow` bytes a time."""

    def __init__(self) -> None:
        self.taken = bytearray()
        self.waiting = bytearray()
        self.kernel = 0
        self.writes = 0
        self.most = 0
        self.is_aborted = False

    def write(self, data):
        self.writes += 1
        self.waiting += data
        self._move(self.kernel)
        self.most = max(self.most, len(self.waiting))

    def backlog(self):
        return len(self.waiting)

    def abort(self):
        self.is_aborted = True

    def flow(self, size):
        """The reader takes up to `size` bytes."""
        self._move(size)

    def _move(self, size):
        self.taken += self.waiting[:size]
        del self.waiting[:size]

    def lines(self):
        """What the reader has, whole messages only."""
        whole, _, _ = bytes(self.taken).rpartition(b"\n")
        return [json.loads(line) for line in whole.split(b"\n") if line]


class Desk:
    """A house, its ring of lines of text, and one outbox; facts go out as they are folded."""

    def __init__(self, *, kernel=0, facts=1000, padding=0) -> None:
        self.house = House(facts=facts)
        self.house.ring._encode = self._encode(self.house.ring._encode)
        self.pipe = Pipe()
        self.pipe.kernel = kernel
        self.padding = " " * padding
        self.watched = False
        self.lives = 0
        self.stuck = 0
        self.now = 0.0
        self.replies = 0
        self.outbox = Outbox(
            self.pipe,
            self.house.ring,
            initial_state=lambda: self.house.initial_state() + b"\n",
            channels=lambda: [channel for channel in FACT_CHANNELS if channel in FACTS],
            watch=lambda _: self._watch(),
            on_live=lambda: self._count("lives"),
            on_stuck=lambda: self._count("stuck"),
        )

    def _encode(self, encode):
        return lambda folded: encode(folded) + self.padding.encode() + b"\n"

    def _watch(self):
        assert not self.watched, "watched twice"
        self.watched = True

    def _count(self, name):
        setattr(self, name, getattr(self, name) + 1)

    def fold(self, *events):
        """Each event is broadcast by itself."""
        for event in events:
            self.house.fold(event)
            if self.outbox.is_live:
                ring = self.house.ring
                entry = ring._lanes[event.channel][-1]
                self.outbox.broadcast(ring.message(entry), dict(ring.head))

    def tick(self, after=0.01):
        """Time goes on."""
        self.now += after
        if self.watched:
            self.watched = self.outbox.tick(self.now)

    def live(self, move, size, n):
        """One random thing happens."""
        match move:
            case "task":
                self.fold(submitted(n))
            case "note":
                self.fold(noted(n))
            case "reply":
                self.outbox.send(b'{"type":"reply","n":%d}\n' % self.replies)
                self.replies += 1
            case "sample" if not self.outbox.is_live:
                self.outbox.offer(("metrics", ""), b'{"type":"m"}\n')
            case "flow":
                self.pipe.flow(size)
            case "tick":
                self.tick()
            case "restart":
                self.outbox.restart()
            case "rewind" if self.outbox.is_live and not self.pipe.waiting:
                seq = max(0, self.house.head["system"] - size)
                self.outbox.rewind({"system": seq}, lambda _: b'{"type":"resumed"}\n')

    def drain(self):
        """The reader reads everything."""
        for _ in range(10_000):
            self.pipe.flow(1 << 20)
            self.tick()
            if not self.watched and not self.pipe.waiting:
                return
        raise AssertionError("it never ends")


def check(messages, *, rewinds=False) -> dict:
    """Facts are contiguous after each state (or told again from before); gives where they end."""
    place = dict.fromkeys(FACTS, 0)
    for message in messages:
        if message["type"] == "initial_state":
            place = {channel: message["data"]["seq"][channel] for channel in FACTS}
        elif "seq" in message:
            channel = {"task_update": "task", "system_event": "system"}[message["type"]]
            assert message["seq"] == place[channel] + 1 or (rewinds and message["seq"] <= place[channel])
            place[channel] = message["seq"]
    return place


def test_a_reader_that_keeps_up_is_written_to_directly():
    """Without a backlog frames are written as they come, and nobody watches."""
    desk = Desk(kernel=1 << 20)
    desk.fold(noted(1), noted(2))
    desk.outbox.send(b'{"type":"pong"}\n')
    assert desk.pipe.writes == 3
    assert [message["type"] for message in desk.pipe.lines()] == ["system_event"] * 2 + ["pong"]
    assert not desk.watched


def test_a_reader_that_lags_catches_up_in_order():
    """What it has not got is told from the ring, once each, when its transport has room again."""
    desk = Desk(padding=5_000)
    desk.fold(*[noted(n) for n in range(1, 101)])
    assert not desk.outbox.is_live
    desk.drain()
    assert desk.outbox.is_live
    assert check(desk.pipe.lines())["system"] == 100
    assert desk.lives == 1


def test_little_is_kept_for_a_reader_that_lags():
    """A transport is never given much more than it has room for, however much there is to tell."""
    desk = Desk(padding=5_000)
    desk.fold(*[noted(n) for n in range(1, 1000)])
    desk.tick()
    assert desk.pipe.most < ROOM_BYTES + CHUNK_BYTES + 10_000


def test_a_reader_that_was_forgotten_starts_again():
    """When the ring no longer holds its place it gets a fresh state, and the facts after it."""
    desk = Desk(padding=5_000, facts=5)
    desk.fold(*[noted(n) for n in range(1, 101)])
    desk.drain()
    messages = desk.pipe.lines()
    assert [message["type"] for message in messages].count("initial_state") == 1
    assert check(messages)["system"] == 100


def test_a_restart_is_a_fresh_state():
    """Told to start again, a live reader and a lagging one get the state before anything else."""
    for desk in (Desk(kernel=1 << 20), Desk(padding=50_000)):
        desk.fold(noted(1), noted(2))
        desk.outbox.restart()
        desk.fold(noted(3))
        desk.drain()
        assert "initial_state" in [message["type"] for message in desk.pipe.lines()]
        assert check(desk.pipe.lines())["system"] == 3


def test_replies_keep_their_order_while_lagging():
    """Replies wait behind what was sent before them, and come in their order."""
    desk = Desk(padding=50_000)
    desk.fold(noted(1))
    for n in range(3):
        desk.outbox.send(b'{"type":"reply","n":%d}\n' % n)
    desk.drain()
    replies = [message["n"] for message in desk.pipe.lines() if message["type"] == "reply"]
    assert replies == [0, 1, 2]


@pytest.mark.parametrize("padding", [0, 50_000, 100_000])
def test_a_rewind_tells_again_and_then_says_so(padding):
    """The facts after a place come again, then the word made of the place that was reached."""
    desk = Desk(kernel=1 << 20 if not padding else 0, padding=padding)
    desk.fold(noted(1), submitted(1), noted(2))
    desk.drain()
    desk.pipe.taken.clear()
    desk.outbox.rewind({"system": 1}, lambda place: json.dumps(place | {"type": "end"}).encode() + b"\n")
    desk.fold(noted(3))
    desk.drain()
    messages = desk.pipe.lines()
    end = next(message for message in messages if message["type"] == "end")
    told = [message["seq"] for message in messages if message["type"] == "system_event"]
    assert told == [2, 3]
    assert end["system"] == max(message.get("seq", 0) for message in messages[: messages.index(end)])


def test_samples_are_merged_while_lagging():
    """Of each key the last sample is kept, and sent when the facts have been; there are never too many."""
    desk = Desk(padding=50_000)
    desk.fold(noted(1), noted(2))
    for n in range(3):
        desk.outbox.offer(("progress", "a"), b'{"type":"a","n":%d}\n' % n)
    desk.outbox.offer(("metrics", ""), b'{"type":"m"}\n')
    desk.drain()
    assert [message["type"] for message in desk.pipe.lines()][-2:] == ["a", "m"]
    assert desk.pipe.lines()[-2]["n"] == 2
    for n in range(2 * MAX_SAMPLES):
        desk.outbox.offer(("progress", str(n)), b"{}\n")
    assert len(desk.outbox._samples) == MAX_SAMPLES


@pytest.mark.parametrize("padding", [100, 50_000])
def test_a_stuck_reader_is_aborted(padding):
    """Five seconds without a byte taken end the connection, also when there was little to write."""
    desk = Desk(padding=padding)
    desk.fold(noted(1))
    desk.tick()
    desk.tick(STUCK_S - 0.1)
    assert not desk.pipe.is_aborted
    desk.tick(0.2)
    assert desk.pipe.is_aborted
    assert desk.stuck == 1
    desk.outbox.send(b"x")
    desk.outbox.restart()
    assert desk.pipe.writes == 1


def test_a_slow_reader_is_not_stuck():
    """As long as something moves the connection lives, even while more is written than is read."""
    desk = Desk(padding=50_000)
    for n in range(1, 100):
        desk.fold(noted(n))
        desk.pipe.flow(100)
        desk.tick(STUCK_S - 1)
    assert not desk.pipe.is_aborted


MOVES = st.one_of(
    st.tuples(st.sampled_from(["task", "note", "reply", "sample", "tick", "restart"]), st.just(0)),
    st.tuples(st.just("flow"), st.integers(1, 200_000)),
    st.tuples(st.just("rewind"), st.integers(0, 5)),
)


@settings(max_examples=200, deadline=None)
@given(
    moves=st.lists(MOVES, max_size=60),
    facts=st.sampled_from([3, 1000]),
    padding=st.sampled_from([0, 8_000, 40_000]),
)
def test_whatever_happens_the_reader_can_follow(moves, facts, padding):
    """Under any flow a reader sees each fact in order, or a fresh state; every reply comes once, in order."""
    desk = Desk(facts=facts, padding=padding)
    for n, (move, size) in enumerate(moves, 1):
        desk.live(move, size, n)
    desk.drain()
    messages = desk.pipe.lines()
    assert check(messages, rewinds=True) == {channel: desk.house.head[channel] for channel in FACTS}
    replies = [message["n"] for message in messages if message["type"] == "reply"]
    assert replies == list(range(desk.replies))
