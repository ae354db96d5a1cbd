"""What a command is called in the lists: the program, but for those that run another one."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

NAME_CHARS = 100

# Options whose value stands in the next word. All others are one word.
_TAKES_NEXT = {
    "python": ("-W", "-X", "--check-hash-based-pycs"),
    "sh": ("-o", "-O", "+o", "+O", "--rcfile", "--init-file"),
}
_PYTHON = re.compile(r"(?:python|pypy)[0-9.]*t?")
_SHELLS = frozenset(("sh", "bash", "dash", "zsh", "ksh"))
_PYTHON_FLAGS = re.compile(r"-[bBdEhiIOPqsSuvVxR?]*([cm])(.*)", re.DOTALL)
_SHELL_CODE = re.compile(r"-[a-zA-Z]*c[a-zA-Z]*")


def program_name(command: Sequence[str]) -> str:
    """The name of a command's file; of the script or the module that Python or a shell is given, if it is given one.

    `python prog.py` is `prog.py`, `python -m http.server` is `http.server`; `sh -c …` stays `sh`.
    """
    program = os.path.basename(command[0]) or command[0]
    family = "python" if _PYTHON.fullmatch(program) else "sh" if program in _SHELLS else ""
    name = _given_to(family, command[1:]) if family else ""
    return (name or program)[:NAME_CHARS]


def _given_to(family: str, arguments: Sequence[str]) -> str:
    """The name of what is run; empty: it reads its code from the command line, or from its input."""
    rest = iter(arguments)
    for word in rest:
        if word == "--":
            return os.path.basename(next(rest, ""))
        if word == "-" or not word:
            return ""
        if word[0] not in "-+" or (word[0] == "+" and family == "python"):
            return os.path.basename(word)
        if word in _TAKES_NEXT[family]:
            next(rest, "")
        elif family == "sh" and (_SHELL_CODE.fullmatch(word) or word == "-s"):
            return ""
        elif family == "python" and (shape := _PYTHON_FLAGS.fullmatch(word)):
            return "" if shape[1] == "c" else shape[2] or next(rest, "")
    return ""
