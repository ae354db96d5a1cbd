"""Samples of the host over a long time, as few: the means of equal spans, and the peaks of what jumps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import TypeGuard

from koubou_panel.core.records import Metrics

PEAK = "_max"
_JUMPS = ("_percent", "_per_s")


def binned(samples: Iterable[Metrics], step_s: float) -> Iterator[Metrics]:
    """One sample for each span of `step_s` seconds in which there is one, in the order in which they came.

    Args:
        samples: in the order of time.
        step_s: more than 0. Spans begin at its multiples.

    Returns:
        `at` is a span's middle. A number is the mean of those in the span, with its peak as `<name>_max` where it is
        a percent or a rate; a list of numbers is the list of their means, where all are of one length.
    """
    for place, together in groupby(samples, key=lambda sample: int(sample.at // step_s)):
        yield Metrics((place + 0.5) * step_s, _together([sample.values for sample in together]))


def _together(found: Sequence[dict[str, object]]) -> dict[str, object]:
    values: dict[str, object] = {}
    for name in found[-1]:
        told = [sample[name] for sample in found if name in sample]
        numbers = [value for value in told if _is_number(value)]
        lists = [value for value in told if isinstance(value, list)]
        if numbers:
            values[name] = _mean(numbers)
            if name.endswith(_JUMPS):
                values[name + PEAK] = max(numbers)
        elif lists and len({len(value) for value in lists}) == 1:
            values[name] = [_mean(column) for column in zip(*lists, strict=True)]
    return values


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _mean(numbers: Sequence[float]) -> float:
    return round(sum(numbers) / len(numbers), 2)
