"""The rows that were drawn on and the meters that stand there, so that of nested bars the outer one is found.

Only rows matter here, not columns. A meter is known again by its row, or by its key further down, as in a log.
"""

from __future__ import annotations

import re

from koubou_panel.core.progress.guess import guess
from koubou_panel.core.progress.meter import CERTAIN, LIKELY, Reading, message
from koubou_panel.core.progress.rate import Rate
from koubou_panel.core.progress.tools import read_tool

MOST_TRACKS = 16
MOST_KEYS = 64
# What pip and others say on the line above a bar that has no words of its own.
_TITLE = re.compile(r"\s*(?:Downloading|Uploading|Fetching|Copying|Extracting) \S")
# Absolute rows lie so far above all others; a meter whose row is not known any more stands so far below.
_FAR = 1 << 20
_LOST = 1 << 60


class Track:
    """One meter on its way: what it said last, where it stands, and how often it rose."""

    def __init__(self, row: int, number: int) -> None:
        """A meter that is seen for the first time."""
        self.reading = Reading("", CERTAIN)
        self.row = row
        self.rises = 0
        self.first = self.last = number
        self.climbs = 0
        self.redrawn = False
        self.changed_s = 0.0
        self.rate = Rate()

    def take(self, found: Reading, now_s: float) -> None:
        """Its next value."""
        if not self.rises or found.height > self.reading.height:
            self.rises += 1
        elif found.height < self.reading.height and not self.is_believed:
            self.rises = 1
        if found != self.reading:
            self.changed_s = now_s
        self.reading = found
        self.rate.follow(found, now_s)

    @property
    def is_believed(self) -> bool:
        """Whether it has risen often enough; what is drawn over itself is seldom anything else."""
        needs = self.reading.needs
        return self.rises >= (min(needs, LIKELY) if self.redrawn else needs)

    @property
    def is_finished(self) -> bool:
        """Whether it stands at its end."""
        return self.reading.fraction == 1


class Screen:
    """Where the cursor is, and the meters."""

    def __init__(self) -> None:
        """Nothing was drawn yet."""
        self._row = 0
        self._saved = 0
        self._climbs = 0
        self._at_start = False
        self._count = 0
        self._tracks: list[Track] = []
        self._trusted: dict[str, None] = {}
        self._title = (0, "")

    def move(self, move: bytes) -> None:
        """The cursor goes elsewhere: a line end, a return, or an escape sequence."""
        self._at_start = False
        last = move[-1:]
        if move in {b"\n", b"\r\n"}:
            self._row += 1
        elif last in b"\r\x08G":
            self._at_start = True
        elif last in b"7s":
            self._saved = self._row
        elif last in b"8u":
            self._row = self._saved
            self._climbs += 1
        elif last in b"Hf":
            self._row = -_FAR + _first_number(move)
            self._at_start = True
        elif last in b"AF":
            self._row -= _first_number(move)
            self._climbs += 1
        else:
            self._row += _first_number(move)

    def scroll(self) -> None:
        """Some output was not looked at: nobody knows on which rows the meters are now."""
        for track in self._tracks:
            if track.row > -_FAR // 2:
                track.row = _LOST
        self._row = 0
        self._at_start = False

    def write(self, line: str, now_s: float) -> None:
        """A piece of a line is written on the row."""
        self._count += 1
        found = read_tool(line) or guess(line)
        if found is None:
            if _TITLE.match(line):
                self._title = (self._row, line.strip())
            if self._at_start:
                self._tracks = [track for track in self._tracks if track.row != self._row]
            return
        if not found.message and found.needs == CERTAIN and self._title[0] == self._row - 1:
            found = found._replace(message=message(self._title[1]))
        track = self._track(found)
        track.take(found, now_s)
        track.row, track.last, track.climbs = self._row, self._count, self._climbs
        if track.is_believed:
            self._trusted[found.key] = None
            if len(self._trusted) > MOST_KEYS:
                del self._trusted[next(iter(self._trusted))]

    def _track(self, found: Reading) -> Track:
        """The track that `found` goes on with: what stands on its row, or the same meter elsewhere, or a new one."""
        here = next((track for track in self._tracks if track.row == self._row), None)
        if here is not None and here.climbs == self._climbs:
            self._leave_above(self._row)
        if here is not None and here.reading.key == found.key:
            here.redrawn = here.redrawn or self._at_start
            return here
        if here is None:
            # The next line of a log; not the next row of a screen, where one bar may look like another.
            is_next = not self._at_start
            for track in reversed(self._tracks):
                if track.reading.key == found.key and (
                    track.row == _LOST or (is_next and track.climbs == self._climbs)
                ):
                    return track
        if here is not None and self._at_start and here.reading.needs == found.needs == CERTAIN:
            return here  # a bar whose words change
        return self._new(found)

    def _new(self, found: Reading) -> Track:
        track = Track(self._row, self._count)
        track.redrawn = self._at_start
        if found.key in self._trusted:
            track.rises = found.needs
        others = self._tracks if not self._at_start else [t for t in self._tracks if t.row != self._row]
        self._tracks = [*others[1 - MOST_TRACKS :], track]
        return track

    def _leave_above(self, row: int) -> None:
        """A row was drawn again with no way up in between: the bars above it are left behind."""
        left = [t for t in self._tracks if -_FAR // 2 < t.row < row or t.row == _LOST]
        self._tracks = [t for t in self._tracks if t not in left or t.reading.needs > CERTAIN]

    def best(self) -> Track | None:
        """The outermost meter that is believed and goes on; one that cannot be mistaken comes before all others."""
        chosen = self._of_rank([track for track in self._tracks if track.is_believed])
        going = [track for track in chosen if not track.is_finished]
        if going:
            best = min(going, key=lambda track: (track.row, track.first))
            self._tracks = [t for t in self._tracks if not (t.is_finished and t.last < best.first)]
            return best
        if not chosen:
            return None
        newest = max(chosen, key=lambda track: track.last)
        return min((t for t in chosen if t.climbs == newest.climbs), key=lambda track: track.row)

    @staticmethod
    def _of_rank(believed: list[Track]) -> list[Track]:
        """Those that cannot be mistaken, unless others began after the last of them was drawn."""
        sure = [track for track in believed if track.reading.needs == CERTAIN]
        newest = max((track.last for track in sure), default=0)
        return [t for t in believed if t.reading.needs > CERTAIN and t.first > newest] or sure or believed


def _first_number(move: bytes) -> int:
    """The first number of an escape sequence, 1 if it has none."""
    digits = move[2:-1].partition(b";")[0][:4]
    return int(digits) if digits else 1
