"""The tail of what running tasks write: read by offset, cut into lines, bounded whatever they write."""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Iterable, Reversible
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple, Protocol

from koubou_panel.core.ports import Shop
from koubou_panel.core.records import Task, TaskId
from koubou_panel.errors import Refused
from koubou_panel.reactive.models import label_of
from koubou_panel.views.ansi import LineReader, Run
from koubou_panel.views.escape import line
from koubou_panel.views.language import _, later
from koubou_panel.views.words import size

KEEP_LINES = 200
KEEP_SOURCES = 8
READ_BYTES = 65_536
FIRST_BYTES = 8_192
LABEL_LIMIT = 24
TAG_LIMIT = 15
ID_TAIL = 4
HUES = 6
MOST_UNSEEN = 4
MOST_BEFORE = 2
MOST_NAMES = 100
MOST_ENDED = 30

_NOTHING_YET: frozenset[str] = frozenset({""})

Line = tuple[str, list[Run]]
"""A task's id and one line of its output."""


class Writes(Protocol):
    """A task, as far as its output goes: a `TaskModel`, or what `ended_of` gives."""

    @property
    def task_id(self) -> str:
        """Whose output it is."""

    @property
    def label(self) -> str:
        """What the task is called."""

    @property
    def output_bytes(self) -> int:
        """How much it has written."""

    @property
    def is_finished(self) -> bool:
        """Whether no more is to come."""


class Ended(NamedTuple):
    """A task that writes no more."""

    task_id: str
    label: str
    output_bytes: int
    is_finished: bool = True


def ended_of(latest_last: Reversible[Task]) -> list[Ended]:
    """The last few tasks that ended, the latest first. A `TaskModel` of each would cost ten times as much."""
    latest = islice(reversed(latest_last), MOST_ENDED)
    return [Ended(task.task_id, label_of(task), task.usage.output_bytes) for task in latest]


def _from_line_start(text: str) -> str:
    """`text` from where a line begins: after a line's end, or where one is drawn anew, as progress bars are.

    Where none begins, it is the end of one long line.
    """
    found = re.search(r"[\r\n]", text)
    rest = text[found.end() :] if found else ""
    return rest or f"… {text}"


@dataclass(slots=True)
class _Source:
    task_id: str
    label: str
    full: str
    hue: int
    size: int = 0
    end: int | None = None
    is_finished: bool = False
    reader: LineReader = field(default_factory=LineReader)

    def shown(self, *, is_alone: bool) -> dict[str, object]:
        """What the card is told of it; where others have its name, with the end of its id."""
        ending = "" if is_alone else f" ·{self.task_id[-ID_TAIL:]}"
        return {
            "id": self.task_id,
            "label": line(self.full, LABEL_LIMIT - len(ending)) + ending,
            "tag": line(self.full, TAG_LIMIT - len(ending)) + ending,
            "full": self.full + ending,
            "hue": self.hue,
            "quiet": self.is_finished,
        }


class OutputTail:
    """Follows the output of at most eight tasks. Loop thread only.

    Args:
        shop: where output is read.
        first_bytes: how much of what was written before is read.

    """

    def __init__(self, shop: Shop, first_bytes: int = FIRST_BYTES) -> None:
        """Follow nothing yet."""
        self._first_bytes = first_bytes
        self.hint = later("What running tasks print appears here as it is printed.")
        self._shop = shop
        self._sources: dict[str, _Source] = {}
        self._ended = _NOTHING_YET
        self._kept: deque[Line] = deque(maxlen=KEEP_LINES)
        self._fresh: deque[Line] = deque(maxlen=KEEP_LINES)
        self._is_new = True
        self._hues: dict[str, int] = {}
        self._left: dict[str, int | None] = {}

    @property
    def is_new(self) -> bool:
        """Whether there is something that `take` has not given yet."""
        return self._is_new or self.has_lines

    @property
    def has_lines(self) -> bool:
        """Whether there are lines that `take` has not given yet."""
        return bool(self._fresh)

    def follow(self, running: Iterable[Writes], ended: Iterable[Writes]) -> bool:
        """Follow what runs, and to its end what no longer does; whether there is something to read.

        At first the last ended tasks are shown; later of those that came and went unseen the last few.

        Args:
            running: the tasks that run.
            ended: the tasks that ended, the latest first.

        """
        # Of more than can be followed the latest that print: chosen anew only when one starts, prints or ends.
        for model in sorted(running, key=lambda model: model.output_bytes > 0)[-KEEP_SOURCES:]:
            self._see(model)
        ended = list(ended)
        fresh = self._unseen(ended)
        for model in reversed(ended):
            if model.task_id in self._sources or model in fresh:
                self._see(model)
        self._forget()
        return any(self._is_behind(source) for source in self._sources.values())

    def _unseen(self, ended: list[Writes]) -> list[Writes]:
        """The few of the ended tasks that are to be shown although they were not seen running."""
        fresh = [model for model in ended if model.output_bytes and model.task_id not in self._ended]
        is_first, self._ended = self._ended is _NOTHING_YET, frozenset(model.task_id for model in ended)
        if is_first:
            return [] if self._sources else fresh[:MOST_BEFORE]
        return fresh[:MOST_UNSEEN]

    async def read(self) -> None:
        """Read what has been written since, a bounded piece of each task."""
        for source in list(self._sources.values()):
            if self._is_behind(source):
                await self._read(source)

    def take(self) -> dict[str, object]:
        """What is new, as a message for the card."""
        lines, self._fresh = list(self._fresh), deque(maxlen=KEEP_LINES)
        self._is_new = False
        return self._message(lines, reset=False)

    def all(self) -> dict[str, object]:
        """Everything that is kept, as a message for a card that has nothing."""
        self._fresh.clear()
        return self._message(list(self._kept), reset=True)

    def _message(self, lines: list[Line], *, reset: bool) -> dict[str, object]:
        followed = self._sources.values()
        named = Counter(source.label for source in followed)
        return {
            "reset": reset,
            "lines": lines,
            "open": [
                (source.task_id, source.reader.open_line) for source in followed if source.reader.open_line
            ][:4],
            "sources": [source.shown(is_alone=named[source.label] == 1) for source in followed],
            "hint": _(self.hint),
        }

    def _see(self, model: Writes) -> None:
        source = self._sources.get(model.task_id)
        if source is None:
            label = line(model.label, LABEL_LIMIT)
            source = self._sources[model.task_id] = _Source(
                model.task_id, label, line(model.label), self._hue_of(label)
            )
            source.end = self._left.pop(model.task_id, None)
            self._is_new = True
        source.size = max(source.size, model.output_bytes)
        if model.is_finished and not source.is_finished:
            source.is_finished = self._is_new = True
            self._end_line(source)

    def _hue_of(self, label: str) -> int:
        """A colour for a name: runs of the same work have the same."""
        if len(self._hues) > MOST_NAMES:
            self._hues = {source.label: source.hue for source in self._sources.values()}
        return self._hues.setdefault(label, len(self._hues) % HUES + 1)

    def _forget(self) -> None:
        """Keep the newest eight; of the finished only those whose lines may still be seen."""
        for source in list(self._sources.values()):
            if len(self._sources) <= KEEP_SOURCES:
                return
            if source.is_finished or all(not other.is_finished for other in self._sources.values()):
                del self._sources[source.task_id]
                self._leave(source)
                self._is_new = True

    def _leave(self, source: _Source) -> None:
        """Remember how far a running task was read: it may be followed again."""
        if not source.is_finished:
            self._left[source.task_id] = source.end
        while len(self._left) > MOST_NAMES:
            del self._left[next(iter(self._left))]

    @staticmethod
    def _is_behind(source: _Source) -> bool:
        return source.size > (source.end or 0)

    async def _read(self, source: _Source) -> None:
        offset = source.end
        if offset is None:
            offset = -self._first_bytes if source.size > self._first_bytes else 0
        elif source.size - offset > READ_BYTES:
            left_out = size(source.size - offset - self._first_bytes)
            self._add(source, [[("d", _("… {size} not shown …").format(size=left_out))]])
            source.reader = LineReader()
            offset = -self._first_bytes
        try:
            page = await self._shop.read_output(TaskId(source.task_id), offset, READ_BYTES)
        except Refused:  # its output is gone
            source.end = source.size
            return
        if source.end is not None and offset >= 0 and page.offset > source.end:
            lost = size(page.offset - source.end)
            self._add(source, [[("d", _("… {size} not kept …").format(size=lost))]])
            source.reader = LineReader()
        is_cut = page.offset > 0 and page.offset != source.end
        text = _from_line_start(page.text) if is_cut else page.text
        # A page that ends where it began: what the sample told of is not there to read. It is not asked for again.
        source.end = page.end if page.end > page.offset else max(source.size, page.end)
        source.size = max(source.size, page.size)
        before = source.reader.open_line
        self._add(source, source.reader.feed(text))
        self._is_new = self._is_new or source.reader.open_line != before
        self._end_line(source)

    def _end_line(self, source: _Source) -> None:
        """The last line of a task that ended is a line like the others, although it has no end."""
        if source.is_finished and not self._is_behind(source) and (runs := source.reader.open_line):
            source.reader = LineReader()
            self._add(source, [runs])

    def _add(self, source: _Source, lines: list[list[Run]]) -> None:
        for runs in lines[-KEEP_LINES:]:
            self._kept.append((source.task_id, runs))
            self._fresh.append((source.task_id, runs))
