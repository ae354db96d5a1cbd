"""Which runs stood on which worker: each by itself, and where they are many, as many added up."""

from __future__ import annotations

import math
from collections import defaultdict

import pytest

from koubou_panel.core.ports import MOST_SPANS
from koubou_panel.errors import Refused

STATUSES = ("completed", "completed", "completed", "failed", "cancelled")


def ran(tasks, order, start, end, *, worker="worker-1", status="completed", **fields):
    """A task that stood on a worker from `start` to `end`."""
    return tasks.finish(tasks.make(order, **fields), end, status, worker_id=worker, started_at=start)


@pytest.fixture
def filled(archive, tasks):
    """An archive with 900 runs of 3 workers, one after the other: mostly of a second, now and then of a minute."""
    made = []
    for order in range(1, 901):
        lane, place = order % 3, order // 3
        start = 1_000.0 + 2 * place
        end = start + (1.0 if place % 40 else 1.9)
        made.append(ran(tasks, order, start, end, worker=f"worker-{lane + 1}", status=STATUSES[order % 5]))
    made.append(ran(tasks, 901, 1_000.0, 1_400.0, worker="worker-4"))
    archive.commit([tasks.batch(*made)])
    return archive


def sums(spans):
    """(count, busy seconds) by worker and status."""
    found = defaultdict(lambda: [0, 0.0])
    for span in spans:
        cell = found[span.worker_id, span.status]
        cell[0] += span.count
        cell[1] += span.busy_s
    return {key: (count, pytest.approx(busy_s)) for key, (count, busy_s) in found.items()}


def test_each_run_is_told(archive, tasks):
    """A run comes with its task, its worker, its times, how it ended and what it is called."""
    archive.commit(
        [
            tasks.batch(
                ran(tasks, 1, 10.0, 12.5, name="Train"),
                ran(tasks, 2, 11.0, 13.0, worker="worker-2", status="failed", summary="echo Hi"),
                ran(tasks, 3, 13.0, 14.0, status="cancelled", kind="prompt"),
            )
        ]
    )
    found = archive.spans(0.0, 100.0, MOST_SPANS)
    assert found.bin_s == 0
    assert [(span.worker_id, span.start, span.end, span.status, span.label) for span in found.spans] == [
        ("worker-1", 10.0, 12.5, "completed", "Train"),
        ("worker-2", 11.0, 13.0, "failed", "echo Hi"),
        ("worker-1", 13.0, 14.0, "cancelled", "prompt"),
    ]
    assert [(span.task_id, span.count, span.busy_s) for span in found.spans] == [
        ("task-000001", 1, 2.5),
        ("task-000002", 1, 2.0),
        ("task-000003", 1, 1.0),
    ]


@pytest.mark.parametrize(
    ("start", "end", "orders"),
    [(0, 9, []), (9, 10.5, [1]), (12, 13, [1, 2]), (13, 20, [2]), (10.5, 11, [1]), (21, 30, [])],
)
def test_what_stood_over_a_moment_belongs_to_it(archive, tasks, start, end, orders):
    """A run is told where any of it lies between the two moments."""
    archive.commit([tasks.batch(ran(tasks, 1, 10.0, 12.5), ran(tasks, 2, 12.75, 20.0))])
    assert [int(span.task_id[-6:]) for span in archive.spans(start, end, 5).spans] == orders


def test_what_never_ran_stands_nowhere(archive, tasks):
    """A task that was cancelled while it waited has no place, and one that has not ended has none yet."""
    waited = tasks.finish(tasks.make(1), 9.0, "cancelled")
    running = tasks.make(2, status="in_progress", worker_id="worker-1", started_at=8.0)
    archive.commit([tasks.batch(waited, running)])
    assert archive.spans(0.0, 100.0, 5).spans == []
    archive.commit([tasks.batch(touched=[tasks.finish(running, 11.0)])])
    (span,) = archive.spans(0.0, 100.0, 5).spans
    assert (span.worker_id, span.start, span.end) == ("worker-1", 8.0, 11.0)


@pytest.mark.parametrize("most", [40, 100, 333, 900])
def test_what_is_added_up_is_the_same_in_all(filled, most):
    """Of more runs than are wanted no row is left over, and by worker and status they are as many and as long."""
    plain = filled.spans(900.0, 2_000.0, MOST_SPANS)
    added = filled.spans(900.0, 2_000.0, most)
    assert len(plain.spans) == 901
    assert len(added.spans) <= most
    assert added.bin_s > 0
    assert sums(added.spans) == sums(plain.spans)


def test_what_is_long_stays_a_run_of_its_own(filled):
    """A run that is longer than a bin is told by itself; what was added up names no task, and lies in one bin."""
    found = filled.spans(900.0, 2_000.0, 100)
    long = [span for span in found.spans if span.busy_s == 400.0]
    assert [span.task_id for span in long] == ["task-000901"]
    for span in found.spans:
        assert span.count == 1 or not span.task_id
        if not span.task_id:
            assert span.end - span.start < 2 * found.bin_s


@pytest.mark.parametrize("most", [1, 7, 20_000])
def test_no_more_rows_come_than_were_asked_for(filled, most):
    """Whatever there is, the bound holds."""
    assert len(filled.spans(0.0, 1e9, most).spans) <= most


@pytest.mark.parametrize(
    ("start", "end", "most", "field"),
    [
        (2.0, 1.0, 5, "start"),
        (1.0, 1.0, 5, "start"),
        (math.nan, 1.0, 5, "start"),
        (0.0, math.inf, 5, "start"),
        (0.0, 1.0, 0, "most"),
        (0.0, 1.0, MOST_SPANS + 1, "most"),
    ],
)
def test_what_cannot_be_asked_is_refused(archive, start, end, most, field):
    """Moments that are none, or the wrong way round, and a bound that is none, are refused by name."""
    with pytest.raises(Refused) as refusal:
        archive.spans(start, end, most)
    assert refusal.value.field == field
