"""Kind `pull`, against a fake Ollama."""

from __future__ import annotations

import pytest

from koubou_panel.core.records import Job, Outcome
from koubou_panel.errors import Refused
from koubou_panel.kinds.model import Guide, leave_word
from koubou_panel.kinds.pull import PullKind
from tests.kinds.fake_ollama import GB, fake_ollama
from tests.kinds.odd_server import serving


def pull(context, **spec: object) -> Outcome:
    """Prepare and run a spec, as a worker does."""
    kind = PullKind()
    return kind.run(Job("t", 1, 0, "pull", kind.prepare(spec, b"").spec, b""), context)


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({}, "spec.model"),
        ({"model": " "}, "spec.model"),
        ({"model": "a\nb"}, "spec.model"),
        ({"model": "a", "force": True}, "spec.force"),
        ({"model": "a", "url": 1}, "spec.url"),
    ],
)
def test_spec_is_refused_by_field(spec, field) -> None:
    """What cannot be pulled is refused, naming the field."""
    with pytest.raises(Refused) as refused:
        PullKind().prepare(spec, b"")
    assert refused.value.field == field


def test_pull_tells_its_bytes(bare) -> None:
    """Every status is a line of output once, and the bytes of all layers together are the progress."""
    with fake_ollama() as fake:
        leave_word(bare.home, Guide(ollama=fake.url))
        outcome = pull(bare, model="smollm2-big")
        assert "smollm2-big:latest" in fake.models
    assert (outcome.reason, outcome.result) == (None, "success")
    lines = ["pulling manifest", "pulling aaa", "pulling bbb", "verifying sha256 digest", "success"]
    assert bare.output.text.splitlines() == lines
    assert bare.told[0] == (None, None, "", "pulling manifest")
    assert (GB, 3 * GB, "B", "pulling aaa") in bare.told
    assert bare.told[-1] == (4 * GB, 4 * GB, "B", "success")


def test_model_that_does_not_exist_is_told(bare) -> None:
    """What Ollama says against a model is the task's message."""
    with fake_ollama() as fake:
        outcome = pull(bare, model="nonsense", url=fake.url)
    assert outcome.reason == "exception"
    assert outcome.message == "Ollama says: pull model manifest: file does not exist"


def test_no_ollama_says_how_to_get_it(bare) -> None:
    """Without an Ollama a pull fails at once, with the line that starts it."""
    with fake_ollama() as fake:
        url = fake.url
    outcome = pull(bare, model="a", url=url)
    assert f"no Ollama at {url}: nothing answers. Start it (`ollama serve`)" in outcome.message


def test_other_servers_are_not_asked_to_pull(bare) -> None:
    """A server that is no Ollama is asked for its version alone."""
    with serving({}) as (url, asked):
        outcome = pull(bare, model="a", url=url)
    assert "is no Ollama" in outcome.message
    assert [path for path, _ in asked] == ["/api/version"]
