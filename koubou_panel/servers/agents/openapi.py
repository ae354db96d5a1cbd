"""The OpenAPI document of REST for agents, made from the table of operations and the records that check requests."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from koubou_panel.servers.agents import schema
from koubou_panel.servers.agents.operations import ALWAYS, FAILURES, OPERATIONS, Operation

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


def document(version: str) -> dict[str, Any]:
    """The whole document, as JSON values."""
    records = [schema.Failure, schema.Delegated, schema.Ended]
    for operation in OPERATIONS:
        records += [record for record in (operation.answer.record, operation.body) if record is not None]
    _, components = msgspec.json.schema_components(
        list(dict.fromkeys(records)), schema_hook=_anything, ref_template="#/components/schemas/{name}"
    )
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
            "content": {_JSON: {"schema": _reference(operation.body), "examples": _EXAMPLES}},
        }
    return made


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
    return {"description": answer.words, "content": {answer.media: {"schema": shape}}}


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
