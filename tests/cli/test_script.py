"""`koubou script`: the catalogue as a person uses it."""

from __future__ import annotations

import json
import os
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from koubou_panel.cli.script_words import (
    given_parameters,
    moment,
    parameter_of,
    parameter_words,
    schedule_words,
)
from koubou_panel.core.quantity import span_s, span_words
from koubou_panel.core.script import Parameter, Schedule
from tests.cli.conftest import KOUBOU

TEXT = """\
#!/bin/sh
# /// script
# [tool.koubou]
# description = "Says hello"
# [tool.koubou.parameters.who]
# default = "you"
# flag = ""
# ///
echo "hello $1"
exit 3
"""


@pytest.fixture
def name(request):
    """A name that no other test has: they share one workshop."""
    return f"{request.node.name[:60]}-工".replace("[", "-").replace("]", "")


@pytest.fixture
def file(tmp_path):
    """A script."""
    path = tmp_path / "hello.sh"
    path.write_text(TEXT)
    return path


def with_input(koubou, text, *args):
    """`koubou` with something to read."""
    return subprocess.run(
        [*KOUBOU, *args], env=koubou.env, input=text, text=True, capture_output=True, timeout=90, check=False
    )


def test_a_script_is_added_run_and_removed(koubou, name, file):
    """Its output is its own, and so is its exit code."""
    assert koubou("script", "add", name, str(file)).returncode == 0
    done = koubou("script", "run", name, "who=all")
    assert (done.returncode, done.stdout) == (3, "hello all\n")
    assert koubou("script", "logs", name).stdout == "hello all\n"
    listed = json.loads(koubou("script", "list", "--json").stdout)
    (record,) = [one for one in listed["scripts"] if one["name"] == name]
    assert (record["runs"], record["failures"], record["description"]) == (1, 1, "Says hello")
    assert koubou("script", "remove", name).returncode == 0
    assert koubou("script", "run", name).returncode == 4
    assert file.exists()


def test_a_relative_path_is_of_the_folder_one_is_in(koubou, name, file):
    """As with every command."""
    assert koubou("script", "add", name, "hello.sh", cwd=file.parent).returncode == 0
    assert str(file) in koubou("script", "show", name).stdout


def test_show_says_what_it_is_when_it_is_due_and_what_it_did(koubou, name, file):
    """Its next five due times, in the zone that was given, and its last runs."""
    args = ("--cron", "0 9 * * *", "--zone", "Asia/Taipei", "--overlap", "queue", "--timeout", "90")
    assert koubou("script", "add", name, str(file), *args).returncode == 0
    task_id = koubou("script", "run", name, "--detach").stdout.strip()
    shown = koubou("script", "show", name).stdout
    for words in ("0 9 * * * (Asia/Taipei), queues what overlaps", "1m30s", "who=TEXT (you)", task_id, "sh"):
        assert words in shown
    document = json.loads(koubou("script", "show", name, "--json").stdout)
    assert len(document["next_runs"]) == 5
    assert all(at[11:19] == "01:00:00" for at in document["next_runs"])
    assert document["last_runs"][0]["task_id"] == task_id


def test_an_inline_script_comes_by_stdin(koubou, name):
    """The home keeps its text."""
    done = with_input(koubou, "#!/bin/sh\necho inline\n", "script", "add", name, "--inline")
    assert done.returncode == 0, done.stderr
    assert koubou("script", "run", name).stdout == "inline\n"
    assert "(kept in the home)" in koubou("script", "show", name).stdout


def test_a_schedule_is_changed_and_held(koubou, name, file):
    """What is not said stays."""
    koubou("script", "add", name, str(file), "--every", "1h")
    assert koubou("script", "set", name, "--every", "1h30m", "--description", "mine").returncode == 0
    assert "every 1h30m" in koubou("script", "show", name).stdout
    assert koubou("script", "disable", name).returncode == 0
    assert "disabled" in koubou("script", "list").stdout
    document = json.loads(koubou("script", "show", name, "--json").stdout)
    assert (document["next_runs"], document["script"]["enabled"]) == ([], False)
    assert koubou("script", "enable", name).returncode == 0
    assert koubou("script", "set", name, "--no-schedule").returncode == 0
    assert json.loads(koubou("script", "show", name, "--json").stdout)["script"]["schedule"] is None


def editor(tmp_path, *lines):
    """A program that edits as these lines of shell do; `$1` is the file."""
    path = tmp_path / "editor"
    path.write_text("#!/bin/sh\n" + "\n".join(lines) + "\n")
    path.chmod(0o755)
    return str(path)


def edited(koubou, name, program, answers="", command=("edit",)):
    """`koubou script edit` (or another) at a terminal, with that editor; (exit code, what was shown)."""
    master, slave = os.openpty()
    process = subprocess.Popen(
        [*KOUBOU, "script", *command, name],
        env=koubou.env | {"EDITOR": program},
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
    )
    os.close(slave)
    os.write(master, answers.encode())
    shown = b""
    with suppress(OSError):  # the terminal is gone with its last user
        while data := os.read(master, 65_536):
            shown += data
    os.close(master)
    return process.wait(60), shown.decode()


def test_a_text_is_edited_and_restored(koubou, name, file, tmp_path):
    """In the editor that is set; the versions are listed, and one of them comes back."""
    koubou("script", "add", name, str(file))
    code, shown = edited(koubou, name, editor(tmp_path, "sed -i s/hello/hi/ $1"))
    assert (code, "is saved as version" in shown) == (0, True), shown
    assert "hi $1" in file.read_text()
    code, shown = edited(koubou, name, editor(tmp_path, "true"))
    assert (code, "is unchanged" in shown) == (0, True), shown
    code, shown = edited(koubou, name, editor(tmp_path, "exit 1"))
    assert (code, "nothing was saved" in shown) == (1, True), shown
    document = json.loads(koubou("script", "versions", name, "--json").stdout)
    first = document["versions"][-1]["version"]
    assert [one["is_current"] for one in document["versions"]] == [True, False]
    assert koubou("script", "restore", name, first, "--print").stdout == TEXT
    assert koubou("script", "restore", name, first[:6]).returncode == 0
    assert file.read_text() == TEXT
    assert "current" in koubou("script", "versions", name).stdout


def test_an_edit_on_a_stale_copy_is_refused_and_kept(koubou, name, file, tmp_path):
    """Somebody else saved the file while the editor was open."""
    koubou("script", "add", name, str(file))
    code, shown = edited(koubou, name, editor(tmp_path, f"echo '# outside' >> {file}", "echo '# mine' >> $1"))
    assert (code, "changed meanwhile" in shown) == (4, True), shown
    assert file.read_text().endswith("# outside\n")
    listed = json.loads(koubou("script", "versions", name, "--json").stdout)["versions"]
    (refused,) = [one["version"] for one in listed if one["is_refused"]]
    assert koubou("script", "restore", name, refused, "--print").stdout.endswith("# mine\n")


def test_a_text_with_a_bad_header_can_be_edited_again(koubou, name, file, tmp_path):
    """The refusal is said, and the text is not lost."""
    koubou("script", "add", name, str(file))
    program = editor(
        tmp_path,
        "if grep -q descripton $1; then sed -i s/descripton/description/ $1;",
        "else sed -i s/description/descripton/ $1; echo '# x' >> $1; fi",
    )
    code, shown = edited(koubou, name, program, "y\n")
    assert (code, "did you mean 'description'" in shown) == (0, True), shown
    assert file.read_text().endswith("# x\n")


def test_a_text_of_a_new_script_is_never_lost(koubou, name, tmp_path):
    """Refused, it can be edited again or is kept; a name that is taken is told before anything is typed."""
    lines = ["#!/bin/sh", "# /// script", "# nonsense", "# ///"]
    bad = editor(tmp_path, *(f"echo '{line}' >> $1" for line in lines))
    add = ("add", "--inline")
    code, shown = edited(koubou, name, bad, "n\n", add)
    assert (code != 0, "your text is kept in" in shown) == (True, True), shown
    kept = Path(shown.partition("your text is kept in ")[2].split()[0])
    assert kept.read_text() == "\n".join(lines) + "\n"
    kept.unlink()
    mended = editor(
        tmp_path,
        "if test -s $1; then printf '#!/bin/sh\\necho fine\\n' > $1;",
        "else printf '#!/bin/sh\\n# /// script\\n# nonsense\\n# ///\\n' > $1; fi",
    )
    code, shown = edited(koubou, name, mended, "y\n", add)
    assert code == 0, shown
    assert koubou("script", "run", name).stdout == "fine\n"
    unused = editor(tmp_path, f"touch {tmp_path}/typed")
    code, shown = edited(koubou, name, unused, "", add)
    assert (code, "already" in shown) == (4, True), shown
    assert not (tmp_path / "typed").exists()


def test_a_new_text_comes_by_stdin(koubou, name, file):
    """As another program gives it."""
    koubou("script", "add", name, str(file))
    assert with_input(koubou, "echo anew\n", "script", "edit", name).returncode == 0
    assert koubou("script", "run", name).stdout == "anew\n"


def test_output_is_searched_and_runs_are_listed(koubou, name, file):
    """Run, line number, line; newest first."""
    koubou("script", "add", name, str(file))
    for who in ("one", "two"):
        koubou("script", "run", name, f"who={who}")
    lines = koubou("script", "logs", name, "--search", "HELLO").stdout.splitlines()
    assert [line.partition(":")[2] for line in lines] == ["1: hello two", "1: hello one"]
    found = json.loads(koubou("script", "logs", name, "--search", "two", "--json").stdout)
    assert ([one["text"] for one in found["matches"]], found["runs"]) == (["hello two"], 2)
    assert json.loads(koubou("script", "logs", name, "--runs", "--json").stdout)["total"] == 2
    assert "no line of the 2 runs" in koubou("script", "logs", name, "--search", "three").stderr


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["add", "x"], 2, "--inline"),
        (["add", "x", "/no/such/file"], 4, "there is no file"),
        (["add", "a/b", "/bin/true"], 4, "name must be"),
        (["add", "x", "/bin/true", "--every", "soon"], 2, "such as 30s"),
        (["add", "x", "/bin/true", "--every", "0.1s"], 4, "1 second"),
        (["add", "x", "/bin/true", "--every", "5m", "--cron", "* * * * *"], 2, "exclude each other"),
        (["add", "x", "/bin/true", "--cron", "often"], 4, "five fields"),
        (["add", "x", "/bin/true", "--cron", "* * * * *", "--zone", "Berlin"], 4, "no time zone"),
        (["add", "x", "/bin/true", "--zone", "UTC"], 2, "goes with --cron"),
        (["add", "x", "/bin/true", "--at", "yesterday"], 2, "18:00"),
        (["add", "x", "/bin/true", "--at", "2001-01-01 00:00"], 4, "is over"),
        (["add", "x", "/bin/true", "--param", "a:intger"], 2, "text, integer"),
        (["add", "x", "/bin/true", "--keep-size", "much"], 2, "512M"),
        (["add", "x", "/bin/true", "--env", "K"], 2, "NAME=VALUE"),
        (["set", "nosuch"], 2, "say what to change"),
        (["show", "nosuch"], 4, "unknown script 'nosuch'"),
        (["run", "nosuch"], 4, "unknown script 'nosuch'"),
        (["run", "nosuch", "x"], 2, "NAME=VALUE"),
        (["logs", "nosuch"], 4, "unknown script"),
        (["logs", "nosuch", "--search", "x"], 4, "unknown script"),
        (["logs", "nosuch", "--json"], 2, "--search or --runs"),
        (["edit", "nosuch"], 4, "unknown script"),
        (["restore", "nosuch", "abcd"], 4, "unknown script"),
        (["remove", "nosuch"], 4, "unknown script"),
        (["lst"], 2, "list"),
    ],
)
def test_what_cannot_be_is_said_with_what_can(koubou, args, code, words):
    """Wrong usage is 2, a refusal 4."""
    done = koubou("script", *args)
    assert (done.returncode, words in done.stderr) == (code, True), done.stderr


# -- words ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("30s", 30), ("5m", 300), ("1h30m", 5_400), ("2D", 172_800), ("1.5h", 5_400)],
)
def test_spans_are_read_and_said(text, seconds):
    """What is said is read as the same."""
    assert span_s(text) == seconds
    assert span_s(span_words(seconds)) == seconds


@pytest.mark.parametrize("text", ["", "5 fortnights", "-5m", "m5", "1e9", "9" * 40])
def test_what_is_no_span_is_none(text):
    """An interval is never guessed."""
    with pytest.raises(ValueError, match="span of time"):
        span_s(text)


def test_moments_are_read():
    """The next such time on the clock, a date, a span from now, or with a zone of its own."""
    now = 1_795_000_000.0
    assert moment("+10m", now) == now + 600
    assert moment("2026-12-24T18:00:00+01:00", now) == 1_798_131_600
    for text in ("00:00", "12:34", "23:59:59"):
        assert now < moment(text, now) <= now + 90_000
    for text in ("25:00", "soon", "", "+x"):
        with pytest.raises(ValueError, match="must be"):
            moment(text, now)


@pytest.mark.parametrize(
    ("text", "parameter", "words"),
    [
        ("who", Parameter(name="who", flag="--who"), "who=TEXT"),
        ("who=me", Parameter(name="who", default="me", flag="--who"), "who=TEXT (me)"),
        ("who!", Parameter(name="who", is_required=True, flag="--who"), "who=TEXT required"),
        ("n:integer=3", Parameter(name="n", type="integer", default="3", flag="--n"), "n=INTEGER (3)"),
        (
            "m_o:fast|slow=fast",
            Parameter(name="m_o", type="choice", choices=("fast", "slow"), default="fast", flag="--m-o"),
            "m_o=fast|slow (fast)",
        ),
        ("loud:boolean", Parameter(name="loud", type="boolean", flag="--loud"), "loud=true|false"),
    ],
)
def test_parameters_are_read_and_said(text, parameter, words):
    """`NAME[!][:TYPE][=DEFAULT]`."""
    assert parameter_of(text) == parameter
    assert parameter_words(parameter) == words


def test_values_may_hold_what_they_like():
    """Only the first = counts."""
    assert given_parameters(["a=b=c", "d="]) == {"a": "b=c", "d": ""}


def test_schedules_are_said():
    """Each in its own words."""
    assert schedule_words(Schedule(every_s=90.0)) == "every 1m30s"
    assert schedule_words(Schedule(cron="0 9 * * *", overlap="together")) == (
        "0 9 * * * (UTC), lets runs overlap"
    )
    assert schedule_words(Schedule(at=0.0), is_enabled=False).startswith("once at 19")
    assert schedule_words(None) == ""


def test_of_a_schedule_what_is_not_said_stays(koubou, name, file):
    """Its zone and its overlap outlive another time, and each is changed alone."""

    def schedule():
        return json.loads(koubou("script", "show", name, "--json").stdout)["script"]["schedule"]

    args = ("--cron", "0 9 * * *", "--zone", "Asia/Taipei", "--overlap", "queue")
    assert koubou("script", "add", name, str(file), *args).returncode == 0
    koubou("script", "set", name, "--cron", "0 10 * * *")
    now = schedule()
    assert (now["cron"], now["zone"], now["overlap"]) == ("0 10 * * *", "Asia/Taipei", "queue")
    koubou("script", "set", name, "--zone", "Europe/Berlin")
    koubou("script", "set", name, "--overlap", "together")
    now = schedule()
    assert (now["cron"], now["zone"], now["overlap"]) == ("0 10 * * *", "Europe/Berlin", "together")
    koubou("script", "set", name, "--every", "5m")
    assert schedule()["overlap"] == "together"
    assert "--zone goes with --cron" in koubou("script", "set", name, "--zone", "UTC").stderr


def test_a_typed_default_keeps_the_other_parameters(koubou, name, tmp_path):
    """`--param epochs=9` changes that default alone, when a script is added and later."""
    path = tmp_path / "train.py"
    path.write_text(
        '# /// script\n# [tool.koubou.parameters.epochs]\n# type = "integer"\n# default = 3\n'
        '# help = "how many"\n# [tool.koubou.parameters.month]\n# required = true\n# ///\nprint(1)\n'
    )
    done = koubou("script", "add", name, str(path), "--param", "epochs=9", "--every", "1d")
    assert done.returncode == 0, done.stderr
    assert "give it a default: --param month=" in done.stderr
    shown = koubou("script", "show", name).stdout
    assert "epochs=INTEGER (9)  how many" in shown
    assert "month=TEXT required" in shown
    assert "every 1d" in shown
    assert "its schedule cannot start it: month must be given" in shown
    assert "cannot start: no month" in koubou("script", "list").stdout
    done = koubou("script", "set", name, "--param", "month=May")
    assert "give it a default" not in done.stderr
    shown = koubou("script", "show", name).stdout
    assert "cannot start" not in shown
    assert "epochs=INTEGER (9)  how many" in shown
    assert "month=TEXT (May)" in shown
    koubou("script", "remove", name, "--yes")
    done = koubou("script", "add", name, str(path), "--param", "epochs=many")
    assert done.returncode == 4
    assert koubou("script", "show", name).returncode == 4


def test_help_that_cannot_be_read_is_told(koubou, name, tmp_path):
    """A script is added all the same, with the reason and what to do."""
    path = tmp_path / "broken.py"
    path.write_text("import argparse\nimport no_such_module\nargparse.ArgumentParser().parse_args()\n")
    done = koubou("script", "add", name, str(path))
    assert done.returncode == 0
    assert "No module named 'no_such_module'" in done.stderr
    assert "write a header (docs/scripts.md)" in done.stderr
