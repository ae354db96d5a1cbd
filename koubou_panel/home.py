"""The home: the one folder that holds a workshop's database, output and runtime files, and its lock."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from koubou_panel.errors import KoubouError
from koubou_panel.kinds.spill import VALUES

LOCK_TRIES = 3
LOCK_AGAIN_S = 0.005


class HomeTaken(KoubouError):
    """Another workshop holds this home.

    Args:
        pid: the process that holds it, 0 if it could not be told.
        root: the home's folder.

    """

    def __init__(self, *, pid: int, root: Path) -> None:
        super().__init__(
            f"another workshop (pid {pid or 'unknown'}) holds the home {root}; `koubou down` ends it"
        )
        self.pid = pid
        self.root = root


class Home:
    """Paths below one folder. Nothing is made until `prepare`."""

    def __init__(self, root: Path) -> None:
        """The home at `root`."""
        self.root = root.expanduser().absolute()
        self._lock_fd: int | None = None

    @property
    def database(self) -> Path:
        """The SQLite database."""
        return self.root / "koubou.db"

    @property
    def output(self) -> Path:
        """The folder of output logs."""
        return self.root / "output"

    @property
    def values(self) -> Path:
        """The folder of large arguments and results; made when there is one."""
        return self.root / VALUES

    @property
    def scripts(self) -> Path:
        """The folder of the scripts' own texts and of their versions."""
        return self.root / "scripts"

    @property
    def runtime(self) -> Path:
        """The 0700 folder of what lives as long as the workshop: token, socket, lock, marks."""
        return self.root / "runtime"

    @property
    def socket(self) -> Path:
        """The private link's Unix socket."""
        return self.runtime / "shop.sock"

    @property
    def lock_file(self) -> Path:
        """The file whose lock is the home's: not below `runtime`, which a person may clear."""
        return self.root / "lock"

    @property
    def marks(self) -> Path:
        """The folder of the workers' mapped files."""
        return self.runtime / "marks"

    def prepare(self) -> None:
        """Make the folders, private to this user."""
        for folder in (self.root, self.output, self.runtime, self.marks):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def lock(self) -> None:
        """Hold the home until this process ends or `unlock`.

        Raises:
            HomeTaken: another process holds it.
        """
        path = self.lock_file
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            _lock_soon(fd)
        except BlockingIOError:
            held_by = os.read(fd, 32).decode(errors="replace").strip()
            os.close(fd)
            raise HomeTaken(pid=int(held_by) if held_by.isdigit() else 0, root=self.root) from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        self._lock_fd = fd

    def is_held(self) -> bool:
        """Whether a living process holds the home; one whose folder was removed is held by nobody."""
        try:
            fd = os.open(self.lock_file, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: several may look at once
        except OSError:  # also where it cannot be told: then it is waited for
            return True
        finally:
            os.close(fd)
        return False

    def is_in_place(self) -> bool:
        """Whether the lock that is held here is still the home's: nobody removed the folder, or put another there.

        Where that cannot be told, as on a disk that answers with an error for a moment, it is.
        """
        if self._lock_fd is None:
            return False
        try:
            return os.path.samestat(self.lock_file.stat(), os.fstat(self._lock_fd))
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            return True

    def unlock(self) -> None:
        """Let the home go."""
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None


def _lock_soon(fd: int) -> None:
    """Lock a file; who only looks whether it is locked (`Home.is_held`) has it for a moment.

    Raises:
        BlockingIOError: another has it.
    """
    for left in reversed(range(LOCK_TRIES)):
        try:
            return fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not left:
                raise
        time.sleep(LOCK_AGAIN_S)
    return None
