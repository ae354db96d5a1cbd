"""The search line: what it asks for, what it refuses, and back to a line."""

from __future__ import annotations

from datetime import UTC, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koubou_panel.core.ports import TaskQuery
from koubou_panel.core.query import (
    QUALIFIERS,
    REASONS,
    Search,
    complete,
    format_search,
    matches,
    parse,
    parts_of,
    task_query,
)
from koubou_panel.core.records import STATUSES, Request, Task, TaskId
from koubou_panel.errors import Refused

NOW = 1_763_769_600.0  # 2025-11-22T00:00:00Z
EAST = timezone(timedelta(hours=9))


@pytest.mark.parametrize(
    ("line", "search"),
    [
        ("", Search()),
        ("   ", Search()),
        ("status:failed", Search(status="failed")),
        ("STATUS:Running", Search(status="in_progress")),
        (
            "status:failed kind:script since:1h train",
            Search(status="failed", kind="script", since="1h", words=("train",)),
        ),
        ('name:"two words" more "of them"', Search(name="two words", words=("more", "of them"))),
        ('script:"say \\"so\\""', Search(script='say "so"')),
        ('"status:failed"', Search(words=("status:failed",))),
        ("Error: std::sort http://here", Search(words=("Error:", "std::sort", "http://here"))),
        ("C:\\there 12:30", Search(words=("C:\\there", "12:30"))),
        ("label:team label:of=a=b label:team", Search(labels=(("team", None), ("of", "a=b")))),
        ('an "open end', Search(words=("an", "open end"))),
        ("reason:timeout worker:worker-1", Search(reason="timeout", worker="worker-1")),
        ("工房 name:ünï", Search(name="ünï", words=("工房",))),
        ('""', Search()),
    ],
)  # fmt: skip
def test_a_line_says_what_to_look_for(line: str, search: Search) -> None:
    """Qualifiers in any order and case, quotation marks around spaces, the rest free text."""
    assert parse(line) == search


@pytest.mark.parametrize(
    ("line", "field", "words"),
    [
        ("statsu:failed", "statsu", "did you mean status:"),
        ("zzz:1", "zzz", "known: status, kind"),
        ("status:faild", "status", "did you mean 'failed'"),
        ("status:foo", "status", "running, waiting"),
        ("status:", "status", "status: wants one of waiting, running"),
        ("reason:tmeout", "reason", "did you mean 'timeout'"),
        ("kind:scrpt", "kind", "did you mean 'script'"),
        ("since:soon", "since", "30m, 2h"),
        ("since:1x", "since", "not '1x'"),
        ("since:2026-13-01", "since", "2026-11-21"),
        ("until:0001-01-01", "until", "2026-11-21"),
        ("status:failed status:completed", "status", "twice"),
        ("label:=x", "label", "label:team=vision"),
        ("x" * 1_001, "q", "1000 characters"),
        ("a " * 40 + "b", None, ""),
        ("\ud800", "q", "UTF-8"),
        (" ".join(f"w{n}" for n in range(33)), "q", "32 words"),
    ],
)
def test_what_makes_no_sense_says_what_to_write(line: str, field: str | None, words: str) -> None:
    """The refusal names the qualifier, and the nearest name or an example."""
    with pytest.raises(Refused) as refusal:
        parse(line, kinds=("function", "prompt", "script"))
    assert refusal.value.code == "invalid"
    assert words in refusal.value.message
    assert field in (None, refusal.value.field)


@pytest.mark.parametrize(
    ("line", "since", "until"),
    [
        ("since:1h", NOW - 3_600, None),
        ("since:1d12h until:30m", NOW - 129_600, NOW - 1_800),
        ("since:2025-11-21", NOW - 86_400 - 9 * 3_600, None),
        ("since:2025-11-21T14:30", NOW - 86_400 + 5.5 * 3_600, None),
        ("until:2025-11-21", None, NOW - 9 * 3_600),
        ("since:today", NOW - 9 * 3_600, None),
        ("since:yesterday until:yesterday", NOW - 86_400 - 9 * 3_600, NOW - 9 * 3_600),
    ],
)
def test_times_are_the_viewers(line: str, since: float | None, until: float | None) -> None:
    """Days begin where the viewer is; a day as an end counts whole."""
    query = task_query(parse(line), now=NOW, zone=EAST)
    assert (query.since, query.until) == (since, until)


def test_a_span_that_ends_before_it_begins_is_refused() -> None:
    """Nothing can be between them, and the refusal says so."""
    with pytest.raises(Refused, match="nothing can be between"):
        task_query(parse("since:1h until:2h"), now=NOW)


@given(
    st.text()
    | st.lists(st.sampled_from([*(f"{key}:" for key in QUALIFIERS), '"', "\\", " ", "a", "1h", "="])).map(
        "".join
    )
)
def test_whatever_is_typed_is_a_search_or_a_refusal(line: str) -> None:
    """Nothing else is raised; what was understood can be written and understood again; completing never fails."""
    for part in parts_of(line):
        assert line[part.begin : part.end]
    for caret in {0, len(line) // 2, len(line)}:
        done = complete(line, caret, {"status": list(STATUSES)})
        assert 0 <= done.begin <= done.end <= len(line)
    try:
        search = parse(line)
        task_query(search, now=NOW)
    except Refused:
        return
    assert parse(format_search(search)) == search


value = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12).filter(str.strip)


@given(
    search=st.builds(
        Search,
        status=st.none() | st.sampled_from(STATUSES),
        kind=st.none() | st.sampled_from(["script", "prompt"]),
        script=st.none() | value,
        name=st.none() | value,
        reason=st.none() | st.sampled_from(REASONS),
        worker=st.none() | value,
        since=st.none() | st.sampled_from(["1h", "2d3h", "today", "2026-11-21"]),
        until=st.none() | st.sampled_from(["5m", "2026-11-21T10:00"]),
        labels=st.lists(
            st.tuples(value.filter(lambda text: "=" not in text), st.none() | value), max_size=3, unique=True
        ).map(tuple),
        words=st.lists(value, max_size=4, unique=True).map(tuple),
    )
)
def test_a_search_is_the_same_after_it_was_written(search: Search) -> None:
    """`parse` gives back what `format_search` wrote, whatever names it has."""
    assert parse(format_search(search)) == search


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("st", ["status:"]),
        ("status:fa", ["status:failed"]),
        ("a status:comp", ["status:completed"]),
        ("script:ni", ['script:"nightly run"', "script:granite"]),
        ("nothing", []),
        ("nokey:x", []),
    ],
)
def test_a_word_is_completed(text: str, items: list[str]) -> None:
    """A qualifier by its beginning; a value by its beginning first, then by what is in it; quoted where it must be."""
    known = {"status": list(STATUSES), "script": ["granite", "nightly run"]}
    done = complete(text, len(text), known)
    assert done.items == items
    assert text[: done.begin].strip() in ("", "a")


def test_after_a_space_all_qualifiers_are_offered() -> None:
    """An empty word may become any of them, and nothing before it is replaced."""
    done = complete("status:failed ", 14, {})
    assert (done.begin, done.end, done.items[0]) == (14, 14, "status:")


def test_one_task_is_looked_at_as_the_archive_does() -> None:
    """Every part of a query counts."""
    request = Request(
        task_id=TaskId("t"),
        kind="script",
        created_at=100.0,
        name="Train",
        summary="python x",
        labels={"a": "b"},
    )
    task = Task(
        request=request, order=1, status="failed", reason="exit", worker_id="worker-1", finished_at=200.0
    )
    kept = {
        "status": "failed",
        "name": "tRA",
        "words": ("train", "PYTHON"),
        "labels": (("a", None),),
        "since": 200.0,
    }
    assert matches(task, TaskQuery(**kept, until=200.5, reason="exit", worker="worker-1", kind="script"))
    wrong = {
        "status": "completed",
        "name": "python",
        "words": ("no",),
        "labels": (("a", "c"),),
        "since": 201.0,
    }
    wrong |= {"until": 200.0, "reason": "timeout", "worker": "worker-2", "kind": "prompt", "script": "s"}
    assert [name for name, value in wrong.items() if matches(task, TaskQuery(**{name: value}))] == []


def test_days_begin_at_midnight_utc_without_a_zone() -> None:
    """UTC is what is meant where nothing is said."""
    assert task_query(parse("since:today"), now=NOW + 5, zone=UTC).since == NOW
