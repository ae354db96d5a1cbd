"""The state of the workshop: plain records in mutable maps, changed by `core.fold` alone; and a copy for a replica."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from koubou_panel.core.events import (
    Fact,
    SystemNoted,
)
from koubou_panel.core.records import (
    FACT_CHANNELS,
    STATUSES,
    Channel,
    Metrics,
    Pool,
    Service,
    Status,
    Task,
    TaskId,
    Worker,
    WorkerId,
)
from koubou_panel.core.script import Entry

KEEP_FINISHED = 2_000
KEEP_NOTES = 200
#: What tells of a crash: the last such note stays, whatever comes after it.
CRASHES = frozenset({"recovered", "storage_recovered"})
KEEP_METRICS = 900


class Folded(NamedTuple):
    """A fact after it was folded: its place in its channel and the record as it then stood (None for notes)."""

    fact: Fact
    seq: int
    record: Task | Worker | Entry | None


class Snapshot(Struct, frozen=True, kw_only=True):
    """The whole state at one moment, to start a replica from."""

    epoch: str
    seq: dict[Channel, int]
    counts: dict[Status, int]
    order: int
    pool: Pool
    tasks: list[Task]
    finished: list[TaskId]
    workers: list[Worker]
    worker_totals: tuple[int, int]
    notes: list[SystemNoted]
    metrics: list[Metrics]
    scripts: list[Entry] = []
    services: list[Service] = []
    executions: int = 0


class State:
    """The workshop as it stands. Loop thread only.

    `tasks` holds every task that is not finished and the last `KEEP_FINISHED` that are (the archive has the
    rest); `counts` counts all there ever were; `order` is the last place given in the order of submission;
    `worker_totals` is (completed, failed) over all workers, dead ones too; `executions` counts the runs of scripts
    that have ended.
    """

    __slots__ = (
        "counts",
        "epoch",
        "executions",
        "finished",
        "metrics",
        "notes",
        "order",
        "pool",
        "scripts",
        "seq",
        "services",
        "tasks",
        "worker_totals",
        "workers",
    )

    def __init__(self, epoch: str) -> None:
        """An empty workshop of run `epoch`."""
        self.epoch = epoch
        self.seq: dict[Channel, int] = dict.fromkeys(FACT_CHANNELS, 0)
        self.counts: dict[Status, int] = dict.fromkeys(STATUSES, 0)
        self.order = 0
        self.pool = Pool()
        self.tasks: dict[TaskId, Task] = {}
        self.finished: deque[TaskId] = deque()
        self.workers: dict[WorkerId, Worker] = {}
        self.worker_totals = (0, 0)
        self.notes: deque[SystemNoted] = deque(maxlen=KEEP_NOTES)
        self.metrics: deque[Metrics] = deque(maxlen=KEEP_METRICS)
        self.scripts: dict[str, Entry] = {}
        self.services: dict[str, Service] = {}
        self.executions = 0

    def snapshot(self, *, metrics: int = KEEP_METRICS) -> Snapshot:
        """A copy to start a replica from, payloads left out, with the last `metrics` samples."""
        return Snapshot(
            epoch=self.epoch,
            seq=dict(self.seq),
            counts=dict(self.counts),
            order=self.order,
            pool=self.pool,
            tasks=[without_payload(task) for task in self.tasks.values()],
            finished=list(self.finished),
            workers=list(self.workers.values()),
            worker_totals=self.worker_totals,
            notes=list(self.notes),
            metrics=list(self.metrics)[-metrics:] if metrics else [],
            scripts=list(self.scripts.values()),
            services=list(self.services.values()),
            executions=self.executions,
        )

    @classmethod
    def from_snapshot(cls, snapshot: Snapshot) -> State:
        """The state that `snapshot` was taken from."""
        state = cls(snapshot.epoch)
        state.seq.update(snapshot.seq)
        state.counts.update(snapshot.counts)
        state.order = snapshot.order
        state.pool = snapshot.pool
        state.tasks = {task.task_id: task for task in snapshot.tasks}
        state.finished = deque(snapshot.finished)
        state.workers = {worker.worker_id: worker for worker in snapshot.workers}
        state.worker_totals = snapshot.worker_totals
        state.notes.extend(snapshot.notes)
        state.metrics.extend(snapshot.metrics)
        state.scripts = {entry.script.name: entry for entry in snapshot.scripts}
        state.services = {service.name: service for service in snapshot.services}
        state.executions = snapshot.executions
        return state


def without_payload(task: Task) -> Task:
    """`task` without the opaque bytes of its request, which nobody but a worker needs."""
    if not task.request.payload:
        return task
    return replace(task, request=replace(task.request, payload=b""))
