"""Files that a task is delegated with: named, looked at, and for a prompt read. Off the loop."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from koubou_panel.errors import Refused

MOST_BYTES = 256 * 1024


def check_files(names: Sequence[str]) -> list[Path]:
    """The files of these names.

    Raises:
        Refused: code `invalid`, field `files`: one is not there, or is no plain file.
    """
    return [_check(name) for name in names]


def read_files(names: Sequence[str]) -> str:
    """The text of these files, each under its name.

    Raises:
        Refused: code `invalid`, field `files`: as `check_files`, or one is no text, or all are too long together.
    """
    left = MOST_BYTES
    pieces = []
    for path in check_files(names):
        data = _read(path, left + 1)
        left -= len(data)
        if left < 0:
            raise Refused("invalid", f"the files have more than {MOST_BYTES} bytes together", field="files")
        try:
            pieces.append(f"File {path}:\n{data.decode()}")
        except UnicodeDecodeError:
            raise Refused("invalid", f"{path} is not text in UTF-8", field="files") from None
    return "\n\n".join(pieces)


def _check(name: str) -> Path:
    shown = name[:200]
    if "\0" in name or not name.startswith(("/", "~/")):
        raise Refused("invalid", f"files must be absolute names, not {shown!r}", field="files")
    path = Path(name).expanduser()
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise Refused("invalid", f"{shown!r} cannot be used: {why}", field="files") from None
    if not stat.S_ISREG(mode):
        raise Refused("invalid", f"{shown!r} is not a plain file", field="files")
    return path


def _read(path: Path, most: int) -> bytes:
    try:
        # Judged by the open descriptor: since the look at the name it could have become a pipe that never ends.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise Refused("invalid", f"{path} is not a plain file", field="files")
            return file.read(most)
    except OSError as error:
        raise Refused("invalid", f"{path} cannot be read: {error.strerror}", field="files") from None
