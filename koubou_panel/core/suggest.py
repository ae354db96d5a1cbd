"""The nearest known name, for messages about unknown ones."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that is most like `name`, or None if none is like it."""
    found = get_close_matches(name[:100], list(known), n=1, cutoff=0.5)
    return found[0] if found else None


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """A sentence saying that `name` is no known `what`, with the nearest one."""
    names = list(known)
    near = nearest(name, names)
    hint = f"; did you mean {near!r}?" if near else f"; known: {', '.join(sorted(names))}" if names else ""
    return f"unknown {what} {name[:100]!r}{hint}"
