"""Does something with a module when it is imported, and nothing before: imports nothing itself."""

from __future__ import annotations

import sys
from _thread import get_ident
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


class _Finder:
    """Stands before the finders, for good: one that goes while another thread looks has it miss the next."""

    def __init__(self, name: str, action: Callable[[ModuleType], None]) -> None:
        self._name = name
        self._action = action
        self._is_done = False
        self._looking: set[int] = set()

    def find_spec(
        self,
        name: str,
        path: Sequence[str] | None = None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        """The module's own spec, with the action behind its execution; nothing for any other module."""
        thread = get_ident()
        if name != self._name or self._is_done or thread in self._looking:
            return None
        self._looking.add(thread)  # of two that wait for one module, each finds it by way of the other
        try:
            return self._found(name, path, target)
        finally:
            self._looking.discard(thread)

    def _found(self, name: str, path: Sequence[str] | None, target: ModuleType | None) -> ModuleSpec | None:
        for finder in list(sys.meta_path):
            spec = finder.find_spec(name, path, target) if hasattr(finder, "find_spec") else None
            if spec is not None:
                if spec.loader is not None:
                    self._follow(spec)
                return spec
        return None

    def _follow(self, spec: ModuleSpec) -> None:
        """Have the action called behind the execution of the module of `spec`."""
        loader: Any = spec.loader
        execute = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            if not self._is_done:
                self._is_done = True
                self._action(module)

        loader.exec_module = exec_module


def on_import(name: str, action: Callable[[ModuleType], None]) -> None:
    """Call `action` with module `name` when it has been imported, or now if it has been."""
    module = sys.modules.get(name)
    if module is not None:
        action(module)
    else:
        sys.meta_path.insert(0, _Finder(name, action))
