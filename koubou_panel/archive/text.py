"""Texts of scripts on the disk: the file that is run, and the versions that it had.

A version is a file of its own, named by what is known of it, so that a listing reads no text and a person finds every
one without us: `NUMBER.MILLISECONDS.kept.VERSION.BY` (or `refused`). All of it blocks: never on the loop.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import stat
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote, unquote

from koubou_panel.core.ports import ScriptVersion
from koubou_panel.core.script import MAX_TEXT_BYTES
from koubou_panel.errors import Refused

KEEP_VERSIONS = 50
KEEP_REFUSED = 20
LEFT_BEHIND_S = 3_600.0
OURS = ("versions", "rotated")
SHORTEST = 4
BY_CHARS = 60
_DIGEST_CHARS = 16
_SLUG_CHARS = 40
_NAME = re.compile(r"(\d{8,})\.(\d+)\.(kept|refused)\.([0-9a-f]{16})\.(.*)")


class Kept(NamedTuple):
    """A version in its folder."""

    number: int
    path: Path
    record: ScriptVersion


def version_of(data: bytes) -> str:
    """The version that a text is: its digest."""
    return hashlib.sha256(data).hexdigest()[:_DIGEST_CHARS]


def folder_of(root: Path, name: str) -> Path:
    """The folder of the script `name`: readable, and no other script's, whatever the file system makes of case."""
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:_SLUG_CHARS]
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGEST_CHARS]
    return root / f"{slug or 'script'}-{digest}"


def inline_path(root: Path, name: str, wanted: str) -> Path:
    """The file of an inline script; of what its owner called the file, the last part is kept where it is harmless."""
    last = wanted.rpartition("/")[2]
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", last)[-_SLUG_CHARS:].lstrip("-.")
    return folder_of(root, name) / (safe if safe and safe not in OURS else "script")


def encoded(text: str) -> bytes:
    """A text as it is stored.

    Raises:
        Refused: `invalid`, or `too_large`.
    """
    try:
        data = text.encode()
    except UnicodeEncodeError:
        raise Refused("invalid", "the text has characters that UTF-8 does not have", field="text") from None
    if len(data) > MAX_TEXT_BYTES:
        words = f"the text has more than the {MAX_TEXT_BYTES} bytes that a script may have"
        raise Refused("too_large", words, field="text")
    if "\0" in text:
        raise Refused("invalid", "the text must not contain NUL", field="text")
    return data


def decoded(data: bytes, path: Path) -> str:
    """What a file holds, as text.

    Raises:
        Refused: `invalid`.
    """
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise Refused(
            "invalid", f"{path} is no text: it has bytes that are not UTF-8", field="path"
        ) from None


def read_file(path: Path, *, most: int = MAX_TEXT_BYTES) -> tuple[bytes, float]:
    """What a file holds, and when it was changed.

    Raises:
        Refused: `not_found`, `invalid` or `too_large`, saying what to do.
    """
    try:
        # A pipe of that name must not keep us.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise _unreadable(path, error) from None
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise Refused("invalid", f"{path} is no file", field="path")
        if found.st_size > most:
            words = f"{path} has {found.st_size} bytes, more than the {most} that a text may have"
            raise Refused("too_large", words, field="path")
        return _all_of(fd, most + 1), found.st_mtime
    except OSError as error:
        raise _unreadable(path, error) from None
    finally:
        os.close(fd)


def _all_of(fd: int, most: int) -> bytes:
    data = b""
    while len(data) < most and (piece := os.read(fd, most - len(data))):
        data += piece
    return data


def _unreadable(path: Path, error: OSError) -> Refused:
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return Refused("not_found", f"there is no file {path}", field="path")
    return Refused("invalid", f"{path} cannot be read: {error.strerror}", field="path")


def write_file(path: Path, data: bytes) -> None:
    """Have `path` hold `data`, wholly or not at all, durably. A link is followed; mode and owner of a file stay.

    Raises:
        Refused: `forbidden`: the file is another user's; `storage`: the disk would not take it.
    """
    target = Path(os.path.realpath(path))
    begin = f".{target.name[:_SLUG_CHARS]}.koubou-"
    temporary = target.parent / f"{begin}{secrets.token_hex(6)}"
    try:
        before = _stat(target)
        _sweep(target.parent, begin)
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(data)
                if before is not None:
                    _give(fd, before, target)
                file.flush()
                os.fsync(fd)
            temporary.rename(target)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
        sync_folder(target.parent)
    except OSError as error:
        code = "forbidden" if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS) else "storage"
        raise Refused(code, f"{target} cannot be written: {error.strerror}", field="path") from None


def _sweep(folder: Path, begin: str) -> None:
    """Remove what a writer left behind that was killed long ago."""
    for path in folder.iterdir():
        if path.name.startswith(begin):
            with suppress(OSError):
                if time.time() - path.stat().st_mtime > LEFT_BEHIND_S:
                    path.unlink()


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def _give(fd: int, before: os.stat_result, target: Path) -> None:
    """Give a new file the owner and mode of the one that it replaces."""
    own = os.fstat(fd)
    if (own.st_uid, own.st_gid) != (before.st_uid, before.st_gid):
        try:
            os.fchown(fd, before.st_uid, before.st_gid)
        except PermissionError:
            words = f"{target} belongs to another user or group and would not any more; edit it where it is"
            raise Refused("forbidden", words, field="path") from None
    os.fchmod(fd, stat.S_IMODE(before.st_mode))


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_folder(folder: Path) -> None:
    """Make a private folder, durably, with those above it that are missing.

    Raises:
        Refused: `storage`.
    """
    missing = [folder, *folder.parents]
    try:
        for one in reversed([one for one in missing if not one.exists()]):
            one.mkdir(mode=0o700, exist_ok=True)
            sync_folder(one.parent)
    except OSError as error:
        raise Refused("storage", f"{folder} cannot be made: {error.strerror}") from None


class Versions:
    """The kept texts of one script.

    Args:
        folder: where they are; made when the first is kept.
        keeping: held by whoever keeps one, so that each has a number of its own.
    """

    def __init__(self, folder: Path, keeping: threading.Lock) -> None:
        """Nothing is read yet."""
        self._folder = folder
        self._keeping = keeping

    def list(self) -> list[Kept]:
        """What is kept, newest first."""
        try:
            names = [path.name for path in self._folder.iterdir()]
        except (FileNotFoundError, NotADirectoryError):
            return []
        found = [kept for name in names if (kept := self._kept(name)) is not None]
        return sorted(found, key=lambda kept: kept.number, reverse=True)

    def _kept(self, name: str) -> Kept | None:
        shape = _NAME.fullmatch(name)
        if shape is None:
            return None
        path = self._folder / name
        try:
            size_bytes = path.stat().st_size
        except FileNotFoundError:
            return None
        number, milliseconds, sort, version, by = shape.groups()
        record = ScriptVersion(
            version=version,
            saved_at=int(milliseconds) / 1000,
            size_bytes=size_bytes,
            by=unquote(by),
            is_refused=sort == "refused",
        )
        return Kept(int(number), path, record)

    def find(self, version: str) -> Kept:
        """The newest version that begins so.

        Raises:
            Refused: `not_found`: there is none, or different ones.
        """
        found = [kept for kept in self.list() if kept.record.version.startswith(version)]
        if len(version) >= SHORTEST and len({kept.record.version for kept in found}) == 1:
            return found[0]
        words = f"could be {len(found)} versions: give more of it" if found else "is no version that is kept"
        raise Refused("not_found", f"{version[:40]!r} {words}", field="version")

    def keep(self, data: bytes, *, at: float, by: str = "", is_refused: bool = False) -> None:
        """Keep a text, durably, unless it is the newest of its sort already; the oldest go."""
        with self._keeping:
            kept = self.list()
            alike = [one for one in kept if one.record.is_refused == is_refused]
            if not alike or alike[0].record.version != version_of(data):
                self._add(data, kept, at=at, by=by, is_refused=is_refused)

    def note(self, data: bytes, *, at: float) -> None:
        """Keep a text that came from outside, unless it is kept at any place: whoever read it may be late."""
        version = version_of(data)
        with self._keeping:
            kept = self.list()
            if all(one.record.is_refused or one.record.version != version for one in kept):
                self._add(data, kept, at=at, by="", is_refused=False)

    def _add(self, data: bytes, kept: Sequence[Kept], *, at: float, by: str, is_refused: bool) -> None:
        make_folder(self._folder)
        number = kept[0].number + 1 if kept else 1
        sort, version = "refused" if is_refused else "kept", version_of(data)
        name = f"{number:08d}.{max(0, int(at * 1000))}.{sort}.{version}.{quote(by[:BY_CHARS], safe='')[:120]}"
        write_file(self._folder / name, data)
        alike = [one for one in kept if one.record.is_refused == is_refused]
        # Apart, so that whoever is refused again and again displaces no text that was good.
        for old in alike[(KEEP_REFUSED if is_refused else KEEP_VERSIONS) - 1 :]:
            with suppress(OSError):
                old.path.unlink()


class TextStore:
    """The texts of all scripts. Any thread, but one writer of a file at a time.

    Args:
        root: `Home.scripts`.
    """

    def __init__(self, root: Path) -> None:
        """Nothing is read yet."""
        self.root = root
        self._keeping = threading.Lock()

    def versions(self, name: str) -> Versions:
        """The kept versions of a script."""
        return Versions(folder_of(self.root, name) / "versions", self._keeping)

    def note(self, name: str, path: Path) -> None:
        """Keep what the file of a script holds now, if that is a text that is not kept yet."""
        with suppress(Refused):
            self._note(name, *read_file(path))

    def _note(self, name: str, data: bytes, changed_at: float) -> None:
        # A disk that is full keeps nobody from reading; nor is a program that was compiled a text to come back to.
        with suppress(Refused, OSError, UnicodeDecodeError):
            data.decode()
            self.versions(name).note(data, at=changed_at)

    def list(self, name: str, path: Path) -> list[ScriptVersion]:
        """The versions of a script, newest first; what its file holds now is marked, and kept from now on."""
        try:
            data, changed_at = read_file(path)
        except Refused:
            return [kept.record for kept in self.versions(name).list()]
        self._note(name, data, changed_at)
        records = [kept.record for kept in self.versions(name).list()]
        version = version_of(data)
        current = ScriptVersion(version=version, saved_at=changed_at, size_bytes=len(data), is_current=True)
        for place, record in enumerate(records):
            if record.version == version and not record.is_refused:
                by, saved_at = record.by, record.saved_at
                records[place] = ScriptVersion(
                    version=version, saved_at=saved_at, size_bytes=len(data), by=by, is_current=True
                )
                return records
        return [current, *records]

    def read(self, name: str, path: Path, version: str | None) -> tuple[str, str, float, bool]:
        """(version, text, when it was saved, whether the file holds it now) of the present text, or of a version.

        A present text that is read is kept from now on.
        """
        try:
            data, saved_at = read_file(path)
        except Refused:
            if version is None:
                raise
            data, saved_at = None, 0.0
        current = None if data is None else version_of(data)
        if version is None or (
            current is not None and len(version) >= SHORTEST and current.startswith(version)
        ):
            assert data is not None and current is not None  # noqa: S101, PT018 - for the type checker
            text = decoded(data, path)
            self._note(name, data, saved_at)
            return current, text, saved_at, True
        kept = self.versions(name).find(version)
        data, _ = read_file(kept.path)
        return kept.record.version, decoded(data, kept.path), kept.record.saved_at, False

    def save(self, name: str, path: Path, text: str, base: str | None, by: str) -> tuple[str, bytes | None]:
        """Save a text: its version, and what the file held before; see `core.ports.Shop.save_script_text`.

        With `base` None, whatever the file holds is replaced.
        """
        data = encoded(text)
        version, versions = version_of(data), self.versions(name)
        before: bytes | None = None
        changed_at = 0.0
        try:
            before, changed_at = read_file(path)
        except Refused as refused:
            if refused.code != "not_found":
                raise
        current = "" if before is None else version_of(before)
        if before is not None and current == version:
            return version, before
        if base is not None and base != current:
            versions.keep(data, at=time.time(), by=by, is_refused=True)
            if before is not None:
                versions.keep(before, at=changed_at)
            raise _conflict(base, current, version)
        if before is not None:
            versions.keep(before, at=changed_at)
        versions.keep(data, at=time.time(), by=by)
        if path.parent == folder_of(self.root, name):
            make_folder(path.parent)
        write_file(path, data)
        return version, before

    def put_back(self, path: Path, version: str, before: bytes | None) -> None:
        """Undo a save that made the file `version`, unless somebody has saved another since."""
        try:
            held, _ = read_file(path)
        except Refused:
            return
        if version_of(held) != version:
            return
        if before is not None:
            write_file(path, before)
            return
        with suppress(OSError):
            path.unlink()


def _conflict(base: str, current: str, version: str) -> Refused:
    if not current:
        words = f"the file of this text (version {base[:40]}) is gone"
    elif not base:
        words = f"there is a file already (version {current})"
    else:
        words = f"the text was changed meanwhile: it is version {current}, the edit began from {base[:40]}"
    words += (
        f". Nothing was overwritten, and yours is kept as version {version}: look at both, then save again"
    )
    return Refused("conflict", words, field="base")
