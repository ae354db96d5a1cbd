"""Output logs: what each task printed, appended to by its worker and read by offset while it grows.

A log is a stream of bytes with absolute positions, of which the newest part is held, in segments: `ID.log` from byte 0
on, then `ID.log.d/START` each. What a name holds never changes but by growing, so that a reader who has opened a
segment reads what its name says, whatever is removed meanwhile.
"""

from __future__ import annotations

import codecs
import fcntl
import os
import re
from collections import deque
from contextlib import suppress
from pathlib import Path
from threading import Lock

from koubou_panel.core.ports import OutputBytes, OutputPage, OutputSink
from koubou_panel.core.records import TaskId
from koubou_panel.errors import Refused

QUOTA_BYTES = 256 * 1024 * 1024
_SEGMENTS = 8
STDERR = 2
_LOST = "\n[koubou] {lost} bytes of output could not be stored here: {why}\n"

# What a client names ends in a path.
_SAFE_NAME = re.compile(r"[0-9A-Za-z_-]{1,64}")
_LONGEST_CHARACTER = 4


class OutputLog(OutputSink):
    """One task's log, to append to. Any thread.

    Files are made at the first write. They never take more than the quota: the oldest segment goes where a new one
    would exceed it. What a full disk does not take is counted in `lost`, and a line says so as soon as there is room; a
    task does not fail for that.

    Args:
        path: the first segment's file; an earlier run of the task may have begun it.
        quota_bytes: how much is held at most.

    """

    def __init__(self, path: Path, quota_bytes: int = QUOTA_BYTES) -> None:
        """A log that is not opened yet."""
        self.lost = 0
        self._path = path
        self._quota_bytes = max(1, quota_bytes)
        self._segment_bytes = max(1, quota_bytes // _SEGMENTS)
        self._starts = deque(_starts(path))
        held = _held(path)
        self._size = held[-1][1] if held else 0
        self._said_lost = 0
        self._why = ""
        self._fd: int | None = None
        self._lock = Lock()

    @property
    def size(self) -> int:
        """Bytes ever appended, those of earlier runs and those no longer held too."""
        return self._size

    @property
    def quota_bytes(self) -> int:
        """How much is held at most."""
        return self._quota_bytes

    def write(self, data: bytes) -> None:
        """Append `data`."""
        if data:
            with self._lock:
                self.lost += self._append(data) if self._say_lost() else len(data)

    def skip(self, count: int) -> None:
        """Count `count` bytes as printed that would not be held anyway, and begin anew behind them."""
        with self._lock:
            try:
                self._turn(self._size + count)
            except OSError as error:
                self._fail(error, count)

    def close(self) -> None:
        """Let the file go; a later write opens it again."""
        with self._lock:
            self._say_lost()
            if self._fd is not None:
                os.close(self._fd)
                self._fd = None

    def _append(self, data: bytes) -> int:
        """Append `data`; how many bytes of it were not taken."""
        left = memoryview(data)
        try:
            beyond = len(left) - self._quota_bytes
            if beyond > 0:
                self._turn(self._size + beyond)
                left = left[beyond:]
            while left:
                written = os.write(*self._with_room(left))
                self._size += written
                left = left[written:]
        except OSError as error:
            return self._fail(error, len(left))
        return 0

    def _fail(self, error: OSError, lost: int) -> int:
        self._why = error.strerror or str(error)
        return lost

    def _say_lost(self) -> bool:
        """Whether the log says of everything lost that it is; if not, it takes nothing else yet."""
        if self.lost > self._said_lost:
            words = _LOST.format(lost=self.lost - self._said_lost, why=self._why)
            if self._append(words.encode()):
                return False
            self._said_lost = self.lost
        return True

    def _with_room(self, data: memoryview) -> tuple[int, memoryview]:
        """A descriptor to write to, and as much of `data` as has room in its segment."""
        begin = self._starts[-1] if self._starts else 0
        room = begin + self._segment_bytes - self._size
        if not self._starts or room <= 0:
            self._turn(self._size)
            room = self._segment_bytes
        if self._fd is None:
            self._fd = self._open(self._starts[-1])
        return self._fd, data[:room]

    def _turn(self, start: int) -> None:
        """Begin a segment at `start`; the oldest go, but only behind the new one the last."""
        self._remove_oldest(start)
        fd = self._open(start)
        if self._fd is not None:
            os.close(self._fd)
        self._fd, self._size = fd, start
        if not self._starts or self._starts[-1] < start:
            self._starts.append(start)
        self._remove_oldest(start)

    def _remove_oldest(self, start: int) -> None:
        while len(self._starts) > 1 and start + self._segment_bytes - self._starts[0] > self._quota_bytes:
            with suppress(OSError):
                _segment(self._path, self._starts[0]).unlink()
            self._starts.popleft()

    def _open(self, start: int) -> int:
        path = _segment(self._path, start)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return _beyond_standard(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600))


def _beyond_standard(fd: int) -> int:
    """`fd`, or in its place one that is no standard stream's: of those a task may have closed one meanwhile."""
    if fd > STDERR:
        return fd
    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, STDERR + 1)
    finally:
        os.close(fd)


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
        offset: byte to begin at, or the first that is held; negative: that many before the end.
        limit: at most so many bytes.

    """
    _, data, begin, size, start = _read(path, offset, limit)
    return OutputBytes(data, begin, begin + len(data), size, start)


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
    before, data, begin, size, start = _read(path, offset, limit + beyond, before=beyond)
    is_cut = begin == start > 0
    skipped = _continued(data[:beyond]) if is_cut else _rest_of_character(before, data[:beyond])
    begin, data = begin + skipped, data[skipped : skipped + limit]
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    text = decoder.decode(data)
    held_back = len(decoder.getstate()[0])
    if held_back == len(data):
        text, held_back = decoder.decode(b"", final=True), 0
    return OutputPage(text, begin, begin + len(data) - held_back, size, start)


def held_bytes(path: Path) -> int:
    """How much of the disk a log takes."""
    total = 0
    for start in _starts(path):
        with suppress(FileNotFoundError):
            total += _segment(path, start).stat().st_size
    return total


def remove_output(path: Path) -> int:
    """Remove a log that nobody writes to any more, oldest piece first; the bytes that were freed."""
    folder = f"{path}.d"
    if not (os.path.exists(path) or os.path.exists(folder)):  # noqa: PTH110 - of very many there is none
        return 0
    freed = 0
    for start in _starts(path):
        segment = _segment(path, start)
        with suppress(FileNotFoundError):
            size_bytes = segment.stat().st_size
            segment.unlink()
            freed += size_bytes
    with suppress(OSError):
        Path(folder).rmdir()
    return freed


def _read(path: Path, offset: int, limit: int, *, before: int = 0) -> tuple[bytes, bytes, int, int, int]:
    """Up to `before` bytes before `offset`, up to `limit` from it on, where that is, the log's size and its start."""
    while True:
        held = _held(path)
        if not held:
            return b"", b"", 0, 0, 0
        start, size = held[0][0], held[-1][1]
        begin = max(start, min(size, offset) if offset >= 0 else size + offset)
        first = max(start, begin - before)
        try:
            data = _gather(path, held, first, min(size, begin + max(0, limit)))
        except FileNotFoundError:  # the log has moved on: look where it is now
            continue
        return data[: begin - first], data[begin - first :], begin, size, start


def _gather(path: Path, held: list[tuple[int, int]], first: int, end: int) -> bytes:
    """Bytes `first` to `end`, out of as many segments as they are in."""
    pieces = []
    for start, stop in held:
        if start < end and stop > first:
            fd = os.open(_segment(path, start), os.O_RDONLY | os.O_CLOEXEC)
            try:
                begin = max(first, start)
                pieces.append(os.pread(fd, min(end, stop) - begin, begin - start))
            finally:
                os.close(fd)
    return b"".join(pieces)


def _segment(path: Path, start: int) -> Path:
    """The file of the segment that begins at `start`; in the order of their names where they are listed."""
    return Path(f"{path}.d", f"{start:015d}") if start else path


def _starts(path: Path) -> list[int]:
    """Where the segments begin that there are, oldest first."""
    try:
        names = [entry.name for entry in Path(f"{path}.d").iterdir()]
    except FileNotFoundError:
        names = []
    first = [0] if path.exists() else []
    return first + sorted(int(name) for name in names if name.isdecimal())


def _held(path: Path) -> list[tuple[int, int]]:
    """(start, end) of the segments that hold the newest bytes without a gap, oldest first."""
    starts: list[int] | None = None
    while True:
        before, starts = starts, _starts(path)
        held = _joined(path, starts)
        if held or starts == before:
            return held


def _joined(path: Path, starts: list[int]) -> list[tuple[int, int]]:
    joined: list[tuple[int, int]] = []
    for start in reversed(starts):
        try:
            end = start + _segment(path, start).stat().st_size
        except FileNotFoundError:
            break
        if joined and end != joined[-1][0]:
            break
        joined.append((start, end))
    return joined[::-1]


def _continued(data: bytes) -> int:
    """How many bytes `data` begins with that only go on with a character."""
    return len(data) - len(data.lstrip(bytes(range(0x80, 0xC0))))


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
