"""Tasks that follow others: `after`, and futures among the arguments."""

from __future__ import annotations

import asyncio
import operator
import pickle
import threading
import time
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from functools import partial

import pytest

from koubou_panel import DependencyFailed, TaskFailure, Workshop
from koubou_panel.errors import Refused
from koubou_panel.testing import until


@dataclass
class Box:
    """Holds anything, and is pickled as any object."""

    content: object


def opened(box):
    """What a box holds."""
    return box.content


def test_a_future_stands_for_its_result(either):
    """A future as an argument becomes its value in the worker."""
    two = either.submit(pow, 2, 1)
    eight = either.submit(pow, two, 3)
    assert either.submit(operator.add, eight, two).result(20) == 10
    assert eight.task.request.after == (two.task_id,)


def test_a_chain_of_many_runs_in_its_order(either):
    """Each task is given the one before it, however fast they are submitted."""
    future = either.submit(operator.add, 0, 0)
    for _ in range(300):
        future = either.submit(operator.add, future, 1)
    assert future.result(60) == 300


def test_a_future_is_found_at_any_depth(either):
    """In lists, dicts, keywords and objects, once or often."""
    one = either.submit(operator.add, 0, 1)
    nested = [one, {"a": (one, [one])}, Fraction(1, 2)]
    assert either.submit(opened, Box(nested)).result(20) == [1, {"a": (1, [1])}, Fraction(1, 2)]
    assert either.submit(sorted, [2, one], key=None, reverse=True).result(20) == [2, 1]
    assert list(either.map(operator.add, [one, one], [1, 2])) == [2, 3]


def test_a_future_reaches_a_function_that_is_pickled_by_value(either):
    """What only cloudpickle can carry may hold futures too."""
    one = either.submit(operator.add, 0, 1)
    assert either.submit(operator.call, lambda: 5).result(20) == 5
    assert either.submit(lambda pair, f: f(pair[0]), (one,), lambda x: x + 1).result(20) == 2


def test_a_future_that_has_ended_can_be_passed(either):
    """Whether it has ended makes no difference."""
    one = either.submit(operator.add, 0, 1)
    assert one.result(20) == 1
    assert either.submit(operator.add, one, one).result(20) == 2


def test_a_command_stands_for_none(either):
    """A command's future is None, and may be waited for as any."""
    assert either.submit(opened, Box(either.run("true"))).result(20) is None


def test_after_waits_for_success(either, tmp_path):
    """`after` takes futures and ids, of functions and commands, one or many."""
    file = tmp_path / "made"
    first = either.run("sh", "-c", f"sleep 0.3; echo first >> {file}")
    second = either.run("sh", "-c", f"echo second >> {file}", after=first)
    third = either.submit_with(file.read_text, options={"after": [first.task_id, second]})
    assert third.result(20) == "first\nsecond\n"
    assert second.task.waits_for == ()


def test_a_dependent_of_a_failure_says_which_failed(either):
    """The exception names the task that failed and its error; the task itself is cancelled with the reason."""
    bad = either.submit(pow, 2, "x")
    for future in (either.submit(pow, bad, 2), either.run("true", after=[bad])):
        with pytest.raises(DependencyFailed, match="unsupported operand") as raised:
            future.result(20)
        assert isinstance(raised.value, TaskFailure)
        assert (raised.value.dependency, raised.value.reason) == (bad.task_id, "dependency")
        assert bad.task_id in str(raised.value)
        assert not future.cancelled()
        assert isinstance(future.exception(), DependencyFailed)
        assert (future.task.status, future.task.reason) == ("cancelled", "dependency")


def test_a_failure_known_beforehand_is_told_the_same_way(either):
    """A dependency that has failed already, or was cancelled, makes the same exception; those behind it too."""
    bad = either.run("sh", "-c", "exit 3")
    with pytest.raises(TaskFailure, match="code 3"):
        bad.result(20)
    middle = either.run("true", after=bad)
    last = either.run("true", after=middle)
    with pytest.raises(DependencyFailed, match="code 3"):
        middle.result(20)
    with pytest.raises(DependencyFailed) as raised:
        last.result(20)
    assert raised.value.dependency == middle.task_id


def test_a_cancelled_dependency_cancels_what_follows(either):
    """The dependent of a task that a person cancelled fails; the task itself is cancelled as always."""
    first = either.run("sleep", "60")
    second = either.run("true", after=first)
    assert first.cancel()
    with pytest.raises(DependencyFailed, match="cancelled"):
        second.result(20)
    assert first.cancelled()


def test_an_exception_that_crosses_a_process_stays_whole():
    """Code, text and ids of the exception survive a pickle."""
    copy = pickle.loads(pickle.dumps(DependencyFailed("no", task_id="b", dependency="a")))
    assert (copy.message, copy.task_id, copy.dependency) == ("no", "b", "a")


@pytest.mark.parametrize("after", ["0123456789abcd", "nonsense", ""])
def test_an_unknown_task_to_follow_is_refused(either, after):
    """Nothing waits for what does not exist."""
    with pytest.raises(Refused, match="to wait for") as refused:
        either.run("true", after=[after]).result(20)
    assert (refused.value.code, refused.value.field) == ("not_found", "after")


@pytest.mark.parametrize("after", [[1], 5, [None], [["x"]]])
def test_what_is_no_task_is_refused_at_once(either, after):
    """`after` takes futures and ids."""
    with pytest.raises(TypeError, match="neither a task's future nor its id"):
        either.run("true", after=after)


def test_a_future_of_another_workshop_is_refused_at_once(shop, tmp_path):
    """One workshop cannot read another's results."""
    with Workshop(tmp_path / "other", workers=1) as other:
        theirs = other.submit(pow, 2, 2)
        for refused in (
            lambda: shop.submit(pow, theirs, 2),
            lambda: shop.submit(opened, Box([theirs])),
            lambda: shop.run("true", after=theirs),
        ):
            with pytest.raises(TypeError, match="another workshop"):
                refused()


def test_a_future_of_another_executor_is_refused_at_once(shop):
    """A thread pool's future, or asyncio's, is told by name."""
    with ThreadPoolExecutor(1) as pool, pytest.raises(TypeError, match=r"concurrent\.futures.*Future"):
        shop.submit(pow, pool.submit(pow, 2, 2), 2)
    with pytest.raises(TypeError, match=r"concurrent\.futures.*Future"):
        shop.submit(lambda box: box, Box(Future()))

    async def main():
        shop.submit(opened, asyncio.get_running_loop().create_future())

    with pytest.raises(TypeError, match="asyncio"):
        asyncio.run(main())


def test_a_future_inside_the_function_is_refused_at_once(shop):
    """It could not be told from one that is asked there for its result: arguments are the place."""
    two = shop.submit(pow, 2, 1)
    for function in (lambda: two.result() + 1, partial(pow, two)):
        with pytest.raises(TypeError, match="pass it as an argument"):
            shop.submit(function)
        with pytest.raises(TypeError, match="pass it as an argument"):
            shop.map(function, [1])


def test_what_cannot_be_pickled_is_still_told_as_such(shop):
    """A lock is no future: the message speaks of pickling."""
    with pytest.raises(Refused, match="cannot be pickled"):
        shop.submit(opened, Box(threading.Lock())).result(20)


def test_the_future_tells_its_task(either):
    """`future.task` is the task as it stands, with its progress."""
    future = either.submit(time.sleep, 60)

    async def runs():
        task = await either.shop.get(future.task_id)
        return task is not None and task.status == "in_progress"

    either.call(until(runs))
    assert (future.task.run, future.task.progress, future.task.is_finished) == (1, None, False)
    future.cancel()
    with pytest.raises(CancelledError):
        future.result(20)
    assert future.task.is_finished
