"""Both halves back to back: whatever is cut and dropped, the reader's stream is whole or begins again."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from koubou_panel.core.events import MetricsSampled
from koubou_panel.core.records import Metrics
from koubou_panel.errors import ProtocolFault
from koubou_panel.wire.client import CHANNEL_OF, Follower
from tests.wire.pair import NOW, House, Line, fired, noted, ran, saved, started, submitted

MOVES = [
    *["task", "task", "note", "note", "script", "run", "sample"],
    *["read", "read", "cut", "lose", "restart", "forget"],
]
CHANNELS = ("task", "system", "script")


class Reader:
    """A client half on a line to a house: what it was told, as its user sees it."""

    def __init__(self, house: House, channels=CHANNELS, *, door=()) -> None:
        self.house = house
        self.door = door
        self.follower = Follower(channels)
        self.told: list[dict] = []
        self.line: Line | None = None

    def connect(self) -> None:
        self.line = Line(self.house, channels=self.door)
        for text in self.follower.connected():
            self.line.say(text)

    def cut(self) -> None:
        """The line ends; what was on the way is lost."""
        if self.line is not None:
            self.line.cut()
            self.line = None
            self.follower.disconnected(0.5)

    def stay(self) -> None:
        """Connect if there is no line, or the house has cut it."""
        if self.line is None or self.line not in self.house.lines:
            self.cut()
            self.connect()

    def read(self, most: int = 10_000) -> None:
        """Take in up to `most` messages, and say what follows from them."""
        while self.line is not None and self.line.out and most:
            most -= 1
            received = self.follower.receive(self.line.out.pop(0))
            self.told += received.messages
            for text in received.send:
                self.line.say(text)


def live(house: House, reader: Reader, move: str, n: int) -> None:
    """One random thing happens."""
    match move:
        case "task":
            house.fold(submitted(n))
        case "note":
            house.fold(noted(n))
        case "script":
            house.fold(saved(n))
        case "run":
            house.fold(ran(n, ("starting", "running", "completed", "failed")[n % 4]))
        case "sample":
            house.fold(MetricsSampled(NOW, Metrics(NOW, {"cpu_percent": 1.0})))
        case "read":
            reader.read(3)
        case "cut":
            reader.cut()
        case "lose":
            reader.line.out = [body for body in reader.line.out if b'"type":"system_metrics"' not in body]
        case "restart":
            house.restart(f"epoch {n}")
        case "forget":
            house.fold(*[noted(n) for _ in range(3)])


def check(told: list[dict], channels=CHANNELS) -> dict:
    """Follow a stream as its user would, and give where it ends: facts are contiguous after each state."""
    place: dict = {}
    for message in told:
        channel = CHANNEL_OF.get(message["type"])
        if message["type"] == "initial_state":
            place = {channel: message["data"]["seq"][channel] for channel in channels}
        elif channel is not None:
            assert channel in channels
            assert message["seq"] == place[channel] + 1, "a fact is missing, or came twice"
            place[channel] = message["seq"]
    return place


@settings(max_examples=300, deadline=None)
@given(
    moves=st.lists(st.sampled_from(MOVES), max_size=80),
    door=st.sampled_from([(), ("system", "script")]),
    facts=st.sampled_from([2, 1000]),
)
def test_each_fact_is_seen_once_and_in_order(moves, door, facts):
    """Under random cuts, losses, restarts and a short memory a reader sees every fact once or starts again."""
    house = House(facts=facts)
    reader = Reader(house, door=door)
    for n, move in enumerate([*moves, "read"], 1):
        reader.stay()
        live(house, reader, move, n)
    reader.stay()
    for _ in range(5):
        reader.read()
    assert reader.follower.is_live
    assert check(reader.told) == {channel: house.head[channel] for channel in CHANNELS}
    assert reader.follower.epoch == house.state.epoch


def test_a_cut_is_not_seen():
    """After a cut within an epoch the stream goes on where it was: no second state, nothing missing."""
    house = House()
    reader = Reader(house)
    reader.connect()
    reader.read()
    house.fold(submitted(1), noted(1))
    reader.read()
    reader.cut()
    house.fold(started(1), noted(2))
    reader.connect()
    reader.read()
    house.fold(noted(3))
    reader.read()
    kinds = [message["type"] for message in reader.told if message["type"] != "subscribed"]
    assert kinds == [
        "initial_state",
        "task_update",
        "system_event",
        "task_update",
        "system_event",
        "system_event",
    ]


def test_a_new_epoch_is_a_new_state():
    """After a restart the reader gets the new state and the facts after it."""
    house = House()
    reader = Reader(house)
    reader.connect()
    reader.read()
    house.fold(noted(1))
    reader.read()
    house.restart("two")
    reader.cut()
    reader.connect()
    reader.read()
    house.fold(noted(2))
    reader.read()
    states = [message["data"]["epoch"] for message in reader.told if message["type"] == "initial_state"]
    assert states == ["one", "two"]
    assert check(reader.told)["system"] == 1


def test_the_script_channel_has_no_gap():
    """What is changed, fired and run of a script is one row of `seq`, also over a cut."""
    house = House()
    reader = Reader(house, ("script",), door=("system", "script"))
    reader.connect()
    reader.read()
    house.fold(saved(1), ran(1), fired(1))
    reader.read()
    reader.cut()
    house.fold(ran(1, "running"), saved(2))
    reader.connect()
    house.fold(ran(1, "completed"))
    reader.read()
    facts = [message for message in reader.told if message["type"] in CHANNEL_OF]
    assert [message["seq"] for message in facts] == [1, 2, 3, 4, 5, 6]
    kinds = ["update", "status", "update", "status", "update", "status"]
    assert [message["type"] for message in facts] == [f"script_{kind}" for kind in kinds]


def test_a_gap_asks_again():
    """A fact that is missing on a living connection is asked for, and nothing after it is shown before it."""
    house = House()
    reader = Reader(house)
    reader.connect()
    reader.read()
    house.fold(noted(1), noted(2), noted(3))
    del reader.line.out[0]
    reader.read()
    assert check(reader.told)["system"] == 3


def test_only_the_channels_asked_for_are_shown():
    """A door that subscribes more than was asked for does not show in the stream."""
    house = House()
    reader = Reader(house, ("task",), door=("system", "script"))
    reader.connect()
    house.fold(noted(1), submitted(1))
    reader.read()
    assert check(reader.told, ("task",)) == {"task": 1}


def test_output_goes_on_at_the_byte_where_it_was():
    """After a cut the output is followed from the last byte that was read."""
    follower = Follower((), outputs=["task-1"])
    assert follower.connected() == []
    state = {"type": "initial_state", "data": {"epoch": "one", "seq": {}}}
    first = follower.receive(json.dumps(state))
    assert json.loads(first.send[0]) == {
        "command": "subscribe",
        "channel": "output",
        "task_id": "task-1",
    }
    piece = {"type": "output", "task_id": "task-1", "data": {"text": "ab", "offset": 0, "end": 2}}
    assert follower.receive(json.dumps(piece)).messages == [piece]
    follower.disconnected(0.0)
    follower.connected()
    again = [json.loads(text) for text in follower.receive(json.dumps(state)).send]
    assert again[1]["since"] == 2


def test_waiting_doubles_up_to_fifteen_seconds():
    """The wait is 0.2 s doubling to 15 s, less up to half of it by chance, and short again once connected."""
    follower = Follower()
    waits = [follower.disconnected(0.0) for _ in range(9)]
    assert waits == pytest.approx([0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 15.0, 15.0])
    chance = random.Random(1)
    assert all(7.5 <= follower.disconnected(chance.random()) <= 15.0 for _ in range(100))
    follower.connected()
    follower.receive(json.dumps({"type": "initial_state", "data": {"epoch": "one", "seq": {}}}))
    assert follower.disconnected(0.0) == pytest.approx(0.2)


def test_a_token_is_the_first_frame():
    """With a token it says who it is before anything else, and keeps what it is told when that is refused."""
    follower = Follower(token="t")
    assert [json.loads(text) for text in follower.connected()] == [{"command": "auth", "token": "t"}]
    follower.receive(json.dumps({"type": "error", "data": {"code": "unauthorized", "message": "no"}}))
    assert follower.refusal == "no"


@pytest.mark.parametrize("text", ["", "[]", "nonsense", b"\xff"])
def test_another_protocol_is_a_fault(text):
    """What is not of this protocol is said to be so."""
    with pytest.raises(ProtocolFault, match="no Koubou workshop"):
        Follower().receive(text)
