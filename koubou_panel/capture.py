"""What a worker's tasks print: caught in this process, kept in each task's log."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from koubou_panel.archive.output import QUOTA_BYTES, OutputLog, output_path
from koubou_panel.core.ports import OutputSink
from koubou_panel.core.records import Job
from koubou_panel.engines.marks import Mark

CHUNK_BYTES = 1 << 20
FREE_BYTES = 16 << 20
STEP_BYTES = 64 << 20
MOST_STEPS = 8


class LazyLog(OutputSink):
    """A run's log that costs nothing until something is printed; most short functions print nothing."""

    def __init__(self, job: Job, folder: Path, hear: Callable[[bytes], None]) -> None:
        """The log of `job` below `folder`; one that an earlier run may have begun is looked at now.

        `hear` is called with what was printed.
        """
        self._job = job
        self._hear = hear
        self._folder = folder
        self._log = self._open() if job.run > 1 else None

    def _open(self) -> OutputLog:
        return OutputLog(output_path(self._folder, self._job.task_id), self.quota_bytes)

    @property
    def quota_bytes(self) -> int:
        """How much of the output is held at most."""
        quota_bytes = self._job.limits.output_bytes
        return QUOTA_BYTES if quota_bytes is None else quota_bytes

    def write(self, data: bytes) -> None:
        """Append `data`."""
        if self._log is None:
            self._log = self._open()
        self._log.write(data)
        self._hear(data)

    def skip(self, count: int) -> None:
        """Count bytes as printed that would not be held anyway."""
        if self._log is None:
            self._log = self._open()
        self._log.skip(count)

    @property
    def size(self) -> int:
        """Bytes in the log, those of earlier runs too."""
        return 0 if self._log is None else self._log.size

    @property
    def lost(self) -> int:
        """Bytes that could not be stored, on a full disk."""
        return 0 if self._log is None else self._log.lost

    def close(self) -> None:
        """Let the file go."""
        if self._log is not None:
            self._log.close()


class Capture:
    """Descriptors 1 and 2 of this process, caught in a file and moved to the log of the task that printed.

    The engine has the file open too, and reads in the mark how much was moved: what a crash leaves here is not lost.
    """

    def __init__(self, fd: int, mark: Mark) -> None:
        """Redirect both into the file `fd` from now on."""
        import fcntl

        self._mark = mark
        fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_APPEND)
        os.dup2(fd, 1)
        os.dup2(fd, 2)
        for stream in (sys.stdout, sys.stderr):
            stream.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]
        self._fd = fd
        self._moved = self._freed = 0
        self._lock = threading.Lock()

    def move(self, output: LazyLog, is_current: Callable[[], bool]) -> None:
        """Move what was printed since the last call, while the run that `output` belongs to goes on.

        In a storm, some steps of it: how much there is to be skipped is seen at each.
        """
        for _ in range(MOST_STEPS):
            with self._lock:
                size = os.fstat(self._fd).st_size
                # Asked after the size is known: all of it was then printed by this run.
                if size <= self._moved or not is_current():
                    return
                self._move(output, size, STEP_BYTES)

    def finish(self, output: LazyLog) -> None:
        """Move the rest and begin anew. Main thread only, when its run has ended."""
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        except (ValueError, OSError, AttributeError):
            """The task has closed or replaced a stream; what it printed is in the file all the same."""
        size = os.lseek(self._fd, 0, os.SEEK_END)  # a third of what fstat costs
        if size:
            with self._lock:
                self._move(output, size, size)
                os.ftruncate(self._fd, 0)
                self._moved = self._freed = self._mark.moved = 0

    def _move(self, output: LazyLog, size: int, most: int) -> None:
        beyond = size - self._moved - output.quota_bytes
        if beyond > 0:
            output.skip(beyond)
            self._has_moved(beyond)
        end = min(size, self._moved + most)
        while self._moved < end and (data := os.pread(self._fd, CHUNK_BYTES, self._moved)):
            output.write(data)
            self._has_moved(len(data))

    def _has_moved(self, count: int) -> None:
        self._moved += count
        self._mark.moved = self._moved
        if self._moved - self._freed >= FREE_BYTES:
            # It cannot be cut short while the task, or a process of it, may be writing to it.
            free_storage(self._fd, self._freed, self._moved - self._freed)
            self._freed = self._moved


def free_storage(fd: int, start: int, count: int) -> None:
    """Give back what bytes of a file take on disk; they read as zeros then (Linux; elsewhere they stay)."""
    import ctypes

    keep_size, punch_hole = 1, 2
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.fallocate(fd, punch_hole | keep_size, ctypes.c_long(start), ctypes.c_long(count))
