"""What is to happen when a module is imported: once, and no other import notices."""

from __future__ import annotations

import importlib
import sys
from importlib.machinery import PathFinder
from importlib.util import find_spec

import pytest

from koubou_panel.on_import import on_import


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Gives the name of a new module with that text; what was put before the finders is taken away again."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = list(sys.meta_path)
    names = []

    def make(text="x = 1\n"):
        names.append(f"of_{tmp_path.name}_{len(names)}")
        (tmp_path / f"{names[-1]}.py").write_text(text)
        importlib.invalidate_caches()
        return names[-1]

    yield make
    sys.meta_path[:] = before
    for name in names:
        sys.modules.pop(name, None)


def test_all_who_wait_for_a_module_are_told_once(made):
    """However many wait, also when it was looked for before without being imported, and when it is there already."""
    name, told = made(), []
    on_import(name, lambda module: told.append((1, module.x)))
    on_import(name, lambda module: told.append((2, module.x)))
    assert find_spec(name) is not None
    assert told == []
    importlib.import_module(name)
    assert sorted(told) == [(1, 1), (2, 1)]
    on_import(name, lambda module: told.append((3, module.x)))
    importlib.import_module(made())
    assert told[2:] == [(3, 1)]


def test_a_module_that_failed_is_told_of_when_it_succeeds(made):
    """The first try raises what the module raised."""
    name, told = made("import sys\nif not hasattr(sys, 'koubou_well'): raise ValueError('odd')\nx = 1\n"), []
    on_import(name, told.append)
    with pytest.raises(ValueError, match="odd"):
        importlib.import_module(name)
    assert told == []
    sys.koubou_well = True
    try:
        assert importlib.import_module(name) is told[0]
    finally:
        del sys.koubou_well


def test_an_import_meanwhile_finds_its_module(made):
    """While one goes through the finders, another, of another thread as a rule, imports what is waited for."""
    name, other, told = made(), made(), []

    class Meanwhile:
        def find_spec(self, looked_for, path=None, target=None):
            if looked_for == other:
                importlib.import_module(name)

    sys.meta_path.insert(sys.meta_path.index(PathFinder), Meanwhile())
    on_import(name, told.append)
    assert importlib.import_module(other).x == 1
    assert told == [sys.modules[name]]
