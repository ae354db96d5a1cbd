"""The events of a streamed answer: bytes in as they come, JSON documents out.

Source: server-sent events as OpenAI-compatible servers send them: `data: {…}` lines, an empty line between two events,
`data: [DONE]` at the end. Lines are cut at LF alone: JSON text may hold U+2028 and others that `splitlines` cuts at.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

from koubou_panel.errors import KoubouError

MOST_LINE_BYTES = 16 << 20


class NotAStream(KoubouError):
    """A server sent something that is no event stream of JSON."""


def lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The lines of a stream, as soon as each is whole; the last one needs no end.

    Raises:
        NotAStream: a line is too long to be one.
    """
    held = bytearray()
    for chunk in chunks:
        held += chunk
        *whole, rest = held.split(b"\n")
        held = bytearray(rest)
        if len(held) > MOST_LINE_BYTES:
            raise NotAStream(f"a line of the answer is longer than {MOST_LINE_BYTES >> 20} MB")
        for line in whole:
            yield bytes(line)
    if held:
        yield bytes(held)


def documents(chunks: Iterable[bytes]) -> Iterator[dict[str, object]]:
    """The JSON objects of a stream up to `[DONE]`, or its end; comments and other fields are passed over.

    Raises:
        NotAStream: an event's data are no JSON object.
    """
    for line in lines(chunks):
        field, colon, value = line.strip().partition(b":")
        if not colon or field not in (b"data", b"error"):
            continue
        value = value.strip()
        if value == b"[DONE]":
            return
        found = parsed(value)
        # Older llama.cpp servers tell of an error in a field of that name.
        yield {"error": found} if field == b"error" and "error" not in found else found


def parsed(text: bytes) -> dict[str, object]:
    """The JSON object that `text` is.

    Raises:
        NotAStream: it is none.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        shown = text[:100].decode("utf-8", "replace")
        raise NotAStream(f"the server sent {shown!r} where a JSON object was due")
    return found
