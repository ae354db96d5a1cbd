"""The part of a `Workshop` that is about its workers."""

from __future__ import annotations

from koubou_panel.core.commands import Command, DrainPool, PausePool, ResumePool, ScaleWorkers
from koubou_panel.notebook.options import whole_number
from koubou_panel.notebook.seat import Seat


class PoolControl:
    """How many workers there are, and whether they take work."""

    _seat: Seat

    def scale(self, least: int, most: int | None = None) -> None:
        """Have at least `least` and at most `most` workers; as many as `least` where `most` is not given.

        Raises:
            Refused: bounds that cannot be.
            TypeError: no whole number.
        """
        least = whole_number("least", least)
        self._do(ScaleWorkers(least, least if most is None else whole_number("most", most)))

    def pause(self) -> None:
        """Start no new work until `resume`; what runs goes on, and work is taken."""
        self._do(PausePool())

    def drain(self, *, wait: bool = True, timeout: float | None = None) -> None:
        """Take and start no new work until `resume`; then wait until nothing runs.

        Raises:
            TimeoutError: something runs after `timeout` seconds; the drain goes on.
        """
        self._do(DrainPool())
        if wait:
            self._seat.thread.call(self._seat.until_idle(timeout))

    def resume(self) -> None:
        """Take and start work again, after a pause or a drain."""
        self._do(ResumePool())

    def _do(self, command: Command) -> None:
        self._seat.thread.call(self._seat.do(command))
