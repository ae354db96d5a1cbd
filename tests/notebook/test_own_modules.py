"""What a notebook and its neighbours define: by value where no worker can import it, and as it stands on the disk."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

LIMIT_S = 90.0
USER = """
from {name} import f
def g(): return f() * 10
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module of the user's own, in a folder that is on the path since now."""
    monkeypatch.syspath_prepend(str(tmp_path))
    name = f"own_{tmp_path.name}"

    class Module:
        """It, and another that takes its function from it."""

        def write(self, text):
            """Save it."""
            (tmp_path / f"{name}.py").write_text(text)

        def imported(self, user=USER):
            """As the notebook has it."""
            (tmp_path / f"user_of_{name}.py").write_text(user.format(name=name))
            importlib.invalidate_caches()
            return importlib.import_module(name), importlib.import_module(f"user_of_{name}")

    return Module()


def test_an_edited_module_is_seen_by_every_worker(either, module):
    """By the next task, also where it comes in the same second and is as long; also by those who import from it."""
    module.write("def f(): return 1\n")
    own, user = module.imported()
    for number in (1, 2, 3):
        module.write(f"def f(): return {number}\n")
        found = [either.submit(function) for function in (own.f, user.g, lambda: own.f() + 0) * 4]
        assert [future.result(LIMIT_S) for future in found] == [number, number * 10, number] * 4


def test_an_edited_module_of_a_folder_without_init_is_seen(shop, tmp_path, monkeypatch):
    """Also by `from folder import module`, in the function and in a module."""
    monkeypatch.syspath_prepend(str(tmp_path))
    name = f"folder_{tmp_path.name}"
    (tmp_path / name).mkdir()
    (tmp_path / f"of_{name}.py").write_text(f"from {name} import helpers\ndef g(): return helpers.f()\n")
    (tmp_path / name / "helpers.py").write_text("def f(): return 1\n")
    own = importlib.import_module(f"of_{name}")
    for number in (1, 2):
        (tmp_path / name / "helpers.py").write_text(f"def f(): return {number}\n")
        found = [shop.submit(function) for function in (own.g, lambda: own.g() + 0) * 4]
        assert [future.result(LIMIT_S) for future in found] == [number] * 8


FAILS = """
def g():
    import {name}
    return {name}.f()
"""
FORGETS = """
import {name}
def g(name):
    import sys
    if name:
        del sys.modules[name]
        raise ValueError(name)
    return {name}.f()
"""


def test_what_a_failed_run_imported_is_seen_when_it_was_mended(shop, module):
    """A module that the function itself imports, of which the one run failed: by the next."""
    module.write("def f(): raise ValueError('bug')\n")
    _, user = module.imported(FAILS)
    assert type(shop.submit(user.g).exception(LIMIT_S)) is ValueError
    module.write("def f(): return 'mended'\n")
    assert [future.result(LIMIT_S) for future in [shop.submit(user.g) for _ in range(8)]] == ["mended"] * 8


def test_a_task_may_remove_a_module_itself(shop, module):
    """Its worker goes on, and sees what is edited afterwards."""
    module.write("def f(): return 1\n")
    own, user = module.imported(FORGETS)
    assert [future.result(LIMIT_S) for future in [shop.submit(user.g, None) for _ in range(8)]] == [1] * 8
    assert type(shop.submit(user.g, own.__name__).exception(LIMIT_S)) is ValueError
    module.write("def f(): return 22\n")
    found = [shop.submit(function) for function in (own.f, lambda: own.f() + 0) * 4]
    assert [future.result(LIMIT_S) for future in found] == [22] * 8


NOTEBOOK = """
import functools, sys
from dataclasses import dataclass
from koubou_panel import Workshop
@dataclass
class Point:
    x: int
    def moved(self, by): return Point(self.x + by)
    @classmethod
    def at(cls, x): return cls(x)
    @staticmethod
    def none(): return None
class Odd(Exception):
    pass
def add(a, b): return a + b
def numbers(n): return list(i * scale for i in range(n))
def pick(n):
    def later():
        yield from range(n)
    return sum(later())
def closure(k): return lambda x: x * k
def fail(): raise Odd("odd")
def calls_itself(n): return n if n < 2 else calls_itself(n - 1) + calls_itself(n - 2)
class Call:
    def __call__(self, x): return x + 1
scale = 3
with Workshop(sys.argv[1], workers=1) as shop:
    moved = shop.submit(Point(1).moved, 4).result()
    assert type(moved) is Point and moved == Point(5), moved
    assert shop.submit(Point.at, 2).result() == Point(2)
    assert shop.submit(Point.none).result() is None
    assert shop.submit(functools.partial(add, 1), b=2).result() == 3
    assert shop.submit(numbers, 3).result() == [0, 3, 6]
    scale = 4
    assert shop.submit(numbers, 3).result() == [0, 4, 8]
    assert shop.submit(pick, 4).result() == 6
    assert list(shop.map(closure(5), [1, 2])) == [5, 10]
    assert shop.submit(calls_itself, 10).result() == 55
    assert shop.submit(Call(), 1).result() == 2
    assert shop.submit(add, [Point(1)], [Point(2)]).result() == [Point(1), Point(2)]
    error = shop.submit(fail).exception()
    assert type(error) is Odd and error.args == ("odd",), repr(error)
    assert "in fail" in str(error.__cause__)
print("well")
"""


def test_all_that_a_notebook_defines_can_be_sent(tmp_path):
    """Functions, closures, methods, generators' bodies, partials, classes, exceptions, and globals as they are."""
    ran = subprocess.run(
        [sys.executable, "-c", NOTEBOOK, str(tmp_path / "home")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ran.stdout, ran.stderr) == ("well\n", "")


def test_what_lies_where_the_notebook_is_now_is_found(either, tmp_path, monkeypatch):
    """A notebook's path has an empty entry for the present folder, which `%cd` changes."""
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    assert either.submit(pow, 2, 2).result(LIMIT_S) == 4
    name = f"here_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text("def f(): return 'here'\n")
    monkeypatch.chdir(tmp_path)
    importlib.invalidate_caches()
    assert either.submit(importlib.import_module(name).f).result(LIMIT_S) == "here"


HOLDER = """
import sys, same
from koubou_panel import Workshop
with Workshop(sys.argv[1], workers=1) as shop:
    print(shop.submit(same.where).result(), flush=True)
    sys.stdin.read()
"""


def test_two_notebooks_modules_of_one_name_are_two(tmp_path):
    """A task has that of its caller, also where the folder in which the workshop was opened has another."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "home")]
    for folder in ("first", "second"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "same.py").write_text(f"def where(): return {folder!r}\n")
    with subprocess.Popen(
        command, cwd=tmp_path / "first", stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline() == "first\n"
        second = subprocess.run(
            command,
            cwd=tmp_path / "second",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        holder.communicate(timeout=LIMIT_S)
    assert (second.stdout, second.stderr) == ("second\n", "")


def test_what_lies_where_the_workshop_was_opened_hinders_no_worker(tmp_path):
    """A file with the name of one of Python's own modules, in a folder from which nobody imports."""
    here = tmp_path / "here"
    here.mkdir()
    (here / "queue.py").write_text("raise RuntimeError('not the one that was meant')\n")
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\nfrom koubou_panel import Workshop\nwith Workshop(sys.argv[1], workers=1) as shop:\n"
        " print(shop.submit(pow, 2, 2).result())\n"
    )
    ran = subprocess.run(
        [sys.executable, script, str(tmp_path / "home")],
        cwd=here,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert (ran.stdout, ran.stderr) == ("4\n", "")


def test_a_present_folder_that_was_removed_hinders_nothing(shop, tmp_path, monkeypatch):
    """There is nothing to import from it."""
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    gone.rmdir()
    assert shop.submit(pow, 2, 2).result(LIMIT_S) == 4


@pytest.mark.parametrize("is_first", [True, False])
def test_of_two_modules_of_one_name_a_task_has_the_notebooks(shop, tmp_path, monkeypatch, is_first):
    """A folder before what is installed wins, one behind does not; and Python's own modules stay what they are."""
    for name in ("yaml", "random"):
        (tmp_path / f"{name}.py").write_text("mine = True\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path] if is_first else [*sys.path, str(tmp_path)])

    def found(name):
        return hasattr(importlib.import_module(name), "mine")

    assert shop.submit(found, "yaml").result(LIMIT_S) is is_first
    assert shop.submit(found, "random").result(LIMIT_S) is False
    monkeypatch.undo()
    assert shop.submit(found, "yaml").result(LIMIT_S) is False
