"""A copy of the workshop's state in another process, kept by the same `evolve`. Sans-I/O."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from msgspec.structs import replace

from koubou_panel.core.codec import without_bytes
from koubou_panel.core.events import Sample, TaskCompleted, TaskFailed
from koubou_panel.core.fold import evolve
from koubou_panel.core.records import TaskId
from koubou_panel.core.state import Folded, Snapshot, State
from koubou_panel.errors import CorruptStream, ProtocolFault
from koubou_panel.wire.link import Facts, More, Reset, encode

PIECE_TASKS = 2_000
PIECE_SCRIPTS = 1_000


def state_frames(snapshot: Snapshot) -> Iterator[bytes]:
    """`snapshot` as frames of at most `PIECE_TASKS` tasks or `PIECE_SCRIPTS` scripts, each of which is soon encoded.

    Raises:
        ProtocolFault: code `too_large`: a single task or script does not fit into a frame.
    """
    tasks, scripts = snapshot.tasks, snapshot.scripts
    at, done = 0, 0
    size, count = PIECE_TASKS, PIECE_SCRIPTS
    is_first = True
    while is_first or at < len(tasks) or done < len(scripts):
        # Scripts come after the tasks, in frames of their own.
        part = tasks[at : at + size]
        some = [] if part else scripts[done : done + count]
        more = at + len(part) < len(tasks) or done + len(some) < len(scripts)
        message = (
            Reset(replace(snapshot, tasks=part, scripts=some), more) if is_first else More(part, more, some)
        )
        try:
            frame = encode(message)
        except ProtocolFault:
            if len(part) + len(some) <= 1:
                raise
            size, count = (len(part) // 2, count) if part else (size, len(some) // 2)
            continue
        yield frame
        is_first = False
        at, done = at + len(part), done + len(some)


def outline(state: State) -> Snapshot:
    """`state` without its tasks, and with its last metrics alone."""
    return Snapshot(
        epoch=state.epoch,
        seq=dict(state.seq),
        counts=dict(state.counts),
        order=state.order,
        pool=state.pool,
        tasks=[],
        finished=[],
        workers=list(state.workers.values()),
        worker_totals=state.worker_totals,
        notes=list(state.notes),
        metrics=list(state.metrics)[-1:],
        scripts=list(state.scripts.values()),
        services=list(state.services.values()),
        executions=state.executions,
    )


def fact_frames(folded: Sequence[Folded], valued: Collection[TaskId] = ()) -> Iterator[bytes]:
    """Facts as a frame; as several where they are too large for one. The ends of tasks of `valued` keep their values.

    Raises:
        ProtocolFault: code `too_large`: a single fact does not fit into a frame.
    """
    facts = [f.fact if _is_end_of(f, valued) else without_bytes(f.fact) for f in folded]
    try:
        yield encode(Facts(facts, [f.seq for f in folded]))
    except ProtocolFault:
        if len(folded) == 1:
            raise
        half = len(folded) // 2
        yield from fact_frames(folded[:half], valued)
        yield from fact_frames(folded[half:], valued)


def _is_end_of(folded: Folded, tasks: Collection[TaskId]) -> bool:
    fact = folded.fact
    return bool(tasks) and isinstance(fact, TaskCompleted | TaskFailed) and fact.task_id in tasks


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
            self._coming.scripts.update((entry.name, entry) for entry in message.scripts)
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
