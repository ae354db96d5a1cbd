"""`koubou pause`, `resume`, `drain`, `restart` and what a waiting task says, against a workshop of their own."""

from __future__ import annotations

import json
import re
import signal
import time
from pathlib import Path

import pytest

from tests.cli.conftest import Shell, end


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """`koubou` against a workshop with one worker."""
    shell = Shell(tmp_path_factory.mktemp("pool") / "home")
    process = shell.up("--no-dashboard", "--workers", "1:1")
    yield shell
    assert end(process) == 0


@pytest.fixture(autouse=True)
def _resumed(shop):
    """Each test finds the pool as it began."""
    yield
    running = _tasks(shop, "--status", "in_progress") + _tasks(shop, "--status", "pending")
    if running:
        shop("cancel", *(task["task_id"] for task in running))
    assert shop("resume").returncode == 0


def _tasks(shop, *args: str) -> list[dict]:
    return json.loads(shop("ps", "--json", *args).stdout)["tasks"]


def _task(shop, task_id: str) -> dict:
    return json.loads(shop("show", "--json", task_id).stdout)["tasks"][0]


def _workers(shop) -> dict:
    return json.loads(shop("workers", "--json").stdout)


def _until(condition, limit_s: float = 20.0):
    deadline = time.monotonic() + limit_s
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come to be"
    return found


def _begun(shop, *command: str) -> str:
    """A task that runs."""
    task_id = shop("run", "--detach", *command).stdout.strip()
    _until(lambda: _task(shop, task_id)["status"] == "in_progress")
    return task_id


def _until_there(path: Path) -> list[str]:
    """A command that ends when there is such a file."""
    return ["sh", "-c", f"while [ ! -e {path} ]; do sleep 0.05; done"]


def test_a_paused_pool_takes_work_and_starts_none(shop) -> None:
    """It is told by `workers`, by whoever follows a task, and ends with `resume`."""
    assert "koubou resume" in shop("pause").stderr
    assert _workers(shop)["paused"] is True
    assert "paused" in shop("workers").stderr
    assert "paused" in shop("status").stdout
    assert json.loads(shop("status", "--json").stdout)["pool"]["paused"] is True
    process = shop.start("run", "echo", "hello")
    assert process.stderr.readline() == "koubou: waiting: the pool is paused (`koubou resume` ends that)\n"
    assert shop("resume").returncode == 0
    assert process.communicate(timeout=90)[0] == "hello\n"
    assert _workers(shop)["paused"] is False


def test_drain_waits_for_what_runs_and_keeps_what_waits(shop, tmp_path) -> None:
    """It says what still runs; new work is refused; what waits goes on with `resume`."""
    running = _begun(shop, "--name", "long", *_until_there(tmp_path / "go"))
    waiting = shop("run", "--detach", "true").stdout.strip()
    process = shop.start("drain")
    assert "koubou resume" in process.stderr.readline()
    assert f"waiting for {running} (long)" in process.stderr.readline()
    (tmp_path / "go").touch()
    _, err = process.communicate(timeout=90)
    assert (process.returncode, err) == (0, "koubou: nothing runs any more\n")
    assert (_task(shop, running)["status"], _task(shop, waiting)["status"]) == ("completed", "pending")
    refused = shop("run", "true")
    assert (refused.returncode, refused.stdout) == (4, "")
    assert "koubou resume" in refused.stderr
    assert _workers(shop)["draining"] is True
    shop("resume")
    _until(lambda: _task(shop, waiting)["status"] == "completed")


def test_drain_need_not_wait(shop) -> None:
    """With --no-wait, or after Ctrl-C, the drain goes on by itself."""
    running = _begun(shop, "sleep", "60")
    assert shop("drain", "--no-wait").returncode == 0
    process = shop.start("drain")
    _until(lambda: "waiting for" in process.stderr.readline())
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=90)
    assert process.returncode == 130
    assert (_workers(shop)["draining"], _task(shop, running)["status"]) == (True, "in_progress")


def test_a_task_waits_for_others(shop) -> None:
    """`--after` takes shortened ids; `ps` and `show` say what it waits for; it starts when they have succeeded."""
    first = _begun(shop, "--name", "first", "sleep", "60")
    process = shop.start("run", "--name", "second", "--after", first[-6:], "--after", first, "echo", "done")
    assert process.stderr.readline() == f"koubou: waiting: it waits for {first} (first)\n"
    (second,) = _tasks(shop, "--text", "second", "--status", "pending")
    assert (second["after"], second["waits_for"]) == ([first], [first])
    assert f"waits for {first}" in shop("ps").stdout
    assert re.search(rf"waits for +{first}\n", shop("show", second["task_id"]).stdout)
    shop("cancel", first)
    out, err = process.communicate(timeout=90)
    assert (process.returncode, out) == (130, "")
    assert f"first ({first}), which was cancelled" in err
    third = shop("run", "--after", shop("run", "--detach", "true").stdout.strip(), "echo", "third")
    assert third.stdout == "third\n"


def test_who_waits_for_a_worker_is_told(shop) -> None:
    """All workers being busy is said too, once."""
    running = _begun(shop, "sleep", "60")
    process = shop.start("run", "true")
    assert process.stderr.readline() == "koubou: waiting: the only worker is busy\n"
    shop("cancel", running)
    assert process.communicate(timeout=90) == ("", "")
    assert process.returncode == 0


def test_limits_are_shown(shop) -> None:
    """Sizes are read as people write them; `show` has them in words, `--json` in bytes."""
    flags = ["--memory", "2G", "--cpu-time", "1.5", "--processes", "9", "--output-limit", "64MB"]
    done = shop("run", "--json", "--on-crash", "retry", *flags, "true")
    (task,) = json.loads(done.stdout)["tasks"]
    assert task["limits"] == {
        "memory_bytes": 2 << 30,
        "cpu_s": 1.5,
        "processes": 9,
        "output_bytes": 64 << 20,
    }
    assert task["on_crash"] == "retry"
    words = "2 GB of memory, 1.5 s of processor time, 9 processes, 64 MB of output"
    assert words in shop("show", task["task_id"]).stdout


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["run", "--memory", "2 gigs", "true"], 2, "must be a size such as 512M or 2G, not '2 gigs'"),
        (["run", "--memory", "-1", "true"], 2, "must be a size"),
        (["run", "--memory", "1k", "true"], 4, "limits.memory_bytes must be 1048576 to"),
        (["run", "--cpu-time", "nan", "true"], 4, "limits.cpu_s must be 0.01 to 1000000000 seconds"),
        (["run", "--processes", "99999999999999", "true"], 2, "--processes"),
        (["run", "--output-limit", "lots", "true"], 2, "--output-limit"),
        (["run", "--cpu-time", "0", "true"], 2, "--cpu-time"),
        (["run", "--processes", "0", "true"], 2, "--processes"),
        (["run", "--on-crash", "again", "true"], 2, "'mark', 'retry'"),
        (["run", "--after", "nonesuch", "true"], 4, "no task 'nonesuch'"),
        (["run", "--after", "00000000000000", "true"], 4, "no task '00000000000000'"),
        (["restart", "worker-11"], 4, "did you mean 'worker-1'"),
        (["restart", "nobody"], 4, "known: worker-1"),
        (["drain", "--wait"], 2, "--no-wait"),
        (["pause", "now"], 2, "unexpected extra argument"),
        (["resmue"], 2, "did you mean 'resume'"),
    ],
)
def test_wrong_input_is_said_with_its_code(shop, args, code, said) -> None:
    """2 for wrong usage, 4 for what is refused or not there; stdout stays empty."""
    done = shop(*args)
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr


def test_a_worker_is_replaced(shop, tmp_path) -> None:
    """After what it runs; or at once, and then what it runs is cancelled. Another process takes its place."""
    running = _begun(shop, *_until_there(tmp_path / "go"))
    before = _workers(shop)["workers"][0]["pid"]
    assert "when it has ended what it runs" in shop("restart", "worker-1").stderr
    assert _workers(shop)["workers"][0]["status"] == "stopping"
    (tmp_path / "go").touch()
    _until(lambda: _task(shop, running)["status"] == "completed")
    after = _until(lambda: _idle_pid(shop, {before}))
    running = _begun(shop, "sleep", "60")
    (worker,) = (one["worker_id"] for one in _workers(shop)["workers"] if one["status"] == "busy")
    assert shop("restart", worker, "--now").returncode == 0
    _until(lambda: _task(shop, running)["status"] == "cancelled")
    assert _until(lambda: _idle_pid(shop, {before, after}))


def _idle_pid(shop, not_these: set[int]) -> int | None:
    workers = _workers(shop)["workers"]
    return next((w["pid"] for w in workers if w["status"] == "idle" and w["pid"] not in not_these), None)


def test_workers_tell_what_they_do(shop) -> None:
    """By the task's name, with its id."""
    task_id = _begun(shop, "--name", "training", "sleep", "60")
    (line,) = shop("workers").stdout.splitlines()[1:]
    assert re.search(rf"busy .* training \({task_id}\) for \d", line), line
