"""Kind `script`: checks of a spec, and real commands run to their end."""

from __future__ import annotations

import os
import sys

import pytest

from koubou_panel.core.records import Job, Outcome
from koubou_panel.engines.inputs import RunInput
from koubou_panel.errors import Refused
from koubou_panel.kinds.script import ScriptKind, environment


class Sink:
    """Output kept in memory."""

    def __init__(self) -> None:
        self.data = bytearray()

    @property
    def size(self) -> int:
        return len(self.data)

    def write(self, data: bytes) -> None:
        self.data += data


class Context:
    def __init__(self) -> None:
        self.output = Sink()

    def progress(self, *args: object) -> None:
        """Not used here."""

    def open_input(self) -> RunInput:
        return RunInput(lambda number, why: None)


def run(**spec: object) -> tuple[Outcome, bytes]:
    """Prepare and run a spec, as a worker does."""
    kind, context = ScriptKind(), Context()
    checked = kind.prepare(spec, b"").spec
    return kind.run(Job("t", 1, 0, "script", checked, b""), context), bytes(context.output.data)


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({}, "spec.command"),
        ({"command": []}, "spec.command"),
        ({"command": "echo hi"}, "spec.command"),
        ({"command": ["echo", 1]}, "spec.command"),
        ({"command": [""]}, "spec.command"),
        ({"command": ["a\0b"]}, "spec.command"),
        ({"command": ["a"], "cwd": 3}, "spec.cwd"),
        ({"command": ["a"], "env": ["A=1"]}, "spec.env"),
        ({"command": ["a"], "env": {"A": 1}}, "spec.env.A"),
        ({"command": ["a"], "env": {"A=B": "1"}}, "spec.env"),
        ({"command": ["a"], "pty": "yes"}, "spec.pty"),
        ({"command": ["a"], "stdin": 1}, "spec.stdin"),
        ({"command": ["a"], "file": 1}, "spec.file"),
        ({"command": ["a"], "fire_at": "soon"}, "spec.fire_at"),
        ({"comand": ["a"]}, "spec.comand"),
    ],
)
def test_refuses_a_bad_spec_by_field(spec, field):
    """A spec that cannot be run is refused, naming the field."""
    with pytest.raises(Refused) as refused:
        ScriptKind().prepare(spec, b"")
    assert (refused.value.code, refused.value.field) == ("invalid", field)


def test_suggests_the_nearest_field():
    """A misspelt field is refused with the right one."""
    with pytest.raises(Refused, match="did you mean 'command'"):
        ScriptKind().prepare({"comand": ["a"]}, b"")


def test_keeps_output_byte_for_byte():
    """Carriage returns, escapes and invalid bytes of both streams reach the log as they are."""
    outcome, output = run(command=["sh", "-c", r"printf 'a\rb\033[1m\377'; printf 'c' >&2"])
    assert (outcome.reason, outcome.exit_code) == (None, 0)
    assert output == b"a\rb\x1b[1m\xffc"


@pytest.mark.parametrize(
    ("command", "reason", "code", "said"),
    [
        (["sh", "-c", "exit 3"], "exit", 3, "exited with code 3"),
        (["sh", "-c", "kill -9 $$"], "killed", 137, "killed by signal 9 (SIGKILL)"),
        (["no-such-program"], "start", 127, "command not found: no-such-program"),
        (["./no-such-program"], "start", 127, "command not found: ./no-such-program"),
        (["/etc/passwd"], "start", 126, "not executable: /etc/passwd"),
        (["/etc"], "start", 126, "not executable: /etc"),
    ],
)
def test_says_how_a_command_failed(command, reason, code, said):
    """A command that fails, or cannot start, ends with the reason, the code a shell gives, and words."""
    outcome, _ = run(command=command)
    assert (outcome.reason, outcome.exit_code) == (reason, code)
    assert said in outcome.message


def test_says_that_a_folder_is_gone(tmp_path):
    """A working folder that does not exist is named."""
    outcome, _ = run(command=["true"], cwd=str(tmp_path / "gone"))
    assert outcome.reason == "start"
    assert outcome.message == f"the working folder {tmp_path}/gone does not exist"


def test_says_that_the_file_of_a_script_is_gone(tmp_path):
    """Its interpreter would say it in its own words, as an ordinary failure."""
    outcome, _ = run(command=["sh", str(tmp_path / "gone.sh")], file=str(tmp_path / "gone.sh"))
    assert (outcome.reason, outcome.exit_code) == ("start", 127)
    assert outcome.message == f"the file of the script is gone: {tmp_path}/gone.sh"


def test_a_run_of_a_schedule_is_told_when_it_was_due():
    """To the fraction of a second; other runs are told nothing."""
    command = ["sh", "-c", "echo ${KOUBOU_FIRE_AT-none}"]
    assert run(command=command, fire_at=1795288478.25)[1] == b"1795288478.25\n"
    assert run(command=command)[1] == b"none\n"


def test_says_that_a_file_is_no_program(tmp_path):
    """An executable text without #! ends with words, not a crash."""
    (tmp_path / "x").write_text("hello")
    (tmp_path / "x").chmod(0o755)
    outcome, _ = run(command=[str(tmp_path / "x")])
    assert outcome.reason == "start"
    assert "not a program" in outcome.message


def test_does_not_wait_for_a_child_in_the_background():
    """A child that keeps the pipe open does not keep the task."""
    outcome, output = run(command=["sh", "-c", "sleep 30 & echo done; exit 0"])
    assert outcome.reason is None
    assert output == b"done\n"
    assert outcome.usage.duration_s < 20


def test_gives_the_last_line_as_result():
    """The result is the last line that says something."""
    outcome, _ = run(command=["sh", "-c", "echo one; echo two; echo"])
    assert outcome.result == "two"


def test_runs_in_a_terminal_when_asked():
    """With pty the command sees a terminal."""
    _, output = run(command=[sys.executable, "-c", "import os; print(os.isatty(0), os.isatty(1))"], pty=True)
    assert output == b"True True\r\n"


def test_the_terminal_has_the_size_of_the_caller_s(tmp_path):
    """A program that draws for the width of its terminal is given one."""
    _, output = run(command=["stty", "size"], pty=True)
    assert output == b"24 80\r\n"
    _, output = run(command=["stty", "size"], pty=True, env={"LINES": "40", "COLUMNS": "120"})
    assert output == b"40 120\r\n"


def test_looks_the_program_up_in_the_task_s_own_path(tmp_path):
    """The task's PATH decides, not the worker's."""
    (tmp_path / "mine").write_text("#!/bin/sh\necho mine\n")
    (tmp_path / "mine").chmod(0o755)
    _, output = run(command=["mine"], env={"PATH": str(tmp_path)})
    assert output == b"mine\n"


def test_environment_has_no_koubou_variables(monkeypatch):
    """What speaks of the workshop, the token first of all, never reaches a task."""
    monkeypatch.setenv("KOUBOU_TOKEN", "secret")
    env = environment({"env": {"A": "1", "KOUBOU_HOME": "x"}})
    assert env["A"] == "1"
    assert not [name for name in env if name.startswith("KOUBOU_")]
    assert "HOME" in os.environ


def test_a_path_of_its_own_comes_without_the_worker_s_python(monkeypatch):
    """What `koubou up` was typed in is activated for no task that brings the PATH of another shell."""
    monkeypatch.setenv("VIRTUAL_ENV", "/of/up")
    monkeypatch.setenv("CONDA_PREFIX", "/of/up")
    names = {"VIRTUAL_ENV", "CONDA_PREFIX"}
    assert names <= environment({}).keys()
    assert names <= environment({"env": {"A": "1"}}).keys()
    assert not names & environment({"env": {"PATH": "/bin"}}).keys()
    assert environment({"env": {"PATH": "/bin", "VIRTUAL_ENV": "/mine"}})["VIRTUAL_ENV"] == "/mine"


def test_python_programs_do_not_buffer():
    """A Python program's output is live without its doing."""
    assert environment({})["PYTHONUNBUFFERED"] == "1"


def test_what_is_left_behind_does_not_keep_a_command(tmp_path) -> None:
    """A child that goes on printing for ever does not put off the end of the command that it was started by."""
    prints = "{ printf 'y\\ny\\n'; touch begun; exec yes; } & until [ -e begun ]; do sleep 0.01; done; exit 3"
    outcome, output = run(command=["sh", "-c", prints], cwd=str(tmp_path))
    assert outcome.exit_code == 3
    assert output.startswith(b"y\ny\n")


def test_a_command_is_told_of_its_run():
    """Its task, which attempt it is, and which file its output goes to are in its environment."""
    code = "import os; s = os.fstat(1); print(os.environ['KOUBOU_TASK_ID'], os.environ['KOUBOU_RUN'], "
    code += "os.environ['KOUBOU_OUTPUT'] == f'{s.st_dev}:{s.st_ino}')"
    assert run(command=[sys.executable, "-c", code])[1] == b"t 1 True\n"
    assert run(command=[sys.executable, "-c", code], pty=True)[1] == b"t 1 True\r\n"


def test_the_result_is_no_line_of_progress():
    """The last line that says something else than how far it is."""
    outcome, _ = run(command=["sh", "-c", "echo 42; echo '::koubou progress 2/2 done'"])
    assert outcome.result == "42"
