"""Which ends may wait a moment for others, so that they are stored in one commit.

An end of which nothing follows at once (its worker has enough in hand, more tasks wait for a worker, none for another
task) is told `TOGETHER_S` later at most. Short tasks that end one by one would else cost a step of the hub and a commit
each. Where no more tasks wait, who submits them may be waiting for an end.
"""

from __future__ import annotations

from koubou_panel.core.agenda import Agenda
from koubou_panel.core.commands import Report, RunEnded
from koubou_panel.core.plan import WINDOW_S
from koubou_panel.core.records import WorkerId

TOGETHER_S = 0.005


class Company:
    """What is known of the ends that wait."""

    def __init__(self) -> None:
        """None waits."""
        self._ended_s: dict[WorkerId, list[float]] = {}

    def may_wait(self, report: Report, agenda: Agenda) -> bool:
        """Whether `report` may wait; then it counts as one that does."""
        if type(report) is not RunEnded or agenda.followers or not agenda.waiting():
            return False
        lane = agenda.lanes.get(report.worker_id)
        expected_s = None if lane is None else lane.claims.get(report.outcome.task_id)
        if lane is None or expected_s is None:
            return False
        ended_s = [*self._ended_s.get(report.worker_id, ()), expected_s]
        left, left_s = len(lane.claims) - len(ended_s), lane.load_s - sum(ended_s)
        if left <= 1 or not WINDOW_S / 2 < left_s <= WINDOW_S:  # it is to be given more, or holds a long one
            return False
        self._ended_s[report.worker_id] = ended_s
        return True

    def leave(self) -> None:
        """All that waited is taken in."""
        self._ended_s.clear()
