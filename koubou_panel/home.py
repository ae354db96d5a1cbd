"""The home: the one folder that holds a workshop's database, output and runtime files, and its lock."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from koubou_panel.errors import KoubouError


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
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            held_by = os.read(fd, 32).decode(errors="replace").strip()
            os.close(fd)
            raise HomeTaken(pid=int(held_by) if held_by.isdigit() else 0, root=self.root) from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        self._lock_fd = fd

    def unlock(self) -> None:
        """Let the home go."""
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None
