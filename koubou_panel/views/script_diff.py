"""What differs between two texts, line by line, as plain data for the page. It blocks: never on the loop."""

from __future__ import annotations

import time
from difflib import Match, SequenceMatcher

from koubou_panel.views.escape import seen
from koubou_panel.views.language import _

CONTEXT = 3
LINE_CHARS = 2_000
MOST_LINES = 2_000
#: What is not matched line by line until then is shown as one piece: some texts would take minutes.
PATIENCE_S = 3.0
#: With more pairs of equal lines one look for the longest match would take longer than that, and cannot be ended.
MOST_PAIRS = 5_000_000

Numbered = list[list[object]]
Block = dict[str, object]
Opcode = tuple[str, int, int, int, int]


def diff_of(old: str, new: str) -> dict[str, object]:
    """The blocks that two texts consist of: `same` (of which the middle is a `skip`), and `change`.

    Each has its lines as (number from 1, text) on the `left` (old) and on the `right` (new). `added` and `removed`
    count lines; `is_cut`: there are more than are shown.
    """
    left, right = _lines(old), _lines(new)
    codes = _opcodes(left, right)
    blocks: list[Block] = []
    room, added, removed = MOST_LINES, 0, 0
    for index, (tag, i1, i2, j1, j2) in enumerate(codes):
        if tag == "equal":
            edges = (index == 0, index == len(codes) - 1)
            found = _same(left, right, (i1, i2, j1, j2), edges) if room > 0 else []
        else:
            removed, added = removed + i2 - i1, added + j2 - j1
            place = (i1, min(i2, i1 + room), j1, min(j2, j1 + room))
            found = [_block("change", left, right, place)] if room > 0 else []
            room -= max(i2 - i1, j2 - j1)
        blocks += found
        room -= CONTEXT * len(found)
    return {"blocks": blocks, "added": added, "removed": removed, "is_cut": room < 0}


def _lines(text: str) -> list[str]:
    """Its lines, each with its end, so that one that differs by that alone is another."""
    *whole, last = text.split("\n")
    return [*(one + "\n" for one in whole), *([last] if last else [])]


def _opcodes(left: list[str], right: list[str]) -> list[Opcode]:
    """What makes `right` of `left`; what both begin and end with is not matched, which keeps long texts quick."""
    head = 0
    while head < min(len(left), len(right)) and left[head] == right[head]:
        head += 1
    tail = 0
    while tail < min(len(left), len(right)) - head and left[-1 - tail] == right[-1 - tail]:
        tail += 1
    middle = left[head : len(left) - tail], right[head : len(right) - tail]
    codes: list[Opcode] = [("equal", 0, head, 0, head)] if head else []
    codes += [(tag, i1 + head, i2 + head, j1 + head, j2 + head) for tag, i1, i2, j1, j2 in _matched(*middle)]
    if tail:
        codes.append(("equal", len(left) - tail, len(left), len(right) - tail, len(right)))
    return codes


class _Patient(SequenceMatcher[str]):
    """A matcher that gives up after a while, or at once where it would be for longer."""

    def __init__(self, left: list[str], right: list[str]) -> None:
        self._until = time.monotonic() + PATIENCE_S
        super().__init__(None, left, right)
        places: dict[str, list[int]] = vars(self)["b2j"]
        if sum(len(places.get(line, ())) for line in left) > MOST_PAIRS:
            raise TimeoutError

    def find_longest_match(
        self, alo: int = 0, ahi: int | None = None, blo: int = 0, bhi: int | None = None
    ) -> Match:
        if time.monotonic() > self._until:
            raise TimeoutError
        return super().find_longest_match(alo, ahi, blo, bhi)


def _matched(left: list[str], right: list[str]) -> list[Opcode]:
    try:
        return list(_Patient(left, right).get_opcodes())
    except TimeoutError:
        return [("replace", 0, len(left), 0, len(right))]


def _same(
    left: list[str], right: list[str], place: tuple[int, int, int, int], edges: tuple[bool, bool]
) -> list[Block]:
    """A block of what is the same, of which only what stands beside a change is shown; `edges`: first, last."""
    i1, i2, j1, j2 = place
    head, tail = (0 if edges[0] else CONTEXT), (0 if edges[1] else CONTEXT)
    hidden = i2 - i1 - head - tail
    if hidden <= 1:
        return [_block("same", left, right, place)]
    return [
        *([_block("same", left, right, (i1, i1 + head, j1, j1 + head))] if head else []),
        {"tag": "skip", "count": hidden},
        *([_block("same", left, right, (i2 - tail, i2, j2 - tail, j2))] if tail else []),
    ]


def _block(tag: str, left: list[str], right: list[str], place: tuple[int, int, int, int]) -> Block:
    i1, i2, j1, j2 = place
    return {"tag": tag, "left": _numbered(left, i1, i2), "right": _numbered(right, j1, j2)}


def _numbered(lines: list[str], first: int, last: int) -> Numbered:
    return [[number + 1, _shown(lines[number])] for number in range(first, last)]


def _shown(text: str) -> str:
    """A line without its end; that it has none is told, as is all that cannot be seen."""
    shown = text.removesuffix("\n")
    no_end = _("no end of line")
    end = "" if shown != text else f" ⟨{no_end}⟩"
    return f"{seen(shown[:LINE_CHARS])}{'…' if len(shown) > LINE_CHARS else ''}{end}"
