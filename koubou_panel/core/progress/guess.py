"""What a line of no known tool says: read for a bar, a percentage, a count of a total, a rate and a remaining time.

A share of a disk, a coverage, a date, a path or a score is written as progress is. What tells them apart: progress
rises, again and again, in the same place of the same words. So `Reading.needs` says how many rising values it takes:
one with a bar and a rate or a remaining time, or the bar of rich, at once; one with a bar, with brackets around it,
alone on its line or beside a word for work, two; anything else three; one beside a word for a share, none at all.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from koubou_panel.core.progress.meter import (
    CERTAIN,
    CLOCK,
    LIKELY,
    NUMBER,
    POSSIBLE,
    SHAPE_LENGTH,
    SPAN,
    Reading,
    number,
    reading,
    scaled,
    seconds,
    shape,
)

_RICH_BAR = re.compile(r"[━╸╺]{5,}")
_BLOCK_BAR = re.compile(r"\|?[█▉▊▋▌▍▎▏▇░▒▓■□▰▱●○◼◻⣿⣀]{3,}\s*\|?")
_PLAIN_BAR = re.compile(
    r"\[(?=.{4,300}?\])[#=*+:o@-]*[>#]?[ ._·░-]*\]|\|(?=.{4,120}?\|) ?#+\d? *\||(?<!\S)-{10,}(?!\S)"
)
_PERCENT = re.compile(r"(?<![\w.,/+-])(\d{1,3}(?:\.\d+)?)\s?%(?![\w%/])", re.ASCII)
_SIZED = re.compile(
    rf"(?<![\w.,/-])({NUMBER})\s?(?:([kKMGTP]?i?)(?:B|bytes))?\s?(?:/|of)\s?({NUMBER})\s?([kKMGTP]?i?)(?:B|bytes)\b",
    re.ASCII,
)
_PAIR = re.compile(
    r"(?<![\w.,/\\+=#-])(\d{1,3}(?:,\d{3})+|\d{1,15})(?:\s?/\s?| (?:out )?of )(\d{1,3}(?:,\d{3})+|\d{1,15})"
    r"(?![\w/\\%-]|[.,]\d|\s?\d{1,2}:\d\d|:\d)",
    re.ASCII,
)
_RATE = re.compile(rf"(?<![\w.,])({NUMBER})\s?([kKMGTP]?i?)(B|bytes|[a-z]{{0,8}})/s(?:ec)?\b", re.ASCII)
_SLOW_RATE = re.compile(rf"(?<![\w.,])({NUMBER})\s?(ms|us|s)/([a-z]{{1,10}})\b", re.ASCII)
_PER_S = {"s": 1.0, "ms": 1e3, "us": 1e6}
_ETA = re.compile(
    rf"\b(?:eta|ETA|Eta|remaining|left)[:\s]*(?:in )?({CLOCK}|{SPAN})|({CLOCK}|{SPAN})\s+(?:eta|ETA|left|remaining)\b",
    re.ASCII,
)
_ANY_CLOCK = re.compile(r"(?<![\w.:/-])(?:-:--:--|--:--(?::--)?|\d+:\d\d:\d\d|\d\d:\d\d)(?![\w.:])", re.ASCII)
_KERAS_LEFT = re.compile(rf"[━╸╺]{{5,}}\s+({SPAN})\s", re.ASCII)
_ADDRESS = re.compile(r"\S*(?:://|\\)\S*")
_LONE_NUMBER = re.compile(r"(?<![\w.:/-])\d[\d.,]*[kKMGT]?i?B?(?![\w:/-])", re.ASCII)
_WORD = re.compile(r"[^\W\d_]+")
_WORDS_BEFORE, _WORDS_AFTER = 3, 2
_FULL = 100.0
_ROUNDED = 0.015

# A share of something, or how often something was tried: not how far a run is.
_SHARES = frozenset(
    """
    acc accuracy allocated attempt attempts auc avail available battery branch branches brightness
    capacity chance charge charged confidence cover coverage covered cpu cpus discount disk
    efficiency error errors f fail failed failing fails fan faster free functions gain gpu grade
    growth heap hit hits humidity idle improvement increase inode interest interval iou iowait kept
    larger latency limit limits lines load loss map match mem memory miss misses nice off overhead
    overlap packet packets percentile percentiles precision probability quality quantile quota ram
    rate rating ratio recall reduction reserved retries retry retrying rose route rss saved savings
    score scores served share similarity skipped slower smaller speedup stars statements stmts
    subnet swap system temp temperature threshold tries try usage use used user util utilisation
    utilization volume vram width within zoom
    """.split()  # noqa: SIM905 - words read better than a list of literals
)
# Right behind a pair: what is measured, not done.
_MEASURES = frozenset({"available", "free", "full", "inch", "inches", "temp", "temperature", "used"})
_WORK = tuple(
    """
    progress complet done epoch step stage phase iter batch chunk file download process load build compil train extract
    install upload copy copi convert import export render frame page item row record task job part sample image fold
    round generation trial transfer read writ wrote scan index finish receiv send sent fetch resolv count compress updat
    sync encod decod generat simulat evaluat fit work
    """.split()  # noqa: SIM905 - as above
)
# ` 99%    5.80ms`: what so many requests took, as ab, hey, wrk and redis-benchmark list it.
_OF_REQUESTS = re.compile(
    r"(?:\s+in|\s*<=?|\s*:|)\s+[0-9][0-9.,]*\s?(?:[nuµμm]?s|(?:milli|micro)?sec(?:ond)?s?)?\s*(?:\([^)]*\))?\s*"
)
_ROW = re.compile(r"\s*[|│┃║].*[|│┃║]\s*$")
_DAYS, _FIRST_YEAR, _LAST_YEAR = 31, 1900, 2100
# A line without any of these says nothing; most lines of most logs end here.
_HINT = re.compile(r"\d\s?%|\d[\s\w]{0,9}/\s?\d|\d (?:out )?of \d")


class _Parts(NamedTuple):
    """What a line holds."""

    bar: re.Match[str] | None
    is_rich: bool
    percents: list[re.Match[str]]
    rate: float | None
    rate_unit: str
    left: float | None
    is_timed: bool
    is_meter: bool


def guess(line: str) -> Reading | None:
    """What `line` may say; None if it says nothing of progress."""
    if _HINT.search(line) is None:
        return None
    if "://" in line or "\\" in line:
        line = _ADDRESS.sub(" ", line)
    parts = _parts(line)
    if not parts.is_meter and _ROW.match(line) is not None:
        return None  # a row of a table
    counted = _counted(line, parts)
    if counted is None or (parts.is_timed and _is_of_another(line, parts, counted)):
        return _percent(line, parts) or counted
    return counted


def _is_of_another(line: str, parts: _Parts, counted: Reading) -> bool:
    """Whether the count stands behind a percentage that it does not make: `37% 1.2MB/s (file 499 of 500)`."""
    match = parts.percents[0] if len(parts.percents) == 1 else None
    if match is None or counted.fraction is None:
        return False
    if any(form.search(line, 0, match.start()) for form in (_PAIR, _SIZED)):
        return False
    return abs(number(match[1]) / _FULL - counted.fraction) > _ROUNDED


def _parts(line: str) -> _Parts:
    rich = _RICH_BAR.search(line)
    bar = rich or _BLOCK_BAR.search(line) or _PLAIN_BAR.search(line)
    rate, unit = _rate(line)
    left = _left(line, rich, has_meter=bar is not None or rate is not None)
    percents = list(_PERCENT.finditer(line)) if "%" in line else []
    is_timed = rate is not None or left is not None
    return _Parts(bar, rich is not None, percents, rate, unit, left, is_timed, is_timed or bar is not None)


def _rate(line: str) -> tuple[float | None, str]:
    if "/" not in line:
        return None, ""
    match = _RATE.search(line) if "/s" in line else None
    if match is not None and (match[3] or not match[2]):
        return scaled(match[1], match[2]), "B" if match[3] in {"B", "bytes"} else match[3]
    slow = _SLOW_RATE.search(line) if "s/" in line else None
    if slow is not None and number(slow[1]) > 0:
        return _PER_S[slow[2]] / number(slow[1]), slow[3]
    return None, ""


def _left(line: str, rich: re.Match[str] | None, *, has_meter: bool) -> float | None:
    """Seconds left: said so, or the only clock beside a bar or a rate."""
    has_word = "left" in line or "remaining" in line or "eta" in line.lower()
    match = _ETA.search(line) if has_word else None
    if match is not None:
        return seconds(match[1] or match[2])
    if not has_meter:
        return None
    keras = _KERAS_LEFT.match(line, rich.start()) if rich else None
    if keras is not None:
        return seconds(keras[1])
    clocks = _ANY_CLOCK.findall(line)
    return seconds(clocks[0]) if len(clocks) == 1 else None


def _counted(line: str, parts: _Parts) -> Reading | None:
    """`12/80`, `12 of 80`, `12.3/45.6 MB`."""
    match = _SIZED.search(line) if "B" in line or "bytes" in line else None
    unit = "B" if match else ""
    if match is not None:
        scale = match[4]
        done, total = scaled(match[1], scale if match[2] is None else match[2]), scaled(match[3], scale)
    else:
        match = _PAIR.search(line)
        if match is None or _is_like_a_date(match):
            return None
        done, total = number(match[1]), number(match[2])
    needs = None if not parts.is_meter and _is_measured(line, match, total) else _needs(line, parts, match)
    if needs is None or not 0 <= done <= total or total == 0:
        return None
    if not unit and parts.rate_unit != "B":
        unit = parts.rate_unit
    before = _before(line, parts, match.start())
    return reading(
        f"{shape(before)}/{total:g}",
        needs,
        done=done,
        total=total,
        unit=unit,
        rate=parts.rate if parts.rate_unit == unit else None,
        left=parts.left,
        text=_words(before, line[match.end() :]),
    )


def _percent(line: str, parts: _Parts) -> Reading | None:
    """`37 %`, with or without a bar."""
    match = _nearest(parts)
    needs = None if match is None else _needs(line, parts, match)
    if match is None or needs is None or number(match[1]) > _FULL:
        return None
    before, after = _before(line, parts, match.start()), line[match.end() :]
    bracketed = _is_bracketed(line, match)
    if not bracketed and not parts.is_meter and _is_of_a_table(before, line[match.end() :]):
        return None
    is_named = parts.bar is not None or not before.strip() or _is_at_work(before)
    key = "[%]" if bracketed else f"{shape(before)}%" if is_named else f"{shape(before)}%{shape(after)}"
    return reading(
        key,
        needs,
        fraction=number(match[1]) / _FULL,
        unit=parts.rate_unit,
        rate=parts.rate,
        left=parts.left,
        text=_words(before, after),
    )


def _nearest(parts: _Parts) -> re.Match[str] | None:
    """The percentage that is meant: the one beside the bar, or the only one."""
    if parts.bar is None or not parts.percents:
        return parts.percents[0] if len(parts.percents) == 1 else None
    start, end = parts.bar.span()
    return min(parts.percents, key=lambda found: min(abs(found.start() - end), abs(found.end() - start)))


def _needs(line: str, parts: _Parts, match: re.Match[str]) -> int | None:
    """How many rising values the line takes; None if it tells of something else."""
    if parts.is_rich or (parts.bar is not None and parts.is_timed):
        return CERTAIN
    if parts.bar is not None:
        return LIKELY
    before, after = line[: match.start()], line[match.end() :]
    near = _WORD.findall(before[-SHAPE_LENGTH:])[-_WORDS_BEFORE:]
    if match.re is _PERCENT:
        near += _WORD.findall(after[:SHAPE_LENGTH])[:_WORDS_AFTER]
    if not _SHARES.isdisjoint(word.lower() for word in near):
        return None
    if _is_alone(before, after) or parts.is_timed or _is_bracketed(line, match):
        return LIKELY
    return LIKELY if _is_at_work(_around(line, match)) else POSSIBLE


def _is_at_work(text: str) -> bool:
    """Whether a word of it is one for work that gets on."""
    return any(word.startswith(_WORK) for word in _WORD.findall(text.lower()))


def _is_bracketed(line: str, match: re.Match[str]) -> bool:
    return line[: match.start()].rstrip().endswith("[") and line[match.end() :].lstrip().startswith("]")


def _is_like_a_date(pair: re.Match[str]) -> bool:
    """`01/12`: filled with a zero to two digits, as days and months are and counts are not."""
    return pair[1].startswith("0") and len(pair[1]) == len(pair[2]) == 2  # noqa: PLR2004 - two digits


def _is_measured(line: str, match: re.Match[str], total: float) -> bool:
    """Whether, with no meter, it is a day of a year, memory as a monitor shows it, or one of several in a table."""
    if _is_bracketed(line, match):
        return False
    if match.re is _PAIR and _FIRST_YEAR <= total <= _LAST_YEAR and _is_like_a_month(line, match):
        return True
    behind = _WORD.search(line, match.end())
    if behind is not None and behind[0].lower() in _MEASURES:
        return True
    is_one_of_several = match.re.search(line, match.end()) is not None
    if match.re is _PAIR:
        return is_one_of_several and not _is_at_work(_around(line, match))
    return is_one_of_several or not (
        _is_alone(line[: match.start()], line[match.end() :]) or _is_at_work(_around(line, match))
    )


def _is_like_a_month(line: str, pair: re.Match[str]) -> bool:
    """`Nov 11/2026`, `3/2026`: a day or a month of a year, unless it is behind a word for work."""
    if pair[0] != f"{pair[1]}/{pair[2]}" or number(pair[1]) > _DAYS:
        return False
    return pair[1].startswith("0") or not _is_at_work(line[: pair.start()][-SHAPE_LENGTH:])


def _is_of_a_table(before: str, after: str) -> bool:
    """Whether a percentage stands behind several numbers, or alone before what so many requests took."""
    return len(_LONE_NUMBER.findall(before)) > 1 or (
        not before.strip() and _OF_REQUESTS.fullmatch(after) is not None
    )


def _around(line: str, match: re.Match[str]) -> str:
    """The words beside it."""
    return line[max(0, match.start() - SHAPE_LENGTH) : match.start()] + line[match.end() : match.end() + 30]


def _is_alone(before: str, after: str) -> bool:
    return not before.strip(" \t[(") and not after.strip(" \t])")


def _before(line: str, parts: _Parts, end: int) -> str:
    """The text before the value, its bar and other numbers of the meter."""
    starts = [end]
    if parts.bar is not None:
        starts.append(parts.bar.start())
    if parts.percents:
        starts.append(parts.percents[0].start())
    return line[: min(starts)]


def _words(before: str, after: str) -> str:
    """What is being done: the words before the value, or else those right behind it."""
    if _WORD.search(before):
        return before
    after = after.lstrip(" \t]):,|-")
    return after if after[:1].isalpha() else ""
