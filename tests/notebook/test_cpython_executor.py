"""CPython's own tests of executors and futures, run on `Workshop` and its futures.

The file is that of the interpreter, or of Debian's package `libpython3.11-testsuite` (`make cpython-tests`); nothing of
it is copied here. What is not run as it stands is in `REPLACED` (run in a version of our own, below) or in `LEFT_OUT`,
each with its reason; a test of CPython's that is in none of these and not run fails here.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import re
import signal
import sys
import sysconfig
import tempfile
import time
import unittest
import weakref
from concurrent import futures
from concurrent.futures import BrokenExecutor
from pathlib import Path
from pickle import UnpicklingError
from unittest import mock

import pytest

from koubou_panel import Workshop
from koubou_panel.kinds.packing import RemoteTraceback
from koubou_panel.notebook.future import TaskFuture
from koubou_panel.notebook.shared_lock import SharedLock

NAME = "test_concurrent_futures.py"
FOLDERS = [
    Path(sysconfig.get_paths()["stdlib"]) / "test",
    Path("/usr/lib/python3.11/test"),
]
FOUND = next((folder / NAME for folder in FOLDERS if (folder / NAME).is_file()), None)
LIMIT_S = 90.0

if sys.version_info[:2] != (3, 11):
    pytest.skip("CPython has these tests in one file in 3.11 alone", allow_module_level=True)
if FOUND is None:
    WORDS = (
        f"no {NAME} in {' or '.join(map(str, FOLDERS))}: `make cpython-tests` as root on Debian installs it"
    )
    if os.environ.get("CI") == "true":
        pytest.fail(WORDS)
    pytest.skip(WORDS, allow_module_level=True)

# A folder of its own on the path, so that workers find the module by the same name, and nothing else beside it.
FOLDER = tempfile.TemporaryDirectory()
(Path(FOLDER.name) / "cpython_futures.py").symlink_to(FOUND)
sys.path.append(FOLDER.name)
suite = importlib.import_module("cpython_futures")

# What a dead worker breaks is told by the class that all executors of the standard library have in common.
suite.BrokenProcessPool = BrokenExecutor

REPLACED = {
    "test_interpreter_shutdown": "its script imports an executor of concurrent.futures, and its task prints",
    "test_submit_after_interpreter_shutdown": "its script imports an executor of concurrent.futures",
    "test_hang_gh83386": "its script imports an executor of concurrent.futures",
    "test_cancel_futures_wait_false": "its script imports an executor of concurrent.futures",
    "test_context_manager_shutdown": "it makes an executor of concurrent.futures",
    "test_del_shutdown": "it makes an executor of concurrent.futures",
    "test_shutdown_no_wait": "it makes an executor of concurrent.futures",
    "test_max_workers_negative": "the argument is called `workers`",
    "test_map_submits_without_iteration": "its tasks write into the caller's memory",
    "test_executor_map_current_future_cancel": "its tasks write into the caller's memory",
    "test_traceback": "the cause is our own class; the lines are the same",
    "test_killed_child": "one dead worker fails its own task: the pool goes on with another, and is not broken",
    "test_ressources_gced_in_workers": "its argument needs the key of a multiprocessing.Manager",
    "test_error_at_task_unpickle": "a worker lives through what it cannot open, so that the error itself is told",
    "test_exit_at_task_unpickle": "a worker lives through an exit while it opens a task, so that is told",
    "test_error_during_result_unpickle_in_result_handler": "a result is opened by who asks for it: the error is theirs",
    "test_exit_during_result_unpickle_in_result_handler": "a result is opened by who asks for it: the exit is theirs",
    "test_shutdown_deadlock_pickle": "it joins the thread of a ProcessPoolExecutor",
    "test_cancel": "the deliberate difference: a running task is cancelled too",
    "test_repr": "a task's future shows its task's id",
    "test_multiple_set_result": "a task's future shows its task's id",
    "test_multiple_set_exception": "a task's future shows its task's id",
}

LEFT_OUT = {
    "test_initializer": "a workshop's workers have no initializer: they serve many callers",
    "test_threads_terminate": "about the threads of a ThreadPoolExecutor",
    "test_processes_terminate": "about the processes of a ProcessPoolExecutor",
    "test_thread_names_assigned": "about the threads of a ThreadPoolExecutor",
    "test_thread_names_default": "about the threads of a ThreadPoolExecutor",
    "test_pending_calls_race": "its tasks wait for an event in the caller's memory",
    "test_default_workers": "about the size of a ThreadPoolExecutor; a workshop's pool sizes itself",
    "test_saturation": "about the size of the standard pools; a workshop's pool sizes itself",
    "test_idle_thread_reuse": "about the size of a ThreadPoolExecutor; a workshop's pool sizes itself",
    "test_idle_process_reuse_one": "about the size of a ProcessPoolExecutor; a workshop's pool sizes itself",
    "test_idle_process_reuse_multiple": "about the size of a ProcessPoolExecutor; a workshop's pool sizes itself",
    "test_hang_global_shutdown_lock": "makes both standard executors, and no other",
    "test_max_workers_too_large": "about Windows",
    "test_max_tasks_per_child": "a workshop has no such argument",
    "test_max_tasks_per_child_defaults_to_spawn_context": "a workshop has no such argument",
    "test_max_tasks_early_shutdown": "a workshop has no such argument",
    "test_exception_with_success": "it settles the future by hand, by attributes of the standard class",
}

SHARED: list[Workshop] = []


def setUpModule():
    """One workshop with five workers, for all that attach to it."""
    home = Path(FOLDER.name) / "home"
    SHARED.append(Workshop(home, workers=5))
    futures.wait([SHARED[0].submit(time.sleep, 0.3) for _ in range(5)])


def tearDownModule():
    """End it."""
    SHARED.pop().shutdown()


def attached(max_workers=None, mp_context=None):
    """A handle that is attached to the shared workshop."""
    shop = Workshop(SHARED[0].home.root)
    assert shop.is_attached
    return shop


def held(max_workers=None, mp_context=None):
    """A workshop of its own, as a notebook holds it, its workers up."""
    shop = Workshop(tempfile.mkdtemp(dir=FOLDER.name), workers=min(max_workers or 2, 2))
    futures.wait([shop.submit(time.sleep, 0.1) for _ in range(2)])
    return shop


class Attached(suite.ExecutorMixin):
    """Where CPython has a kind of pool: a handle attached to a running workshop."""

    executor_type = staticmethod(attached)

    def get_context(self):
        """None is needed."""


class Held(Attached):
    """Where CPython has a kind of pool: a workshop that this process holds."""

    worker_count = 2
    executor_type = staticmethod(held)


def script(text, home):
    """What a fresh interpreter that runs `text` gives, with `t` a Workshop: (exit code, out, err)."""
    return suite.assert_python_ok(
        "-c",
        f"from koubou_panel import Workshop\nfrom time import sleep\nimport atexit\n"
        f"def opened(): return Workshop({str(home)!r}, workers=1)\n"
        f"def sleep_and_print(s, what):\n    sleep(s)\n    print(what)\n" + text,
        __isolated=False,
    )


class Shutdown(suite.ExecutorShutdownTest):
    """The tests of the end that name executors, with `Workshop` in their place."""

    def home(self):
        """The workshop for scripts: ours where we are attached."""
        root = self.executor.home.root
        return root if self.executor.is_attached else Path(tempfile.mkdtemp(dir=FOLDER.name))

    def outputs(self, home):
        """What all tasks of a workshop printed."""
        return [path.read_text() for path in (home / "output").rglob("*") if path.is_file()]

    def test_interpreter_shutdown(self):
        """The end of the interpreter waits for its tasks."""
        home = self.home()
        _, out, err = script("opened().submit(sleep_and_print, 1.0, 'apple')", home)
        assert (out, err) == (b"", b"")
        assert "apple\n" in self.outputs(home)

    def test_submit_after_interpreter_shutdown(self):
        """At the time of atexit nothing is taken any more."""
        _, out, err = script(
            "@atexit.register\n"
            "def run_last():\n"
            "    try:\n        t.submit(id, None)\n"
            "    except RuntimeError:\n        print('runtime-error')\n        raise\n"
            "t = opened()\nt.submit(id, 42).result()\n",
            self.home(),
        )
        assert "RuntimeError: cannot schedule new futures" in err.decode()
        assert out.strip() == b"runtime-error"

    def test_hang_gh83386(self):
        """A shutdown without waiting lets the tasks end before the interpreter does."""
        home = self.home()
        text = "t = opened()\nt.submit(sleep_and_print, 1.0, 'pear')\nt.shutdown(wait=False)"
        _, out, err = script(text, home)
        assert (out, err) == (b"", b"")
        assert "pear\n" in self.outputs(home)

    def test_cancel_futures_wait_false(self):
        """One that also cancels lets what runs end."""
        home = self.home()
        text = (
            "t = opened()\nf = t.submit(sleep_and_print, .5, 'plum')\n"
            "while not f.running(): sleep(0.01)\nt.shutdown(wait=False, cancel_futures=True)"
        )
        _, out, err = script(text, home)
        assert (out, err) == (b"", b"")
        assert "plum\n" in self.outputs(home)

    def test_context_manager_shutdown(self):
        """The end of a block is a shutdown."""
        with self.executor_type() as executor:
            assert list(executor.map(abs, range(-5, 5))) == [*range(5, 0, -1), *range(5)]
        assert executor.is_shut
        assert executor.holds is None

    def test_del_shutdown(self):
        """A handle that nobody refers to ends after its tasks."""
        executor = self.executor_type()
        results = executor.map(abs, range(-5, 5))
        seat = executor._seat
        handle = weakref.ref(executor)
        del executor
        assert list(results) == [*range(5, 0, -1), *range(5)]
        suite.support.gc_collect()
        assert handle() is None
        seat.join()

    def test_shutdown_no_wait(self):
        """A shutdown without waiting ends after its tasks."""
        executor = self.executor_type()
        results = executor.map(abs, range(-5, 5))
        executor.shutdown(wait=False)
        executor._seat.join()
        assert list(results) == [*range(5, 0, -1), *range(5)]


class AttachedShutdownTest(Shutdown, Attached, suite.BaseTestCase):
    """The end of a handle."""


class HeldShutdownTest(Shutdown, Held, unittest.TestCase):
    """The end of a workshop."""


class AttachedWaitTest(suite.WaitTests, Attached, suite.BaseTestCase):
    """`concurrent.futures.wait`."""


class AttachedAsCompletedTest(suite.AsCompletedTests, Attached, suite.BaseTestCase):
    """`concurrent.futures.as_completed`."""


class Touching:
    """An argument whose end leaves a file."""

    def __init__(self, path):
        """Not yet."""
        self.path = path
        self.owner = os.getpid()

    def __del__(self):
        """Leave it, if this is another process."""
        if os.getpid() != self.owner:
            Path(self.path).touch()


class Executing(suite.ExecutorTest):
    """`submit` and `map`."""

    test_map_chunksize = suite.ProcessPoolExecutorTest.test_map_chunksize
    _test_traceback = suite.ProcessPoolExecutorTest._test_traceback

    def setUp(self):
        """With a folder for what tasks leave."""
        super().setUp()
        self.folder = Path(tempfile.mkdtemp(dir=FOLDER.name))

    def test_max_workers_negative(self):
        """A workshop without workers is none."""
        for number in (0, -1, (0, 0)):
            with pytest.raises(ValueError, match="workers must be greater than 0"):
                Workshop(self.folder, workers=number)

    def test_map_submits_without_iteration(self):
        """A map begins before anybody asks for its results."""
        paths = [self.folder / str(number) for number in range(10)]
        self.executor.map(Path.touch, paths)
        self.executor.shutdown(wait=True)
        assert all(path.exists() for path in paths)

    def test_executor_map_current_future_cancel(self):
        """What a map that timed out has not begun is cancelled, that which was waited for too."""
        with self.executor_type() as pool:
            pool.pause()
            try:
                waiting = pool.map(Path.touch, [self.folder / "second", self.folder / "third"], timeout=0)
                with contextlib.closing(waiting) as results, pytest.raises(TimeoutError):
                    next(results)
                last = pool.submit(pow, 2, 2)
            finally:
                pool.resume()
            last.result(LIMIT_S)
        assert list(self.folder.iterdir()) == []

    def test_traceback(self):
        """The worker's traceback is in that which is shown here."""
        future = self.executor.submit(self._test_traceback)
        with pytest.raises(RuntimeError) as caught:
            future.result()
        cause = caught.value.__cause__
        assert caught.value.args == (123,)
        assert type(cause) is RemoteTraceback
        assert "raise RuntimeError(123) # some comment" in cause.tb
        with suite.support.captured_stderr() as shown:
            sys.excepthook(RuntimeError, caught.value, caught.value.__traceback__)
        assert "raise RuntimeError(123) # some comment" in shown.getvalue()

    def test_killed_child(self):
        """A worker that is killed fails its task as a broken pool would; the next task finds another."""
        crashing = self.executor.submit(_kill_self)
        with pytest.raises(BrokenExecutor):
            crashing.result()
        assert self.executor.submit(pow, 2, 8).result() == 256

    def test_ressources_gced_in_workers(self):
        """An argument is let go of when its task has ended."""
        path = self.folder / "gone"
        self.executor.submit(id, Touching(str(path))).result()
        deadline = time.monotonic() + LIMIT_S
        while not path.exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)


def _kill_self():
    os.kill(os.getpid(), signal.SIGKILL)


class AttachedExecutorTest(Executing, Attached, suite.BaseTestCase):
    """Tasks of a handle."""


class HeldExecutorTest(Executing, Held, unittest.TestCase):
    """Tasks of a workshop that is held here; what takes long and is the caller's alone was looked at above."""

    test_map_timeout = test_free_reference = None


class AttachedDeadlockTest(suite.ExecutorDeadlockTest, Attached, suite.BaseTestCase):
    """Crashes in every place."""

    def test_error_at_task_unpickle(self):
        """What a worker cannot open is told as it is."""
        self._check_crash(UnpicklingError, id, suite.ErrorAtUnpickle())

    def test_exit_at_task_unpickle(self):
        """So is an exit in the middle of opening it."""
        self._check_crash(SystemExit, id, suite.ExitAtUnpickle())

    def test_error_during_result_unpickle_in_result_handler(self):
        """What the caller cannot open is told where it is opened."""
        self._check_crash(UnpicklingError, suite._return_instance, suite.ErrorAtUnpickle, ignore_stderr=True)

    def test_exit_during_result_unpickle_in_result_handler(self):
        """So is an exit in the middle of opening it."""
        self._check_crash(SystemExit, suite._return_instance, suite.ExitAtUnpickle)

    def test_shutdown_deadlock_pickle(self):
        """What could not be pickled does not hold up a shutdown."""
        with self.executor_type() as executor:
            executor.submit(id, 42).result()
            future = executor.submit(id, suite.ErrorAtPickle())
            executor.shutdown(wait=False)
            with pytest.raises(suite.PicklingError):
                future.result()


class Keeper:
    """A workshop that ends what it is asked to at once."""

    def __init__(self):
        """Without futures."""
        self.condition = SharedLock()
        self.made = {}

    def future(self):
        """A new one."""
        future = TaskFuture(str(len(self.made)), self)
        self.made[future.task_id] = future
        return future

    def cancel(self, future):
        """It has ended."""
        future.settle_cancelled()

    def record(self, task_id):
        """Nothing is known."""

    def check_may_wait(self):
        """Any thread may."""


class TaskFutureTest(suite.FutureTests):
    """The tests of `Future`, on a task's."""

    test_exception_with_success = None

    def setUp(self):
        """Have them made by a keeper."""
        super().setUp()
        self.enterContext(mock.patch.object(logging.getLogger(), "handlers", []))  # pytest's
        self.enterContext(mock.patch.object(suite, "Future", Keeper().future))
        old = [name for name in vars(suite) if name.endswith("_FUTURE")]
        for name in old:
            state, error, result = (
                getattr(vars(suite)[name], key) for key in ("_state", "_exception", "_result")
            )
            made = suite.create_future(state, error, result)
            self.enterContext(mock.patch.object(suite, name, made))

    def test_cancel(self):
        """What has not ended is cancelled, running or not."""
        for state in (suite.PENDING, suite.RUNNING):
            assert suite.create_future(state).cancel()
        assert suite.CANCELLED_FUTURE.cancel()
        assert suite.CANCELLED_AND_NOTIFIED_FUTURE.cancel()
        assert not suite.EXCEPTION_FUTURE.cancel()
        assert not suite.SUCCESSFUL_FUTURE.cancel()

    def test_repr(self):
        """Its task, and how it stands."""
        assert re.search("<TaskFuture [0-9]+ pending>", repr(suite.PENDING_FUTURE))
        assert re.search("<TaskFuture [0-9]+ cancelled>", repr(suite.CANCELLED_FUTURE))
        assert re.search("<TaskFuture [0-9]+ finished>", repr(suite.SUCCESSFUL_FUTURE))

    def test_multiple_set_result(self):
        """It is settled once."""
        future = suite.create_future()
        future.set_result(1)
        with pytest.raises(futures.InvalidStateError, match="FINISHED: <TaskFuture"):
            future.set_result(2)
        assert future.result() == 1

    def test_multiple_set_exception(self):
        """With an exception too."""
        future = suite.create_future()
        error = ValueError()
        future.set_exception(error)
        with pytest.raises(futures.InvalidStateError, match="FINISHED: <TaskFuture"):
            future.set_exception(Exception())
        assert future.exception() == error


def names_in(*classes):
    """The names of the tests that classes have."""
    return {
        name
        for kind in classes
        for name in dir(kind)
        if name.startswith("test_") and getattr(kind, name) is not None
    }


def test_every_test_of_cpython_is_accounted_for():
    """Run as it stands, or replaced or left out with a reason that is listed; and nothing is listed for no reason."""
    theirs = [kind for kind in vars(suite).values() if isinstance(kind, type) and names_in(kind)]
    ours = [
        kind for kind in globals().values() if isinstance(kind, type) and issubclass(kind, unittest.TestCase)
    ]
    names, run = names_in(*theirs), names_in(*ours)
    assert names - run - LEFT_OUT.keys() == set()
    assert LEFT_OUT.keys() & run == set()
    assert (LEFT_OUT.keys() | REPLACED.keys()) - names == set()
