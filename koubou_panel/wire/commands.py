"""What a client may say: one JSON object a frame, read strictly, and refused with the field at fault."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Annotated, Literal, TypeGuard

import msgspec
from msgspec import Meta, Struct

from koubou_panel.core.limit import CPU_S, MEMORY_BYTES, OUTPUT_BYTES, PROCESSES
from koubou_panel.core.records import CHANNELS, Channel, OnCrash, Status
from koubou_panel.core.suggest import nearest, unknown
from koubou_panel.errors import ProtocolFault
from koubou_panel.wire.messages import MessageId

MAX_DEPTH = 64
MAX_INNER = 20_000
MAX_OUTPUT_BYTES = 256 * 1024
MAX_INPUT_CHARACTERS = 64 * 1024
MAX_AFTER = 1_000
_INT64 = range(-(2**63), 2**63)

Name = Annotated[str, Meta(max_length=200)]
Id = Annotated[str, Meta(min_length=1, max_length=100)]
Labels = Annotated[dict[Name, Name], Meta(max_length=64)]
Spec = dict[str, object]
Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Priority = Annotated[int, Meta(ge=1, le=10)]
Seconds = Annotated[float, Meta(gt=0, lt=1e9)]
Retries = Annotated[int, Meta(ge=0, le=1000)]
After = Annotated[list[Id], Meta(max_length=MAX_AFTER)]


class Auth(Struct, frozen=True):
    """Present the token."""

    token: str


class Subscribe(Struct, frozen=True):
    """Follow a channel; from after `since` where given (for `output`: from this byte of `task_id`'s log)."""

    channel: Channel
    since: Count | None = None
    task_id: Id | None = None


class Unsubscribe(Struct, frozen=True):
    """Follow a channel no more; for `output`, one task's or, without `task_id`, any."""

    channel: Channel
    task_id: Id | None = None


class GetStats(Struct, frozen=True):
    """Count tasks, workers and connections."""


class Ping(Struct, frozen=True):
    """Is somebody there?"""


class Resume(Struct, frozen=True):
    """Go on after a cut: `since` is the last `seq` seen of each channel in `epoch`."""

    epoch: Name
    since: dict[Channel, Count]


class SubmitLimits(Struct, frozen=True, forbid_unknown_fields=True):
    """What a task may use."""

    memory_bytes: Annotated[int, Meta(ge=MEMORY_BYTES[0], le=MEMORY_BYTES[1])] | None = None
    cpu_s: Annotated[float, Meta(ge=CPU_S[0], le=CPU_S[1])] | None = None
    processes: Annotated[int, Meta(ge=PROCESSES[0], le=PROCESSES[1])] | None = None
    output_bytes: Annotated[int, Meta(ge=OUTPUT_BYTES[0], le=OUTPUT_BYTES[1])] | None = None


class Submit(Struct, frozen=True):
    """Take in a task; it waits until those of `after` have succeeded."""

    kind: Annotated[str, Meta(min_length=1, max_length=100)]
    spec: Spec
    name: Name | None = None
    priority: Priority | None = None
    timeout_s: Seconds | None = None
    retries: Retries | None = None
    on_crash: OnCrash | None = None
    labels: Labels | None = None
    idempotency_key: Id | None = None
    after: After | None = None
    limits: SubmitLimits | None = None


class Cancel(Struct, frozen=True):
    """End a task."""

    task_id: Id


class SendText(Struct, frozen=True):
    """Give text to the standard input of a running command; `is_last` closes it."""

    task_id: Id
    text: Annotated[str, Meta(max_length=MAX_INPUT_CHARACTERS)] = ""
    is_last: bool = False


class Retry(Struct, frozen=True):
    """Submit a finished task again, optionally with another spec."""

    task_id: Id
    spec: Spec | None = None


class GetTask(Struct, frozen=True):
    """Show one task."""

    task_id: Id


class ListTasks(Struct, frozen=True):
    """Show tasks, newest first."""

    status: Status | None = None
    kind: Name | None = None
    text: Name | None = None
    limit: Annotated[int, Meta(ge=1, le=1000)] | None = None
    cursor: Name | None = None


class GetOutput(Struct, frozen=True):
    """Read a task's output from byte `offset` (negative: that many bytes before the end)."""

    task_id: Id
    offset: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] = 0
    limit: Annotated[int, Meta(ge=1, le=MAX_OUTPUT_BYTES)] = 65_536


class GetUsage(Struct, frozen=True):
    """Show what a task's run uses, or its last one used, over time."""

    task_id: Id


class Scale(Struct, frozen=True):
    """Set how many workers there are."""

    workers: Annotated[int, Meta(ge=1, le=256)] | None = None
    min_workers: Annotated[int, Meta(ge=0, le=256)] | None = None
    max_workers: Annotated[int, Meta(ge=1, le=256)] | None = None


class PauseWorkers(Struct, frozen=True):
    """Start no new work; what runs goes on."""


class ResumeWorkers(Struct, frozen=True):
    """Take and start work again."""


class DrainWorkers(Struct, frozen=True):
    """Take no new work and start none; what runs goes on."""


class RestartOneWorker(Struct, frozen=True):
    """Replace a worker by a fresh one: after what it runs, or at once."""

    worker_id: Id
    at_once: bool = False


class RunScript(Struct, frozen=True):
    """Run a script of the catalogue; what is not given is as the script says."""

    script_name: Name
    parameters: Spec | None = None
    priority: Priority | None = None
    timeout_s: Seconds | None = None
    retries: Retries | None = None
    on_crash: OnCrash | None = None
    labels: Labels | None = None
    idempotency_key: Id | None = None
    after: After | None = None


ClientCommand = (
    Auth
    | Subscribe
    | Unsubscribe
    | GetStats
    | Ping
    | Resume
    | Submit
    | Cancel
    | SendText
    | Retry
    | GetTask
    | ListTasks
    | GetOutput
    | GetUsage
    | Scale
    | PauseWorkers
    | ResumeWorkers
    | DrainWorkers
    | RestartOneWorker
    | RunScript
)
COMMANDS: dict[str, type[ClientCommand]] = {
    "auth": Auth,
    "subscribe": Subscribe,
    "unsubscribe": Unsubscribe,
    "get_stats": GetStats,
    "ping": Ping,
    "resume": Resume,
    "submit": Submit,
    "cancel": Cancel,
    "send_input": SendText,
    "retry": Retry,
    "get_task": GetTask,
    "list_tasks": ListTasks,
    "get_output": GetOutput,
    "get_usage": GetUsage,
    "scale": Scale,
    "pause_workers": PauseWorkers,
    "resume_workers": ResumeWorkers,
    "drain_workers": DrainWorkers,
    "restart_worker": RestartOneWorker,
    "run_script": RunScript,
}
WRITES = (
    SendText,
    Submit,
    Cancel,
    Retry,
    Scale,
    PauseWorkers,
    ResumeWorkers,
    DrainWorkers,
    RestartOneWorker,
    RunScript,
)


class ClientFrame(Struct, frozen=True):
    """One frame of a client, read: its `id`, and the command or what is wrong with it."""

    id: MessageId | None
    command: ClientCommand | ProtocolFault


def read_frame(text: str) -> ClientFrame:
    """What a client said. Never raises: a fault is part of the answer, so that its `id` is not lost."""
    try:
        body = read_object(text)
    except ProtocolFault as fault:
        return ClientFrame(None, fault)
    reference = body.get("id")
    if not _is_id(reference):
        words = "id must be a string of at most 200 characters or an integer of 64 bits"
        return ClientFrame(None, ProtocolFault("invalid", words, field="id"))
    try:
        return ClientFrame(reference, _command(body))
    except ProtocolFault as fault:
        return ClientFrame(reference, fault)


def read_object(text: str) -> dict[str, object]:
    """One JSON object, strictly: no NaN, no doubled key, no number out of range, 64 deep and 20,000 lists at most.

    Raises:
        ProtocolFault: `bad_json`; `bad_request` if it is JSON but no object.
    """
    try:
        value = msgspec.json.decode(text)
        if text.count("[") + text.count("{") > MAX_DEPTH:
            _check_shape(value)
        json.loads(text, object_pairs_hook=_refuse_doubles)
    except RecursionError:
        raise ProtocolFault("bad_json", f"nested more than {MAX_DEPTH} deep") from None
    except (msgspec.MsgspecError, ValueError) as problem:
        raise ProtocolFault("bad_json", f"not JSON: {problem}") from None
    if not isinstance(value, dict):
        raise ProtocolFault("bad_request", 'a frame is one JSON object: {"command": NAME, ...}')
    return value


def _refuse_doubles(pairs: list[tuple[str, object]]) -> dict[str, object]:
    made = dict(pairs)
    if len(made) < len(pairs):
        seen: set[str] = set()
        double = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {double[:100]!r} stands twice in one object")
    return made


def _check_shape(value: object) -> None:
    """Refuse what is too deep, and before the second reading, which is slow, what has too many lists and objects."""
    level, count = _inner([value]), 0
    for _ in range(MAX_DEPTH):
        count += len(level)
        if count > MAX_INNER:
            raise ProtocolFault("bad_json", f"more than {MAX_INNER} lists and objects in one frame")
        level = [inner for item in level for inner in _inner(item)]
    if level:
        raise ProtocolFault("bad_json", f"nested more than {MAX_DEPTH} deep")


def _inner(value: object) -> list[object]:
    """The lists and objects that stand directly in a list or an object."""
    held = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [item for item in held if isinstance(item, dict | list)]


def _is_id(found: object) -> TypeGuard[MessageId | None]:
    if found is None or isinstance(found, str):
        return found is None or len(found) <= 200  # noqa: PLR2004 - as the message says
    return isinstance(found, int) and not isinstance(found, bool) and found in _INT64


def _command(body: dict[str, object]) -> ClientCommand:
    name = body.get("command")
    if name is None:
        raise ProtocolFault("bad_request", 'no command: send {"command": NAME, ...}')
    if not isinstance(name, str):
        raise ProtocolFault("invalid", "command must be a string", field="command")
    shape = COMMANDS.get(name)
    if shape is None:
        raise ProtocolFault(
            "unknown_command", unknown("command", name, COMMANDS), nearest=nearest(name, COMMANDS)
        )
    _check_channels(body)
    try:
        command = msgspec.convert(body, shape)
    except msgspec.ValidationError as problem:
        known = [f"limits.{name}" for name in SubmitLimits.__struct_fields__]
        raise invalid(str(problem), known) from None
    _check_numbers(command)
    return command


def _check_channels(body: dict[str, object]) -> None:
    since = body.get("since")
    named = [("channel", body.get("channel"))]
    named += [("since", key) for key in since] if isinstance(since, dict) else []
    for field, channel in named:
        if isinstance(channel, str) and channel not in CHANNELS:
            words = unknown("channel", channel, CHANNELS)
            raise ProtocolFault("unknown_channel", words, nearest=nearest(channel, CHANNELS), field=field)


def _check_numbers(command: ClientCommand) -> None:
    # JSON knows integers of any size; what stores and forwards a spec does not.
    if isinstance(command, Submit | Retry | RunScript):
        field: Literal["spec", "parameters"] = "parameters" if isinstance(command, RunScript) else "spec"
        try:
            msgspec.msgpack.encode(getattr(command, field))
        except OverflowError:
            raise ProtocolFault("invalid", f"{field} holds an integer beyond 64 bits", field=field) from None


def invalid(problem: str, known: Iterable[str] = ()) -> ProtocolFault:
    """What msgspec found wrong, with the field at fault; `known` are the names that an unknown one may have meant."""
    words, _, path = problem.partition(" - at `$")
    within = re.match(r"\.([\w.]+)", re.sub(r"\[[^\]]*\]", "", path))
    parts = [within.group(1)] if within else []
    odd = re.search(r"unknown field `(.*)`", words)
    if odd:
        field = ".".join([*parts, odd.group(1)[:100]])
        known = list(known)
        return ProtocolFault(
            "invalid", unknown("field", field, known), field=field, nearest=nearest(field, known)
        )
    missing = re.search(r"required field `(\w+)`", words)
    if missing:
        field = ".".join([*parts, missing.group(1)])
        return ProtocolFault("invalid", f"{field} is missing", field=field)
    field = ".".join(parts)
    words = words.replace("`", "")
    return ProtocolFault("invalid", f"{field}: {words[:1].lower()}{words[1:]}", field=field)
