"""What happened, in the past tense. A FACT is durable, ordered and never dropped; a SAMPLE may be merged or lost.

Every event carries `at`, the UTC second at which it was decided. Each fact belongs to one channel.
"""

from __future__ import annotations

from typing import ClassVar

from msgspec import Struct

from koubou_panel.core.records import (
    Channel,
    Fault,
    Metrics,
    Pool,
    Progress,
    Reason,
    Request,
    StopCause,
    TaskId,
    Usage,
    Use,
    WorkerId,
    WorkerStatus,
)


class TaskSubmitted(Struct, frozen=True, tag=True, gc=False):
    """Emitted when a task is taken in; it is pending from here on, and starts when `waits_for` have succeeded."""

    channel: ClassVar[Channel] = "task"
    at: float
    request: Request
    order: int
    waits_for: tuple[TaskId, ...] = ()


class TaskReleased(Struct, frozen=True, tag=True, gc=False):
    """Emitted when every task that a pending one waits for has succeeded: it may start now."""

    channel: ClassVar[Channel] = "task"
    at: float
    task_id: TaskId


class TaskStarted(Struct, frozen=True, tag=True, gc=False):
    """Emitted when a pending task is claimed for a worker, before the worker is given it."""

    channel: ClassVar[Channel] = "task"
    at: float
    task_id: TaskId
    run: int
    worker_id: WorkerId
    node: str
    claim: int


class TaskReturned(Struct, frozen=True, tag=True, gc=False):
    """Emitted when a claimed run is given back although it never began; no attempt is used up."""

    channel: ClassVar[Channel] = "task"
    at: float
    task_id: TaskId
    run: int


class TaskRetried(Struct, frozen=True, tag=True, gc=False):
    """Emitted when a run failed and the same task will run again, not before `not_before`."""

    channel: ClassVar[Channel] = "task"
    at: float
    task_id: TaskId
    run: int
    reason: Reason
    message: str
    not_before: float
    crashed: bool = False
    counts: bool = True
    error: Fault | None = None


class TaskCompleted(Struct, frozen=True, tag=True, gc=False):
    """Emitted when a run succeeded. `value` is for the submitter and never leaves on the public wire."""

    channel: ClassVar[Channel] = "task"
    at: float
    task_id: TaskId
    run: int
    exit_code: int | None = None
    result: str | None = None
    value: bytes = b""
    usage: Usage = Usage()


class TaskFailed(Struct, frozen=True, tag=True, gc=False):
    """Emitted when a task failed for good; `message` is the reason in words."""

    channel: ClassVar[Channel] = "task"
    at: float
    task_id: TaskId
    run: int
    reason: Reason
    message: str
    exit_code: int | None = None
    value: bytes = b""
    error: Fault | None = None
    usage: Usage = Usage()


class StopRequested(Struct, frozen=True, tag=True, gc=False):
    """Emitted when a running task is to be ended: by a person, its time-out, a limit it reached, or a shutdown."""

    channel: ClassVar[Channel] = "task"
    at: float
    task_id: TaskId
    run: int
    cause: StopCause
    by: str = ""


class TaskCancelled(Struct, frozen=True, tag=True, gc=False):
    """Emitted when a task ended because it was asked to, whether it had started or not."""

    channel: ClassVar[Channel] = "task"
    at: float
    task_id: TaskId
    run: int
    reason: Reason
    message: str
    usage: Usage = Usage()


class WorkerStarted(Struct, frozen=True, tag=True, gc=False):
    """Emitted when a worker process is about to be started."""

    channel: ClassVar[Channel] = "worker"
    at: float
    worker_id: WorkerId
    node: str


class WorkerChanged(Struct, frozen=True, tag=True, gc=False):
    """Emitted when a worker's status or its current task changed; `pid` once it is known."""

    channel: ClassVar[Channel] = "worker"
    at: float
    worker_id: WorkerId
    status: WorkerStatus
    current_task: TaskId | None = None
    pid: int | None = None


class WorkerRetired(Struct, frozen=True, tag=True, gc=False):
    """Emitted when a worker is to end: after what it runs, or (`at_once`) with it."""

    channel: ClassVar[Channel] = "worker"
    at: float
    worker_id: WorkerId
    by: str = ""
    at_once: bool = False


class WorkerStopped(Struct, frozen=True, tag=True, gc=False):
    """Emitted when a worker process is gone; `message` says why."""

    channel: ClassVar[Channel] = "worker"
    at: float
    worker_id: WorkerId
    message: str


class PoolChanged(Struct, frozen=True, tag=True, gc=False):
    """Emitted when the wanted number of workers, or whether work may start, changed."""

    channel: ClassVar[Channel] = "system"
    at: float
    pool: Pool
    by: str = ""


class SystemNoted(Struct, frozen=True, tag=True, gc=False):
    """Emitted when something about the workshop itself is worth telling: start, recovery, a service's end."""

    channel: ClassVar[Channel] = "system"
    at: float
    event: str
    details: str
    data: dict[str, object] = {}


class TaskProgressed(Struct, frozen=True, tag=True, gc=False):
    """A sample of how far a run is."""

    at: float
    task_id: TaskId
    run: int
    progress: Progress


class OutputGrew(Struct, frozen=True, tag=True, gc=False):
    """A sample of the size of a run's output log, in bytes."""

    at: float
    task_id: TaskId
    run: int
    size: int


class TasksSampled(Struct, frozen=True, tag=True, gc=False):
    """A sample of what each running task's process tree uses: (task, run, use)."""

    at: float
    uses: list[tuple[TaskId, int, Use]]


class WorkerSampled(Struct, frozen=True, tag=True, gc=False):
    """A sample of what a worker's process tree uses: percent of one core, resident bytes."""

    at: float
    worker_id: WorkerId
    cpu_percent: float
    rss_bytes: int


class MetricsSampled(Struct, frozen=True, tag=True, gc=False):
    """A sample of the host."""

    at: float
    metrics: Metrics


TaskFact = (
    TaskSubmitted
    | TaskReleased
    | TaskStarted
    | TaskReturned
    | TaskRetried
    | TaskCompleted
    | TaskFailed
    | StopRequested
    | TaskCancelled
)
WorkerFact = WorkerStarted | WorkerChanged | WorkerRetired | WorkerStopped
SystemFact = PoolChanged | SystemNoted
Fact = TaskFact | WorkerFact | SystemFact
Sample = TaskProgressed | OutputGrew | TasksSampled | WorkerSampled | MetricsSampled
Event = Fact | Sample

TASK_FACTS: tuple[type[TaskFact], ...] = TaskFact.__args__
FACTS: tuple[type[Fact], ...] = Fact.__args__
SAMPLES: tuple[type[Sample], ...] = Sample.__args__
