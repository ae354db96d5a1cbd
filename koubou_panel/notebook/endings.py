"""What a notebook keeps of a task's display: when the task has ended, the still of that end.

A front end saves an output as it was told it last, and knows it by its display id (`update_display_data` of Jupyter's
messages). So what goes out with a live card is given one, and it is told anew, once, when its task has ended: at the
end of a cell, before Jupyter calls the cell done, since nbclient hears nothing after that; else from a thread, whatever
the kernel does meanwhile. Nothing is told once the kernel was asked to stop: a task that ends with its kernel has not
ended for the notebook.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any

EXEC = "application/vnd.holoviews_exec.v0+json"
AFTER_S = 0.5  # the cell that waited for the task tells it, if it ends by then; and the card its last words
CELL_LIMIT_S = 5.0

Bundle = tuple[dict[str, str], dict[str, Any]]

log = logging.getLogger(__name__)


class _Open:
    """A display whose task has not ended, as far as the front end was told."""

    def __init__(self, future: Future[Any], bundle: Callable[[], Bundle | None]) -> None:
        self.future = future
        self.bundle = bundle
        self.shown_as = ""
        self.told = threading.Event()


class Endings:
    """The displays of one IPython kernel that are to be told anew. Any thread.

    Args:
        kernel: where they are.
        later: calls a function after some seconds, on a thread that may wait.
    """

    def __init__(self, kernel: Any, later: Callable[[float, Callable[[], None]], None]) -> None:
        """None yet."""
        self._kernel = kernel
        self._later = later
        self._open: dict[str, _Open] = {}
        self._telling: set[_Open] = set()
        self._lock = threading.Lock()
        self._hooked = threading.local()
        kernel.shell.events.register("post_run_cell", self._after_cell)

    def __len__(self) -> int:
        """How many have not been told of an end."""
        return len(self._open)

    def follow(self, display_id: str, future: Future[Any], bundle: Callable[[], Bundle | None]) -> None:
        """Tell the display anew when `future` is done; call it before, and on the thread where, the display goes out.

        Args:
            display_id: what its metadata are known by.
            future: the task's.
            bundle: makes what is told then, on any thread; None: there is nothing to tell.
        """
        self._hook()
        self._open[display_id] = _Open(future, bundle)
        future.add_done_callback(lambda _: self._later(AFTER_S, partial(self._tell, display_id)))

    # -- what goes out ----------------------------------------------------------------------------------------

    def _hook(self) -> None:
        """See what goes out from this thread: ipykernel asks each thread's own."""
        shell = self._kernel.shell
        publisher, shown = shell.display_pub, shell.displayhook
        if hasattr(publisher, "register_hook") and not hasattr(self._hooked, "by_publisher"):
            self._hooked.by_publisher = True
            publisher.register_hook(self._published)
        if hasattr(shown, "register_hook"):
            if not hasattr(self._hooked, "by_displayhook"):
                self._hooked.by_displayhook = True
                shown.register_hook(self._resulted)
        elif hasattr(shown, "finish_displayhook") and "finish_displayhook" not in vars(shown):
            # ipykernel before 7.4 asks nobody: it sends what has data.
            shown.finish_displayhook = partial(self._finish, shown, shown.finish_displayhook)

    def _finish(self, shown: Any, finish: Callable[[], None]) -> None:
        message = getattr(shown, "msg", None)
        if message and self._resulted(message) is None:
            message["content"]["data"] = {}
        finish()

    def _published(self, message: dict[str, Any]) -> dict[str, Any]:
        """Give one of ours its display id; who takes such an id for something else has it from then on."""
        content = message["content"]
        found = self._open.get(_id_of(content))
        shown_as = content.get("transient", {}).get("display_id", "")
        if found is not None:
            shown_as = content.setdefault("transient", {}).setdefault("display_id", _id_of(content))
        if shown_as:
            for name, other in list(self._open.items()):
                if other is not found and other.shown_as == shown_as:
                    self._open.pop(name, None)
        if found is not None:
            found.shown_as = shown_as
        return message

    def _resulted(self, message: dict[str, Any]) -> dict[str, Any] | None:
        """Show one of ours that is a cell's result as what it displays: JupyterLab keeps the ids of those alone."""
        content = message["content"]
        if _id_of(content) not in self._open:
            return message
        self._kernel.shell.display_pub.publish(content["data"], content["metadata"])
        return None

    # -- what is told anew ------------------------------------------------------------------------------------

    def _after_cell(self, _result: object = None) -> None:
        """On the shell's thread, before the cell is done: tell what has ended, and wait for what is being told."""
        for display_id, found in list(self._open.items()):
            if found.future.done():
                self._tell(display_id)
                self._open.pop(display_id, None)  # or it was never shown
        for telling in list(self._telling):
            telling.told.wait(CELL_LIMIT_S)

    def _tell(self, display_id: str) -> None:
        with self._lock:
            found = self._open.get(display_id)
            if found is None or not found.shown_as:
                return
            del self._open[display_id]
            self._telling.add(found)
        try:
            bundle = None if self._is_stopping() else found.bundle()
            if bundle is not None and not self._is_stopping():
                data, metadata = bundle
                transient = {"display_id": found.shown_as}
                self._kernel.shell.display_pub.publish(data, metadata, transient=transient, update=True)
        except Exception:
            log.exception("the end of a task could not be told to its display")
        finally:
            self._telling.discard(found)
            found.told.set()

    def _is_stopping(self) -> bool:
        """Whether the kernel was asked to stop."""
        kernel = self._kernel
        asked = getattr(kernel, "_shutdown_message", None) is not None
        return asked or bool(getattr(kernel.shell, "exit_now", False)) or sys.is_finalizing()


def _id_of(content: dict[str, Any]) -> str:
    """The id that a display of ours has in its metadata; empty: it is none."""
    about = (content.get("metadata") or {}).get(EXEC)
    return str(about.get("id", "")) if isinstance(about, dict) else ""
