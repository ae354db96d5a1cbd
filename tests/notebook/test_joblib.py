"""joblib's calls as tasks: results, names, limits, errors, and whose workshop."""

from __future__ import annotations

import functools
import math
import os
import pickle
import sqlite3
import subprocess
import sys
import threading
import time
import warnings
from contextlib import closing

import joblib
import numpy as np
import pytest
from joblib import Parallel, delayed
from joblib.parallel import BatchedCalls
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV

from koubou_panel.core.commands import Caller, CancelTask
from koubou_panel.errors import TaskFailure
from koubou_panel.notebook.joblib_arrays import Arrays
from koubou_panel.notebook.joblib_batch import name_of_batch
from koubou_panel.notebook.joblib_calls import Batch, Calls, Part
from koubou_panel.notebook.joblib_pace import Pace


def tasks_of(shop, since=frozenset()):
    """The tasks of joblib's calls, without those of before."""
    tasks = list(shop.shop.state.tasks.values())
    return [task for task in tasks if "joblib" in task.request.labels and task.task_id not in since]


@pytest.fixture
def before(shop):
    """The ids that are there already."""
    return frozenset(shop.shop.state.tasks)


def two_parts(shop):
    """A backend of this workshop, whatever else is open."""
    return joblib.parallel_config(backend="koubou", workshop=shop)


def test_calls_are_tasks_with_their_arguments_in_their_names(shop, before):
    """Results in order; each call is a task that says what it is."""
    with two_parts(shop):
        assert Parallel()(delayed(math.sqrt)(n) for n in range(5)) == [math.sqrt(n) for n in range(5)]
    assert {task.request.name for task in tasks_of(shop, before)} == {f"sqrt({n})" for n in range(5)}
    assert len({task.request.labels["joblib"] for task in tasks_of(shop, before)}) == 1


def test_every_fit_of_a_search_is_a_task(shop, before):
    """GridSearchCV: model, parameters and fold are the task's name, and the search finds what it finds alone."""
    data = make_classification(n_samples=120, random_state=0)
    search = GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, cv=3, n_jobs=2)
    with two_parts(shop):
        search.fit(*data)
    names = {task.request.name for task in tasks_of(shop, before)}
    assert names == {f"LogisticRegression C={c}, fold {k}/3" for c in (0.1, 1) for k in (1, 2, 3)}
    assert search.best_score_ == pytest.approx(search.set_params(n_jobs=1).fit(*data).best_score_)


def test_a_batch_is_one_task(shop, before):
    """`batch_size` puts several calls into one, for calls that take microseconds."""
    with two_parts(shop):
        found = Parallel(n_jobs=2, batch_size=4, pre_dispatch="all")(delayed(abs)(n) for n in range(16))
    assert found == list(range(16))
    assert sorted(task.request.name for task in tasks_of(shop, before)) == [
        f"abs({n}) and 3 more" for n in (0, 12, 4, 8)
    ]


def test_an_exception_comes_back_with_its_traceback_and_the_rest_is_cancelled(shop, before):
    """What a call raised is raised; what had not ended is ended with it, and what was not begun is never submitted."""

    def fail_or_sleep(number):
        if number == 0:
            raise ValueError("zero")
        time.sleep(60)

    with two_parts(shop), pytest.raises(ValueError, match="zero") as raised:
        Parallel(n_jobs=2)(delayed(fail_or_sleep)(n) for n in range(100))
    assert "in fail_or_sleep" in str(raised.value.__cause__)
    tasks = tasks_of(shop, before)
    assert len(tasks) < 10
    deadline = time.monotonic() + 30
    while not all(task.is_finished for task in tasks_of(shop, before)):
        assert time.monotonic() < deadline
    assert {task.status for task in tasks_of(shop, before)} == {"failed", "cancelled"}


def test_a_call_that_somebody_cancels_says_so(shop, before):
    """Cancelled on a page, the call that waits says which one it was."""
    cancelled = threading.Thread(target=_cancel_first, args=(shop, before))
    cancelled.start()
    with two_parts(shop), pytest.raises(TaskFailure, match=r"the call sleep\(60\) was cancelled \(task "):
        Parallel(n_jobs=2)(delayed(time.sleep)(60) for _ in range(2))
    cancelled.join()


def _cancel_first(shop, before):
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        running = [task for task in tasks_of(shop, before) if task.status == "in_progress"]
        if running:
            shop.call(shop.shop.do(CancelTask(running[0].task_id), Caller("test")))
            return


def test_no_more_run_at_once_than_n_jobs(shop, before, tmp_path):
    """`n_jobs=2` on a pool of three workers leaves one to others."""
    shop.scale(3)
    try:
        with two_parts(shop):
            Parallel(n_jobs=2)(delayed(_most_seen)(str(tmp_path), n) for n in range(9))
    finally:
        shop.scale(2)
    assert max(int(path.read_text()) for path in tmp_path.glob("seen-*")) <= 2


def _most_seen(folder, number):
    mark = f"{folder}/here-{number}"
    open(mark, "w").close()  # noqa: PTH123 - a mark
    here = sum(name.startswith("here-") for name in os.listdir(folder))  # noqa: PTH208
    time.sleep(0.02)
    os.unlink(mark)  # noqa: PTH108
    with open(f"{folder}/seen-{number}", "w") as file:  # noqa: PTH123
        file.write(str(here))


def test_minus_one_is_the_most_that_the_pool_may_have(shop):
    """As many as there may be workers, and of one worker joblib still makes tasks."""
    with two_parts(shop):
        assert joblib.effective_n_jobs(-1) == 2
        assert joblib.effective_n_jobs(8) == 2
        assert joblib.effective_n_jobs(1) == 1
        with pytest.raises(ValueError, match="n_jobs == 0"):
            joblib.effective_n_jobs(0)


def test_a_large_array_is_mapped_and_not_copied(shop, before):
    """Written once, read by all; what comes back is an array in memory, and the files are gone."""

    def look(array):
        return type(array).__name__, getattr(array, "filename", None), array[:2]

    array = np.arange(300_000.0)
    with two_parts(shop):
        found = Parallel(n_jobs=2)(delayed(look)(array) for _ in range(4))
    kinds, files, heads = zip(*found, strict=True)
    assert set(kinds) == {"memmap"}
    assert len(set(files)) == 1
    assert type(heads[0]) is np.ndarray
    assert heads[0].tolist() == [0.0, 1.0]
    deadline = time.monotonic() + 10
    while os.path.exists(files[0]):  # noqa: PTH110 - joblib's own process removes it
        assert time.monotonic() < deadline
    payloads = [len(task.request.payload) for task in tasks_of(shop, before)]
    assert max(payloads) < 50_000


def test_an_array_that_calls_have_in_common_is_sent_once_and_is_each_ones_own(shop, before):
    """The first task brings it and lends it to the others; what a call changes in it no other one sees."""

    def total(array):
        array += 1.0
        return float(array.sum()), type(array).__name__

    array = np.zeros(8_000)
    with two_parts(shop):
        found = Parallel(n_jobs=2)(delayed(total)(array) for _ in range(6))
    assert found == [(8_000.0, "ndarray")] * 6
    assert not array.any()
    sizes = sorted(_payload_sizes(shop, before))
    assert sizes[-1] > 64_000
    assert sizes[-2] < 16_000


def _payload_sizes(shop, before):
    with closing(sqlite3.connect(shop.home.database)) as archive:
        found = archive.execute("SELECT task_id, length(payload) FROM task").fetchall()
    ours = {task.task_id for task in tasks_of(shop, before)}
    return [size for task_id, size in found if task_id in ours]


def test_a_parallel_that_is_used_again_has_the_arrays_of_this_call(shop):
    """What the workers still hold of the call before is not taken for it."""
    with two_parts(shop):
        again = Parallel(n_jobs=2)
        for number in range(2):
            array = np.full(5_000, float(number))
            assert set(again(delayed(np.sum)(array) for _ in range(6))) == {5_000.0 * number}


def test_an_array_that_was_changed_is_sent_anew():
    """What is known of it is its content, not that it is the same object."""
    arrays, array = Arrays("call", {}), np.zeros(8_000)
    first = arrays.packed(array)
    arrays.lend(first, "one")
    assert arrays.packed(array).used == ((first.used[0][0], "one"),)
    array[4_321] = 1
    again = arrays.packed(array)
    assert [lender for _, lender in again.used] == [""]
    assert len(again.brought) == 1


def test_what_is_of_main_crosses_by_value_and_the_rest_by_name(monkeypatch):
    """A class that a notebook defines, though no worker has its module."""
    Model = type("Model", (), {"__module__": "__main__"})  # noqa: N806 - a class
    monkeypatch.setattr(sys.modules["__main__"], "Model", Model, raising=False)
    blob = Arrays("call", {}).packed([Model(), "__main__"]).blob
    monkeypatch.delattr(sys.modules["__main__"], "Model")
    made, word = pickle.loads(blob)
    assert (type(made).__name__, word) == ("Model", "__main__")
    assert b"cloudpickle" not in Arrays("call", {}).packed(LogisticRegression()).blob


def test_a_cached_function_of_main_crosses_by_value(monkeypatch):
    """As with `submit`: it is no plain function, but the module that it names is no worker's either."""

    def double(number):
        return 2 * number

    double.__module__, double.__qualname__ = "__main__", "double"
    cached = functools.lru_cache(double)
    monkeypatch.setattr(sys.modules["__main__"], "double", cached, raising=False)
    blob = Arrays("call", {}).packed([(cached, (4,), {})]).blob
    monkeypatch.delattr(sys.modules["__main__"], "double")
    ((made, args, _),) = pickle.loads(blob)
    assert made(*args) == 8


def test_the_shorter_calls_are_the_more_go_together():
    """Each is a task as long as that is worth it; what takes next to nothing is put together step by step."""
    pace = Pace()
    assert (pace.together(), pace.in_one()) == (1, 1)
    pace.learn(1, 1, 0.02, 0.005)
    assert (pace.together(), pace.in_one()) == (6, 1)
    tiny, sizes = Pace(), []
    for _ in range(8):
        calls = tiny.in_one()
        tiny.learn(calls, 1, 20e-6 * calls, 10e-6 * calls)
        sizes.append(calls)
    assert sizes == [1, 2, 4, 8, 16, 32, 64, 128]
    slow = Pace()
    slow.learn(1, 1, 3.0, 3.0)
    assert (slow.together(), slow.in_one(), slow.in_hand()) == (1, 1, None)


def test_calls_that_wait_are_told_of_one_by_one():
    """A download takes next to nothing of the processor, and is no short call for that."""
    pace = Pace()
    pace.learn(1, 1, 60.0, 0.001)
    assert (pace.together(), pace.in_one(), pace.in_hand()) == (1, 1, None)


def test_inner_calls_run_on_threads_of_the_worker(shop):
    """Nested, also by name: nothing waits for a worker that may not come; libraries keep to their share of threads."""

    def outer(backend):
        names = Parallel(n_jobs=2, backend=backend)(delayed(_thread)() for _ in range(4))
        return os.getpid(), names, os.environ["OMP_NUM_THREADS"]

    usual = os.environ.get("OMP_NUM_THREADS")
    with joblib.parallel_config(backend="koubou", workshop=shop, inner_max_num_threads=1):
        for pid, inner, threads in Parallel(n_jobs=2)(delayed(outer)(b) for b in (None, "koubou")):
            assert {where for where, _ in inner} == {pid}
            assert "MainThread" not in {name for _, name in inner}
            assert threads == "1"
    assert shop.submit(_environment).result(20).get("OMP_NUM_THREADS") == usual
    assert usual == "1" or 1 not in shop.submit(_threads_of_libraries).result(20)


def _thread():
    return os.getpid(), threading.current_thread().name


def _threads_of_libraries():
    from threadpoolctl import threadpool_info

    return {pool["num_threads"] for pool in threadpool_info()} if os.cpu_count() > 1 else set()


def _environment():
    return dict(os.environ)


def test_options_are_those_of_a_task(shop, before):
    """Priority and the like hold for every call; an unknown one is refused with the nearest."""
    with joblib.parallel_config(backend="koubou", workshop=shop, priority=3, labels={"study": "a"}):
        Parallel(n_jobs=2)(delayed(abs)(n) for n in range(2))
    assert {task.request.priority for task in tasks_of(shop, before)} == {3}
    assert {task.request.labels["study"] for task in tasks_of(shop, before)} == {"a"}
    with pytest.raises(TypeError, match="unknown option 'prioritty'; did you mean 'priority'"):
        joblib.parallel_config(backend="koubou", prioritty=3)
    with pytest.raises(TypeError, match=r"what koubou_panel\.Workshop\(\) opened, not 'x'"):
        joblib.parallel_config(backend="koubou", workshop="x")


def test_what_cannot_be_sent_is_told(shop):
    """A lock cannot cross; joblib raises it where the results are waited for."""
    with two_parts(shop), pytest.raises(TypeError, match="cannot pickle"):
        Parallel(n_jobs=2)(delayed(id)(threading.Lock()) for _ in range(3))


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
def test_what_the_iterator_raises_late_is_raised(shop, error):
    """Also what is no `Exception`, while joblib fetches more calls on another thread than the caller's."""

    def calls():
        for number in range(20):
            yield delayed(abs)(number)
        raise error

    with two_parts(shop), pytest.raises(type(error)):
        Parallel(n_jobs=2)(calls())


def test_an_interrupt_leaves_no_thread_behind(shop, monkeypatch):
    """Between a call's being sent and its being waited for; the same `Parallel` takes calls again."""
    send = Part.send

    def interrupted(part, *rest):
        if part.name == "abs(3)":
            raise KeyboardInterrupt
        send(part, *rest)

    with two_parts(shop), Parallel(n_jobs=2, pre_dispatch="all") as parallel:
        monkeypatch.setattr(Part, "send", interrupted)
        with pytest.raises(KeyboardInterrupt):
            parallel(delayed(abs)(n) for n in range(6))
        deadline = time.monotonic() + 10
        while any(thread.name == "koubou-joblib" for thread in threading.enumerate()):
            assert time.monotonic() < deadline
        monkeypatch.undo()
        assert parallel(delayed(abs)(n) for n in range(4)) == [0, 1, 2, 3]


def test_calls_that_come_after_the_end_are_answered_and_not_sent(shop, before):
    """The thread that is told of ends may be about to give some more while the caller aborts."""
    calls = Calls(shop, 2, {}, Arrays("call", {}), "", fail=[].append)
    calls.abort()
    answered = []
    batch = Batch(BatchedCalls([(abs, (1,), {})], (None, None)), answered.append, 1)
    assert answered == [calls.put(batch)]
    assert tasks_of(shop, before) == []


def test_results_come_as_they_are_made(shop):
    """`return_as="generator"` gives the first while others are to come; left early, the rest is cancelled."""
    with two_parts(shop):
        results = Parallel(n_jobs=2, return_as="generator")(delayed(abs)(n) for n in range(50))
        assert [next(results), next(results)] == [0, 1]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            results.close()
        assert Parallel(n_jobs=2)(delayed(abs)(n) for n in range(4)) == [0, 1, 2, 3]


def test_a_timeout_ends_the_wait(shop):
    """`Parallel(timeout=…)` is kept, and what ran is ended."""
    with two_parts(shop), pytest.raises(joblib.parallel.TimeoutError):
        Parallel(n_jobs=2, timeout=0.3)(delayed(time.sleep)(30) for _ in range(2))


def test_calls_go_to_the_workshop_that_was_opened_last(attached, before, shop):
    """Without a name, the one that this process opened last; here it is attached to another's."""
    Parallel(n_jobs=2, backend="koubou")(delayed(abs)(n) for n in range(3))
    assert {task.request.submitted_by for task in tasks_of(shop, before)} != set()


@pytest.mark.parametrize("order", ["koubou_panel, joblib", "joblib, koubou_panel"])
def test_the_name_is_known_in_either_order(order, tmp_path):
    """After `import koubou_panel` joblib knows it; no workshop is opened, and joblib is not imported for it."""
    first, second = order.split(", ")
    code = (
        f"import sys, {first}\nassert ('joblib' in sys.modules) == {first == 'joblib'}\nimport {second}\n"
        "import joblib.parallel as p\nassert 'koubou' in p.BACKENDS\n"
        "assert 'koubou_panel.notebook.workshop' not in sys.modules\n"
        "with joblib.parallel_config(backend='koubou'):\n"
        "    print(joblib.Parallel(n_jobs=2)(joblib.delayed(abs)(n) for n in (-1, -2)))\n"
    )
    env = os.environ | {"KOUBOU_HOME": str(tmp_path / "home")}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "[1, 2]\n"), done.stderr


def test_names_are_short_and_say_the_most(shop):
    """Scalars are told, all else by its type; never longer than a task's name may be."""
    assert name_of_batch([(max, (1.5, "text", [1]), {"key": None})]) == "max(1.5, 'text', list, key=None)"
    assert len(name_of_batch([(max, ("x" * 500,) * 9, {})] * 12)) <= 100


def test_what_cannot_be_printed_is_told_by_its_type():
    """A number of more digits than the interpreter prints, and a class whose repr raises."""

    class Shy(int):
        def __repr__(self):
            raise ZeroDivisionError

    assert name_of_batch([(abs, (10**5_000, Shy(3)), {})]) == "abs(int, Shy)"
