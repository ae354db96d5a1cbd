"""Unix sockets at any path: a socket's address holds about a hundred bytes, a home's path may be longer."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

LONGEST_ADDRESS = 100  # 107 on Linux, 103 on macOS


@contextmanager
def short_address(path: Path) -> Iterator[str]:
    """A name for `path` that fits into a socket's address, good inside the `with`.

    A long one is reached through a symbolic link in a private temporary folder. (/proc/self/fd would do without,
    but is not on macOS nor in every container.)
    """
    if len(os.fsencode(path)) <= LONGEST_ADDRESS:
        yield str(path)
        return
    with TemporaryDirectory(prefix="koubou-") as folder:
        link = Path(folder, "d")
        link.symlink_to(path.parent.absolute(), target_is_directory=True)
        yield str(link / path.name)


def bind_private(path: Path) -> socket.socket:
    """A bound socket at `path` that only this user can reach; one that a dead process left there is replaced.

    Whoever calls holds the home's lock, so that no living process listens there.
    """
    folder = path.parent
    if folder.stat().st_mode & 0o077:
        folder.chmod(0o700)
    path.unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with short_address(path) as address:
            sock.bind(address)
        path.chmod(0o600)
    except BaseException:
        sock.close()
        raise
    sock.setblocking(False)  # noqa: FBT003 - the library's own signature
    return sock


def connect_private(path: Path) -> socket.socket:
    """A socket connected to the one that listens at `path`.

    Raises:
        OSError: nobody listens there.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with short_address(path) as address:
            # A local connect does not wait, unless the listener's queue is full.
            sock.settimeout(2.0)
            sock.connect(address)
        sock.setblocking(False)  # noqa: FBT003 - the library's own signature
    except BaseException:
        sock.close()
        raise
    return sock
