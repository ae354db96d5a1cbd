"""Tokens of their own for agents: made, listed and revoked in `<home>/runtime/agents.json`, by any process.

The file holds no token, but the sha256 of each, and a mark of the token that they belong to: with that one they end.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import msgspec

from koubou_panel.core.suggest import nearest, unknown
from koubou_panel.errors import Refused, SettingsError
from koubou_panel.servers.access import Allow, Named, Role, token_hash
from koubou_panel.servers.credentials import close_folder, fingerprint, read_private, write_private

FILE = "agents.json"
MOST = 1_000

Scope = Literal["read", "run", "edit"]
ROLES: Mapping[str, Role] = {"read": Role.READ, "run": Role.RUN, "edit": Role.FULL}

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")


class NamedToken(msgspec.Struct, frozen=True):
    """One token: what it may do, its sha256, and the UTC second at which it was made."""

    scope: Scope
    sha256: str
    created_at: float


class _Book(msgspec.Struct):
    token: str
    agents: dict[str, NamedToken] = {}


def load_named(runtime: Path, token: str) -> dict[str, NamedToken]:
    """The tokens by name that were made under `token`; none where there is no file, or it is of another token.

    Raises:
        SettingsError: the file is not to be read, or others can open it.
    """
    book = _read(runtime)
    return book.agents if book is not None and _belongs(book, token) else {}


def list_named(runtime: Path, token: str) -> dict[str, NamedToken]:
    """As `load_named`, for who is to be told of a file of another token.

    Raises:
        Refused: code `conflict`: the tokens in the file were made under another token.
    """
    book = _read(runtime)
    if book is None or not book.agents:
        return {}
    if not _belongs(book, token):
        raise Refused(
            "conflict",
            f"the tokens of agents in {runtime / FILE} were made under another token than this shell's: KOUBOU_TOKEN "
            "differs, or is set in one place alone. Set it as it is where they were made; if that token is gone for "
            "good, remove the file",
        )
    return book.agents


def forget_named(runtime: Path, token: str) -> None:
    """End all that were made under `token`, which opens nothing more itself; those of another stay."""
    with _locked(runtime):
        book = _read(runtime)
        if book is not None and _belongs(book, token):
            (runtime / FILE).unlink(missing_ok=True)


def _read(runtime: Path) -> _Book | None:
    path = runtime / FILE
    try:
        return msgspec.json.decode(read_private(path), type=_Book)
    except FileNotFoundError:
        return None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} cannot be read ({error}): remove it, and add its tokens anew") from error


def _belongs(book: _Book, token: str) -> bool:
    return secrets.compare_digest(book.token.encode(), fingerprint(token).encode())


def allowed(tokens: Mapping[str, NamedToken]) -> Named:
    """What a policy is told of them."""
    return {one.sha256: Allow(ROLES[one.scope], f"agent:{name}") for name, one in tokens.items()}


def add_named(runtime: Path, token: str, name: str, *, scope: Scope, now: float) -> str:
    """Make a token and give it; it is told this once.

    Raises:
        Refused: `invalid`: the name; `conflict`: there is one of that name, or those in the file are of another token.
    """
    if not _NAME.fullmatch(name):
        words = "a name is 1 to 40 letters, digits and . _ - and begins with a letter or digit"
        raise Refused("invalid", f"{words}, not {name[:60]!r}", field="name")
    made = secrets.token_urlsafe(32)
    with _book(runtime, token) as agents:
        if name in agents:
            words = f"there is a token {name!r} already; `koubou token revoke {name}` ends it"
            raise Refused("conflict", words, field="name")
        if len(agents) >= MOST:
            raise Refused("conflict", f"there are {MOST} tokens already; revoke one first")
        agents[name] = NamedToken(scope, token_hash(made), now)
    return made


def revoke_named(runtime: Path, token: str, name: str) -> None:
    """End a token.

    Raises:
        Refused: `not_found`, with the nearest name; `conflict`: those in the file are of another token.
    """
    with _book(runtime, token) as agents:
        if agents.pop(name, None) is None:
            near = nearest(name, agents)
            raise Refused("not_found", unknown("token", name, agents), field="name", nearest=near)


@contextmanager
def _book(runtime: Path, token: str) -> Iterator[dict[str, NamedToken]]:
    """The tokens, to change; they are stored at the end."""
    with _locked(runtime):
        agents = list_named(runtime, token)
        yield agents
        write_private(runtime / FILE, msgspec.json.encode(_Book(fingerprint(token), agents)).decode())


@contextmanager
def _locked(runtime: Path) -> Iterator[None]:
    """Other processes wait meanwhile."""
    close_folder(runtime)
    folder = os.open(runtime, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)
