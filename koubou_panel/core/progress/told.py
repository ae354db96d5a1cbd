r"""What a script says itself: a line `::koubou progress 12/80 message`, or a terminal's OSC 9;4. See docs/progress.md.

Every byte is looked at, so that nothing that was said is missed, however much was printed around it.
Source: OSC 9;4 as ConEmu defined it and Windows Terminal, Ghostty and systemd speak it: `ESC ] 9;4;STATE;PERCENT ST`.
"""

from __future__ import annotations

import math
import re

from koubou_panel.core.progress.meter import MOST_VALUE, printable
from koubou_panel.core.records import Progress

MARK = b"::koubou progress "
MOST_LINE = 1 << 10
MOST_MESSAGE = 200
MOST_UNIT = 16

_OSC = b"\x1b]9;4;"
_MOST_OSC = 16
_OSC_FORM = re.compile(rb"\x1b\]9;4;([0-4])(?:;(\d{0,3}))?(?:\x07|\x1b\\)")
_LINE_END = re.compile(rb"[\r\n]")
_STYLE = re.compile(r"\x1b(?:\[[0-9;:?]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?)")
_NUMBER = r"[0-9]{1,18}(?:\.[0-9]{1,18})?(?:[eE][+-]?[0-9]{1,2})?"
_UNIT = r"(?![eE][+-]?[0-9])[^\W\d_](?:[^\s/]|/(?![0-9])){0,15}"
# What begins as `12 / …` or `12 %…` and is neither is passed over, not read as a count with words behind it.
_FORM = re.compile(
    rf"(?:(?P<clear>clear)|(?P<unknown>\?)|(?P<percent>[0-9]{{1,3}}(?:\.[0-9]{{1,18}})?)\s*%|"
    rf"(?P<done>{_NUMBER})(?:\s*/\s*(?P<total>{_NUMBER}))?(?P<unit>{_UNIT})?"
    r"(?(total)|(?!\s+(?:%|/[\s0-9]))))(?:\s+(?P<message>.*))?"
)
_BYTES = re.compile(r"([kKMGTP]?)(i?)B")
_POWERS = {"": 0, "k": 1, "K": 1, "M": 2, "G": 3, "T": 4, "P": 5}


class Teller:
    """What the script said last: `progress`, None while it says nothing. A line outranks a terminal's sequence."""

    def __init__(self) -> None:
        """Nothing was said yet."""
        self.progress: Progress | None = None
        self.by_line = False
        self._edge = b""

    def feed(self, data: bytes) -> bool:
        """Whether something is said in what was printed next."""
        blob = self._edge + data
        said = (MARK in blob and self._take_line(blob)) or (
            _OSC in blob and not self.by_line and self._take_osc(blob)
        )
        self._edge = _open_end(blob)
        return said

    def _take_line(self, blob: bytes) -> bool:
        """The last whole line of it that can be read."""
        end = len(blob)
        while (start := blob.rfind(MARK, 0, end)) >= 0:
            end = start
            line = blob[start + len(MARK) : start + MOST_LINE]
            closed = _LINE_END.search(line)
            if closed is None and len(line) < MOST_LINE - len(MARK):
                continue
            # Behind a quote stands what a shell's trace or a listing shows of such a command.
            if start > 0 and blob[start - 1] in b"'\"`":
                continue
            if self._set_line(line[: closed.start()] if closed else line):
                return True
        return False

    def _set_line(self, line: bytes) -> bool:
        match = _FORM.fullmatch(_text(line))
        if match is None:
            return False
        self.by_line = match["clear"] is None
        self.progress = None if match["clear"] else _of_line(match)
        return True

    def _take_osc(self, blob: bytes) -> bool:
        end = len(blob)
        while (start := blob.rfind(_OSC, 0, end)) >= 0:
            match = _OSC_FORM.match(blob, start)
            if match is not None:
                self.progress = _of_osc(match[1], match[2] or b"")
                return True
            end = start
        return False


def told(done: float | None, total: float | None, *, unit: str = "", message: str = "") -> Progress:
    """Progress as a script or a function says it: sizes such as `MB` become bytes, what makes no sense unknown."""
    match = _BYTES.fullmatch(str(unit))
    factor = (1024.0 if match[2] else 1000.0) ** _POWERS[match[1]] if match else 1.0
    unit = "B" if match else printable(str(unit))[:MOST_UNIT]
    done, total = _sane(done, factor), _sane(total, factor) or None
    fraction = min(done / total, 1.0) if done is not None and total is not None else None
    return Progress(fraction, done, total, unit, message=printable(str(message))[:MOST_MESSAGE])


def _sane(value: float | None, factor: float) -> float | None:
    """A count that can be shown, as a float; None for any other."""
    try:
        found = math.nan if value is None else float(value) * factor
    except OverflowError:
        return None
    return found if 0 <= found <= MOST_VALUE else None


def _of_line(match: re.Match[str]) -> Progress:
    message = (match["message"] or "").strip()[:MOST_MESSAGE]
    if match["percent"]:
        return Progress(min(float(match["percent"]) / 100, 1.0), message=message)
    if match["unknown"]:
        return Progress(message=message)
    total = None if match["total"] is None else float(match["total"])
    return told(float(match["done"]), total, unit=match["unit"] or "", message=message)


def _of_osc(state: bytes, percent: bytes) -> Progress | None:
    """State 0 takes it away, 3 is under way without a number; 1, 2 (error) and 4 (paused) have a percentage."""
    if state == b"0":
        return None
    return Progress() if state == b"3" or not percent else Progress(min(int(percent) / 100, 1.0))


def _text(line: bytes) -> str:
    text = line.decode("utf-8", "replace")
    return printable(_STYLE.sub("", text)).strip()


def _open_end(blob: bytes) -> bytes:
    """The end of `blob` that may be the beginning of something said, with the byte before it."""
    end = blob[-MOST_LINE:]
    line, osc = end.rfind(MARK), end.rfind(_OSC)
    starts = []
    if line >= 0 and _LINE_END.search(end, line) is None:
        starts.append(line)
    if osc >= 0 and len(end) - osc < _MOST_OSC and _OSC_FORM.match(end, osc) is None:
        starts.append(osc)
    if starts:
        return end[max(0, min(starts) - 1) :]
    return blob[-len(MARK) :]
