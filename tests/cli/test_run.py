"""`koubou run` and `koubou logs`: the output as it was, the exit code as it was."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import KOUBOU


def test_output_and_success_are_the_commands_own(koubou) -> None:
    """What the command prints comes out byte for byte, and 0 is 0."""
    done = koubou("run", "--", "printf", "a\\rb\\033[31mred\\033[0m\\nno end")
    assert (done.returncode, done.stdout, done.stderr) == (0, "a\rb\x1b[31mred\x1b[0m\nno end", "")


def test_binary_output_comes_out_as_it_is(koubou) -> None:
    """Bytes that are no text are neither lost nor replaced."""
    script = "import os, sys; os.write(1, bytes(range(256)) * 300)"
    env = koubou.env
    done = subprocess.run(
        [*KOUBOU, "run", sys.executable, "-c", script], env=env, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == bytes(range(256)) * 300


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["sh", "-c", "exit 7"], 7, ""),
        (["sh", "-c", "kill -9 $$"], 137, "SIGKILL"),
        (["sh", "-c", "kill -15 $$"], 143, "SIGTERM"),
        (["--timeout", "0.3", "sleep", "30"], 124, "time-out of 0.3 s"),
        (["no-such-command-here"], 127, "command not found: no-such-command-here"),
        (["/etc/passwd"], 126, "not executable: /etc/passwd"),
        (["--cwd", "/no/such/folder", "ls"], 126, "working folder /no/such/folder does not exist"),
    ],
)
def test_exit_code_says_how_it_ended(koubou, args, code, said) -> None:
    """The command's own code; 128+n for signal n; 124 for a time-out; a shell's 126 and 127."""
    done = koubou("run", *args)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ([], "Missing argument"),
        (["--priority", "11", "ls"], "not in the range 1<=x<=10"),
        (["--timeout", "0", "ls"], "not in the range"),
        (["--retries", "x", "ls"], "not a valid integer"),
        (["--env", "NO_SUCH_VARIABLE_HERE", "ls"], "write --env NO_SUCH_VARIABLE_HERE=VALUE"),
        (["--env", "=x", "ls"], "--env"),
        (["--pyt", "ls"], "--pty"),
    ],
)
def test_wrong_usage_is_code_2(koubou, args, said) -> None:
    """A wrong option is said before anything is run."""
    done = koubou("run", *args)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stdout == ""


def test_nul_in_an_argument_is_refused(koubou) -> None:
    """What no process can be given is refused by the workshop, with code 4."""
    done = koubou("run", "")
    assert (done.returncode, done.stdout) == (4, "")
    assert "names no program" in done.stderr


def test_command_runs_where_and_as_the_caller_is(koubou, tmp_path) -> None:
    """It has the caller's folder and the allowed variables, those of --env, and no secret of the caller."""
    done = koubou(
        "run",
        "--env",
        "GIVEN=a=b",
        "--env",
        "MINE",
        "sh",
        "-c",
        "pwd; env",
        cwd=tmp_path,
        MINE="mine",
        SECRET="hidden",
        LC_TIME="C",
        KOUBOU_TOKEN="x" * 20,
    )
    lines = done.stdout.splitlines()
    assert lines[0] == str(tmp_path)
    assert {"GIVEN=a=b", "MINE=mine", "LC_TIME=C", f"PATH={koubou.env['PATH']}"} <= set(lines)
    assert not [line for line in lines if line.startswith("SECRET=")]
    ours = {line.partition("=")[0] for line in lines if line.startswith("KOUBOU_")}
    assert ours == {"KOUBOU_TASK_ID", "KOUBOU_RUN", "KOUBOU_OUTPUT"}


def test_a_folder_that_is_gone_is_said(koubou, tmp_path) -> None:
    """From a folder that was removed, it says so instead of failing somewhere."""
    gone = tmp_path / "gone"
    gone.mkdir()
    script = "import os, sys; os.rmdir(os.getcwd()); from koubou_panel.cli import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-P", "-c", script, "run", "ls"],
        env=koubou.env,
        cwd=gone,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 4
    assert "the folder you are in is gone" in done.stderr


def test_pty_gives_a_terminal(koubou) -> None:
    """With --pty the command believes that it writes to a terminal; without, it does not."""
    asks = [sys.executable, "-c", "import sys; print(sys.stdout.isatty())"]
    assert koubou("run", *asks).stdout == "False\n"
    assert koubou("run", "--pty", *asks).stdout == "True\r\n"


def test_detached_task_is_followed_later(koubou) -> None:
    """--detach prints the id alone; logs -f follows from the first byte to the end."""
    done = koubou("run", "--detach", "--name", "later", "sh", "-c", "echo one; sleep 0.5; echo two")
    task_id = done.stdout.strip()
    assert (len(task_id), done.returncode) == (14, 0)
    assert koubou("logs", "-f", task_id).stdout == "one\ntwo\n"
    assert koubou("logs", task_id[-6:]).stdout == "one\ntwo\n"


def test_json_keeps_stdout_for_the_record(koubou) -> None:
    """With --json stdout is one document, and the output goes to stderr."""
    done = koubou("run", "--json", "--name", "doc", "--retries", "0", "sh", "-c", "echo hello; exit 3")
    assert done.returncode == 3
    (record,) = json.loads(done.stdout)["tasks"]
    assert (record["name"], record["status"], record["exit_code"]) == ("doc", "failed", 3)
    assert done.stderr == "hello\n"
    detached = json.loads(koubou("run", "--json", "--detach", "true").stdout)
    assert detached["total"] == 1


def test_a_task_has_its_labels(koubou) -> None:
    """--label K=V may be repeated, and finds it; what is no pair is refused before anything runs."""
    done = koubou("run", "--json", "--detach", "--label", "study=a", "--label", "who = me=you", "true")
    (record,) = json.loads(done.stdout)["tasks"]
    assert record["labels"] == {"study": "a", "who": "me=you"}
    for wrong in ("study", "=a"):
        done = koubou("run", "--label", wrong, "true")
        assert (done.returncode, "write KEY=VALUE" in done.stderr) == (2, True)


def test_output_comes_while_it_runs(koubou) -> None:
    """Output is seen before the command has ended."""
    process = koubou.start("run", "sh", "-c", "echo first; sleep 20")
    try:
        assert process.stdout.readline() == "first\n"
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=90)
        assert process.returncode == 130
        assert "cancelled" in said
    finally:
        process.kill()
        process.wait()


def test_second_interrupt_does_not_wait(koubou) -> None:
    """A command that will not end is left to the workshop by a second Ctrl-C."""
    stubborn = "trap '' TERM; echo ready; while :; do sleep 0.2; done"
    process = koubou.start("run", "sh", "-c", stubborn)
    try:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        task_id = json.loads(koubou("ps", "--json", "--limit", "1").stdout)["tasks"][0]["task_id"]
        while "stopping" not in koubou("ps", "--limit", "1").stdout:
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=4)
        assert process.returncode == 130
    finally:
        process.kill()
        process.wait()
    koubou("logs", "-f", task_id)
    assert json.loads(koubou("show", "--json", task_id).stdout)["tasks"][0]["status"] == "cancelled"


def test_reader_that_has_seen_enough_ends_it_quietly(koubou) -> None:
    """Into a pipe that closes, nothing complains; the command is ended, as in a shell."""
    koubou_run = (
        f"{sys.executable} -c 'import sys; from koubou_panel.cli import main; sys.exit(main())' run yes"
    )
    line = f"{{ {koubou_run}; echo $? >&2; }} | head -n 1"
    done = subprocess.run(
        ["sh", "-c", line], env=koubou.env, capture_output=True, text=True, timeout=90, check=False
    )
    assert (done.stdout, done.stderr) == ("y\n", "141\n")
    (task,) = json.loads(koubou("ps", "--text", "yes", "--json", "--limit", "1").stdout)["tasks"]
    assert koubou("logs", "-f", task["task_id"]).returncode == 0
    (task,) = json.loads(koubou("show", "--json", task["task_id"]).stdout)["tasks"]
    assert task["status"] == "cancelled"


@pytest.mark.parametrize("args", [["run", "--name", "to nowhere", "yes"], ["ps"], ["ps", "--json"]])
def test_a_full_disk_is_said(koubou, args) -> None:
    """Output that cannot be written is said in one line; a command that goes on printing is ended."""
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*KOUBOU, *args], stdout=full, stderr=subprocess.PIPE, env=koubou.env, timeout=90, check=False
        )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == b"koubou: cannot write the output: No space left on device"
    if args[0] == "run":
        (task,) = json.loads(koubou("ps", "--text", "to nowhere", "--json").stdout)["tasks"]
        koubou("logs", "-f", task["task_id"])
        assert (
            json.loads(koubou("show", "--json", task["task_id"]).stdout)["tasks"][0]["status"] == "cancelled"
        )


def test_completion_is_offered() -> None:
    """The shell's own completion finds the commands."""
    words = {"COMP_WORDS": "koubou st", "COMP_CWORD": "1", "_KOUBOU_COMPLETE": "bash_complete"}
    done = subprocess.run(KOUBOU, env=os.environ | words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "plain,status\n")


def test_long_output_is_whole(koubou) -> None:
    """Some megabytes of output arrive without a gap."""
    done = koubou("run", "seq", "400000")
    assert done.stdout.splitlines() == [str(n) for n in range(1, 400_001)]


def test_what_is_not_kept_is_said_once(koubou) -> None:
    """Of more output than its limit the end is printed, with one line on stderr about the beginning."""
    task_id = koubou("run", "--detach", "--output-limit", "64K", "--", "seq", "100000").stdout.strip()
    koubou("logs", "-f", task_id)
    done = koubou("logs", task_id)
    assert done.stdout.endswith("\n99999\n100000\n")
    assert 50_000 < len(done.stdout) <= 65_536
    first, *_, last = map(int, done.stdout.splitlines())
    assert len(done.stdout.splitlines()) == last - first + 1, "the first line is a whole one"
    assert done.stderr.count("of earlier output were not kept (limit 64 kB)") == 1


def test_help_comes_at_once() -> None:
    """Help imports neither the commands nor asyncio: a person must not wait for it."""
    check = (
        "import sys; sys.argv = ['koubou', '--help']\n"
        "from koubou_panel.cli import main; code = main()\n"
        "heavy = {'asyncio', 'msgspec', 'rich', 'panel', 'tornado', 'psutil'} & set(sys.modules)\n"
        "sys.exit(f'help imports {heavy}' if heavy else code)"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Run a command as a task" in done.stdout
