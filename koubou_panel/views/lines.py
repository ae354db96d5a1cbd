r"""A log's lines by number, without reading it twice: where some of its lines begin, in bounded memory.

A line ends at a newline. One that is longer than `LINE_BYTES` goes on in the next; where it is drawn again and again
(`\r`, as progress bars are), what was drawn over is passed over instead. A line's colours may have been set long before
it, so each mark holds the style that its line begins in.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from operator import attrgetter
from typing import NamedTuple

from koubou_panel.views.ansi import LineReader, Run, style_after

LINE_BYTES = 16_384
STEP_BYTES = 65_536
MOST_MARKS = 4_096
_ESCAPE_BYTES = 64
_CONTROL = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b\r\n]*(?:\x07|\x1b\\)|[ -/]*[0-Z\\^-~])")
_line = attrgetter("line")
_offset = attrgetter("offset")


class Mark(NamedTuple):
    """Where a line begins: its number from 0, its byte, and the style it begins in."""

    line: int
    offset: int
    style: str = ""


class Shown(NamedTuple):
    """A line to be shown: the byte it begins at, and its text in runs."""

    offset: int
    runs: list[Run]


class LineIndex:
    """Where the lines of a growing log begin: a mark every `STEP_BYTES`, of a larger log more seldom.

    Args:
        start: the first byte that is held; lines are counted from there.

    """

    def __init__(self, start: int = 0) -> None:
        """Of an empty log."""
        self.start = start
        self.lines = 0
        self.marks = [Mark(0, start)]
        self._step = STEP_BYTES
        self._begin = start
        self._style = ""
        self._open = b""

    @property
    def end(self) -> int:
        """How far it has been read, in bytes."""
        return self._begin + len(self._open)

    @property
    def count(self) -> int:
        """How many lines there are, with the one that has no end yet."""
        return self.lines + bool(self._open)

    def feed(self, data: bytes) -> None:
        """Take in what follows `end`."""
        data = self._open + data
        at = styled = 0
        while (end_count := _whole(data, at))[0] > at:
            at = end_count[0]
            self.lines += end_count[1]
            if self._begin + at - self.marks[-1].offset >= self._step:
                self._style = style_after(self._style, data[styled:at])
                styled = at
                self._mark(Mark(self.lines, self._begin + at, self._style))
        self._style = style_after(self._style, data[styled:at])
        self._begin += at
        self._open = data[at:]

    def before(self, *, line: int | None = None, offset: int = 0) -> Mark:
        """The last mark at or before a line, or a byte."""
        marks = self.marks
        if line is not None:
            return marks[max(0, bisect_right(marks, line, key=_line) - 1)]
        return marks[max(0, bisect_right(marks, offset, key=_offset) - 1)]

    def _mark(self, mark: Mark) -> None:
        self.marks.append(mark)
        if len(self.marks) > MOST_MARKS:
            self._step *= 2
            self.marks = self.marks[::2]


class Cutter:
    """Cuts lines `first` to `first + count` out of a log that is read from a mark on.

    Args:
        mark: where it is read from, at or before `first`.
        first: the first line that is wanted; None: the one that byte `offset` is in.
        count: at most so many lines.
        most_bytes: no more than one line beyond so many bytes.

    """

    def __init__(
        self, mark: Mark, *, first: int | None, offset: int = 0, count: int, most_bytes: int
    ) -> None:
        """Nothing is read yet."""
        self.lines: list[Shown] = []
        self.first = mark.line if first is None else first
        self._is_sought = first is None
        self._wanted = offset
        self._count = count
        self._most_bytes = most_bytes
        self._line, self._begin, self._style = mark
        self._open = b""
        self._taken = 0

    @property
    def is_full(self) -> bool:
        """Whether all that was wanted is there."""
        return len(self.lines) >= self._count or self._taken >= self._most_bytes

    @property
    def end(self) -> int:
        """The byte to read on from."""
        return self._begin + len(self._open)

    def feed(self, data: bytes) -> None:
        """Take in what follows `end`."""
        data = self._open + data
        at = self._skip(data)
        while not self.is_full:
            end, count = _next(data, at)
            if end == at:
                break
            if count:
                self._take(data[at:end], self._begin + at)
                self._line += 1
            else:
                self._style = style_after(self._style, data[at:end])
            at = end
        self._begin += at
        self._open = data[at:]

    def finish(self) -> None:
        """The log ends here: its last line has no end."""
        if self._open and not self.is_full and (self._is_sought or self._line >= self.first):
            if self._is_sought:
                self.first, self._is_sought = self._line, False
            self.lines.append(Shown(self._begin, _open_line(self._open, self._style)))

    def _skip(self, data: bytes) -> int:
        """Pass over the lines before the first that is wanted."""
        at = 0
        while self._is_sought or self._line < self.first:
            end, count = _whole(data, at)
            if end == at or self._is_too_far(end, count):
                end, count = _next(data, at)
            if end == at:
                break
            if self._is_sought and self._begin + end > self._wanted:
                self.first, self._is_sought = self._line, False
                break
            self._style = style_after(self._style, data[at:end])
            self._line += count
            at = end
        return at

    def _is_too_far(self, end: int, count: int) -> bool:
        if self._is_sought:
            return self._begin + end > self._wanted
        return self._line + count > self.first

    def _take(self, data: bytes, offset: int) -> None:
        reader = LineReader(self._style)
        runs = [run for line in reader.feed(_ended(data)) for run in line]
        self._style = reader.style
        self._taken += len(data)
        self.lines.append(Shown(offset, runs))


def lines_with(data: bytes, wanted: str) -> Iterator[tuple[int, int]]:
    """(place among the lines, byte) of each line of `data` that shows `wanted`; `data` is of whole lines.

    Args:
        data: from a line's beginning on.
        wanted: casefolded.

    """
    if not _may_hold(data, wanted):
        return
    at = place = 0
    while True:
        end, count = _next(data, at)
        if end == at:
            return
        if count:
            if _may_hold(data[at:end], wanted) and wanted in _text(data[at:end]).casefold():
                yield place, at
            place += 1
        at = end


def whole_lines(data: bytes) -> tuple[int, int]:
    """(bytes, lines): how much of `data`, which begins with a line, is whole lines."""
    at = lines = 0
    while (found := _whole(data, at))[0] > at:
        at = found[0]
        lines += found[1]
    return at, lines


def _may_hold(data: bytes, wanted: str) -> bool:
    if b"\x1b" in data:
        data = _CONTROL.sub(b"", data)
    if data.isascii():
        return wanted.encode("utf-8", "surrogatepass") in data.lower()
    return wanted in data.decode("utf-8", "replace").casefold()


def _text(data: bytes) -> str:
    """What a line shows, without its colours."""
    if b"\r" not in data and b"\x1b" not in data and b"\b" not in data:
        return data.decode("utf-8", "replace")
    return "".join(text for line in LineReader().feed(_ended(data)) for _, text in line)


def _ended(data: bytes) -> str:
    text = data.decode("utf-8", "replace")
    return text if text.endswith("\n") else f"{text}\n"


def _open_line(data: bytes, style: str) -> list[Run]:
    reader = LineReader(style)
    runs = [run for line in reader.feed(data.decode("utf-8", "replace")) for run in line]
    return runs + reader.open_line


def _whole(data: bytes, at: int) -> tuple[int, int]:
    """(end, lines): as many whole lines from `at` on as are found in one look; `end` is `at` where there is none."""
    newline = data.rfind(b"\n", at, at + LINE_BYTES)
    if newline >= 0:
        return newline + 1, data.count(b"\n", at, newline + 1)
    return _long(data, at)


def _next(data: bytes, at: int) -> tuple[int, int]:
    """As `_whole`, of one line."""
    newline = data.find(b"\n", at, at + LINE_BYTES)
    return (newline + 1, 1) if newline >= 0 else _long(data, at)


def _long(data: bytes, at: int) -> tuple[int, int]:
    """A line without an end: what is drawn over is no line, and of the rest a piece is one."""
    stop = at + LINE_BYTES
    if len(data) < stop:
        return at, 0
    drawn = data.rfind(b"\r", at, stop - 1)
    if drawn >= 0:
        return drawn + 1, 0
    escape = data.rfind(b"\x1b", stop - _ESCAPE_BYTES, stop)
    return (escape, 1) if escape >= 0 else (stop - _begun(data, stop), 1)


def _begun(data: bytes, stop: int) -> int:
    """How many bytes before `stop` belong to a character that goes on behind it."""
    for back in (1, 2, 3):
        byte = data[stop - back]
        if byte & 0xC0 != 0x80:
            length = 1 if byte < 0xC0 else 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return back if length > back else 0
    return 0
