"""What one line says about progress, as a value; and the numbers, sizes and spans of time in such lines."""

from __future__ import annotations

import re
from typing import NamedTuple

MOST_MESSAGE = 120
SHAPE_LENGTH = 60
MOST_VALUE = 1e18

# How many different, rising values it takes to believe a line.
CERTAIN, LIKELY, POSSIBLE = 1, 2, 3

NUMBER = r"\d+(?:,\d{3})*(?:\.\d+)?"
CLOCK = r"(?:\d+:)?\d{1,3}:\d\d(?::\d\d)?"
SPAN = r"\d+(?:\.\d+)?\s?(?:ms|d|h|m|s)\b(?:\s?\d+\s?[hms]\b)*|(?:\d+[dhms])+"

KILO, KIBI = 1000, 1024
_POWERS = {"": 0, "k": 1, "K": 1, "M": 2, "G": 3, "T": 4, "P": 5, "E": 6, "Z": 7, "Y": 8}
_UNITS_S = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_SPAN_PART = re.compile(r"(\d+(?:\.\d+)?)\s?(ms|[dhms])")
_DIGITS = re.compile(r"\d+(?:[.,:]\d+)*")
_HAS_LETTER = re.compile(r"[^\W\d_]")


class Reading(NamedTuple):
    """What a line says. `key` is the same for the next value of the same meter; rates are per second, in `unit`."""

    key: str
    needs: int
    fraction: float | None = None
    done: float | None = None
    total: float | None = None
    unit: str = ""
    rate_per_s: float | None = None
    eta_s: float | None = None
    message: str = ""

    @property
    def height(self) -> float:
        """What rises as it goes on."""
        return (self.fraction if self.fraction is not None else self.done) or 0.0


def reading(
    key: str,
    needs: int,
    *,
    done: float | None = None,
    total: float | None = None,
    fraction: float | None = None,
    unit: str = "",
    rate: float | None = None,
    left: float | None = None,
    text: str = "",
) -> Reading | None:
    """A reading that makes sense, or None: a count within its total, or a fraction; what is out of range is unknown."""
    if done is not None and not 0 <= done <= MOST_VALUE:
        return None
    if total is not None and not 0 < total <= MOST_VALUE:
        total = None
    if done is not None and total is not None:
        fraction = done / total
    fraction = None if fraction is None else min(fraction, 1.0)
    rate = rate if rate is not None and 0 < rate <= MOST_VALUE else None
    return Reading(key, needs, fraction, done, total, unit, rate, _left(fraction, left), message(text))


def _left(fraction: float | None, left: float | None) -> float | None:
    """Nothing is left at the end, and only there: pv and others say 0 when they do not know yet."""
    if fraction == 1:
        return 0.0
    return left if left and left <= MOST_VALUE else None


def message(text: str) -> str:
    """`text` as the words beside a bar: short, without the signs around it, empty if it has no letter."""
    if _HAS_LETTER.search(text) is None:
        return ""
    text = " ".join(text.split()).lstrip(" :[(|-…)],").rstrip(" :[(|-….")
    return "" if text.lower() == "progress" else text[:MOST_MESSAGE]


def printable(text: str) -> str:
    """`text` with a blank for every character that cannot be seen: controls, odd spaces, signs that turn a line."""
    return text if text.isprintable() else "".join(c if c.isprintable() else " " for c in text)


def shape(text: str) -> str:
    """`text` with every number alike, so that two values of one meter have one shape."""
    return _DIGITS.sub("0", text[-2 * SHAPE_LENGTH :])[-SHAPE_LENGTH:].strip()


def number(text: str) -> float:
    """The number that `text` is, 0 where it is none; thousands may be parted by commas."""
    try:
        value = float(text.replace(",", ""))
    except ValueError:
        return 0.0
    return value if value <= MOST_VALUE else 0.0


def scaled(text: str, scale: str, base: int = KILO) -> float:
    """The number `text` times a power of `base`, by the letter `scale`; an `i` after the letter means 1,024."""
    if scale.endswith("i"):
        scale, base = scale[:-1], KIBI
    return number(text) * float(base) ** _POWERS.get(scale, 0)


def seconds(text: str) -> float | None:
    """The seconds of `1:02:03`, `02:03`, `1 day, 2:03:04`, `1m20s`, `2d 03h` or `5s`; None for anything else."""
    days, _, clock = text.rpartition(",") if "day" in text else ("", "", text)
    total = 0.0
    parts = clock.strip().split(":")
    if len(parts) == 1:
        spans = _SPAN_PART.findall(text)
        return sum(number(value) * _UNITS_S[unit] for value, unit in spans) if spans else None
    for part in parts:
        if not (part.isascii() and part.isdecimal()):
            return None
        total = total * 60 + number(part)
    return total + number(days.split(" ")[0]) * _UNITS_S["d"]
