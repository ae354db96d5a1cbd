"""What the supervisor's children have in common: the ready line, the two signals, the pipe, the ports."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from types import SimpleNamespace

import psutil
import pytest

from koubou_panel.servers import child
from koubou_panel.servers.child import CannotStart, Ending
from koubou_panel.testing import until


@pytest.fixture
def pipe():
    """The two ends of a pipe; what is still open is closed."""
    ends = list(os.pipe())
    yield ends
    for end in ends:
        try:
            os.close(end)
        except OSError:
            continue


def test_ready_line_is_one_json_document(pipe) -> None:
    """The supervisor reads one line, and then the end of the pipe."""
    read_end, write_end = pipe
    child.announce(write_end, {"port": 8766})
    with os.fdopen(os.dup(read_end)) as file:
        assert json.loads(file.readline()) == {"port": 8766}
        assert file.read() == ""


def test_without_a_pipe_a_person_reads_it(capsys) -> None:
    """Started by hand, a child says on stdout that it is ready, and on stderr why it is not."""
    child.announce(None, {"port": 1})
    assert child.refuse(None, CannotStart("no", exit_code=73)) == 73
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"port": 1}
    assert captured.err == "koubou: no\n"


def test_refusal_carries_its_exit_code(pipe) -> None:
    """What is in the way reaches the supervisor with the exit code that it means."""
    read_end, write_end = pipe
    assert child.refuse(write_end, CannotStart("taken", exit_code=73)) == 73
    assert json.loads(os.read(read_end, 1000)) == {"exit": 73, "error": "taken"}


def test_supervisor_that_is_gone_is_no_error(pipe) -> None:
    """Nobody reads the ready line: the life pipe will tell, this does not raise."""
    read_end, write_end = pipe
    os.close(read_end)
    child.announce(write_end, {"port": 1})


async def test_first_signal_asks_second_skips(pipe) -> None:
    """SIGTERM asks to end; SIGINT after it asks not to wait."""
    ending = Ending.watch(pipe[0])
    os.kill(os.getpid(), signal.SIGTERM)
    await until(ending.asked.is_set)
    assert not ending.skip.is_set()
    os.kill(os.getpid(), signal.SIGINT)
    await until(ending.skip.is_set)
    assert not ending.is_orphaned
    _restore(pipe[0])


async def test_end_of_the_life_pipe_is_an_end_without_delay(pipe) -> None:
    """When the supervisor is gone, nothing is worth waiting for."""
    ending = Ending.watch(pipe[0])
    os.close(pipe[1])
    await until(ending.asked.is_set)
    assert ending.skip.is_set()
    assert ending.is_orphaned
    _restore(None)


def _restore(life_fd) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.remove_signal_handler(number)
    if life_fd is not None:
        loop.remove_reader(life_fd)


def test_free_port_is_bound_and_let_go() -> None:
    """A free port can be had, and asking for it does not keep it."""
    with child.bind("127.0.0.1", 0, flag="--x") as sock:
        port = sock.getsockname()[1]
    child.require_free("127.0.0.1", port, flag="--x")
    child.require_free("127.0.0.1", port, flag="--x")


def test_answers_leave_a_bound_port_at_once() -> None:
    """What is accepted sends each piece as it comes, and waits for no acknowledgement of the one before."""
    with (
        child.bind("127.0.0.1", 0, flag="--agents-port") as sock,
        socket.create_connection(sock.getsockname()),
        sock.accept()[0] as accepted,
    ):
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_taken_port_names_its_holder() -> None:
    """A taken port is exit 73, with who holds it and the flag that chooses another."""
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(CannotStart) as caught:
        child.bind("127.0.0.1", other.getsockname()[1], flag="--socket-port")
    assert caught.value.exit_code == 73
    assert f"(pid {os.getpid()})" in caught.value.message
    assert "--socket-port" in caught.value.message


def test_port_of_another_koubou_is_named_with_its_home(tmp_path) -> None:
    """A service of ours that holds the port is told as what it is, with its home."""
    code = "import socket; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True); input()"
    more = ["koubou_panel.servers.dashboard", "--home", str(tmp_path)]
    argv = [sys.executable, "-c", code, *more]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        port = int(holder.stdout.readline())
        said = child.taken(port, "--dashboard-port")
        holder.stdin.close()
    assert f"by Koubou Panel's dashboard of the home {tmp_path} (pid {holder.pid})" in said


def test_port_of_another_user_says_so(monkeypatch) -> None:
    """The system does not tell who holds a port of another user: that much is said."""
    hidden = SimpleNamespace(status=psutil.CONN_LISTEN, laddr=("127.0.0.1", 8766), pid=None)
    monkeypatch.setattr(psutil, "net_connections", lambda kind: [hidden])
    assert "by a program of another user" in child.taken(8766, "--socket-port")


@pytest.mark.parametrize("host", ["203.0.113.1", "no.such.host.invalid"])
def test_foreign_address_is_wrong_usage(host) -> None:
    """An address that is not this machine's is a mistake in the flags."""
    with pytest.raises(CannotStart) as caught:
        child.bind(host, 0, flag="--x")
    assert caught.value.exit_code == 2
    assert "--host" in caught.value.message


def test_an_end_is_not_held_up_by_a_thread() -> None:
    """A process whose thread waits for ever ends all the same, with code 0, a while after all that counts is done."""
    code = (
        "import threading; from koubou_panel.servers import child\n"
        "child.end_within(0.1, lambda: print('tidied', flush=True))\n"
        "threading.Thread(target=threading.Event().wait).start()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=90, check=False
    )
    assert (done.returncode, done.stdout) == (0, "tidied\n")
    assert "did not close in time" in done.stderr
