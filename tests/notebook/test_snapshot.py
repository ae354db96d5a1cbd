"""`shop.snapshot()`: values, JSON there and back, and data frames with dtypes that can be worked with."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from datetime import timedelta

import pandas as pd
import pytest

from koubou_panel.errors import Refused
from koubou_panel.notebook.snapshot import Snapshot

WORKERS = 1
LIMIT_S = 90.0


@pytest.fixture(scope="module")
def worked(shop, attached):
    """A workshop where something succeeded, something failed, and something runs."""
    shop.submit(pow, 2, 3).result(LIMIT_S)
    shop.run("sh", "-c", "exit 3", name="<b>bad</b>").exception(LIMIT_S)
    running = shop.submit(time.sleep, 60)
    deadline = time.monotonic() + LIMIT_S
    while (not running.running() or not shop.state.metrics.at) and time.monotonic() < deadline:
        time.sleep(0.01)
    yield shop
    running.cancel()


def test_tasks_are_a_frame_with_sensible_types(worked, either) -> None:
    """By id and newest first; times aware, statuses ordered categories, missing numbers missing."""
    tasks = either.snapshot().tasks
    assert list(tasks["status"]) == ["in_progress", "failed", "completed"]
    assert tasks["status"].cat.ordered
    assert tasks["created_at"].dtype.tz is not None
    assert (tasks["started_at"] >= tasks["created_at"]).all()
    assert tasks["finished_at"].isna().tolist() == [True, False, False]
    assert tasks["exit_code"].dtype == "Int64"
    assert tasks["exit_code"].iloc[1] == 3
    assert tasks["duration_s"].dtype == "float64"
    assert tasks["kind"].dtype == "category"
    assert tasks.groupby("kind", observed=True).size().to_dict() == {"function": 2, "script": 1}
    assert tasks.index.name == "task_id"


def test_workers_and_metrics_are_frames(worked) -> None:
    """Workers by name; samples by an aware moment, as numbers."""
    shot = worked.snapshot()
    assert list(shot.workers["status"]) == ["busy"]
    assert shot.workers["completed"].dtype == "int64"
    assert shot.metrics.index.tz is not None
    assert shot.metrics["cpu_percent"].dtype == "float64"
    assert shot.metrics.index.is_monotonic_increasing


def test_json_goes_there_and_back(worked, tmp_path) -> None:
    """What was written is read as the same snapshot; the text is that of the file."""
    shot = worked.snapshot()
    assert shot.to_json(tmp_path / "now.json") is None
    again = Snapshot.from_json(tmp_path / "now.json")
    assert again.to_dict() == shot.to_dict() == json.loads(shot.to_json())
    assert Snapshot.from_json(shot.to_json()).to_dict() == shot.to_dict()
    pd.testing.assert_frame_equal(again.tasks, shot.tasks)
    pd.testing.assert_frame_equal(again.workers, shot.workers)
    pd.testing.assert_frame_equal(again.metrics, shot.metrics)


def test_an_empty_one_has_its_columns() -> None:
    """With nothing in it, frames have the same columns and types."""
    shot = Snapshot({"koubou": "0", "exported_at": "2026-01-01T00:00:00.000Z"})
    assert {"status", "progress_fraction", "error_type", "use_rss_bytes"} <= set(shot.tasks.columns)
    assert str(shot.tasks["created_at"].dtype).endswith("UTC]")
    assert shot.workers.empty
    assert shot.metrics.empty
    assert shot.metrics.index.tz is not None
    assert "0 tasks" in repr(shot)


def test_since_and_limit_choose(worked) -> None:
    """A limit keeps the newest, a span the latest; what they cannot be is said."""
    assert len(worked.snapshot(limit=1).tasks) == 1
    assert worked.snapshot(since="0s").tasks.empty
    assert len(worked.snapshot(since="1h").tasks) == 3
    with pytest.raises(ValueError, match="30m"):
        worked.snapshot(since="yesterday")
    with pytest.raises(ValueError, match="0 or more"):
        worked.snapshot(limit=-1)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"since": float("inf")}, ValueError, "no calendar has inf"),
        ({"since": "999999999w"}, ValueError, "no calendar has '999999999w'"),
        ({"since": timedelta.max}, ValueError, "no calendar has"),
        ({"since": [1]}, TypeError, r"not \[1\]"),
        ({"limit": "5"}, TypeError, "limit must be a whole number, not '5'"),
    ],
)
def test_what_is_no_moment_or_limit_is_said_in_words(shop, options, error, words) -> None:
    """Never in those of the arithmetic that it led to."""
    with pytest.raises(error, match=words):
        shop.snapshot(**options)


def test_it_tells_what_it_is(worked) -> None:
    """In words, and as a small table; nothing of a task's words is in it."""
    shot = worked.snapshot()
    assert "3 tasks (1 in_progress, 1 completed, 1 failed), 1 workers" in repr(shot)
    assert "<b>" not in shot._repr_html_()
    assert shot.taken_at in shot._repr_html_()


@pytest.mark.parametrize("content", ["{}", "[]", "no", '{"koubou": "1"}'])
def test_other_files_are_refused(content, tmp_path) -> None:
    """A file that is no snapshot is told from one."""
    file = tmp_path / "file.json"
    file.write_text(content)
    with pytest.raises(Refused, match="no snapshot"):
        Snapshot.from_json(file)
    if content.startswith("{"):
        with pytest.raises(Refused, match="is no snapshot"):
            Snapshot.from_json(content)


def test_pandas_is_imported_for_frames_only() -> None:
    """Who wants no frame waits for no pandas."""
    code = (
        "import sys; from koubou_panel.notebook.snapshot import Snapshot;"
        "s = Snapshot({'koubou': '', 'exported_at': ''}); s.to_json(); repr(s);"
        "assert 'pandas' not in sys.modules; s.tasks; assert 'pandas' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=90)
