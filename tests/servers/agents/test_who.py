"""Who gets in at the agents' port: routes by verbs by bad credentials, Host and Origin tables, and what is mounted."""

from __future__ import annotations

import asyncio
import json

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from koubou_panel.servers.access import Access, Allow, Role, token_hash
from koubou_panel.servers.agents.app import make
from koubou_panel.servers.agents.middleware import Guarded
from koubou_panel.servers.agents.operations import OPERATIONS
from koubou_panel.servers.guard import Guard
from koubou_panel.testing import open_inline_shop, submit, until
from tests.servers.agents.rest_door import READ, TOKEN, open_door

VERBS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"]
NAMED = "n" * 43
RUNS = "r" * 43
OF_AGENTS = {
    token_hash(NAMED): Allow(Role.FULL, "agent:ci"),
    token_hash(RUNS): Allow(Role.RUN, "agent:night"),
}
BODY = json.dumps({"command": ["true"]}).encode()
BAD_CREDENTIALS = [
    [],
    ["Authorization: Bearer"],
    ["Authorization: Bearer x"],
    [f"Authorization: Bearer {TOKEN}x"],
    [f"Authorization: Bearer {TOKEN[:-1]}"],
    [f"Authorization: Bearer {token_hash(NAMED)}"],
    [f"Authorization: Basic {TOKEN}"],
    [f"Authorization: {TOKEN}"],
    [f"Authorization: Bearer {TOKEN}", "Authorization: Bearer x"],
    [f"Authorization: Bearer {TOKEN}", f"Authorization: Bearer {TOKEN}"],
    [f"Cookie: koubou-8765={TOKEN}"],
    [f"X-Api-Key: {TOKEN}"],
]


@pytest.fixture
async def shop():
    """A workshop in memory."""
    async with open_inline_shop() as shop:
        yield shop


@pytest.fixture
async def door(shop):
    """Its agents' port."""
    async with open_door(shop, named=OF_AGENTS) as door:
        yield door


def routes_of(door) -> list[str]:
    """Every path that is really served, from the route table of the running application."""
    app = door.server.guard.on_change.__self__._app
    assert isinstance(app, Starlette)
    return [route.path.replace("{task_id}", "2myksd00370fvk") for route in app.routes]


async def ask(door, verb, path, headers=(), *, host=None, body=BODY) -> tuple[int, dict[str, str], bytes]:
    """One raw request on a connection of its own: its status, headers and body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
    lines = [f"{verb} {path} HTTP/1.1"]
    lines += [f"Host: {host if host is not None else f'127.0.0.1:{door.port}'}"] if host != "" else []
    lines += ["Content-Type: application/json", f"Content-Length: {len(body)}", "Connection: close", *headers]
    writer.write("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
    async with asyncio.timeout(10):
        data = await reader.read()
    writer.close()
    head, _, rest = data.partition(b"\r\n\r\n")
    first, *others = head.decode("latin-1").split("\r\n")
    pairs = (line.partition(": ") for line in others)
    return int(first.split()[1]), {name.lower(): value for name, _, value in pairs}, rest


async def test_every_route_by_every_verb_refuses_bad_credentials(shop, door):
    """Whatever is asked for, and however, without good credentials it is 401 as JSON, and nothing happens."""
    task_id = await submit(shop, "sleep", "60")
    paths = [*routes_of(door), f"/task/{task_id}", "/nope", "/", "/docs", "/mcp/", "//health"]
    assert len(paths) > 15
    for path in paths:
        for verb in VERBS:
            for headers in BAD_CREDENTIALS:
                status, told, body = await ask(door, verb, path, headers)
                assert status == 401, (verb, path, headers)
                assert told["www-authenticate"].startswith("Bearer")
                if verb != "HEAD":
                    assert json.loads(body)["error"]["code"] == "unauthorized"
    assert list(shop.state.tasks) == [task_id]
    assert shop.state.tasks[task_id].status == "in_progress"


@pytest.mark.parametrize("path", ["/health", "/task/delegate", "/mcp", "/nope"])
async def test_foreign_hosts_and_origins_are_refused(shop, door, path):
    """However good the token: a Host or Origin that is not the port's own is 403, for every verb."""
    good = f"Authorization: Bearer {TOKEN}"
    port = door.port
    hosts = [
        "evil.example",
        f"evil.example:{port}",
        f"127.0.0.1.nip.io:{port}",
        "127.0.0.1",
        f"[::]:{port}",
        "",
    ]
    hosts += [f"localhost:{port + 1}", f"user@127.0.0.1:{port}"]
    origins = ["null", "http://evil.example", f"https://localhost:{port}", "http://localhost", "file://"]
    for verb in VERBS:
        for host in hosts:
            status, _, body = await ask(door, verb, path, [good], host=host)
            # A request without Host, or with a malformed one, is no HTTP/1.1 at all: 400 before anybody looks.
            assert status == 403 or (status == 400 and host == ""), (verb, host)
            if status == 403 and verb != "HEAD":
                assert json.loads(body)["error"]["code"] == "bad_host"
        for origin in origins:
            status, _, body = await ask(door, verb, path, [good, f"Origin: {origin}"])
            assert status == 403, (verb, origin)
            if verb != "HEAD":
                assert json.loads(body)["error"]["code"] == "bad_origin"
    assert not shop.state.tasks


async def test_own_hosts_and_origins_are_let_in(door):
    """The loopback names with the port are answered, and pages of the port itself may ask."""
    good = f"Authorization: Bearer {TOKEN}"
    for host in (f"127.0.0.1:{door.port}", f"localhost:{door.port}", f"[::1]:{door.port}"):
        status, told, _ = await ask(door, "GET", "/health", [good, f"Origin: http://{host}"], host=host)
        assert status == 200
        assert told["cache-control"] == "no-store"
        assert told["x-content-type-options"] == "nosniff"


async def test_a_request_that_names_another_host_in_its_target_is_refused(door):
    """`GET http://evil.example/` has two hosts; the second one wins nothing."""
    for target in ("http://evil.example/health", f"http://127.0.0.1:{door.port}/health"):
        status, _, _ = await ask(door, "GET", target, [f"Authorization: Bearer {TOKEN}"])
        assert status in (403, 404)


@pytest.mark.parametrize(
    ("token", "needed"), [(READ, {Role.READ}), (RUNS, {Role.READ, Role.RUN}), (NAMED, set(Role))]
)
async def test_roles_hold_for_every_operation(door, token, needed):
    """What an operation takes is checked for each of the table, before its body is read."""
    for operation in OPERATIONS:
        path = operation.path.replace("{task_id}", "2myksd00370fvk")
        status, _, _ = await ask(door, operation.method, path, [f"Authorization: Bearer {token}"], body=b"")
        assert (status == 403) is (operation.role not in needed), operation.name


async def test_a_token_for_scripts_delegates_nothing_else(shop, door):
    """Whatever a body with anything but a script says, the role `run` is refused it, and nothing happens."""
    for body in ({"command": ["true"]}, {"prompt": "hi"}, {"type": "pull", "parameters": {"model": "x"}}):
        headers = [f"Authorization: Bearer {RUNS}"]
        status, _, told = await ask(door, "POST", "/task/delegate", headers, body=json.dumps(body).encode())
        assert (status, json.loads(told)["error"]["code"]) in ((403, "forbidden"), (400, "invalid")), told
    headers = [f"Authorization: Bearer {RUNS}"]
    body = json.dumps({"script": "none"}).encode()
    status, _, _ = await ask(door, "POST", "/task/delegate", headers, body=body)
    assert status == 404
    assert not shop.state.tasks


async def test_whatever_is_mounted_is_guarded():
    """A route that is mounted later, and one under a mount, pass the same guard; they are told who asks."""

    async def probe(request):
        return PlainTextResponse(request.scope["koubou"].actor)

    app = Starlette(routes=[Route("/probe", probe), Mount("/deep", routes=[Route("/probe", probe)])])
    guarded = Guarded(app, Guard(Access(token=TOKEN, port=8765)))
    for path in ("/probe", "/deep/probe", "/deep/nope"):
        for authorization in (None, b"Bearer x", b"Bearer " + TOKEN.encode()):
            status, body = await call(guarded, path, authorization)
            if authorization is None or authorization.endswith(b"x"):
                assert status == 401
            elif path.endswith("probe"):
                assert (status, body) == (200, b"token")


async def call(app, path, authorization) -> tuple[int, bytes]:
    """One request to an ASGI application, from this machine."""
    headers = [(b"host", b"127.0.0.1:8765")]
    headers += [(b"authorization", authorization)] if authorization else []
    scope = {
        "type": "http",
        "method": "GET",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": headers,
        "client": ("127.0.0.1", 5),
        "root_path": "",
    }
    sent = []

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        sent.append(message)

    await app(scope, receive, send)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])


async def test_a_websocket_is_never_opened(shop):
    """Nothing here speaks WebSocket: one is closed, credentials or not."""
    sent = []

    async def send(message):
        sent.append(message)

    app = make(shop, Guard(Access(token=TOKEN, port=8765)))
    scope = {"type": "websocket", "path": "/health", "client": ("127.0.0.1", 5)}
    for headers in ([], [(b"host", b"127.0.0.1:8765"), (b"authorization", b"Bearer " + TOKEN.encode())]):
        await app({**scope, "headers": headers}, None, send)
    assert [message["type"] for message in sent] == ["websocket.close"] * 2


async def test_a_revoked_token_is_cut_off(shop, door):
    """Who waits by a token that is revoked is answered 401 at once; others wait on."""
    async with door.client(NAMED) as agent, door.client() as owner:
        body = {"command": "sleep 60", "sync": True}
        asked = [asyncio.create_task(one.post("/task/delegate", json=body)) for one in (agent, owner)]
        await until(lambda: len(shop.engine.jobs) == 2)
        door.server.guard.name({})
        reply = await asyncio.wait_for(asked[0], 10)
        assert reply.status_code == 401
        assert "revoked" in reply.json()["error"]["message"]
        assert (await agent.get("/health")).status_code == 401
        assert not asked[1].done()
        for task_id in list(shop.engine.jobs):
            shop.engine.finish(task_id)
        assert (await asked[1]).json()["status"] == "completed"


async def test_a_rotation_ends_named_tokens(door):
    """With a new token neither the old one nor any named one opens anything."""
    door.server.guard.rotate("z" * 43)
    for token, status in ((TOKEN, 401), (NAMED, 401), ("z" * 43, 200)):
        async with door.client(token) as rest:
            assert (await rest.get("/health")).status_code == status


async def test_without_auth_everyone_of_this_machine_is_let_in(shop):
    """With `--insecure-no-auth` older clients are answered as they are; Host and Origin still count."""
    async with open_door(shop, insecure_no_auth=True) as door:
        status, _, _ = await ask(door, "GET", "/tasks")
        assert status == 200
        status, _, _ = await ask(door, "GET", "/tasks", ["Origin: http://evil.example"])
        assert status == 403
