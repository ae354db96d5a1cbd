"""Questions about tasks: newest first, page by page, and a clear refusal of what cannot be asked."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from koubou_panel.archive import find as finding
from koubou_panel.archive.batch import Batch
from koubou_panel.archive.sqlite import Archive
from koubou_panel.core.ports import TaskQuery
from koubou_panel.core.query import matches
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


def various(tasks, order, status, *, reason, worker, run, took, label, script):
    """A task with all that can be asked for."""
    task = tasks.make(
        order, kind="script" if script else "function", name=f"Train {order % 3}", summary="python x"
    )
    labels = {} if label is None else {"team": label, "n": str(order)}
    request = replace(task.request, labels=labels, script_name=script, spec={"env": {"team": "red"}})
    task = replace(task, request=request, run=run, worker_id=worker if run else None)
    if status in ("pending", "in_progress"):
        return replace(task, status=status)
    why = None if status == "completed" else reason
    return replace(task, status=status, reason=why, finished_at=1_000.0 + order + took)


made_tasks = st.lists(
    st.fixed_dictionaries(
        {
            "status": st.sampled_from(STATUSES),
            "reason": st.sampled_from(["exit", "timeout", "user"]),
            "worker": st.sampled_from(["worker-1", "worker-2", "worker-11"]),
            "run": st.sampled_from([1, 2, 127, 128, 300]),
            "took": st.integers(0, 20),
            "label": st.none() | st.sampled_from(["red", "blue"]),
            "script": st.none() | st.sampled_from(["backup", "report"]),
        }
    ),
    max_size=25,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    made=made_tasks,
    asked=st.fixed_dictionaries(
        {},
        optional={
            "status": st.sampled_from(STATUSES),
            "kind": st.sampled_from(["script", "function"]),
            "script": st.sampled_from(["backup", "none"]),
            "name": st.sampled_from(["train", "1", "python"]),
            "words": st.sampled_from([("train", "python"), ("2",), ("no",)]),
            "reason": st.sampled_from(["exit", "timeout"]),
            "worker": st.sampled_from(["worker-1", "worker-3"]),
            "labels": st.sampled_from([(("team", "red"),), (("team", None), ("n", "3")), (("tea", None),)]),
            "since": st.integers(995, 1_040).map(float),
            "until": st.integers(995, 1_040).map(float),
        },
    ),
    few=st.sampled_from([0, 3, 50_000]),
    count_s=st.sampled_from([None, 0.0, 9.0]),
    limit=st.integers(1, 9),
)
def test_every_question_is_a_plain_filter(tasks, *, made, asked, few, count_s, limit):
    """Whatever is asked together, and however many an index leaves, the tasks are those that match one by one."""
    archive, patch = Archive.open(None), pytest.MonkeyPatch()
    patch.setattr(finding, "FEW", few)
    patch.setattr(finding, "_SLAB", 7)
    records = [various(tasks, order, **one) for order, one in enumerate(made, 1)]
    runs = {task.task_id: (task.request.script_name, None) for task in records if task.request.script_name}
    batch = tasks.batch(*records)
    archive.commit([Batch(tasks=batch.tasks, new=batch.new, script_runs=runs)])
    try:
        query = TaskQuery(**asked, count_s=count_s, limit=limit)
        expected = [task for task in reversed(records) if matches(task, query)]
        found, page = [], archive.find(query)
        total, is_counted = page.total, page.is_counted
        while True:
            found += page.tasks
            if page.cursor is None:
                break
            page = archive.find(replace(query, cursor=page.cursor))
        assert found == expected
        assert is_counted or count_s == 0.0
        if not asked.get("labels") and not asked.get("worker"):
            assert total == len(expected) or (not is_counted and total <= len(expected))
    finally:
        patch.undo()
        archive.close()


def test_a_count_that_is_cut_short_says_so(filled, monkeypatch):
    """The page is whole all the same, and the total is the least that it can be."""
    monkeypatch.setattr(finding, "_SLAB", 2)
    page = filled.find(TaskQuery(kind="function", limit=2, count_s=0.0))
    assert (orders(page), page.is_counted) == ([7, 4], False)
    assert 2 <= page.total <= 3
    assert filled.find(TaskQuery(kind="function", count_s=60.0)).is_counted


@pytest.mark.parametrize(
    "query", [TaskQuery(since=5.0), TaskQuery(worker="w"), TaskQuery(since=1.0, until=2.0, status="failed")]
)
def test_a_time_and_a_worker_are_read_from_an_index(filled, query):
    """No table is walked through where few tasks are in it."""
    plans = []
    with filled._reader() as reader:
        reader.set_trace_callback(plans.append)
    filled.find(query)
    with filled._reader() as reader:
        reader.set_trace_callback(None)
        statement = next(text for text in plans if "ORDER BY near.ord" in text)
        steps = " ".join(row[3] for row in reader.execute(f"EXPLAIN QUERY PLAN {statement}"))
    assert "USING COVERING INDEX standing_by_end" in steps
    assert "SCAN standing" not in steps.replace("SCAN standing USING COVERING INDEX standing_by_end", "")


def test_more_words_than_anybody_types_are_refused(filled):
    """A question is no way to make the database work for minutes."""
    with pytest.raises(Refused, match="at most 32"):
        filled.find(TaskQuery(words=("a",) * 33))
