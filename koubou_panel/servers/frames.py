"""WebSocket text frames, made once for all readers of a message."""

from __future__ import annotations

import struct

_TEXT = 0x81
_SHORT = 126
_MEDIUM = 1 << 16
_TWO = struct.Struct("!BBH")
_EIGHT = struct.Struct("!BBQ")


def text_frame(message: bytes) -> bytes:
    """A whole, unmasked, uncompressed text frame around `message`, which is UTF-8.

    Source: RFC 6455, section 5.2.
    """
    size = len(message)
    if size < _SHORT:
        return bytes((_TEXT, size)) + message
    if size < _MEDIUM:
        return _TWO.pack(_TEXT, 126, size) + message
    return _EIGHT.pack(_TEXT, 127, size) + message
