"""Ports for servers that a test starts again on the same one; everything else asks for port 0."""

from __future__ import annotations

import secrets
import socket
from contextlib import suppress

LOWEST, HIGHEST = 20_000, 32_000


def free_port() -> int:
    """A port that nobody has, and that nobody is given by chance: systems hand out those above 32,767."""
    while True:
        port = LOWEST + secrets.randbelow(HIGHEST - LOWEST)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
