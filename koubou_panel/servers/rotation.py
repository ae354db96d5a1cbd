"""Following the token's file: `koubou token --rotate` reaches the processes that run within a second."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from koubou_panel.errors import SettingsError
from koubou_panel.servers.credentials import load_or_create_token

LOOK_S = 1.0

log = logging.getLogger(__name__)


async def follow_token(
    runtime: Path, environ: Mapping[str, str], on_change: Callable[[str], None], *, look_s: float = LOOK_S
) -> None:
    """Call `on_change` with every new token of `runtime`, until cancelled; never where the environment gives it."""
    if "KOUBOU_TOKEN" in environ:
        return
    path = runtime / "token"
    seen = _mark(path)
    while True:
        await asyncio.sleep(look_s)
        mark = _mark(path)
        if mark == seen or mark is None:
            continue
        seen = mark
        try:
            on_change(load_or_create_token(runtime, environ=environ))
        except (SettingsError, OSError) as error:
            log.warning("the new token cannot be read; the old one stays in force: %s", error)


def _mark(path: Path) -> tuple[int, int] | None:
    """What changes when the file is replaced."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns
