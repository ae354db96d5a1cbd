"""`/api/config`: every setting, and what is written to the home's file."""

from __future__ import annotations

import time
import tomllib

import pytest

from koubou_panel.settings import TABLE
from koubou_panel.testing import open_inline_shop
from tests.servers.api.rest import READ, TOKEN, open_rest


@pytest.fixture
async def rest(tmp_path):
    """A client of a dashboard with an empty home."""
    async with open_inline_shop(clock=time.time) as shop, open_rest(shop, tmp_path) as client:
        client.file = tmp_path / "settings.toml"
        yield client


async def test_every_setting_is_shown_and_no_secret(rest):
    """Name, value, source, type, default, unit and help of each, to readers too; the token is none of them."""
    reply = await rest.get("/api/config", token=READ)
    records = {record["name"]: record for record in reply.body["settings"]}
    assert list(records) == [setting.name for setting in TABLE]
    shown = {"name", "value", "source", "type", "default", "unit", "help"}
    assert all(shown <= set(record) for record in records.values())
    assert (records["workers"]["value"], records["grace_s"]["unit"]) == ("1:3", "s")
    assert TOKEN not in reply.text
    assert (records["workers"]["in_use"], records["agents_port"]["in_use"]) == ("2:2", None)


async def test_settings_are_written_and_told(rest):
    """The answer says what has changed and that it counts from the next start on; the file has it."""
    reply = await rest.put("/api/config", {"grace_s": 5, "workers": "2:4"})
    assert (reply.status, reply.body["changed"]) == (200, ["grace_s", "workers"])
    assert reply.body["needs_restart"] == ["grace_s", "workers"]
    assert [(record["name"], record["value"]) for record in reply.body["settings"]] == [
        ("workers", "2:4"),
        ("grace_s", 5),
    ]
    assert tomllib.loads(rest.file.read_text()) == {"grace_s": 5.0, "workers": "2:4"}
    again = await rest.put("/api/config", {"grace_s": 5, "workers": None})
    assert again.body["changed"] == ["workers"]
    assert tomllib.loads(rest.file.read_text()) == {"grace_s": 5.0}


@pytest.mark.parametrize(
    ("body", "field", "said"),
    [
        ({"grace": 5}, "grace", "did you mean 'grace_s'"),
        ({"grace_s": "soon"}, "grace_s", "seconds"),
        ({"home": "/tmp"}, "home", "KOUBOU_HOME"),
        ({"token": "x"}, "token", "unknown setting"),
        ({}, "body", "nothing to change"),
    ],
)
async def test_what_cannot_be_written_is_refused(rest, body, field, said):
    """With its field; the file is not even made."""
    refused = await rest.put("/api/config", {"model": "x", **body} if body else body)
    assert (refused.status, refused.error["code"], refused.error["field"]) == (400, "invalid", field)
    assert said in refused.error["message"]
    assert not rest.file.exists()


async def test_a_file_that_is_broken_is_told(rest):
    """It is a conflict with what a person wrote, said with the file's name; nothing is lost."""
    rest.file.write_text("grace_s = ")
    for refused in (await rest.get("/api/config"), await rest.put("/api/config", {"model": "x"})):
        assert (refused.status, refused.error["code"]) == (409, "conflict")
        assert "settings.toml" in refused.error["message"]
    assert rest.file.read_text() == "grace_s = "
