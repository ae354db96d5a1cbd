"""The records of the workshop: plain, frozen, made of scalars, so that any process can hold a copy.

Times are UTC seconds since the epoch, sizes are bytes, durations are seconds.
"""

from __future__ import annotations

from typing import Literal, NewType

from msgspec import Struct

TaskId = NewType("TaskId", str)
WorkerId = NewType("WorkerId", str)

Kind = str
Status = Literal["pending", "in_progress", "completed", "failed", "cancelled"]
Reason = Literal[
    "start",
    "exit",
    "exception",
    "timeout",
    "lost",
    "memory",
    "killed",
    "crash_loop",
    "user",
    "shutdown",
    "dependency",
]
Limited = Literal["memory", "cpu", "processes"]
StopCause = Literal["user", "timeout", "shutdown", "memory", "cpu", "processes"]
OnCrash = Literal["mark", "retry"]
WorkerStatus = Literal["starting", "idle", "busy", "paused", "unresponsive", "stopping", "offline"]
Channel = Literal["task", "worker", "system", "script", "output", "alert"]
Role = Literal["full", "run", "read"]
ServiceState = Literal["starting", "running", "restarting", "stopping", "stopped", "failed", "idle"]

STATUSES: tuple[Status, ...] = ("pending", "in_progress", "completed", "failed", "cancelled")
FINISHED: frozenset[str] = frozenset({"completed", "failed", "cancelled"})
CHANNELS: tuple[Channel, ...] = ("task", "worker", "system", "script", "output", "alert")
FACT_CHANNELS: tuple[Channel, ...] = ("task", "worker", "system", "script", "alert")


class Limits(Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """What a run may use, with all of its process tree; None: as much as there is.

    `memory_bytes` resident, `cpu_s` seconds of processor time, `processes` at the same time, `output_bytes` kept of
    its output.
    """

    memory_bytes: int | None = None
    cpu_s: float | None = None
    processes: int | None = None
    output_bytes: int | None = None


NO_LIMITS = Limits()


class Request(Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """What somebody asked for: it never changes once it is submitted.

    `spec` is the kind's own description (JSON values); `payload` is opaque bytes for kinds that need them
    (a pickled function) and is only ever opened by a worker. `after` are tasks that must succeed before it starts.
    Of a script of the catalogue, `parameters` are what it was given, and `fire_at` when its schedule was due.
    """

    task_id: TaskId
    kind: Kind
    created_at: float
    spec: dict[str, object] = {}
    payload: bytes = b""
    name: str = ""
    summary: str = ""
    priority: int = 5
    labels: dict[str, str] = {}
    submitted_by: str = ""
    timeout_s: float | None = None
    retries: int = 0
    on_crash: OnCrash = "mark"
    idempotency_key: str | None = None
    script_name: str | None = None
    rerun_of: TaskId | None = None
    after: tuple[TaskId, ...] = ()
    limits: Limits = NO_LIMITS
    parameters: dict[str, object] = {}
    fire_at: float | None = None

    def __repr__(self) -> str:
        """Its fields that are not empty; of the payload only how large it is."""
        values = {name: value for name in self.__struct_fields__ if (value := getattr(self, name))}
        if self.payload:
            values["payload"] = f"<{len(self.payload)} bytes>"
        return f"Request({', '.join(f'{name}={value!r}' for name, value in values.items())})"


class Fault(Struct, frozen=True, gc=False):
    """An error of the user's code, as text: it is never a pickled exception."""

    type: str
    message: str
    traceback: str = ""


class Progress(Struct, frozen=True, gc=False, omit_defaults=True):
    """How far a run is: `fraction` 0-1 or None when unknown, `eta_s` seconds left, `rate_per_s` in `unit`."""

    fraction: float | None = None
    done: float | None = None
    total: float | None = None
    unit: str = ""
    eta_s: float | None = None
    message: str = ""
    rate_per_s: float | None = None


class Use(Struct, frozen=True, gc=False, omit_defaults=True):
    """What a run's process tree uses at one moment.

    `cpu_percent` is of one core; `cpu_s`, `read_bytes` and `written_bytes` (of storage) are totals since the run began;
    the GPU's are None where none is told.
    """

    cpu_percent: float
    rss_bytes: int
    cpu_s: float
    read_bytes: int = 0
    written_bytes: int = 0
    threads: int = 1
    processes: int = 1
    gpu_percent: float | None = None
    gpu_memory_bytes: int | None = None


class Usage(Struct, frozen=True, gc=False, omit_defaults=True):
    """What one run cost: seconds of CPU, storage bytes, the largest of what it used at a moment, bytes of output.

    `lost_output_bytes` is what a full disk did not take of it. Of a prompt: tokens read and written, seconds until the
    first, and how many were written a second after it.
    """

    cpu_s: float | None = None
    peak_rss_bytes: int | None = None
    output_bytes: int = 0
    duration_s: float | None = None
    read_bytes: int | None = None
    written_bytes: int | None = None
    peak_threads: int | None = None
    peak_processes: int | None = None
    peak_gpu_memory_bytes: int | None = None
    lost_output_bytes: int = 0
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    first_token_s: float | None = None
    tokens_per_s: float | None = None


class Task(Struct, frozen=True, kw_only=True, gc=False):
    """A task as it stands: what was asked (`request`) and what became of it.

    `order` is the place in the order of submission; `run` the number of the present or last attempt (0: none
    yet); `claim` the place of this run among all that its worker was given; `failures` how many attempts were
    used up, `crashes` how many of them in a row were crashes; `not_before` when a retry may start; `waits_for` the
    tasks that had not ended when it was submitted, until all have succeeded; `use` what it uses while it runs.
    """

    request: Request
    order: int
    status: Status = "pending"
    reason: Reason | None = None
    message: str = ""
    run: int = 0
    worker_id: WorkerId | None = None
    node: str | None = None
    claim: int = 0
    started_at: float | None = None
    finished_at: float | None = None
    not_before: float | None = None
    stopping: StopCause | None = None
    stopping_by: str | None = None
    failures: int = 0
    crashes: int = 0
    exit_code: int | None = None
    result: str | None = None
    error: Fault | None = None
    usage: Usage = Usage()
    progress: Progress | None = None
    waits_for: tuple[TaskId, ...] = ()
    use: Use | None = None

    @property
    def task_id(self) -> TaskId:
        """The task's id."""
        return self.request.task_id

    @property
    def label(self) -> str:
        """What it is called: its name, its summary where it has none."""
        return self.request.name or self.request.summary or self.request.kind

    @property
    def is_finished(self) -> bool:
        """Whether the task has ended for good."""
        return self.status in FINISHED


SILENT_AFTER_S = 10.0
"""Of silence, and a worker counts as unresponsive."""


class Worker(Struct, frozen=True, kw_only=True, gc=False):
    """A worker: one slot that runs one task at a time, in a process of its own.

    `changed_at` is when its status became what it is; `ended_by` who had it ended at once, with what it runs.
    """

    worker_id: WorkerId
    started_at: float
    status: WorkerStatus = "starting"
    pid: int | None = None
    node: str = ""
    current_task: TaskId | None = None
    completed: int = 0
    failed: int = 0
    cpu_percent: float | None = None
    rss_bytes: int | None = None
    changed_at: float | None = None
    ended_by: str | None = None


class Pool(Struct, frozen=True, gc=False):
    """How many workers are wanted, and whether new work may start or be taken.

    `paused`: none starts; `draining`: none is taken either, until it is resumed; `closing`: the workshop ends.
    """

    min_workers: int = 1
    max_workers: int = 3
    paused: bool = False
    draining: bool = False
    closing: bool = False

    @property
    def takes_work(self) -> bool:
        """Whether a submit is accepted."""
        return not self.draining and not self.closing

    @property
    def starts_work(self) -> bool:
        """Whether a pending task may start."""
        return not self.paused and not self.draining and not self.closing


class Service(Struct, frozen=True, gc=False, omit_defaults=True):
    """One of the workshop's services, as its supervisor sees it; those of one process share pid and restarts.

    `idle`: it is started when it is needed. `message` says why it is not running, with its last lines.
    """

    name: str
    state: ServiceState
    port: int | None = None
    pid: int | None = None
    started_at: float | None = None
    restarts: int = 0
    message: str = ""


class Metrics(Struct, frozen=True, gc=False):
    """One sample of the host: `values` maps a metric's name (unit in the name) to a number or a list."""

    at: float
    values: dict[str, object]


class Job(Struct, frozen=True, gc=False, array_like=True):
    """One run of one task, as a worker is given it."""

    task_id: TaskId
    run: int
    claim: int
    kind: Kind
    spec: dict[str, object]
    payload: bytes
    limits: Limits = NO_LIMITS
    timeout_s: float | None = None


class Outcome(Struct, frozen=True, gc=False, array_like=True):
    """How one run ended, as its worker saw it.

    `reason` None means success. `value` is opaque bytes for the submitter (a pickled result or exception).
    """

    task_id: TaskId
    run: int
    reason: Reason | None = None
    message: str = ""
    exit_code: int | None = None
    result: str | None = None
    value: bytes = b""
    error: Fault | None = None
    usage: Usage = Usage()


def counts_of(statuses: list[Status]) -> dict[Status, int]:
    """Counts by status, every status present."""
    counts: dict[Status, int] = dict.fromkeys(STATUSES, 0)
    for status in statuses:
        counts[status] += 1
    return counts
