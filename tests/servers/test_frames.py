"""Frames made once for all are the frames that the library would make."""

from __future__ import annotations

import pytest
from websockets.frames import Frame, Opcode

from koubou_panel.servers.frames import text_frame


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536, 200_000])
def test_a_text_frame_is_what_the_library_makes(size):
    """At every length of header the bytes are those of the `websockets` library."""
    body = b"x" * size
    assert text_frame(body) == Frame(Opcode.TEXT, body).serialize(mask=False)
