"""What the definition of a script is completed with from its text: what runs it, what it takes, how long it may take.

What its owner gave is left alone (`Script.given`). All of it blocks: never on the loop.
"""

from __future__ import annotations

import logging
import os
import select
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import psutil
from msgspec.structs import replace

from koubou_panel.archive.text import read_file
from koubou_panel.core.parameter import read_header, read_help, shebang, uses_argparse
from koubou_panel.core.script import INTERPRETERS, MAX_TEXT_BYTES, Parameter, Script
from koubou_panel.errors import Refused

FIELDS = ("interpreter", "parameters", "timeout_s", "description")
HELP_S = 5.0
MOST_HELP_BYTES = 1 << 18
_KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV")
# Wide and plain, whatever the version of Python.
_PLAIN = {"COLUMNS": "1000", "NO_COLOR": "1", "PYTHON_COLORS": "0", "TERM": "dumb"}
_NOTHING: dict[str, object] = {"interpreter": (), "parameters": (), "timeout_s": None, "description": ""}

log = logging.getLogger(__name__)


def with_given(script: Script, before: Script | None) -> Script:
    """`script` with `given` as it follows: what is said anew, or differs from `before`, its owner gave.

    What was emptied is to be read again; but a time-out that was taken away is given as none.
    """
    given = set(script.given)
    for field in FIELDS:
        value = getattr(script, field)
        if before is not None and value == getattr(before, field):
            given |= {field} & set(before.given)
        elif value != _NOTHING[field] or (field == "timeout_s" and before is not None):
            given.add(field)
    return replace(script, given=tuple(field for field in FIELDS if field in given))


def is_to_be_read(script: Script, before: Script | None) -> bool:
    """Whether a change of a definition needs its text: it is another file, or something is to be read again."""
    if before is None or script.path != before.path:
        return True
    return any(
        field not in script.given and getattr(script, field) != getattr(before, field) for field in FIELDS
    )


def text_of(path: Path) -> str | None:
    """What a script's file says; None where it is no text, as a program that was compiled.

    Raises:
        Refused: there is no such file, or it cannot be read.
    """
    try:
        data, _ = read_file(path, most=MAX_TEXT_BYTES)
    except Refused as refused:
        if refused.code == "too_large":
            return None
        # Whoever names it is wrong: nobody asked for it.
        raise Refused("invalid", refused.message, field="path") from None
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None


def completed(script: Script, text: str | None, *, is_executable: bool) -> Script:
    """`script` with what its text says, the page of its `--help` apart.

    Raises:
        Refused: `invalid`: the header cannot be read, or nothing says what runs the file.
    """
    header = read_header(text or "")
    said: dict[str, object] = {
        "interpreter": shebang(text or "") or _other_python(script.path),
        "parameters": header.parameters or (),
        "timeout_s": header.timeout_s,
        "description": header.description or "",
    }
    script = replace(script, **{field: said[field] for field in FIELDS if field not in script.given})
    if script.interpreter or is_executable or _ending(script.path) in INTERPRETERS:
        return script
    where = "the text" if script.is_inline else script.path
    mend = "" if script.is_inline else f", or make it executable (`chmod +x {script.path}`)"
    words = (
        f"nothing says what runs {where}: begin it with a line such as `#!/bin/sh`, give an interpreter{mend}"
    )
    raise Refused("invalid", words, field="interpreter")


def _other_python(path: str) -> tuple[str, ...]:
    """Where there is a `python3` alone, that runs what `python` would."""
    (python,) = INTERPRETERS[".py"]
    is_needed = _ending(path) == ".py" and shutil.which(python) is None
    return ("python3",) if is_needed and shutil.which("python3") else ()


def _ending(path: str) -> str:
    name = path.rpartition("/")[2]
    dot = name.rfind(".")
    return name[dot:] if dot > 0 else ""


def is_executable(path: Path) -> bool:
    """Whether the file may be run as it is."""
    return os.access(path, os.X_OK)


def wants_help(script: Script, text: str | None) -> bool:
    """Whether what a script takes is to be asked of it: it is Python's, reads `argparse`, and no header says."""
    if text is None or "parameters" in script.given or not uses_argparse(text):
        return False
    if read_header(text).parameters is not None:
        return False
    program = script.interpreter or INTERPRETERS.get(_ending(script.path), ("",))
    return program[0].rpartition("/")[2].startswith("python")


def ask_help(script: Script) -> tuple[Parameter, ...]:
    """The parameters that the script's own `--help` tells of; none where it does not answer in time."""
    program = script.interpreter or INTERPRETERS.get(_ending(script.path), ())
    env = {key: os.environ[key] for key in _KEPT if key in os.environ} | _PLAIN | script.env
    folder = script.cwd or script.path.rpartition("/")[0] or "/"
    try:
        process = subprocess.Popen(
            [*program, script.path, "--help"],
            cwd=folder,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        log.warning("%s --help could not be run: %s", script.path, error)
        return ()
    page = _read_page(process)
    if page is None:
        log.warning("%s --help did not end within %g s: what it takes is not known", script.path, HELP_S)
        return ()
    return read_help(page.decode("utf-8", "replace"))


def _read_page(process: subprocess.Popen[bytes]) -> bytes | None:
    """What a process prints until it closes its output; None if that takes too long. It is ended in any case."""
    deadline = time.monotonic() + HELP_S
    page = b""
    try:
        if process.stdout is None:
            return None
        output = select.poll()  # `select.select` takes no descriptor above 1023
        output.register(process.stdout, select.POLLIN)
        while len(page) < MOST_HELP_BYTES:
            left_s = deadline - time.monotonic()
            if left_s <= 0 or not output.poll(1_000 * left_s):
                return None
            piece = os.read(process.stdout.fileno(), 1 << 16)
            if not piece:
                break
            page += piece
        return page
    finally:
        _end_tree(process)


def _end_tree(process: subprocess.Popen[bytes]) -> None:
    """End a process and what it started."""
    with suppress(psutil.Error):
        for child in psutil.Process(process.pid).children(recursive=True):
            with suppress(psutil.Error):
                child.kill()
    with suppress(OSError):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.wait()
    if process.stdout is not None:
        process.stdout.close()
