"""`koubou workers`, `scale`, `status`, `doctor`, `token`, `export`, `watch` and `load` against a real workshop."""

from __future__ import annotations

import json
import os
import re
import signal
import socket

import pytest


def test_workers_are_listed(koubou) -> None:
    """A line and a record for each worker."""
    document = json.loads(koubou("workers", "--json").stdout)
    assert document["total"] == len(document["workers"]) == 2
    assert {worker["status"] for worker in document["workers"]} <= {"idle", "busy", "starting"}
    assert koubou("workers").stdout.startswith("WORKER")


def test_scale_changes_the_bounds(koubou) -> None:
    """New bounds hold at once; impossible ones are refused."""
    assert koubou("scale", "2:3").returncode == 0
    document = json.loads(koubou("workers", "--json").stdout)
    assert (document["min_workers"], document["max_workers"]) == (2, 3)
    assert koubou("scale", "2:2").returncode == 0
    for bad in ("3:1", "x", "0:0", "1:999"):
        done = koubou("scale", bad)
        assert done.returncode == 2
        assert "MIN" in done.stderr


def test_status_says_what_runs(koubou) -> None:
    """Every service with state and port, the tasks and the workers, for people and as JSON."""
    document = json.loads(koubou("status", "--json").stdout)
    services = {service["name"]: service for service in document["services"]}
    assert list(services) == ["model", "agents", "pool", "websocket"]
    assert (services["pool"]["state"], services["pool"]["restarts"]) == ("running", 0)
    assert services["model"]["state"] in ("idle", "running")
    assert document["answers"] is True
    assert document["workers"]["total_workers"] == 2
    assert document["link"] is None
    text = koubou("status").stdout
    assert re.search(rf"websocket\s+running\s+:{services['websocket']['port']}", text)


def test_doctor_finds_nothing_missing_here(koubou) -> None:
    """On a machine where it runs, nothing is missing."""
    done = koubou("doctor", "--json")
    findings = {finding["what"]: finding for finding in json.loads(done.stdout)["findings"]}
    assert done.returncode == 0, done.stdout
    assert findings["workshop"]["state"] == "ok"
    assert {"Python", "packages", "home", "access", "disk"} <= findings.keys()


@pytest.mark.parametrize("service", ["socket", "agents", "dashboard"])
def test_doctor_names_what_is_in_the_way(shell, service) -> None:
    """A port that is taken is found, with who holds it and what mends it."""
    free = {f"KOUBOU_{name}_PORT": "0" for name in ("SOCKET", "AGENTS", "DASHBOARD")}
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = shell("doctor", **free | {f"KOUBOU_{service.upper()}_PORT": str(port)})
    assert done.returncode == 1
    assert f"port {port} is taken by" in done.stdout
    assert f"--{service}-port" in done.stdout


def test_token_is_printed_and_read_token_is_another(koubou) -> None:
    """The full and the reading token, each alone on stdout; the file is private."""
    full, read = koubou("token").stdout.strip(), koubou("token", "--read").stdout.strip()
    assert len(full) == len(read) == 43
    assert full != read
    assert (koubou.home / "runtime" / "token").stat().st_mode & 0o777 == 0o600
    assert koubou("token", KOUBOU_TOKEN="given-by-environment").stdout == "given-by-environment\n"
    done = koubou("token", "--rotate", KOUBOU_TOKEN="given-by-environment")
    assert done.returncode == 2


def test_rotated_token_reaches_the_running_workshop(koubou) -> None:
    """After --rotate the old token is refused and the new one opens the WebSocket, without a restart."""
    old = koubou("token").stdout.strip()
    new = koubou("token", "--rotate").stdout.strip()
    assert new != old
    for _ in range(50):
        process = koubou.start("watch", "--channel", "system", "--json")
        line = process.stdout.readline()
        process.kill()
        process.communicate()
        if line:
            break
    assert json.loads(line)["type"] == "initial_state"
    refused = koubou("watch", "--json", KOUBOU_TOKEN=old)
    assert refused.returncode == 4
    assert "token" in refused.stderr


def test_export_writes_tasks_and_metrics(koubou, tmp_path) -> None:
    """A document of the protocol's records and of samples; to stdout or a file, all or part, since a moment."""
    koubou("run", "--name", "exported", "true")
    document = json.loads(koubou("export", "--format", "json").stdout)
    assert "exported" in {task["name"] for task in document["tasks"]}
    assert all("at" in sample for sample in document["metrics"])
    file = tmp_path / "now.json"
    done = koubou("export", "--what", "tasks", "--since", "1h", "-o", str(file))
    assert (done.returncode, done.stdout) == (0, "")
    assert "metrics" not in json.loads(file.read_text())
    assert json.loads(koubou("export", "--what", "tasks", "--since", "0s").stdout)["tasks"] == []
    assert koubou("export", "--since", "yesterday").returncode == 2
    assert koubou("export", "-o", str(tmp_path / "no" / "folder.json")).returncode == 4


def test_watch_prints_every_message(koubou) -> None:
    """It begins with the state, then tells each change of a task; Ctrl-C ends it."""
    process = koubou.start("watch", "--channel", "task", "--json")
    try:
        assert json.loads(process.stdout.readline())["type"] == "initial_state"
        koubou("run", "--name", "watched", "true")
        statuses = []
        while statuses[-1:] != ["completed"]:
            message = json.loads(process.stdout.readline())
            if message["type"] == "task_update" and message["data"]["name"] == "watched":
                statuses.append(message["status"])
        assert statuses == ["pending", "in_progress", "completed"]
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
    finally:
        process.kill()
        process.communicate()


def test_watch_for_people_is_a_line_a_message(koubou, tmp_path) -> None:
    """Without --json a message is one readable line; output of a task can be watched too."""
    waits = f"until [ -e '{tmp_path}/watched' ]; do sleep 0.05; done; echo seen"
    task_id = koubou("run", "--detach", "sh", "-c", waits).stdout.strip()
    process = koubou.start("watch", "--channel", "task", "--channel", f"output:{task_id}")
    try:
        lines = [process.stdout.readline()]
        assert re.match(r"\d\d:\d\d:\d\d\.\d{3} +initial_state +epoch", lines[0])
        (tmp_path / "watched").touch()
        while not {"completed", "'seen\\n'"} <= set(" ".join(lines).split()):
            lines.append(process.stdout.readline())
            assert lines[-1], lines
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["--channel", "tsak"], 2, "did you mean 'task'"),
        (["--channel", "output"], 2, "output:ID"),
        (["--url", "http://127.0.0.1:1/"], 2, "ws://"),
        (["--url", "ws://127.0.0.1:1/"], 3, "nobody answers at ws://127.0.0.1:1/"),
    ],
)
def test_watch_says_what_is_wrong(koubou, args, code, said) -> None:
    """An unknown channel, no address of a WebSocket, nobody there."""
    done = koubou("watch", *args)
    assert done.returncode == code
    assert said in done.stderr


@pytest.mark.parametrize("kind", ["script", "function"])
def test_load_prints_the_figures(koubou, kind) -> None:
    """All tasks are submitted and followed to the end, and the figures add up."""
    done = koubou("load", "burst", "-n", "12", "--kind", kind, "--json")
    figures = json.loads(done.stdout)
    assert done.returncode == 0, done.stderr
    assert (figures["submitted"], figures["completed"], figures["failed"]) == (12, 12, 0)
    assert figures["throughput_per_s"] > 0
    assert figures["wait_s"]["p50"] <= figures["wait_s"]["p99"]
    assert figures["run_s"]["p50"] > 0


def test_load_keeps_a_rate(koubou) -> None:
    """A rate and a duration give the number, and the submits take that long."""
    done = koubou("load", "custom", "--rate", "10", "--duration", "1", "--kind", "function")
    assert done.returncode == 0, done.stderr
    assert "10 completed" in done.stdout
    assert "p95" in done.stdout
    assert float(re.search(r"took +([\d.]+) s", done.stdout)[1]) >= 0.9


def test_interrupted_load_cancels_what_is_left(koubou) -> None:
    """Ctrl-C ends the load test: what has not ended is cancelled, and the figures so far are printed."""
    process = koubou.start("load", "custom", "-n", "500", "--rate", "0")
    while not json.loads(koubou("ps", "--status", "in_progress", "--text", "load-custom", "--json").stdout)[
        "tasks"
    ]:
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=90)
    assert process.returncode == 130
    assert "tasks" in out
    left = json.loads(koubou("ps", "--status", "pending", "--text", "load-custom", "--json").stdout)
    assert left["total"] == 0


def test_a_command_waits_for_a_workshop_that_comes_back(shell) -> None:
    """Killed, the workshop is started anew by its supervisor: a command then waits, and says so."""
    process = shell.up("--workers", "1", "--no-dashboard")
    try:
        services = json.loads(shell("status", "--json").stdout)["services"]
        (pid,) = {service["pid"] for service in services if service["name"] == "pool"}
        process.send_signal(signal.SIGSTOP)  # who starts it anew, until the command has seen that it is away
        os.kill(pid, signal.SIGKILL)
        asks = shell.start("ps", "--json")
        said = asks.stderr.readline()
        process.send_signal(signal.SIGCONT)
        out, more = asks.communicate(timeout=90)
        assert "the workshop is restarting; waiting" in said
        assert asks.returncode == 0, more
        assert json.loads(out)["total"] == 0
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=90)


def test_doctor_lists_settings_that_cannot_be_used(shell) -> None:
    """A broken settings file is one of its findings, with the line; what does not hang on it is looked at too."""
    shell.home.mkdir(parents=True)
    (shell.home / "settings.toml").write_text("grace_s = 5\nworkers = = 3\n")
    done = shell("doctor", "--json")
    findings = {finding["what"]: finding for finding in json.loads(done.stdout)["findings"]}
    assert done.returncode == 1
    assert "line 2" in findings["settings"]["found"]
    assert findings["packages"]["state"] == "ok"
