"""How a command ends: which exception says what on stderr, and with which exit code."""

from __future__ import annotations

import errno
import sys
import termios
import traceback

import click

from koubou_panel.errors import KoubouError, Refused, SettingsError
from koubou_panel.home import HomeTaken
from koubou_panel.settings import (
    EXIT_DATA,
    EXIT_FAILED,
    EXIT_NO_WORKSHOP,
    EXIT_REFUSED,
    EXIT_TAKEN,
    EXIT_USAGE,
)

INTERRUPTED = 130
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def explain(error: BaseException) -> int:
    """Say on stderr what went wrong, and give the exit code."""
    match error:
        case click.exceptions.Exit(exit_code=code):
            return code
        case click.ClickException():
            error.show()
            return error.exit_code
        case click.Abort() | KeyboardInterrupt():
            return INTERRUPTED
        case KoubouError():
            say(error.message)
            return code_of(error)
        case OSError() if error.errno in NO_ROOM:
            say(f"cannot write {error.filename or 'the output'}: {error.strerror}")
            return EXIT_FAILED
        case _:
            traceback.print_exception(error)
            say("this is a mistake of Koubou Panel's own: the lines above say where")
            return EXIT_FAILED


def code_of(error: KoubouError) -> int:
    """The exit code of an error."""
    if isinstance(error, Refused):
        return EXIT_NO_WORKSHOP if error.code in ("unavailable", "version") else EXIT_REFUSED
    if isinstance(error, SettingsError):
        return EXIT_USAGE
    if isinstance(error, HomeTaken):
        return EXIT_TAKEN
    return EXIT_DATA if type(error).__name__ == "HomeRefused" else EXIT_FAILED


def clean(text: str) -> str:
    """`text` on one line, without what a terminal would obey."""
    return "".join(c if c.isprintable() else " " for c in text)


def say(text: str) -> None:
    """A line for people; on its own, also where what runs has left the cursor anywhere."""
    start, end = ("\r\n", "\r\n") if _is_raw() else ("", "\n")
    print(f"{start}koubou: {clean(text)}", file=sys.stderr, end=end, flush=True)


def _is_raw() -> bool:
    """Whether stderr is a terminal that does with a line's end only what it is told."""
    try:
        return not termios.tcgetattr(sys.stderr)[1] & termios.OPOST
    except (AttributeError, OSError, TypeError, ValueError, termios.error):
        return False
