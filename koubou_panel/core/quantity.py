"""Sizes and spans of time in words, as the reasons of facts use them."""

from __future__ import annotations

_KILO = 1024
_UNITS = ("B", "kB", "MB", "GB", "TB")
_MOST = 1000


def size_text(size_bytes: float) -> str:
    """Bytes for people, in powers of 1,024: `812 B`, `80 MB`, `2 GB`, `6.1 GB`."""
    value, unit = float(size_bytes), 0
    while value >= _MOST and unit < len(_UNITS) - 1:
        value /= _KILO
        unit += 1
    return f"{round(value, 1):g} {_UNITS[unit]}" if value < 10 else f"{value:.0f} {_UNITS[unit]}"  # noqa: PLR2004 - one digit


def seconds_text(span_s: float) -> str:
    """Seconds for people: `0.5 s`, `40 s`, `90 s`."""
    return f"{round(span_s, 1):g} s"
