"""`koubou run -i`: this process's input is the command's, to its end; at a terminal, key by key."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import signal
import subprocess
import sys
import termios
import time
from contextlib import contextmanager, suppress

import pytest

from koubou_panel.cli.stdin import Escape
from tests.cli.conftest import KEPT, KOUBOU

LONG_S = 60


def run_with(koubou, data, *args, timeout=LONG_S):
    """`koubou run` with this input."""
    return subprocess.run(
        [*KOUBOU, "run", *args], input=data, env=koubou.env, capture_output=True, timeout=timeout, check=False
    )


@pytest.mark.parametrize(
    ("data", "command", "out", "code"),
    [
        (b"a\nb\n", ["wc", "-l"], b"2\n", 0),
        (b"", ["cat"], b"", 0),
        (b"\x00\xff\x04no end", ["cat"], b"\x00\xff\x04no end", 0),
        (b"x\ny\n", ["sh", "-c", "read x; exit 7"], b"", 7),
        (b"y\n" * 500_000, ["head", "-n", "1"], b"y\n", 0),
        (b"y\n" * 500_000, ["sh", "-c", "exec <&-; sleep 0.3; echo deaf"], b"deaf\n", 0),
    ],
)
def test_the_commands_input_is_this_one(koubou, data, command, out, code) -> None:
    """All of it and its end arrive; a command that does not read it all ends as it would in a shell."""
    done = run_with(koubou, data, "-i", "--", *command)
    assert (done.stdout, done.returncode, done.stderr) == (out, code, b"")


def test_much_input_arrives_whole(koubou) -> None:
    """Pieces are neither lost, nor doubled, nor out of order."""
    data = os.urandom(1 << 20) * 20
    done = run_with(koubou, data, "-i", "--", "sha256sum")
    assert done.stdout.decode().split()[0] == hashlib.sha256(data).hexdigest()


def test_a_command_that_prints_nothing_still_reads(koubou, tmp_path) -> None:
    """Input goes on after the command has closed its output."""
    data = os.urandom(300_000)
    done = run_with(koubou, data, "-i", "--", "sh", "-c", f"exec >&- 2>&-; cat > {tmp_path}/copy")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "copy").read_bytes() == data


def test_without_it_the_input_is_empty(koubou) -> None:
    """A command that is not given input does not wait for any."""
    assert run_with(koubou, b"unseen", "--", "cat").stdout == b""


def test_input_that_never_comes_does_not_keep_a_command_that_ends(koubou) -> None:
    """The end of the command is the end, whatever may still be typed."""
    read_end, write_end = os.pipe()
    try:
        done = subprocess.run(
            [*KOUBOU, "run", "-i", "true"], stdin=read_end, env=koubou.env, timeout=LONG_S, check=False
        )
    finally:
        os.close(read_end)
        os.close(write_end)
    assert done.returncode == 0


@pytest.mark.parametrize("again", [["--retries", "1"], ["--on-crash", "retry"]])
def test_input_and_retries_exclude_each_other(koubou, again) -> None:
    """What a first attempt has read cannot be given to a second."""
    done = run_with(koubou, b"", "-i", *again, "cat")
    assert done.returncode == 2
    assert b"cannot be given to another try" in done.stderr


def test_input_and_leaving_at_once_exclude_each_other(koubou) -> None:
    """Nobody would be there to send it, and the command would wait for ever."""
    done = run_with(koubou, b"lost\n", "-i", "--detach", "cat")
    assert done.returncode == 2
    assert b"nobody is left to send the input" in done.stderr


def test_a_retry_of_a_command_with_input_says_that_it_waits(koubou) -> None:
    """What was sent to the first is not kept; the new one is not left to wait for it unseen."""
    assert run_with(koubou, b"once\n", "-i", "--name", "reads once", "--", "cat").returncode == 0
    (old,) = json.loads(koubou("ps", "--text", "reads once", "--json").stdout)["tasks"]
    done = koubou("retry", old["task_id"])
    new_id = done.stdout.strip()
    try:
        assert done.stderr.startswith(f"koubou: {new_id} waits for its input")
    finally:
        assert koubou("cancel", new_id).returncode == 0


def test_who_sends_input_may_come_before_a_worker_is_free(koubou) -> None:
    """Input waits until the task starts."""
    blocks = [koubou("run", "--detach", "sleep", "30").stdout.strip() for _ in range(2)]
    process = koubou.start("run", "-i", "wc", "-c", stdin=subprocess.PIPE)
    process.stdin.write("x" * 1_000)
    process.stdin.close()
    process.stdin = None
    for task_id in blocks:
        koubou("cancel", task_id)
    out, _ = process.communicate(timeout=LONG_S)
    assert (out, process.returncode) == ("1000\n", 0)


# -- at a terminal --------------------------------------------------------------------------------------------


class Terminal:
    """Somebody at a terminal in which `koubou run` runs."""

    def __init__(self, fd: int, pid: int) -> None:
        self.fd = fd
        self.pid = pid
        self.seen = b""

    def type(self, keys: bytes) -> None:
        """Press keys."""
        os.write(self.fd, keys)

    def shows(self, text: bytes) -> None:
        """Wait until `text` was shown, after what was waited for before."""
        deadline = time.monotonic() + LONG_S
        while text not in self.seen:
            assert time.monotonic() < deadline, self.seen
            try:
                self.seen += os.read(self.fd, 4_096)
            except OSError:
                assert text in self.seen, self.seen
        self.seen = self.seen.partition(text)[2]

    def ends(self) -> int:
        """Its exit code, once it has ended."""
        os.set_blocking(self.fd, False)
        deadline = time.monotonic() + LONG_S
        while time.monotonic() < deadline:
            with suppress(OSError):
                self.seen += os.read(self.fd, 4_096)
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.pid = 0
                return os.waitstatus_to_exitcode(status)
        raise AssertionError(self.seen)


@contextmanager
def terminal(koubou, *args: str):
    """`koubou run ARGS` with a terminal of its own, 50 by 133."""
    keep, give = pty.openpty()
    termios.tcsetwinsize(give, (50, 133))
    code = "import os, sys; os.login_tty(int(sys.argv[1])); os.execv(sys.argv[2], sys.argv[2:])"
    env = {key: os.environ[key] for key in KEPT if key in os.environ} | koubou.env | {"TERM": "xterm"}
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(give), *KOUBOU, "run", *args], pass_fds=[give], env=env
    )
    seat = Terminal(keep, process.pid)
    seat.mode = lambda: termios.tcgetattr(give)
    try:
        yield seat
    finally:
        if seat.pid:
            process.send_signal(signal.SIGKILL)
            process.wait()
        process.returncode = 0
        os.close(keep)
        os.close(give)


ASKING = (
    "import os, sys; print(os.get_terminal_size().columns, sys.stdin.isatty());\n"
    "while True:\n"
    "  try: print('got', input('? ').upper())\n"
    "  except KeyboardInterrupt: print('interrupted')\n"
    "  except EOFError: print('bye'); break"
)


def test_a_session_at_a_terminal(koubou) -> None:
    """Lines, Ctrl-C and Ctrl-D are the program's, its terminal is as wide as this one, which is left as it was."""
    with terminal(koubou, "-i", "--pty", "--", sys.executable, "-c", ASKING) as seat:
        before = seat.mode()
        seat.shows(b"133 True")
        seat.shows(b"? ")
        assert not seat.mode()[3] & termios.ICANON
        seat.type(b"hello\r")
        seat.shows(b"got HELLO")
        seat.type(b"\x03")
        seat.shows(b"interrupted")
        seat.type(b"\x04")
        seat.shows(b"bye")
        assert seat.ends() == 0
        assert seat.mode() == before


def test_a_session_that_is_piped_in_ends(koubou) -> None:
    """A program that sets up its terminal while its input has already ended finds the end all the same."""
    late = (
        "import time, tty; time.sleep(0.3); tty.setcbreak(0); import os\nwhile os.read(0, 1) != b'\x04': pass"
    )
    done = run_with(koubou, b"one\n", "-i", "--pty", "--", sys.executable, "-c", late)
    assert done.returncode == 0


def test_the_way_out_of_a_program_that_hears_nothing(koubou) -> None:
    """Enter ~ . cancels the task, whatever the program does with its keys."""
    deaf = "import signal, sys, tty; tty.setraw(0); print('deaf', flush=True); signal.pause()"
    with terminal(koubou, "-i", "--pty", "--", sys.executable, "-c", deaf) as seat:
        before = seat.mode()
        seat.shows(b"deaf")
        seat.type(b"\x03\x04~.")
        seat.type(b"\r~.")
        assert seat.ends() == 130
        assert seat.mode() == before


def test_the_way_out_counts_while_nothing_typed_is_taken(koubou) -> None:
    """A program that has stopped reading, with more typed than anything holds for it, is left all the same."""
    deaf = "import signal, sys, tty; tty.setraw(0); print('deaf', flush=True); signal.pause()"
    with terminal(koubou, "-i", "--pty", "--", sys.executable, "-c", deaf) as seat:
        seat.shows(b"deaf")
        for _ in range(200):
            seat.type(b"x" * 1_000)
        seat.type(b"\r~.")
        seat.shows(b"Enter ~ . again leaves without waiting\r\n")
        assert seat.ends() == 130


def test_before_the_command_runs_the_terminal_is_as_ever(koubou) -> None:
    """As long as no worker is free, Ctrl-C ends it as without input."""
    blocks = [koubou("run", "--detach", "sleep", "30").stdout.strip() for _ in range(2)]
    try:
        with terminal(koubou, "-i", "--pty", "--", "cat") as seat:
            seat.shows(b"waiting:")
            assert seat.mode()[3] & termios.ICANON
            seat.type(b"\x03")
            assert seat.ends() == 130
    finally:
        for task_id in blocks:
            koubou("cancel", task_id)


def test_a_program_that_draws_is_shown_as_it_draws(koubou) -> None:
    """A line's end that the program's own terminal leaves alone is left alone here too."""
    draws = "import sys, tty; tty.setraw(0); sys.stdout.write('L1\\nL2\\nL3'); sys.stdout.flush(); sys.stdin.read(1)"
    with terminal(koubou, "-i", "--pty", "--", sys.executable, "-c", draws) as seat:
        seat.shows(b"L1\nL2\nL3")
        seat.type(b"q")
        assert seat.ends() == 0


def test_a_terminal_that_goes_takes_its_command_with_it(koubou) -> None:
    """A command that waits for somebody's input does not wait for ever when they hang up."""
    with terminal(koubou, "-i", "--", "sh", "-c", "echo ready; cat") as seat:
        seat.shows(b"ready")
        os.kill(seat.pid, signal.SIGHUP)
        assert seat.ends() == 130


@pytest.mark.parametrize(
    ("typed", "passed", "is_asked"),
    [
        ([b"abc"], b"abc", False),
        ([b"a~.b"], b"a~.b", False),
        ([b"~."], b"", True),
        ([b"x\r~."], b"x\r", True),
        ([b"x\n", b"~", b"."], b"x\n", True),
        ([b"~~."], b"~.", False),
        ([b"~a~."], b"~a~.", False),
        ([b"~\r~."], b"~\r", True),
        ([b"~/bin\r"], b"~/bin\r", False),
    ],
)
def test_the_way_out_is_told_from_what_is_typed(typed, passed, is_asked) -> None:
    """`~.` counts at the beginning of a line alone, in however many pieces; `~~` there is one `~`."""
    escape = Escape()
    assert b"".join(map(escape.filter, typed)) == passed
    assert escape.is_asked == is_asked
