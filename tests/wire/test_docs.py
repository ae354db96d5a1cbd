"""The page of the protocol speaks of everything that the protocol has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from koubou_panel.core.records import CHANNELS
from koubou_panel.wire.client import CHANNEL_OF
from koubou_panel.wire.commands import COMMANDS
from koubou_panel.wire.records import (
    ActiveTask,
    LimitsRecord,
    PoolRecord,
    ProgressRecord,
    TaskRecord,
    UseRecord,
    WorkerRecord,
)
from koubou_panel.wire.script import (
    ParameterRecord,
    ScheduleRecord,
    ScriptRecord,
    ScriptRun,
    ServiceRecord,
)

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
PUBLIC = (
    "client",
    "commands",
    "desk",
    "messages",
    "replies",
    "script",
    "session",
)  # not the private link beside them
WIRE = "\n".join((ROOT / f"koubou_panel/wire/{name}.py").read_text(encoding="utf-8") for name in PUBLIC)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_field_is_documented(name):
    """Each command has a row, and each of its fields a mention."""
    rows = "".join(line for line in PAGE.splitlines() if line.startswith(f"| `{name}` |"))
    assert rows
    for field in COMMANDS[name].__struct_fields__:
        assert f"`{field}`" in rows, field


RECORDS = [
    *[TaskRecord, WorkerRecord, ActiveTask, ProgressRecord, LimitsRecord, UseRecord, PoolRecord],
    *[ScriptRecord, ParameterRecord, ScheduleRecord, ScriptRun, ServiceRecord],
]


@pytest.mark.parametrize("record", RECORDS)
def test_every_field_of_a_record_is_documented(record):
    """Each field of what is shown stands on the page."""
    assert [field for field in record.__struct_fields__ if f"`{field}`" not in PAGE] == []


def test_every_message_and_code_is_documented():
    """Each type of message, channel and error code that the code makes stands on the page."""
    types = set(re.findall(r'(?:message|say)\(\s*"(\w+)"', WIRE)) | set(CHANNEL_OF)
    codes = set(re.findall(r'(?:Refused|ProtocolFault)\(\s*"(\w+)"', WIRE))
    assert {"pong", "submitted", "initial_state"} <= types
    assert {"bad_json", "not_found"} <= codes
    missing = [name for name in sorted(types | codes | set(CHANNELS)) if f"`{name}`" not in PAGE]
    assert missing == []
