"""What the Settings page says, as plain data: each setting in words, where its value comes from, what is in use."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

from koubou_panel.config import SettingRecord, plain
from koubou_panel.settings import FILE
from koubou_panel.views.escape import block, line
from koubou_panel.views.language import _, later

#: By setting: what people call it, and the help of `koubou_panel.settings.TABLE`.
WORDS = {
    "home": (later("Home"), later("the folder of the database, the output and the token")),
    "host": (later("Address"), later("the address that every port listens on")),
    "dashboard_port": (later("Dashboard port"), later("the dashboard's port; 0 takes a free one")),
    "socket_port": (later("WebSocket port"), later("the WebSocket port; 0 takes a free one")),
    "agents_port": (
        later("Agents port"),
        later("the port of MCP and REST for agents; 0 takes a free one"),
    ),
    "workers": (later("Workers"), later("how many workers there are at least and at most")),
    "grace_s": (later("Grace"), later("how long running tasks may go on when it is stopped")),
    "agent_tasks": (later("Tasks of an agent"), later("how many unfinished tasks one agent may have")),
    "values_days": (
        later("Large values, time"),
        later("how long large arguments and results of tasks that have ended are kept"),
    ),
    "values_gb": (
        later("Large values, room"),
        later("how much room they may take: beyond it the oldest go before, but nothing of the last day"),
    ),
    "model_url": (
        later("Model server"),
        later(
            "the model server, such as http://127.0.0.1:11434, or embedded; empty: whichever answers on this machine"
        ),
    ),
    "model": (later("Model"), later("the model that prompts go to; empty: the server's first")),
    "model_file": (
        later("Model file"),
        later(
            "another model, a GGUF file, for the embedded model server; empty: the small one it comes with"
        ),
    ),
}
GROUPS = {
    "work": (later("Work"), ("workers", "grace_s", "agent_tasks", "values_days", "values_gb")),
    "models": (later("Models"), ("model_url", "model", "model_file")),
    "doors": (later("Addresses and ports"), ("host", "dashboard_port", "socket_port", "agents_port")),
    "place": (later("Place"), ("home",)),
}
#: The service that reads the setting when it is started anew; the others are read when all of the workshop is.
READ_BY = {"model_url": "pool", "model": "pool", "model_file": "model"}
NUMBERS = ("integer", "number")
#: What is counted; other units are the same in every language.
UNITS = {"tasks": later("tasks"), "days": later("days")}
VALUE = 400

Row = dict[str, object]


def setting_groups(records: Sequence[SettingRecord], used: Mapping[str, object]) -> list[Row]:
    """The settings by what they are about; `used` is what the workshop goes by now, where it tells."""
    by_name = {record.name: record for record in records}
    groups: list[Row] = []
    for key, (label, names) in GROUPS.items():
        rows = [_row(by_name.pop(name), used) for name in names if name in by_name]
        groups.append({"key": key, "label": _(label), "rows": rows})
    rest = [_row(record, used) for record in by_name.values()]
    if rest:  # one that has no words yet
        groups.append({"key": "more", "label": _("More"), "rows": rest})
    return groups


def _row(record: SettingRecord, used: Mapping[str, object]) -> Row:
    label, help_ = WORDS.get(record.name, (record.name, record.help))
    now = used.get(record.name)
    value, default = _text(record.value), _text(record.default)
    return {
        "name": record.name,
        "label": _(label),
        "help": _(help_),
        "unit": _(UNITS.get(record.unit, record.unit)),
        "value": value,
        "typed": _text(plain(record.in_file)) if record.in_file is not None else "",
        "in_file": record.in_file is not None,
        "default": default,
        "is_number": record.type in NUMBERS,
        "can_edit": record.name != "home",
        "source": _source(record),
        "overrides": _overrides(record),
        "in_use": "" if now is None or _text(now) == value else _in_use(record.name, _text(now)),
        "effect": _effect(record),
        "service": READ_BY.get(record.name, ""),
    }


def _text(value: object) -> str:
    """A setting's value as a person types it."""
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return line(str(plain(value)), VALUE)


def _source(record: SettingRecord) -> str:
    """Where its value comes from, in short."""
    if record.source == "default":
        return _("default")
    return FILE if record.source.endswith(FILE) else line(record.source, 60)


def _overrides(record: SettingRecord) -> str:
    """What wins over the file; empty where nothing does."""
    if record.name == "home" or record.source == "default" or record.source.endswith(FILE):
        return ""
    if record.source.startswith("--"):
        words = _("Set by {source} for this run, restarts included: {value}")
    else:
        words = _("{source} is set and wins over the file: {value}")
    return words.format(source=line(record.source, 60), value=_text(record.value) or "–")


def _in_use(name: str, now: str) -> str:
    if name == "workers":
        return _("In use now: {value}, as it was set since the start").format(value=now)
    return _("In use now: {value}").format(value=now)


def _effect(record: SettingRecord) -> str:
    """When a change of it counts."""
    name = record.name
    if name == "home":
        return _("Named by --home or KOUBOU_HOME, when the workshop is started")
    if record.source.startswith("--"):
        words = _("Counts once the workshop is started without {flag}")
        return words.format(flag=line(record.source, 60))
    if name == "workers":
        return _("Counts from the next start on; the Workers page changes it at once")
    if name in READ_BY:
        is_pool = READ_BY[name] == "pool"
        return (
            _("Counts after a restart of the worker pool")
            if is_pool
            else _("Counts after a restart of the model server")
        )
    return _("Counts after koubou restart")


def diff_rows(before: str, after: str) -> list[list[str]]:
    """The lines that differ, with those around them: (sign, text), the sign one of `+`, `-` and a space."""
    found = difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=2)
    lines = [text for text in found if not text.startswith(("---", "+++", "@@"))]
    return [[text[0], block(text[1:])] for text in lines]
