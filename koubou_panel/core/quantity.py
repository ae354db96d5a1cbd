"""Sizes and spans of time in words, as the reasons of facts use them."""

from __future__ import annotations

import re

_KILO = 1024
_UNITS = ("B", "kB", "MB", "GB", "TB")
_MOST = 1000
_MOST_BYTES = 2**53
_SPAN_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_SPAN = re.compile(r"(?:\d{1,12}(?:\.\d{1,6})?[smhdw])+|\d{1,12}(?:\.\d{1,6})?", re.IGNORECASE | re.ASCII)
_SPAN_PART = re.compile(r"(\d+(?:\.\d+)?)([smhdw]?)", re.IGNORECASE)
_SIZE = re.compile(r"\s*(\d{1,15}(?:\.\d{1,9})?)\s*([kKmMgGtT]?)(?:i?[bB])?\s*", re.ASCII)


def size_text(size_bytes: float) -> str:
    """Bytes for people, in powers of 1,024: `812 B`, `80 MB`, `2 GB`, `6.1 GB`."""
    value, unit = float(size_bytes), 0
    while value >= _MOST and unit < len(_UNITS) - 1:
        value /= _KILO
        unit += 1
    return f"{round(value, 1):g} {_UNITS[unit]}" if value < 10 else f"{value:.0f} {_UNITS[unit]}"  # noqa: PLR2004 - one digit


def parse_size(text: str) -> int:
    """The bytes of `2G`, `512M`, `1.5 GB`, `64kB` or `1048576`, in powers of 1,024.

    Raises:
        ValueError: it is no such text, less than a byte, or more than any machine has; the message goes on after the
            name of what it is for.
    """
    found = _SIZE.fullmatch(text)
    size_bytes = round(float(found[1]) * _KILO ** " KMGT".index(found[2].upper() or " ")) if found else 0
    if size_bytes < 1:
        raise ValueError(f"must be a size such as 512M or 2G, not {text[:40]!r}")
    if size_bytes > _MOST_BYTES:
        raise ValueError(f"must be at most {size_text(_MOST_BYTES)}, not {text[:40]!r}")
    return size_bytes


def seconds_text(span_s: float) -> str:
    """Seconds for people: `0.5 s`, `40 s`, `90 s`."""
    return f"{round(span_s, 1):g} s"


def span_s(text: str) -> float:
    """The seconds of `90`, `90s`, `5m`, `1h30m` or `2d`.

    Raises:
        ValueError: it is none of these; the message goes on after the name of what it is for.
    """
    text = text.strip().replace(" ", "")
    if _SPAN.fullmatch(text) is None:
        raise ValueError(f"must be a span of time such as 30s, 5m, 1h30m or 2d, not {text[:40]!r}")
    return sum(float(number) * _SPAN_UNITS[unit.lower() or "s"] for number, unit in _SPAN_PART.findall(text))


def span_words(seconds: float) -> str:
    """A span of time as `span_s` reads it: `5m`, `1h30m`, `0.5s`."""
    words, left = "", seconds
    for unit in ("d", "h", "m"):
        count, left = divmod(left, _SPAN_UNITS[unit])
        words += f"{count:.0f}{unit}" if count else ""
    return words + f"{round(left, 3):g}s" if left or not words else words
