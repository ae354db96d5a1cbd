"""The curves of the runs that go on, until they end and are stored."""

from __future__ import annotations

from koubou_panel.core.curve import Curve, encode_curve
from koubou_panel.core.events import TasksSampled
from koubou_panel.core.records import TaskId

LEAST_SAMPLES = 2


class Curves:
    """One curve for each task that runs, of its present run. Loop thread only."""

    def __init__(self) -> None:
        """None yet."""
        self._curves: dict[TaskId, tuple[int, Curve]] = {}

    def add(self, sample: TasksSampled) -> None:
        """Take in what runs use."""
        for task_id, run, use in sample.uses:
            found = self._curves.get(task_id)
            if found is None or found[0] != run:
                found = self._curves[task_id] = (run, Curve())
            found[1].add(sample.at, use)

    def get(self, task_id: TaskId, run: int) -> Curve | None:
        """The curve so far, if this run of the task was looked at."""
        found = self._curves.get(task_id)
        return None if found is None or found[0] != run else found[1].copy()

    def end(self, task_id: TaskId, run: int) -> bytes | None:
        """The whole curve of a run that ended, to be stored; None for one that was too short to have one."""
        if not self._curves:
            return None
        found = self._curves.pop(task_id, None)
        if found is None or found[0] != run or len(found[1]) < LEAST_SAMPLES:
            return None
        return encode_curve(found[1])
