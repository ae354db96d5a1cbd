"""A traceback as it is read: the error itself first, then where it was raised, then all of it."""

from __future__ import annotations

import re

from koubou_panel.views.escape import block, line

TRACEBACK_LIMIT = 20_000
ERROR_LIMIT = 2_000
_HEAD = "Traceback (most recent call last):"
_CRASHED = "Fatal Python error:"
_FRAME = re.compile(r'^  (?:\| *)?(File ".*", line \d+.*)$', re.MULTILINE)


def fault(traceback: str) -> dict[str, str]:
    """`error`, `place` and the whole `trace`; empty where there is none. What has no frames is all error."""
    whole = block(traceback, TRACEBACK_LIMIT).strip("\n")
    if not whole:
        return {}
    at = whole.rfind(_HEAD)
    last = whole[at:] if at >= 0 else whole
    frames = _FRAME.findall(last)
    if frames and whole.startswith(_CRASHED):  # its stack stands below it, innermost first
        return {
            "error": line(whole.partition("\n")[0], ERROR_LIMIT),
            "place": line(frames[0], 300),
            "trace": whole,
        }
    return {
        "error": block(_error(last) if frames else whole, ERROR_LIMIT),
        "place": line(frames[-1], 300) if frames else "",
        "trace": whole if frames else "",
    }


def _error(last: str) -> str:
    """What stands behind the frames of a traceback: they are indented, and it is not."""
    lines = last.split("\n")
    for number in range(1, len(lines)):
        if lines[number] and not lines[number].startswith(" "):
            return "\n".join(lines[number:])
    return lines[-1].strip()
