"""The lines of functions that have no file, such as a notebook's: they cross with the code, for tracebacks.

Where code comes from a file, a worker reads that. Idea from `linecache` itself, and from how IPython tells that of
cells.
"""

from __future__ import annotations

import linecache
from collections.abc import Callable
from functools import lru_cache
from types import CodeType
from typing import Any

MOST_BYTES = 64 << 10
MOST_FILES = 256

Reduced = tuple[Callable[..., object], tuple[object, ...]]

_TAKEN: dict[str, list[str]] = {}


def reducer(reduce: Callable[[CodeType], Reduced]) -> Callable[[CodeType], Reduced]:
    """How one pickler puts down code: as `reduce` does, with its lines; what stands in other code is in its lines."""
    gone: set[CodeType] = set()

    def reduced(code: CodeType) -> Reduced:
        made, arguments = reduce(code)
        if code in gone:
            return made, arguments
        gone.update(_inner(code))
        text = _text(code.co_filename, code.co_firstlineno, code)
        return (
            (_rebuilt, (made, arguments, code.co_filename, code.co_firstlineno, text))
            if text
            else (made, arguments)
        )

    return reduced


def _inner(code: CodeType) -> set[CodeType]:
    own = {each for each in code.co_consts if isinstance(each, CodeType)}
    return own.union(*map(_inner, own)) if own else own


def _rebuilt(
    made: Callable[..., CodeType], arguments: tuple[Any, ...], name: str, first: int, text: str
) -> CodeType:
    """The code, whose lines can be shown from now on. While it is loaded."""
    known = _TAKEN.get(name)
    if known is None and name not in linecache.cache:
        if len(_TAKEN) >= MOST_FILES:
            _forget_all()
        known = _TAKEN[name] = []
        linecache.cache[name] = (1, None, known, name)
    if known is not None:
        lines = text.splitlines(keepends=True)
        known += ["\n"] * (first - 1 + len(lines) - len(known))
        known[first - 1 : first - 1 + len(lines)] = lines
    return made(*arguments)


def _forget_all() -> None:
    for name in _TAKEN:
        linecache.cache.pop(name, None)
    _TAKEN.clear()


@lru_cache(maxsize=512)
def _text(name: str, first: int, code: CodeType) -> str:
    """The lines of code that has no file; empty where it has one, or is very long."""
    entry = linecache.cache.get(name)
    if entry is None or len(entry) == 1 or entry[1] is not None:  # 1: it is read when it is asked for
        return ""
    last = max((_last(each) for each in (code, *_inner(code))), default=first)
    text = "".join(entry[2][first - 1 : last])
    return text if len(text) <= MOST_BYTES else ""


def _last(code: CodeType) -> int:
    return max((end or 0 for _, end, _, _ in code.co_positions()), default=0)
