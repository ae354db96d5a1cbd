"""joblib's calls as tasks of a workshop: `joblib.parallel_config(backend="koubou")`.

`koubou_panel/__init__.py` tells joblib the name; this is imported when it is first used.
"""

from __future__ import annotations

import os
from functools import partial
from typing import Any

from joblib.parallel import (
    TASK_ERROR,
    BatchCompletionCallBack,
    FallbackToBackend,
    LokyBackend,
    ParallelBackendBase,
    SequentialBackend,
    ThreadingBackend,
)

from koubou_panel import running
from koubou_panel.core.suggest import unknown
from koubou_panel.notebook.current import CURRENT
from koubou_panel.notebook.joblib_arrays import Arrays
from koubou_panel.notebook.joblib_batch import is_fit
from koubou_panel.notebook.joblib_calls import Answer, Batch, Calls
from koubou_panel.notebook.options import NAMES, check_labels
from koubou_panel.notebook.workshop import Workshop

TASK_VARIABLE = "KOUBOU_TASK_ID"


class JoblibBackend(ParallelBackendBase):  # type: ignore[misc]
    """Each call a task; several are one where `Parallel(batch_size=…)` says so, or where they take next to no time.

    Args:
        workshop: which; otherwise the one that this process opened last, or that of the usual home.
        options: those of `Workshop.submit_with` for every task, such as `priority`.
        joblib_options: joblib's own, `nesting_level` and `inner_max_num_threads`.

    Raises:
        TypeError: an unknown option, or a workshop that is none.
    """

    supports_retrieve_callback = True
    supports_inner_max_num_threads = True
    default_n_jobs = -1

    def __init__(
        self,
        nesting_level: int | None = None,
        inner_max_num_threads: int | None = None,
        workshop: Workshop | None = None,
        **options: Any,
    ) -> None:
        for name in options:
            if name not in NAMES:
                raise TypeError(unknown("option", name, (*NAMES, "workshop")))
        super().__init__(nesting_level=nesting_level, inner_max_num_threads=inner_max_num_threads)
        self._workshop = _checked(workshop)
        self._options = options
        self._calls: Calls | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """In another process it is the backend of what is there."""
        return type(self), (self.nesting_level,)

    @property
    def workshop(self) -> Workshop:
        """Where the calls go."""
        return self._workshop or CURRENT.workshop()

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """How many calls joblib may reckon with at once; 1 lets it call everything in this very process."""
        if n_jobs == 1 or _is_in_task():
            return 1
        return max(2, self._most_at_once(n_jobs))

    def _most_at_once(self, n_jobs: int | None) -> int:
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        most = self.workshop.shop.state.pool.max_workers
        if n_jobs is None:
            return 1
        return max(1, min(n_jobs, most) if n_jobs > 0 else most + 1 + n_jobs)

    def configure(
        self,
        n_jobs: int = 1,
        parallel: Any = None,
        prefer: object = None,
        require: object = None,
        **settings: Any,
    ) -> int:
        """Get ready for the calls of one `Parallel`, and say how many may run at once."""
        if _is_in_task():
            raise FallbackToBackend(_backend_in_task()(nesting_level=self.nesting_level))
        if n_jobs == 1:
            raise FallbackToBackend(SequentialBackend(nesting_level=self.nesting_level))
        at_once = self._most_at_once(n_jobs)
        workshop = _checked(settings.pop("workshop", None)) or self.workshop
        options = self._options | {name: settings.pop(name) for name in NAMES if name in settings}
        check_labels(given := options.get("labels") or {})
        labels = {"joblib": parallel._id[:8]} | dict(given)  # noqa: SLF001 - as joblib's own backends
        self.parallel = parallel
        variables = self._prepare_worker_env(n_jobs=at_once)
        joined = " ".join(f"{name}={value}" for name, value in variables.items())
        arrays = Arrays(parallel._id, settings)  # noqa: SLF001
        options |= {"labels": labels}
        self._calls = Calls(workshop, at_once, options, arrays, joined, fail=partial(_fail, parallel))
        return max(2, at_once)

    def start_call(self) -> None:
        """Take calls: those before may have been aborted."""
        if self._calls is not None:
            self._calls.open()

    def compute_batch_size(self) -> int:
        """How many calls joblib is to give together, where `Parallel(batch_size=…)` leaves it to the backend."""
        return 1 if self._calls is None else self._calls.pace.together()

    def submit(self, func: Any, callback: Answer | None = None) -> object:
        """Have a batch called; `callback` is told when it has been."""
        calls = self._calls
        if calls is None:
            raise RuntimeError("the backend was not configured")
        return calls.put(Batch(func, callback, self._in_one(func, calls)))

    def _in_one(self, func: Any, calls: Calls) -> int:
        """How many calls of a batch are one task: all where the caller said how many."""
        if self.parallel.batch_size != "auto":
            return len(func)
        return 1 if is_fit(func.items[0][0]) else calls.pace.in_one()

    def retrieve_result_callback(self, out: Batch) -> list[object]:
        """The results of a batch that has ended."""
        return out.results()

    def abort_everything(self, ensure_ready: bool = True) -> None:  # noqa: FBT001, FBT002 - joblib's own signature
        """Cancel what has not ended; what runs is ended, with all that it has started."""
        if self._calls is not None:
            self._calls.abort()

    def terminate(self) -> None:
        """The calls are over: their arrays go. The workshop stays."""
        if self._calls is not None:
            self._calls.close()
        self._calls = None


def _checked(workshop: object) -> Workshop | None:
    if workshop is None or isinstance(workshop, Workshop):
        return workshop
    raise TypeError(f"workshop is what koubou_panel.Workshop() opened, not {workshop!r:.80}")


def _fail(parallel: Any, error: BaseException) -> None:
    """Have joblib raise this where the results are waited for, as it does where the caller's iterator fails."""
    with parallel._lock:  # noqa: SLF001 - as joblib does it itself
        if not parallel._aborting:  # noqa: SLF001
            told = BatchCompletionCallBack(0, 1, parallel)
            parallel._register_new_job(told)  # noqa: SLF001
            told._register_outcome({"result": error, "status": TASK_ERROR})  # noqa: SLF001


def _is_in_task() -> bool:
    return running.is_worker() or TASK_VARIABLE in os.environ


def _backend_in_task() -> type[ParallelBackendBase]:
    """In a task nothing is put into the queue that its own worker may be needed for.

    A function calls on threads, as within any other backend; a script is a process of its own, with loky's.
    """
    found: type[ParallelBackendBase] = ThreadingBackend if running.is_worker() else LokyBackend
    return found
