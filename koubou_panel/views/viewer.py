"""One task's whole output, read by lines: any of them at once, whatever there is of it, and what they contain.

The log is passed over once, in the background, to know where its lines begin; nothing of it is kept. What is asked for
meanwhile is its end, without numbers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TypedDict

from koubou_panel.core.ports import OutputBytes, Shop
from koubou_panel.core.records import TaskId
from koubou_panel.errors import Refused
from koubou_panel.views.language import _
from koubou_panel.views.lines import STEP_BYTES, Cutter, LineIndex, Mark, Shown, lines_with, whole_lines

READ_BYTES = 262_144
SMALL_BYTES = 16_384
TAIL_BYTES = 65_536
MOST_LINES = 500
WINDOW_BYTES = 262_144
MOST_MATCHES = 5_000
MOST_SOUGHT = 200

Answer = dict[str, object]


class State(TypedDict):
    """What a card is told: how many lines there are, in how many bytes, and from which on they are held."""

    task: str
    is_known: bool
    lines: int
    size: int
    start: int


class Viewer:
    """Reads one task's output. Loop thread only.

    Args:
        shop: where it is read.
        task_id: whose it is.

    """

    def __init__(self, shop: Shop, task_id: TaskId) -> None:
        """Nothing is read yet: see `grow`."""
        self.task_id = task_id
        self.index = LineIndex()
        self.size = 0
        self._shop = shop
        self._is_begun = False
        self._searches = 0

    @property
    def is_behind(self) -> bool:
        """Whether there is more than was passed over."""
        return self.size > self.index.end

    def grow(self, size: int) -> bool:
        """Note that there are `size` bytes; whether some of them are not known yet."""
        self.size = max(self.size, size)
        return self.is_behind

    @property
    def is_known(self) -> bool:
        """Whether lines can be asked for by their numbers: all but the newest were passed over."""
        return self.size - self.index.end <= READ_BYTES

    @property
    def state(self) -> State:
        """How much there is."""
        index = self.index
        return {
            "task": self.task_id,
            "is_known": self.is_known,
            "lines": index.count if self.is_known else 0,
            "size": index.end if self.is_known else self.size,
            "start": index.start,
        }

    async def read_on(self) -> None:
        """Pass over one piece more."""
        page = await self._shop.read_bytes(self.task_id, self.index.end, READ_BYTES)
        if page.offset != self.index.end:  # the oldest was removed: lines are counted from what is held
            self.index = LineIndex(page.offset)
        self.size = max(self.size if page.data else page.end, page.size)
        if len(page.data) <= SMALL_BYTES:
            self.index.feed(page.data)
        else:
            await asyncio.to_thread(self.index.feed, page.data)

    async def window(self, message: Mapping[str, object]) -> Answer:
        """Lines as a card asks for them: from `line` or `byte` on, or the last ones; at most `count`.

        An answer has `first` (the number of its first line from 0; null where the numbers are not known yet), `lines`
        of (byte, runs), `is_open` (the last of them has no end yet) and how many there are in all.
        """
        count = min(MOST_LINES, _number(message, "count") or MOST_LINES)
        line, byte = _number(message, "line"), _number(message, "byte")
        if line is not None:
            return await self._cut(line, count)
        if byte is not None:
            return await self._cut(None, count, offset=byte)
        if not self.is_known:
            return await self._tail(count)
        return await self._cut(max(0, self.index.count - count), count)

    async def _cut(self, first: int | None, count: int, *, offset: int = 0) -> Answer:
        index = self.index
        mark = index.before(line=first) if first is not None else index.before(offset=offset)
        cutter = Cutter(mark, first=first, offset=offset, count=count, most_bytes=WINDOW_BYTES)
        while not cutter.is_full and cutter.end < self.size:
            page = await self._shop.read_bytes(self.task_id, cutter.end, READ_BYTES)
            if page.offset > cutter.end:  # the oldest was removed meanwhile
                mark = index.before(offset=page.offset + STEP_BYTES)
                first = max(first or 0, mark.line)
                cutter = Cutter(mark, first=first, count=count, most_bytes=WINDOW_BYTES)
                if mark.offset < page.offset:
                    break
            elif not page.data:
                break
            else:
                await asyncio.to_thread(cutter.feed, page.data)
        before = len(cutter.lines)
        cutter.finish()
        return self._answer(cutter.first, cutter.lines, is_open=len(cutter.lines) > before)

    async def _tail(self, count: int) -> Answer:
        """The last lines, while it is not known how many are before them."""
        page = await self._shop.read_bytes(self.task_id, -TAIL_BYTES, 2 * TAIL_BYTES)
        lines, is_open = await asyncio.to_thread(_last_lines, page, count)
        return self._answer(None, lines, is_open=is_open)

    def _answer(self, first: int | None, lines: list[Shown], *, is_open: bool) -> Answer:
        shown = [[line.offset, line.runs] for line in lines]
        total = max(self.index.count, (first or 0) + len(lines))
        return {"first": first, "lines": shown, "is_open": is_open, "total": total}

    async def search(self, message: Mapping[str, object]) -> Answer:
        """The numbers of the lines that show `text`, in upper or lower case; at most `MOST_MATCHES` (`is_cut`).

        A later search ends an earlier one (`is_old`).

        Raises:
            Refused: the text is none, or too long.
        """
        text = message.get("text")
        if not isinstance(text, str) or not text or len(text) > MOST_SOUGHT or "\n" in text:
            words = _("Search for a text of 1 to {n} characters.").format(n=MOST_SOUGHT)
            raise Refused("invalid", words, field="text")
        self._searches += 1
        number, wanted = self._searches, text.casefold()
        found: list[int] = []
        index, at, line = self.index, self.index.start, 0
        rest = b""
        while number == self._searches and index is self.index and len(found) <= MOST_MATCHES:
            page = await self._shop.read_bytes(self.task_id, at + len(rest), READ_BYTES)
            if page.offset != at + len(rest):
                break
            hits, used, count = await asyncio.to_thread(_search, rest + page.data, wanted, not page.data)
            found += [line + place for place in hits]
            line, at = line + count, at + used
            rest = (rest + page.data)[used:]
            if not page.data:
                break
        is_old = number != self._searches
        return {"lines": found[:MOST_MATCHES], "is_cut": len(found) > MOST_MATCHES, "is_old": is_old}


def _search(data: bytes, wanted: str, is_last: bool) -> tuple[list[int], int, int]:  # noqa: FBT001 - for a thread
    """(places of the lines that match, bytes, lines) of what is whole in `data`; the last is whole as it is."""
    if is_last:
        data += b"\n"
    used, count = whole_lines(data)
    return [place for place, _ in lines_with(data[:used], wanted)], used, count


def _last_lines(page: OutputBytes, count: int) -> tuple[list[Shown], bool]:
    """The last lines of a page that begins anywhere, and whether the last of them has no end."""
    begin = page.data.find(b"\n") + 1 if page.offset > page.start else 0
    mark = Mark(0, page.offset + begin)
    cutter = Cutter(mark, first=0, count=len(page.data) + 1, most_bytes=len(page.data) + 1)
    cutter.feed(page.data[begin:])
    before = len(cutter.lines)
    cutter.finish()
    return cutter.lines[-count:], len(cutter.lines) > before


def _number(message: Mapping[str, object], name: str) -> int | None:
    value = message.get(name)
    is_number = isinstance(value, int) and not isinstance(value, bool)
    return value if is_number and 0 <= value < 2**53 else None  # type: ignore[operator, return-value]
