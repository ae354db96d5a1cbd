"""What commands are called in the lists."""

from __future__ import annotations

import pytest

from koubou_panel.kinds.program import program_name


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (["python", "prog.py"], "prog.py"),
        (["/usr/bin/python3.11", "-u", "work/prog.py", "--n", "3"], "prog.py"),
        (["python3", "-X", "dev", "-W", "error", "-OO", "prog.py"], "prog.py"),
        (["python", "-m", "http.server", "80"], "http.server"),
        (["python", "-um", "mod"], "mod"),
        (["python", "-mmod"], "mod"),
        (["python", "-c", "print(1)", "x.py"], "python"),
        (["python", "-uc", "print(1)"], "python"),
        (["python", "-"], "python"),
        (["python"], "python"),
        (["python", "--version"], "python"),
        (["pypy3", "--", "-odd.py"], "-odd.py"),
        (["sh", "many.sh"], "many.sh"),
        (["bash", "-e", "-o", "pipefail", "/a/many.sh", "1"], "many.sh"),
        (["bash", "-c", "sleep 1; echo done"], "bash"),
        (["bash", "-lc", "sleep 1"], "bash"),
        (["sh", "-s", "x"], "sh"),
        (["./train", "prog.py"], "train"),
        (["python", ""], "python"),
        (["/usr/bin/"], "/usr/bin/"),
        (["python", "x" * 300], "x" * 100),
    ],
)
def test_a_command_is_called_by_what_it_runs(command: list[str], name: str) -> None:
    """The script or module that Python or a shell runs; else the program."""
    assert program_name(command) == name
