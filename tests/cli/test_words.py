"""Numbers and names for people, and the exit codes of `koubou run`."""

from __future__ import annotations

import pytest

from koubou_panel.cli.ending import code_of
from koubou_panel.cli.follow import exit_code
from koubou_panel.cli.load import PROFILES, _plan, quantiles
from koubou_panel.cli.run import environment
from koubou_panel.cli.show import clean, clean_lines, duration, shortened, size
from koubou_panel.core.records import Request, Task, TaskId
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
    ("count", "words"), [(None, ""), (0, "0 B"), (999, "999 B"), (1_400_000, "1.4 MB"), (250e9, "250 GB")]
)
def test_sizes_have_units_for_people(count, words) -> None:
    """Bytes in units of a thousand."""
    assert size(count) == words


def test_long_names_are_cut_in_the_middle() -> None:
    """Both ends of a name tell it from others."""
    assert shortened("abcdefghij", 7) == "abc…hij"
    assert shortened("abc", 7) == "abc"


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
