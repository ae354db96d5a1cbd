"""What a worker's tasks print: caught in this process, kept in each task's log."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable
from io import BufferedReader, FileIO, TextIOWrapper
from pathlib import Path
from typing import Any

from koubou_panel.archive.output import QUOTA_BYTES, OutputLog, output_path
from koubou_panel.core.ports import OutputSink
from koubou_panel.core.records import Job
from koubou_panel.engines.marks import Mark

CHUNK_BYTES = 1 << 20
FREE_BYTES = 16 << 20
STEP_BYTES = 64 << 20
MOST_STEPS = 8
NAMES = ("stdin", "stdout", "stderr")


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


class _Input(FileIO):
    """A file that is read; it knows whether any of it was, and so may be left in the buffers above."""

    is_read = False

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer`, and note it."""
        self.is_read = True
        return super().readinto(buffer)


class Streams:
    """The standard streams of this process: whatever a task has done to them, the next one finds them as they were.

    Args:
        fd: the file that descriptors 1 and 2 write to; 0 reads the end of a file.
    """

    def __init__(self, fd: int) -> None:
        """Redirect them from now on."""
        self._fd = fd
        self._nothing = os.open(os.devnull, os.O_RDONLY)
        self._redirect()
        for stream in (sys.stdout, sys.stderr):
            stream.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]
        self._own: dict[str, Any] = {name: getattr(sys, name) for name in NAMES}
        self._traits = {name: _traits(stream) for name, stream in self._own.items()}
        self._changed: set[str] = set()
        self._left: list[Any] = []
        self._make_anew("stdin")
        for name in NAMES[1:]:
            self._watch(name)

    def put_back(self) -> None:
        """Flush them, and make anew what was closed, replaced or set up otherwise."""
        spoilt = [name for name in NAMES if not self._is_sound(name)]
        self._redirect()
        for name in spoilt:
            self._leave_open(getattr(sys, name, None))
            self._make_anew(name)
        if spoilt:  # what went just now may have closed one of them
            self._redirect()

    def _leave_open(self, stream: Any) -> None:
        """Have what a task put there not close a standard descriptor when it goes: that may be in another's run."""
        with contextlib.suppress(Exception):  # it is closed, or has no descriptor
            raw = getattr(getattr(stream, "buffer", stream), "raw", stream)
            if raw.closefd and raw.fileno() < len(NAMES):
                self._left.append(_closing_part(stream))

    def _redirect(self) -> None:
        """In less time than it takes to look where they point."""
        os.dup2(self._nothing, 0)
        os.dup2(self._fd, 1)
        os.dup2(self._fd, 2)

    def _is_sound(self, name: str) -> bool:
        """Whether it is its own, as it was; it is flushed, whichever it is."""
        found: Any = getattr(sys, name, None)
        try:
            found.flush()
            is_own = found is self._own[name] and name not in self._changed
            return is_own and not (name == "stdin" and found.buffer.raw.is_read)
        except Exception:  # noqa: BLE001 - it is closed or detached, or a task's own, which may raise anything
            return False

    def _make_anew(self, name: str) -> None:
        """A stream that has no buffer in common with what a task has made of the one before."""
        with contextlib.suppress(Exception):
            self._own[name].flush()
        number = NAMES.index(name)
        encoding, errors, is_by_line = self._traits[name]
        stream: Any
        if number:
            stream = open(number, "w", 1 if is_by_line else -1, encoding, errors, closefd=False)  # noqa: SIM115 - lives on
        else:
            stream = TextIOWrapper(BufferedReader(_Input(0, closefd=False)), encoding, errors)
            stream.mode = "r"
        self._own[name] = stream
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
        self._changed.discard(name)
        self._watch(name)

    def _watch(self, name: str) -> None:
        """Hear of it when a stream is set up otherwise: what it makes of the end of a line cannot be asked for."""
        stream = self._own[name]
        reconfigure = stream.reconfigure

        def told(**options: Any) -> None:
            self._changed.add(name)
            reconfigure(**options)

        stream.reconfigure = told


def _closing_part(stream: Any) -> Any:
    """What closes the descriptor of `stream` when it goes; a log handler may write to the stream all the same."""
    if type(stream) is not TextIOWrapper:
        return stream
    number, mode = stream.fileno(), "rb" if stream.readable() else "wb"
    encoding, errors, is_by_line = _traits(stream)
    part = stream.detach().detach()
    again = open(number, mode, closefd=False)  # noqa: SIM115 - lives with the stream
    stream.__init__(again, encoding, errors, None, is_by_line)  # type: ignore[misc]
    return part


def _traits(stream: Any) -> tuple[str, str, bool]:
    """How it was set up."""
    return stream.encoding, stream.errors, stream.line_buffering


class Capture:
    """Descriptors 1 and 2 of this process, caught in a file and moved to the log of the task that printed.

    The engine has the file open too, and reads in the mark how much was moved: what a crash leaves here is not lost.
    """

    def __init__(self, fd: int, mark: Mark) -> None:
        """Redirect both into the file `fd` from now on."""
        import fcntl

        self._mark = mark
        fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_APPEND)
        self._streams = Streams(fd)
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
        with self._lock:  # a log that is being opened may have got a descriptor that is to be put back
            self._streams.put_back()
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
