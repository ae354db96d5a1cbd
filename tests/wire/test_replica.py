"""A replica becomes and stays what the workshop's state is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koubou_panel.core.events import (
    OutputGrew,
    SystemNoted,
    TaskCompleted,
    TaskStarted,
    TaskSubmitted,
    WorkerStarted,
)
from koubou_panel.core.fold import evolve
from koubou_panel.core.records import Request, TaskId, WorkerId
from koubou_panel.core.script import Entry, Script
from koubou_panel.core.state import Folded, State
from koubou_panel.errors import CorruptStream, ProtocolFault
from koubou_panel.wire import link
from koubou_panel.wire.link import Facts, More, Reset
from koubou_panel.wire.replica import PIECE_SCRIPTS, PIECE_TASKS, Replica, fact_frames, state_frames

WORKER = WorkerId("w1")


def _submitted(n: int) -> TaskSubmitted:
    return TaskSubmitted(1.0, Request(task_id=TaskId(f"t{n}"), kind="script", created_at=1.0), n)


def _received(frames):
    half = link.ClientHalf()
    welcome = link.encode(link.Welcome(1, "e", 1, "3.11"))
    return [message for frame in (welcome, *frames) for message in half.receive(frame)][1:]


def _life(n: int):
    task_id = TaskId(f"t{n}")
    return [
        _submitted(n),
        TaskStarted(2.0, task_id, 1, WORKER, "local", n),
        OutputGrew(2.5, task_id, 1, 10),
        TaskCompleted(3.0, task_id, 1, 0, "done"),
        SystemNoted(3.0, "note", f"{n}"),
    ]


@given(
    moves=st.lists(st.sampled_from(["fold", "release", "join", "sample"]), max_size=80),
    tasks=st.integers(1, 12),
)
def test_replica_converges_whenever_it_joins(moves: list[str], tasks: int) -> None:
    """Joined at any moment, also while facts are folded but not yet released, it ends equal to the state."""
    state, replica = State("e"), Replica()
    waiting: list[Folded] = []
    todo = [WorkerStarted(0.0, WORKER, "local"), *(event for n in range(1, tasks + 1) for event in _life(n))]
    for move in [*moves, "join", *["fold"] * len(todo), "release"]:
        if move == "fold" and todo:
            folded = evolve(state, todo.pop(0))
            waiting += [folded] if folded else []
        elif move == "join":
            assert all(replica.reset(piece) for piece in _received(state_frames(state.snapshot())))
        elif move == "release" and replica.state.epoch:
            for message in _received(fact_frames(waiting)):
                replica.fold(message)
            waiting.clear()
        elif move == "release":
            waiting.clear()
    assert replica.state.seq == state.seq
    assert replica.state.counts == state.counts
    assert list(replica.state.notes) == list(state.notes)
    assert {t.task_id: t.status for t in replica.state.tasks.values()} == {
        t.task_id: t.status for t in state.tasks.values()
    }


def test_large_state_comes_in_pieces_and_appears_whole() -> None:
    """A state of many tasks crosses in pieces; until the last one the old state stays."""
    state, replica = State("e"), Replica()
    for n in range(1, 2 * PIECE_TASKS + 2):
        evolve(state, _submitted(n))
    messages = _received(state_frames(state.snapshot()))
    assert [type(m) for m in messages] == [Reset, More, More]
    assert [replica.reset(m) for m in messages[:2]] == [False, False]
    assert replica.state.epoch == ""
    assert replica.reset(messages[2])
    assert replica.state.tasks == state.tasks


def test_what_is_too_large_for_a_frame_is_split(monkeypatch) -> None:
    """Facts and states that no frame can hold travel in several, and only a single one too large is refused."""
    monkeypatch.setattr(link, "MAX_FRAME_BYTES", 2_000)
    state, replica = State("e"), Replica()
    folded = [evolve(state, _submitted(n)) for n in range(1, 65)]
    frames = list(fact_frames(folded))
    assert len(frames) > 1
    assert sum(len(m.facts) for m in _received(frames)) == 64
    for piece in _received(state_frames(state.snapshot())):
        replica.reset(piece)
    assert replica.state.tasks == state.tasks
    monkeypatch.setattr(link, "MAX_FRAME_BYTES", 50)
    with pytest.raises(ProtocolFault):
        list(fact_frames(folded))
    with pytest.raises(ProtocolFault):
        list(state_frames(state.snapshot()))


def test_missing_fact_is_noticed() -> None:
    """A gap in a channel's places is a CorruptStream, not a guess."""
    replica = Replica()
    replica.reset(Reset(State("e").snapshot(), more=False))
    with pytest.raises(CorruptStream, match="came 2"):
        replica.fold(Facts([_submitted(2)], [2]))
    with pytest.raises(CorruptStream):
        replica.fold(Facts([_submitted(1)], []))


def test_piece_without_a_beginning_is_refused() -> None:
    """A later piece alone is no state."""
    with pytest.raises(CorruptStream):
        Replica().reset(More([], more=False))


def test_late_samples_are_dropped() -> None:
    """A sample about a task that the replica does not have changes nothing and breaks nothing."""
    replica = Replica()
    replica.fold_samples([OutputGrew(1.0, TaskId("gone"), 1, 5)])
    assert replica.state.tasks == {}


def test_many_scripts_come_in_pieces_after_the_tasks():
    """Small ones by number, large ones by size; the replica has them all."""
    state = State("e")
    for n in range(3 * PIECE_SCRIPTS):
        name, words = f"s{n}", "x" * (50_000 if n < 1_000 else 1)
        script = Script(name=name, path="/s.sh", description=words)
        state.scripts[name] = Entry(script=script, created_at=1.0, changed_at=1.0, anchor=1.0)
    evolve(state, _submitted(1))
    replica = Replica()
    pieces = [replica.reset(piece) for piece in _received(state_frames(state.snapshot()))]
    assert pieces.count(True) == 1
    assert pieces[-1]
    assert len(pieces) > 3
    assert replica.state.scripts == state.scripts
    assert replica.state.tasks == state.tasks
