"""The two halves of the public protocol back to back, in memory: a house that folds events, and lines into it."""

from __future__ import annotations

import json

from koubou_panel.core.events import (
    SAMPLES,
    ScheduleFired,
    ScriptRan,
    ScriptSaved,
    SystemNoted,
    TaskStarted,
    TaskSubmitted,
    WorkerStarted,
)
from koubou_panel.core.fold import evolve
from koubou_panel.core.records import Request, TaskId, WorkerId
from koubou_panel.core.script import Script
from koubou_panel.core.state import State
from koubou_panel.wire.effects import Call, Close, Follow, Rewind, Send, Unfollow
from koubou_panel.wire.messages import initial_state, message_of, message_of_sample
from koubou_panel.wire.ring import Ring
from koubou_panel.wire.session import Limits, Session, fact_channels

WORKER = WorkerId("worker-1")
NOW = 1_700_000_000.0


def submitted(n: int, **fields) -> TaskSubmitted:
    """Task n comes in."""
    request = {"task_id": TaskId(f"task-{n}"), "kind": "script", "created_at": NOW} | fields
    return TaskSubmitted(NOW, Request(**request), n)


def started(n: int, run: int = 1) -> TaskStarted:
    """Task n starts."""
    return TaskStarted(NOW + 1, TaskId(f"task-{n}"), run, WORKER, "here", n)


def noted(n: int) -> SystemNoted:
    """A note, in the channel `system`."""
    return SystemNoted(NOW, "note", f"number {n}", {"n": n})


def saved(n: int, **fields) -> ScriptSaved:
    """The script `backup` is added, or changed for the n-th time."""
    return ScriptSaved(NOW, Script(name="backup", path="/backup.sh", **fields), n, NOW)


def ran(n: int, status: str = "starting") -> ScriptRan:
    """A run of `backup` begins or ends, though nobody added it."""
    return ScriptRan(NOW, "backup", TaskId(f"run-{n}"), status, is_final=status in ("completed", "failed"))


def fired(n: int) -> ScheduleFired:
    """The schedule of `backup` was due for the n-th time."""
    return ScheduleFired(NOW, "backup", NOW + n, None)


class House:
    """The workshop's side: a state, the ring, and every line into it. It is the sessions' `View`."""

    def __init__(self, *, epoch: str = "one", facts: int = 1000) -> None:
        self.state = State(epoch)
        self.ring = Ring(lambda folded: message_of(folded)[1], facts=facts)
        self.ring.reset(epoch, self.state.seq)
        self.lines: list[Line] = []
        self.ids = 0

    @property
    def head(self):
        return self.ring.head

    def holds(self, epoch, place):
        return epoch == self.ring.epoch and self.ring.holds(place)

    def initial_state(self, id=None):
        return initial_state(self.state, self.ring.head, NOW, id=id)

    def connections(self):
        return len(self.lines)

    def utc(self):
        return NOW

    def next_id(self):
        self.ids += 1
        return TaskId(f"new-{self.ids}")

    def fold(self, *events) -> None:
        for event in events:
            folded = evolve(self.state, event)
            if type(event) in SAMPLES:
                channel, _, body = message_of_sample(event, self.state)
            else:
                entry = self.ring.add(folded)
                channel, body = entry.channel, self.ring.message(entry)
            for line in self.lines:
                if line.session.role is not None and channel in line.session.channels:
                    line.out.append(body)

    def restart(self, epoch: str) -> None:
        """A new run of the workshop, with the work of the old one: every line is cut."""
        for line in tuple(self.lines):
            line.cut()
        self.state = State(epoch)
        evolve(self.state, WorkerStarted(NOW, WORKER, "here"))
        self.ring.reset(epoch, self.state.seq)


class Line:
    """One connection: the house's session on one side, what the client will read on the other."""

    def __init__(self, house: House, *, role="full", token="secret", channels=(), limits=None) -> None:
        self.house = house
        self.now = 0.0
        self.out: list[bytes] = []
        self.calls: list[Call] = []
        self.followed: list[Follow | Unfollow] = []
        self.closed: Close | None = None
        roles = {token: "full", "reader": "read"}
        self.session = Session(
            house,
            role=role,
            verify=roles.get,
            now=0.0,
            channels=frozenset(channels),
            limits=limits or Limits(),
        )
        house.lines.append(self)
        self.carry_out(self.session.open())

    def cut(self) -> None:
        if self in self.house.lines:
            self.house.lines.remove(self)

    def say(self, body: object) -> None:
        """The client sends this, as JSON unless it is text already."""
        text = body if isinstance(body, str) else json.dumps(body)
        for begun in self.session.receive(text, self.now):
            if isinstance(begun, Call):
                self.calls.append(begun)
            else:
                self.carry_out([begun])
        self.advance()

    def answer(self, answer: object, place: int = 0) -> None:
        """The shop answers a question."""
        self.session.settle(self.calls.pop(place).call, answer)
        self.advance()

    def advance(self) -> None:
        while (effects := self.session.advance()) is not None:
            self.carry_out(effects)

    def carry_out(self, effects) -> None:
        for effect in effects:
            match effect:
                case Send(message):
                    self.out.append(message)
                case Rewind(since, then):
                    self._rewind(since, then)
                case Close():
                    self.closed = effect
                    self.cut()
                case _:
                    self.followed.append(effect)

    def _rewind(self, since, then) -> None:
        place = {channel: self.house.head[channel] for channel in fact_channels(self.session.channels)}
        place |= since
        while (entry := self.house.ring.after(place)) is not None:
            place[entry.channel] = entry.seq
            self.out.append(self.house.ring.message(entry))
        self.out.append(then(place))

    def read(self) -> list[dict]:
        """Everything the client has not read yet."""
        read, self.out = [json.loads(body) for body in self.out], []
        return read

    def reply(self, body: object) -> dict:
        """What the client gets for this."""
        self.read()
        self.say(body)
        (message,) = self.read()
        return message
