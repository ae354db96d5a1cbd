"""What may be said about a task beside the function and its arguments: options, checked where they are given."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from typing import Any, SupportsIndex, cast

import msgspec
from msgspec import Struct
from msgspec.structs import asdict, replace

from koubou_panel.core.quantity import parse_size
from koubou_panel.core.records import NO_LIMITS, Limits, OnCrash, TaskId
from koubou_panel.core.suggest import unknown
from koubou_panel.notebook.future import Keeper, TaskFuture
from koubou_panel.notebook.references import same_workshop

Size = int | str


class Options(Struct, frozen=True, kw_only=True):
    """The options of a task, with their types.

    `memory` and `output` are sizes (bytes, or a text such as `2G`), `cpu_s` seconds of processor time; each stands for
    a field of `limits`.
    """

    name: str | None = None
    priority: int | None = None
    timeout_s: float | None = None
    retries: int | None = None
    on_crash: OnCrash | None = None
    labels: dict[str, str] | None = None
    limits: Limits = NO_LIMITS
    memory: Size | None = None
    cpu_s: float | None = None
    processes: int | None = None
    output: Size | None = None


PLAIN = ("name", "priority", "timeout_s", "retries", "on_crash", "labels")
NAMES = (*Options.__struct_fields__, "after")


def request_fields(options: Mapping[str, Any], keeper: Keeper) -> dict[str, Any]:
    """The fields of a request that `options` mean, for a task of `keeper`'s workshop.

    Raises:
        TypeError: an unknown option, with the nearest; one of a wrong type; a future of another workshop.
        ValueError: a text that is no size.
    """
    if not isinstance(options, Mapping):
        raise TypeError(f'options is a dict such as {{"priority": 3}}, not {options!r:.80}')
    for name in options:
        if name not in NAMES:
            raise TypeError(unknown("option", name, NAMES))
    given = {name: value for name, value in options.items() if name != "after"}
    check_labels(given.get("labels"))
    if "limits" in given:
        if not isinstance(given["limits"], Limits):
            raise TypeError(
                f"limits: expected Limits(memory_bytes=...), not {type(given['limits']).__name__}"
            )
        given["limits"] = asdict(given["limits"])  # so that its fields are looked at too
    try:
        read = msgspec.convert(given, Options)
    except msgspec.ValidationError as problem:
        raise TypeError(_words(str(problem))) from None
    fields = {name: value for name in PLAIN if (value := getattr(read, name)) is not None}
    return fields | {"limits": _limits(read), "after": task_ids(options.get("after") or (), keeper)}


def check_labels(labels: object) -> None:
    """Check that labels are a dictionary of texts, if any are given.

    Raises:
        TypeError: they are not; says which one, and what to write.
    """
    if labels is None:
        return
    if not isinstance(labels, Mapping):
        raise TypeError(f'labels is a dict such as {{"study": "a"}}, not {labels!r:.80}')
    for name, value in labels.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError(
                f"labels are texts with texts, not {name!r:.40}: {value!r:.40}; "
                f"write {{{str(name)!r:.40}: {str(value)!r:.40}}}"
            )


def _words(problem: str) -> str:
    words, _, path = problem.partition(" - at `$.")
    return f"{path.rstrip('`')}: {words[:1].lower()}{words[1:].replace('`', '')}"


def _limits(read: Options) -> Limits:
    told = {
        "memory_bytes": _size("memory", read.memory),
        "cpu_s": read.cpu_s,
        "processes": read.processes,
        "output_bytes": _size("output", read.output),
    }
    return replace(read.limits, **{name: value for name, value in told.items() if value is not None})


def _size(name: str, value: Size | None) -> int | None:
    if not isinstance(value, str):
        return value
    try:
        return parse_size(value)
    except ValueError as error:
        raise ValueError(f"{name} {error}") from None


def whole_number(name: str, value: object) -> int:
    """`value` as an int, also where it is one of NumPy.

    Raises:
        TypeError: it is no whole number.
    """
    try:
        return operator.index(cast("SupportsIndex", value))
    except TypeError:
        raise TypeError(f"{name} must be a whole number, not {value!r:.80}") from None


def most(value: object) -> int | None:
    """The `limit` that is meant, or None for all.

    Raises:
        TypeError: it is no whole number.
        ValueError: it is below 0.
    """
    if value is None:
        return None
    limit = whole_number("limit", value)
    if limit < 0:
        raise ValueError(f"limit must be 0 or more, or None for all, not {limit}")
    return limit


def task_ids(after: object, keeper: Keeper) -> tuple[TaskId, ...]:
    """The ids of `after`: an id or what has one, as a future, or any number of them.

    Raises:
        TypeError: something else, or a future of another workshop.
    """
    is_one = isinstance(after, str) or hasattr(after, "task_id") or not isinstance(after, Iterable)
    items = (after,) if is_one else cast("Iterable[object]", after)
    return tuple(dict.fromkeys(_task_id(item, keeper) for item in items))


def _task_id(item: object, keeper: Keeper) -> TaskId:
    if isinstance(item, TaskFuture):
        return same_workshop(item, keeper).task_id
    task_id = getattr(item, "task_id", item)
    if isinstance(task_id, str):
        return TaskId(task_id)
    raise TypeError(f"after: {type(item).__name__} is neither a task's future nor its id")
