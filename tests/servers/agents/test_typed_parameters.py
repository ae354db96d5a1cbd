"""Typed parameters of a script, over REST: whatever is given, it is taken or refused by its field, and never fails."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from koubou_panel.core.commands import Caller, SaveScript
from koubou_panel.core.script import Parameter, Script
from koubou_panel.testing import open_inline_shop
from tests.servers.agents import mcp_door
from tests.servers.agents.rest_door import open_door

TYPES = ("text", "integer", "number", "boolean", "choice", "path")
VALUES = {
    "digits": '"' + "9" * 400 + '"',
    "more digits": '"' + "9" * 5_000 + '"',
    "huge": "1" + "0" * 30,
    "huger": "1" + "0" * 400,
    "hugest": "9" * 5_000,
    "below": str(-(2**63) - 1),
    "float": "1e308",
    "beyond a float": "1e400",
    "infinity": '"inf"',
    "no number": '"nan"',
    "object": '{"a": 1}',
    "list": "[1]",
    "half a pair": '"\\ud800"',
    "nul": '"\\u0000"',
    "null": "null",
    "true": "true",
    "empty": '""',
}


@pytest.fixture
async def rest(tmp_path):
    """A client of a workshop that has a script with a parameter of each type."""
    path = Path(tmp_path / "all.py")
    path.write_text("print()")
    parameters = tuple(
        Parameter(name=name, type=name, flag=f"--{name}", choices=("a",) if name == "choice" else ())
        for name in TYPES
    )
    script = Script(name="all", path=str(path), parameters=parameters, given=("parameters",))
    async with (
        open_inline_shop() as shop,
        open_door(shop) as door,
        door.client() as client,
    ):
        await shop.do(SaveScript(script), Caller("test"))
        yield client


async def test_no_value_of_a_parameter_is_a_failure(rest):
    """Each value for each type is taken, or is the client's mistake, told by its field."""
    for name, (what, value) in itertools.product(TYPES, VALUES.items()):
        body = f'{{"type": "script", "script": "all", "parameters": {{{json.dumps(name)}: {value}}}}}'
        reply = await rest.post("/task/delegate", content=body, headers={"Content-Type": "application/json"})
        assert reply.status_code in {200, 400, 422}, (name, what, reply.text)
        if reply.status_code != 200:
            assert reply.json().get("field", "parameters").startswith("parameters"), (name, what, reply.text)


async def test_labels_are_short_over_mcp_too():
    """They are in every list and in memory: a long one is refused by its field."""
    async with open_inline_shop() as shop, mcp_door.open_door(shop) as door, door.client() as client:
        labels = {"a": "b" * 900_000}
        error = mcp_door.bad(
            await client.call_tool("submit_command", {"command": ["true"], "labels": labels})
        )
        assert (error["code"], error["field"]) == ("invalid", "labels")
        assert not shop.state.tasks
