"""What every resource shares: who may, verbs, bodies, rate, time; and that every route is written down."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import time
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tornado.routing import PathMatches

from koubou_panel.core.commands import Caller, SaveScript
from koubou_panel.core.script import Script
from koubou_panel.servers.access import Allow, Role, token_hash
from koubou_panel.servers.api.fault import STATUS_OF
from koubou_panel.servers.api.handler import MAX_BODY_BYTES, SWALLOWED_BYTES, Api, ApiHandler
from koubou_panel.servers.api.routes import api_routes
from koubou_panel.servers.credentials import mint_code
from koubou_panel.testing import open_inline_shop, until
from koubou_panel.wire.session import Limits
from tests.servers.api.rest import READ, TOKEN, open_rest

DOCS = Path(__file__).parents[3] / "docs"
JSON = {"Content_Type": "application/json"}


@asynccontextmanager
async def open_one(folder: Path):
    """A client of a dashboard over a workshop in memory that has one script."""
    async with open_inline_shop(clock=time.time) as shop:
        path = folder / "greet.sh"
        path.write_text("true\n", encoding="utf-8")
        await shop.do(SaveScript(Script(name="greet", path=str(path))), Caller("test"))
        async with open_rest(shop, folder / "home") as client:
            client.shop = shop
            yield client


@pytest.fixture
async def rest(tmp_path):
    """A dashboard for one test."""
    async with open_one(tmp_path) as client:
        yield client


def resources(port_routes) -> list[tuple[str, type[ApiHandler]]]:
    """The rows of the table that say what there is, with a name in the place of the pattern."""
    return [(row[0].replace("([^/]+)", "greet"), row[1]) for row in port_routes][:-1]


ROUTES = resources(api_routes(Api(lambda: None, home=None, environ={})))
ALL = [(verb, path) for path, handler in ROUTES for verb in handler.methods()]


def test_every_route_is_written_down():
    """Each verb of each route has a row in docs/rest.md, and each row there a route."""
    page = (DOCS / "rest.md").read_text(encoding="utf-8").partition("## 8080")[2].partition("\n## ")[0]
    rows = set(re.findall(r"^\| `([A-Z]+) (/api/[^`]*)` \|", page, re.MULTILINE))
    routes = {
        (verb, path.replace("greet", "{name}"))
        for path, handler in ROUTES
        for verb in handler.methods()
        if verb not in ("HEAD", "OPTIONS")
    }
    assert rows == routes


def test_every_code_is_written_down():
    """Each word of a refusal stands on the page with its status."""
    page = (DOCS / "rest.md").read_text(encoding="utf-8").partition("## 8080")[2].partition("\n## ")[0]
    rows = dict(re.findall(r"^\| (\d{3}) \| (.*) \|$", page, re.MULTILINE))
    missing = [code for code, status in STATUS_OF.items() if f"`{code}`" not in rows.get(str(status), "")]
    assert missing == []


async def test_the_port_serves_these_routes_and_no_others(rest):
    """The route table of the running port, walked: every pattern is a page's, or is known here."""
    application = rest.dashboard._server._tornado
    patterns = {
        rule.matcher.regex.pattern.rstrip("$")
        for rule in application.wildcard_router.rules
        if isinstance(rule.matcher, PathMatches)
    }
    known = {row[0] for row in api_routes(rest.dashboard.api)} | {"/", "/healthz", "/ws", "/output/([^/]+)"}
    page = {
        pattern for pattern in patterns if re.match(r"/\??(overview|favicon|static|components|\(|$)", pattern)
    }
    assert {pattern for pattern in patterns - page if pattern.startswith("/api")} == {
        pattern for pattern in known if pattern.startswith("/api")
    }
    assert patterns - page - known == set()


@pytest.mark.parametrize(("verb", "path"), ALL)
async def test_nothing_is_served_without_credentials(rest, verb, path):
    """Every verb of every route is refused, in JSON, without a token, with a wrong one, from elsewhere."""
    for status, more in (
        (401, {"token": None}),
        (401, {"token": "wrong"}),
        (403, {"Host": "evil.example"}),
        (403, {"Origin": "http://evil.example"}),
        (403, {"Origin": "null"}),
    ):
        refused = await rest.ask(verb, path, **more)
        assert refused.status == status
        if verb != "HEAD":
            assert set(refused.error) == {"code", "message"}
            assert refused.headers["Content-Type"].startswith("application/json")


@pytest.mark.parametrize(("verb", "path"), ALL)
async def test_the_read_token_only_reads(rest, verb, path):
    """With it GET, HEAD and OPTIONS are answered, and every other verb is refused."""
    reply = await rest.ask(verb, path, token=READ)
    if verb in ("GET", "HEAD", "OPTIONS"):
        assert reply.status in (200, 204)
    else:
        assert (reply.status, reply.error["code"]) == (403, "forbidden")


async def test_a_token_that_may_run_scripts_does_that_alone(rest):
    """An agent's own token of that scope runs what is in the catalogue, under its name, and changes nothing."""
    rest.dashboard.guard.name({token_hash("bot-token"): Allow(Role.RUN, "agent:bot")})
    run = await rest.post("/api/scripts/greet/run", token="bot-token")
    assert run.status == 202
    assert rest.shop.state.tasks[run.body["task_id"]].request.submitted_by == "agent:bot"
    for verb, path in ALL:
        if verb not in ("GET", "HEAD", "OPTIONS") and not path.endswith("/run"):
            refused = await rest.ask(verb, path, token="bot-token")
            assert (refused.status, refused.error["code"]) == (403, "forbidden")
            assert "run registered scripts" in refused.error["message"]


@pytest.mark.parametrize("path", [path for path, _ in ROUTES])
async def test_verbs_that_are_not_there_are_told(rest, path):
    """405 names those that are; OPTIONS does too; HEAD is GET without the body."""
    options = await rest.ask("OPTIONS", path)
    allowed = options.headers["Allow"].split(", ")
    assert (options.status, options.text) == (204, "")
    for verb in ("GET", "POST", "PUT", "DELETE", "PATCH", "TRACE"):
        if verb not in allowed:
            refused = await rest.ask(verb, path, {} if verb != "TRACE" else None)
            assert (refused.status, refused.error["code"]) == (405, "method_not_allowed"), verb
            assert refused.headers["Allow"] == options.headers["Allow"]
    if "GET" in allowed:
        head, got = await rest.ask("HEAD", path), await rest.get(path)
        assert (head.status, head.text) == (got.status, "") == (200, "")
        assert head.headers["Content-Type"] == got.headers["Content-Type"]
        assert "Etag" not in got.headers or path == "/api/scripts/greet"


@pytest.mark.parametrize(
    "path", ["/api", "/api/", "/api/script", "/api/scripts/", "/api/scripts/a/b", "/api/x/y"]
)
async def test_what_is_not_there_is_told_in_json(rest, path):
    """Below /api a path that is none is 404 with the nearest, whatever the verb."""
    for verb in ("GET", "POST", "DELETE"):
        refused = await rest.ask(verb, path)
        assert (refused.status, refused.error["code"]) == (404, "not_found")
    assert (await rest.get("/api/script")).error["nearest"] == "/api/scripts"


async def test_answers_are_not_kept_by_anyone(rest):
    """No cache, no sniffing, nothing for other origins; a refusal too."""
    for path in ("/api/status", "/api/scripts/nothing"):
        headers = (await rest.get(path)).headers
        assert headers["Cache-Control"] == "no-store"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert "Access-Control-Allow-Origin" not in headers


async def test_status_tells_how_the_workshop_stands(rest):
    """Tasks, workers, scripts, services, the pool and the version, on one page."""
    body = (await rest.get("/api/status")).body
    assert (body["status"], body["epoch"]) == ("ok", rest.shop.state.epoch)
    assert body["scripts"] == {"total": 1, "enabled": 1, "active": 0}
    assert (body["workers"]["total_workers"], body["tasks"]["pending"]) == (2, 0)
    assert body["total_executions"] == 0
    assert set(body) >= {"version", "services", "pool", "system", "lag_s", "started_at"}


# -- bodies ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ("{", 400, "bad_json"),
        ("[]", 400, "bad_request"),
        ('"x"', 400, "bad_request"),
        ('{"name": NaN}', 400, "bad_json"),
        ('{"name": "a", "name": "b"}', 400, "bad_json"),
        ('{"interval": 1e999}', 400, "bad_json"),
        ('{"schedule": ' + "[" * 70 + "]" * 70 + "}", 400, "bad_json"),
        (b'{"name": "\xff"}', 400, "bad_json"),
        ('{"name": "\\ud800"}', 400, "bad_json"),
        ("\ufeff{}", 400, "bad_json"),
        ("x" * (MAX_BODY_BYTES + 1), 413, "too_large"),
    ],
)
async def test_a_body_is_strict_json(rest, body, status, code):
    """What is no plain JSON object of at most 1 MiB is refused, and the next request is served."""
    refused = await rest.put("/api/scripts/greet", body, **JSON)
    assert (refused.status, refused.error["code"]) == (status, code)
    assert "command" not in refused.error["message"]
    assert (await rest.get("/api/scripts/greet")).body["revision"] == 1


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "", "application/json; charset=utf-16"]
)
async def test_a_body_says_that_it_is_json(rest, kind):
    """Any other content type is 415."""
    refused = await rest.put("/api/scripts/greet", "{}", Content_Type=kind)
    assert (refused.status, refused.error["code"]) == (415, "unsupported")
    good = await rest.put("/api/scripts/greet", "{}", Content_Type="Application/JSON; charset=UTF-8")
    assert good.status == 200


async def test_a_packed_body_is_not_unpacked(rest):
    """Content-Encoding is refused: a small body could become a large one."""
    refused = await rest.put("/api/scripts/greet", "{}", Content_Encoding="gzip", **JSON)
    assert refused.status == 415


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    body=st.one_of(
        st.binary(max_size=200),
        st.recursive(
            st.none() | st.booleans() | st.floats() | st.text(),
            lambda inner: (
                st.lists(inner)
                | st.dictionaries(
                    st.sampled_from(
                        [
                            "name",
                            "path",
                            "interval",
                            "schedule",
                            "parameters",
                            "text",
                            "limits",
                            "env",
                            "revision",
                            "x",
                        ]
                    ),
                    inner,
                )
            ),
            max_leaves=8,
        ),
    )
)
def test_any_body_is_answered_with_words(event_loop_rest, body):
    """Whatever is sent, it is 2xx or a refusal in JSON: never 500, never silence."""
    ask, loop = event_loop_rest
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    for verb, path in (
        ("POST", "/api/scripts"),
        ("PUT", "/api/scripts/greet"),
        ("POST", "/api/scripts/greet/run"),
        ("PUT", "/api/config"),
    ):
        reply = loop.run_until_complete(ask(verb, path, sent))
        assert reply.status in (200, 201, 202, 400, 404, 409)
        assert reply.status < 300 or reply.error["message"]


@pytest.fixture
def event_loop_rest(tmp_path):
    """Asks a dashboard of a loop of its own, for tests that are no coroutines."""
    loop = asyncio.new_event_loop()
    opened = open_one(tmp_path)
    client = loop.run_until_complete(opened.__aenter__())
    client.dashboard.api._limits = Limits(commands_per_s=1e6)
    yield (lambda verb, path, body: client.ask(verb, path, body, **JSON)), loop
    loop.run_until_complete(opened.__aexit__(None, None, None))
    loop.close()


def speak(port: int, *lines: str) -> socket.socket:
    """A connection that has sent the head of a request, and no more."""
    sock = socket.create_connection(("127.0.0.1", port))
    sock.settimeout(10)
    head = [
        *lines,
        f"Host: 127.0.0.1:{port}",
        f"Authorization: Bearer {TOKEN}",
        "Content-Type: application/json",
    ]
    sock.sendall(("\r\n".join(head) + "\r\n\r\n").encode())
    return sock


async def read_all(sock: socket.socket) -> bytes:
    """What comes until the other side ends."""
    loop = asyncio.get_running_loop()
    sock.setblocking(False)
    read = b""
    while piece := await loop.sock_recv(sock, 65_536):
        read += piece
    sock.close()
    return read


async def test_a_huge_body_is_refused_unread(rest):
    """A body that says it is far too large is answered before it comes."""
    sock = speak(rest.port, "PUT /api/scripts/greet HTTP/1.1", f"Content-Length: {SWALLOWED_BYTES + 1}")
    said = await read_all(sock)
    assert said.startswith(b"HTTP/1.1 413 ")
    assert b'"too_large"' in said


async def test_an_endless_body_is_cut_off(rest):
    """One in pieces, without a length, ends where even a patient server has heard enough."""
    sock = speak(rest.port, "PUT /api/scripts/greet HTTP/1.1", "Transfer-Encoding: chunked")
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    piece = b"10000\r\n" + b"x" * 65_536 + b"\r\n"

    async def send() -> None:
        for _ in range(1_000):
            await loop.sock_sendall(sock, piece)

    with pytest.raises(ConnectionError):
        await send()
    sock.close()


async def test_a_body_that_does_not_come_holds_nobody_up(tmp_path):
    """A client that sends half a body is dropped after a while; meanwhile others are served."""
    async with open_inline_shop(clock=time.time) as shop, open_rest(shop, tmp_path) as rest:
        rest.dashboard.api.body_s = 0.3
        sock = speak(rest.port, "POST /api/scripts HTTP/1.1", "Content-Length: 10")
        assert (await rest.get("/api/status")).status == 200
        assert await read_all(sock) == b""


async def test_who_is_refused_while_sending_reads_the_answer(rest):
    """A refusal before the body has come reaches a client that goes on sending it."""
    size = 4 << 20
    sock = speak(rest.port, "PATCH /api/scripts/greet HTTP/1.1", f"Content-Length: {size}")
    sock.setblocking(False)
    loop = asyncio.get_running_loop()

    async def send() -> None:
        with suppress(OSError):
            await loop.sock_sendall(sock, b"x" * size)

    sending = asyncio.create_task(send())
    said = await read_all(sock)
    assert said.startswith(b"HTTP/1.1 405 ")
    sending.cancel()


# -- browsers -------------------------------------------------------------------------------------------------


async def sign_in(rest) -> dict[str, str]:
    """The cookie of a page, as a header."""
    login = await rest_raw(rest, f"/login?code={mint_code(TOKEN, time.time())}")
    return {"Cookie": login.partition(";")[0]}


async def rest_raw(rest, path: str) -> str:
    """The cookie that a path sets."""
    from tornado.httpclient import AsyncHTTPClient

    client = AsyncHTTPClient(force_instance=True)
    reply = await client.fetch(f"http://127.0.0.1:{rest.port}{path}")
    client.close()
    return reply.headers["Set-Cookie"]


async def test_a_page_of_another_port_cannot_act_with_the_cookie(rest):
    """SameSite knows no ports: a change with the cookie needs our own Origin, or a content type that a form lacks."""
    cookie = await sign_in(rest)
    own = f"http://127.0.0.1:{rest.port}"
    run, form = "/api/scripts/greet/run", {"Content_Type": "text/plain"}
    assert (await rest.get("/api/scripts", token=None, **cookie)).status == 200
    for more in ({}, form, {"Origin": "http://127.0.0.1:1"}, {"Origin": "null"}):
        refused = await rest.post(run, "" if more is form else None, token=None, **cookie, **more)
        assert (refused.status, refused.error["code"]) in ((403, "forbidden"), (403, "bad_origin"))
    assert rest.shop.state.scripts["greet"].active == ()
    for more in ({"Origin": own}, JSON):
        assert (await rest.post(run, token=None, **cookie, **more)).status == 202
    assert (await rest.post(run)).status == 202, "a token is sent by no browser of itself"
    preflight = await rest.ask("OPTIONS", run, Origin="http://127.0.0.1:1")
    assert preflight.status == 403


# -- rate and time --------------------------------------------------------------------------------------------


async def test_too_many_requests_are_refused_with_when_to_come_again(tmp_path):
    """More than the rate is 429 with Retry-After, for this one alone, and is not carried out."""
    async with open_inline_shop(clock=time.time) as shop, open_rest(shop, tmp_path) as rest:
        rest.dashboard.api._limits = Limits(commands_per_s=3)
        replies = [await rest.get("/api/status") for _ in range(6)]
        assert [reply.status for reply in replies][:3] == [200, 200, 200]
        refused = next(reply for reply in replies if reply.status != 200)
        assert (refused.status, refused.error["code"], refused.headers["Retry-After"]) == (
            429,
            "rate_limited",
            "1",
        )
        assert (await rest.get("/api/status", token=READ)).status == 200


async def test_without_a_workshop_it_says_so(tmp_path):
    """As long as none answers it is 503 with Retry-After, but the settings are there."""
    async with open_inline_shop(clock=time.time) as shop, open_rest(shop, tmp_path) as rest:
        rest.dashboard.api._shop = lambda: None
        refused = await rest.get("/api/scripts")
        assert (refused.status, refused.error["code"]) == (503, "unavailable")
        assert "koubou up" in refused.error["message"]
        assert refused.headers["Retry-After"]
        assert (await rest.get("/api/config")).status == 200


@pytest.mark.alone
async def test_a_workshop_that_does_not_answer_holds_nobody_up(rest):
    """What waits for an answer gives up in time, and the loop goes on meanwhile."""
    asked = asyncio.Event()

    async def silent(*_args, **_more):
        asked.set()
        await asyncio.Event().wait()

    rest.shop.find = silent
    rest.dashboard.api.answer_s = 0.5
    waiting = asyncio.create_task(rest.get("/api/logs/greet"))
    await until(asked.is_set)
    began = time.monotonic()
    assert (await rest.get("/api/status")).status == 200
    assert time.monotonic() - began < 0.4
    refused = await waiting
    assert (refused.status, refused.error["code"]) == (503, "unavailable")


async def test_a_drained_pool_takes_no_run(rest):
    """The workshop's own refusals keep their code: draining is 503."""
    from koubou_panel.core.commands import DrainPool

    await rest.shop.do(DrainPool(), Caller("test"))
    refused = await rest.post("/api/scripts/greet/run")
    assert (refused.status, refused.error["code"]) == (503, "draining")


async def test_a_mistake_of_our_own_is_not_shown(rest, caplog):
    """An unexpected error is 500 without its inside, which is in the log."""

    async def broken(*_args):
        raise RuntimeError("the inside")

    rest.shop.find = broken
    refused = await rest.get("/api/logs/greet")
    assert (refused.status, refused.error["code"]) == (500, "internal")
    assert "inside" not in refused.text
    assert "the inside" in caplog.text
