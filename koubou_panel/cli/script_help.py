"""Why what a script takes could not be read from its `--help`."""

from __future__ import annotations

import os
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

from koubou_panel.core.script import INTERPRETERS, Script
from koubou_panel.shop.definition import HELP_S, wants_help

MOST_CHARS = 200


def help_failure(script: Script) -> str:
    """In words, why `--help` of a script that reads `argparse` told nothing; empty where it told all there is."""
    if script.parameters:
        return ""
    try:
        text = Path(script.path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
    return _tried(script) if wants_help(script, text) else ""


def _tried(script: Script) -> str:
    program = script.interpreter or INTERPRETERS.get(Path(script.path).suffix, ())
    with tempfile.TemporaryFile() as errors:
        try:
            process = subprocess.Popen(
                [*program, script.path, "--help"],
                cwd=script.cwd or str(Path(script.path).parent),
                env=os.environ | script.env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            return f"as its --help could not be run ({error})"
        try:
            code = process.wait(HELP_S)
        except subprocess.TimeoutExpired:
            return f"as its --help did not end within {HELP_S:g} s"
        finally:
            with suppress(OSError):
                os.killpg(process.pid, 9)
            process.wait()
        if code == 0:
            return ""
        errors.seek(0)
        last = errors.read().decode(errors="replace").strip().rpartition("\n")[2][:MOST_CHARS]
        return f"as its --help failed ({last or f'code {code}'})"
