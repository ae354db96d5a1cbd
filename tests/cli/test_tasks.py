"""`koubou ps`, `show`, `logs`, `cancel` and `retry`, as a person and as a program sees them."""

from __future__ import annotations

import json
import re

import pytest


def _run(koubou, *args: str) -> str:
    return koubou("run", "--detach", *args).stdout.strip()


def _record(koubou, task_id: str) -> dict:
    return json.loads(koubou("show", "--json", task_id).stdout)["tasks"][0]


def _end_of(koubou, task_id: str) -> dict:
    koubou("logs", "-f", task_id)
    return _record(koubou, task_id)


def test_list_is_an_aligned_table_without_colour_in_a_pipe(koubou) -> None:
    """Each task has a line: id, status with its code, name, command; nothing of it is an escape sequence."""
    task_id = _run(koubou, "--name", "tabled-once", "sh", "-c", "exit 9")
    _end_of(koubou, task_id)
    done = koubou("ps", "--text", "tabled-once")
    head, line = done.stdout.splitlines()
    assert head.split() == ["ID", "STATUS", "AGE", "TOOK", "NAME", "COMMAND"]
    assert line.startswith(task_id)
    assert line.index("failed (9)") == head.index("STATUS")
    assert line.endswith("sh -c 'exit 9'")
    assert "\x1b" not in done.stdout


def test_list_as_json_is_the_protocols(koubou) -> None:
    """`--json` is one document with the protocol's records, and pages by its cursor."""
    ids = [_run(koubou, "--name", "paged", "true") for _ in range(3)]
    for task_id in ids:
        _end_of(koubou, task_id)
    page = json.loads(koubou("ps", "--json", "--text", "paged", "--limit", "2").stdout)
    assert ([task["task_id"] for task in page["tasks"]], page["total"]) == (ids[:0:-1], 3)
    assert page["tasks"][0]["status"] == "completed"
    rest = json.loads(
        koubou("ps", "--json", "--text", "paged", "--limit", "2", "--cursor", page["cursor"]).stdout
    )
    assert [task["task_id"] for task in rest["tasks"]] == ids[:1]
    assert rest["cursor"] is None


def test_list_filters_by_status_and_kind(koubou) -> None:
    """Only what was asked for is listed; nothing found is said, on stderr."""
    task_id = _run(koubou, "--name", "filtered", "false")
    _end_of(koubou, task_id)
    assert task_id in koubou("ps", "--status", "failed", "--kind", "script").stdout
    assert task_id not in koubou("ps", "--status", "completed").stdout
    nothing = koubou("ps", "--kind", "function", "--text", "filtered")
    assert (nothing.returncode, nothing.stdout) == (0, "")
    assert "no task like that" in nothing.stderr


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["ps", "--status", "faild"], 2, "is not one of"),
        (["ps", "--limit", "0"], 2, "not in the range"),
        (["ps", "--cursor", "nonsense"], 4, "cursor"),
        (["show", "00000000000000"], 4, "no task '00000000000000'"),
        (["logs", "zz"], 4, "no task 'zz'"),
        (["cancel", "nonesuch"], 4, "no task 'nonesuch'"),
        (["retry", "nonesuch"], 4, "no task 'nonesuch'"),
        (["cancel"], 2, "Missing argument"),
        (["shwo", "x"], 2, "did you mean 'show'"),
    ],
)
def test_wrong_input_is_said_with_its_code(koubou, args, code, said) -> None:
    """2 for wrong usage, 4 for what is refused or not there; stdout stays empty."""
    done = koubou(*args)
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr


def test_show_tells_the_whole_story(koubou) -> None:
    """One task in full: its words, command, folder, times, and where its output is."""
    task_id = _run(koubou, "--name", "story", "sh", "-c", "echo last words; exit 5")
    _end_of(koubou, task_id)
    text = re.sub(" +", " ", koubou("show", task_id).stdout)
    for words in (
        "story",
        "failed (5): exited with code 5",
        "echo last words",
        "exit code 5",
        "koubou logs",
    ):
        assert words in text


def test_show_has_the_whole_command_and_no_secret(koubou) -> None:
    """However long the command is; of its variables the names alone."""
    long = "x" * 900 + "END"
    task_id = _run(koubou, "--env", "KEY=hidden", "echo", long)
    _end_of(koubou, task_id)
    assert long in koubou("show", task_id).stdout
    document = koubou("show", task_id, "--json").stdout
    (record,) = json.loads(document)["tasks"]
    assert record["spec"]["command"] == ["echo", long]
    assert "KEY" in record["spec"]["env"]
    assert "hidden" not in document + koubou("show", task_id).stdout


def test_control_characters_do_not_reach_the_terminal(koubou) -> None:
    """A name or a command cannot make the terminal do things."""
    task_id = _run(koubou, "--name", "evil\x1b[2J\x07name", "sh", "-c", "echo '\x1b]0;owned\x07'")
    _end_of(koubou, task_id)
    shown = koubou("ps", "--text", "evil").stdout + koubou("show", task_id).stdout
    assert "evil" in shown
    assert not {"\x1b", "\x07"} & set(shown)


def test_id_may_be_an_end_or_a_beginning_if_it_is_the_only_one(koubou) -> None:
    """An unambiguous end of an id is enough; an ambiguous one lists some of those meant."""
    first, second = _run(koubou, "true"), _run(koubou, "true")
    assert _record(koubou, first[-7:])["task_id"] == first
    assert _record(koubou, second.upper())["task_id"] == second
    done = koubou("show", first[:3])
    assert done.returncode == 4
    assert "give more of the id" in done.stderr


def test_cancel_ends_a_running_task_and_says_which_it_cannot(koubou) -> None:
    """Every task that can be is cancelled, and the code tells that one could not."""
    running = _run(koubou, "sleep", "60")
    ended = _run(koubou, "true")
    _end_of(koubou, ended)
    done = koubou("cancel", ended, "nonesuch", running)
    assert done.returncode == 4
    assert "has already ended (completed)" in done.stderr
    record = _end_of(koubou, running)
    assert (record["status"], record["reason"]) == ("cancelled", "user")


def test_retry_makes_a_new_task_of_an_old_one(koubou) -> None:
    """A finished task runs again as another, which knows whose rerun it is."""
    old = _run(koubou, "--name", "again", "echo", "hello")
    _end_of(koubou, old)
    done = koubou("retry", old)
    new = done.stdout.strip()
    assert (done.returncode, len(new)) == (0, 14)
    assert _end_of(koubou, new)["rerun_of"] == old
    assert koubou("logs", new).stdout == "hello\n"
    refused = koubou("retry", _run(koubou, "sleep", "5"))
    assert refused.returncode == 4
    assert "cancel it first" in refused.stderr


def test_without_a_workshop_the_code_is_3(shell) -> None:
    """Every command that needs the workshop says how to start one, with code 3."""
    for args in (
        ["ps"],
        ["run", "true"],
        ["workers"],
        ["show", "x"],
        ["export"],
        ["load"],
        ["down"],
        ["status"],
    ):
        done = shell(*args)
        assert (done.returncode, done.stdout) == (3, ""), (args, done.stderr)
        assert "workshop" in done.stderr
