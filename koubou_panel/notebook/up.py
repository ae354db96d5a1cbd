"""What `%koubou` runs: the command line of the session's workshop, and `koubou up` so that it outlives the kernel."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import BinaryIO

from IPython.core.error import UsageError

from koubou_panel.home import Home
from koubou_panel.notebook.current import CURRENT
from koubou_panel.shop.address import connect_private

UP_LIMIT_S = 60.0
MOST_LOG_BYTES = 1 << 20
CLI = "import sys; from koubou_panel.cli import main; sys.exit(main())"


def session_home() -> Home:
    """The folder of the session's workshop; opens none."""
    from koubou_panel.notebook.opening import usual_home

    found = CURRENT.found()
    if found is not None:
        return found.home
    return Home(usual_home())


def home_asked(words: list[str], *, anywhere: bool = False) -> tuple[Home | None, list[str]]:
    """The home that `--home` names and the other words; of those before the command, or `anywhere`.

    Raises:
        UsageError: it names none.
    """
    home, rest, left = None, [], list(words)
    while left:
        word = left.pop(0)
        name, is_given, value = word.partition("=")
        if name != "--home" and not anywhere:
            return home, [word, *left]
        if name != "--home":
            rest.append(word)
            continue
        if not (is_given or left):
            raise UsageError("--home needs a folder")
        home = Home(Path(value if is_given else left.pop(0)))
    return home, rest


def run_command(words: list[str], home: Home | None = None) -> int:
    """Run a command of the command line and print what it prints, as it comes; an interrupt ends it."""
    process = subprocess.Popen(
        [sys.executable, "-c", CLI, "--home", str((home or session_home()).root), *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    )
    try:
        for text in process.stdout or ():
            print(text, end="")  # noqa: T201
    except KeyboardInterrupt:
        process.send_signal(signal.SIGINT)
        raise
    finally:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
        process.kill()
        if process.stdout is not None:
            process.stdout.close()
        process.wait()
    return process.returncode


def start_up(words: list[str], home: Home) -> None:
    """Start `koubou up` so that it outlives this kernel; the person asked for it, and is told how it ends.

    Raises:
        UsageError: this kernel holds the workshop, one runs there already, or it did not start, and why.
    """
    found = CURRENT.found()
    if found is not None and not found.is_attached and found.home.root == home.root:
        raise UsageError(
            f"this kernel holds the workshop at {found.home.root}: end it first, by its `shutdown()`, then `%koubou up`"
        )
    down = (
        "%koubou down"
        if home.root == session_home().root
        else f"%koubou --home {shlex.quote(str(home.root))} down"
    )
    if _answers(home):
        raise UsageError(f"a workshop runs at {home.root} already: `{down}` ends it, then `%koubou up`")
    home.prepare()
    log = home.root / "up.log"
    with _log(log) as file:
        begin = file.tell()
        process = subprocess.Popen(
            [sys.executable, "-c", CLI, "--home", str(home.root), "up", "--no-browser", *words],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    if not _is_up(process, home):
        said = log.read_bytes()[begin:].decode(errors="replace").strip()
        raise UsageError(f"koubou up: {said[-1000:] or f'it was not ready within {UP_LIMIT_S:g} s'}")
    threading.Thread(target=process.wait, daemon=True).start()  # it leaves no zombie when it ends
    run_command(["status"], home)
    print(f"\nIt goes on when this kernel ends; `{down}` ends it. What it says is in {log}.")  # noqa: T201


def _answers(home: Home) -> bool:
    """Whether a workshop runs there: what a dead one left behind answers nobody."""
    try:
        connect_private(home.socket).close()
    except OSError:
        return False
    return True


def _log(path: Path) -> BinaryIO:
    """The file for what `koubou up` says, behind what it said before: this user's alone, as links to log in are in it.

    Raises:
        UsageError: it cannot be written.
    """
    flags = os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        file = os.fdopen(os.open(path, flags, 0o600), "ab")
        os.fchmod(file.fileno(), 0o600)
    except OSError as error:
        raise UsageError(
            f"{path} cannot be written ({error.strerror}): move it away, then try again"
        ) from None
    if file.tell() > MOST_LOG_BYTES:
        file.truncate(0)
    return file


def _is_up(process: subprocess.Popen[bytes], home: Home) -> bool:
    deadline = time.monotonic() + UP_LIMIT_S
    while process.poll() is None and not _is_ready(home, process.pid):
        if time.monotonic() > deadline:
            process.terminate()
            break
        time.sleep(0.05)
    return process.poll() is None and time.monotonic() <= deadline


def _is_ready(home: Home, pid: int) -> bool:
    """Whether all services of that very `koubou up` run; a model is started when it is needed."""
    try:
        said = json.loads((home.runtime / "status.json").read_bytes())
        states = [each["state"] for each in said["services"] if each["name"] != "model"]
        return said["pid"] == pid and set(states) == {"running"}
    except (OSError, ValueError, KeyError, TypeError):  # none yet, or one that another wrote
        return False
