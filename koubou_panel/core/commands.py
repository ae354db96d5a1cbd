"""What somebody asks for. A command may be refused; it is never stored."""

from __future__ import annotations

from msgspec import Struct

from koubou_panel.core.records import OnCrash, Outcome, Progress, Request, Role, TaskId, Use, WorkerId
from koubou_panel.core.script import Script


class Caller(Struct, frozen=True, gc=False):
    """Who asks: a name for the record (`cli`, `ws:127.0.0.1`, an agent) and what that one may do.

    `from_network` says that the command came over a public door, where functions are never taken.
    """

    by: str
    role: Role = "full"
    from_network: bool = False


class SubmitTask(Struct, frozen=True, tag=True, gc=False):
    """Take in a task. The caller has chosen its id, so a repeated submit of one id is one task."""

    request: Request


class CancelTask(Struct, frozen=True, tag=True, gc=False):
    """End a task: at once if it is pending, else by ending its process tree.

    `only_pending`: one that has begun is left alone, and this refused.
    """

    task_id: TaskId
    only_pending: bool = False


class RetryTask(Struct, frozen=True, tag=True, gc=False):
    """Submit a finished task again as a new task `new_id`, optionally with another spec."""

    task_id: TaskId
    new_id: TaskId
    spec: dict[str, object] | None = None


class ScaleWorkers(Struct, frozen=True, tag=True, gc=False):
    """Set the bounds of the pool."""

    min_workers: int
    max_workers: int


class PausePool(Struct, frozen=True, tag=True, gc=False):
    """Start no new work; what runs goes on, and new work is taken in."""


class DrainPool(Struct, frozen=True, tag=True, gc=False):
    """Take no new work and start none; what runs goes on."""


class ResumePool(Struct, frozen=True, tag=True, gc=False):
    """Take and start work again, after a pause or a drain."""


class RestartWorker(Struct, frozen=True, tag=True, gc=False):
    """Replace a worker by a fresh one: after what it runs, or `at_once`, cancelling what it runs.

    `task_id`, where it is given, is what is known to be cancelled: by then it may run another.
    """

    worker_id: WorkerId
    at_once: bool = False
    task_id: TaskId | None = None


class SendInput(Struct, frozen=True, tag=True, gc=False):
    """Give `data` to the standard input of a running task; `is_last` closes it. Nothing is stored."""

    task_id: TaskId
    data: bytes
    is_last: bool = False


class SaveScript(Struct, frozen=True, tag=True, gc=False):
    """Add a script to the catalogue, or change one: then `revision` is what the change was made on.

    With `text` that is saved first: to the file that the script has, else to one in the home, which makes it inline;
    `base` is the version that the text began from, None where it replaces any. `anchor` is what an interval counts
    from; the present where not given. `fired_at`, filled in by the shop, is the last due time that had a run while a
    script of this name was in the catalogue before.
    """

    script: Script
    revision: int | None = None
    text: str | None = None
    base: str | None = None
    anchor: float | None = None
    fired_at: float | None = None


class EnableScript(Struct, frozen=True, tag=True, gc=False):
    """Let a script's schedule run it, or no more; it can be run by hand all the same."""

    name: str
    is_enabled: bool = True


class RemoveScript(Struct, frozen=True, tag=True, gc=False):
    """Take a script out of the catalogue; its file, its runs and their output stay."""

    name: str


class RunScript(Struct, frozen=True, tag=True, gc=False):
    """Submit a run of a script as task `task_id`; what is None is as the script says.

    `request` is made by the shop from all this, and checked, before it is decided.
    """

    name: str
    task_id: TaskId
    parameters: dict[str, object] = {}
    priority: int | None = None
    timeout_s: float | None = None
    retries: int | None = None
    on_crash: OnCrash | None = None
    labels: dict[str, str] = {}
    idempotency_key: str | None = None
    after: tuple[TaskId, ...] = ()
    request: Request | None = None


class CloseShop(Struct, frozen=True, tag=True, gc=False):
    """The workshop is about to end: as a drain, but forgotten at the next start."""


Command = (
    SubmitTask
    | CancelTask
    | RetryTask
    | ScaleWorkers
    | PausePool
    | DrainPool
    | ResumePool
    | RestartWorker
    | SendInput
    | SaveScript
    | EnableScript
    | RemoveScript
    | RunScript
    | CloseShop
)

WRITES: tuple[type[Command], ...] = Command.__args__


# -- what an engine reports: handled by `decide` like a command, but never refused aloud ----------------------


class WorkerReady(Struct, frozen=True, gc=False):
    """A worker process runs and waits for work."""

    worker_id: WorkerId
    pid: int


class WorkerSilent(Struct, frozen=True, gc=False):
    """Nothing was heard of a worker for longer than a healthy one can be silent."""

    worker_id: WorkerId


class WorkerHeard(Struct, frozen=True, gc=False):
    """A worker that was silent was heard of again."""

    worker_id: WorkerId


class WorkerDied(Struct, frozen=True, gc=False):
    """A worker process is gone. `begun` is how many of its claims it had begun, ever; `message` says how."""

    worker_id: WorkerId
    begun: int
    message: str
    exit_code: int | None = None
    signal: int | None = None
    expected: bool = False


class RunEnded(Struct, frozen=True, gc=False):
    """A worker finished a run."""

    worker_id: WorkerId
    outcome: Outcome


class RunsReturned(Struct, frozen=True, gc=False):
    """A worker gave back runs that it had not begun."""

    worker_id: WorkerId
    task_ids: list[TaskId]


class RunProgressed(Struct, frozen=True, gc=False):
    """A run told how far it is, or how large its output has become."""

    task_id: TaskId
    run: int
    progress: Progress | None = None
    output_bytes: int | None = None


class RunsSampled(Struct, frozen=True, gc=False):
    """What each running task's process tree uses now: (task, run, use)."""

    uses: list[tuple[TaskId, int, Use]]


class ScheduleDue(Struct, frozen=True, gc=False):
    """A script's schedule is due at `fire_at`, after `missed` others; `request` is its run, None where `why` not."""

    name: str
    fire_at: float
    missed: int = 0
    request: Request | None = None
    why: str = ""


class ShutDown(Struct, frozen=True, gc=False):
    """The workshop ends: what still runs is to be stopped."""

    by: str


Report = (
    WorkerReady
    | WorkerSilent
    | WorkerHeard
    | WorkerDied
    | RunEnded
    | RunsReturned
    | RunProgressed
    | RunsSampled
    | ScheduleDue
    | ShutDown
)
