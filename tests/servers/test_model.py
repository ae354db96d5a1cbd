"""The embedded model server, as the process that the supervisor starts."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time

import httpx2
import pytest

from koubou_panel.kinds.model import Embedded, leave_word, read_embedded
from koubou_panel.settings import END_NOW
from tests.servers.models import serving_model, start_model


def test_serves_its_own_user_alone_and_leaves_nothing(tmp_path) -> None:
    """It announces its port, leaves its key for this user alone, refuses all others, and ends at TERM."""
    file = tmp_path / "runtime" / "model.json"
    with serving_model(tmp_path, "--host", "0.0.0.0") as said:
        found = read_embedded(tmp_path)
        assert (found.pid, found.model) == (said["pid"], "smollm2-135m-instruct")
        assert found.url == f"http://127.0.0.1:{said['port']}"
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        for headers in ({}, {"Authorization": "Bearer guess"}):
            assert httpx2.get(f"{found.url}/v1/models", headers=headers).status_code == 401
            answer = httpx2.post(f"{found.url}/v1/chat/completions", headers=headers, json={"messages": []})
            assert answer.status_code == 401
        key = {"Authorization": f"Bearer {found.key}"}
        slots = httpx2.get(f"{found.url}/slots", headers=key).json()
        assert len(slots) == 4
        assert all(slot["n_ctx"] >= 2048 for slot in slots)
        began = time.monotonic()
    assert time.monotonic() - began < 30
    assert not file.exists()


SLOW = """
import ctypes, sys
from koubou_panel.servers import model
def load(*args):
    print("loading", flush=True)
    ctypes.PyDLL(None).sleep(60)  # as the library loads a large file: nothing else of Python runs meanwhile
model.load = load
sys.exit(model.main(sys.argv[1:]))
"""


STUBBORN = """
import sys, time
from koubou_panel.servers import model
class Server:
    listening_address = "http://127.0.0.1:9"
    def __del__(self):
        time.sleep(60)  # as the library's, whose threads wait for each other
model.load = lambda *args: Server()
sys.exit(model.main(sys.argv[1:]))
"""


PARENT = "import subprocess, sys; subprocess.run([sys.executable, '-c', *sys.argv[1:]])"


def test_ends_with_its_life_pipe(tmp_path) -> None:
    """When the supervisor is gone it ends by itself."""
    read_end, write_end = os.pipe()
    process = start_model(tmp_path, "--life-fd", str(read_end), pass_fds=(read_end,))
    os.close(read_end)
    assert json.loads(process.stdout.readline())["port"]
    os.close(write_end)
    process.communicate(timeout=90)
    assert process.returncode == 0
    assert not (tmp_path / "runtime" / "model.json").exists()


def test_ends_though_the_library_does_not(tmp_path) -> None:
    """A server that never lets go of its threads keeps no process, and leaves no word."""
    command = [sys.executable, "-c", STUBBORN, "--home", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert json.loads(process.stdout.readline())["port"] == 9
        process.terminate()
        process.communicate(timeout=30)
    assert process.returncode == 0
    assert not (tmp_path / "runtime" / "model.json").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, END_NOW])
def test_ends_at_once_while_it_loads(tmp_path, number) -> None:
    """A model that takes long to load holds up no end, though nothing of Python runs meanwhile."""
    command = [sys.executable, "-c", SLOW, "--home", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "loading\n"
        process.send_signal(number)
        process.communicate(timeout=90)
    assert process.returncode == -number


@pytest.mark.skipif(
    sys.platform != "linux", reason="the kernel ends a process with its parent on Linux alone"
)
def test_ends_with_its_parent_while_it_loads(tmp_path) -> None:
    """When the supervisor is killed meanwhile, so is what loads for it."""
    command = [sys.executable, "-c", PARENT, SLOW, "--home", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout.readline() == "loading\n"
        parent.kill()
        parent.communicate(timeout=90)  # to the end of what both could write to


def test_word_of_an_earlier_one_is_taken_away_at_the_start(tmp_path) -> None:
    """What a process that was killed has left is gone before the model is loaded."""
    (tmp_path / "runtime").mkdir(mode=0o700)
    leave_word(tmp_path, Embedded("http://127.0.0.1:9", "k", "small", 1))
    with subprocess.Popen(
        [sys.executable, "-c", SLOW, "--home", str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "loading\n"
        assert not (tmp_path / "runtime" / "model.json").exists()
        process.kill()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, "there is no model file"),
        (lambda path: path.write_bytes(b"no model"), "cannot be loaded"),
    ],
)
def test_says_why_it_cannot_serve(tmp_path, make, words) -> None:
    """A model file that is missing, or none, is said on the ready pipe with an exit code."""
    file = tmp_path / "own.gguf"
    make(file)
    read_end, write_end = os.pipe()
    env = {"PATH": os.environ["PATH"], "KOUBOU_MODEL_FILE": str(file)}
    process = start_model(tmp_path, "--ready-fd", str(write_end), pass_fds=(write_end,), env=env)
    os.close(write_end)
    with os.fdopen(read_end) as pipe:
        said = json.loads(pipe.readline())
    process.communicate(timeout=90)
    assert process.returncode == said["exit"] != 0
    assert words in said["error"]
