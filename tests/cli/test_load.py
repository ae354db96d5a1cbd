"""`koubou load`: what it says was done by when, and the ways in which tasks are submitted."""

from __future__ import annotations

import json
import signal

import pytest

from koubou_panel.cli.load import PROFILES, _plan
from koubou_panel.cli.load_report import Profile, Report, quantiles
from koubou_panel.cli.load_rest import bodies
from koubou_panel.core.records import Request, Task, TaskId, Usage


def ended(task_id: str, status: str = "completed", **more) -> Task:
    """A task that has ended."""
    request = Request(task_id=TaskId(task_id), kind="script", created_at=1.0)
    return Task(request=request, order=1, status=status, started_at=2.0, finished_at=5.0, **more)


def test_a_timeline_counts_up_to_each_moment():
    """Each row has what had been submitted and had ended by then; the last row has all of it."""
    report = Report(Profile("burst", 4, 0.0), "script")
    report.submits = [0.0, 0.0, 1.0, 1.0]
    report.ends = {"completed": [1.0, 3.0], "failed": [2.0], "cancelled": []}
    rows = report.timeline(3)
    assert [row["after_s"] for row in rows] == [1.0, 2.0, 3.0]
    assert [row["submitted"] for row in rows] == [4, 4, 4]
    assert [row["completed"] for row in rows] == [1, 1, 2]
    assert [row["failed"] for row in rows] == [0, 1, 1]
    assert [row["in_flight"] for row in rows] == [3, 2, 1]
    assert Report(Profile("burst", 4, 0.0), "script").timeline() == []


def test_a_report_counts_only_what_it_waits_for():
    """Tasks of others are passed over; each of ours counts once, with its tokens and the first failure."""
    report = Report(Profile("burst", 2, 0.0), "prompt", "rest")
    report.submitted([TaskId("a"), TaskId("b")])
    report.look(ended("x", "failed", message="not ours"))
    report.look(None)
    for _ in range(2):
        report.look(ended("a", usage=Usage(completion_tokens=7)))
    report.look(ended("b", "failed", message="no model"))
    figures = report.figures()
    assert (figures["completed"], figures["failed"], figures["completion_tokens"]) == (1, 1, 7)
    assert figures["wait_s"]["p50"] == 1.0
    assert figures["run_s"]["p99"] == 3.0
    assert report.first_failure == "no model"
    assert quantiles([]) is None


@pytest.mark.parametrize(
    ("given", "count", "rate"),
    [
        ((None, None, None), 50, 5.0),
        ((10, None, 2.0), 10, 5.0),
        ((None, 4.0, 2.0), 8, 4.0),
        ((7, 3.0, None), 7, 3.0),
    ],
)
def test_two_figures_give_the_third(given, count, rate):
    """Of number, rate and duration any two are enough."""
    plan = _plan(PROFILES["custom"], *given)
    assert (plan.count, plan.rate) == (count, rate)


@pytest.mark.parametrize(("kind", "prompts"), [("script", 0), ("prompt", 9), ("mixed", 3)])
def test_mixed_is_two_commands_then_a_prompt(kind, prompts):
    """A third of a mixed load are prompts; all say which load they are of, and end some time."""
    made = list(bodies(Profile("burst", 9, 0.0), kind))
    assert len(made) == 9
    assert sum("prompt" in body for body in made) == prompts
    assert all(body["options"]["labels"] == {"load": "burst"} for body in made)
    assert all(body["options"]["timeout"] for body in made)


def test_load_goes_through_rest(koubou) -> None:
    """`--via rest` delegates as agents do, past the limit of an agent's tasks too, and follows all to their end."""
    done = koubou("load", "burst", "-n", "110", "--via", "rest", "--json")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert (figures["via"], figures["submitted"], figures["completed"]) == ("rest", 110, 110)
    assert figures["timeline"][-1] | {"after_s": 0} == {
        "after_s": 0,
        "submitted": 110,
        "completed": 110,
        "failed": 0,
        "cancelled": 0,
        "in_flight": 0,
    }
    listed = json.loads(koubou("ps", "--text", "load-burst", "--limit", "1", "--json").stdout)
    assert listed["tasks"][0]["submitted_by"] == "rest:koubou-load"


def test_load_shows_what_was_done_by_when(koubou) -> None:
    """For people: a table over time, then the figures."""
    lines = koubou("load", "burst", "-n", "6").stdout.splitlines()
    assert lines[0].split() == ["AFTER", "SUBMITTED", "COMPLETED", "IN", "FLIGHT"]
    assert lines[10].split()[2:] == ["6", "6", "0"]
    assert any(line.startswith("throughput") for line in lines)


def test_prompts_and_commands_are_mixed(koubou) -> None:
    """A mixed load ends with all of it done: the prompts are answered by the model of this machine."""
    done = koubou("load", "burst", "-n", "3", "--kind", "mixed", "--json", timeout=110)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert (figures["completed"], figures["kind"], figures["via"]) == (3, "mixed", "rest")
    assert figures["completion_tokens"] > 0


@pytest.mark.parametrize(
    "args", [("--kind", "function", "--via", "rest"), ("--kind", "prompt", "--via", "link"), ("--kind", "x")]
)
def test_ways_that_do_not_go_are_refused(koubou, args) -> None:
    """A way that a kind cannot go is a usage error that says so."""
    done = koubou("load", *args)
    assert done.returncode == 2
    assert "--via" in done.stderr or "--kind" in done.stderr


def test_what_fails_is_said(koubou) -> None:
    """Where tasks fail, the exit code is 1; where the workshop takes none, it is 4 and says why."""
    assert koubou("drain").returncode == 0
    done = koubou("load", "burst", "-n", "3", "--via", "rest")
    koubou("resume")
    assert done.returncode == 4
    assert "koubou resume" in done.stderr


def test_an_interrupted_load_by_rest_leaves_nothing(koubou) -> None:
    """Ctrl-C waits for what is just being delegated, and cancels all that has not ended."""
    process = koubou.start("load", "custom", "-n", "400", "--rate", "0", "--via", "rest")
    while not json.loads(koubou("ps", "--status", "in_progress", "--text", "load-custom", "--json").stdout)[
        "total"
    ]:
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=90)
    assert process.returncode == 130
    assert "by REST" in out
    assert (
        json.loads(koubou("ps", "--status", "pending", "--text", "load-custom", "--json").stdout)["total"]
        == 0
    )


def test_load_without_a_workshop_says_so(shell) -> None:
    """Nobody answers: exit 3, and the command that starts a workshop."""
    done = shell("load", "burst", "--via", "rest")
    assert done.returncode == 3
    assert "koubou up" in done.stderr
