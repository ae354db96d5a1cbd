"""The ring holds the last facts of each channel, in order, within bounds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from msgspec import msgpack

from koubou_panel.core.events import Event, TaskCompleted, TaskFailed
from koubou_panel.core.fold import evolve
from koubou_panel.core.records import TaskId
from koubou_panel.core.state import State
from koubou_panel.wire.messages import message_of
from koubou_panel.wire.ring import Ring
from tests.wire.pair import NOW, noted, ran, started, submitted


def ring_of(state: State, **bounds) -> Ring:
    """An empty ring at a state's place."""
    ring = Ring(lambda folded: message_of(folded)[1], **bounds)
    ring.reset(state.epoch, state.seq)
    return ring


def drain(ring: Ring, place: dict) -> list[tuple[str, int]]:
    """Everything after `place`."""
    told = []
    while (entry := ring.after(place)) is not None:
        place[entry.channel] = entry.seq
        told.append((entry.channel, entry.seq))
    return told


MOVES = {"task": submitted, "system": noted, "script": ran}


@given(st.lists(st.sampled_from(list(MOVES)), max_size=60), st.data())
def test_what_is_after_a_place_comes_in_order(moves, data):
    """From any place held, the facts of the channels asked for come once each, in the order they happened."""
    state = State("one")
    ring = ring_of(state, facts=1000)
    happened = []
    for n, move in enumerate(moves, 1):
        folded = evolve(state, MOVES[move](n))
        ring.add(folded)
        happened.append((move, folded.seq))
    place = {channel: data.draw(st.integers(0, state.seq[channel])) for channel in MOVES}
    assert ring.holds(place)
    expected = [(channel, seq) for channel, seq in happened if seq > place[channel]]
    assert drain(ring, dict(place)) == expected
    one = {"task": place["task"]}
    assert drain(ring, one) == [item for item in expected if item[0] == "task"]


def test_old_facts_are_forgotten_by_number_and_size():
    """A channel keeps so many facts and bytes; a place before them is not held, one at the edge is."""
    state = State("one")
    few, small = ring_of(state, facts=3), ring_of(state, size_bytes=2500)
    for n in range(1, 11):
        folded = evolve(state, noted(n))
        few.add(folded)
        small.add(folded)
    assert [few.holds({"system": seq}) for seq in (6, 7, 10, 11)] == [False, True, True, False]
    assert drain(few, {"system": 7}) == [("system", 8), ("system", 9), ("system", 10)]
    assert small.holds({"system": 8})
    assert not small.holds({"system": 1})


def test_a_busy_channel_leaves_the_others_alone():
    """Bounds are by channel: many tasks do not push the notes out."""
    state = State("one")
    ring = ring_of(state, facts=3)
    ring.add(evolve(state, noted(1)))
    for n in range(1, 50):
        ring.add(evolve(state, submitted(n)))
    assert ring.holds({"system": 0})


def test_reset_forgets_unless_nothing_changed():
    """A new epoch, or a place further on, empties the ring; the same place again does not."""
    state = State("one")
    ring = ring_of(state)
    ring.add(evolve(state, noted(1)))
    assert not ring.reset("one", state.seq)
    assert ring.holds({"system": 0})
    assert ring.reset("two", state.seq)
    assert [ring.holds({"system": seq}) for seq in (0, 1)] == [False, True]


def test_facts_that_a_reset_already_counted_are_left_out():
    """A fact at or before the place of a reset is not told again."""
    state = State("one")
    first, second = evolve(state, noted(1)), evolve(state, noted(2))
    ring = ring_of(state)
    assert ring.add(first) is None
    assert ring.add(second) is None
    assert ring.add(evolve(state, noted(3))).seq == 3


def test_a_hole_is_not_papered_over():
    """If facts are missing, what was before them is no longer held."""
    state = State("one")
    ring = ring_of(state)
    folded = [evolve(state, noted(n)) for n in range(1, 6)]
    for item in (folded[0], folded[1], folded[4]):
        ring.add(item)
    assert not ring.holds({"system": 1})
    assert ring.holds({"system": 4})


def test_each_message_is_made_once():
    """However often it is asked for, a fact is encoded once."""
    state = State("one")
    made = []
    ring = Ring(lambda folded: made.append(folded.seq) or b"x")
    ring.reset("one", state.seq)
    entry = ring.add(evolve(state, noted(1)))
    assert ring.message(entry) == ring.message(entry) == b"x"
    assert made == [1]


def test_what_no_message_has_is_not_held():
    """However large calls, results and specs are, the ring holds messages' worth, and tells the same."""
    state, small = State("one"), State("one")
    ring, other = ring_of(state), ring_of(small)

    def live(size: int) -> list[Event]:
        """The life of three tasks."""
        call = submitted(1, kind="function", payload=b"p" * size)
        command = submitted(2, spec={"command": ["x" * size]})
        return [
            *(call, started(1), TaskCompleted(NOW, TaskId("task-1"), 1, value=b"v" * size)),
            *(command, started(2), TaskCompleted(NOW, TaskId("task-2"), 1)),
            *(submitted(3), started(3)),
            TaskFailed(NOW, TaskId("task-3"), 1, "error", "no", value=b"v" * size),
        ]

    entries = [ring.add(evolve(state, event)) for event in live(1 << 20)]
    assert sum(len(msgpack.encode((e.folded.fact, e.folded.record))) for e in entries) < 10_000
    others = [other.add(evolve(small, event)) for event in live(1)]
    assert [ring.message(e) for e in entries] == [other.message(e) for e in others]
    assert state.tasks["task-2"].request.spec  # the state is another's


def test_a_few_opaque_bytes_are_counted():
    """What is too little to be taken out counts against the bound."""
    state = State("one")
    ring = ring_of(state)
    bare = ring.add(evolve(state, submitted(1)))
    with_call = ring.add(evolve(state, submitted(2, payload=b"p" * 500)))
    assert with_call.size == bare.size + 500
