"""The embedded model server as a process, for tests that ask the real small model."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from koubou_panel.kinds.model import Place, get_json, read_embedded

MODULE = [sys.executable, "-m", "koubou_panel.servers.model"]


def start_model(home: Path, *args: str, **more) -> subprocess.Popen[str]:
    """The server's process, before it is ready; it says so on stdout."""
    command = [*MODULE, "--home", str(home), *args]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **more)


@contextmanager
def serving_model(home: Path, *args: str, **more) -> Iterator[dict[str, object]]:
    """A server that is ready, by what it said; ended by TERM."""
    process = start_model(home, *args, **more)
    try:
        yield json.loads(process.stdout.readline())
    finally:
        process.terminate()
        process.communicate(timeout=90)


def busy_slots(home: Path) -> int:
    """How many prompts the server of `home` is answering."""
    found = read_embedded(home)
    status, slots = get_json_list(Place("", found.url, found.key), "/slots")
    assert status == 200
    return sum(slot["is_processing"] for slot in slots)


def get_json_list(place: Place, path: str):
    """As `get_json`, for a list."""
    import httpx2

    answer = httpx2.get(place.url + path, headers={"Authorization": f"Bearer {place.key}"}, trust_env=False)
    return answer.status_code, answer.json()


__all__ = ["MODULE", "busy_slots", "get_json", "serving_model", "start_model"]
