"""Handing what is sent to a run on to the standard input of its command, within the run's own poll loop."""

from __future__ import annotations

import contextlib
import math
import os
import select
import time

from koubou_panel.core.ports import InputSource

DEAF = "the command no longer reads its input"
OVER = "its input has ended"
_END_OF_FILE = b"\x04"
_FIRST_AGAIN_S = 0.1


class Feeder:
    """Writes pieces of input to a descriptor as fast as the command reads them, and never waits for it.

    The end of a terminal's input is a key, which a program that just sets up its terminal misses. So it is pressed
    again, ever more seldom: who reads on reads the end, as of any input that is over.

    Args:
        poll: the loop's; the feeder registers there what it waits for.
        source: where the input comes from.
        fd: a pipe or a terminal, whose owner the feeder is from now on.
        is_terminal: whether the end is to be said by a control character.

    """

    def __init__(self, poll: select.poll, source: InputSource, fd: int, *, is_terminal: bool) -> None:
        """Wait for the first piece."""
        self._poll = poll
        self._source = source
        self._fd = fd
        self._is_terminal = is_terminal
        self._left = memoryview(b"")
        self._is_last = self._is_over = False
        self._again_s = _FIRST_AGAIN_S
        self._due = math.inf
        self._bell = source.fileno()
        os.set_blocking(fd, False)
        poll.register(self._bell, select.POLLIN)

    def wait_ms(self, longest_ms: int | None) -> int | None:
        """How long to wait at most until the next `turn`, ready or not; None: for ever."""
        if self._due == math.inf:
            return longest_ms
        left_ms = max(0, math.ceil((self._due - time.monotonic()) * 1_000))
        return left_ms if longest_ms is None else min(left_ms, longest_ms)

    def turn(self, ready: set[int]) -> None:
        """Do what can be done now that these descriptors are ready, or the wait is over."""
        if self._is_over:
            self._press_end()
            return
        if self._bell in ready:
            self._next()
        elif self._fd in ready:
            self._write()

    def close(self) -> None:
        """The command has ended."""
        if not self._is_over:
            self._end(DEAF)
        if self._fd >= 0:
            os.close(self._fd)

    def _next(self) -> None:
        piece = self._source.peek()
        if piece is None:
            return
        data, self._is_last = piece
        if self._is_last and self._is_terminal:
            # Within a line the first only ends the line's waiting.
            data += _END_OF_FILE if not data or data.endswith((b"\n", b"\r")) else _END_OF_FILE * 2
        self._left = memoryview(data)
        self._poll.unregister(self._bell)
        self._poll.register(self._fd, select.POLLOUT)
        if not data:
            self._write()

    def _write(self) -> None:
        try:
            self._left = self._left[os.write(self._fd, self._left) if self._left else 0 :]
        except BlockingIOError:
            return
        except OSError:
            self._end(DEAF)
            return
        if self._left:
            return
        self._source.taken()
        if self._is_last:
            self._end(OVER)
        else:
            self._poll.unregister(self._fd)
            self._poll.register(self._bell, select.POLLIN)

    def _end(self, why: str) -> None:
        self._is_over = True
        for fd in (self._bell, self._fd):
            with contextlib.suppress(KeyError):
                self._poll.unregister(fd)
        if why == OVER and self._is_terminal:
            self._due = time.monotonic() + self._again_s
        else:
            os.close(self._fd)
            self._fd = -1
        self._source.close(why)

    def _press_end(self) -> None:
        if time.monotonic() < self._due:
            return
        self._again_s *= 2
        self._due = time.monotonic() + self._again_s
        with contextlib.suppress(OSError):  # nobody reads, or the terminal is closed
            os.write(self._fd, _END_OF_FILE)
