"""The OpenAPI document: it says everything, and what it says is so, as schemathesis finds out on a real workshop."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from koubou_panel.core.commands import Caller, SaveScript
from koubou_panel.core.script import Parameter, Script
from koubou_panel.servers.agents.openapi import document
from koubou_panel.servers.agents.operations import ALWAYS, OPERATIONS
from koubou_panel.servers.agents.rest import types
from koubou_panel.servers.agents.rest_http import STATUS_OF
from koubou_panel.servers.agents.schema import Delegate, DelegateOptions
from koubou_panel.servers.credentials import load_or_create_token
from koubou_panel.testing import open_inline_shop, open_shop
from tests.servers.agents.rest_door import open_door

DOCS = Path(__file__).resolve().parents[3] / "docs" / "rest.md"
SCHEMATHESIS = Path(sys.executable).with_name("schemathesis")
EXAMPLES = 5
CONFIG = """
# A task that is ended stays, and says how it ended.
[checks]
use_after_free.enabled = false

# What may be done depends on what is there: a file, a script, another task. No schema can tell.
[[operations]]
include-operation-id = "delegate"
checks.positive_data_acceptance.enabled = false
"""


def every(node, path="$"):
    """Each object of a document, with where it stands."""
    if isinstance(node, dict):
        yield path, node
        for key, value in node.items():
            yield from every(value, f"{path}.{key}")
    elif isinstance(node, list):
        for place, value in enumerate(node):
            yield from every(value, f"{path}[{place}]")


@pytest.fixture(scope="module")
def told():
    """The document."""
    return document("1.2.3", ["pull"])


async def test_the_route_table_is_the_document():
    """Every route that is served under REST is in the document, with every verb, and the other way round."""
    async with open_inline_shop() as shop, open_door(shop) as door, door.client() as rest:
        told = (await rest.get("/openapi.json")).json()
        app = door.server.guard.on_change.__self__._app
        served = {route.path for route in app.routes if route.path != "/mcp"}
        assert served == set(told["paths"])
        for path, verbs in told["paths"].items():
            allowed = (await rest.options(path.replace("{task_id}", "2myksd00370fvk"))).headers["allow"]
            assert set(allowed.split(", ")) - {"HEAD", "OPTIONS"} == {verb.upper() for verb in verbs}


def test_every_operation_is_in_the_docs():
    """The page for people names every verb and path."""
    text = DOCS.read_text()
    for operation in OPERATIONS:
        assert f"`{operation.method} {operation.path.replace('{task_id}', '{id}')}" in text, operation.path


def test_everything_is_described(told):
    """Operations, parameters, answers, schemas and fields have words; every field of a record too."""
    for path, node in every(told["paths"]):
        if {"operationId", "in", "content", "links"} & set(node) and path.count(".schema") == 0:
            assert node.get("description"), path
    for name, shape in told["components"]["schemas"].items():
        assert shape.get("description"), name
        for field, inner in shape.get("properties", {}).items():
            assert inner.get("description"), f"{name}.{field}"


def test_references_lead_somewhere(told):
    """Every reference names a schema that there is, and every schema is used."""
    text = json.dumps(told)
    names = set(told["components"]["schemas"])
    used = {node["$ref"].rpartition("/")[2] for _, node in every(told) if isinstance(node.get("$ref"), str)}
    assert used == names, text[:200]


def test_the_bodies_told_are_the_bodies_taken(told):
    """Each shape of a delegation has only fields of the record that checks it, and together they have all."""
    schemas = told["components"]["schemas"]
    shapes = [schemas[one["$ref"].rpartition("/")[2]] for one in schemas["Delegate"]["anyOf"]]
    assert {name for shape in shapes for name in shape["properties"]} == set(Delegate.__struct_fields__)
    options = [schema for name, schema in schemas.items() if name.endswith("Options")]
    assert {name for one in options for name in one["properties"]} == set(DelegateOptions.__struct_fields__)
    assert {one for shape in shapes for one in shape["properties"]["type"]["enum"]} == set(types())


def test_examples_keep_their_schemas(told):
    """What is shown as an example is valid."""
    schemas = told["components"]["schemas"]
    body = told["paths"]["/task/delegate"]["post"]["requestBody"]["content"]["application/json"]
    whole = {"components": {"schemas": schemas}, "$ref": "#/components/schemas/Delegate"}
    for example in body["examples"].values():
        jsonschema.Draft202012Validator(whole).validate(example["value"])
    for _, node in every(schemas):
        for example in node.get("examples", []) if isinstance(node.get("examples"), list) else []:
            jsonschema.Draft202012Validator({"components": {"schemas": schemas}} | node).validate(example)


def test_every_status_is_told(told):
    """What a handler can answer is in the document for each operation that can answer so."""
    known = {int(status) for _, node in every(told) for status in node.get("responses", {})}
    assert set(STATUS_OF.values()) | set(ALWAYS) | {200} == known


async def _add_script(folder, path):
    """Put the script that the document has as its example into the catalogue, with a parameter of each type."""
    path.write_text("#!/bin/sh\necho\n")
    parameters = tuple(
        Parameter(name=name, type=name, flag=f"--{name}", choices=("a",) if name == "choice" else ())
        for name in ("text", "integer", "number", "boolean", "choice", "path")
    )
    script = Script(name="backup", path=str(path), parameters=parameters, given=("parameters",))
    async with open_shop(folder, wait_ready=False) as shop:
        await shop.do(SaveScript(script), Caller("test"))


@pytest.fixture
def workshop(tmp_path):
    """A workshop process whose tasks find no program but `echo` and `true`; gives its port and its token."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("echo", "true"):
        (programs / name).symlink_to(f"/bin/{name}")
    home = tmp_path / "home"
    asyncio.run(_add_script(home, tmp_path / "backup.sh"))
    read_end, write_end = os.pipe()
    life_read, life_write = os.pipe()
    argv = [sys.executable, "-P", "-m", "koubou_panel.servers.workshop", "--home", str(home)]
    argv += ["--socket-port", "0", "--agents-port", "0", "--workers", "2:2", "--agent-tasks", "100000"]
    process = subprocess.Popen(
        [*argv, "--ready-fd", str(write_end), "--life-fd", str(life_read)],
        pass_fds=(write_end, life_read),
        env={"PATH": str(programs), "HOME": str(tmp_path), "KOUBOU_MODEL_URL": "http://127.0.0.1:1"},
        stderr=subprocess.DEVNULL,
    )
    os.close(write_end)
    os.close(life_read)
    with os.fdopen(read_end) as pipe:
        said = json.loads(pipe.readline())
    yield said["ports"]["agents"], load_or_create_token(home / "runtime", environ={})
    os.close(life_write)
    assert process.wait(30) == 0


@pytest.mark.timeout(240)
def test_schemathesis_finds_nothing(workshop, tmp_path):
    """Hundreds of requests, good and bad, in every phase: no 5xx, and every answer is as the document says."""
    port, token = workshop
    (tmp_path / "schemathesis.toml").write_text(CONFIG)
    argv = [str(SCHEMATHESIS), "run", f"http://127.0.0.1:{port}/openapi.json"]
    argv += ["--header", f"Authorization: Bearer {token}", "--no-color"]
    argv += ["--max-examples", str(EXAMPLES), "--generation-deterministic", "--request-timeout", "60"]
    done = subprocess.run(
        argv,
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=220,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert f"{len(OPERATIONS) - 1} selected" in done.stdout
    assert "Stateful" in done.stdout
