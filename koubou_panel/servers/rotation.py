"""Following the files of the tokens: what `koubou token` does reaches the processes that run within a second."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from koubou_panel.errors import SettingsError
from koubou_panel.servers.access import Named
from koubou_panel.servers.credentials import load_or_create_token
from koubou_panel.servers.named import FILE, allowed, load_named

LOOK_S = 0.5

log = logging.getLogger(__name__)


async def follow_token(
    runtime: Path,
    environ: Mapping[str, str],
    on_change: Callable[[str], None],
    *,
    on_named: Callable[[Named], None] | None = None,
    look_s: float = LOOK_S,
) -> None:
    """Call `on_change` with every new token of `runtime`, until cancelled; never where the environment gives it.

    `on_named` is called with what the named tokens allow: at once, and whenever that may have changed.
    """
    seen = _marks(runtime)
    _tell_named(runtime, environ, on_named)
    while True:
        await asyncio.sleep(look_s)
        marks = _marks(runtime)
        if marks == seen:
            continue
        before, seen = seen, marks
        if marks[0] != before[0] and marks[0] is not None and "KOUBOU_TOKEN" not in environ:
            try:
                on_change(load_or_create_token(runtime, environ=environ))
            except (SettingsError, OSError) as error:
                log.warning("the new token cannot be read; the old one stays in force: %s", error)
        _tell_named(runtime, environ, on_named)


def _tell_named(runtime: Path, environ: Mapping[str, str], on_named: Callable[[Named], None] | None) -> None:
    if on_named is None:
        return
    try:
        on_named(allowed(load_named(runtime, load_or_create_token(runtime, environ=environ))))
    except (SettingsError, OSError) as error:
        # Whom the file lets in cannot be known: nobody, then.
        log.warning("the tokens of agents cannot be read, and let nobody in: %s", error)
        on_named({})


def _marks(runtime: Path) -> tuple[object, object]:
    """What changes when one of the files is replaced."""
    return _mark(runtime / "token"), _mark(runtime / FILE)


def _mark(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns
