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
    Service,
    StopCause,
    TaskId,
    Usage,
    Use,
    WorkerId,
    WorkerStatus,
)
from koubou_panel.core.script import RunStatus, Script


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


class ServiceChanged(Struct, frozen=True, tag=True, gc=False):
    """Emitted when one of the workshop's services started, ended, or was given up, as its supervisor says."""

    channel: ClassVar[Channel] = "system"
    at: float
    service: Service


class ScriptSaved(Struct, frozen=True, tag=True, gc=False):
    """Emitted when a script of the catalogue was added or changed.

    `next_at` is when its schedule is next due, `anchor` what its interval counts from, `fired_at` the last due time
    that was dealt with.
    """

    channel: ClassVar[Channel] = "script"
    at: float
    script: Script
    revision: int
    anchor: float
    next_at: float | None = None
    by: str = ""
    fired_at: float | None = None


class ScriptEdited(Struct, frozen=True, tag=True, gc=False):
    """Emitted when a script's text was saved as a new version of its file."""

    channel: ClassVar[Channel] = "script"
    at: float
    name: str
    version: str
    by: str = ""


class ScriptRemoved(Struct, frozen=True, tag=True, gc=False):
    """Emitted when a script leaves the catalogue; its file, its runs and their output stay."""

    channel: ClassVar[Channel] = "script"
    at: float
    name: str
    by: str = ""


class ScheduleFired(Struct, frozen=True, tag=True, gc=False):
    """Emitted when a schedule was due at `fire_at`: a run was submitted, or not, and then `message` says why.

    `missed` due times before it were passed over (the workshop was down); `next_at` is the next. With `is_queued` it
    waits for the runs before it; `was_queued` says that it had waited.
    """

    channel: ClassVar[Channel] = "script"
    at: float
    name: str
    fire_at: float
    next_at: float | None
    task_id: TaskId | None = None
    missed: int = 0
    message: str = ""
    is_queued: bool = False
    was_queued: bool = False


class ScriptRan(Struct, frozen=True, tag=True, gc=False):
    """Emitted with each start, end and error of a run of a script; `duration_s` and `exit_code` once it has ended.

    `is_final`: the task has ended for good; False at an error after which it runs again.
    """

    channel: ClassVar[Channel] = "script"
    at: float
    name: str
    task_id: TaskId
    status: RunStatus
    run: int = 0
    exit_code: int | None = None
    duration_s: float | None = None
    is_final: bool = False


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
SystemFact = PoolChanged | SystemNoted | ServiceChanged
ScriptFact = ScriptSaved | ScriptEdited | ScriptRemoved | ScheduleFired | ScriptRan
Fact = TaskFact | WorkerFact | SystemFact | ScriptFact
Sample = TaskProgressed | OutputGrew | TasksSampled | WorkerSampled | MetricsSampled
Event = Fact | Sample

TASK_FACTS: tuple[type[TaskFact], ...] = TaskFact.__args__
SCRIPT_FACTS: tuple[type[ScriptFact], ...] = ScriptFact.__args__
FACTS: tuple[type[Fact], ...] = Fact.__args__
SAMPLES: tuple[type[Sample], ...] = Sample.__args__
