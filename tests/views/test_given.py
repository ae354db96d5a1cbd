"""What a task was given, its fault, and its other runs, as plain data."""

from msgspec.structs import replace

from koubou_panel.core.commands import Caller, RetryTask
from koubou_panel.core.records import Request, TaskId
from koubou_panel.testing import ended, open_inline_shop, submit, until
from koubou_panel.views.fault import fault
from koubou_panel.views.given import given
from koubou_panel.views.language import speaking
from koubou_panel.views.reruns import reruns


def entries(**fields: object) -> dict[str, str]:
    """What is told of a request, by label."""
    request = Request(**({"task_id": TaskId("t"), "kind": "script", "created_at": 0.0} | fields))
    return {str(entry["label"]): str(entry["text"]) for entry in given(request)}


def test_a_command_is_told_with_names_of_its_environment() -> None:
    """Command, folder, the names of its environment, input, and what is not as usual; never a variable's value."""
    spec = {"command": ["python", "-c", "a b"], "cwd": "/tmp", "env": {"KEY": "secret"}, "stdin": True}
    told = entries(spec=spec, priority=9, labels={"team": "x"}, submitted_by="cli", on_crash="retry")
    assert told == {
        "Command": "python -c 'a b'",
        "Folder": "/tmp",
        "Environment": "KEY",
        "Input": "it takes what is typed",
        "Asked by": "cli",
        "Priority": "9",
        "Labels": "team: x",
        "After a crash": "it is run again",
    }


def test_a_script_is_told_with_its_parameters() -> None:
    """The script's name, and each parameter as it was given."""
    told = entries(script_name="nightly", parameters={"depth": 3, "to": "a"}, spec={"command": ["x"]})
    assert (told["Script"], told["depth"], told["to"], told["Command"]) == ("nightly", "3", "a", "x")


def test_a_conversation_is_told_message_by_message() -> None:
    """Each message under its role, and what the model was asked to keep to."""
    messages = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "One\nTwo"}, 3]
    told = entries(
        kind="prompt", spec={"messages": messages, "temperature": 0.5, "schema": {"type": "object"}}
    )
    assert (told["System"], told["User"], told["Temperature"]) == ("Be short.", "One\nTwo", "0.5")
    assert '"type": "object"' in told["Answer's schema"]


def test_any_other_kind_is_told_field_by_field() -> None:
    """A kind that nobody here knows shows its description; strangers' words are made fit."""
    told = entries(kind="other", spec={"a\x1b": ["b", 1], "c": "d\x07"})
    assert told == {"a": '[\n  "b",\n  1\n]', "c": "d"}
    assert entries(kind="function", name="operator.add")["Function"] == "operator.add"
    assert entries(kind="pull", spec={"model": "m"}) == {"Model": "m"}


def test_the_error_is_read_before_its_traceback() -> None:
    """Of chained errors the last one, with the place that raised it; its message may have lines of its own."""
    trace = (
        'Traceback (most recent call last):\n  File "a.py", line 1, in f\n    x\nKeyError: 1\n\n'
        "During handling of the above exception, another exception occurred:\n\n"
        'Traceback (most recent call last):\n  File "a.py", line 3, in g\n    y\n    ^\n'
        "ValueError: first\nsecond\n"
    )
    told = fault(trace)
    assert (told["error"], told["place"]) == ("ValueError: first\nsecond", 'File "a.py", line 3, in g')
    assert told["trace"] == trace.strip()
    crash = 'Fatal Python error: Segmentation fault\n  File "a.py", line 2 in f\n  File "<frozen>", line 8 in _run\n'
    told = fault(crash)
    assert (told["error"], told["place"]) == (crash.partition("\n")[0], 'File "a.py", line 2 in f')
    assert fault("") == {}
    assert fault("no frames") == {"error": "no frames", "place": "", "trace": ""}


def test_what_is_told_is_spoken() -> None:
    """Labels are asked for in the visitor's language when they are made."""
    with speaking("ja"):
        assert entries(spec={"command": ["x"]})


async def test_other_runs_are_told() -> None:
    """A rerun leads to what it repeats, and that to each of its reruns."""
    async with open_inline_shop(workers=1) as shop:
        first = await submit(shop)
        await until(lambda: first in shop.engine.jobs)
        shop.engine.finish(first, reason="exit")
        await ended(shop, first)
        again, third = shop.next_id(), shop.next_id()
        for new in (again, third):
            await shop.do(RetryTask(first, new), Caller("test"))
        tasks = shop.state.tasks
        assert [(link["id"], link["words"]) for link in reruns(tasks[first], tasks)] == [
            (again, f"run again as {again}"),
            (third, f"run again as {third}"),
        ]
        assert [(link["id"], link["mark"]) for link in reruns(tasks[again], tasks)] == [(first, "fail")]
        long_ago = replace(tasks[again], request=replace(tasks[again].request, rerun_of=TaskId("gone")))
        assert reruns(long_ago, tasks)[0] == {"id": "gone", "words": "runs gone again", "mark": "wait"}
