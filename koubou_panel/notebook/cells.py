"""What a notebook calls its cells."""

from __future__ import annotations

import re
import sys

_PLACE = re.compile(r'File "([^"\n]+)", line')
_CRASH = re.compile(r", line (\d+) of (\S+)$")


def with_cells(traceback: str) -> str:
    """A traceback in which this kernel's cells are called `Cell In[2]`, as in its own, instead of after a file.

    So it is with the place of a crash, at the end of the words for it: `… in work, line 2 of FILE`.
    """
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    label = getattr(getattr(shell, "compile", None), "format_code_name", None)
    if label is None:
        return traceback

    def named(found: re.Match[str]) -> str:
        words = label(found[1])
        return found[0] if not words else f"{' '.join(words)}, line"

    def crashed(found: re.Match[str]) -> str:
        words = label(found[2])
        return found[0] if not words else f", {' '.join(words)}, line {found[1]}"

    return _CRASH.sub(crashed, _PLACE.sub(named, traceback))
