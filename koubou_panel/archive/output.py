"""Output logs: one file of bytes per task, appended to by its worker and read by offset while it grows."""

from __future__ import annotations

import codecs
import os
import re
from pathlib import Path
from threading import Lock

from koubou_panel.core.ports import OutputBytes, OutputPage, OutputSink
from koubou_panel.core.records import TaskId
from koubou_panel.errors import Refused

QUOTA_BYTES = 256 * 1024 * 1024
_NOTICE = "\n[koubou] this log is full ({quota} MiB): what the task printed from here on is not kept\n"

# What a client names ends in a path.
_SAFE_NAME = re.compile(r"[0-9A-Za-z_-]{1,64}")
_LONGEST_CHARACTER = 4


class OutputLog(OutputSink):
    """One task's log, to append to. Any thread.

    The file is made at the first write. It never grows beyond the quota: a line says so, and the rest is counted in
    `dropped`, as is what a full disk does not take. A task does not fail for that.

    Args:
        path: the file; an earlier run of the task may have begun it.
        quota_bytes: the largest size, notice included.

    """

    def __init__(self, path: Path, quota_bytes: int = QUOTA_BYTES) -> None:
        """A log that is not opened yet."""
        self.dropped = 0
        self._path = path
        self._notice = _NOTICE.format(quota=quota_bytes >> 20).encode()
        self._room_bytes = max(0, quota_bytes - len(self._notice))
        self._fd: int | None = None
        self._lock = Lock()
        try:
            self._size = path.stat().st_size
        except FileNotFoundError:
            self._size = 0

    @property
    def size(self) -> int:
        """Bytes in the log, those of earlier runs too."""
        return self._size

    def write(self, data: bytes) -> None:
        """Append `data`, as far as there is room."""
        if not data:
            return
        with self._lock:
            fits = max(0, self._room_bytes - self._size)
            if len(data) <= fits:
                self._append(data)
                return
            self.dropped += len(data) - fits
            if self._size <= self._room_bytes:
                self._append(data[:fits] + self._notice)

    def close(self) -> None:
        """Let the file go; a later write opens it again."""
        with self._lock:
            if self._fd is not None:
                os.close(self._fd)
                self._fd = None

    def _append(self, data: bytes) -> None:
        left = memoryview(data)
        try:
            if self._fd is None:
                self._fd = self._open()
            while left:
                written = os.write(self._fd, left)
                self._size += written
                left = left[written:]
        except OSError:
            self.dropped += len(left)

    def _open(self) -> int:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)


def output_path(folder: Path, task_id: TaskId) -> Path:
    """The log of a task, in one of many subfolders of `folder`.

    Raises:
        Refused: `not_found`: no task can have that id.
    """
    if _SAFE_NAME.fullmatch(task_id) is None:
        raise Refused("not_found", f"no task {task_id[:64]!r}")
    return folder / task_id[-2:] / f"{task_id}.log"


def read_output_bytes(path: Path, offset: int, limit: int) -> OutputBytes:
    """A piece of a log as it was printed; an empty one if there is no log.

    Args:
        path: the log.
        offset: byte to begin at; negative: that many before the end.
        limit: at most so many bytes.

    """
    _, data, begin, size = _read(path, offset, limit)
    return OutputBytes(data, begin, begin + len(data), size)


def read_output(path: Path, offset: int, limit: int) -> OutputPage:
    """A piece of a log as text; an empty one if there is no log.

    A page ends between two characters; where the log itself ends within one, the bytes come alone, in a page that
    follows. Reading on from `end` always gets further, until `end` is `size`.

    Args:
        path: the log.
        offset: as for `read_output_bytes`. Within a character, the next one.
        limit: at most so many bytes, but at least the 4 of the longest character.

    """
    limit = max(limit, _LONGEST_CHARACTER)
    beyond = _LONGEST_CHARACTER - 1
    before, data, begin, size = _read(path, offset, limit + beyond, before=beyond)
    skipped = _rest_of_character(before, data[:beyond])
    begin, data = begin + skipped, data[skipped : skipped + limit]
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    text = decoder.decode(data)
    held_back = len(decoder.getstate()[0])
    if held_back == len(data):
        text, held_back = decoder.decode(b"", final=True), 0
    return OutputPage(text, begin, begin + len(data) - held_back, size)


def _read(path: Path, offset: int, limit: int, *, before: int = 0) -> tuple[bytes, bytes, int, int]:
    """Up to `before` bytes before `offset`, up to `limit` from it on, where that is, and the log's size."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return b"", b"", 0, 0
    try:
        size = os.fstat(fd).st_size
        begin = min(size, offset) if offset >= 0 else max(0, size + offset)
        start = max(0, begin - before)
        data = os.pread(fd, begin - start + max(0, min(limit, size - begin)), start)
    finally:
        os.close(fd)
    return data[: begin - start], data[begin - start :], begin, size


def _rest_of_character(before: bytes, after: bytes) -> int:
    """How many bytes of `after` belong to a character that starts in `before`."""
    around = before + after
    for back in range(1, len(before) + 1):
        first = len(before) - back
        for length in range(back + 1, _LONGEST_CHARACTER + 1):
            if _is_one_character(around[first : first + length], length):
                return length - back
    return 0


def _is_one_character(data: bytes, length: int) -> bool:
    try:
        return len(data) == length and len(data.decode()) == 1
    except UnicodeDecodeError:
        return False
