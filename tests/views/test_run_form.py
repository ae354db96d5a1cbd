"""What is filled in under ＋Run becomes a command, or is refused at its field."""

from __future__ import annotations

import pytest

from koubou_panel.core.commands import RunScript, SubmitTask
from koubou_panel.core.records import Limits, Request, Task, TaskId
from koubou_panel.core.script import Entry, Parameter, Script
from koubou_panel.errors import Refused
from koubou_panel.views.faults import Faulty
from koubou_panel.views.language import speaking
from koubou_panel.views.run_form import command_of, faults_of, form_of, parameter_row, wants_shell

ID = TaskId("2pwhe5r7000000")
PARAMETERS = (
    Parameter(name="data", type="path", is_required=True),
    Parameter(name="epochs", type="integer", default=3, flag="--epochs"),
    Parameter(name="fast", type="boolean", flag="--fast"),
)
SCRIPTS = {
    "train": Entry(
        script=Script(name="train", path="/x/train.py", parameters=PARAMETERS),
        created_at=0,
        changed_at=0,
        anchor=0,
    )
}


def command(**form: object) -> SubmitTask | RunScript:
    """What such a form asks for."""
    found = command_of(form, SCRIPTS, lambda: ID)
    assert isinstance(found, (SubmitTask, RunScript))
    return found


def test_a_command_line_is_taken_apart_as_a_shell_would() -> None:
    """Quotes hold words together; the rest of the form becomes the request."""
    found = command(
        what="command",
        command="echo 'a b' \"c\"",
        cwd="/",
        env="A=1\n B = 2=3\n".replace(" B =", "B="),
        stdin=True,
        name="greeting",
        priority="7",
        labels="team=blue, gpu=",
        retries="2",
        timeout="5m",
        memory="2G",
        processes="4",
        on_crash="retry",
        key="page-1",
    )
    request = found.request
    assert request.spec == {
        "command": ["echo", "a b", "c"],
        "cwd": "/",
        "env": {"A": "1", "B": " 2=3"},
        "stdin": True,
    }
    assert (request.name, request.priority, request.retries, request.timeout_s) == ("greeting", 7, 2, 300.0)
    assert request.labels == {"team": "blue", "gpu": ""}
    assert request.limits == Limits(memory_bytes=2 << 30, processes=4)
    assert (request.on_crash, request.idempotency_key, request.rerun_of) == ("retry", "page-1", None)


@pytest.mark.parametrize(
    ("form", "field"),
    [
        ({"command": ""}, "command"),
        ({"command": "echo 'a"}, "command"),
        ({"command": ["echo"]}, "command"),
        ({"command": "a\0b"}, "command"),
        ({"cwd": "here"}, "cwd"),
        ({"cwd": "~nobody-of-this-name/x"}, "cwd"),
        ({"cwd": "/no/such/folder"}, "cwd"),
        ({"env": "A"}, "env"),
        ({"env": "A B=1"}, "env"),
        ({"labels": "blue"}, "labels"),
        ({"priority": "11"}, "priority"),
        ({"priority": "high"}, "priority"),
        ({"retries": "-1"}, "retries"),
        ({"retries": 3}, "retries"),
        ({"timeout": "soon"}, "timeout"),
        ({"timeout": "0"}, "timeout"),
        ({"memory": "much"}, "memory"),
        ({"memory": "1k"}, "memory"),
        ({"cpu": "0.001s"}, "cpu"),
        ({"processes": "0"}, "processes"),
        ({"on_crash": "burn"}, "on_crash"),
        ({"name": "n" * 500}, "name"),
        ({"what": "function"}, "what"),
        ({"what": ["command"]}, "what"),
        ({"what": "prompt", "prompt": " "}, "prompt"),
        ({"what": "prompt", "prompt": "hi", "max_tokens": "0"}, "max_tokens"),
        ({"what": "prompt", "prompt": "hi", "temperature": "hot"}, "temperature"),
        ({"what": "script", "script": "trian", "parameters": {}}, "script"),
        ({"what": "script", "script": "train", "parameters": []}, "parameters"),
        ({"what": "script", "script": "train", "parameters": {}}, "parameters.data"),
        (
            {"what": "script", "script": "train", "parameters": {"data": "/", "epochs": "x"}},
            "parameters.epochs",
        ),
        ({"what": "script", "script": "train", "parameters": {"data": ["/"]}}, "parameters.data"),
    ],
)
def test_what_is_wrong_is_told_at_its_field(form: dict[str, object], field: str) -> None:
    """A refusal names the field of the form, whoever refuses."""
    with pytest.raises(Refused) as refused:
        command(**({"what": "command", "command": "true"} | form))
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("form", "fields"),
    [
        (
            {
                "what": "command",
                "command": "",
                "cwd": "/nowhere",
                "env": "X",
                "timeout": "soon",
                "name": "n" * 999,
            },
            {"command", "cwd", "env", "timeout", "name"},
        ),
        (
            {"what": "prompt", "prompt": "", "temperature": "9", "labels": "x"},
            {"prompt", "temperature", "labels"},
        ),
        (
            {
                "what": "script",
                "script": "train",
                "parameters": {"epochs": "many", "fast": "?"},
                "retries": "x",
            },
            {"parameters.data", "parameters.epochs", "parameters.fast", "retries"},
        ),
        (
            {"what": "script", "script": "train", "parameters": {"unknown": "1"}},
            {"parameters.unknown", "parameters.data"},
        ),
    ],
)
def test_all_that_is_wrong_is_told_at_once(form: dict[str, object], fields: set[str]) -> None:
    """Each fault at its field, with nothing mended in between."""
    with pytest.raises(Refused) as refused:
        command(**form)
    found = faults_of(refused.value, form, SCRIPTS, lambda: ID)
    assert isinstance(found, Faulty)
    assert found.faults.keys() == fields
    assert found.message == found.faults[found.field or ""]


def test_one_fault_alone_stays_as_it_was() -> None:
    """A refusal that is about no field is told as it is, too."""
    for first, form in (
        (Refused("invalid", "no", field="cwd"), {}),
        (Refused("forbidden", "no"), {"cwd": "/nowhere"}),
    ):
        assert faults_of(first, {"what": "command", "command": "true", **form}, SCRIPTS, lambda: ID) is first


def test_a_script_is_given_only_what_was_filled_in() -> None:
    """What was left empty is left to the script."""
    found = command(what="script", script="train", parameters={"data": "/d", "epochs": "", "fast": True})
    assert found == RunScript("train", ID, parameters={"data": "/d", "fast": True})


@pytest.mark.parametrize(
    "form",
    [
        {
            "what": "command",
            "command": "echo 'a b'",
            "cwd": "/",
            "env": "A=1",
            "timeout": "1m30s",
            "memory": "64M",
        },
        {"what": "prompt", "prompt": "why?", "model": "small", "max_tokens": "20"},
    ],
)
def test_a_task_fills_in_the_form_that_made_it(form: dict[str, object]) -> None:
    """Edit and run again begins from the same request, and says what it is run again of."""
    first = command(**form).request
    filled = form_of(Task(request=first, order=1), SCRIPTS)
    second = command(**filled).request
    assert (second.spec, second.limits, second.timeout_s) == (first.spec, first.limits, first.timeout_s)
    assert second.rerun_of == ID


def test_a_run_of_the_catalogue_fills_in_its_parameters() -> None:
    """They are what it was given; a script that is gone leaves its command."""
    request = Request(
        task_id=ID,
        kind="script",
        created_at=0,
        spec={"command": ["python", "/x/train.py"]},
        script_name="train",
        parameters={"data": "/d", "epochs": 5},
    )
    task = Task(request=request, order=1)
    assert form_of(task, SCRIPTS)["parameters"] == {"data": "/d", "epochs": "5"}
    assert form_of(task, {})["command"] == "python /x/train.py"


def test_what_no_form_is_for_is_refused() -> None:
    """A function's arguments are closed to the page."""
    task = Task(request=Request(task_id=ID, kind="function", created_at=0, payload=b"x"), order=1)
    with pytest.raises(Refused, match="cannot be edited"):
        form_of(task, {})


@pytest.mark.parametrize("line", ["ls | wc", "a && b", "a > b", "ls *.py *", "echo $HOME", "cat ~/x", "a; b"])
def test_a_line_for_a_shell_is_noticed(line: str) -> None:
    """Nobody expands it here."""
    assert wants_shell(line)


@pytest.mark.parametrize(
    "line", ["echo 'a | b'", 'python -c "print(1); print(2)"', "echo a-b 1*2", "x \\| y"]
)
def test_a_line_without_is_not(line: str) -> None:
    """What is quoted is only text."""
    assert not wants_shell(line)


def test_what_is_wrong_is_told_in_the_language_spoken() -> None:
    """The form's own refusals are words of the page."""
    with speaking("ja"), pytest.raises(Refused) as refused:
        command(what="command", command=" ")
    assert refused.value.message != "the command is empty"


def test_a_parameter_says_what_field_it_needs() -> None:
    """Its default is text where the field is."""
    assert parameter_row(PARAMETERS[1]) == {
        "name": "epochs",
        "type": "integer",
        "default": "3",
        "required": False,
        "choices": [],
        "help": "",
        "negative": False,
    }
