r"""A program's output as lines of styled text: what a terminal would show, without a terminal.

`\r` goes back to the line's beginning and overwrites, `\b` goes one back, colours and weights are kept, and
every other control sequence is dropped.
"""

from __future__ import annotations

import re

from koubou_panel.views.escape import block

Run = tuple[str, str]
"""A style (CSS classes, may be empty) and the text in it."""

WIDTH_LIMIT = 2_000
_PENDING_LIMIT = 256

_TOKEN = re.compile(
    r"\x1b\[(?P<csi>[0-?]*)[ -/]*(?P<final>[@-~])"  # CSI: colours, cursor, erasing
    r"|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)"  # OSC: titles, links
    r"|\x1b[ -/]*[0-Z\\^-~]"  # other escapes
    r"|(?P<newline>\r*\n)|(?P<return>\r)|(?P<back>\x08)"
)
_STYLES = re.compile(rb"\x1b\[([0-?]*)[ -/]*m")
_RESETS = (b"\x1b[0m", b"\x1b[m")
_UNFINISHED = re.compile(r"(?:\x1b(?:\[[0-?]*[ -/]*|\][^\x07\x1b]*\x1b?)?|\r+)\Z")
_CUBE = 6
_FIRST_GREY = 232


class LineReader:
    """Turns pieces of output, cut anywhere, into finished lines and one that is still open."""

    def __init__(self, style: str = "") -> None:
        """With an empty line, in the style that what came before has left (as `style`)."""
        self._pending = ""
        self._style = _Style(style)
        self._line = _Line()

    @property
    def style(self) -> str:
        """The style that what comes next begins in, as CSS classes."""
        return self._style.classes

    def feed(self, text: str) -> list[list[Run]]:
        """Take in a piece; the lines that it finished."""
        text = self._pending + text
        self._pending = ""
        unfinished = _UNFINISHED.search(text)
        if unfinished is not None and len(unfinished.group()) <= _PENDING_LIMIT:
            self._pending = unfinished.group()
            text = text[: unfinished.start()]
        lines: list[list[Run]] = []
        place = 0
        for token in _TOKEN.finditer(text):
            self._put(text[place : token.start()], lines)
            place = token.end()
            self._apply(token, lines)
        self._put(text[place:], lines)
        return lines

    def _put(self, text: str, lines: list[list[Run]]) -> None:
        """Write on; a line that is full goes on in the next one."""
        while text:
            room = WIDTH_LIMIT - self._line.column
            if room <= 0:
                self._break(lines)
                continue
            self._line.put(text[:room], self._style.classes)
            text = text[room:]

    def _break(self, lines: list[list[Run]]) -> None:
        """End a full line, at its last space where that is near its end; what is left begins the next."""
        runs = self._line.runs()
        cut = "".join(text for _, text in runs).rfind(" ") + 1
        cut = cut if cut > WIDTH_LIMIT // 2 else WIDTH_LIMIT
        lines.append(_slice(runs, 0, cut))
        self._line = _Line()
        for style, text in _slice(runs, cut, None):
            self._line.put(text, style)

    @property
    def open_line(self) -> list[Run]:
        """The line that has no end yet; empty if nothing is on it."""
        return self._line.runs()

    def _apply(self, token: re.Match[str], lines: list[list[Run]]) -> None:
        if token["newline"] is not None:
            lines.append(self._line.runs())
            self._line = _Line()
        elif token["return"] is not None:
            self._line.column = 0
        elif token["back"] is not None:
            self._line.column = max(0, self._line.column - 1)
        elif token["final"] == "m":
            self._style.apply(token["csi"])
        elif token["final"] == "K":
            self._line.erase(token["csi"] or "0")
        elif token["final"] == "G":
            self._line.column = 0


def style_after(style: str, data: bytes) -> str:
    """The style in which what follows `data` begins, where `data` began in `style`; without reading its text."""
    if b"\x1b[" not in data:
        return style
    reset = max(data.rfind(sequence) for sequence in _RESETS)
    state = _Style("" if reset >= 0 else style)
    for found in _STYLES.finditer(data, max(0, reset)):
        state.apply(found[1].decode("ascii", "replace"))
    return state.classes


class _Line:
    """Cells of one line, kept as runs; writing before its end overwrites."""

    def __init__(self) -> None:
        self.column = 0
        self._width = 0
        self._runs: list[Run] = []

    def put(self, text: str, style: str) -> None:
        text = block(text, len(text) + 1)[: max(0, WIDTH_LIMIT - self.column)]
        if not text:
            return
        if self.column > self._width:
            self._runs.append(("", " " * (self.column - self._width)))
        end = self.column + len(text)
        if self.column < self._width:
            self._runs = [*_slice(self._runs, 0, self.column), (style, text), *_slice(self._runs, end, None)]
        elif self._runs and self._runs[-1][0] == style:
            self._runs[-1] = (style, self._runs[-1][1] + text)
        else:
            self._runs.append((style, text))
        self.column = end
        self._width = max(self._width, end)

    def erase(self, how: str) -> None:
        if how == "2":
            self._runs, self._width = [], 0
        elif how == "1":
            kept = _slice(self._runs, self.column, None)
            self._runs = [("", " " * min(self.column, self._width)), *kept]
        else:
            self._runs = _slice(self._runs, 0, self.column)
            self._width = min(self._width, self.column)

    def runs(self) -> list[Run]:
        return [run for run in self._runs if run[1]]


def _slice(runs: list[Run], start: int, stop: int | None) -> list[Run]:
    cut: list[Run] = []
    place = 0
    for style, text in runs:
        piece = text[max(0, start - place) : None if stop is None else max(0, stop - place)]
        if piece:
            cut.append((style, piece))
        place += len(text)
    return cut


class _Style:
    """What `ESC [ … m` has set, as CSS classes: `f0`-`f15` colours, b(old), d(im), i(talic), u(nderlined)."""

    _ON = {"1": "b", "2": "d", "3": "i", "4": "u"}
    _OFF = {"22": "bd", "23": "i", "24": "u"}

    def __init__(self, classes: str = "") -> None:
        self.classes = classes
        parts = classes.split()
        self._colour = next((part for part in parts if part[0] == "f"), "")
        self._marks = {part for part in parts if part[0] != "f"}

    def apply(self, parameters: str) -> None:
        codes = parameters.replace(":", ";").split(";") if parameters else ["0"]
        while codes:
            code = codes.pop(0) or "0"
            if code == "0":
                self._colour, self._marks = "", set()
            elif code in self._ON:
                self._marks.add(self._ON[code])
            elif code in self._OFF:
                self._marks -= set(self._OFF[code])
            elif code in ("38", "48"):
                colour = _extended(codes)
                self._colour = colour if code == "38" else self._colour
            else:
                self._colour = _basic(code, self._colour)
        self.classes = " ".join(filter(None, [self._colour, *sorted(self._marks)]))


def _basic(code: str, before: str) -> str:
    if not code.isdigit():
        return before
    number = int(code)
    if 30 <= number <= 37:
        return f"f{number - 30}"
    if 90 <= number <= 97:
        return f"f{number - 90 + 8}"
    return "" if number == 39 else before


def _extended(codes: list[str]) -> str:
    """The nearest of sixteen to a colour out of 256 or of 24 bits; takes its codes off the list."""
    kind = codes.pop(0) if codes else ""
    numbers = [int(code) if code.isdigit() else 0 for code in codes[: 3 if kind == "2" else 1]]
    del codes[: len(numbers)]
    if kind == "2" and len(numbers) == 3:
        return _nearest(*numbers)
    if kind != "5" or not numbers:
        return ""
    number = numbers[0]
    if number < 16:
        return f"f{number}"
    if number >= _FIRST_GREY:
        return "f7" if number >= 244 else "f8"
    number -= 16
    red, green, blue = number // _CUBE**2, number // _CUBE % _CUBE, number % _CUBE
    return _nearest(red * 51, green * 51, blue * 51)


def _nearest(red: int, green: int, blue: int) -> str:
    brightest = max(red, green, blue)
    if brightest < 48:
        return "f8"
    bits = sum(bit for bit, part in ((1, red), (2, green), (4, blue)) if part > brightest * 0.6)
    return f"f{bits + (8 if brightest > 200 and bits != 7 else 0)}"
