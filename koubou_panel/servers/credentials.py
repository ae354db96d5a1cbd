"""What opens the doors: the token's file, one-time login codes, and the dashboard's cookie sessions.

Found with wider permissions, the token's file and the sessions' file are refused with the line that mends
them, since someone may have read or written them; so is a folder that others can write. A folder of ours that
others can merely list is closed without a word, since nothing in it was open.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
import os
import re
import secrets
import shlex
import stat
import struct
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import msgspec

from koubou_panel.errors import SettingsError
from koubou_panel.servers.access import Allow, Role, require_token

_log = logging.getLogger(__name__)

CODE_LIFE_S = 600
SESSION_IDLE_S = 7 * 24 * 3600
TOUCH_EVERY_S = 60

_CODE = struct.Struct(">B16sQ")  # role, nonce, expiry in UTC seconds
_CODE_ROLES = (Role.READ, Role.FULL, Role.RUN)  # by the number that stands for each
_MAC_BYTES = 16
_CODE_TEXT = re.compile(r"[A-Za-z0-9_-]{55}")  # 25 + 16 bytes
_WIDE = 0o077
_WRITABLE = 0o022


def load_or_create_token(
    runtime_dir: Path, *, environ: Mapping[str, str], token_file: Path | None = None
) -> str:
    """Give the workshop's token: `KOUBOU_TOKEN`, else that of `token_file`, else that of `runtime_dir`/token.

    The last is made if it is missing. Two processes that start at once get the same token.

    Raises:
        SettingsError: an empty token, or a file or folder that others can open.

    """
    if "KOUBOU_TOKEN" in environ:
        return _token_from(environ["KOUBOU_TOKEN"], "KOUBOU_TOKEN")
    if token_file is not None:
        return _token_from(_read_token_file(token_file), str(token_file))
    close_folder(runtime_dir)
    path = runtime_dir / "token"
    with suppress(FileExistsError):
        if not path.exists():
            write_private(path, _new_token() + "\n", replace=False)
    return _token_from(read_private(path), str(path))


def rotate_token(runtime_dir: Path) -> str:
    """Put a new token in the place of the one in `runtime_dir`, and give it; the old opens nothing more."""
    close_folder(runtime_dir)
    token = _new_token()
    write_private(runtime_dir / "token", token + "\n")
    return token


def derive_read_token(token: str) -> str:
    """Give the token that opens reading only; it follows from `token`: it needs no file and rotates too."""
    return base64.urlsafe_b64encode(_key(token, "read token")).decode().rstrip("=")


def mint_code(token: str, now: float, *, role: Role = Role.FULL, nonce: bytes | None = None) -> str:
    """Give a one-time login code, good for ten minutes.

    Whoever holds the token can make one, in any process: nothing is stored until it is used.

    Args:
        token: the workshop's full token.
        now: UTC seconds.
        role: what the session that the code opens may do.
        nonce: 16 bytes, random unless given.

    """
    payload = _CODE.pack(_CODE_ROLES.index(role), nonce or secrets.token_bytes(16), int(now) + CODE_LIFE_S)
    return base64.urlsafe_b64encode(payload + _code_mac(token, payload)).decode().rstrip("=")


class _Session(msgspec.Struct):
    role: Role
    last_seen: float


class _Book(msgspec.Struct):
    """What the sessions' file holds: of session ids only the sha256, of the token only a derived key."""

    token: str
    sessions: dict[str, _Session] = {}
    spent: dict[str, float] = {}


class Sessions:
    """The dashboard's cookie sessions and the codes already used; outlives the dashboard process.

    One process at a time writes the file. Loop thread only.

    Args:
        path: the file, in a folder that `load_or_create_token` has closed; it need not exist.
        token: the full token; sessions that were opened under another are dropped.
        new_id: gives a session's id, unguessable.

    Raises:
        SettingsError: others can read or write the file.

    """

    def __init__(self, path: Path, token: str, *, new_id: Callable[[], str] = secrets.token_urlsafe) -> None:
        """Read the sessions that `path` holds, if they belong to `token`."""
        self._path = path
        self._token = token
        self._new_id = new_id
        self._written_at = float("-inf")
        self._book = self._load()

    def open(self, role: Role, now: float) -> str:
        """Open a session and give the value of its cookie.

        Raises:
            OSError: it could not be stored; no session is open.

        """
        value = self._new_id()
        self._forget_stale(now)
        self._book.sessions[_hash(value)] = _Session(role, now)
        try:
            self._save(now)
        except OSError:
            del self._book.sessions[_hash(value)]
            raise
        return value

    def find(self, value: str, now: float) -> Allow | None:
        """Give what a cookie's value allows, and note that its session was seen; None if it is not live."""
        key = _hash(value)
        session = self._book.sessions.get(key)
        if session is None or now - session.last_seen > SESSION_IDLE_S:
            return None
        session.last_seen = now
        self._save_seldom(now)
        return Allow(session.role, f"page-{key[:8]}")

    def close(self, value: str, now: float) -> None:
        """End one session (a log-out)."""
        if self._book.sessions.pop(_hash(value), None) is not None:
            self._save(now)

    def rotate(self, token: str, now: float) -> None:
        """Drop every session and used code, and belong to a new token from here on."""
        self._token = token
        self._book = _Book(fingerprint(token))
        self._save(now)

    def redeem(self, code: str, now: float) -> Role | None:
        """Use up a login code and give its role; None if it is forged, expired or used before.

        Raises:
            OSError: its use could not be stored; it counts as used.

        """
        claims = _read_code(self._token, code)
        if claims is None:
            return None
        role, nonce, expires_at = claims
        if now >= expires_at or nonce in self._book.spent:
            return None
        self._book.spent[nonce] = expires_at
        self._save(now)
        return role

    def _load(self) -> _Book:
        empty = _Book(fingerprint(self._token))
        try:
            book = msgspec.json.decode(read_private(self._path), type=_Book)
        except FileNotFoundError:
            return empty
        except (msgspec.DecodeError, UnicodeDecodeError):
            _log.warning("the sessions in %s cannot be read: every browser signs in again", self._path)
            return empty
        return book if hmac.compare_digest(book.token.encode(), empty.token.encode()) else empty

    def _save(self, now: float) -> None:
        self._written_at = now
        write_private(self._path, msgspec.json.encode(self._book).decode())

    def _save_seldom(self, now: float) -> None:
        if now - self._written_at < TOUCH_EVERY_S:
            return
        try:
            self._save(now)
        except OSError as error:  # a full disk must not lock out who is in already
            _log.warning("the sessions could not be stored: %s", error)

    def _forget_stale(self, now: float) -> None:
        book = self._book
        book.sessions = {k: s for k, s in book.sessions.items() if now - s.last_seen <= SESSION_IDLE_S}
        book.spent = {nonce: expires_at for nonce, expires_at in book.spent.items() if expires_at > now}


def _read_code(token: str, code: str) -> tuple[Role, str, float] | None:
    # b64decode is lenient in ways that differ by version: the alphabet and the length are held here.
    if not _CODE_TEXT.fullmatch(code):
        return None
    raw = base64.urlsafe_b64decode(code + "=")
    payload, mac = raw[: _CODE.size], raw[_CODE.size :]
    if not hmac.compare_digest(mac, _code_mac(token, payload)):
        return None
    number, nonce, expires_at = _CODE.unpack(payload)
    return _CODE_ROLES[number], nonce.hex(), float(expires_at)


def _code_mac(token: str, payload: bytes) -> bytes:
    return hmac.digest(_key(token, "login code"), payload, "sha256")[:_MAC_BYTES]


def fingerprint(token: str) -> str:
    """What tells, in a file, to which token its content belongs; the token cannot be had from it."""
    return _key(token, "sessions").hex()


def _key(token: str, purpose: str) -> bytes:
    return hmac.digest(token.encode(), f"koubou {purpose} v1".encode(), "sha256")


def _hash(value: str) -> str:
    return hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest()


def _new_token() -> str:
    return secrets.token_urlsafe(32)


def _token_from(text: str, source: str) -> str:
    token = text.strip()
    if not token:
        raise SettingsError(
            f"{source} is empty. An empty token never switches access off: unset it, or give a token."
        )
    return require_token(token)


def _read_token_file(path: Path) -> str:
    try:
        return read_private(path, follow=True)
    except FileNotFoundError as error:
        raise SettingsError(
            f"The token file {path} is not there: write the token into it, or leave it out."
        ) from error


def close_folder(folder: Path) -> None:
    """Make a folder of the workshop's own, or see to it that none but its owner can open it.

    Raises:
        SettingsError: it is another user's, or others can write to it.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.stat()
    _require_own(folder, found)
    if found.st_mode & _WRITABLE:
        raise SettingsError(
            f"Others can write to {folder}: run `chmod 700 {shlex.quote(str(folder))}`, then try again."
        )
    if found.st_mode & _WIDE:
        folder.chmod(0o700)


def read_private(path: Path, *, follow: bool = False) -> str:
    """The text of a file that none but its owner, who is this process's user, can open.

    Raises:
        SettingsError: others can open it, or it is no plain file.
        FileNotFoundError: it is not there.
    """
    # The file is judged by its open descriptor: between a look at the name and the read it could be another.
    with os.fdopen(_open_to_read(path, follow=follow), encoding="utf-8") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise SettingsError(f"{path} is not a plain file: move it away, then try again.")
        _require_own(path, found)
        if found.st_mode & _WIDE:
            raise SettingsError(
                f"Others can open {path}: run `chmod 600 {shlex.quote(str(path))}`, then try again."
            )
        return file.read()


def _open_to_read(path: Path, *, follow: bool) -> int:
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if follow else os.O_NOFOLLOW)
    try:
        return os.open(path, flags)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise SettingsError(
            f"{path} cannot be opened ({error.strerror}): it must be a plain file of yours."
        ) from error


def _require_own(path: Path, found: os.stat_result) -> None:
    if found.st_uid != os.geteuid():
        quoted = shlex.quote(str(path))
        raise SettingsError(
            f"{path} belongs to another user: run `sudo chown $(id -u) {quoted}`, then try again."
        )


def write_private(path: Path, text: str, *, replace: bool = True) -> None:
    """Make, or replace, a file that none but its owner can open; who reads sees the old text or the new one."""
    # The name appears only with the whole text behind it; link(), unlike rename(), fails if it is there.
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with os.fdopen(
            os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w"
        ) as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if replace:
            draft.replace(path)
        else:
            os.link(draft, path)
    finally:
        draft.unlink(missing_ok=True)
