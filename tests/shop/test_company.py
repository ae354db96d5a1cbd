"""Ends that are stored together: only those of which nothing follows at once."""

from __future__ import annotations

import pytest

from koubou_panel.core.agenda import Agenda, Lane
from koubou_panel.core.commands import RunEnded, WorkerSilent
from koubou_panel.core.ids import make_task_id
from koubou_panel.core.records import Outcome, TaskId, WorkerId
from koubou_panel.shop.company import Company

WORKER = WorkerId("worker-1")
TASKS = [make_task_id(1_800_000_000_000, n) for n in range(6)]


def ended(task_id: TaskId) -> RunEnded:
    """The report of its end."""
    return RunEnded(WORKER, Outcome(task_id, 1))


@pytest.fixture
def agenda():
    """One worker that holds five tasks of 4 ms, and one more that waits."""
    found = Agenda(lambda kind: True)
    found.ready[5].append(make_task_id(1_800_000_000_000, 100))
    lane = found.lanes[WORKER] = Lane()
    for task_id in TASKS[:5]:
        lane.add(task_id, 0.004)
    return found


def test_an_end_waits_while_its_worker_has_enough_in_hand(agenda):
    """Until half of a window is left, where it is to be given more; then none waits."""
    company = Company()
    assert [company.may_wait(ended(task_id), agenda) for task_id in TASKS[:4]] == [True, True, False, False]


def test_an_end_waits_again_once_those_before_were_taken_in(agenda):
    """What was counted of them is in the agenda then."""
    company = Company()
    assert company.may_wait(ended(TASKS[0]), agenda)
    assert company.may_wait(ended(TASKS[1]), agenda)
    for task_id in TASKS[:2]:
        agenda.lanes[WORKER].drop(task_id)
    agenda.lanes[WORKER].add(TASKS[5], 0.004)
    company.leave()
    assert company.may_wait(ended(TASKS[2]), agenda)


def test_an_end_that_a_task_waits_for_does_not_wait(agenda):
    """Nor does any while tasks wait for others."""
    agenda.followers[TASKS[0]] = {TASKS[5]: None}
    assert not Company().may_wait(ended(TASKS[1]), agenda)


def test_an_end_does_not_wait_where_no_more_tasks_do(agenda):
    """Who submits them may wait for it."""
    agenda.ready[5].clear()
    assert not Company().may_wait(ended(TASKS[0]), agenda)


def test_an_end_beside_a_long_task_does_not_wait(agenda):
    """What waits behind it may have to be taken back."""
    agenda.lanes[WORKER].add(TASKS[5], 0.2)
    assert not Company().may_wait(ended(TASKS[0]), agenda)


def test_an_end_that_leaves_a_worker_one_task_does_not_wait(agenda):
    """It is to be given the next one, however long the one may take."""
    lane = agenda.lanes[WORKER] = Lane()
    for task_id in TASKS[:2]:
        lane.add(task_id, 0.015)
    assert not Company().may_wait(ended(TASKS[0]), agenda)


def test_what_is_no_end_of_a_known_run_does_not_wait(agenda):
    """A worker's silence, an end that was told before, one of a worker that has gone."""
    company = Company()
    assert not company.may_wait(WorkerSilent(WORKER), agenda)
    assert not company.may_wait(ended(TASKS[5]), agenda)
    agenda.lanes.clear()
    assert not company.may_wait(ended(TASKS[0]), agenda)
