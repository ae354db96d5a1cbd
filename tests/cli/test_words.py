"""Numbers and names for people, and the exit codes of `koubou run`."""

from __future__ import annotations

import pytest

from koubou_panel.cli.ending import clean, code_of, say
from koubou_panel.cli.follow import exit_code
from koubou_panel.cli.load import PROFILES, _plan
from koubou_panel.cli.load_report import quantiles
from koubou_panel.cli.run import environment
from koubou_panel.cli.show import (
    clean_lines,
    duration,
    progress_words,
    shortened,
    size,
    state_words,
    status_words,
)
from koubou_panel.cli.tasks import _fields
from koubou_panel.cli.waiting import pool_cause
from koubou_panel.cli.watch import line
from koubou_panel.cli.workers import _row
from koubou_panel.core.events import SystemNoted
from koubou_panel.core.records import Pool, Progress, Request, Task, TaskId, Usage, Worker, WorkerId
from koubou_panel.core.state import State
from koubou_panel.errors import KoubouError, Refused, SettingsError


def _task(**more) -> Task:
    return Task(request=Request(task_id=TaskId("t"), kind="script", created_at=0.0), order=1, **more)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, ""),
        (0.123, "0.12 s"),
        (12.4, "12 s"),
        (59.6, "1 m 00 s"),
        (184, "3 m 04 s"),
        (7_500, "2 h 05 m"),
        (273_600, "3 d 4 h"),
    ],
)
def test_durations_have_units_for_people(seconds, words) -> None:
    """Two figures of what matters, whatever the length."""
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("count", "words"), [(None, ""), (0, "0 B"), (999, "999 B"), (1_500_000, "1.4 MB"), (2 << 30, "2 GB")]
)
def test_sizes_have_units_for_people(count, words) -> None:
    """Bytes in powers of 1,024, as `--memory` takes them."""
    assert size(count) == words


@pytest.mark.parametrize(
    ("progress", "words"),
    [
        (None, ""),
        (Progress(), ""),
        (Progress(0.375, 12, 80, "", 20.4, "", 3.1), "37 % · 12/80 · 3.1/s · 20 s left"),
        (Progress(0.999, 799, 800, "files", 0.2), "99 % · 799/800 files · 0 s left"),
        (Progress(done=7.0, unit="lines", rate_per_s=0.25), "7 lines · 0.25 lines/s"),
        (
            Progress(0.5, 1 << 20, 2 << 20, "B", 3_700, rate_per_s=1536),
            "50 % · 1 MB/2 MB · 1.5 kB/s · 1 h 01 m left",
        ),
        (Progress(0.37), "37 %"),
        (Progress(0.37, 37, 100, "%"), "37 % · 37/100"),
        (Progress(message="warming up"), "warming up"),
        (Progress(1.0, 80, 80, eta_s=0.0), "100 % · 80/80 · 0 s left"),
    ],
)
def test_progress_has_what_is_known(progress, words) -> None:
    """How far, how much, how fast, how long still, in that order; a hundred percent only when all is done."""
    assert progress_words(progress) == words


@pytest.mark.parametrize(
    ("task", "status", "state"),
    [
        (_task(status="in_progress", progress=Progress(0.5)), "in_progress", "50 %"),
        (_task(status="in_progress", stopping="user"), "in_progress (stopping)", ""),
        (_task(waits_for=(TaskId("a"),)), "pending", "waits for a"),
        (_task(waits_for=(TaskId("a"), TaskId("b"), TaskId("c"))), "pending", "waits for a and 2 more"),
        (_task(not_before=5.0), "pending", "is tried again"),
        (_task(), "pending", ""),
        (_task(status="cancelled", reason="dependency"), "cancelled (dependency)", ""),
        (_task(status="cancelled", reason="user"), "cancelled", ""),
        (_task(status="completed", progress=Progress(1.0)), "completed", ""),
    ],
)
def test_what_a_task_is_about(task, status, state) -> None:
    """Its status with the reason where that says more, and beside it how far it is or what it waits for."""
    assert (status_words(task), state_words(task)) == (status, state)


def _worker(number: int, status: str, **more) -> Worker:
    return Worker(worker_id=WorkerId(f"worker-{number}"), started_at=0.0, status=status, **more)


HELD = SystemNoted(1.0, "scaling_held", "held: 3.2 GB free, needs about 6.1 GB")
UP = SystemNoted(2.0, "scaled_up", "up from 1 to 2 workers: 5 tasks wait")


@pytest.mark.parametrize(
    ("pool", "statuses", "notes", "cause", "said"),
    [
        (Pool(paused=True), ["idle"], [], "paused", "koubou resume"),
        (Pool(draining=True, paused=True), ["idle"], [], "draining", "koubou resume"),
        (Pool(closing=True), ["busy"], [], "closing", "shutting down"),
        (Pool(), ["busy"], [HELD], "held", "3.2 GB free"),
        (Pool(), ["busy"], [HELD, UP], "busy", "the only worker is busy"),
        (Pool(), ["busy", "busy"], [], "busy", "all 2 workers are busy"),
        (Pool(), ["busy", "unresponsive"], [], "busy", "1 of them unresponsive"),
        (Pool(), ["busy", "starting"], [], None, None),
        (Pool(), ["busy", "idle"], [], None, None),
        (Pool(), [], [], None, None),
    ],
)
def test_what_keeps_a_task_from_starting(pool, statuses, notes, cause, said) -> None:
    """The most telling cause; nothing where it is about to start."""
    state = State("e")
    state.pool = pool
    state.notes.extend(notes)
    state.workers = {(worker := _worker(n, status)).worker_id: worker for n, status in enumerate(statuses)}
    found = pool_cause(state.snapshot())
    assert (found and found.cause) == cause
    assert found is None or said in found.words


def test_a_silent_worker_is_told_with_its_silence() -> None:
    """A worker is unresponsive after ten seconds without a word, which count too."""
    silent = _worker(1, "unresponsive", changed_at=100.0, current_task=TaskId("t"))
    row = _row(silent, {TaskId("t"): _task(status="in_progress", started_at=70.0)}, 130.0)
    assert row[1] == "unresponsive (silent 40 s)"
    assert row[-1] == "(t) for 1 m 00 s"


def test_long_names_are_cut_in_the_middle() -> None:
    """Both ends of a name tell it from others."""
    assert shortened("abcdefghij", 7) == "abc…hij"
    assert shortened("abc", 7) == "abc"


def test_what_is_said_moves_no_terminal(capfd) -> None:
    """A name or a message inside a line for people is shown without what a terminal would obey."""
    say("no task 'x\x1b]0;title\x07\x1b[2J\rkoubou: all is well'")
    assert capfd.readouterr().err == "koubou: no task 'x ]0;title  [2J koubou: all is well'\n"


def test_nothing_a_terminal_obeys_is_left() -> None:
    """Escape sequences, bells and carriage returns become blanks; lines stay lines."""
    assert clean("a\x1b[2J\rb\n\x07") == "a [2J b  "
    assert clean_lines("one\x1b[1m\ntwo\r\x9b31m") == "one [1m\ntwo\n 31m"


@pytest.mark.parametrize(
    ("task", "code"),
    [
        (_task(status="completed", exit_code=0), 0),
        (_task(status="completed"), 0),
        (_task(status="failed", reason="exit", exit_code=7), 7),
        (_task(status="failed", reason="killed", exit_code=137), 137),
        (_task(status="failed", reason="timeout", exit_code=143), 124),
        (_task(status="failed", reason="start", exit_code=127), 127),
        (_task(status="failed", reason="lost"), 1),
        (_task(status="cancelled", reason="user"), 130),
    ],
)
def test_exit_code_of_a_task(task, code) -> None:
    """As CLI.md has them."""
    assert exit_code(task) == code


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Refused("not_found"), 4),
        (Refused("unavailable"), 3),
        (Refused("version"), 3),
        (SettingsError("x"), 2),
        (KoubouError(), 1),
    ],
)
def test_exit_code_of_an_error(error, code) -> None:
    """As CLI.md has them."""
    assert code_of(error) == code


def test_environment_is_an_allow_list() -> None:
    """Only what was named gets through, and what --env asks for."""
    own = {
        "PATH": "/bin",
        "AWS_SECRET": "x",
        "LC_ALL": "C",
        "CONDA_PREFIX": "/c",
        "KOUBOU_HOME": "/h",
        "A": "1",
    }
    assert environment(own, ("A", "B=2=3", "PATH=/mine")) == {
        "PATH": "/mine",
        "LC_ALL": "C",
        "CONDA_PREFIX": "/c",
        "A": "1",
        "B": "2=3",
    }


def test_quantiles_are_of_the_values_themselves() -> None:
    """Nearest rank; nothing of nothing."""
    assert quantiles([]) is None
    assert quantiles(list(range(100))) == {"p50": 50, "p95": 95, "p99": 99}
    assert quantiles([7.0]) == {"p50": 7.0, "p95": 7.0, "p99": 7.0}


@pytest.mark.parametrize(
    ("profile", "given", "count", "rate"),
    [
        ("burst", (None, None, None), 100, 0.0),
        ("burst", (200, None, None), 200, 0.0),
        ("gradual", (None, None, 10.0), 20, 2.0),
        ("gradual", (30, None, 10.0), 30, 3.0),
        ("custom", (None, 4.0, 5.0), 20, 4.0),
        ("burst", (None, None, 10.0), 100, 10.0),
    ],
)
def test_load_is_planned_from_what_was_given(profile, given, count, rate) -> None:
    """Of number, rate and duration any two give the third."""
    plan = _plan(PROFILES[profile], *given)
    assert (plan.count, plan.rate) == (count, rate)


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (
            {
                "type": "script_status",
                "data": {
                    "script_name": "backup",
                    "status": "failed",
                    "exit_code": 3,
                    "duration": 1234,
                    "task_id": "t1",
                },
            },
            "backup failed, task t1, exit code 3, 1.23 s",
        ),
        (
            {
                "type": "script_status",
                "data": {"script_name": "backup", "status": "starting", "exit_code": None, "task_id": "t1"},
            },
            "backup starting, task t1",
        ),
        (
            {
                "type": "script_update",
                "script_name": "backup",
                "event": "fired",
                "details": {"message": "skipped: task t1 of it has not ended"},
                "data": {"name": "backup"},
            },
            "backup fired: skipped: task t1 of it has not ended",
        ),
    ],
)
def test_watch_tells_of_scripts_in_words(message, words) -> None:
    """Which script, what happened, and where there are any the code and the seconds."""
    assert line({"timestamp": "2026-01-02T03:04:05.678Z"} | message).split(maxsplit=2)[2] == words


def test_show_tells_of_a_run_and_of_tokens() -> None:
    """What a run of a script was given, when it was due, and what a prompt has read and written."""
    request = Request(
        task_id=TaskId("t"),
        kind="script",
        created_at=0.0,
        script_name="backup",
        parameters={"to": "disk"},
        fire_at=0.0,
    )
    usage = Usage(prompt_tokens=12, completion_tokens=40, first_token_s=0.25, tokens_per_s=43.21)
    shown = dict(_fields(Task(request=request, order=1, usage=usage), 60.0))
    assert shown["script"] == 'backup with to="disk"'
    assert shown["was due"].endswith("(1 m 00 s ago)")
    assert shown["tokens"] == "12 read, 40 written, the first after 0.25 s, 43.2 a second"
    plain = dict(_fields(_task(), 60.0))
    assert (plain["script"], plain["was due"], plain["tokens"]) == ("", "", "")
