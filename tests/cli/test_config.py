"""`koubou config`: no workshop needs to run."""

from __future__ import annotations

import json

import pytest

from tests.cli.conftest import Shell


@pytest.fixture
def home(tmp_path):
    """`koubou` in an empty home that nothing runs in."""
    return Shell(tmp_path)


def test_settings_are_listed_with_their_source(home) -> None:
    """A table for people, a document for programs; `koubou config` alone lists too."""
    home("config", "set", "workers", "2:4")
    lines = home("config", KOUBOU_GRACE_S="9").stdout.splitlines()
    assert lines[0].split() == ["NAME", "VALUE", "FROM", "WHAT"]
    told = {line.split()[0]: line.split()[1:3] for line in lines[1:]}
    assert told["workers"] == ["2:4", "settings.toml"]
    assert told["grace_s"] == ["9.0", "KOUBOU_GRACE_S"]
    assert told["host"] == ["127.0.0.1", "default"]
    settings = json.loads(home("config", "list", "--json").stdout)["settings"]
    assert {record["name"]: record["value"] for record in settings}["workers"] == "2:4"
    assert json.loads(home("config", "--json").stdout)["settings"] == settings


def test_a_setting_is_written_and_taken_back(home) -> None:
    """`set` writes the file and `get` prints the value at the next start; `set --unset` takes it out."""
    assert home("config", "set", "dashboard_port", "9001").returncode == 0
    assert home("config", "get", "dashboard_port").stdout == "9001\n"
    assert (home.home / "settings.toml").read_text() == "dashboard_port = 9001\n"
    assert "already" in home("config", "set", "dashboard_port", "9001").stderr
    assert home("config", "set", "dashboard_port", "--unset").returncode == 0
    assert home("config", "get", "dashboard_port").stdout == "8080\n"
    stronger = home("config", "set", "model", "x", KOUBOU_MODEL="y")
    assert "KOUBOU_MODEL is set, and wins" in stronger.stderr


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["get", "dashbord_port"], 4, "did you mean 'dashboard_port'"),
        (["set", "dashbord_port", "1"], 4, "did you mean 'dashboard_port'"),
        (["set", "dashboard_port", "x"], 4, "must be a port"),
        (["set", "home", "/tmp"], 4, "KOUBOU_HOME"),
        (["set", "model_file", "/no/such.gguf"], 4, "must be a file that is there"),
        (["set", "host", "0.0.0.0"], 4, "SSH tunnel"),
        (["set", "socket_port", "8080"], 4, "cannot share port 8080"),
        (["set", "model"], 2, "--unset"),
        (["set", "model", "x", "--unset"], 2, "--unset"),
        (["lst"], 2, "lst"),
    ],
)
def test_what_cannot_be_is_said(home, args, code, said) -> None:
    """Unknown names with the nearest, values that cannot be, and how it is typed."""
    done = home("config", *args)
    assert done.returncode == code
    assert said in done.stderr
