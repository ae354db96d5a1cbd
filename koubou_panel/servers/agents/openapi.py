"""The OpenAPI document of REST for agents, made from the table of operations and the records that check requests."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from koubou_panel.servers.agents import schema
from koubou_panel.servers.agents.operations import ALWAYS, FAILURES, OPERATIONS, Operation

_BODY = "Delegate"
_COMMON = ("timeout", "wait", "model", "name", "labels", "retries", "on_crash", "idempotency_key", "after")
# What says what is to be done; the types that take it; fields and options that go with it alone.
_SHAPES: tuple[tuple[str, tuple[str, ...], tuple[str, ...], tuple[str, ...]], ...] = (
    (
        "prompt",
        ("general", "code", "prompt"),
        ("files",),
        ("system", "schema", "max_tokens", "temperature", "seed"),
    ),
    ("command", ("general", "code", "script"), ("files",), ("cwd", "env")),
    ("script", ("general", "code", "script"), ("parameters",), ()),
)
_LINKED = ("task_status", "status_of_task", "cancel")
_PARAMETER = re.compile(r"{(\w+)}")
_JSON = "application/json"
_RETRY = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 1}}}
_EXAMPLES: dict[str, Any] = {
    "prompt": {"summary": "A prompt", "value": {"type": "general", "prompt": "Explain recursion."}},
    "command": {
        "summary": "A command",
        "value": {"type": "script", "command": ["echo", "hello"], "sync": True},
    },
    "script": {"summary": "A script of the catalogue", "value": {"type": "script", "script": "backup"}},
}


def document(version: str, kinds: Sequence[str] = ()) -> dict[str, Any]:
    """The whole document, as JSON values; `kinds` are those that tasks can be beside `prompt` and `script`."""
    records = [schema.Failure, schema.Delegated, schema.Ended]
    for operation in OPERATIONS:
        records += [record for record in (operation.answer.record, operation.body) if record is not None]
    _, components = msgspec.json.schema_components(
        list(dict.fromkeys(records)), schema_hook=_anything, ref_template="#/components/schemas/{name}"
    )
    components |= _variants(components.pop("Delegate"), components.pop("DelegateOptions"), kinds)
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Koubou Panel for agents",
            "version": version,
            "description": "Delegate work to the workshop of this machine, and see what becomes of it.",
            "license": {"name": "BSD-3-Clause", "identifier": "BSD-3-Clause"},
        },
        "servers": [{"url": "/", "description": "The port that gave this document."}],
        "security": [{"token": []}],
        "tags": [{"name": "agents", "description": "What agents use over plain HTTP."}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "What `koubou token` prints, or a token of its own: `koubou token add NAME`.",
                }
            },
        },
    }


def _operation(operation: Operation) -> dict[str, Any]:
    words = f"{operation.words} " if operation.words else ""
    made: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "description": f"{words}Needs a token that may at least `{operation.role.value}`.",
        "tags": ["agents"],
        "parameters": [_path_parameter(name) for name in _PARAMETER.findall(operation.path)]
        + _query_parameters(operation.query),
        "responses": {"200": _success(operation)}
        | {str(status): _failure(status) for status in sorted({*ALWAYS, *operation.failures})},
    }
    if operation.body is not None:
        made["requestBody"] = {
            "required": True,
            "description": "What is to be done.",
            "content": {_JSON: {"schema": {"$ref": f"#/components/schemas/{_BODY}"}, "examples": _EXAMPLES}},
        }
    return made


def _variants(whole: dict[str, Any], options: dict[str, Any], kinds: Sequence[str]) -> dict[str, Any]:
    """The body of a delegation as what it really can be: one shape for each field that says what is to be done."""
    made: dict[str, Any] = {}
    shapes = [*_SHAPES, ("parameters", tuple(kinds), (), ())] if kinds else _SHAPES
    for given, types, fields, settings in shapes:
        name = f"{_BODY}{given.title()}"
        own = {
            key: options["properties"][key] for key in options["properties"] if key in {*_COMMON, *settings}
        }
        made[f"{name}Options"] = options | {"title": f"{name}Options", "properties": own}
        kept = {key: whole["properties"][key] for key in ("priority", "sync", *fields)}
        kept["type"] = whole["properties"]["type"] | {"enum": list(types)}
        if "general" not in types:
            kept["type"].pop("default")
            kept["type"]["examples"] = [types[0]]
        kept[given] = _given(whole["properties"][given])
        kept["options"] = {
            "anyOf": [{"type": "null"}, {"$ref": f"#/components/schemas/{name}Options"}],
            "description": whole["properties"]["options"]["description"],
            "default": None,
        }
        required = [given] if "general" in types else [given, "type"]
        made[name] = whole | {"title": name, "properties": kept, "required": required}
    choice = [{"$ref": f"#/components/schemas/{_BODY}{shape[0].title()}"} for shape in shapes]
    made[_BODY] = {"title": _BODY, "description": whole["description"], "anyOf": choice}
    return made


def _given(told: dict[str, Any]) -> dict[str, Any]:
    """The schema of a field that may be left out, where it is not."""
    shapes = [shape for shape in told["anyOf"] if shape != {"type": "null"}]
    rest = {key: value for key, value in told.items() if key not in ("anyOf", "default")}
    return rest | (shapes[0] if len(shapes) == 1 else {"anyOf": shapes})


def _path_parameter(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": "The task's id.",
        "schema": {"type": "string", "minLength": 1},
        "example": "06c8r7v2n4k1qd",
    }


def _query_parameters(query: type[msgspec.Struct]) -> list[dict[str, Any]]:
    _, components = msgspec.json.schema_components([query], ref_template="#/components/schemas/{name}")
    found = []
    for name, told in components[query.__name__]["properties"].items():
        shape = {key: value for key, value in told.items() if key != "description"}
        words = told["description"]
        if "anyOf" in shape:  # absent, not null: an address knows no null
            shape = {"type": "string", "enum": shape["enum"]}
        found.append({"name": name, "in": "query", "required": False, "description": words, "schema": shape})
    return found


def _success(operation: Operation) -> dict[str, Any]:
    answer = operation.answer
    shape: dict[str, Any]
    if operation.body is not None:
        shape = {"anyOf": [_reference(schema.Delegated), _reference(schema.Ended)]}
    elif answer.record is not None:
        shape = _reference(answer.record)
    else:
        shape = {"type": "string"} if answer.media != _JSON else {"type": "object"}
    made: dict[str, Any] = {"description": answer.words, "content": {answer.media: {"schema": shape}}}
    if operation.body is not None:
        made["links"] = {
            name: {
                "operationId": name,
                "description": "Of the task that was delegated.",
                "parameters": {"task_id": "$response.body#/task_id"},
            }
            for name in _LINKED
        }
    return made


def _failure(status: int) -> dict[str, Any]:
    made: dict[str, Any] = {
        "description": FAILURES[status],
        "content": {_JSON: {"schema": _reference(schema.Failure)}},
    }
    if status in (429, 503):
        made["headers"] = _RETRY
    return made


def _reference(record: type[msgspec.Struct]) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{record.__name__}"}


def _anything(found: type) -> dict[str, Any]:
    if found is object:
        return {"description": "Any JSON value."}
    raise NotImplementedError
