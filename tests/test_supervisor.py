"""`koubou up`, with real processes: what it prints, what it restarts, and that nothing outlives it."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from koubou_panel.cli import service
from koubou_panel.settings import load
from koubou_panel.supervising.children import children_of, go_on_at
from tests.cli.conftest import Shell, end

START_S = 60.0


def _wait(condition: Callable[[], object], timeout_s: float = 20.0) -> object:
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come to be"
        time.sleep(0.02)
    return found


@pytest.fixture
def shell(tmp_path):
    """`koubou` for a home of this test; whatever still runs for it afterwards is a failure."""
    shell = Shell(tmp_path / "home")
    yield shell
    left = _processes_of(shell)
    for process in left:
        process.kill()
    assert left == []


@pytest.fixture
def up(shell):
    """`up(FLAG, …)` starts it; it is ended after the test."""
    started = []

    def start(*flags: str) -> subprocess.Popen[str]:
        started.append(shell.up(*flags))
        return started[-1]

    yield start
    for process in started:
        end(process)


def _processes_of(shell: Shell) -> list[psutil.Process]:
    """Every process that names the home on its command line."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        named = str(shell.home) in " ".join(process.info["cmdline"] or ())
        if named and process.info["status"] != psutil.STATUS_ZOMBIE and process.pid != os.getpid():
            found.append(process)
    return found


def _services(shell: Shell) -> dict[str, dict]:
    document = json.loads(shell("status", "--json").stdout)
    return {service["name"]: service for service in document["services"]}


def test_up_prints_one_line_with_what_matters(shell, up) -> None:
    """How long it took, the workers, the WebSocket's port and where the history is; and it takes tasks."""
    process = up("--no-dashboard", "--workers", "1:2")
    found = re.fullmatch(
        r"工房 ready in \d+\.\d s   \(1–2 workers · ws :(\d+) · mcp :(\d+) · history (.+)/koubou\.db · "
        r"in another shell: koubou --home (.+)\)\n",
        process.line,
    )
    assert found, process.line
    assert found[3] == found[4] == str(shell.home)
    services = _services(shell)
    assert [services[name]["port"] for name in ("websocket", "agents")] == [int(found[1]), int(found[2])]
    assert shell("run", "echo", "hello").stdout == "hello\n"


def test_up_runs_the_dashboard_and_its_link_logs_in_once(shell, up) -> None:
    """The link opens the page once; `koubou status` gives a fresh one."""
    process = up("--workers", "1")
    link = re.search(r"→ (http://127\.0\.0\.1:\d+/login\?code=\S+)", process.line)[1]
    assert _login(link) == 200
    assert _login(link) == 403
    fresh = json.loads(shell("status", "--json").stdout)["link"]
    assert _login(fresh) == 200
    services = _services(shell)
    assert {name: service["state"] for name, service in services.items()} == {
        "model": "idle",
        "agents": "running",
        "pool": "running",
        "websocket": "running",
        "dashboard": "running",
    }


def _login(link: str) -> int:
    from urllib.error import HTTPError
    from urllib.request import urlopen

    try:
        with urlopen(link, timeout=90) as answer:
            return answer.status
    except HTTPError as error:
        with error:
            return error.code


@pytest.mark.alone
def test_second_up_is_refused_within_two_seconds(shell, up) -> None:
    """Another workshop on the same home exits with 73, names the first one's process, and leaves it alone.

    Two seconds of processor time: how busy the machine is besides is not its own.
    """
    up("--no-dashboard")
    pid = _services(shell)["pool"]["pid"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    second = shell("up", "--socket-port", "0", "--agents-port", "0", "--dashboard-port", "0", "--no-browser")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    took_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert (second.returncode, second.stdout) == (73, "")
    assert f"pid {pid}" in second.stderr
    assert took_s < 2.0
    assert _services(shell)["pool"]["pid"] == pid


@pytest.mark.parametrize("flag", ["--socket-port", "--agents-port", "--dashboard-port"])
def test_taken_port_is_refused_with_its_holder(shell, flag) -> None:
    """A port that is taken is exit 73, says which and by whom, and nothing is left running."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        ports = {"--socket-port": "0", "--agents-port": "0", "--dashboard-port": "0"} | {flag: str(port)}
        done = shell("up", "--no-browser", *(text for pair in ports.items() for text in pair))
    assert (done.returncode, done.stdout) == (73, "")
    assert f"port {port} is taken" in done.stderr
    assert f"(pid {os.getpid()})" in done.stderr
    assert flag in done.stderr


@pytest.mark.parametrize(
    ("flags", "env", "code", "said"),
    [
        (["--workers", "3:1"], {}, 2, "MIN"),
        (["--host", "0.0.0.0"], {}, 2, "TLS"),
        (["--host", "203.0.113.1"], {}, 2, "--host"),
        (["--socket-port", "70000"], {}, 2, "must be a port"),
        ([], {"KOUBOU_WORKRS": "1"}, 2, "did you mean KOUBOU_WORKERS"),
        ([], {"KOUBOU_TOKEN": ""}, 2, "empty"),
        (["--home", "/proc/nowhere"], {}, 2, "cannot be made"),
    ],
)
def test_wrong_settings_are_said_with_code_2(shell, flags, env, code, said) -> None:
    """What cannot be used is refused before anything serves."""
    ports = [
        "--socket-port",
        "0",
        "--agents-port",
        "0",
        "--dashboard-port",
        "0",
        "--no-browser",
        "--no-dashboard",
    ]
    done = shell("up", *ports, *flags, **env)
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr


def test_refused_data_are_code_65_and_kept(shell) -> None:
    """A database that is damaged is refused and stays byte for byte."""
    shell.home.mkdir()
    (shell.home / "koubou.db").write_bytes(b"this is no database " * 500)
    done = shell("up", "--socket-port", "0", "--agents-port", "0", "--no-dashboard", "--no-browser")
    assert (done.returncode, done.stdout) == (65, "")
    assert "koubou.db" in done.stderr
    assert (shell.home / "koubou.db").read_bytes() == b"this is no database " * 500


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_ends_everything_and_lets_short_work_finish(shell, up, number) -> None:
    """After the first signal what runs goes on to its end, then all processes end, with code 0."""
    process = up("--no-dashboard")
    running = shell.start("run", "sh", "-c", "echo begun; sleep 1; echo finished")
    assert running.stdout.readline() == "begun\n"
    process.send_signal(number)
    out, _ = running.communicate(timeout=90)
    assert (out, running.returncode) == ("finished\n", 0)
    assert process.wait(20) == 0
    assert not (shell.home / "runtime" / "status.json").exists()
    assert not (shell.home / "runtime" / "shop.sock").exists()


def test_second_signal_does_not_wait(shell, up) -> None:
    """A second Ctrl-C ends what runs; the task is told to be cancelled by the shutdown."""
    process = up("--no-dashboard")
    running = shell.start("run", "sh", "-c", "echo begun; sleep 60")
    assert running.stdout.readline() == "begun\n"
    process.send_signal(signal.SIGINT)
    assert "stopping" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 0
    _, said = running.communicate(timeout=90)
    assert running.returncode == 130
    assert "shutdown" in said


def test_second_signal_is_not_lost_on_a_workshop_that_hears_both_at_once(shell, up) -> None:
    """Two signals that wait for the workshop together are still two: it ends at once."""
    process = up("--no-dashboard")
    workshop = _services(shell)["pool"]["pid"]
    running = shell.start("run", "sh", "-c", "echo begun; sleep 60")
    assert running.stdout.readline() == "begun\n"
    os.kill(workshop, signal.SIGSTOP)
    stopped = psutil.Process(workshop)
    _wait(lambda: stopped.status() == psutil.STATUS_STOPPED)
    process.send_signal(signal.SIGINT)
    assert "stopping" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    pending = Path(f"/proc/{workshop}/status")
    both = (1 << signal.SIGTERM - 1) | (1 << signal.SIGUSR2 - 1)
    _wait(lambda: int(pending.read_text().split("ShdPnd:")[1].split()[0], 16) & both == both)
    os.kill(workshop, signal.SIGCONT)
    assert process.wait(20) == 0
    running.communicate(timeout=90)
    assert running.returncode == 130


def test_down_ends_it(shell, up) -> None:
    """`koubou down` ends what `koubou up` started, and then there is nothing to end."""
    process = up("--no-dashboard")
    assert shell("down").returncode == 0
    assert process.wait(5) == 0
    assert shell("down").returncode == 3


def test_restart_brings_everything_back(shell, up) -> None:
    """`koubou restart` ends the services and starts them anew in the same terminal, with the same flags and ports."""
    process = up("--no-dashboard", "--workers", "2:2")
    before = _services(shell)["websocket"]
    done = shell("restart")
    assert done.returncode == 0, done.stderr
    after = _services(shell)["websocket"]
    assert (after["state"], after["port"]) == ("running", before["port"]), (
        "whoever was connected finds it there"
    )
    assert after["pid"] != before["pid"]
    assert process.poll() is None
    assert "ready in" in process.stdout.readline()
    assert len(json.loads(shell("workers", "--json").stdout)["workers"]) == 2
    assert end(process) == 0
    done = shell("restart")
    assert (done.returncode, "no workshop runs" in done.stderr) == (3, True)


def test_a_restart_takes_no_port_from_others(tmp_path) -> None:
    """What was a free port and is taken by now is another one; what was asked for stays that; flags are handed on."""
    settings = load({}, {"home": tmp_path, "dashboard_port": 0, "socket_port": 0, "agents_port": 4444})
    workshop, page, _ = children_of(settings, dashboard=True, flags=[], label="", say=print)
    with socket.create_server(("127.0.0.1", 0)) as taken, socket.create_server(("127.0.0.1", 0)) as freed:
        ports = {"dashboard": taken.getsockname()[1], "websocket": freed.getsockname()[1], "agents": 5555}
        freed.close()
        go_on_at([workshop, page], ports, "127.0.0.1")
    assert page.ports == {"dashboard": 0}
    assert workshop.ports == {"websocket": ports["websocket"], "agents": 4444}
    given = [word for word in page.program.argv if word.startswith("--given")]
    assert sorted(given) == ["--given=agents_port=4444", "--given=dashboard_port=0", "--given=socket_port=0"]


def test_restart_of_one_service_leaves_the_others(shell, up) -> None:
    """`koubou restart dashboard` starts that anew where it was; a name that is none has the nearest one named."""
    up("--workers", "1")
    before = _services(shell)
    done = shell("restart", "dashboard")
    assert done.returncode == 0, done.stderr
    after = _services(shell)
    assert (after["dashboard"]["restarts"], after["dashboard"]["state"]) == (1, "running")
    assert after["dashboard"]["port"] == before["dashboard"]["port"]
    assert after["pool"] | {"uptime_s": 0} == before["pool"] | {"uptime_s": 0}
    done = shell("restart", "dashbord")
    assert (done.returncode, "did you mean 'dashboard'" in done.stderr) == (4, True)


def test_restart_keeps_the_queue(shell, up) -> None:
    """What waits is kept; what runs ends as its --on-crash says; `koubou scale` is not undone, nor is a pause."""
    up("--no-dashboard", "--workers", "3:3")
    port = _services(shell)["agents"]["port"]
    marked, retried = (
        shell("run", "--detach", "--on-crash", crash, "sleep", "60").stdout.strip()
        for crash in ("mark", "retry")
    )
    _wait(lambda: _task(shell, marked)["status"] == _task(shell, retried)["status"] == "in_progress")
    assert shell("scale", "2:2").returncode == 0
    assert shell("pause").returncode == 0
    waiting = shell("run", "--detach", "echo", "kept").stdout.strip()
    done = shell("restart", "--now")
    assert done.returncode == 0, done.stderr
    found = _task(shell, marked)
    assert (found["status"], found["reason"]) == ("cancelled", "shutdown")
    assert [_task(shell, task_id)["status"] for task_id in (retried, waiting)] == ["pending", "pending"]
    workers = json.loads(shell("workers", "--json").stdout)
    assert (workers["min_workers"], workers["max_workers"], workers["paused"]) == (2, 2, True)
    assert shell("resume").returncode == 0
    assert shell("logs", "-f", waiting).stdout == "kept\n"
    assert shell("restart", "--now").returncode == 0
    assert json.loads(shell("workers", "--json").stdout)["max_workers"] == 2
    assert _services(shell)["agents"]["port"] == port, "a free one, and kept over each restart"


def _task(shell: Shell, task_id: str) -> dict:
    return json.loads(shell("show", "--json", task_id).stdout)["tasks"][0]


def test_down_leaves_somebody_elses_process_alone(shell) -> None:
    """A workshop that a program holds in its own process is not ended, but named."""
    script = (
        "import sys, time; from pathlib import Path; from koubou_panel.home import Home\n"
        "home = Home(Path(sys.argv[1])); home.prepare(); home.lock(); print('held', flush=True); time.sleep(60)"
    )
    argv = [sys.executable, "-c", script, str(shell.home)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        done = shell("down")
        assert done.returncode == 4
        assert f"pid {holder.pid}" in done.stderr
        assert holder.poll() is None
        holder.kill()


def test_killed_workshop_is_started_again_on_its_port(shell, up) -> None:
    """After a SIGKILL the workshop is back by itself, where it was, with what it had."""
    up("--no-dashboard", "--workers", "1")
    shell("scale", "2:2")
    task_id = shell("run", "--detach", "true").stdout.strip()
    shell("logs", "-f", task_id)
    before = _services(shell)["websocket"]
    os.kill(before["pid"], signal.SIGKILL)
    after = _wait(
        lambda: (s := _services(shell)["websocket"])["restarts"] == 1 and s["state"] == "running" and s
    )
    assert after["port"] == before["port"]
    assert shell("run", "echo", "again").stdout == "again\n"
    assert shell("show", task_id).returncode == 0
    assert json.loads(shell("workers", "--json").stdout)["max_workers"] == 2


def test_killed_dashboard_is_started_again_on_its_port(shell, up) -> None:
    """The dashboard's death costs the workshop nothing, and it is back where it was."""
    up("--workers", "1")
    before = _services(shell)
    os.kill(before["dashboard"]["pid"], signal.SIGKILL)
    after = _wait(lambda: (s := _services(shell))["dashboard"]["restarts"] == 1 and s, START_S)
    _wait(lambda: _services(shell)["dashboard"]["state"] == "running", START_S)
    assert after["dashboard"]["port"] == before["dashboard"]["port"]
    assert after["pool"]["pid"] == before["pool"]["pid"]


def test_workshop_that_dies_again_and_again_is_given_up(shell, up) -> None:
    """After the sixth death within a minute it says so, and ends instead of trying for ever."""
    process = up("--no-dashboard")
    killed: set[int] = set()

    def kill_it() -> bool:
        for found in _processes_of(shell):
            with suppress(psutil.Error):  # it has just ended
                is_one = "koubou_panel.servers.workshop" in found.cmdline()
                if is_one and found.pid not in killed and (shell.home / "runtime" / "status.json").exists():
                    killed.add(found.pid)
                    found.kill()
        return process.poll() is not None

    _wait(kill_it, START_S)
    assert process.returncode == 1
    assert "was killed by SIGKILL, 6 times in a minute" in process.stderr.read()
    assert 6 <= len(killed) <= 7


def test_a_home_that_is_removed_ends_it(shell, up) -> None:
    """It says so once, and ends with code 65 instead of starting over in a new folder."""
    process = up("--workers", "1")
    assert shell("run", "true").returncode == 0
    shell.home.rename(shell.home.with_name("elsewhere"))  # at once, as a removal is not
    assert process.wait(START_S) == 65
    said = process.stderr.read()
    assert said.count(f"the folder {shell.home} was removed while it was open") == 1, said
    assert "starting it again" not in said
    assert not (shell.home / "koubou.db").exists()


def test_nothing_outlives_a_killed_supervisor(shell, up) -> None:
    """A SIGKILL of `koubou up` takes every child and every task with it."""
    process = up("--workers", "2")
    running = shell.start("run", "sh", "-c", "trap '' HUP; echo begun; sleep 300")
    assert running.stdout.readline() == "begun\n"
    below = psutil.Process(process.pid).children(recursive=True)
    assert len(below) >= 6
    process.kill()
    _wait(lambda: not [p for p in below if p.is_running() and p.status() != psutil.STATUS_ZOMBIE])
    running.kill()
    running.communicate()
    assert shell("status").returncode == 3


def test_child_cannot_be_shadowed_by_a_file_of_the_folder(shell, tmp_path) -> None:
    """A file named like a library in the folder where it was typed does not stand in for it."""
    (tmp_path / "asyncio.py").write_text("raise SystemExit('shadowed')")
    (tmp_path / "msgspec.py").write_text("raise SystemExit('shadowed')")
    process = shell.start(
        "up",
        "--socket-port",
        "0",
        "--agents-port",
        "0",
        "--no-dashboard",
        "--no-browser",
        cwd=tmp_path,
        env=shell.env | {"PYTHONSAFEPATH": "1"},
    )
    assert "ready in" in process.stdout.readline()
    assert end(process) == 0


def test_browser_opens_only_where_a_person_sits() -> None:
    """Not without a display, not over SSH, not in CI."""
    from koubou_panel.cli.service import has_browser

    assert has_browser({"DISPLAY": ":0"})
    assert has_browser({"WAYLAND_DISPLAY": "wayland-0"})
    for environ in ({}, {"DISPLAY": ":0", "SSH_CONNECTION": "x"}, {"DISPLAY": ":0", "CI": "true"}):
        assert not has_browser(environ) or sys.platform == "darwin"


@pytest.fixture
def browser(tmp_path, monkeypatch):
    """A browser command that never returns; it writes down what it was asked to open."""
    seen = tmp_path / "seen"
    fake = tmp_path / "fake-browser"
    fake.write_text(f'#!/bin/sh\necho "$1" > {seen}.new && mv {seen}.new {seen}\nexec sleep 5\n')
    fake.chmod(0o755)
    monkeypatch.setenv("BROWSER", str(fake))
    return seen


@pytest.mark.alone
def test_browser_that_hangs_holds_up_nothing(tmp_path, browser) -> None:
    """A browser command that never returns is left to itself."""
    began = time.monotonic()
    service.browse("http://127.0.0.1:1/", tmp_path)
    assert time.monotonic() - began < 1
    _wait(browser.exists)


def test_login_code_is_in_no_process_s_arguments(tmp_path, browser) -> None:
    """The browser is given a page that only this user can read, which leads to the address with the code."""
    service.browse("http://127.0.0.1:1/login?code=x&more=1", tmp_path)
    _wait(browser.exists)
    page = tmp_path / service.WAY_IN
    assert browser.read_text() == f"{page.as_uri()}\n"
    assert stat.S_IMODE(page.stat().st_mode) == 0o600
    assert "url=http://127.0.0.1:1/login?code=x&amp;more=1" in page.read_text()


def test_the_page_with_the_code_goes_again(tmp_path, browser, monkeypatch) -> None:
    """It is removed once the browser has had time to read it, and made anew where one was left behind."""
    (tmp_path / service.WAY_IN).write_text("left behind")
    monkeypatch.setattr(service, "BROWSER_S", 0.2)
    service.browse("http://127.0.0.1:1/login?code=x", tmp_path)
    assert "left behind" not in (tmp_path / service.WAY_IN).read_text()
    _wait(lambda: not (tmp_path / service.WAY_IN).exists())
