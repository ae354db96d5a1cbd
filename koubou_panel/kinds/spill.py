"""Files of large values, in a folder of the home: complete and synced before anybody is told of them.

A file belongs to one task: `ID.a-0`, `ID.f-0`, `ID.r3-0`, … are of its arguments, its function, and the result of its
third run. While it is written it is called `….part`; then it never changes. The same content for many tasks is stored
once, under many names.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock
from typing import NamedTuple

from msgspec import Struct

from koubou_panel.core.quantity import size_text
from koubou_panel.kinds.mapped import mapped

VALUES = "values"
PART = ".part"
LARGE_BYTES = 1 << 20
OWN_FILE_BYTES = 8 << 20
RESERVE_BYTES = 64 << 20
WRITE_BYTES = 8 << 20
ALIGNED = 64
MOST_KNOWN = 16
LINK = "it is a link, which is not followed: move it away; to use another disk, put the whole home there (KOUBOU_HOME)"
_SAMPLES = 32
_SAMPLE_BYTES = 512
_NAME = re.compile(r"([0-9A-Za-z_]+)\.([a-z])(\d*)-(\d+)(\.part)?")


class Piece(Struct, frozen=True, array_like=True, gc=False):
    """Where some bytes lie: in which of a value's files, from which byte on, and how many."""

    file: int
    offset: int
    size: int


class Gone(Exception):
    """A file is not there any more, or not what it was: the words say which, and how large the value is."""


class NotStored(Exception):
    """A large value could not be put into a file: the words say how large, why, and what to do."""


@contextmanager
def _storing(folder: Path, size_bytes: int = 0) -> Iterator[None]:
    """Within it something is written below `folder`, of so many bytes."""
    try:
        yield
    except OSError as error:
        size = f" for {size_text(size_bytes)}" if size_bytes else ""
        cure = "; free some space and try again" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        raise NotStored(f"{error.strerror or error}{size} (in {folder}){cure}") from None


class Place(NamedTuple):
    """Whose files: below which folder, of which task, and (`stem`) of what: `a`, `f`, or `r` with a run's number."""

    folder: Path
    task_id: str
    stem: str

    def path(self, number: int) -> Path:
        """One of them."""
        return self.folder / f"{self.task_id}.{self.stem}-{number}"


class FileName(NamedTuple):
    """What a file's name says."""

    task_id: str
    of: str
    run: int
    is_part: bool


def read_name(name: str) -> FileName | None:
    """What the name of a file says; None where it is none of ours."""
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    return FileName(found[1], found[2], int(found[3] or 0), found[5] is not None)


class Known:
    """What was written lately, so that the same content is not written again. Any thread."""

    def __init__(self) -> None:
        """Nothing is known."""
        self._files: OrderedDict[tuple[int, bytes], Path] = OrderedDict()
        self._digests: dict[Path, bytes] = {}
        self._lock = Lock()

    def link(self, view: memoryview, target: Path) -> bool:
        """Give a file with this very content another name; whether there was one."""
        key = (view.nbytes, _sample(view))
        with self._lock:
            path = self._files.get(key)
        if path is None:
            return False
        try:
            if self._digest(path) != hashlib.sha256(view).digest():
                return False
            target.hardlink_to(path)
        except OSError:  # it was removed, has too many names, or is where a file can have but one
            with self._lock:
                self._files.pop(key, None)
                self._digests.pop(path, None)
            return False
        return True

    def note(self, view: memoryview, path: Path) -> None:
        """This content is in that file."""
        with self._lock:
            self._files[view.nbytes, _sample(view)] = path
            while len(self._files) > MOST_KNOWN:
                _, old = self._files.popitem(last=False)
                self._digests.pop(old, None)

    def _digest(self, path: Path) -> bytes:
        digest = self._digests.get(path)
        if digest is None:
            with path.open("rb") as file:
                digest = self._digests[path] = hashlib.file_digest(file, "sha256").digest()
        return digest


def _sample(view: memoryview) -> bytes:
    """A few bytes here and there: what differs in them is not the same."""
    step = max(_SAMPLE_BYTES, view.nbytes // _SAMPLES)
    sample = hashlib.sha256()
    for at in range(0, view.nbytes, step):
        sample.update(view[at : at + _SAMPLE_BYTES])
    return sample.digest()


class Growing:
    """A file that is being written."""

    def __init__(self, number: int, path: Path) -> None:
        """An empty one, private to this user."""
        self.number = number
        self.path = path
        self.part = path.with_name(path.name + PART)
        self.size = 0
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        with _storing(path.parent):
            self.part.unlink(missing_ok=True)  # of an earlier try, which has ended
            self._fd = os.open(self.part, flags, 0o600)

    def append(self, data: bytes | bytearray | memoryview, *, aligned: bool = False) -> Piece:
        """Write `data` behind what there is; where that is."""
        view = memoryview(data).cast("B")
        with _storing(self.path.parent, self.size + view.nbytes):
            if (self.size + view.nbytes) // LARGE_BYTES > self.size // LARGE_BYTES:
                _check_room(self._fd, view.nbytes)
            if aligned and self.size % ALIGNED:
                self._write(memoryview(bytes(ALIGNED - self.size % ALIGNED)))
            piece = Piece(self.number, self.size, view.nbytes)
            self._write(view)
        return piece

    def _write(self, view: memoryview) -> None:
        at = 0
        while at < view.nbytes:
            at += os.write(self._fd, view[at : at + WRITE_BYTES])
        self.size += view.nbytes

    def settle(self) -> None:
        """Have it on the disk, under its name."""
        with _storing(self.path.parent, self.size):
            getattr(os, "fdatasync", os.fsync)(self._fd)
            self.close()
            self.part.rename(self.path)

    def close(self) -> None:
        """Let it go, as far as it has come."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class Spill:
    """The files of one value that is being put down; none is made before it is needed.

    Args:
        place: whose files.
        known: what was written before.
    """

    def __init__(self, place: Place, known: Known | None = None) -> None:
        """Nothing is written."""
        self.place = place
        self._known = known
        self._growing: list[Growing] = []
        self._linked: list[Path] = []
        self._noted: list[tuple[memoryview, Path]] = []
        self._count = 0

    def new(self) -> Growing:
        """A further file."""
        if not self._growing:
            with _storing(self.place.folder):
                make_private(self.place.folder)
        growing = Growing(self._count, self.place.path(self._count))
        self._count += 1
        self._growing.append(growing)
        return growing

    def add(self, view: memoryview) -> Piece:
        """A file of its own for these bytes, or one that has them already."""
        if self._known is not None:
            path = self.place.path(self._count)
            if self._known.link(view, path):
                self._linked.append(path)
                self._count += 1
                return Piece(self._count - 1, 0, view.nbytes)
        growing = self.new()
        if self._known is not None:
            self._noted.append((view, growing.path))
        return growing.append(view)

    def keep(self) -> None:
        """Have all of them on the disk."""
        if not self._count:
            return
        for growing in self._growing:
            growing.settle()
        with _storing(self.place.folder):
            _sync_folder(self.place.folder)
        if self._known is not None:
            for view, path in self._noted:
                self._known.note(view, path)
        self._noted.clear()

    def drop(self) -> None:
        """Remove all of them."""
        for growing in self._growing:
            growing.close()
            for path in (growing.part, growing.path):
                with suppress(OSError):
                    path.unlink(missing_ok=True)
        for path in self._linked:
            with suppress(OSError):
                path.unlink(missing_ok=True)
        self._growing.clear()
        self._linked.clear()
        self._noted.clear()
        self._count = 0


@contextmanager
def spilling(spill: Spill) -> Iterator[None]:
    """Within it a value is put down: at its end the files last; after an error, an interrupt too, there are none."""
    try:
        yield
        spill.keep()
    except BaseException:
        spill.drop()
        raise


def make_private(folder: Path) -> None:
    """Have a folder that this user alone can write to.

    Raises:
        OSError: there is none and cannot be, or it is somebody else's.
    """
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if stat.S_ISLNK(found.st_mode):
        raise PermissionError(errno.EPERM, LINK, str(folder))
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise PermissionError(
            errno.EPERM,
            "it is not a folder of this user alone: move it away or `chmod 700` it, then try again",
            str(folder),
        )


def opened(place: Place, number: int) -> memoryview:
    """A file's bytes: mapped, not read; what is written there stays in this process.

    Raises:
        Gone: there is no such file, or it is not this user's.
        OSError: it cannot be opened just now.
    """
    path = place.path(number)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        raise Gone(f"{path} is not there any more") from None
    try:
        found = os.fstat(fd)
        if found.st_uid != os.geteuid() or not found.st_size:
            raise Gone(f"{path} is not what was stored")
        return mapped(fd, found.st_size)
    finally:
        os.close(fd)


def cut(mapping: memoryview, piece: Piece, place: Place) -> memoryview:
    """The bytes of `piece`.

    Raises:
        Gone: the file is shorter than it was.
    """
    if len(mapping) < piece.offset + piece.size:
        raise Gone(f"{place.path(piece.file)} is shorter than it was written")
    return mapping[piece.offset : piece.offset + piece.size]


def link_arguments(folder: Path, task_id: str, new_id: str) -> None:
    """Give the files of a task's function and arguments, where there are any, to another task too. Blocks.

    Raises:
        OSError: it cannot be done.
    """
    for of in "af":
        for path in sorted(folder.glob(f"{task_id}.{of}-*")):
            with suppress(FileExistsError):
                folder.joinpath(new_id + path.name.removeprefix(task_id)).hardlink_to(path)


def _check_room(fd: int, size_bytes: int) -> None:
    """Leave the archive some space: without it the whole workshop would stand still."""
    found = os.fstatvfs(fd)
    if found.f_bavail * found.f_frsize < size_bytes + RESERVE_BYTES:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
