"""The search line: `status:failed kind:script since:1h train`. What it asks for, and back to a line.

A word is `qualifier:value`, or free text that must be in a task's name or in what it is asked to do. A value with
spaces stands in quotation marks. `task_query` puts times in; `matches` is what the archive's SQL does, for one record.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, tzinfo
from typing import NamedTuple, cast, get_args

from msgspec import Struct

from koubou_panel.core.ports import TaskQuery
from koubou_panel.core.records import STATUSES, Reason, Request, Status, Task
from koubou_panel.core.suggest import nearest, unknown
from koubou_panel.errors import Refused

MOST_CHARS = 1_000
MOST_PARTS = 32
SHOWN_CHARS = 60

REASONS: tuple[str, ...] = get_args(Reason)
QUALIFIERS = ("status", "kind", "script", "name", "reason", "worker", "label", "since", "until")

_ALIASES = {"running": "in_progress", "waiting": "pending", "done": "completed", "canceled": "cancelled"}
_SAID = ("waiting", "running", "completed", "failed", "cancelled")  # as the page calls them
_PART = re.compile(r'(?:([A-Za-z_]+):)?(?:"((?:[^"\\]|\\.)*)(?:"|$)|(\S*))')
_QUALIFIED = re.compile(r"([A-Za-z_]+):")
_ESCAPED = re.compile(r"\\(.)")
_TO_QUOTE = re.compile(r'[\s"\\]')
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_SPAN = re.compile(r"(?:[0-9]{1,6}[smhdw])+")
_STEP = re.compile(r"([0-9]+)([smhdw])")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(?:T[0-9]{2}:[0-9]{2}(?::[0-9]{2})?)?")
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_DAYS = {"today": 0, "yesterday": -1}
_YEARS = (1971, 9000)
_DAY = timedelta(days=1)


class Search(Struct, frozen=True, kw_only=True):
    """What a search line asks for; `since` and `until` as they were written, `labels` by (key, value or None: any)."""

    status: Status | None = None
    kind: str | None = None
    script: str | None = None
    name: str | None = None
    reason: str | None = None
    worker: str | None = None
    since: str | None = None
    until: str | None = None
    labels: tuple[tuple[str, str | None], ...] = ()
    words: tuple[str, ...] = ()


class Part(NamedTuple):
    """One word of a line, from `begin` to `end`: `key` is its qualifier, in lower case, empty for free text."""

    begin: int
    end: int
    key: str
    value: str


def parts_of(text: str) -> list[Part]:
    """The words of a line. Whatever it holds, this raises nothing; a quotation mark may be left open."""
    found: list[Part] = []
    at = 0
    while at < len(text):
        if text[at].isspace():
            at += 1
            continue
        shape = _PART.match(text, at)
        assert shape is not None  # noqa: S101 - every part of it may be empty
        key, quoted, plain = shape.groups()
        value = plain if quoted is None else _ESCAPED.sub(r"\1", quoted)
        end = max(shape.end(), at + 1)
        found.append(_part(text, at, end, key, value, is_quoted=quoted is not None))
        at = end
    return found


def _part(text: str, begin: int, end: int, key: str | None, value: str, *, is_quoted: bool) -> Part:
    """`Error:`, `std::sort` and an address are free text, as is everything that stands in quotation marks."""
    known = (key or "").lower()
    if key is None or known in QUALIFIERS:
        return Part(begin, end, known, value)
    if not is_quoted and (not value or value[0] in ":/\\"):
        return Part(begin, end, "", text[begin:end])
    return Part(begin, end, known, value)


def parse(text: str, *, kinds: tuple[str, ...] = ()) -> Search:
    """What a line asks for.

    Args:
        text: the line.
        kinds: the kinds of task that there are; empty: any is taken.

    Raises:
        Refused: `invalid`, saying what to write; `field` names the qualifier.
    """
    if len(text) > MOST_CHARS:
        raise Refused("invalid", f"a search must have at most {MOST_CHARS} characters", field="q")
    if _SURROGATE.search(text):
        raise Refused("invalid", "the search has characters that UTF-8 does not have", field="q")
    parts = [part for part in parts_of(_CONTROL.sub(" ", text)) if part.key or part.value.strip()]
    if len(parts) > MOST_PARTS:
        raise Refused("invalid", f"a search must have at most {MOST_PARTS} words", field="q")
    told: dict[str, object] = {}
    labels: list[tuple[str, str | None]] = []
    for part in parts:
        if part.key == "label":
            labels.append(_label(part.value))
        elif part.key:
            _tell(told, part, kinds)
    words = tuple(part.value for part in parts if not part.key)
    return Search(labels=tuple(dict.fromkeys(labels)), words=tuple(dict.fromkeys(words)), **told)  # type: ignore[arg-type]


def _tell(told: dict[str, object], part: Part, kinds: tuple[str, ...]) -> None:
    key, value = part.key, part.value
    if key not in QUALIFIERS:
        near = nearest(key, QUALIFIERS)
        hint = f"did you mean {near}:?" if near else f"known: {', '.join(QUALIFIERS)}"
        words = f'there is no {key[:SHOWN_CHARS]}: to search by; {hint} As plain text it stands in quotation marks: "…"'
        raise Refused("invalid", words, field=key[:SHOWN_CHARS], nearest=near)
    if not value.strip():
        raise Refused("invalid", f"{key}: wants {_WANTED[key]}", field=key)
    if key in told:
        raise Refused("invalid", f"{key}: stands there twice; a search takes one", field=key)
    told[key] = _value(key, value, kinds)


def _value(key: str, value: str, kinds: tuple[str, ...]) -> str:
    known: tuple[str, ...] = {"status": STATUSES, "kind": kinds, "reason": REASONS}.get(key, ())
    if key in ("status", "kind", "reason"):
        value = value.lower()
    if key == "status":
        value = _ALIASES.get(value, value)
    if known and value not in known:
        near = nearest(value, (*known, *_ALIASES) if key == "status" else known)
        names = known if near or key != "status" else _SAID
        raise Refused("invalid", unknown(key, value, names), field=key, nearest=near)
    if key in ("since", "until"):
        value = value.strip()
        _moment(key, value, now=0.0, zone=UTC)
    return value


def _label(value: str) -> tuple[str, str | None]:
    key, sign, wanted = value.partition("=")
    if not key.strip():
        raise Refused("invalid", f"label: wants {_WANTED['label']}", field="label")
    return key, wanted if sign else None


_WANTED = {
    "status": f"one of {', '.join(_SAID)}",
    "kind": "a kind of task, as in kind:script",
    "script": "a script's name, as in script:backup",
    "name": "a part of a task's name, as in name:train",
    "reason": f"one of {', '.join(REASONS)}",
    "worker": "a worker's name, as in worker:worker-1",
    "label": "a label, as in label:team or label:team=vision",
    "since": "a time: 30m, 2h, 1d12h (that long ago), today, 2026-11-21 or 2026-11-21T14:30",
    "until": "a time: 30m, 2h, 1d12h (that long ago), today, 2026-11-21 or 2026-11-21T14:30",
}


def _moment(key: str, value: str, *, now: float, zone: tzinfo) -> float:
    """The UTC second that a time means; a day as the end of a span is the day's own end.

    Raises:
        Refused: it is no time.
    """
    if _SPAN.fullmatch(value):
        return now - sum(int(number) * _SECONDS[unit] for number, unit in _STEP.findall(value))
    begin = _begin(value, now=now, zone=zone)
    if begin is None:
        words = f"{key}: wants {_WANTED[key]}, not {value[:SHOWN_CHARS]!r}"
        raise Refused("invalid", words, field=key)
    is_day = "T" not in value
    return (begin + _DAY if is_day and key == "until" else begin).timestamp()


def _begin(value: str, *, now: float, zone: tzinfo) -> datetime | None:
    """The moment that is written so; None: it is none."""
    if value in _DAYS:
        here = datetime.fromtimestamp(now, zone).replace(hour=0, minute=0, second=0, microsecond=0)
        return here + _DAYS[value] * _DAY
    if not _DATE.fullmatch(value):
        return None
    try:
        found = datetime.fromisoformat(value).replace(tzinfo=zone)
    except ValueError:
        return None
    return found if _YEARS[0] <= found.year <= _YEARS[1] else None


def format_search(search: Search) -> str:
    """The line that asks for the same: `parse` gives `search` back."""
    told = [
        f"{key}:{_quoted(value)}" for key in QUALIFIERS if key != "label" and (value := getattr(search, key))
    ]
    labels = [f"label:{_quoted(key if value is None else f'{key}={value}')}" for key, value in search.labels]
    words = [f'"{_escaped(word)}"' if _QUALIFIED.match(word) else _quoted(word) for word in search.words]
    return " ".join([*told, *labels, *words])


def _quoted(value: str) -> str:
    return f'"{_escaped(value)}"' if _TO_QUOTE.search(value) else value


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"')


def task_query(search: Search, *, now: float, zone: tzinfo = UTC) -> TaskQuery:
    """The question that a search is at the moment `now`.

    Args:
        search: what `parse` gave.
        now: UTC seconds, from which spans count back.
        zone: in which days begin.

    Raises:
        Refused: `invalid`: it begins after its end.
    """
    since = None if search.since is None else _moment("since", search.since, now=now, zone=zone)
    until = None if search.until is None else _moment("until", search.until, now=now, zone=zone)
    if since is not None and until is not None and since >= until:
        words = f"since:{search.since} is later than until:{search.until}: nothing can be between them"
        raise Refused("invalid", words, field="since")
    return TaskQuery(
        status=search.status,
        kind=search.kind,
        script=search.script,
        name=search.name,
        reason=search.reason,
        worker=search.worker,
        since=since,
        until=until,
        labels=search.labels,
        words=search.words,
    )


def searched_text(request: Request) -> str:
    """What a search for words looks at."""
    return f"{request.name}\n{request.summary}".lower()


def moment_of(task: Task) -> float:
    """The time that `since` and `until` look at: when a task ended, or was submitted where it has not."""
    return task.request.created_at if task.finished_at is None else task.finished_at


def matches(task: Task, query: TaskQuery) -> bool:
    """Whether a task is one that is asked for."""
    request = task.request
    if query.script is not None and request.script_name != query.script:
        return False
    if query.status is not None and task.status != query.status:
        return False
    if query.kind is not None and request.kind != query.kind:
        return False
    if query.reason is not None and not (task.is_finished and task.reason == query.reason):
        return False
    if query.worker is not None and task.worker_id != query.worker:
        return False
    return _has_text(request, query) and _has_labels(request, query) and _is_within(task, query)


def _has_text(request: Request, query: TaskQuery) -> bool:
    if query.name is not None and query.name.lower() not in request.name.lower():
        return False
    wanted = (*query.words, query.text or "")
    return not any(wanted) or all(word.lower() in searched_text(request) for word in wanted)


def _has_labels(request: Request, query: TaskQuery) -> bool:
    return all(
        key in request.labels if value is None else request.labels.get(key) == value
        for key, value in query.labels
    )


def _is_within(task: Task, query: TaskQuery) -> bool:
    if query.since is None and query.until is None:
        return True
    at = moment_of(task)
    return (query.since is None or at >= query.since) and (query.until is None or at < query.until)


class Completion(NamedTuple):
    """What may stand in place of the characters from `begin` to `end`; `key` is the qualifier, empty for these."""

    begin: int
    end: int
    key: str
    items: list[str]


def complete(text: str, caret: int, known: dict[str, list[str]], *, most: int = 8) -> Completion:
    """How the word before the caret may go on.

    Args:
        text: the line.
        caret: a place in it.
        known: values by qualifier.
        most: so many at most.
    """
    caret = max(0, min(caret, len(text)))
    part = next((part for part in reversed(parts_of(text[:caret])) if part.end == caret), None)
    if part is None or text[caret - 1].isspace():
        return Completion(caret, caret, "", [f"{key}:" for key in QUALIFIERS][: most + 1])
    typed = text[part.begin : caret]
    key, colon, _ = typed.partition(":")
    if not colon:
        found = [f"{name}:" for name in QUALIFIERS if name.startswith(typed.lower())]
        return Completion(part.begin, caret, "", found)
    key = key.lower()
    wanted = part.value.lower()
    values = [value for value in known.get(key, []) if wanted in value.lower()]
    values.sort(key=lambda value: not value.lower().startswith(wanted))
    return Completion(part.begin, caret, key, [f"{key}:{_quoted(value)}" for value in values[:most]])


def values_of(scripts: list[str], workers: list[str], kinds: list[str]) -> dict[str, list[str]]:
    """The values to offer by qualifier; the names come from the workshop."""
    times = ["10m", "1h", "6h", "1d", "7d", "today", "yesterday"]
    return {
        "status": list(cast("tuple[str, ...]", STATUSES)),
        "kind": kinds,
        "script": scripts,
        "reason": list(REASONS),
        "worker": workers,
        "since": times,
        "until": times,
    }
