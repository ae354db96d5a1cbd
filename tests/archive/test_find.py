"""Questions about tasks: newest first, page by page, and a clear refusal of what cannot be asked."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from koubou_panel.archive.sqlite import Archive
from koubou_panel.core.ports import TaskQuery
from koubou_panel.core.records import STATUSES
from koubou_panel.errors import Refused


def orders(page):
    """The places of a page's tasks."""
    return [task.order for task in page.tasks]


@pytest.fixture
def filled(archive, tasks):
    """An archive of seven tasks."""
    made = [
        tasks.make(1, name="Train", summary="epoch 1"),
        tasks.make(2, kind="function", name="pow", status="in_progress"),
        tasks.finish(tasks.make(3, name="train again", payload=b"p"), 5.0),
        tasks.finish(tasks.make(4, kind="function", summary="100% of pow_er"), 6.0, "failed"),
        tasks.finish(tasks.make(5, name="工房 Ünïcode"), 7.0),
        tasks.finish(tasks.make(6), 8.0, "cancelled"),
        tasks.make(7, kind="function"),
    ]
    archive.commit([tasks.batch(*made)])
    return archive


@pytest.mark.parametrize(
    ("query", "found"),
    [
        (TaskQuery(), [7, 6, 5, 4, 3, 2, 1]),
        (TaskQuery(status="completed"), [5, 3]),
        (TaskQuery(status="pending"), [7, 1]),
        (TaskQuery(kind="function"), [7, 4, 2]),
        (TaskQuery(kind="prompt"), []),
        (TaskQuery(text="TRAIN"), [3, 1]),
        (TaskQuery(text="工房 ünÏ"), [5]),
        (TaskQuery(text="100% of pow_er"), [4]),
        (TaskQuery(text="%"), [4]),
        (TaskQuery(text="_"), [4]),
        (TaskQuery(text=""), [7, 6, 5, 4, 3, 2, 1]),
        (TaskQuery(status="in_progress", kind="function", text="pow"), [2]),
        (TaskQuery(status="failed", text="pow"), [4]),
        (TaskQuery(kind="function", text="pow"), [4, 2]),
    ],
)
def test_finds_what_matches(filled, query, found):
    """Newest first, by status, kind and words in name and summary; wildcards are plain characters."""
    page = filled.find(query)
    assert orders(page) == found
    assert page.total == len(found)
    assert page.cursor is None


def test_pages_follow_each_other(filled):
    """The cursor of a page asks for the next; each tells the total of all; the last has no cursor."""
    first = filled.find(TaskQuery(limit=3))
    second = filled.find(TaskQuery(limit=3, cursor=first.cursor))
    third = filled.find(TaskQuery(limit=3, cursor=second.cursor))
    assert [orders(page) for page in (first, second, third)] == [[7, 6, 5], [4, 3, 2], [1]]
    assert [page.total for page in (first, second, third)] == [7, 7, 7]
    assert third.cursor is None


def test_a_page_that_is_just_full_is_the_last(filled):
    """No cursor leads to an empty page."""
    assert filled.find(TaskQuery(limit=7)).cursor is None


def test_new_tasks_do_not_shift_pages(filled, tasks):
    """Tasks submitted between two pages appear in neither twice."""
    first = filled.find(TaskQuery(limit=3))
    filled.commit([tasks.batch(tasks.make(8))])
    assert orders(filled.find(TaskQuery(limit=3, cursor=first.cursor))) == [4, 3, 2]


def test_records_come_without_payload(filled):
    """A listing carries no opaque bytes."""
    assert all(task.request.payload == b"" for task in filled.find(TaskQuery()).tasks)


@pytest.mark.parametrize("limit", [0, -1, 1_001, 2**70])
def test_a_limit_out_of_range_is_refused(filled, limit):
    """The refusal names the field and its range."""
    with pytest.raises(Refused, match="1 to 1000") as refusal:
        filled.find(TaskQuery(limit=limit))
    assert (refusal.value.code, refusal.value.field) == ("invalid", "limit")


@pytest.mark.parametrize(
    "cursor", ["", "5", "o", "oxyz", "o1 ", "o-1", "o" + "f" * 16, "o1; DROP TABLE task", "o１"]
)
def test_a_cursor_of_ones_own_making_is_refused(filled, cursor):
    """Only what a page gave is taken."""
    with pytest.raises(Refused, match="earlier page") as refusal:
        filled.find(TaskQuery(cursor=cursor))
    assert (refusal.value.code, refusal.value.field) == ("invalid", "cursor")


def test_an_unknown_status_is_refused_with_the_nearest(filled):
    """The refusal says which status may have been meant."""
    with pytest.raises(Refused, match="did you mean 'completed'") as refusal:
        filled.find(TaskQuery(status="complete"))
    assert (refusal.value.field, refusal.value.nearest) == ("status", "completed")


@pytest.mark.parametrize(
    ("query", "index"),
    [
        (TaskQuery(), "INTEGER PRIMARY KEY"),
        (TaskQuery(status="failed"), "standing_by_status"),
        (TaskQuery(status="failed", text="x"), "standing_by_status"),
    ],
)
def test_no_page_sorts_a_whole_table(filled, query, index):
    """Pages walk an index in order: no temporary sort, however many tasks there are."""
    plans = []
    with filled._reader() as reader:
        reader.set_trace_callback(plans.append)
    filled.find(query)
    with filled._reader() as reader:
        reader.set_trace_callback(None)
        statement = next(text for text in plans if "ORDER BY" in text)
        steps = " ".join(row[3] for row in reader.execute(f"EXPLAIN QUERY PLAN {statement}"))
    assert index in steps
    assert "TEMP B-TREE" not in steps


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    made=st.lists(st.tuples(st.sampled_from(STATUSES), st.sampled_from(["script", "function"])), max_size=30),
    status=st.none() | st.sampled_from(STATUSES),
    kind=st.none() | st.sampled_from(["script", "function"]),
    limit=st.integers(1, 8),
    gap=st.integers(1, 2),
    offset=st.integers(0, 40),
)
def test_pages_joined_are_a_plain_filter(tasks, *, made, status, kind, limit, gap, offset):
    """Whatever is asked, walking the cursors gives each match once, newest first; an offset passes over as many."""
    archive = Archive.open(None)
    records = [
        tasks.make(order, kind=of, status=now, finished_at=1.0 if now in ("completed", "failed") else None)
        for order, (now, of) in ((gap * place, one) for place, one in enumerate(made, 1))
    ]
    archive.commit([tasks.batch(*records)])
    expected = [
        task
        for task in reversed(records)
        if status in (None, task.status) and kind in (None, task.request.kind)
    ]
    found, cursor = [], None
    while True:
        page = archive.find(TaskQuery(status=status, kind=kind, limit=limit, cursor=cursor))
        assert page.total == len(expected)
        found += page.tasks
        cursor = page.cursor
        if cursor is None:
            break
    assert found == expected
    page = archive.find(TaskQuery(status=status, kind=kind, limit=limit, offset=offset))
    assert (page.tasks, page.total) == (expected[offset : offset + limit], len(expected))
    if expected:
        after = archive.find(
            TaskQuery(status=status, kind=kind, limit=limit, offset=offset, cursor=f"o{expected[0].order:x}")
        )
        assert after.tasks == expected[1 + offset : 1 + offset + limit]
    archive.close()
