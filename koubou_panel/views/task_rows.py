"""Tasks as the rows of a list, and what a search line is completed with: plain data for the cards."""

from __future__ import annotations

from datetime import UTC, tzinfo
from functools import cache
from zoneinfo import ZoneInfo

from koubou_panel.core.ports import Shop
from koubou_panel.core.query import complete, values_of
from koubou_panel.core.records import Task
from koubou_panel.reactive.models import label_of, run_seconds
from koubou_panel.registry import names
from koubou_panel.views.escape import line
from koubou_panel.views.language import _, later
from koubou_panel.views.rows import MARK, Row
from koubou_panel.views.words import duration

LABEL = 60
WHOLE = 240
OFFERED = 200

_MARKS = {"pending": "wait", "in_progress": "run", **MARK}
STATUS_WORDS = {
    "pending": later("Waiting"),
    "in_progress": later("Running"),
    "completed": later("Completed"),
    "failed": later("Failed"),
    "cancelled": later("Cancelled"),
}
_HELP = {
    "status": later("how it stands"),
    "kind": later("what sort of task"),
    "script": later("runs of a script"),
    "name": later("a part of its name"),
    "reason": later("why it ended"),
    "worker": later("who ran it"),
    "label": later("a label, or label=value"),
    "since": later("ended or submitted since"),
    "until": later("ended or submitted before"),
}


def task_row(task: Task) -> Row:
    """One task: what the clock changes is left to the browser."""
    request = task.request
    took_s = run_seconds(task) if task.is_finished else None
    return {
        "id": task.task_id,
        "label": line(label_of(task), LABEL),
        "full": line(request.summary or request.name, WHOLE),
        "kind": line(request.kind, 24),
        "script": line(request.script_name or "", 40),
        "status": task.status,
        "mark": _MARKS[task.status],
        "word": _("Stopping") if task.stopping and not task.is_finished else _(STATUS_WORDS[task.status]),
        "worker": line(task.worker_id or "", 24),
        "created_at": request.created_at,
        "started_at": task.started_at,
        "finished_at": task.finished_at,
        "took": "" if took_s is None else duration(took_s),
        "reason": line(task.reason or "", 24),
        "why": line(task.message or "", 160),
    }


@cache
def kinds() -> tuple[str, ...]:
    """The kinds of task that there are. Looked up once: all that is installed is asked."""
    return tuple(names("kinds"))


def zone_of(name: object) -> tzinfo:
    """The time zone of a browser, by its name; UTC where it tells none that is known here."""
    if not isinstance(name, str) or not 0 < len(name) < 64:
        return UTC
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        return UTC


def completions(shop: Shop, text: object, caret: object) -> Row:
    """What may stand in place of `begin` to `end` of a search line: `items` of text and what it means."""
    if not isinstance(text, str) or not isinstance(caret, int) or len(text) > 1_000:
        return {"begin": 0, "end": 0, "items": []}
    state = shop.state
    scripts = sorted(state.scripts)[:OFFERED]
    known = values_of(scripts, sorted(state.workers), list(kinds()))
    found = complete(text, caret, known)
    notes = STATUS_WORDS if found.key == "status" else {}
    items = []
    for item in found.items:
        key, _colon, value = item.partition(":")
        note = notes.get(value, "") if found.key else _HELP.get(key, "")
        items.append([line(item, WHOLE), _(note) if note else ""])
    return {"begin": found.begin, "end": found.end, "items": items}
