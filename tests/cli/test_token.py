"""`koubou token add`, `list` and `revoke` beside a running workshop."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request

import pytest


def health(port: int, token: str) -> int:
    """The status that a token gets at the agents' port."""
    asked = urllib.request.Request(
        f"http://127.0.0.1:{port}/health", headers={"Authorization": f"Bearer {token}"}
    )
    try:
        with urllib.request.urlopen(asked, timeout=90) as reply:
            return reply.status
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def within(port: int, token: str, status: int) -> float:
    """How many seconds it took until a token got this status."""
    began = time.monotonic()
    while health(port, token) != status:
        assert time.monotonic() - began < 60
    return time.monotonic() - began


@pytest.fixture(scope="module")
def port(koubou) -> int:
    """Where the agents' port is."""
    services = json.loads(koubou("status", "--json").stdout)["services"]
    port = next(service["port"] for service in services if service["name"] == "agents")
    within(port, koubou("token").stdout.strip(), 200)  # it answers once it is loaded
    return port


def test_a_token_opens_and_closes_the_running_workshop(koubou, port) -> None:
    """A new token is let in within a second or so without a restart; a revoked one is out as quickly."""
    done = koubou("token", "add", "nightly", "--scope", "run")
    assert done.returncode == 0
    made = done.stdout.strip()
    assert len(made) == 43
    assert "not shown again" in done.stderr
    assert within(port, made, 200) < 3
    listed = json.loads(koubou("token", "list", "--json").stdout)["tokens"]
    assert [(one["name"], one["scope"]) for one in listed] == [("nightly", "run")]
    assert made not in koubou("token", "list").stdout
    assert koubou("token", "revoke", "nightly").returncode == 0
    assert within(port, made, 401) < 3
    assert json.loads(koubou("token", "list", "--json").stdout) == {"tokens": []}


def test_names_are_refused_with_the_nearest(koubou) -> None:
    """A taken or odd name, and an unknown one to revoke, are exit 4 and say what to do."""
    koubou("token", "add", "backup", "--scope", "read")
    done = koubou("token", "add", "backup")
    assert (done.returncode, done.stdout) == (4, "")
    assert "koubou token revoke backup" in done.stderr
    done = koubou("token", "revoke", "bakcup")
    assert done.returncode == 4
    assert "did you mean 'backup'" in done.stderr
    assert koubou("token", "add", "a b").returncode == 4
    assert koubou("token", "add", "x", "--scope", "god").returncode == 2
    assert koubou("token", "--read", "list").returncode == 2
    koubou("token", "revoke", "backup")


def test_the_workshops_own_tokens_are_printed_as_before(koubou) -> None:
    """Without a word more, `koubou token` prints the token; `--read` the reading one."""
    full, read = koubou("token").stdout.strip(), koubou("token", "--read").stdout.strip()
    assert len(full) == len(read) == 43
    assert full != read


def test_a_shell_with_another_token_wipes_nothing(shell) -> None:
    """Under another KOUBOU_TOKEN `add` and `list` are exit 4 and say so; after a rotation all begins anew."""
    shell("token", "add", "backup", "--scope", "read")
    other = {"KOUBOU_TOKEN": "u" * 43}
    for words in (("token", "add", "new"), ("token", "list")):
        done = shell(*words, **other)
        assert done.returncode == 4, done.stderr
        assert "KOUBOU_TOKEN differs" in done.stderr
    assert [one["name"] for one in json.loads(shell("token", "list", "--json").stdout)["tokens"]] == [
        "backup"
    ]
    assert shell("token", "--rotate").returncode == 0
    assert shell("token", "add", "backup").returncode == 0
    assert len(json.loads(shell("token", "list", "--json").stdout)["tokens"]) == 1
