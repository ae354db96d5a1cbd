"""Progress that libraries do not print where there is no terminal: told as it moves, in workers alone.

joblib says nothing unless asked to, rich draws nothing into a file, `tqdm.notebook` wants a notebook, and tqdm's bars
cannot be read where others print between them: they are looked at here, once they are imported. Of several the
outermost counts.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import wraps
from typing import Any

from koubou_panel import running
from koubou_panel.on_import import on_import


class Meters:
    """What is under way of what can be told."""

    def __init__(self) -> None:
        """Nothing is."""
        self._open: list[object] = []
        self._lock = threading.RLock()  # a bar may be closed by the garbage collector, anywhere

    def begin(self, meter: object) -> None:
        """`meter` counts from now on, unless it is inside another one."""
        with self._lock:
            if not any(each is meter for each in self._open):
                self._open.append(meter)

    def end(self, meter: object) -> None:
        """It counts no more."""
        with self._lock:
            self._open = [each for each in self._open if each is not meter]  # bars compare by their counts
            if not self._open:
                running.hint(None)

    def tell(
        self, meter: object, done: float | None, total: float | None, message: str = "", unit: str = ""
    ) -> None:
        """How far `meter` is; told on if it is the outermost."""
        with self._lock:
            if self._open and self._open[0] is meter:
                running.hint((done, total, unit, message))

    def clear(self) -> None:
        """A task has ended: what it left open counts for no other."""
        with self._lock:
            self._open.clear()


def watch(meters: Meters) -> None:
    """Look at the libraries as they are imported."""
    on_import("joblib.parallel", lambda module: _watch_joblib(module.Parallel, meters))
    on_import("rich.progress", lambda module: _watch_rich(module.Progress, meters))
    on_import("tqdm.std", lambda module: _watch_tqdm(module.tqdm, meters))
    on_import("tqdm.notebook", _plain_tqdm)


def _watch_joblib(parallel: Any, meters: Meters) -> None:
    call, print_progress = parallel.__call__, parallel.print_progress

    @wraps(call)
    def called(self: Any, iterable: Any) -> Any:
        meters.begin(self)
        try:
            return call(self, iterable)
        finally:
            meters.end(self)

    @wraps(print_progress)
    def told(self: Any) -> Any:
        dispatched = getattr(self, "n_dispatched_tasks", None)
        is_all = getattr(self, "_original_iterator", None) is None
        total = getattr(self, "n_tasks", None) or (dispatched if is_all else None)
        meters.tell(self, self.n_completed_tasks, total)
        return print_progress(self)

    parallel.__call__, parallel.print_progress = called, told


def _watch_rich(progress: Any, meters: Meters) -> None:
    def after(method: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(method)
        def watched(self: Any, *args: Any, **kwargs: Any) -> Any:
            found = method(self, *args, **kwargs)
            _tell_rich(self, meters)
            return found

        return watched

    start, stop = progress.start, progress.stop

    @wraps(start)
    def started(self: Any) -> None:
        if not self.disable:
            meters.begin(self)
        start(self)

    @wraps(stop)
    def stopped(self: Any) -> None:
        stop(self)
        meters.end(self)

    progress.start, progress.stop = started, stopped
    progress.update, progress.advance = after(progress.update), after(progress.advance)


def _tell_rich(progress: Any, meters: Meters) -> None:
    """Of several tasks the first that is not finished."""
    tasks = [task for task in progress.tasks if task.visible]
    shown = next((task for task in tasks if not task.finished), tasks[-1] if tasks else None)
    if shown is not None:
        meters.tell(progress, shown.completed, shown.total, str(shown.description))


def _watch_tqdm(bar: Any, meters: Meters) -> None:
    display, close = bar.display, bar.close

    @wraps(display)
    def displayed(self: Any, *args: Any, **kwargs: Any) -> Any:
        meters.begin(self)
        scale = self.unit_scale if type(self.unit_scale) in {int, float} else 1
        total = None if self.total is None else self.total * scale
        unit = "" if self.unit == "it" else str(self.unit)
        meters.tell(self, self.n * scale, total, str(self.desc or "").removesuffix(": "), unit)
        return display(self, *args, **kwargs)

    @wraps(close)
    def closed(self: Any) -> None:
        close(self)
        meters.end(self)

    bar.display, bar.close = displayed, closed


def _plain_tqdm(notebook: Any) -> None:
    """A worker has no notebook to draw in: the plain bars, which are read from the output."""
    from tqdm.std import tqdm, trange

    notebook.tqdm = notebook.tqdm_notebook = tqdm
    notebook.trange = notebook.tnrange = trange
