"""What REST for agents takes and gives: records that check what comes in, and that make the OpenAPI document."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from koubou_panel.core.records import STATUSES, OnCrash, Status
from koubou_panel.servers.agents.delegate import Result

MOST_WAIT_S = 3_600.0
MOST_FILES = 64
MOST_TASKS = 1_000

TaskIdText = Annotated[str, Meta(description="The task's id.", examples=["06c8r7v2n4k1qd"])]
Words = Annotated[str, Meta(max_length=200)]
StatusText = Annotated[Status, Meta(description="How the task stands.", examples=["completed"])]
Time = Annotated[
    str, Meta(description="UTC, as ISO 8601 with milliseconds.", examples=["2026-01-02T03:04:05.678Z"])
]


class DelegateOptions(Struct, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """How a task is run. All are optional."""

    timeout: Annotated[
        Annotated[float, Meta(ge=0, lt=1e9)] | None,
        Meta(description="End the task after so many seconds; 0 is as if it were not given.", examples=[60]),
    ] = None
    wait: Annotated[
        Annotated[float, Meta(ge=0, le=MOST_WAIT_S)] | None,
        Meta(
            description="With `sync`: answer after so many seconds at most; 600 unless given.", examples=[30]
        ),
    ] = None
    model: Annotated[
        Words | None, Meta(description="Of a prompt: the model; the workshop's own unless given.")
    ] = None
    system: Annotated[
        Annotated[str, Meta(max_length=65_536)] | None,
        Meta(description="Of a prompt: what the model is told to be."),
    ] = None
    schema: Annotated[
        dict[str, object] | None,
        Meta(
            description="Of a prompt: a JSON Schema that the answer is to keep, where the model server can."
        ),
    ] = None
    max_tokens: Annotated[
        Annotated[int, Meta(ge=1, le=1_000_000)] | None,
        Meta(description="Of a prompt: the longest answer.", examples=[200]),
    ] = None
    temperature: Annotated[
        Annotated[float, Meta(ge=0, le=2)] | None,
        Meta(description="Of a prompt: 0 is the most certain answer."),
    ] = None
    seed: Annotated[
        Annotated[int, Meta(ge=0, le=2**53)] | None,
        Meta(description="Of a prompt: the same seed gives the same answer, where the model server can."),
    ] = None
    cwd: Annotated[
        str | None, Meta(description="Of a command: its working folder; the home folder unless given.")
    ] = None
    env: Annotated[
        dict[str, str] | None, Meta(description="Of a command: variables beside those that every task has.")
    ] = None
    name: Annotated[Words | None, Meta(description="A name for lists.", examples=["nightly report"])] = None
    labels: Annotated[
        Annotated[dict[Words, Words], Meta(max_length=64)] | None, Meta(description="Labels of your own.")
    ] = None
    retries: Annotated[
        Annotated[int, Meta(ge=0, le=1_000)] | None, Meta(description="Try again so often if it fails.")
    ] = None
    on_crash: Annotated[
        OnCrash | None,
        Meta(description="If the workshop is cut off meanwhile: `mark` it as lost, or `retry` it."),
    ] = None
    idempotency_key: Annotated[
        Annotated[str, Meta(min_length=1, max_length=100)] | None,
        Meta(description="Sent again with the same key, the task is not submitted again: its id is given."),
    ] = None
    after: Annotated[
        Annotated[list[Annotated[str, Meta(min_length=1, max_length=100)]], Meta(max_length=1_000)] | None,
        Meta(description="Tasks that must have succeeded before it starts."),
    ] = None


class Delegate(Struct, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """A task to delegate: exactly one of `prompt`, `command` and `script` says what is to be done."""

    type: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=100,
            description="`general`, or `code` (a prompt is answered with code), or a kind of task: `prompt`, `script`.",
            examples=["general"],
        ),
    ] = "general"
    prompt: Annotated[
        Annotated[str, Meta(min_length=1)] | None,
        Meta(description="A prompt to the language model.", examples=["Explain recursion in one sentence."]),
    ] = None
    command: Annotated[
        Annotated[list[str], Meta(min_length=1)] | str | None,
        Meta(
            description="A command: a list of arguments, or one line that is split at spaces and quotes. No shell "
            'reads it; a line that needs one is refused: send ["sh", "-c", "…"].',
            examples=[["echo", "hello"]],
        ),
    ] = None
    script: Annotated[
        Words | None, Meta(description="A script of the catalogue, by name.", examples=["backup"])
    ] = None
    parameters: Annotated[
        dict[str, object] | None,
        Meta(
            description="Of a script: what it is given. Of a kind beside `prompt` and `script`: its whole description.",
            examples=[{"days": 7}],
        ),
    ] = None
    priority: Annotated[
        Annotated[int, Meta(ge=1, le=10)] | None,
        Meta(description="10 goes first; 5 unless given, or the script's own.", examples=[5]),
    ] = None
    sync: Annotated[
        bool | None, Meta(description="Answer when the task has ended, with its result.", examples=[False])
    ] = None
    files: Annotated[
        Annotated[list[str], Meta(max_length=MOST_FILES)] | None,
        Meta(
            description="Names of files on the workshop's machine. A prompt is given their text; a command begins in "
            "the folder of the first, and has all of them in TASK_FILES, one a line.",
            examples=[[]],
        ),
    ] = None
    options: Annotated[DelegateOptions | None, Meta(description="How it is run.")] = None


class TasksQuery(Struct, forbid_unknown_fields=True, kw_only=True):
    """Which tasks, newest first."""

    status: Annotated[
        str | None,
        Meta(description="Only those that stand so.", extra_json_schema={"enum": list(STATUSES)}),
    ] = None
    limit: Annotated[int, Meta(ge=1, le=MOST_TASKS, description="So many at most.")] = 100
    offset: Annotated[int, Meta(ge=0, le=2**63 - 1, description="Pass over so many.")] = 0


class PageQuery(Struct, forbid_unknown_fields=True, kw_only=True):
    """Which piece of a list."""

    limit: Annotated[int, Meta(ge=1, le=MOST_TASKS, description="So many at most.")] = 100
    offset: Annotated[int, Meta(ge=0, le=2**63 - 1, description="Pass over so many.")] = 0


class NoQuery(Struct, forbid_unknown_fields=True):
    """Nothing can be asked for in the address."""


# -- what is given --------------------------------------------------------------------------------------------


class TaskResult(Struct, forbid_unknown_fields=True):
    """What came of a task that has ended."""

    success: Annotated[bool, Meta(description="Whether it completed.", examples=[True])]
    output: Annotated[
        str, Meta(description="What it printed or answered; the last 256 KiB of it.", examples=["hello\n"])
    ]
    error: Annotated[
        str | None, Meta(description="What went wrong; null where nothing did.", examples=[None])
    ]

    @classmethod
    def of(cls, result: Result | None) -> TaskResult | None:
        """The record of `result`."""
        return None if result is None else cls(result.success, result.output, result.error)


class Delegated(Struct, forbid_unknown_fields=True):
    """The task was taken in, and is stored."""

    task_id: TaskIdText
    status: Annotated[Literal["delegated"], Meta(description="It will be run.", examples=["delegated"])]


class Ended(Struct, forbid_unknown_fields=True):
    """How a task stands that was waited for: it has ended, or the time to wait has."""

    task_id: TaskIdText
    status: StatusText
    result: Annotated[TaskResult | None, Meta(description="What came of it; null while it has not ended.")]


class TaskStatus(Struct, forbid_unknown_fields=True):
    """How one task stands."""

    task_id: TaskIdText
    status: StatusText
    result: Annotated[TaskResult | None, Meta(description="What came of it; null while it has not ended.")]
    created_at: Time
    updated_at: Time


class TaskLine(Struct, forbid_unknown_fields=True):
    """One task in a list, without its output."""

    task_id: TaskIdText
    status: StatusText
    type: Annotated[str, Meta(description="Its kind.", examples=["script"])]
    name: Annotated[str, Meta(description="Its name.", examples=["echo"])]
    summary: Annotated[str, Meta(description="What it is, in a line.", examples=["echo hello"])]
    priority: Annotated[int, Meta(description="10 goes first.", examples=[5])]
    submitted_by: Annotated[str, Meta(description="Who asked for it.", examples=["rest:curl"])]
    message: Annotated[str, Meta(description="What is to be said about how it stands.", examples=[""])]
    created_at: Time
    updated_at: Time


class Tasks(Struct, forbid_unknown_fields=True):
    """A piece of the list of tasks, newest first."""

    tasks: Annotated[list[TaskLine], Meta(description="The tasks.")]
    total: Annotated[int, Meta(description="How many there are in all.", examples=[1])]


class WorkerLine(Struct, forbid_unknown_fields=True):
    """One worker: a process that runs one task at a time."""

    worker_id: Annotated[str, Meta(description="Its id.", examples=["w1"])]
    status: Annotated[str, Meta(description="How it stands.", examples=["busy"])]
    current_task: Annotated[str | None, Meta(description="The task that it runs.")]
    pid: Annotated[int | None, Meta(description="Its process, once it runs.")]
    completed: Annotated[int, Meta(description="How many tasks it has completed.", examples=[12])]
    failed: Annotated[int, Meta(description="How many of its tasks failed.", examples=[0])]
    cpu_percent: Annotated[
        float | None, Meta(description="What its process tree uses of one core.", examples=[97.5])
    ]
    rss_bytes: Annotated[int | None, Meta(description="The memory of its process tree.")]
    started_at: Time


class PoolLine(Struct, forbid_unknown_fields=True):
    """How many workers are wanted, and whether work is taken and started."""

    min_workers: Annotated[int, Meta(description="At least.", examples=[1])]
    max_workers: Annotated[int, Meta(description="At most.", examples=[3])]
    paused: Annotated[bool, Meta(description="No task starts.", examples=[False])]
    draining: Annotated[bool, Meta(description="None is taken in either.", examples=[False])]
    closing: Annotated[bool, Meta(description="The workshop ends.", examples=[False])]


class Workers(Struct, forbid_unknown_fields=True):
    """The pool and its workers."""

    workers: Annotated[list[WorkerLine], Meta(description="The workers that there are.")]
    total: Annotated[int, Meta(description="How many there are.", examples=[3])]
    pool: Annotated[PoolLine, Meta(description="The pool.")]


class ServiceLine(Struct, forbid_unknown_fields=True):
    """One of the workshop's services."""

    name: Annotated[str, Meta(description="Its name.", examples=["agents"])]
    state: Annotated[str, Meta(description="How it stands.", examples=["running"])]
    port: Annotated[int | None, Meta(description="Where it listens.", examples=[8765])]
    restarts: Annotated[int, Meta(description="How often it was started again.", examples=[0])]
    message: Annotated[str, Meta(description="Why it is not running.", examples=[""])]


class SystemInfo(Struct, forbid_unknown_fields=True):
    """The workshop and the machine that it runs on."""

    version: Annotated[str, Meta(description="Of Koubou Panel.", examples=["0.1.0"])]
    epoch: Annotated[str, Meta(description="Changes when the workshop's state is read anew.")]
    node: Annotated[str, Meta(description="The machine's name.")]
    platform: Annotated[str, Meta(description="Its system.", examples=["Linux-6.1-x86_64"])]
    python: Annotated[str, Meta(description="The version of Python.", examples=["3.11.9"])]
    pid: Annotated[int, Meta(description="The workshop's process.")]
    uptime_s: Annotated[float, Meta(description="Seconds since this port was opened.")]
    types: Annotated[list[str], Meta(description="What `type` can be.", examples=[["general", "code"]])]
    agent_tasks: Annotated[int, Meta(description="How many unfinished tasks one agent may have.")]
    tasks: Annotated[dict[str, int], Meta(description="How many tasks there are, by status.")]
    services: Annotated[list[ServiceLine], Meta(description="The workshop's services.")]
    metrics: Annotated[
        dict[str, object],
        Meta(description="The last sample of the machine, by metric, the unit in its name."),
    ]


class Health(Struct, forbid_unknown_fields=True):
    """That somebody is there."""

    status: Annotated[
        Literal["healthy", "draining"],
        Meta(description="`draining`: new tasks are not taken just now.", examples=["healthy"]),
    ]
    version: Annotated[str, Meta(description="Of Koubou Panel.", examples=["0.1.0"])]
    epoch: Annotated[str, Meta(description="Changes when the workshop's state is read anew.")]


class Cancelled(Struct, forbid_unknown_fields=True):
    """The task is being ended; it has ended when its status says so."""

    task_id: TaskIdText
    status: StatusText


class Problem(Struct, omit_defaults=True, forbid_unknown_fields=True):
    """What is wrong with a request, and what would be right."""

    code: Annotated[str, Meta(description="A short stable word for programs.", examples=["invalid"])]
    message: Annotated[
        str, Meta(description="One sentence for people.", examples=["priority must be 1 to 10, not 99"])
    ]
    field: Annotated[
        str | UnsetType, Meta(description="The field at fault, where it is one.", examples=["priority"])
    ] = UNSET
    nearest: Annotated[
        str | UnsetType, Meta(description="The known name closest to an unknown one.", examples=["prompt"])
    ] = UNSET


class Failure(Struct, forbid_unknown_fields=True):
    """A request that was not carried out."""

    error: Annotated[Problem, Meta(description="What is wrong.")]
