"""Definitions of scripts: what a run is called with."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from koubou_panel.core.script import (
    MAX_DEFINITION_BYTES,
    Parameter,
    Script,
    arguments_of,
    check_script,
    request_of,
    run_status,
    spec_of,
)
from koubou_panel.errors import Refused

EPOCHS = Parameter(name="epochs", type="integer", default=3, flag="--epochs")
LOUD = Parameter(name="loud", type="boolean", flag="--loud", negative_flag="--quiet")
MODE = Parameter(name="mode", type="choice", choices=("fast", "slow"), flag="-m")
FILE = Parameter(name="file", type="path")
ALL = (FILE, EPOCHS, LOUD, MODE)


@pytest.mark.parametrize(
    ("given", "arguments"),
    [
        ({}, ["--epochs", "3"]),
        ({"epochs": 5}, ["--epochs", "5"]),
        ({"epochs": "5"}, ["--epochs", "5"]),
        ({"epochs": 5.0}, ["--epochs", "5"]),
        ({"epochs": -5}, ["--epochs=-5"]),
        ({"loud": True}, ["--epochs", "3", "--loud"]),
        ({"loud": "no"}, ["--epochs", "3", "--quiet"]),
        ({"mode": "slow"}, ["--epochs", "3", "-m", "slow"]),
        ({"file": "a b.txt"}, ["--epochs", "3", "a b.txt"]),
        ({"file": "-x"}, ["--epochs", "3", "--", "-x"]),
        ({"file": ""}, ["--epochs", "3", ""]),
        ({"file": None}, ["--epochs", "3"]),
    ],
)
def test_parameters_become_arguments(given, arguments):
    """Flags first, then what goes by its place; a value that looks like a flag is not taken for one."""
    assert arguments_of(ALL, given) == arguments


@pytest.mark.parametrize(
    ("given", "field", "words"),
    [
        ({"epoch": 5}, "parameters.epoch", "epochs"),
        ({"epochs": "x"}, "parameters.epochs", "a whole number"),
        ({"epochs": 5.5}, "parameters.epochs", "a whole number"),
        ({"epochs": True}, "parameters.epochs", "a whole number"),
        ({"epochs": float("inf")}, "parameters.epochs", "a whole number"),
        ({"epochs": [5]}, "parameters.epochs", "a whole number"),
        ({"epochs": "9" * 400}, "parameters.epochs", "64 bits"),
        ({"epochs": -(2**63) - 1}, "parameters.epochs", "64 bits"),
        ({"epochs": 10**5000}, "parameters.epochs", "64 bits, not a number of thousands of digits"),
        ({"epochs": 1e308}, "parameters.epochs", "64 bits"),
        ({"loud": "perhaps"}, "parameters.loud", "true or false"),
        ({"loud": 1}, "parameters.loud", "true or false"),
        ({"mode": "medium"}, "parameters.mode", "one of fast, slow"),
        ({"file": "a\0b"}, "parameters.file", "text"),
        ({"file": 3}, "parameters.file", "text"),
    ],
)
def test_wrong_parameters_are_refused(given, field, words):
    """Naming the parameter, and what it takes."""
    with pytest.raises(Refused, match=words) as refusal:
        arguments_of(ALL, given)
    assert (refusal.value.code, refusal.value.field) == ("invalid", field)


def test_a_number_may_be_larger_than_a_whole_one():
    """It is a float then; one that no float holds is refused."""
    number = Parameter(name="n", type="number", flag="--n")
    assert arguments_of((number,), {"n": "9" * 30}) == ["--n", "1e+30"]
    for value in ("9" * 400, 10**400, "9" * 5_000, 10**5_000):
        with pytest.raises(Refused, match="a number") as refusal:
            arguments_of((number,), {"n": value})
        assert refusal.value.field == "parameters.n"


def test_a_required_parameter_must_be_given():
    """A default is as good."""
    required = Parameter(name="out", flag="--out", is_required=True)
    with pytest.raises(Refused, match="'out' is required"):
        arguments_of((required,), {})
    assert arguments_of((required,), {"out": "x"}) == ["--out", "x"]


@given(st.text(alphabet=st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20))
def test_a_value_by_its_flag_is_one_or_two_arguments(text):
    """Whatever it holds, no shell reads it, and the flag keeps it."""
    found = arguments_of((Parameter(name="t", flag="--t"),), {"t": text})
    assert found in (["--t", text], [f"--t={text}"])
    assert (len(found) == 1) is text.startswith("-")


@pytest.mark.parametrize(
    ("fields", "command"),
    [
        ({"path": "/s/run.py"}, ["python", "/s/run.py"]),
        ({"path": "/s/run.sh"}, ["sh", "/s/run.sh"]),
        ({"path": "/s/run"}, ["/s/run"]),
        ({"path": "/s.py/run"}, ["/s.py/run"]),
        ({"path": "/s/.py"}, ["/s/.py"]),
        ({"path": "/s/run.py", "interpreter": ("uv", "run")}, ["uv", "run", "/s/run.py"]),
        ({"path": "/s/run", "arguments": ("-x",)}, ["/s/run", "-x"]),
    ],
)
def test_a_run_is_a_command(fields, command):
    """What runs it, its file, its own arguments."""
    spec = spec_of(Script(name="s", **fields), {})
    assert spec["command"] == command


def test_a_run_is_in_the_folder_of_its_file():
    """Unless the definition says another."""
    assert spec_of(Script(name="s", path="/srv/s.sh"), {})["cwd"] == "/srv"
    assert spec_of(Script(name="s", path="/s.sh"), {})["cwd"] == "/"
    assert spec_of(Script(name="s", path="/srv/s.sh", cwd="/tmp"), {})["cwd"] == "/tmp"


def test_a_run_is_submitted_as_its_definition_says():
    """With its parameters, and its due time where a schedule had one."""
    script = Script(name="s", path="/s.sh", timeout_s=5, retries=2, priority=9, parameters=(EPOCHS,))
    request = request_of(script, "id", {"epochs": 4}, fire_at=60.0)
    assert (request.name, request.script_name, request.timeout_s, request.retries, request.priority) == (
        "s",
        "s",
        5,
        2,
        9,
    )
    assert (request.parameters, request.fire_at) == ({"epochs": 4}, 60.0)
    assert (request.spec["file"], request.spec["fire_at"]) == ("/s.sh", 60.0)


@pytest.mark.parametrize(
    ("parameter", "words"),
    [
        (Parameter(name="a b"), "name"),
        (Parameter(name=""), "name"),
        (Parameter(name="a", flag="a"), "flag"),
        (Parameter(name="a", flag="--a b"), "flag"),
        (Parameter(name="a", type="boolean"), "needs a flag"),
        (Parameter(name="a", type="choice"), "no choices"),
        (Parameter(name="a", type="integer", default="x"), "whole number"),
    ],
)
def test_what_is_no_parameter_is_refused(parameter, words):
    """Before any run would fail by it."""
    with pytest.raises(Refused, match=words) as refusal:
        check_script(Script(name="s", path="/s", parameters=(parameter,)))
    assert refusal.value.code == "invalid"


def test_a_definition_is_no_store():
    """It is sent whole to everybody who follows."""
    with pytest.raises(Refused, match="at most") as refusal:
        check_script(Script(name="s", path="/s", description="x" * MAX_DEFINITION_BYTES))
    assert refusal.value.code == "too_large"
    with pytest.raises(Refused, match="cannot be stored"):
        check_script(Script(name="s", path="/s", description="\ud800"))


def test_a_status_has_its_word():
    """Those of `script_status`."""
    statuses = ("pending", "in_progress", "completed", "failed", "cancelled")
    assert [run_status(status) for status in statuses] == [
        "starting",
        "running",
        "completed",
        "failed",
        "failed",
    ]
