"""Searching output logs for a piece of text, line by line, in little memory. It blocks: never on the loop."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from koubou_panel.archive.output import read_output_bytes

CHUNK_BYTES = 1 << 18
LINE_BYTES = 1 << 16  # of a longer line each such piece is looked at by itself
SHOWN_CHARS = 300
_CONTROL = re.compile(
    rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[PX^_][^\x1b]*\x1b\\|[ -/]*[0-~])"
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


def _lines(data: bytes, at: int, line: int, wanted: str) -> Iterator[Found]:
    """The matching lines of whole lines that begin at byte `at`, after `line` others."""
    if not data or not _may_have(data, wanted):
        return
    for place, whole in enumerate(data.split(b"\n"), start=1):
        begin = at
        for drawn in whole.removesuffix(b"\r").split(b"\r"):
            shown = _CONTROL.sub(b"", drawn).decode("utf-8", "replace")
            if not drawn.startswith(_MARK) and wanted in shown.casefold():
                yield Found(line + place, begin, _around(shown, wanted))
                break
            begin += len(drawn) + 1
        at += len(whole) + 1


def _may_have(data: bytes, wanted: str) -> bool:
    """Whether it is worth to look line by line: False is certain."""
    return not wanted.isascii() or b"\x1b" in data or not data.isascii() or wanted.encode() in data.lower()


def _around(shown: str, wanted: str) -> str:
    """At most `SHOWN_CHARS` of a line, around what was searched for."""
    shown = shown.strip()
    if len(shown) <= SHOWN_CHARS:
        return shown
    begin = max(0, shown.casefold().find(wanted) - SHOWN_CHARS // 3)
    end = begin + SHOWN_CHARS
    return f"{'…' if begin else ''}{shown[begin:end]}{'…' if end < len(shown) else ''}"
