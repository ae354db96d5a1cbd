"""How tasks and workers look in a terminal, and as JSON. User text is shown without its control characters."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from koubou_panel.cli.ending import clean
from koubou_panel.core.quantity import size_text
from koubou_panel.core.records import Progress, Task
from koubou_panel.wire.records import task_record

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

STYLES = {
    "completed": "green",
    "failed": "red",
    "cancelled": "yellow",
    "in_progress": "cyan",
    "pending": "dim",
    "running": "green",
    "idle": "green",
    "busy": "cyan",
    "starting": "yellow",
    "restarting": "yellow",
    "ok": "green",
    "warning": "yellow",
    "missing": "red",
    "unresponsive": "red",
    "paused": "yellow",
    "stopping": "yellow",
}
WIDE = 10_000
GAP = 2
SHORTEST = 10
NAME_CHARS = 24
EXACT = 10  # from here on a whole number says enough
BYTE_UNITS = frozenset({"B", "b", "byte", "bytes"})


def print_json(document: object) -> None:
    """One JSON document on stdout."""
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(document), indent=2).decode() + "\n")


def print_tasks_json(tasks: Sequence[Task], *, total: int, cursor: str | None) -> None:
    """Tasks as the protocol lists them."""
    print_json({"tasks": [task_record(task) for task in tasks], "total": total, "cursor": cursor})


def clean_lines(text: str) -> str:
    """`text` line by line, without what a terminal would obey."""
    return "\n".join(clean(line) for line in text.expandtabs().splitlines())


def duration(seconds: float | None) -> str:
    """Seconds for people: `0.42 s`, `12 s`, `3 m 04 s`, `2 h 05 m`, `3 d 4 h`."""
    if seconds is None:
        return ""
    if seconds < 10:
        return f"{max(0.0, seconds):.2f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} m {whole % 60:02d} s"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} m"
    return f"{whole // 86_400} d {whole % 86_400 // 3600} h"


def size(size_bytes: float | None) -> str:
    """Bytes for people: `512 B`, `1.4 MB`."""
    return "" if size_bytes is None else size_text(size_bytes)


def ago(at: float | None, now: float) -> str:
    """How long ago, for people; whole seconds."""
    if at is None:
        return ""
    seconds = max(0.0, now - at)
    return f"{seconds:.0f} s" if seconds < 10 else duration(seconds)


def console() -> Console:
    """Writes to stdout: with colours on a terminal alone, never cutting what goes into a pipe."""
    from rich.console import Console

    if sys.stdout.isatty():
        return Console(highlight=False, markup=False, emoji=False)
    return Console(
        width=WIDE, highlight=False, markup=False, emoji=False, no_color=True, force_terminal=False
    )


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, status: int | None = None) -> None:
    """Print aligned columns; the last is cut to the terminal's width, column `status` coloured by its word."""
    from rich.cells import cell_len
    from rich.table import Table
    from rich.text import Text

    out = console()
    cells = [[clean(cell) for cell in row] for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(columns, *cells, strict=True)]
    rest = max(SHORTEST, out.width - sum(widths[:-1]) - GAP * (len(widths) - 1))
    grid: Table = Table(
        box=None, padding=(0, GAP, 0, 0), pad_edge=False, header_style="bold", show_edge=False
    )
    for name, width in zip(columns, [*widths[:-1], min(widths[-1], rest)], strict=True):
        grid.add_column(name, no_wrap=True, overflow="ellipsis", width=width)
    for row in cells:
        texts = [Text(cell) for cell in row]
        if status is not None:
            texts[status].stylize(STYLES.get(row[status].partition(" ")[0], ""))
        grid.add_row(*texts)
    if out.is_terminal:
        out.print(grid, crop=False)
        return
    with out.capture() as captured:
        out.print(grid)
    for line in captured.get().splitlines():
        print(line.rstrip())


def shortened(text: str, width: int) -> str:
    """`text` in at most `width` characters, cut in the middle."""
    if len(text) <= width:
        return text
    head = (width - 1) // 2
    return f"{text[:head]}…{text[len(text) - (width - 1 - head) :]}"


def task_table(tasks: Sequence[Task]) -> None:
    """Print tasks as a table; how far they are has a column if one of them tells."""
    now = time.time()
    rows = [_row(task, now) for task in tasks]
    shown = [place for place in range(len(TASK_COLUMNS)) if place != STATE or any(row[STATE] for row in rows)]
    table(
        [TASK_COLUMNS[place] for place in shown],
        [[row[place] for place in shown] for row in rows],
        status=1,
    )


TASK_COLUMNS = ("ID", "STATUS", "AGE", "TOOK", "STATE", "NAME", "COMMAND")
STATE = 4


def _row(task: Task, now: float) -> tuple[str, ...]:
    request = task.request
    return (
        task.task_id,
        status_words(task),
        ago(request.created_at, now),
        duration(took_s(task, now)),
        state_words(task),
        shortened(request.name, NAME_CHARS),
        request.summary,
    )


def status_words(task: Task) -> str:
    """The status, with what matters beside it: the exit code, the reason, how far."""
    if task.status == "failed":
        return f"failed ({task.exit_code})" if task.reason == "exit" else f"failed ({task.reason})"
    if task.status == "in_progress" and task.stopping:
        return "in_progress (stopping)"
    return f"cancelled ({task.reason})" if task.reason == "dependency" else task.status


def model_words(task: Task) -> str:
    """The model that a prompt went to, and whether its answer was cut off; empty for other tasks, and before."""
    if task.request.kind != "prompt" or task.progress is None:
        return ""
    limit = task.request.spec.get("max_tokens") or task.usage.completion_tokens
    model, cut, _ = task.progress.message.partition(", cut off")
    return f"{model}, its answer cut off at {limit} tokens" if cut else model


def prompt_words(spec: Mapping[str, object]) -> str:
    """What a prompt asks, whole; of a conversation who said what."""
    messages = spec.get("messages")
    if isinstance(messages, list | tuple):
        return "\n".join(f"{one.get('role')}: {one.get('content')}" for one in messages)
    return str(spec.get("prompt") or "")


def progress_words(progress: Progress | None) -> str:
    """How far a run is: `37 % · 12/80 files · 3.1 files/s · 20 s left`, as far as it is known."""
    if progress is None:
        return ""
    amount = _amount(progress)
    parts = [
        "" if progress.fraction is None else f"{math.floor(100 * progress.fraction)} %",
        amount,
        "" if progress.rate_per_s is None else f"{_count(progress.rate_per_s, progress.unit)}/s",
        "" if progress.eta_s is None else f"{duration_left(progress.eta_s)} left",
        progress.message,
    ]
    return " · ".join(part for part in parts if part)


def _amount(progress: Progress) -> str:
    if progress.done is None:
        return ""
    done = _count(progress.done, "" if progress.total is not None else progress.unit)
    if progress.total is None:
        return done
    if progress.unit in BYTE_UNITS:
        return f"{size_text(progress.done)}/{size_text(progress.total)}"
    return f"{done}/{_count(progress.total, progress.unit)}"


def _count(number: float, unit: str) -> str:
    if unit in BYTE_UNITS:
        return size_text(number)
    short = f"{number:.0f}" if number >= EXACT or number == int(number) else f"{number:.2g}"
    return f"{short} {unit}" if unit and unit != "%" else short


def duration_left(seconds: float) -> str:
    """Seconds to come, for people: whole ones."""
    return f"{seconds:.0f} s" if seconds < EXACT else duration(seconds)


def state_words(task: Task) -> str:
    """What an unfinished task is about: how far it is, or what it waits for."""
    if task.status == "in_progress":
        return progress_words(task.progress)
    if task.status != "pending" or not task.waits_for:
        return "is tried again" if task.status == "pending" and task.not_before is not None else ""
    first, more = task.waits_for[0], len(task.waits_for) - 1
    return f"waits for {first}{f' and {more} more' if more else ''}"


def took_s(task: Task, now: float) -> float | None:
    """How long the last run took, or has taken so far."""
    if task.usage.duration_s is not None:
        return task.usage.duration_s
    if task.started_at is None:
        return None
    return (task.finished_at or now) - task.started_at


def print_fields(fields: Iterable[tuple[str, str]]) -> None:
    """Names and values, one a line; empty ones left out, longer ones indented below."""
    shown = [(name, text) for name, text in fields if text]
    width = max((len(name) for name, _ in shown), default=0)
    bold, plain = ("\x1b[1m", "\x1b[0m") if _has_colour() else ("", "")
    for name, text in shown:
        first, *more = clean_lines(text).splitlines() or [""]
        print(f"{bold}{name:<{width}}{plain}  {first}")
        for line in more:
            print(f"{'':<{width}}  {line}")


def _has_colour() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
