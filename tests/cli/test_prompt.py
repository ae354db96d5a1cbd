"""`koubou prompt` and `koubou models`, on the real small model that `koubou up` starts for the first prompt."""

from __future__ import annotations

import json
import signal

import pytest

from tests.cli.conftest import Shell, end
from tests.kinds.fake_ollama import fake_ollama
from tests.kinds.odd_server import event

# Its likeliest answer is about a thousand tokens long; one by chance may be five.
LONG = ("Tell a very long story.", "--temperature", "0", "--seed", "1")


@pytest.fixture(scope="module")
def asking(tmp_path_factory):
    """`koubou` against a workshop whose prompts go to the embedded model alone."""
    shell = Shell(tmp_path_factory.mktemp("cli-prompt") / "home")
    shell.env["KOUBOU_MODEL_URL"] = "embedded"
    process = shell.up("--no-dashboard", "--workers", "2:2")
    yield shell
    end(process)
    assert not (shell.home / "runtime" / "model.json").exists()


def test_first_prompt_starts_the_model(asking) -> None:
    """The answer alone goes to stdout, what it took to stderr; before, the model does not run."""
    before = json.loads(asking("models", "--json").stdout)
    assert before["prompts"]["state"] == "not running: the first prompt starts it"
    done = asking("prompt", "Say hello.", "--max-tokens", "4", "--temperature", "0", "--seed", "1")
    assert done.returncode == 0
    assert done.stdout.strip()
    assert done.stdout.endswith("\n")
    assert "4 tokens · " in done.stderr
    after = asking("models")
    assert "smollm2-135m-instruct" in after.stdout
    assert "prompts go to smollm2-135m-instruct (embedded)" in after.stdout


def test_record_has_the_tokens(asking) -> None:
    """With --json the task's record is all of stdout, with its tokens; `show` has them in words."""
    done = asking("prompt", "--json", "Say yes.", "--max-tokens", "2", "--system", "Be short.")
    (task,) = json.loads(done.stdout)["tasks"]
    assert (task["kind"], task["completion_tokens"]) == ("prompt", 2)
    assert task["first_token_s"] > 0
    assert "2 written" in asking("show", task["task_id"]).stdout


def test_schema_is_answered_by_json(asking, tmp_path) -> None:
    """With a schema from a file the answer is JSON; a file that is none is refused before anything is asked."""
    schema = tmp_path / "schema.json"
    schema.write_text('{"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}')
    done = asking("prompt", "Is it fine?", "--schema", str(schema), "--max-tokens", "40")
    assert isinstance(json.loads(done.stdout)["ok"], bool)
    schema.write_text("{")
    assert asking("prompt", "a", "--schema", str(schema)).returncode == 2


def test_ctrl_c_cancels_the_prompt(asking) -> None:
    """Ctrl-C ends the prompt with 130, and what came stays printed."""
    process = asking.start("prompt", *LONG)
    assert process.stdout.read(1)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=90)
    assert process.returncode == 130
    assert "cancelled by cli" in said


def test_failures_have_their_codes(asking) -> None:
    """A time-out is 124, an unknown model 1, an empty prompt refused with 4."""
    assert asking("prompt", *LONG, "--timeout", "0.5").returncode == 124
    unknown = asking("prompt", "hi", "--model", "smollm2-135m-instrukt")
    assert unknown.returncode == 1
    assert "did you mean 'smollm2-135m-instruct'" in unknown.stderr
    assert asking("prompt", " ").returncode == 4


def test_text_may_come_from_stdin_and_nobody_follow(asking) -> None:
    """`-` reads the prompt; with --detach its id is all that is printed."""
    process = asking.start("prompt", "-", "--detach", "--max-tokens", "2", stdin=-1)
    out, _ = process.communicate("Say é.", timeout=90)
    assert asking("show", out.strip()).stdout.count("Say é.")
    asking("cancel", out.strip())


def test_ollama_is_recognised(shell) -> None:
    """Its models are listed with their size, and which are loaded; prompts go to it."""
    with fake_ollama(event("Hi"), event(finish="stop")) as fake:
        fake.models["nomic-embed-text:latest"] = 300_000_000
        shell.env["OLLAMA_HOST"] = fake.url
        listed = json.loads(shell("models", "--json").stdout)
        rows = {row["name"]: row for row in listed["models"] if row["server"] == "Ollama"}
        assert rows["smollm2:latest"]["state"] == "loaded"
        assert rows["nomic-embed-text:latest"]["state"] == "not loaded"
        assert rows["smollm2:latest"]["size_bytes"] == 1_000_000_000
        assert (listed["prompts"]["name"], listed["prompts"]["server"]) == ("smollm2:latest", "Ollama")


def test_pull_and_prompt_by_ollama(shell) -> None:
    """With an Ollama there, a model is pulled as a task and prompts are answered by it; nothing else is started."""
    with fake_ollama(event("Hi"), event(" there"), event(finish="stop")) as fake:
        shell.env["OLLAMA_HOST"] = fake.url
        process = shell.up("--no-dashboard", "--workers", "1:1")
        try:
            pulled = shell("models", "pull", "qwen3")
            assert (pulled.returncode, pulled.stdout.splitlines()[-1]) == (0, "success")
            bad = shell("models", "pull", "nonsense")
            assert (bad.returncode, "file does not exist" in bad.stderr) == (1, True)
            asked = shell("prompt", "hi", "--model", "qwen3")
            assert (asked.returncode, asked.stdout) == (0, "Hi there\n")
            assert not (shell.home / "runtime" / "model.json").exists()
        finally:
            end(process)


def test_no_model_says_what_was_tried(shell) -> None:
    """Where no model can be had `models` ends with 1 and says what was tried; a named server is all that is tried."""
    shell.env["KOUBOU_MODEL_URL"] = "http://127.0.0.1:9"
    done = shell("models")
    assert done.returncode == 1
    assert "no model answers at http://127.0.0.1:9: nothing answers" in done.stdout
    shell.env |= {"KOUBOU_MODEL_URL": "embedded", "KOUBOU_MODEL_FILE": "/no/such.gguf"}
    done = shell("models")
    assert done.returncode == 1
    assert "there is no model file /no/such.gguf" in done.stdout
