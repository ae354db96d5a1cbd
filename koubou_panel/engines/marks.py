"""Begin marks: a mapped file per worker that says how far into its claims it has begun.

The mark survives the death of any process, not a power cut; so it carries the boot's id, and after a reboot it
says nothing. Layout: 8 bytes little-endian `begun` (the last begun claim + 1), 8 bytes guard pid, 36 bytes boot id;
at byte 64, 8 bytes `moved`: how much of what the worker caught of its own output is in a task's log; at 72, twice 8
bytes: the first revoked claim, and the first after it that is not.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import struct
from pathlib import Path

SIZE = 4096
_BEGUN = struct.Struct("<Q")
_PID_AT = 8
_BOOT_AT = 16
_BOOT_LEN = 36
_MOVED_AT = 64
_REVOKED = struct.Struct("<QQ")
_REVOKED_AT = 72


def boot_id() -> bytes:
    """The id of this boot, 36 bytes; all dashes where the platform tells none."""
    with contextlib.suppress(OSError), open("/proc/sys/kernel/random/boot_id", "rb") as file:
        return file.read(_BOOT_LEN)
    return b"-" * _BOOT_LEN


class Mark:
    """The mark of one worker, mapped. The worker writes it, the workshop reads it."""

    def __init__(self, fd: int) -> None:
        """Map the file open as `fd`."""
        self._map = mmap.mmap(fd, SIZE)

    def begin(self, claim: int) -> None:
        """Say that `claim` is begun; called before anything of it runs."""
        _BEGUN.pack_into(self._map, 0, claim + 1)

    @property
    def begun(self) -> int:
        """How many claims were begun."""
        number: int = _BEGUN.unpack_from(self._map, 0)[0]
        return number

    @property
    def moved(self) -> int:
        """How many bytes of the worker's caught output have been moved to a log."""
        number: int = _BEGUN.unpack_from(self._map, _MOVED_AT)[0]
        return number

    @moved.setter
    def moved(self, size: int) -> None:
        _BEGUN.pack_into(self._map, _MOVED_AT, size)

    def revoke(self, end: int) -> int:
        """Take back the claims before `end` that have not begun: those from the one on that is returned.

        The worker should be stopped. If somebody lets it go on meanwhile, a claim between what was begun before this
        and after it has either begun for good, or its worker finds that it was taken back, and must say so.
        """
        first, before = _REVOKED.unpack_from(self._map, _REVOKED_AT)
        begun = self.begun
        # The last one begun may be a revoked one that its worker has not asked about yet: it stays revoked.
        _REVOKED.pack_into(self._map, _REVOKED_AT, first if begun <= before else begun, end)
        return self.begun

    def is_revoked(self, claim: int) -> bool:
        """Whether a claim was taken back and must not run; asked by the worker after `begin`.

        A stopped worker has begun `claim`, and it is not taken back, or will ask after it was: never neither, or both.
        """
        first, end = _REVOKED.unpack_from(self._map, _REVOKED_AT)
        return bool(first <= claim < end)

    def close(self) -> None:
        """Unmap."""
        self._map.close()


def create(path: Path) -> int:
    """A new mark file; the descriptor holds its lock, as do the processes that inherit it."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(fd, SIZE)
        os.pwrite(fd, boot_id(), _BOOT_AT)
        fcntl.flock(fd, fcntl.LOCK_EX)
    except OSError:
        os.close(fd)
        raise
    return fd


def set_guard(fd: int, pid: int) -> None:
    """Note the guard's pid, so that a rescue can find it."""
    os.pwrite(fd, _BEGUN.pack(pid), _PID_AT)


def read(path: Path) -> tuple[int, int] | None:
    """(begun, guard pid) of a mark left behind, or None if it is of another boot or unreadable."""
    try:
        data = path.read_bytes()[: _BOOT_AT + _BOOT_LEN]
    except OSError:
        return None
    if len(data) < _BOOT_AT + _BOOT_LEN or data[_BOOT_AT:] != boot_id():
        return None
    return _BEGUN.unpack_from(data, 0)[0], _BEGUN.unpack_from(data, _PID_AT)[0]


def is_held(path: Path) -> bool:
    """Whether a process that inherited the mark still lives."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False
