"""Input on its way to runs, at both ends: who waits in the workshop, what waits in the worker.

A sender is answered once its piece was handed on to the process, or why it cannot be: that is the only brake there
is, so that it must not send the next before.
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Callable
from threading import Lock

from koubou_panel.core.ports import InputSource
from koubou_panel.engines.frames import Input

MOST_WAITING = 64
ENDED = "it has ended"
CROWDED = "too much input waits for it already; send the next piece once the last one is taken"

Answer = Callable[[str], None]
"""Told once: empty if the piece was taken, else why not."""


class Senders:
    """Whose input one worker has not answered yet. Loop thread only."""

    def __init__(self) -> None:
        """Nobody waits."""
        self._last = 0
        self._waiting: dict[int, tuple[int, Answer]] = {}

    def add(self, claim: int, answer: Answer) -> int:
        """A number for a piece of input to the run of this claim."""
        self._last += 1
        self._waiting[self._last] = claim, answer
        return self._last

    def is_crowded(self, claim: int) -> bool:
        """Whether as much waits for this run as its worker would hold."""
        waiting = sum(its_claim == claim for its_claim, _ in self._waiting.values())
        return waiting >= MOST_WAITING

    def settle(self, number: int, why: str) -> None:
        """The worker has answered."""
        _, answer = self._waiting.pop(number, (0, _nobody))
        answer(why)

    def end(self, claim: int | None = None) -> None:
        """The run of this claim has ended, or all have: who still waits, waits in vain."""
        if not self._waiting:
            return
        for number, (its_claim, _) in list(self._waiting.items()):
            if claim is None or its_claim == claim:
                self.settle(number, ENDED)


def _nobody(why: str) -> None:
    """An answer that nobody waits for any more."""


class Inputs:
    """What was sent to the runs of a worker, in the worker. Any thread."""

    def __init__(self, answer: Callable[[int, str], None]) -> None:
        """`answer` is told a piece's number, and why it was not taken or nothing."""
        self._answer = answer
        self._runs: dict[int, RunInput] = {}
        self._ended = -1
        self._lock = Lock()

    def put(self, piece: Input) -> None:
        """Take in a piece for a run that goes on or is to come; never waits."""
        with self._lock:
            run = None if piece.claim <= self._ended else self._of(piece.claim)
        if run is None:
            self._answer(piece.number, ENDED)
        else:
            run.put(piece)

    def of(self, claim: int) -> RunInput:
        """The input of the run of this claim, for its kind to read."""
        with self._lock:
            return self._of(claim)

    def end(self, claim: int) -> None:
        """The run of this claim is over; they run in the order of their claims."""
        with self._lock:
            self._ended = claim
            run = self._runs.pop(claim, None)
        if run is not None:
            run.close(ENDED)

    def _of(self, claim: int) -> RunInput:
        if claim not in self._runs:
            self._runs[claim] = RunInput(self._answer)
        return self._runs[claim]


class RunInput(InputSource):
    """The input of one run: filled by the worker's reader, emptied by the run's kind."""

    def __init__(self, answer: Callable[[int, str], None]) -> None:
        """Empty and open."""
        self._answer = answer
        self._pieces: deque[Input] = deque()
        self._lock = Lock()
        self._why = ""
        self._bell, self._ring = os.pipe()
        for fd in (self._bell, self._ring):
            os.set_blocking(fd, False)

    def put(self, piece: Input) -> None:
        """Take in a piece; its sender is told at once if it is too late or too much."""
        with self._lock:
            why = self._why or (CROWDED if len(self._pieces) >= MOST_WAITING else "")
            if not why:
                self._pieces.append(piece)
                with contextlib.suppress(BlockingIOError):  # it rings loud enough already
                    os.write(self._ring, b"!")
        if why:
            self._answer(piece.number, why)

    def fileno(self) -> int:
        """Readable while a piece may wait."""
        return self._bell

    def peek(self) -> tuple[bytes, bool] | None:
        """The oldest piece that was not taken yet, and whether it is the last; None: none waits."""
        with self._lock:
            if not self._pieces:
                with contextlib.suppress(OSError):
                    os.read(self._bell, 4 * MOST_WAITING)
                return None
            return self._pieces[0].data, self._pieces[0].is_last

    def taken(self) -> None:
        """The oldest piece was handed on."""
        with self._lock:
            piece = self._pieces.popleft()
        self._answer(piece.number, "")

    def close(self, why: str) -> None:
        """Take nothing any more; who sends, or has sent what was not taken, is told why."""
        with self._lock:
            if self._why:
                return
            self._why = why
            left = list(self._pieces)
            self._pieces.clear()
            os.close(self._bell)
            os.close(self._ring)
        for piece in left:
            self._answer(piece.number, why)
