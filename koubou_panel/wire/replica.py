"""A copy of the workshop's state in another process, kept by the same `evolve`. Sans-I/O."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec.structs import replace

from koubou_panel.core.events import Sample
from koubou_panel.core.fold import Folded, Snapshot, State, evolve
from koubou_panel.errors import CorruptStream
from koubou_panel.wire.link import Facts, More, Reset

PIECE_TASKS = 2_000


def pieces(snapshot: Snapshot) -> Iterator[Reset | More]:
    """`snapshot` in frames of at most `PIECE_TASKS` tasks, so that none takes long to encode."""
    tasks = snapshot.tasks
    yield Reset(replace(snapshot, tasks=tasks[:PIECE_TASKS]), len(tasks) > PIECE_TASKS)
    for at in range(PIECE_TASKS, len(tasks), PIECE_TASKS):
        yield More(tasks[at : at + PIECE_TASKS], at + PIECE_TASKS < len(tasks))


class Replica:
    """The state, and how it follows. While a new one comes in pieces, `state` is still the old one."""

    def __init__(self) -> None:
        """An empty state, of no epoch."""
        self.state = State("")
        self._coming: State | None = None

    def reset(self, message: Reset | More) -> bool:
        """Take in a piece of a new state; True once it is whole and in force.

        Raises:
            CorruptStream: a piece that continues nothing.
        """
        if isinstance(message, Reset):
            self._coming = State.from_snapshot(message.snapshot)
        elif self._coming is None:
            raise CorruptStream("a piece of a snapshot came without its beginning")
        else:
            self._coming.tasks.update((task.task_id, task) for task in message.tasks)
        if message.more:
            return False
        self.state, self._coming = self._coming, None
        return True

    def fold(self, message: Facts) -> list[Folded]:
        """Fold what is new; the snapshot may have contained facts that were still to be sent.

        Raises:
            CorruptStream: a fact is missing, or cannot follow: connect anew.
        """
        if len(message.facts) != len(message.seqs):
            raise CorruptStream("facts and their places do not match")
        state = self.state
        news: list[Folded] = []
        for fact, seq in zip(message.facts, message.seqs, strict=True):
            have = state.seq[fact.channel]
            if seq <= have:
                continue
            if seq != have + 1:
                raise CorruptStream(f"after fact {have} of channel {fact.channel} came {seq}", seq=seq)
            folded = evolve(state, fact)
            if folded is not None:
                news.append(folded)
        return news

    def fold_samples(self, samples: Sequence[Sample]) -> None:
        """Fold samples; late ones are dropped by `evolve`."""
        for sample in samples:
            evolve(self.state, sample)
