"""Tokens of their own for agents: the file that they are in, and how a running server follows it."""

from __future__ import annotations

import asyncio
import json
import threading

import pytest

from koubou_panel.errors import Refused, SettingsError
from koubou_panel.servers.access import Allow, Role, token_hash
from koubou_panel.servers.credentials import load_or_create_token, rotate_token
from koubou_panel.servers.named import (
    FILE,
    add_named,
    allowed,
    forget_named,
    list_named,
    load_named,
    revoke_named,
)
from koubou_panel.servers.rotation import follow_token
from koubou_panel.testing import until

NOW = 1_800_000_000.0
TOKEN = "t" * 43


def test_a_token_is_made_and_only_its_hash_is_kept(tmp_path):
    """The token is random, and what is stored cannot be presented; the file is private."""
    made = add_named(tmp_path, TOKEN, "nightly", scope="run", now=NOW)
    other = add_named(tmp_path, TOKEN, "other", scope="edit", now=NOW)
    assert len({made, other}) == 2
    text = (tmp_path / FILE).read_text()
    assert made not in text
    assert TOKEN not in text
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600
    assert allowed(load_named(tmp_path, TOKEN)) == {
        token_hash(made): Allow(Role.RUN, "agent:nightly"),
        token_hash(other): Allow(Role.FULL, "agent:other"),
    }


def test_a_name_is_taken_once_and_free_again(tmp_path):
    """A second token of a name is refused until the first is revoked; an unknown one is told with the nearest."""
    add_named(tmp_path, TOKEN, "nightly", scope="read", now=NOW)
    with pytest.raises(Refused) as refused:
        add_named(tmp_path, TOKEN, "nightly", scope="read", now=NOW)
    assert refused.value.code == "conflict"
    with pytest.raises(Refused) as refused:
        revoke_named(tmp_path, TOKEN, "nigthly")
    assert (refused.value.code, refused.value.nearest) == ("not_found", "nightly")
    revoke_named(tmp_path, TOKEN, "nightly")
    assert load_named(tmp_path, TOKEN) == {}
    add_named(tmp_path, TOKEN, "nightly", scope="read", now=NOW)


@pytest.mark.parametrize("name", ["", " ", "a b", "-a", "a/b", "a" * 41, "\u5de5", "a\n"])
def test_an_odd_name_is_refused(tmp_path, name):
    """A name stands in lists and logs: letters, digits and a few signs."""
    with pytest.raises(Refused, match="a name is"):
        add_named(tmp_path, TOKEN, name, scope="read", now=NOW)
    assert not (tmp_path / FILE).exists()


def test_they_end_with_the_token_they_belong_to(tmp_path):
    """Under another token none is known; once the old one is rotated away the next one made begins a new book."""
    add_named(tmp_path, TOKEN, "old", scope="edit", now=NOW)
    assert load_named(tmp_path, "u" * 43) == {}
    forget_named(tmp_path, "u" * 43)
    assert list(load_named(tmp_path, TOKEN)) == ["old"]
    forget_named(tmp_path, TOKEN)
    add_named(tmp_path, "u" * 43, "new", scope="edit", now=NOW)
    assert list(load_named(tmp_path, "u" * 43)) == ["new"]
    assert load_named(tmp_path, TOKEN) == {}


def test_another_token_wipes_nothing(tmp_path):
    """A shell with another KOUBOU_TOKEN is refused with words, whatever it asks, and what is there stays."""
    add_named(tmp_path, TOKEN, "old", scope="edit", now=NOW)
    for ask in (
        lambda: add_named(tmp_path, "u" * 43, "new", scope="edit", now=NOW),
        lambda: revoke_named(tmp_path, "u" * 43, "old"),
        lambda: list_named(tmp_path, "u" * 43),
    ):
        with pytest.raises(Refused, match="KOUBOU_TOKEN differs") as refused:
            ask()
        assert refused.value.code == "conflict"
    assert list(list_named(tmp_path, TOKEN)) == ["old"]


def test_two_at_once_lose_nothing(tmp_path):
    """Tokens that are made at the same time are all kept."""
    names = [f"agent-{n}" for n in range(8)]
    threads = [
        threading.Thread(target=add_named, args=(tmp_path, TOKEN, name), kwargs={"scope": "run", "now": NOW})
        for name in names
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(load_named(tmp_path, TOKEN)) == names


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"token": 1}', '{"token": "x", "agents": {"a": {"scope": "god"}}}']
)
def test_a_file_that_is_not_to_be_read_lets_nobody_in(tmp_path, text):
    """What cannot be read is told, never guessed at."""
    (tmp_path / FILE).write_text(text)
    (tmp_path / FILE).chmod(0o600)
    with pytest.raises(SettingsError, match="remove it"):
        load_named(tmp_path, TOKEN)


def test_a_file_that_others_can_open_is_refused(tmp_path):
    """A file with wider permissions may have been written by someone else."""
    add_named(tmp_path, TOKEN, "nightly", scope="read", now=NOW)
    (tmp_path / FILE).chmod(0o644)
    with pytest.raises(SettingsError, match="chmod 600"):
        load_named(tmp_path, TOKEN)


async def test_a_server_follows_the_file(tmp_path):
    """What is there counts at once, what is added or revoked soon after, and a rotation ends all."""
    runtime = tmp_path / "runtime"
    token = load_or_create_token(runtime, environ={})
    first = add_named(runtime, token, "first", scope="read", now=NOW)
    tokens, named = [], []
    follow = follow_token(runtime, {}, tokens.append, on_named=named.append, look_s=0.01)
    task = asyncio.create_task(follow)
    await until(lambda: named)
    assert list(named[-1]) == [token_hash(first)]
    second = add_named(runtime, token, "second", scope="run", now=NOW)
    await until(lambda: token_hash(second) in named[-1])
    revoke_named(runtime, token, "first")
    await until(lambda: list(named[-1]) == [token_hash(second)])
    assert not tokens
    new = rotate_token(runtime)
    await until(lambda: tokens == [new] and named[-1] == {})
    (runtime / FILE).write_text("junk")
    add_named_after = len(named)
    await until(lambda: len(named) > add_named_after)
    assert named[-1] == {}
    task.cancel()


async def test_a_token_of_the_environment_is_followed_by_its_named_ones(tmp_path):
    """Where KOUBOU_TOKEN gives the token it never changes, but agents' own tokens do."""
    environ = {"KOUBOU_TOKEN": TOKEN}
    tokens, named = [], []
    task = asyncio.create_task(
        follow_token(tmp_path, environ, tokens.append, on_named=named.append, look_s=0.01)
    )
    made = add_named(tmp_path, TOKEN, "ci", scope="edit", now=NOW)
    await until(lambda: named and token_hash(made) in named[-1])
    (tmp_path / "token").write_text("other")
    revoke_named(tmp_path, TOKEN, "ci")
    await until(lambda: named[-1] == {})
    assert not tokens
    task.cancel()


def test_the_file_is_readable_by_people(tmp_path):
    """It is JSON with a name, a scope and a moment for each."""
    add_named(tmp_path, TOKEN, "nightly", scope="run", now=NOW)
    found = json.loads((tmp_path / FILE).read_text())["agents"]["nightly"]
    assert (found["scope"], found["created_at"]) == ("run", NOW)
