"""Records as the database's rows, and back."""

from __future__ import annotations

from operator import attrgetter

import msgspec
from msgspec import Struct
from msgspec.structs import asdict, replace

from koubou_panel.core.records import (
    STATUSES,
    Fault,
    Metrics,
    Pool,
    Progress,
    Reason,
    Request,
    Status,
    StopCause,
    Task,
    TaskId,
    Usage,
    WorkerId,
)
from koubou_panel.core.script import Entry

STATUS_NUMBERS: dict[Status, int] = {status: number for number, status in enumerate(STATUSES)}


class Standing(Struct, frozen=True, array_like=True, gc=False):
    """The part of a task that changes, less what has columns of its own.

    Stored as an array: new fields go to the end and have a default, none is taken away.
    """

    run: int
    reason: Reason | None
    message: str
    worker_id: WorkerId | None
    node: str | None
    claim: int
    started_at: float | None
    not_before: float | None
    stopping: StopCause | None
    stopping_by: str | None
    failures: int
    crashes: int
    exit_code: int | None
    result: str | None
    error: Fault | None
    usage: Usage
    progress: Progress | None
    waits_for: tuple[TaskId, ...] = ()


encode = msgspec.msgpack.Encoder().encode
_standing_of = attrgetter(*Standing.__struct_fields__)
_REQUEST = msgspec.msgpack.Decoder(Request)
_STANDING = msgspec.msgpack.Decoder(Standing)
_METRICS = msgspec.msgpack.Decoder(Metrics)
_POOL = msgspec.msgpack.Decoder(Pool)
_ENTRY = msgspec.msgpack.Decoder(Entry)


def request_blob(request: Request) -> bytes:
    """`request` without its payload."""
    return encode(replace(request, payload=b"") if request.payload else request)


def standing_blob(task: Task) -> bytes:
    """What may change of `task`."""
    return encode(_standing_of(task))


def standing_part(blob: bytes, name: str) -> str | float | None:
    """One field of a blob made by `standing_blob`, for the step that gave it a column; None of a damaged one."""
    try:
        part: str | float | None = getattr(_STANDING.decode(blob), name)
    except msgspec.MsgspecError:
        return None
    return part


def task_of(row: tuple[int, int, float | None, bytes, bytes], payload: bytes | None = None) -> Task:
    """The task of a row `(ord, status, finished_at, request, rest)`.

    Raises:
        msgspec.DecodeError: the row is damaged.
    """
    order, status, finished_at, request, rest = row
    asked = _REQUEST.decode(request)
    return Task(
        request=replace(asked, payload=payload) if payload else asked,
        order=order,
        status=STATUSES[status],
        finished_at=finished_at,
        **asdict(_STANDING.decode(rest)),
    )


def metrics_of(blob: bytes) -> Metrics:
    """The sample of a blob made by `encode`."""
    return _METRICS.decode(blob)


def entry_of(blob: bytes) -> Entry:
    """The script of a blob made by `encode`."""
    return _ENTRY.decode(blob)


def pool_of(blob: bytes) -> Pool:
    """The pool of a blob made by `encode`."""
    return _POOL.decode(blob)
