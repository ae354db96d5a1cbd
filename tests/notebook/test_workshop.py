"""`Workshop`: futures over real workers, held here or attached to a running one."""

from __future__ import annotations

import math
import operator
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import CancelledError, as_completed, wait
from pickle import PicklingError

import pytest

from koubou_panel import Workshop
from koubou_panel.errors import Refused, TaskFailure
from koubou_panel.wire import link

NOWHERE = """
import os, sys, tempfile
from koubou_panel import Workshop
gone = tempfile.mkdtemp()
os.chdir(gone)
os.rmdir(gone)
with Workshop(sys.argv[1], workers=1) as shop:
    print(shop.submit(pow, 2, 3).result(30))
    os.chdir(sys.argv[2])
    print(shop.submit(os.getcwd).result(30))
"""


def test_the_second_attaches_to_the_first(shop, attached):
    """One home has one workshop."""
    assert (shop.is_attached, attached.is_attached) == (False, True)


def test_a_workshop_tells_what_it_is(shop, attached, home, tmp_path):
    """In one line, also when it is shut down; and what is offered to who types is what there is for people."""
    assert repr(shop) == f"<Workshop at {home}, held here, 2 workers>"
    assert repr(attached) == f"<Workshop at {home}, attached, 2 workers>"
    assert repr(Workshop.__new__(Workshop)) == "<Workshop, not open>"
    with Workshop(tmp_path, workers=1) as short:
        pass
    assert repr(short) == f"<Workshop at {tmp_path}, shut down>"
    assert {"submit", "state", "home", "is_attached"} <= set(dir(shop))
    assert not {"call", "hops", "condition", "shop"} & set(dir(shop))


def test_submit_gives_the_result(either):
    """A function's value comes back."""
    assert either.submit(pow, 2, 10).result(20) == 1024


def test_keyword_arguments_reach_the_function(either):
    """Keywords are passed on."""
    assert either.submit(sorted, [1, 3, 2], reverse=True).result(20) == [3, 2, 1]


def test_map_gives_results_in_order(either):
    """Map is the built-in map, elsewhere."""
    assert list(either.map(operator.add, range(300), range(300))) == [2 * n for n in range(300)]


def test_an_exception_comes_back(either):
    """What the function raised is raised, with the worker's traceback as its cause."""
    with pytest.raises(ValueError, match="math domain error") as raised:
        either.submit(math.sqrt, -1).result(20)
    assert "kinds/function.py" in str(raised.value.__cause__)
    assert isinstance(either.submit(math.sqrt, -1).exception(20), ValueError)


def test_a_command_that_fails_raises_task_failure(either):
    """A command's failure is told with its exit code."""
    with pytest.raises(TaskFailure, match="exited with code 3") as raised:
        either.run("sh", "-c", "exit 3").result(20)
    assert (raised.value.reason, raised.value.exit_code) == ("exit", 3)


def test_output_that_is_no_text_is_read_as_it_is(shop, attached):
    """Bytes arrive as they were printed, also from a workshop that a notebook holds."""
    future = shop.run("printf", r"\377\000\376")
    assert future.result(20) is None
    assert attached.call(attached.shop.read_bytes(future.task_id, 0, 100)).data == b"\xff\0\xfe"


def test_a_command_that_succeeds_gives_none(either):
    """A command has no value; its output is in the log."""
    future = either.run("echo", "hello")
    assert future.result(20) is None
    assert either.output(future.task_id) == "hello\n"


def test_a_command_that_is_none_is_refused_at_once(either):
    """Run without a command says so where it is called."""
    with pytest.raises(Refused, match="non-empty list"):
        either.run()


def test_a_running_command_is_given_input(either):
    """Texts and bytes, from before it runs, more than is sent at once, until the end."""
    future = either.run("sh", "-c", "read line; echo $line; wc -c", stdin=True)
    either.send_input(future.task_id, "工房\n")
    future.send_input(b"x" * 200_000)
    future.send_input(b"\xff", is_last=True)
    assert future.result(20) is None
    assert either.output(future.task_id).split() == ["工房", "200001"]
    with pytest.raises(Refused, match="only a running task"):
        future.send_input(b"more")


def test_input_that_nobody_can_read_is_refused(either):
    """For a command without input, one that is not to be, and one that may be tried again."""
    plain = either.run("sleep", "60")
    with pytest.raises(Refused, match="takes no input"):
        plain.send_input(b"x")
    plain.cancel()
    never = either.run("cat", stdin=True, after="0123456789abcd")
    with pytest.raises(Refused, match="no task"):
        never.send_input(b"x")
    with pytest.raises(ValueError, match="leave out the retries"):
        either.run("cat", stdin=True, retries=1)


def test_cancel_ends_a_running_task(either):
    """A cancelled future raises CancelledError, running or not."""
    future = either.submit(time.sleep, 60)
    assert future.cancel()
    with pytest.raises(CancelledError):
        future.result(20)


def test_futures_work_with_the_standard_library(either):
    """Wait and as_completed take them."""
    futures = [either.submit(pow, 2, n) for n in range(8)]
    assert wait(futures, 20).not_done == set()
    assert {future.result() for future in as_completed(futures)} == {2**n for n in range(8)}


def test_what_cannot_be_pickled_is_told_by_the_future(either):
    """As by a pool of the standard library: who waits for the result hears it, the function's case too."""
    lock = threading.Lock()
    for future in (either.submit(print, (n for n in range(3))), either.submit(lambda: lock)):
        with pytest.raises(Refused, match="cannot be pickled") as refused:
            future.result(20)
        assert isinstance(refused.value, PicklingError)
    with pytest.raises(PicklingError):
        list(either.map(lambda n: lock, [1]))


def test_a_bad_option_is_refused(either):
    """A priority out of range is refused, naming the field."""
    future = either.submit_with(pow, 2, 3, options={"priority": 11})
    with pytest.raises(Refused, match="priority must be 1 to 10"):
        future.result(20)


def test_nothing_is_taken_after_shutdown(tmp_path):
    """As any executor."""
    with Workshop(tmp_path / "home", workers=1) as shop:
        assert shop.submit(pow, 2, 2).result(20) == 4
    with pytest.raises(RuntimeError, match="after shutdown"):
        shop.submit(pow, 2, 2)


def test_a_workshop_of_another_version_is_told_at_once(shop, home, monkeypatch):
    """Who attaches with another version hears that, and not half a minute later that the home is taken."""
    other, encode = link.encode(link.Hello(99, "3.11", "test", replica=True)), link.encode
    monkeypatch.setattr(link, "encode", lambda m: other if isinstance(m, link.Hello) else encode(m))
    began = time.monotonic()
    with pytest.raises(Refused, match="koubou down") as refused:
        Workshop(home)
    assert refused.value.code == "version"
    assert time.monotonic() - began < 60


def test_a_fork_of_a_worker_ends_with_its_function(shop):
    """Returned or raised, it goes on nowhere in the worker, which has the task's result and serves the next."""

    def forks(how):
        pid = os.fork()
        if pid == 0:
            if how:
                raise how
            return "child"
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    futures = [shop.submit(forks, how) for how in (None, ValueError("odd"), SystemExit(7)) for _ in range(2)]
    assert [future.result(30) for future in futures] == [0, 0, 1, 1, 7, 7]
    assert list(shop.map(abs, [-1] * 4, timeout=30)) == [1] * 4
    assert "ValueError: odd" in futures[2].output


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (lambda _: Workshop(workers="two"), r"\(1, 4\), not 'two'"),
        (lambda _: Workshop(3), r"Workshop\(workers=3\)"),
        (lambda shop: shop.submit_with(pow, 2, 3, options=[1]), "options is a dict"),
        (lambda shop: shop.run(["echo", "x"]), r"run\(\*\['echo', 'x'\]\)"),
        (lambda shop: shop.run("sleep", 1), "give str"),
        (lambda shop: shop.run("true", env=["A"]), "env is a dict"),
        (lambda shop: shop.result(5), "its id"),
    ],
)
def test_an_argument_of_a_wrong_type_is_told_what_to_give(shop, wrong, told):
    """Before anything is opened or sent."""
    with pytest.raises(TypeError, match=told):
        wrong(shop)


@pytest.mark.parametrize("workers", [(3, 1), (-1, 2), (0, 257), 100_000])
def test_a_number_of_workers_that_cannot_be_is_refused(tmp_path, workers):
    """Before anything is opened."""
    with pytest.raises(ValueError, match="0 <= least <= most <= 256"):
        Workshop(tmp_path / "home", workers=workers)
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(("home", "told"), [("", "leave it out for the usual one"), (__file__, "is a file")])
def test_what_is_no_folder_is_no_home(home, told):
    """An empty text would be the present one."""
    with pytest.raises(ValueError, match=told):
        Workshop(home)


def test_a_function_runs_where_it_was_submitted(either, tmp_path, monkeypatch):
    """As a command does: `shop.submit(pd.read_csv, "year.csv")` is meant from here."""
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        monkeypatch.chdir(folder)
        assert either.submit(os.getcwd).result(20) == str(folder)
    folder.rmdir()
    assert either.submit(pow, 2, 3).result(20) == 8


def test_a_function_whose_folder_is_gone_runs_in_no_other_callers(shop, tmp_path, monkeypatch):
    """What it writes by a relative path must not land there."""
    other, gone = tmp_path / "other", tmp_path / "gone"
    for folder in (other, gone):
        folder.mkdir()
    waits = tmp_path / "waits"

    def await_it():
        while not waits.exists():
            time.sleep(0.01)

    monkeypatch.chdir(other)
    holding = [shop.submit(await_it) for _ in range(2)]  # of both workers, in that folder
    monkeypatch.chdir(gone)
    after = shop.submit_with(os.getcwd, options={"after": holding})
    gone.rmdir()
    waits.touch()
    assert after.result(20) not in {str(other), str(gone)}


def test_a_workshop_is_opened_where_the_folder_is_gone(tmp_path):
    """Its workers start there too, and go where a function was submitted."""
    ran = subprocess.run(
        [sys.executable, "-P", "-c", NOWHERE, str(tmp_path / "home"), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert ran.stdout.splitlines() == ["8", str(tmp_path)], ran.stderr


def test_a_function_finds_its_own_workshop(shop, home):
    """`Workshop()` in a task is the one that the task is of, not that of the usual home."""

    def within():
        with Workshop() as own:
            return str(own.home.root), own.is_attached

    assert shop.submit(within).result(30) == (str(home.resolve()), True)


def test_a_task_is_named_by_whatever_has_its_id(either):
    """Its future, a live view, a model of the state; an id that is no task's is refused."""
    future = either.submit(pow, 2, 3)
    assert either.result(future, 20) == 8
    model = next(model for model in either.state.tasks if model.task_id == future.task_id)
    assert either.result(model) == either.result(future.task) == 8
    assert either.output(future) == ""
    for named in (future.task, model, [model, future.task]):
        assert either.run("true", after=named).result(20) is None
    either.cancel(future.task)
    for ask in (either.cancel, either.output, either.result):
        with pytest.raises(Refused, match="no task 'nope'"):
            ask("nope")


def test_output_is_whole(either):
    """Also where it takes several pieces, and only its part where that is asked for."""
    future = either.run("sh", "-c", "yes äöü | head -c 2500000")
    assert future.result(30) is None
    text = "äöü\n" * 357_143
    assert future.output == text.encode()[:2_500_000].decode("utf-8", "replace")
    assert either.output(future, limit=7) == "äöü\n"
    assert either.output(future, offset=-7 * 200_000 - 1, limit=1_200_000).count("ä") > 171_000
