"""A task that lasts for as long as its test wants."""

from __future__ import annotations

import time
from pathlib import Path


def wait_for(gate: Path) -> None:
    """Return once the file `gate` exists."""
    while not gate.exists():
        time.sleep(0.01)
