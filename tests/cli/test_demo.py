"""`koubou demo`: it really starts, does something, and leaves nothing."""

from __future__ import annotations

import json
import signal
import sys
import time
from pathlib import Path

import psutil

from koubou_panel.cli.demo import scripts, tasks
from tests.cli.conftest import Shell

START_S = 90.0


def wait(condition, limit_s: float = START_S):
    """What `condition` gives once it is true."""
    deadline = time.monotonic() + limit_s
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come to be"
    return found


def test_demo_is_busy_labelled_and_gone(tmp_path: Path) -> None:
    """Its tasks and scripts run in a home of its own; Ctrl-C ends it with code 0, and no file or process is left."""
    shell = Shell(tmp_path / "not-used")
    shell.env["TMPDIR"] = str(tmp_path)
    process = shell.start("demo", "--no-browser", "--workers", "2:2")
    try:
        line = process.stdout.readline()
        assert line.startswith("工房 demo ready in"), line + process.stderr.read()
        (home,) = tmp_path.glob("koubou-demo-*")
        document = json.loads(shell("--home", str(home), "status", "--json").stdout)
        assert document["label"] == "demo"
        assert {service["name"] for service in document["services"]} >= {"pool", "dashboard", "model"}

        def seen() -> set[str]:
            found = json.loads(shell("--home", str(home), "ps", "--json").stdout)["tasks"]
            return {task["name"] for task in found if task["status"] == "completed"}

        wait(lambda: seen() & {"hash blocks", "train a toy", "use memory"})
        listed = json.loads(shell("--home", str(home), "script", "list", "--json").stdout)["scripts"]
        assert {script["name"] for script in listed} == {"check-disk", "sync-folders", "report"}
        assert not (tmp_path / "not-used").exists()
        below = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=90)
        assert process.returncode == 0
        assert list(tmp_path.glob("koubou-demo-*")) == []
        assert [p for p in below if p.is_running() and p.status() != psutil.STATUS_ZOMBIE] == []
    finally:
        process.kill()
        process.communicate()


def test_every_demo_program_is_one() -> None:
    """What the demo runs is correct Python or shell, so that only the task that is meant to fail does."""
    for script, text in scripts():
        if script.interpreter == (sys.executable,):
            compile(text, script.name, "exec")

    class NoShop:
        """Gives ids."""

        def next_id(self) -> str:
            """Always the same."""
            return "0" * 14

    made = [make(NoShop()) for make, _ in zip(tasks(has_model=True), range(12), strict=False)]
    assert {request.kind for request in made} == {"script", "prompt"}
    for request in made:
        if request.kind == "script":
            compile(request.spec["command"][2], request.name, "exec")
    assert all(request.labels == {"demo": "yes"} for request in made)
