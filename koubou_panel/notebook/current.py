"""The workshop that a session means when it names none: joblib's backend and the magics ask here."""

from __future__ import annotations

import os
from threading import Lock
from typing import TYPE_CHECKING
from weakref import ref

if TYPE_CHECKING:
    from koubou_panel.notebook.workshop import Workshop


class Current:
    """The workshops that this process has opened, in order."""

    def __init__(self) -> None:
        """None yet."""
        self._opened: list[ref[Workshop]] = []
        self._kept: Workshop | None = None  # a handle that nobody holds ends
        self._pid = os.getpid()
        self._lock = Lock()

    def note(self, workshop: Workshop) -> None:
        """This one was opened last."""
        with self._lock:
            self._opened = [*self._of_this_process(), ref(workshop)]

    def found(self) -> Workshop | None:
        """The one that was opened last and is still open."""
        with self._lock:
            for each in reversed(self._of_this_process()):
                workshop = each()
                if workshop is not None and not workshop.is_shut:
                    return workshop
        return None

    def workshop(self) -> Workshop:
        """As `found`; where there is none, the one of the usual home, opened now and kept until the process ends."""
        found = self.found()
        if found is not None:
            return found
        from koubou_panel.notebook.workshop import Workshop

        self._kept = Workshop()
        return self._kept

    def _of_this_process(self) -> list[ref[Workshop]]:
        """A fork has the list, but none of the threads behind it."""
        if self._pid != os.getpid():
            self._pid, self._opened = os.getpid(), []
        return [each for each in self._opened if each() is not None]


CURRENT = Current()
