"""`shop.snapshot()`: the workshop at one moment, as values, JSON or data frames."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import msgspec

from koubou_panel.core.records import STATUSES
from koubou_panel.errors import Refused
from koubou_panel.exporters import json as json_format
from koubou_panel.wire.records import (
    LimitsRecord,
    ProgressRecord,
    TaskRecord,
    UseRecord,
    WorkerRecord,
)

if TYPE_CHECKING:
    import pandas as pd

LIMIT = 10_000
_NESTED: dict[str, tuple[str, ...]] = {
    "progress": ProgressRecord.__struct_fields__,
    "error": ("type", "message", "traceback"),
    "limits": LimitsRecord.__struct_fields__,
    "use": UseRecord.__struct_fields__,
}
_CATEGORIES = frozenset({"kind", "reason", "assigned_to", "node", "on_crash", "submitted_by", "script_name"})


class Snapshot:
    """A workshop at one moment; made by `Workshop.snapshot`, or read from what `koubou export` wrote.

    Args:
        document: as `to_dict` gives it.

    Raises:
        Refused: `invalid`: that is no such document.
    """

    def __init__(self, document: Mapping[str, Any]) -> None:
        if "koubou" not in document or "exported_at" not in document:
            raise Refused("invalid", "this is no snapshot: `koubou export` and shop.snapshot() make one")
        self._document = dict(document)

    @classmethod
    def from_json(cls, path: str | Path) -> Snapshot:
        """The snapshot that `to_json` or `koubou export` wrote to `path`, or the text itself.

        Raises:
            OSError: the file cannot be read.
            Refused: `invalid`: it holds something else.
        """
        is_text = isinstance(path, str) and path.lstrip().startswith("{")
        try:
            with io.BytesIO(str(path).encode()) if is_text else Path(path).open("rb") as file:
                document = json_format.read(file)
        except msgspec.DecodeError as error:
            what = "the text" if is_text else path
            raise Refused("invalid", f"{what} is no snapshot ({error})") from None
        return cls(document)

    @property
    def taken_at(self) -> str:
        """When it was taken: ISO 8601, UTC."""
        return str(self._document["exported_at"])

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values, ready for JSON: the protocol's records of tasks and workers, and the samples."""
        return dict(self._document)

    def to_json(self, path: str | Path | None = None) -> str | None:
        """All of it as JSON: written to `path`, or given as text where there is none.

        Raises:
            OSError: the file cannot be written.
        """
        file = io.BytesIO()
        json_format.write(self._document, file)
        if path is None:
            return file.getvalue().decode()
        Path(path).write_bytes(file.getvalue())
        return None

    # -- data frames ------------------------------------------------------------------------------------------

    @cached_property
    def tasks(self) -> pd.DataFrame:
        """The tasks by `task_id`, newest first.

        Times are aware (UTC), statuses ordered categories, counts and bytes integers that may be missing. Records
        within a record are columns: `progress_fraction`, `error_type`, `limits_memory_bytes`, `use_cpu_percent`.
        """
        rows = [_flat(task) for task in self._rows("tasks")]
        return _frame(rows, _task_columns(), "task_id")

    @cached_property
    def workers(self) -> pd.DataFrame:
        """The workers by `worker_id`, with what they did and use."""
        return _frame(self._rows("workers"), _columns(WorkerRecord), "worker_id")

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """The samples of the host by the moment at which they were taken (aware, UTC); units are in the names."""
        import pandas as pd

        frame = pd.DataFrame(self._rows("metrics"), columns=None if self._rows("metrics") else ["at"])
        frame["at"] = pd.to_datetime(frame["at"], utc=True, format="ISO8601")
        return frame.set_index("at")

    def _rows(self, name: str) -> list[dict[str, Any]]:
        return list(self._document.get(name) or [])

    # -- for people -------------------------------------------------------------------------------------------

    def __repr__(self) -> str:
        return f"<Snapshot {self.taken_at}: {', '.join(self._words())}>"

    def _words(self) -> list[str]:
        counts = self._counts()
        told = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
        tasks = f"{len(self._rows('tasks'))} tasks" + (f" ({told})" if told else "")
        return [tasks, f"{len(self._rows('workers'))} workers", f"{len(self._rows('metrics'))} samples"]

    def _counts(self) -> dict[str, int]:
        statuses = [task.get("status") for task in self._rows("tasks")]
        return {status: statuses.count(status) for status in STATUSES}

    def _repr_html_(self) -> str:
        """A small table: what there is, and how it stands."""
        rows = [("taken", self.taken_at), *zip(("tasks", "workers", "samples"), self._words(), strict=True)]
        cells = "".join(
            f'<tr><th style="text-align:left">{escape(name)}</th>'
            f'<td style="text-align:left">{escape(words)}</td></tr>'
            for name, words in rows
        )
        return f"<table><caption>Snapshot of a Koubou workshop</caption>{cells}</table>"


def _flat(task: Mapping[str, Any]) -> dict[str, Any]:
    """A task's record with the fields of the records in it beside its own."""
    row = {name: value for name, value in task.items() if name not in _NESTED}
    for name, fields in _NESTED.items():
        inner = task.get(name) or {}
        row |= {f"{name}_{field}": inner.get(field) for field in fields}
    return row


def _columns(record: type[msgspec.Struct]) -> dict[str, str | None]:
    """The columns of a record's scalar fields, and the dtype of each; None: as pandas finds it."""
    return {field.name: _dtype(field.name, field.type) for field in msgspec.structs.fields(record)}


def _task_columns() -> dict[str, str | None]:
    columns = _columns(TaskRecord)
    for name in _NESTED:
        del columns[name]
    for name, record in (("progress", ProgressRecord), ("limits", LimitsRecord), ("use", UseRecord)):
        inner = _columns(record)  # the record itself may be missing
        columns |= {f"{name}_{key}": "Int64" if dtype == "int64" else dtype for key, dtype in inner.items()}
    return columns | {f"error_{field}": None for field in _NESTED["error"]}


def _dtype(name: str, of: Any) -> str | None:
    kinds = set(get_args(of)) - {type(None)} or {of}
    if name == "status" or name in _CATEGORIES:
        return "category"
    if name.endswith("_at"):
        return "time"
    if kinds == {int}:
        return "Int64" if of is not int else "int64"
    if kinds <= {int, float}:
        return "float64"
    return None


def _frame(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str | None], index: str) -> pd.DataFrame:
    import pandas as pd

    frame = pd.DataFrame(list(rows), columns=list(columns))
    for name, dtype in columns.items():
        if dtype == "time":
            frame[name] = pd.to_datetime(frame[name], utc=True, format="ISO8601")
        elif name == "status" and index == "task_id":
            frame[name] = pd.Categorical(frame[name], categories=list(STATUSES), ordered=True)
        elif dtype is not None:
            lacks_some = dtype == "int64" and frame[name].isna().any()  # of a version without it
            frame[name] = frame[name].astype("Int64" if lacks_some else dtype)
    return frame.set_index(index)
