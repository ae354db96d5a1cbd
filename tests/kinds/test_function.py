"""Kind `function`: callables by reference and by value, whatever they return or raise."""

from __future__ import annotations

import fnmatch
import importlib
import math
import os
import pickle
import sys
import threading
from pathlib import Path

import pytest

from koubou_panel.core.records import Job, Outcome
from koubou_panel.errors import Refused, TaskFailure
from koubou_panel.kinds.function import FunctionKind, result_of
from koubou_panel.kinds.packing import (
    ForeignFuture,
    RemoteTraceback,
    pack,
    pickled_arguments,
    pickled_function,
    plain_arguments,
    short_repr,
    unpack_value,
)


def run(function, *args, **kwargs) -> Outcome:
    """Pack and run a call, as caller and worker do."""
    payload = pack(pickled_function(function), pickled_arguments(args, kwargs), [])
    return FunctionKind().run(Job("t", 1, 0, "function", {}, payload), None)


class HostileError(Exception):
    """An exception that cannot be printed."""

    def __str__(self) -> str:
        raise ValueError("no")

    __repr__ = __str__


class StubbornError(Exception):
    """An exception that cannot be pickled back."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__("stubborn")
        self.lock = threading.Lock()


class Unprintable:
    def __repr__(self) -> str:
        raise ValueError("no")


def raise_hostile():
    """Raise what cannot be printed."""
    raise HostileError


def raise_stubborn():
    """Raise what cannot be pickled."""
    raise StubbornError(1, 2)


def test_returns_the_value():
    """The value comes back as it was."""
    outcome = run(math.hypot, 3, 4)
    assert outcome.reason is None
    assert unpack_value(outcome.value) == 5.0
    assert outcome.result == "5.0"


def test_lambdas_and_closures_go_by_value():
    """What no worker could import is shipped whole."""
    base = 40
    assert unpack_value(run(lambda x: x + base, 2).value) == 42


def test_raises_what_the_function_raised_with_its_traceback():
    """The exception comes back with the worker's traceback as its cause."""
    outcome = run(math.sqrt, -1)
    assert (outcome.reason, outcome.error.type) == ("exception", "ValueError")
    with pytest.raises(ValueError, match="math domain error") as raised:
        unpack_value(outcome.value)
    assert isinstance(raised.value.__cause__, RemoteTraceback)
    assert "kinds/function.py" in str(raised.value.__cause__)


def test_an_exception_that_cannot_be_printed_is_told():
    """An exception whose own str and repr raise still ends the run with words."""
    outcome = run(raise_hostile)
    assert outcome.reason == "exception"
    assert "HostileError" in outcome.message
    assert "its __str__ raised ValueError" in outcome.message


def test_an_exception_that_cannot_be_pickled_becomes_a_task_failure():
    """The caller gets a TaskFailure with the words of what cannot cross."""
    with pytest.raises(TaskFailure, match=r"StubbornError: stubborn .*cannot pickle .*__reduce__") as caught:
        unpack_value(run(raise_stubborn).value)
    assert (caught.value.reason, caught.value.error_type) == ("exception", "StubbornError")


def test_an_exception_that_takes_more_than_it_hands_on_says_so():
    """It is known by its words, and how its class is mended."""

    class OddError(Exception):
        def __init__(self, code, detail):
            super().__init__(code)

    def fail():
        raise OddError(3, "x")

    with pytest.raises(TaskFailure, match=r"OddError: 3 \(.*rebuild a OddError .*'detail'.*super\(\)"):
        unpack_value(run(fail).value)


def test_a_result_that_cannot_be_pickled_is_told():
    """A result that cannot cross fails the run and says why."""
    outcome = run(threading.Lock)
    assert outcome.reason == "exception"
    assert outcome.message.startswith("the result cannot be pickled: ")


def test_a_result_that_cannot_be_printed_is_shortened():
    """A result whose repr raises is told by its type, also a number of more digits than the interpreter prints."""
    assert short_repr(Unprintable()).startswith("<Unprintable")
    assert short_repr(10**5_000) == "<int>"


def raise_surrogate():
    """Raise with a text that is no UTF-8."""
    raise OSError("no file \udcff")


def test_a_message_that_is_no_text_is_spelt_out():
    """A file name of odd bytes in an exception's message can be sent and stored."""
    outcome = run(raise_surrogate)
    assert outcome.message == "OSError: no file \\udcff"
    assert outcome.error.traceback.encode()


def test_a_function_that_cannot_be_pickled_is_refused():
    """The caller is told what cannot cross and what to do instead."""
    lock = threading.Lock()
    with pytest.raises(Refused, match="inside the function"):
        pickled_function(lambda: lock)


def test_an_argument_that_cannot_be_pickled_is_refused():
    """The caller is told that it is an argument."""
    with pytest.raises(Refused, match="an argument cannot be pickled"):
        pickled_arguments((threading.Lock(),), {})


def test_exit_inside_a_function_fails_the_run():
    """SystemExit is the function's own failure and not the worker's end."""
    outcome = run(lambda: sys.exit(3))
    assert outcome.reason == "exception"
    assert outcome.message == "SystemExit: 3"


def test_a_payload_that_cannot_be_opened_fails_at_the_start():
    """A function whose module the worker lacks ends with the reason start."""
    payload = pack(pickle.dumps(math.sqrt).replace(b"math", b"moth"), pickled_arguments((), {}), [])
    outcome = FunctionKind().run(Job("t", 1, 0, "function", {}, payload), None)
    assert outcome.reason == "start"
    assert "could not load the function" in outcome.message


def test_is_never_taken_from_the_network():
    """A function comes from Python on this machine alone."""
    assert not FunctionKind.from_network
    with pytest.raises(Refused, match=r"Workshop\.submit"):
        FunctionKind().prepare({}, b"")


class Promise:
    """Stands for the result of a task."""

    def __init__(self, task_id: str) -> None:
        self.task_id = task_id


class Values:
    """A context that knows the results of tasks."""

    home = "/nonexistent"

    def __init__(self, **values: bytes) -> None:
        self.values = values

    def value_of(self, task_id: str) -> bytes:
        return self.values[task_id]


def run_with(context, function, *args) -> Outcome:
    """Pack and run a call whose promises stand for results that `context` knows."""
    reducers = {Promise: lambda promise: (result_of, (promise.task_id,))}
    payload = pack(pickled_function(function), pickled_arguments(args, {}, reducers), [])
    return FunctionKind().run(Job("t", 1, 0, "function", {}, payload), context)


def test_a_reference_is_replaced_by_the_result():
    """Wherever it stands, with plain pickle and by value; no value stands for None."""
    context = Values(one=pickle.dumps((True, 1)), none=b"")
    outcome = run_with(context, sorted, [5, Promise("one")])
    assert unpack_value(outcome.value) == [1, 5]
    outcome = run_with(context, lambda pair, f: f(*pair), (Promise("one"), Promise("none")), lambda *x: x)
    assert unpack_value(outcome.value) == (1, None)


def test_a_result_that_cannot_be_read_fails_at_the_start():
    """The function is not called with something else in its place."""
    outcome = run_with(Values(), print, Promise("gone"))
    assert (outcome.reason, outcome.error.type) == ("start", "KeyError")
    failed = pickle.dumps((False, (ValueError("no"), "trace")))
    outcome = run_with(Values(bad=failed), print, Promise("bad"))
    assert (outcome.reason, outcome.error.type) == ("start", "ValueError")


def test_a_reducer_may_refuse():
    """What it says reaches the caller as it is, whichever pickle was at work."""

    def refuse(promise: Promise):
        raise ForeignFuture("not this one")

    for args in ((Promise("x"),), (Promise("x"), lambda: 1)):
        with pytest.raises(TypeError, match="not this one"):
            pickled_arguments(args, {}, {Promise: refuse})


def test_plain_arguments_take_the_short_way():
    """Numbers and texts are pickled at once, with what they are called by; anything else goes the long way."""
    assert pickle.loads(plain_arguments((1, "__main__", None), {"b": 2.5})) == (
        (1, "__main__", None),
        {"b": 2.5},
    )
    assert plain_arguments(([],), {}) is None
    assert plain_arguments((), {"b": object}) is None


def test_each_run_finds_the_function_as_it_was_submitted():
    """What a run leaves in global names, closures, defaults, methods' objects and function attributes is gone."""
    names: dict[str, object] = {"math": math, "count": 0, "seen": [], "__name__": "__main__"}
    exec(
        "def number():\n global count, more\n assert 'more' not in globals()\n more = count = count + 1\n"
        " return count\n"
        "def listed(_=[]):\n seen.append(1); _.append(1)\n return len(seen) + len(_)\n"
        "def marked():\n marked.n = getattr(marked, 'n', 0) + 1\n return marked.n\n",
        names,
    )
    kind = FunctionKind()
    for function, first in ((names["number"], 1), (names["listed"], 2), (names["marked"], 1), ([5].pop, 5)):
        payload = pack(pickled_function(function), pickled_arguments((), {}), [])
        outcomes = [kind.run(Job("t", 1, 0, "function", {}, payload), None) for _ in range(3)]
        assert [unpack_value(outcome.value) for outcome in outcomes] == [first] * 3


def test_each_run_finds_folder_variables_and_import_path_as_the_last_one_did(tmp_path, monkeypatch):
    """Whether it returned or raised."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KOUBOU_TEST_OLD", "old")
    was = (Path.cwd(), dict(os.environ), list(sys.path))

    def change(error=None):
        os.chdir("/")
        os.environ["KOUBOU_TEST_NEW"] = "new"
        del os.environ["KOUBOU_TEST_OLD"]
        sys.path.insert(0, "/nowhere")
        if error:
            raise error

    assert run(change).reason is None
    assert (Path.cwd(), dict(os.environ), list(sys.path)) == was
    assert run(change, ValueError("no")).reason == "exception"
    assert (Path.cwd(), dict(os.environ), list(sys.path)) == was
    assert os.getenv("KOUBOU_TEST_OLD") == "old"


def test_functions_with_a_cache_go_by_value():
    """Called by a task and as one; also where they call themselves; and by name where they have one."""
    names: dict[str, object] = {"__name__": "__main__"}
    exec(
        "import functools\n@functools.lru_cache(maxsize=9, typed=True)\n"
        "def fib(n):\n return n if n < 2 else fib(n - 1) + fib(n - 2)\n"
        "def use(n):\n return fib(n), fib.cache_parameters(), fib.cache_info().hits\n",
        names,
    )
    assert unpack_value(run(names["fib"], 20).value) == 6765
    assert unpack_value(run(names["use"], 20).value) == (6765, {"maxsize": 9, "typed": True}, 18)
    by_name = fnmatch._compile_pattern
    assert unpack_value(run(lambda: by_name is fnmatch._compile_pattern).value) is True


@pytest.fixture
def found(monkeypatch, tmp_path):
    """What a worker, which has `base` on its own path, finds in a module: `found(folder, name)`, for a caller there."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "base")])
    modules = sys.modules.copy()
    kind = FunctionKind()

    def ask(folder, name):
        function = pickled_function(lambda: importlib.import_module(name).HERE)
        payload = pack(function, pickled_arguments((), {}), [str(folder)])
        return unpack_value(kind.run(Job("t", 1, 0, "function", {}, payload), None).value)

    yield ask
    sys.modules.update(modules)


def test_two_callers_folders_of_one_name_are_two(found, tmp_path):
    """Also where they have no `__init__.py`, or one of them has."""
    for caller in "abc":
        (tmp_path / caller / "folder_of_two").mkdir(parents=True)
        (tmp_path / caller / "folder_of_two/part.py").write_text(f"HERE = {caller!r}\n")
    (tmp_path / "c/folder_of_two/__init__.py").touch()
    assert [found(tmp_path / caller, "folder_of_two.part") for caller in "abca"] == list("abca")


def test_what_was_edited_before_the_next_callers_task_is_seen(found, tmp_path):
    """Also in a folder that is the worker's own, as that of an editable installation is."""
    (tmp_path / "base").mkdir()
    for number in (1, 22, 333):
        (tmp_path / "base/of_the_worker.py").write_text(f"HERE = {number}\n")
        assert found(tmp_path / f"caller_{number}", "of_the_worker") == number
