"""What a worker does for joblib: opens calls, keeps its libraries to their share of the cores, and calls.

Imported by workers: nothing of the workshop itself.
"""

from __future__ import annotations

import contextlib
import copyreg
import os
import pickle
import sys
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any

from koubou_panel.kinds.function import arguments_of
from koubou_panel.kinds.warm import LASTING

MOST_NAME = 100
MOST_ARGUMENT = 24
MOST_ARGUMENTS = 5
MOST_HELD_BYTES = 64 << 20
FIT = "_fit_and_score"
_PLAIN = (bool, int, float, str, type(None))


class Held:
    """The buffers that tasks here brought or borrowed lately, by their names. They never change."""

    def __init__(self) -> None:
        """None."""
        self._found: OrderedDict[str, bytes] = OrderedDict()
        self._held_bytes = 0

    def get(self, name: str) -> bytes | None:
        """One of them, if it is here."""
        return self._found.get(name)

    def keep(self, brought: Iterable[tuple[str, bytes]]) -> None:
        """Keep these too, and let the oldest go where they are too many."""
        for name, content in brought:
            if name not in self._found:
                self._found[name] = content
                self._held_bytes += len(content)
        while self._held_bytes > MOST_HELD_BYTES:
            self._held_bytes -= len(self._found.popitem(last=False)[1])


_HELD = Held()


def run_batch(blob: bytes, variables: str, used: str = "", *brought: bytes) -> object:
    """The results of packed calls; of one call its result alone.

    Args:
        blob, used, brought: of a `Parcel`; `used` as `NAME:TASK NAME:TASK …`.
        variables: how many threads the libraries may use that are called, as `NAME=NUMBER NAME=NUMBER …`.
    """
    here = dict(_brought(used, brought))
    _HELD.keep(here.items())
    pairs = (each.split(":") for each in used.split())
    # Each call has a copy that it may change, as after ordinary pickling.
    buffers = [bytearray(_borrowed(name, lender) if lender else here[name]) for name, lender in pairs]
    batch = pickle.loads(blob, buffers=buffers)  # noqa: S301 - only a worker opens it
    with _threads(dict(pair.split("=", 1) for pair in variables.split())):
        results = batch()
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        copyreg.pickle(
            numpy.memmap, _in_memory
        )  # a mapped argument that is given back: its file goes with the call
    return results[0] if len(results) == 1 else results


def _brought(used: str, brought: Iterable[bytes]) -> Iterator[tuple[str, bytes]]:
    return zip([each[:-1] for each in used.split() if each.endswith(":")], brought, strict=True)


def _borrowed(name: str, lender: str) -> bytes:
    """A buffer that another task brought."""
    found = _HELD.get(name)
    if found is None:
        _, _, used, *brought = arguments_of(lender)
        lent = dict(_brought(used, brought))  # type: ignore[arg-type]
        _HELD.keep(lent.items())
        found = lent[name]
    return found


def _in_memory(array: Any) -> tuple[Any, ...]:
    import numpy as np

    return pickle.loads, (pickle.dumps(np.array(array, subok=False), protocol=5),)


class _Pools:
    """The thread pools of the libraries that this process has loaded; looked for again when more was imported."""

    def __init__(self) -> None:
        self._controller: Any = None
        self._modules = 0

    def limit(self, threads: int) -> None:
        """Have them use so many threads at most, until another function is to run here."""
        try:
            from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]
        except ImportError:  # then the variables alone do it, for what is loaded from now on
            return
        if self._modules != len(sys.modules):
            LASTING.make_way()
            self._controller = ThreadpoolController()
            self._modules = len(sys.modules)
        if any(pool.get_num_threads() not in (threads, None) for pool in self._controller.lib_controllers):
            LASTING.make_way()
            limited = self._controller.limit(limits=threads)
            limited.__enter__()
            LASTING.keep(run_batch, partial(limited.__exit__, None, None, None))


_POOLS = _Pools()


@contextlib.contextmanager
def _threads(environment: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    try:
        _POOLS.limit(int(environment["OMP_NUM_THREADS"]))
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def name_of_batch(items: list[tuple[Any, tuple[Any, ...], dict[str, Any]]]) -> str:
    """What the task of these calls is called: the first, and how many more."""
    first = _name_of_call(*items[0])
    more = f" and {len(items) - 1} more" if len(items) > 1 else ""
    return first[: MOST_NAME - len(more)] + more


def is_fit(function: Any) -> bool:
    """Whether this is how scikit-learn's searches fit."""
    return _called(function) == FIT


def _called(function: Any) -> str:
    try:
        return str(getattr(function, "__qualname__", None) or getattr(function, "__name__", None) or "")
    except Exception:  # noqa: BLE001 - the user's __getattr__ may raise anything
        return ""


def _name_of_call(function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    name = _called(function) or type(function).__name__
    if name == FIT and args:
        return _name_of_fit(args[0], kwargs)
    said = [_said(value) for value in args] + [f"{key}={_said(value)}" for key, value in kwargs.items()]
    rest = ["…"] if len(said) > MOST_ARGUMENTS else []
    return f"{name}({', '.join(said[:MOST_ARGUMENTS] + rest)})"


def _name_of_fit(estimator: object, kwargs: Mapping[str, Any]) -> str:
    """Of scikit-learn's searches: `SVC C=10 gamma=0.1, fold 2/5`."""
    words = type(estimator).__name__
    fold, parameters = kwargs.get("split_progress"), kwargs.get("parameters") or {}
    which = f", fold {fold[0] + 1}/{fold[1]}" if isinstance(fold, tuple) else ""
    for key, value in parameters.items():
        words += f" {key}={_said(value)}"
    return words[: MOST_NAME - len(which)] + which


def _said(value: object) -> str:
    """A value in a few characters; never raises."""
    try:
        text = _text_of(value)
    except Exception:  # noqa: BLE001 - the user's __repr__ may raise anything, and that of a very large int does
        text = type(value).__name__
    return text if len(text) <= MOST_ARGUMENT else f"{text[: MOST_ARGUMENT - 1]}…"


def _text_of(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return repr(value) if isinstance(value, _PLAIN) else type(value).__name__
