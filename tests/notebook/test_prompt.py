"""Prompts from Python, in a workshop that this process holds: the real model is its child."""

from __future__ import annotations

import pytest

from koubou_panel.errors import Refused, TaskFailure
from koubou_panel.kinds.model import read_embedded
from koubou_panel.notebook.workshop import Workshop

WORKERS = 1


@pytest.fixture(scope="module")
def asking(tmp_path_factory):
    """A workshop of its own home whose prompts go to the embedded model alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KOUBOU_MODEL_URL", "embedded")
        home = tmp_path_factory.mktemp("prompt") / "home"
        with Workshop(home, workers=1) as opened:
            yield opened
    assert read_embedded(home) is None


def test_first_prompt_starts_the_model(asking) -> None:
    """Without a supervisor the workshop starts the model itself; the future's result is the whole answer."""
    future = asking.prompt("Say hello.", max_tokens=5, temperature=0, name="hello")
    answer = future.result(timeout=90)
    assert answer.strip()
    assert asking.output(future.task_id) == answer
    assert future.task.usage.completion_tokens == 5
    assert future.task.request.name == "hello"


def test_answer_is_an_argument_of_others(asking) -> None:
    """A prompt's future among a function's arguments stands for its answer."""
    future = asking.prompt([{"role": "user", "content": "Say hello."}], max_tokens=3)
    assert asking.submit(len, future).result(timeout=90) == len(future.result())


def test_bad_prompt_is_refused_at_once(asking) -> None:
    """What cannot be asked is refused where it is written."""
    with pytest.raises(Refused, match=r"spec\.temperature"):
        asking.prompt("a", temperature=9)
    with pytest.raises(TypeError, match="did you mean 'timeout_s'"):
        asking.prompt("a", timeout=9)


def test_model_that_cannot_be_loaded_is_told(tmp_path, monkeypatch) -> None:
    """Where the model does not come up, a prompt fails with its words, and does not wait for it."""
    file = tmp_path / "own.gguf"
    file.write_bytes(b"no model")
    monkeypatch.setenv("KOUBOU_MODEL_URL", "embedded")
    monkeypatch.setenv("KOUBOU_MODEL_FILE", str(file))
    with Workshop(tmp_path / "home", workers=1) as opened:
        future = opened.prompt("a")
        with pytest.raises(TaskFailure, match=r"own\.gguf cannot be loaded"):
            future.result(timeout=90)


def test_failure_is_the_futures(asking) -> None:
    """A prompt that fails raises what went wrong."""
    with pytest.raises(TaskFailure, match="unknown model 'llama'"):
        asking.prompt("a", model="llama").result(timeout=90)
