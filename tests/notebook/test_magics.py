"""`%koubou` and `%%koubou` in a real IPython shell, and in a real kernel."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys

import pytest
from IPython.core.error import UsageError
from IPython.core.interactiveshell import InteractiveShell
from jupyter_client.manager import start_new_kernel

from koubou_panel.errors import TaskFailure
from koubou_panel.notebook import current, magics, up


@pytest.fixture(scope="module")
def shell(shop):
    """A shell with the magics and the module's workshop."""
    InteractiveShell.clear_instance()
    opened = InteractiveShell.instance()
    opened.run_line_magic("load_ext", "koubou_panel")
    opened.user_ns["shop"] = shop
    yield opened
    opened.run_line_magic("unload_ext", "koubou_panel")
    InteractiveShell.clear_instance()


@pytest.fixture(autouse=True)
def the_one(shop, monkeypatch):
    """What other modules have opened does not count here."""
    found = current.Current()
    found.note(shop)
    for module in (magics, up):
        monkeypatch.setattr(module, "CURRENT", found)


def run(shell, *lines):
    """The result of a cell, which must not fail."""
    done = shell.run_cell("\n".join(lines))
    done.raise_error()
    return done.result


def test_a_cell_gives_its_value_to_the_variable(shell):
    """The last expression's value; what the cell assigns stays in the task; only what it uses is sent."""
    run(shell, "base, lock = 5, __import__('threading').Lock()", "def scaled(x):", "    return x * base")
    assert run(shell, "%%koubou found", "import os", "step = scaled(2)", "step, os.getpid()") is None
    assert shell.user_ns["found"][0] == 10
    assert shell.user_ns["found"][1] != os.getpid()
    assert "step" not in shell.user_ns


def test_without_a_variable_the_value_is_the_cells(shell):
    """It is shown as any cell's."""
    assert run(shell, "%%koubou", "6 * 7") == 42


def test_names_to_keep_are_the_notebooks_afterwards(shell):
    """`--keep a,b`, and no others."""
    assert run(shell, "%%koubou --keep a,b", "a, b, c = 1, 2, 3", "a + b + c") == 6
    assert (shell.user_ns["a"], shell.user_ns["b"], "c" in shell.user_ns) == (1, 2, False)


def test_what_can_be_kept_is_given_where_something_else_is_missing(shell):
    """A name that was not made and a value that cannot be pickled are named; hours of work are not lost for them."""
    lock = "__import__('threading').Lock()"
    done = shell.run_cell(f"%%koubou got --keep one,lock,two\none, lock = 1, {lock}\none + 4")
    assert isinstance(done.error_in_exec, UsageError)
    said = str(done.error_in_exec)
    assert "has given got, one; not there: lock: a lock cannot leave the task: cannot pickle" in said
    assert said.endswith("two: the cell has not made it")
    assert (shell.user_ns["got"], shell.user_ns["one"]) == (5, 1)
    done = shell.run_cell(f"%%koubou bad --keep six\nsix = 6\n{lock}")
    assert "has given six; not there: bad: a lock cannot" in str(done.error_in_exec)
    assert (shell.user_ns["six"], "bad" in shell.user_ns) == (6, False)


def test_detached_it_gives_the_future(shell):
    """`--detach` does not wait; another cell may follow it."""
    run(shell, "%%koubou first --detach", "import time", "time.sleep(0.2)", "7")
    future = shell.user_ns["first"]
    run(shell, "%%koubou second --after first", "'after'")
    assert future.result(20) == 7
    assert shell.user_ns["second"] == "after"


def test_options_are_the_tasks(shell, shop):
    """Priority, labels and limits reach the task, and its name is the cell's."""
    run(
        shell,
        "%%koubou x --priority 8 --retries 1 --memory 2G --label study=a --title 'a study' --detach",
        "1",
    )
    request = shop.shop.state.tasks[shell.user_ns["x"].task_id].request
    assert (request.priority, request.retries, request.limits.memory_bytes) == (8, 1, 2 << 30)
    assert (request.labels, request.name) == ({"study": "a"}, "a study")


def test_a_failure_names_the_cell_and_the_line(shell, capsys):
    """The exception is the cell's own; the variable stays as it was."""
    shell.user_ns["kept"] = "before"
    capsys.readouterr()
    done = shell.run_cell("%%koubou kept\nx = 1\nx / 0")
    shown = capsys.readouterr().out
    assert "line 3, in <module>" in shown
    assert "magics.py" not in shown
    assert isinstance(done.error_in_exec, ZeroDivisionError)
    text = str(done.error_in_exec.__cause__)
    assert "line 3, in <module>\n    x / 0" in text
    assert "cell.py" not in text
    assert shell.user_ns["kept"] == "before"


def test_a_time_out_is_told(shell):
    """A task that is ended raises as its future does."""
    done = shell.run_cell("%%koubou --timeout 0.3\nimport time\ntime.sleep(60)")
    assert isinstance(done.error_in_exec, TaskFailure)
    assert done.error_in_exec.reason == "timeout"


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ("%%koubou --timout 3\n1", "unrecognized arguments: --timout"),
        ("%%koubou --priority high\n1", "argument --priority: invalid int value"),
        ("%%koubou 2x\n1", "'2x' is no name of a variable"),
        ("%%koubou for\n1", "'for' is a word of Python's own"),
        ("%%koubou --keep a-b\n1", "'a-b' is no name of a variable"),
        ("%%koubou 'x\n1", "No closing quotation"),
        ("%%koubou\n!ls", "a task is plain Python, without %magics, !commands"),
        ("%%koubou\nlock", "the cell uses 'lock', which cannot be sent"),
    ],
)
def test_what_cannot_be_is_refused_in_words(shell, cell, words):
    """A mistake in the first line, or a value that cannot cross: before anything runs."""
    shell.user_ns["lock"] = __import__("threading").Lock()
    done = shell.run_cell(cell)
    assert isinstance(done.error_in_exec, UsageError)
    assert words in str(done.error_in_exec)


def test_no_python_is_a_syntax_error_in_its_line(shell):
    """As of any cell, before anything is sent."""
    done = shell.run_cell("%%koubou\nx = (")
    assert isinstance(done.error_in_exec, SyntaxError)
    assert done.error_in_exec.lineno == 2


def test_the_line_magic_is_the_command_line(shell, shop, capsys):
    """The same words, of the session's own workshop."""
    task_id = shop.submit(print, "printed by a task").result(20) or shop.submit(abs, -3).task_id
    run(shell, "%koubou ps --limit 1")
    assert task_id in capsys.readouterr().out
    run(shell, "%koubou")
    assert str(shop.home.root) in capsys.readouterr().out
    run(shell, "%koubou statsu")
    assert "unknown command 'statsu'; did you mean 'status'?" in capsys.readouterr().out


def test_help_shows_how_the_cell_magic_is_written(shell, capsys, monkeypatch):
    """Without the marks of a docstring."""
    monkeypatch.setattr(magics, "run_command", lambda *_: None)
    run(shell, "%koubou help")
    said = capsys.readouterr().out
    assert said.startswith("Usage:\n\n  %%koubou [--detach]")
    assert "::" not in said


def test_a_workshop_that_this_kernel_holds_is_not_started_beside(shell):
    """`%koubou up` would find the home taken: it says what to do instead."""
    done = shell.run_cell("%koubou up")
    assert isinstance(done.error_in_exec, UsageError)
    assert "this kernel holds the workshop" in str(done.error_in_exec)


@pytest.fixture
def away(tmp_path, monkeypatch):
    """A session that has opened no workshop, and a home where none was."""
    home = tmp_path / "home"
    for module in (magics, up):
        monkeypatch.setattr(module, "CURRENT", current.Current())
    monkeypatch.setenv("KOUBOU_HOME", str(home))
    return home


FREE = "--dashboard-port 0 --agents-port 0"


@pytest.mark.timeout(180)
def test_what_is_started_is_for_this_user_alone_and_linked_to(shell, away, capsys, monkeypatch):
    """`%koubou up` comes back when all runs at the home that it names: log and home are private, the link is told."""
    monkeypatch.setenv("KOUBOU_HOME", str(away.parent / "the usual one"))
    run(shell, f"%koubou up --home {away} --workers 1 --socket-port 0 {FREE}")
    try:
        told = capsys.readouterr().out
        assert "/login?code=" in told
        assert f"`%koubou --home {away} down` ends it" in told
        log = away / "up.log"
        assert [oct(path.stat().st_mode & 0o777) for path in (away, log)] == ["0o700", "0o600"]
        said = log.read_text()
        done = shell.run_cell(f"%koubou --home={away} up --socket-port 0 {FREE}")
        assert "runs at" in str(done.error_in_exec)
        assert f"already: `%koubou --home {away} down`" in str(done.error_in_exec)
        assert log.read_text() == said
    finally:
        run(shell, f"%koubou --home {away} down")


def test_a_home_that_is_not_named_is_asked_for(shell):
    """`--home` alone."""
    done = shell.run_cell("%koubou up --home")
    assert "--home needs a folder" in str(done.error_in_exec)


@pytest.mark.timeout(180)
def test_a_start_that_fails_says_why(shell, away):
    """A taken port is named, though the socket of a dead workshop lies there; so is a log that cannot be written."""
    (away / "runtime").mkdir(parents=True, mode=0o700)
    with socket.socket(socket.AF_UNIX) as dead, socket.create_server(("127.0.0.1", 0)) as taken:
        dead.bind(str(away / "runtime" / "shop.sock"))
        dead.close()
        port = taken.getsockname()[1]
        done = shell.run_cell(f"%koubou up --socket-port {port} {FREE}")
        assert isinstance(done.error_in_exec, UsageError)
        assert f"port {port} is taken" in str(done.error_in_exec)
    log = away / "up.log"
    log.rename(away / "elsewhere")
    log.symlink_to(away / "elsewhere")
    done = shell.run_cell(f"%koubou up --socket-port 0 {FREE}")
    assert "up.log cannot be written" in str(done.error_in_exec)


def test_the_extension_is_loaded_late():
    """Neither IPython nor the magics come with `import koubou_panel`."""
    code = (
        "import sys, koubou_panel\nassert callable(koubou_panel.load_ipython_extension)\n"
        "assert not {'IPython', 'koubou_panel.notebook.magics'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    """A kernel whose home is its own."""
    home = tmp_path_factory.mktemp("kernel") / "home"
    manager, client = start_new_kernel(env=os.environ | {"KOUBOU_HOME": str(home)})
    yield manager, client
    client.stop_channels()
    manager.shutdown_kernel()


def executed(client, code, *, begun=None, limit_s=90):
    """What a cell replies and prints; `begun` is called when it has shown something."""
    texts = []

    def hear(message):
        content = message["content"]
        texts.append(content.get("text") or content.get("data", {}).get("text/plain", ""))
        if begun is not None and message["msg_type"] == "display_data":
            begun()

    reply = client.execute_interactive(code, timeout=limit_s, output_hook=hear)
    return reply["content"], "".join(texts)


def test_a_kernel_runs_a_cell_and_an_interrupt_ends_it(kernel):
    """In a real kernel: a value, a workshop of the kernel's own, and an interrupt that cancels the task."""
    manager, client = kernel
    reply, _ = executed(client, "%load_ext koubou_panel")
    assert reply["status"] == "ok", reply
    reply, said = executed(client, "%%koubou n\nsum(range(5))")
    assert reply["status"] == "ok", reply
    assert "this kernel holds a workshop at" in said
    assert executed(client, "n")[1] == "10"
    reply, _ = executed(
        client,
        "%%koubou\nimport time\ntime.sleep(300)",
        begun=lambda: os.kill(manager.provisioner.pid, signal.SIGINT),
        limit_s=90,
    )
    assert (reply["status"], reply["ename"]) == ("error", "KeyboardInterrupt")
    reply, said = executed(client, "%%koubou\n'well'")
    assert "well" in said
