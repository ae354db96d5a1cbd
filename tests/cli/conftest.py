"""A real workshop, started by `koubou up` in a home of the tests, and `koubou` as a process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

KOUBOU = [sys.executable, "-c", "import sys; from koubou_panel.cli import main; sys.exit(main())"]
KEPT = ("PATH", "HOME", "LANG", "TERM", "VIRTUAL_ENV")


class Shell:
    """Runs `koubou` for one home."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.env = {key: os.environ[key] for key in KEPT if key in os.environ} | {"KOUBOU_HOME": str(home)}

    def __call__(self, *args: str, cwd=None, timeout=90, **env: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*KOUBOU, *args],
            env=self.env | env,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout,
            check=False,
        )
        # Not by subprocess: it would take every carriage return for a line's end.
        texts = (done.stdout.decode(), done.stderr.decode())
        return subprocess.CompletedProcess(done.args, done.returncode, *texts)

    def start(self, *args: str, **more) -> subprocess.Popen[str]:
        """A command that goes on; text pipes, in a session of its own."""
        usual = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "env": self.env,
            # Tests that run under nohup ignore it, and what they start would inherit that.
            "preexec_fn": lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
        }
        return subprocess.Popen([*KOUBOU, *args], text=True, start_new_session=True, **(usual | more))

    def up(self, *args: str) -> subprocess.Popen[str]:
        """`koubou up` without a browser, on free ports; it has said that it is ready."""
        flags = ["--socket-port", "0", "--agents-port", "0", "--dashboard-port", "0", "--no-browser"]
        process = self.start("up", *flags, *args)
        line = process.stdout.readline()
        assert "ready in" in line, line + process.stderr.read()
        process.line = line
        return process


def end(process: subprocess.Popen[str], *, timeout: float = 30) -> int:
    """End `koubou up`, without waiting for what runs, and give its exit code."""
    try:
        for _ in range(2):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=1)
        process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    return process.returncode


@pytest.fixture(scope="session")
def koubou(tmp_path_factory):
    """`koubou(ARG, …)` against one workshop with two workers, which all tests of a run share."""
    shell = Shell(tmp_path_factory.mktemp("cli") / "home")
    process = shell.up("--no-dashboard", "--workers", "2:2")
    yield shell
    assert end(process) == 0


@pytest.fixture
def shell(tmp_path):
    """`koubou` for a home where nothing runs; ending what was started is the test's own."""
    return Shell(tmp_path / "home")
