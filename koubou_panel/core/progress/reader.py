"""The progress of one run, from its output.

`feed` keeps the end of what came, so that its cost is small at any rate of output; `latest` looks at it when asked.
What a script says itself wins over what its tools draw.
"""

from __future__ import annotations

import math
import re

from koubou_panel.core.progress.meter import printable
from koubou_panel.core.progress.rate import Rate, estimated
from koubou_panel.core.progress.screen import Screen, Track
from koubou_panel.core.progress.told import MARK, Teller
from koubou_panel.core.records import Progress

KEPT_BYTES = 4 << 10
MOST_PIECE = 4 << 10
# Characters; a longer line is no meter, on no screen.
MOST_LINE = 512
# A finished bar is shown so long, and so is one that was wiped away; then nobody knows how far the run is.
HELD_S = 5.0

# What ends a piece of a line: line ends, backspaces, and escape sequences that move the cursor.
_MOVE = re.compile(rb"(\n|\r\n|\r|\x08+|\x1b\[\d*[ABEFG]|\x1b\[\d*(?:;\d*)?[Hf]|\x1b[78]|\x1b\[[su])")
_STYLE = re.compile(rb"\x1b(?:\[[0-9;:?<=>]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[()][0-9A-Z]|[=>])")
_UNKNOWN = Progress()


class ProgressReader:
    """How far a run is, from the bytes it prints. One thread at a time."""

    def __init__(self) -> None:
        """Nothing was printed yet."""
        self._fresh = bytearray()
        self._rest = b""
        self._missed = False
        self._teller = Teller()
        self._rate = Rate()
        self._screen = Screen()
        self._shown: Progress | None = None
        self._seen_s = 0.0

    def feed(self, data: bytes) -> None:
        """Take in what was printed next."""
        if self._teller.feed(data):
            self._begin_anew()
        if self._teller.progress is not None:
            return
        fresh = self._fresh
        if len(data) > KEPT_BYTES:
            fresh[:] = data[-KEPT_BYTES:]
            self._missed = True
            return
        fresh += data
        if len(fresh) > 2 * KEPT_BYTES:
            del fresh[:-KEPT_BYTES]
            self._missed = True

    def latest(self, now_s: float) -> Progress | None:
        """How far the run is at the second `now_s` of a steady clock; None if nothing was ever told.

        One whose every field is empty means: it is no longer known.
        """
        said = self._teller.progress
        if said is not None:
            self._shown, self._seen_s = estimated(said, self._rate, now_s), -math.inf
            return self._shown
        self._look(now_s)
        track = self._screen.best()
        if track is not None and not (track.is_finished and now_s - track.changed_s > HELD_S):
            self._shown, self._seen_s = _of_track(track, now_s), now_s
        elif self._shown is not None and (track is not None or now_s - self._seen_s > HELD_S):
            self._shown = _UNKNOWN
        return self._shown

    def _begin_anew(self) -> None:
        """Something was said: what was drawn until now counts no more."""
        if self._teller.progress is None:
            self._rate = Rate()
        self._screen = Screen()
        self._fresh.clear()
        self._rest = b""

    def _look(self, now_s: float) -> None:
        """Read what came since the last call. What may be half a line waits for its end, or for the next call."""
        if not self._fresh:
            self._write(self._rest, now_s)
            self._rest = b""
            return
        if self._missed:
            self._screen.scroll()
            self._rest = b""
        pieces = _MOVE.split(self._rest + self._fresh)
        self._fresh.clear()
        for at in range(0, len(pieces) - 1, 2):
            # Of the first one the beginning may be missing.
            if at or not self._missed:
                self._write(pieces[at], now_s)
            self._screen.move(pieces[at + 1])
        self._rest = pieces[-1][-MOST_PIECE - 1 :]
        self._missed = False

    def _write(self, piece: bytes, now_s: float) -> None:
        # What was meant to be said, and cannot be read, is no meter either.
        if not piece or len(piece) > MOST_PIECE or MARK in piece:
            return
        if b"\x1b" in piece:
            piece = _STYLE.sub(b"", piece)
        text = piece.decode("utf-8", "replace")
        if 0 < len(text) <= MOST_LINE:
            self._screen.write(printable(text), now_s)


def _of_track(track: Track, now_s: float) -> Progress:
    found = track.reading
    known = Progress(
        found.fraction, found.done, found.total, found.unit, found.eta_s, found.message, found.rate_per_s
    )
    return estimated(known, track.rate, now_s)
