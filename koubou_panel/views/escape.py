"""Text that people, programs or networks wrote, made fit for a page. The one place for it.

Whatever reaches the page goes through here: `line` for a label, `block` for output, `markup` where a sink takes
HTML. The cards' JavaScript sets text nodes only; so `markup` is for the sinks of Panel and Bokeh that run HTML
(titles of Card and Accordion, Alert, HTML, Markdown, Str, StaticText, Tabulator's column titles, Div, …).
"""

from __future__ import annotations

import html
import re

LABEL_LIMIT = 80
BLOCK_LIMIT = 4_000

# Control characters, and those that reorder or hide what follows them (bidirectional marks, zero width, BOM), and
# halves of characters, which cannot be sent.
_UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ud800-\udfff\ufeff]+")
_UNSEEN_IN_BLOCK = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ud800-\udfff\ufeff]+"
)


def line(text: object, limit: int = LABEL_LIMIT) -> str:
    """One line of plain text, at most `limit` characters: a longer one is cut in the middle."""
    shown = _UNSEEN.sub(" ", str(text)).strip()
    return middle_cut(shown, limit)


def block(text: object, limit: int = BLOCK_LIMIT) -> str:
    """Plain text of several lines, without control characters; of a longer one the end is kept."""
    shown = _UNSEEN_IN_BLOCK.sub("", str(text))
    return shown if len(shown) <= limit else "…" + shown[1 - limit :]


def seen(text: str) -> str:
    """Plain text with its tabs and line ends, of which what cannot be seen is told by its number: `⟨U+200B⟩`.

    For a text that somebody is to judge: what hides in it must not.
    """
    return _UNSEEN_IN_BLOCK.sub(lambda found: "".join(f"⟨U+{ord(one):04X}⟩" for one in found[0]), text)


def markup(text: object, limit: int = LABEL_LIMIT) -> str:
    """`line` for a sink that takes HTML: it shows as typed, and nothing of it runs."""
    return html.escape(line(text, limit), quote=True)


def middle_cut(text: str, limit: int) -> str:
    """`text` in at most `limit` characters, its beginning and its end kept."""
    if len(text) <= limit:
        return text
    head = (limit - 1 + 1) // 2
    tail = limit - 1 - head
    return f"{text[:head]}…{text[len(text) - tail :] if tail else ''}"
