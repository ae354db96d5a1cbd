"""Numbers in the units that people use."""

from __future__ import annotations

from collections.abc import Iterable

from koubou_panel.views.language import _

_KILO = 1024
_BYTES = ("B", "byte", "bytes")
_SIZES = ("B", "KB", "MB", "GB", "TB")


def duration(seconds: float) -> str:
    """`12 ms`, `0.4 s`, `12 s`, `3:07`, `2:03:07`, `3 d 4 h`."""
    if seconds < 0.0995:
        return f"{max(0.0, seconds) * 1000:.0f} ms"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, second = divmod(whole, 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f"{days} d {hour} h"
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minutes}:{second:02d}"


def size(number_bytes: float) -> str:
    """`812 B`, `4.2 MB`, `1.3 GB`."""
    value = float(number_bytes)
    unit = 0
    while value >= 1000 and unit < len(_SIZES) - 1:
        value /= _KILO
        unit += 1
    return f"{value:.0f} {_SIZES[unit]}" if unit == 0 or value >= 100 else f"{value:.1f} {_SIZES[unit]}"


def count(number: float) -> str:
    """`7`, `1,204`, `62.1k`, `3.4M`."""
    if number < 10_000:
        return f"{number:,.0f}"
    if number < 1_000_000:
        return f"{number / 1_000:.1f}k"
    return f"{number / 1_000_000:.1f}M"


def amount(number: float, unit: str) -> str:
    """`12`, `3.1`, or `4.2 MB` where the unit is bytes."""
    if unit in _BYTES:
        return size(number)
    return f"{number:.1f}" if number < 10 and number != round(number) else count(number)


def rate(per_s: float, unit: str) -> str:
    """`3.1/s`, `4.2 MB/s`; what is slow is told per minute or per hour."""
    for factor, period in ((1, "s"), (60, "min")):
        if per_s * factor >= 1:
            return f"{amount(per_s * factor, unit)}/{period}"
    return f"{amount(round(per_s * 3600, 1), unit)}/h"


def listed(texts: Iterable[str]) -> str:
    """`a, b, c`, set apart as the language spoken does it."""
    found = ""
    for text in texts:
        found = _("{first}, {next}").format(first=found, next=text) if found else text
    return found
