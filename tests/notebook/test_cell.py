"""Which names a cell takes from the notebook, and how it is run."""

from __future__ import annotations

import traceback

import pytest

from koubou_panel.notebook.cell import names_used, run_cell, taken

WORK = """
import asyncio
async def work():
    global loop
    loop = asyncio.get_running_loop()
    await asyncio.sleep(0)
    return 3
"""


@pytest.mark.parametrize(
    ("cell", "used"),
    [
        ("print(x, y)", ["print", "x", "y"]),
        ("x = 1\nprint(x)", ["print"]),
        ("x += 1", ["x"]),
        ("x[0] = y", ["x", "y"]),
        ("del x", ["x"]),
        ("if y:\n    x = 1\nx", ["y", "x"]),
        ("for row in rows:\n    row\nrow", ["rows", "row"]),
        ("import os\nos.getcwd()", []),
        ("def f(a):\n    b = a + g\n    return b\nf(1)", ["g"]),
        ("[i * k for i in rows]", ["rows", "k"]),
        ("(lambda a, b=c: a + b + d)(1)", ["c", "d"]),
        ("class A(B):\n    x = y\n    def f(self):\n        return z", ["B", "y", "z"]),
        ("class A:\n    x: int = x\n    def f(self):\n        k = 1\n        return k", ["x", "int"]),
        ("await work(n)\nasync with lock as held:\n    held", ["work", "n", "lock"]),
        ("async def f():\n    return await g()", ["g"]),
        ("f'{x!r} {y:>{width}}'", ["x", "y", "width"]),
        ("x = x + 1", ["x"]),
        ("try:\n    pass\nexcept Odd as error:\n    error", ["Odd"]),
        ("", []),
    ],
)
def test_names_that_are_read_before_they_are_bound(cell, used):
    """Whatever the statement: what is read from outside, and nothing else."""
    assert set(used) <= set(names_used(cell))
    assert not {"a", "b", "i", "self"} & set(names_used(cell)) - set(used)


def test_what_the_cell_binds_first_is_not_taken():
    """A large table of the same name stays where it is."""
    assert "x" not in names_used("x = 1\nprint(x)")
    assert "os" not in names_used("import os\nos.getcwd()")


def test_no_python_is_told_with_its_line():
    """A mistake is found before anything is sent."""
    with pytest.raises(SyntaxError) as raised:
        names_used("\nx = (", "cell [3]")
    assert (raised.value.filename, raised.value.lineno) == ("cell [3]", 2)


def test_built_ins_are_left_out_unless_they_mean_something_else():
    """`sum` is everywhere; a notebook's own `sum` is sent."""
    assert taken(["sum", "x", "y"], {"sum": sum, "x": 1}) == {"x": 1}
    assert taken(["sum"], {"sum": 5}) == {"sum": 5}


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("1 + x", 3),
        ("1 + x;", None),
        ("y = x", None),
        ("", None),
        ("import asyncio\nawait asyncio.sleep(0)\nx", 2),
        (f"{WORK}task = asyncio.create_task(work())\nawait task", 3),
        (f"{WORK}await asyncio.sleep(0)\ntask = asyncio.create_task(work())\nawait task", 3),
        (f"{WORK}await work()\nasyncio.get_running_loop() is loop", True),
        ("def f():\n    return x\nf()", 2),
        ("from dataclasses import dataclass\n@dataclass\nclass P:\n    n: int\nP(x).n", 2),
    ],
)
def test_the_value_is_that_of_the_last_expression(cell, value):
    """As in a notebook: none behind a semicolon, or where the last line is no expression."""
    assert run_cell(cell, "cell [1]", {"x": 2}, []) == value


def test_names_to_keep_come_with_it():
    """And for one that is not there at the end, why."""
    assert run_cell("a = 1\na + 1", "cell [1]", {}, ["a"]) == (2, {"a": 1})
    value, kept = run_cell("a = 1", "cell [1]", {}, ["a", "b"])
    assert (value, kept["a"], repr(kept["b"])) == (None, 1, "<missing: the cell has not made it>")


def test_a_traceback_names_the_cell_and_shows_its_line():
    """Where it went wrong is seen without the notebook."""
    try:
        run_cell("\nx = 1\nx / 0", "cell [7]", {}, [])
    except ZeroDivisionError:
        text = traceback.format_exc()
    assert 'File "cell [7]", line 3' in text
    assert "x / 0" in text
