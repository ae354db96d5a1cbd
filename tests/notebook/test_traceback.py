"""What a person sees of an error in a task: his own lines, of the cell too, and few of ours."""

from __future__ import annotations

import asyncio
import linecache
import sys
import threading
import traceback
from types import SimpleNamespace

import pytest

from koubou_panel.core.records import Request, Task
from koubou_panel.notebook.cells import with_cells
from koubou_panel.notebook.results import failure_of

LIMIT_S = 90.0
ASKED = Request(task_id="t1", kind="function", created_at=0.0, name="f")
CELL = """
# a comment
def outer(x):
    def inner(y):
        return 1 / y
    return inner(x)

def maker():
    return outer
"""


@pytest.fixture
def cell():
    """What a cell of a notebook defines, as IPython compiles it."""
    name = "/tmp/ipykernel_1/4277072385.py"
    linecache.cache[name] = (len(CELL), None, CELL.splitlines(keepends=True), name)
    found = {"__name__": "__main__"}
    exec(compile(CELL, name, "exec"), found)
    yield SimpleNamespace(**found, name=name)
    del linecache.cache[name]


def _places(error):
    return [frame.name for frame in traceback.extract_tb(error.__traceback__)]


def test_the_lines_of_a_cell_are_in_the_remote_traceback(either, cell):
    """With those of the functions in it, and with none of the worker's own."""
    with pytest.raises(ZeroDivisionError) as raised:
        either.submit(cell.outer, 0).result(LIMIT_S)
    lines = str(raised.value.__cause__).splitlines()
    assert f'  File "{cell.name}", line 6, in outer' in lines
    assert "    return inner(x)" in lines
    assert "    return 1 / y" in lines
    assert "function.py" not in str(raised.value.__cause__)


def test_a_function_that_comes_back_leaves_the_cells_own_lines(either, cell):
    """They are whole here, and only some of them came."""
    either.submit(cell.maker).result(LIMIT_S)
    assert linecache.getlines(cell.name) == CELL.splitlines(keepends=True)


def test_a_traceback_here_is_short(either, cell):
    """However often it is asked for, and where it is awaited."""

    async def awaited():
        await future

    future = either.submit(cell.outer, 0)
    here = "test_a_traceback_here_is_short"
    for _ in range(3):
        with pytest.raises(ZeroDivisionError) as raised:
            future.result(LIMIT_S)
        assert _places(raised.value) == [here, "result"]
    with pytest.raises(ZeroDivisionError) as raised:
        asyncio.run(awaited())
    assert _places(raised.value)[-1] == "awaited"


def test_a_wrong_call_is_told_without_the_workers_lines(either, cell):
    """There are no lines of the person's own in it."""
    with pytest.raises(TypeError, match="outer") as raised:
        either.submit(cell.outer, 1, 2).result(LIMIT_S)
    assert "outer() takes 1 positional argument" in str(raised.value.__cause__)


def test_cells_are_called_as_the_notebook_calls_them(monkeypatch):
    """In a traceback and in the words for a crash; what is no cell keeps the name of its file, outside all do."""
    text = '  File "/tmp/k/1.py", line 2, in f\n    x\n  File "/a/b.py", line 3, in g\n'
    assert with_cells(text) == text
    names = {"/tmp/k/1.py": ("Cell", "In[7]")}
    shell = SimpleNamespace(compile=SimpleNamespace(format_code_name=names.get))
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    assert with_cells(text) == text.replace('File "/tmp/k/1.py"', "Cell In[7]")
    crash = "killed by signal 11 (SIGSEGV) in f, line 2 of /tmp/k/1.py"
    lost = failure_of(Task(request=ASKED, order=1, status="failed", reason="killed", message=crash))
    assert str(lost) == "killed by signal 11 (SIGSEGV) in f, Cell In[7], line 2"
    assert with_cells(crash.replace("/k/", "/b/")) == crash.replace("/k/", "/b/")


async def _coroutine():
    """To be awaited."""


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda: (n for n in range(3)), "a generator, .* return a list of what it gives"),
        (_coroutine, r"a coroutine, .* calls asyncio\.run with it"),
        (threading.Lock, "a lock, .* return plain data of it"),
    ],
)
def test_a_result_that_cannot_come_says_what_to_return(either, function, words):
    """The error is pickle's own, and says more."""
    future = either.submit(function)
    with pytest.raises(TypeError, match=f"cannot pickle .*; the task's result, {words}"):
        future.result(LIMIT_S)
    assert "never awaited" not in future.output
