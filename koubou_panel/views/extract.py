"""What is to be translated in the cards, for `make words`.

Babel's own reader of JavaScript takes a template literal among a call's arguments for its message (babel 2.18). Cards
keep to less: a message is a double-quoted text right behind the bracket.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from typing import BinaryIO

_TEXT = r'"(?:[^"\\\n]|\\.)*"'
_COMMENT = re.compile(r"^[ \t]*//.*$", re.MULTILINE)
_CALL = re.compile(rf"(?<![\w$.])(_|ngettext)\(\s*({_TEXT})(?:\s*,\s*({_TEXT}))?")

Found = tuple[int, str, str | tuple[str, str], list[str]]


def cards(
    file: BinaryIO,
    _keywords: Collection[str],
    _tags: Collection[str],
    options: Mapping[str, str],  # noqa: ARG001 — Babel hands it over by this name
) -> Iterator[Found]:
    """What `file` asks for: (line, function, message or both its forms, no comments), as Babel wants it."""
    source = _COMMENT.sub("", file.read().decode())
    for call in _CALL.finditer(source):
        name, one, many = call.groups()
        message = (json.loads(one), json.loads(many)) if name == "ngettext" else json.loads(one)
        yield source.count("\n", 0, call.start()) + 1, name, message, []
