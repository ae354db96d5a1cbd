"""Searching output logs for a piece of text, line by line, in little memory. It blocks: never on the loop."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import AnyStr, NamedTuple

from koubou_panel.archive.output import read_output_bytes

CHUNK_BYTES = 1 << 16  # one look at so much takes less than a millisecond
LINE_BYTES = 1 << 16  # of a longer line each such piece is looked at by itself
SHOWN_CHARS = 300
REACH_BYTES = 1 << 12  # how far around a line is read
_CONTROL = re.compile(
    rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b\r\n]*(?:\x07|\x1b\\)|[PX^_][^\x1b\r\n]*\x1b\\|[ -/]*[0-~])"
)
_MARK = b"::koubou "


class Found(NamedTuple):
    """A line: its number from 1, the byte that it (or the part of it that was drawn last) begins at, and its text."""

    line: int
    offset: int
    text: str


def search_log(path: Path, text: str) -> Iterator[Found | None]:
    """The lines of a log that have `text`, in upper or lower case, as a person sees them; None now and then.

    Colours are passed over, and of a line that was drawn again and again each drawing is looked at. Where the beginning
    of a log is no longer held, the lines are counted from what is.
    """
    wanted = text.casefold()
    at = line = 0
    rest = b""
    while True:
        page = read_output_bytes(path, at + len(rest), CHUNK_BYTES)
        if page.offset > at + len(rest):  # the beginning went
            at, rest = page.offset, b""
        if not page.data:
            break
        yield None
        data = rest + page.data
        whole = data.rfind(b"\n") + 1
        if not whole and len(data) < LINE_BYTES:
            rest = data
            continue
        whole = whole or len(data)
        yield from _lines(data[:whole], at, line, wanted)
        line += data.count(b"\n", 0, whole)
        at, rest = at + whole, data[whole:]
    yield from _lines(rest, at, line, wanted)


def around(path: Path, offset: int, lines: int) -> tuple[list[str], list[str]]:
    """Up to so many lines before the one at byte `offset`, and after it, as a person sees them."""
    if not lines:
        return [], []
    page = read_output_bytes(path, max(0, offset - REACH_BYTES), 2 * REACH_BYTES)
    at = offset - page.offset
    if not 0 <= at <= len(page.data):  # it was removed meanwhile
        return [], []
    begin, end = page.data.rfind(b"\n", 0, at) + 1, page.data.find(b"\n", at)
    before = page.data[: begin - 1].split(b"\n") if begin else []
    if page.offset > page.start:
        before = before[1:]  # the end of a line
    after = page.data[end + 1 :].removesuffix(b"\n").split(b"\n") if 0 <= end < len(page.data) - 1 else []
    return [_seen(line) for line in before[-lines:]], [_seen(line) for line in after[:lines]]


def _seen(line: bytes) -> str:
    """A line as it stands in the end: what was drawn last, without what a terminal obeys."""
    drawn = line.removesuffix(b"\r").rpartition(b"\r")[2]
    shown = _CONTROL.sub(b"", drawn).decode("utf-8", "replace")
    return shown if len(shown) <= SHOWN_CHARS else f"{shown[:SHOWN_CHARS]}…"


def _lines(data: bytes, at: int, line: int, wanted: str) -> Iterator[Found]:
    """The matching lines of whole lines that begin at byte `at`, after `line` others."""
    places = _places(data, wanted)
    if not places:
        return
    before = 0
    lines = data.split(b"\n")
    for place in places:
        at += sum(map(len, lines[before:place])) + place - before
        before = place
        begin = at
        for drawn in lines[place].removesuffix(b"\r").split(b"\r"):
            shown = _CONTROL.sub(b"", drawn).decode("utf-8", "replace")
            if not drawn.startswith(_MARK) and wanted in shown.casefold():
                yield Found(line + place + 1, begin, _around(shown, wanted))
                break
            begin += len(drawn) + 1


def _places(data: bytes, wanted: str) -> list[int]:
    """Which lines are worth a look: all that match are among them. Few steps of Python, whatever there is to read."""
    if b"\x1b" in data:
        data = _CONTROL.sub(b"", data)
    if data.isascii():
        return list(_hits(data.lower(), wanted.encode("utf-8", "surrogatepass"), b"\n"))
    return list(_hits(data.decode("utf-8", "replace").casefold(), wanted, "\n"))


def _hits(shown: AnyStr, sought: AnyStr, end: AnyStr) -> Iterator[int]:
    """The lines of `shown` that have `sought`, each once, counted from 0."""
    line = begin = 0
    while (found := shown.find(sought, begin)) >= 0:
        line += shown.count(end, begin, found)
        yield line
        begin = shown.find(end, found)
        if begin < 0:
            return


def _around(shown: str, wanted: str) -> str:
    """At most `SHOWN_CHARS` of a line, around what was searched for."""
    shown = shown.strip()
    if len(shown) <= SHOWN_CHARS:
        return shown
    begin = max(0, shown.casefold().find(wanted) - SHOWN_CHARS // 3)
    end = begin + SHOWN_CHARS
    return f"{'…' if begin else ''}{shown[begin:end]}{'…' if end < len(shown) else ''}"
