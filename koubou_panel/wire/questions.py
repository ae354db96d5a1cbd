"""What a client of the private link may ask, and of which type each answer is. Part of `wire.link`.

A question may be asked again where the link was cut: what one of them changes is the same done twice.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct

from koubou_panel.core.commands import Caller
from koubou_panel.core.curve import Curve
from koubou_panel.core.ports import (
    OutputBytes,
    OutputHits,
    OutputMatches,
    OutputPage,
    OutputRemoved,
    OutputSearch,
    RunSpans,
    ScriptText,
    ScriptVersion,
    TaskPage,
    TaskQuery,
)
from koubou_panel.core.records import Metrics, Task, TaskId
from koubou_panel.core.state import Snapshot


class Find(Struct, frozen=True, tag=True, array_like=True):
    """Which tasks match? Answer: `TaskPage`."""

    query: TaskQuery


class Get(Struct, frozen=True, tag=True, array_like=True):
    """What is this task? Answer: `Task` or None."""

    task_id: TaskId


class Read(Struct, frozen=True, tag=True, array_like=True):
    """What did it print, as text? Answer: `OutputPage`."""

    task_id: TaskId
    offset: int
    limit: int


class ReadBytes(Struct, frozen=True, tag=True, array_like=True):
    """What did it print, byte for byte? Answer: `OutputBytes`."""

    task_id: TaskId
    offset: int
    limit: int


class Values(Struct, frozen=True, tag=True, array_like=True):
    """What are these tasks' opaque results? Answer: a list of bytes."""

    task_ids: list[TaskId]


class MetricsSince(Struct, frozen=True, tag=True, array_like=True):
    """What was measured since this UTC second? Answer: a list of `Metrics`."""

    at: float


class MetricsBinned(Struct, frozen=True, tag=True, array_like=True):
    """What was measured since this UTC second, in spans of so many seconds? Answer: a list of `Metrics`."""

    at: float
    step_s: float


class Spans(Struct, frozen=True, tag=True, array_like=True):
    """Which runs stood between these UTC seconds, at most so many rows? Answer: `RunSpans`."""

    start: float
    end: float
    most: int


class GetCurve(Struct, frozen=True, tag=True, array_like=True):
    """What does this task's run use, or what did its last one, over time? Answer: a `Curve` or None."""

    task_id: TaskId


class Look(Struct, frozen=True, tag=True, array_like=True):
    """How does the workshop stand, its tasks apart? Answer: a `Snapshot` without tasks."""


class ReadScript(Struct, frozen=True, tag=True, array_like=True):
    """What is a script's text, now or in an earlier version? Answer: `ScriptText`."""

    name: str
    version: str | None


class ListVersions(Struct, frozen=True, tag=True, array_like=True):
    """Which texts are kept of a script? Answer: a list of `ScriptVersion`."""

    name: str


class SaveText(Struct, frozen=True, tag=True, array_like=True):
    """Save a script's text, begun from version `base`, for `caller`. Answer: its version."""

    name: str
    text: str
    base: str
    caller: Caller


class RestoreText(Struct, frozen=True, tag=True, array_like=True):
    """Save a kept version as the present text, for `caller`. Answer: its version."""

    name: str
    version: str
    base: str
    caller: Caller


class SearchOutput(Struct, frozen=True, tag=True, array_like=True):
    """Where in the output of a script's runs is this text? Answer: `OutputMatches`."""

    script: str
    text: str
    limit: int


class SearchLogs(Struct, frozen=True, tag=True, array_like=True):
    """Where in the output of tasks is this text? Answer: `OutputHits`."""

    search: OutputSearch


class HeldOutput(Struct, frozen=True, tag=True, array_like=True):
    """How many bytes of output are held of each of these tasks? Answer: a list of integers."""

    task_ids: list[TaskId]


class RemoveOutput(Struct, frozen=True, tag=True, array_like=True):
    """Remove the output of the runs of a script that have ended, for `caller`. Answer: `OutputRemoved`."""

    script: str
    caller: Caller


ScriptQuestion = (
    ReadScript | ListVersions | SaveText | RestoreText | SearchOutput | HeldOutput | RemoveOutput | SearchLogs
)
Question = (
    Find
    | Get
    | Read
    | ReadBytes
    | Values
    | MetricsSince
    | MetricsBinned
    | Spans
    | GetCurve
    | Look
    | ScriptQuestion
)

ANSWERS: dict[type[Question], msgspec.msgpack.Decoder[object]] = {
    Find: msgspec.msgpack.Decoder(TaskPage),
    Get: msgspec.msgpack.Decoder(Task | None),
    Read: msgspec.msgpack.Decoder(OutputPage),
    ReadBytes: msgspec.msgpack.Decoder(OutputBytes),
    Values: msgspec.msgpack.Decoder(list[bytes]),
    MetricsBinned: msgspec.msgpack.Decoder(list[Metrics]),
    MetricsSince: msgspec.msgpack.Decoder(list[Metrics]),
    Spans: msgspec.msgpack.Decoder(RunSpans),
    GetCurve: msgspec.msgpack.Decoder(Curve | None),
    Look: msgspec.msgpack.Decoder(Snapshot),
    ReadScript: msgspec.msgpack.Decoder(ScriptText),
    ListVersions: msgspec.msgpack.Decoder(list[ScriptVersion]),
    SaveText: msgspec.msgpack.Decoder(str),
    RestoreText: msgspec.msgpack.Decoder(str),
    SearchOutput: msgspec.msgpack.Decoder(OutputMatches),
    SearchLogs: msgspec.msgpack.Decoder(OutputHits),
    HeldOutput: msgspec.msgpack.Decoder(list[int]),
    RemoveOutput: msgspec.msgpack.Decoder(OutputRemoved),
}
