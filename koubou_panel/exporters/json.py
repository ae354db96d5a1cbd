"""The format `json`: one document, as it was given, with two spaces of indent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import BinaryIO

import msgspec


def write(document: Mapping[str, object], file: BinaryIO) -> None:
    """Write `document` (JSON values and records) to `file` as UTF-8 with a line's end.

    Numbers that JSON does not know (NaN, infinities) become null.
    """
    file.write(msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n")


def read(file: BinaryIO) -> dict[str, object]:
    """The document that `write` wrote.

    Raises:
        msgspec.DecodeError: it is none.
    """
    return msgspec.json.decode(file.read(), type=dict[str, object])
