"""The guard before real servers: Tornado's and websockets', on ports of their own."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import itertools
import os
import re
import socket
import subprocess
import sys
from dataclasses import replace

import pytest
import tornado.httpserver
import tornado.ioloop
import tornado.netutil
import tornado.web
import tornado.websocket
import websockets
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve

from koubou_panel.servers import guard as guard_module
from koubou_panel.servers.access import Access, Allow, Pending, Role, loopback_origins, token_hash
from koubou_panel.servers.credentials import Sessions, derive_read_token, mint_code
from koubou_panel.servers.guard import (
    Guard,
    connection_verdict,
    guard_application,
    peer_uid,
    process_request,
    request_verdict,
)

TOKEN = "t" * 43
READ = derive_read_token(TOKEN)
BEARER = f"Authorization: Bearer {TOKEN}"
START = 1_800_000_000.0
UPGRADE = (
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)
VERBS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"]


class Recorder(tornado.web.RequestHandler):
    """Answers everything and notes who asked."""

    SUPPORTED_METHODS = (*tornado.web.RequestHandler.SUPPORTED_METHODS, "TRACE", "PROPFIND")

    def prepare(self):
        self.application.seen.append((self.request.method, self.request.path, request_verdict(self.request)))
        self.finish("in")


class Door(tornado.websocket.WebSocketHandler):
    """A WebSocket whose session asks for `auth` by itself."""

    koubou_waits_for_auth = True

    def open(self):
        self.application.seen.append(("WS", self.request.path, request_verdict(self.request)))
        self.close()


class Foreign(tornado.websocket.WebSocketHandler):
    """A WebSocket, like Bokeh's, that takes whoever reaches it as let in."""

    def open(self):
        self.application.seen.append(("WS", self.request.path, request_verdict(self.request)))
        self.close()


class Workplace:
    """A guarded Tornado server on a port of its own, with every kind of route."""

    def __init__(self, tmp_path, *, wrap="instance", **changes):
        (tmp_path / "static").mkdir(exist_ok=True)
        (tmp_path / "static" / "app.js").write_text("in")
        self.now = START
        self.socket = tornado.netutil.bind_sockets(0, "127.0.0.1")[0]
        self.port = self.socket.getsockname()[1]
        self.sessions = Sessions(tmp_path / "sessions.json", TOKEN)
        given = {"token": TOKEN, "read_token": READ, "port": self.port, "honours_cookies": True}
        access = Access(**(given | {"auth_by_frame": ("/ws", "/foreign")} | changes))
        self.guard = Guard(access, sessions=self.sessions, now=lambda: self.now)
        self._wrap = wrap
        self._tmp_path = tmp_path

    async def __aenter__(self):
        class Application(tornado.web.Application):
            pass

        routes = [
            ("/", Recorder),
            ("/api/tasks", Recorder),
            ("/login", Recorder),
            ("/ws", Door),
            ("/foreign", Foreign),
        ]
        if self._wrap == "class":
            self.restore = guard_application(Application, self.guard)
        self.app = Application(routes, static_path=str(self._tmp_path / "static"))
        self.app.seen = []
        if self._wrap == "instance":
            self.restore = guard_application(self.app, self.guard)
        self.server = tornado.httpserver.HTTPServer(self.app)
        self.server.add_socket(self.socket)
        return self

    async def __aexit__(self, *_):
        self.server.stop()
        await self.server.close_all_connections()

    @property
    def seen(self):
        return self.app.seen

    async def ask(self, method, path, *headers, host=None, body=b""):
        """Send one request as written and give the whole reply, read to the end of the connection."""
        hosts = [f"Host: 127.0.0.1:{self.port}"] if host is None else [f"Host: {name}" for name in host]
        lines = [f"{method} {path} HTTP/1.1", *hosts, *headers]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        if "Upgrade: websocket" not in headers:
            lines.append("Connection: close")
        return await self.exchange("\r\n".join([*lines, "", ""]).encode("latin-1") + body)

    async def exchange(self, data):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(data)
        reply = (await reader.readuntil(b"\r\n\r\n")).decode()
        if status_of(reply) != 101:
            reply += (await reader.read()).decode()
        writer.close()
        await writer.wait_closed()
        return reply


@pytest.fixture(params=["instance", "class"])
async def workplace(request, tmp_path):
    """Give a guarded server, the guard put on by each of its two ways."""
    async with Workplace(tmp_path, wrap=request.param) as workplace:
        yield workplace


async def send_for_ever(writer):
    """Send until the other end cuts the connection."""
    while True:
        writer.write(b"x" * (1 << 16))
        await writer.drain()


def status_of(reply: str) -> int:
    """Give a raw reply's status."""
    return int(reply.split(" ", 2)[1])


def headers_of(reply: str) -> dict[str, str]:
    """Give a raw reply's headers, names in lower case."""
    head = reply.partition("\r\n\r\n")[0].split("\r\n")[1:]
    return {name.lower(): value for name, _, value in (line.partition(": ") for line in head)}


def cookie_of(reply: str) -> str:
    """Give what a browser sends back for a reply's Set-Cookie."""
    return f"Cookie: {headers_of(reply)['set-cookie'].partition(';')[0]}"


BAD_CREDENTIALS = [
    (),
    ("Authorization: Bearer wrong",),
    ("Authorization: Bearer",),
    (f"Authorization: Basic {TOKEN}",),
    (BEARER, BEARER),
    (BEARER, "Authorization: Bearer wrong"),
    ("Cookie: koubou-{port}=wrong",),
    (f"Cookie: koubou-{{port}}={TOKEN}",),
    ("Authorization: Bearer \u00e9\u00ff",),
]
PATHS = [
    "/",
    "/api/tasks",
    "/static/app.js",
    "/favicon.ico",
    "/nowhere",
    "//",
    "/ws",
    "/%2e%2e/",
    "/login/",
    "/a?b=c",
]


@pytest.mark.parametrize("path", PATHS)
async def test_nothing_is_reached_without_credentials(path, workplace):
    """Every verb at every path with every kind of bad credentials is refused, and no handler is called."""
    for method, headers in itertools.product(VERBS, BAD_CREDENTIALS):
        reply = await workplace.ask(method, path, *(line.format(port=workplace.port) for line in headers))
        assert status_of(reply) == 401
    assert workplace.seen == []


@pytest.mark.parametrize("path", [*PATHS, "/foreign"])
async def test_no_upgrade_is_reached_with_bad_credentials(path, workplace):
    """A WebSocket with wrong credentials is refused before the upgrade at every path."""
    for headers in BAD_CREDENTIALS[1:6]:
        assert status_of(await workplace.ask("GET", path, *UPGRADE, *headers)) == 401
    assert workplace.seen == []


@pytest.mark.parametrize("path", ["/", "/static/app.js", "/nowhere", "/ws", "/login", "/login?code=x"])
async def test_no_foreign_host_or_origin_gets_further(path, workplace):
    """A foreign Host or Origin is a 403 for every verb and upgrade, however good the token."""
    port = workplace.port
    hosts = [
        f"evil.example:{port}",
        "127.0.0.1",
        f"localhost.:{port}",
        f"x@localhost:{port}",
        "127.0.0.1:1",
        "",
    ]
    origins = ["null", "http://evil.example", "http://localhost", f"http://a.localhost:{port}"]
    for method, upgrade in [*((verb, ()) for verb in VERBS), ("GET", UPGRADE)]:
        for host in hosts:
            reply = await workplace.ask(method, path, BEARER, *upgrade, host=[host])
            assert status_of(reply) == 403
        for origin in origins:
            reply = await workplace.ask(method, path, BEARER, *upgrade, f"Origin: {origin}")
            assert status_of(reply) == 403
    assert workplace.seen == []


@pytest.mark.parametrize("method", VERBS)
async def test_the_token_opens_every_verb(method, workplace):
    """With the token a request reaches its handler, which can read who asks."""
    body = b"{}" if method in ("POST", "PUT", "PATCH") else b""
    reply = await workplace.ask(method, "/api/tasks", BEARER, body=body)
    assert status_of(reply) == 200
    assert workplace.seen == [(method, "/api/tasks", Allow(Role.FULL, "token"))]


async def test_the_read_token_is_told_apart(workplace):
    """A handler sees that the read token gives reading only."""
    await workplace.ask("GET", "/", f"Authorization: Bearer {READ}")
    assert workplace.seen == [("GET", "/", Allow(Role.READ, "read-token"))]


async def test_static_files_and_unknown_paths_are_behind_the_guard_too(workplace):
    """With the token a static file is served and an unknown path is not found."""
    assert (await workplace.ask("GET", "/static/app.js", BEARER)).endswith("in")
    assert status_of(await workplace.ask("GET", "/nowhere", BEARER)) == 404


async def test_several_requests_share_a_connection(workplace):
    """Each request of a kept-alive connection is judged by itself, and a refusal ends the connection."""
    host = f"Host: 127.0.0.1:{workplace.port}"
    good, bad = f"GET / HTTP/1.1\r\n{host}\r\n{BEARER}\r\n\r\n", f"GET /a HTTP/1.1\r\n{host}\r\n\r\n"
    reply = await workplace.exchange((good + good + bad + good).encode())
    assert re.findall(r"HTTP/1.1 (\d+)", reply) == ["200", "200", "401"]
    assert len(workplace.seen) == 2


@pytest.mark.parametrize(
    "head",
    [
        "GET / HTTP/1.1\r\n",
        "GET / HTTP/1.0\r\n",
        "GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nHost: 127.0.0.1:{port}\r\n",
        "GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nHOST: evil.example\r\n",
        "GET http://127.0.0.1:{port}/ HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n",
        "GET http://evil.example/ HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n",
        "CONNECT 127.0.0.1:{port} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n",
    ],
)
async def test_odd_request_heads_are_refused(head, workplace):
    """A missing or doubled Host and a target that is no path are refused with a good token too."""
    data = head.format(port=workplace.port) + BEARER + "\r\n\r\n"
    assert status_of(await workplace.exchange(data.encode())) == 403
    assert workplace.seen == []


async def test_a_refused_body_is_not_kept(workplace):
    """A refused upload is answered at once, without `100 Continue`, and its client can read the reply."""
    head = f"POST / HTTP/1.1\r\nHost: 127.0.0.1:{workplace.port}\r\nContent-Length: 99999999999\r\n"
    reply = await workplace.exchange(f"{head}Expect: 100-continue\r\n\r\n".encode() + b"x" * (1 << 19))
    assert status_of(reply) == 401
    assert "100" not in reply.partition("\r\n")[0]
    chunked = await workplace.ask("POST", "/", "Transfer-Encoding: chunked", host=["evil.example"])
    assert status_of(chunked) == 403


async def test_a_refused_client_that_stays_is_cut_off(workplace, monkeypatch):
    """Who neither leaves nor stops sending after a refusal is cut off, by time or by amount."""
    monkeypatch.setattr(guard_module, "LINGER_S", 0.05)
    reader, writer = await asyncio.open_connection("127.0.0.1", workplace.port)
    writer.write(b"POST / HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n")
    assert status_of((await reader.read()).decode()) == 403
    with pytest.raises(ConnectionError):
        await send_for_ever(writer)
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


async def test_refusals_carry_the_security_headers(workplace):
    """Each reply of the guard's own forbids sniffing, referrers, storing, and further use of the connection."""
    for reply in (
        await workplace.ask("GET", "/"),
        await workplace.ask("GET", "/", host=["evil.example"]),
        await workplace.ask("GET", "/login?code=x", "Accept: text/html"),
        await workplace.ask("GET", f"/login?code={mint_code(TOKEN, START)}"),
    ):
        headers = headers_of(reply)
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] == "no-store"
        assert headers["connection"] == "close"


async def test_a_program_gets_one_plain_line(workplace):
    """A client that asks for no page gets plain text that names what to run, and the challenge."""
    reply = await workplace.ask("GET", "/")
    assert headers_of(reply)["content-type"] == "text/plain; charset=utf-8"
    assert headers_of(reply)["www-authenticate"].startswith("Bearer")
    body = reply.partition("\r\n\r\n")[2]
    assert body.count("\n") == 1
    assert "`koubou status`" in body


async def test_a_browser_gets_a_page_that_loads_nothing(workplace):
    """A browser without credentials gets a small page that needs nothing from elsewhere, and runs its script alone."""
    reply = await workplace.ask("GET", "/nowhere?<script>", "Accept: text/html,*/*")
    assert status_of(reply) == 401
    assert headers_of(reply)["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in headers_of(reply)["content-security-policy"]
    assert "<code>koubou status</code>" in reply
    body = reply.partition("\r\n\r\n")[2]
    assert not re.search(r"\ssrc=|\son\w+=|http://|https://", body)
    (script,) = re.findall(r"<script>(.*?)</script>", body, re.DOTALL)
    named = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = headers_of(reply)["content-security-policy"]
    assert f"script-src 'sha256-{named}'" in policy
    assert "form-action 'none'" in policy, "the form is never sent as one: what it holds gets into no history"


@pytest.mark.parametrize(
    ("headers", "language", "words"),
    [
        ((), "en", "Sign in"),
        (("Accept-Language: ja,en;q=0.5",), "ja", "サインイン"),
        (("Accept-Language: ja", "Cookie: koubou-language=zh-Hant"), "zh-Hant", "登入"),
        (("Accept-Language: *;q=x,,\u00ff", "Cookie: koubou-language=<b>"), "en", "Sign in"),
    ],
)
async def test_a_browser_is_spoken_to_in_its_language(headers, language, words, workplace):
    """The page before the dashboard speaks what was chosen there, else what the browser asks for."""
    for path in ("/", "/login?code=x"):
        reply = await workplace.ask("GET", path, "Accept: text/html", *headers)
        assert f'<html lang="{language}">' in reply
        assert f"<button>{words}</button>" in reply
    link = f"/login?code={mint_code(TOKEN, START)}"
    reply = await workplace.ask("GET", link, "Accept: text/html", *headers)
    assert f'<html lang="{language}">' in reply


async def test_head_gets_no_body(workplace):
    """The refusal of a HEAD has the headers of the GET and no body."""
    reply = await workplace.ask("HEAD", "/")
    assert reply.endswith("\r\n\r\n")
    assert int(headers_of(reply)["content-length"]) > 0


async def test_the_link_opens_a_session_once(workplace):
    """The link's code becomes a cookie that opens pages and WebSockets; a second use of it does not."""
    link = f"/login?code={mint_code(TOKEN, START)}"
    first = await workplace.ask("GET", link, "Accept: text/html")
    assert status_of(first) == 200
    assert 'http-equiv="refresh" content="0;url=/"' in first
    cookie = cookie_of(first)
    assert status_of(await workplace.ask("GET", "/", cookie)) == 200
    assert status_of(await workplace.ask("GET", "/foreign", *UPGRADE, cookie)) == 101
    second = await workplace.ask("GET", link, "Accept: text/html")
    assert status_of(second) == 403
    assert "set-cookie" not in headers_of(second)
    assert "<code>koubou status</code>" in second
    assert [verdict.role for _, _, verdict in workplace.seen] == [Role.FULL, Role.FULL]


@pytest.mark.parametrize(("token", "role"), [(TOKEN, Role.FULL), (READ, Role.READ)])
async def test_the_token_that_is_typed_opens_a_session(token, role, workplace):
    """The sign-in page presents it as programs do, and is given a cookie; no handler hears of it."""
    reply = await workplace.ask("POST", "/login", f"Authorization: Bearer {token}")
    assert (status_of(reply), workplace.seen) == (200, [])
    assert token not in reply
    assert status_of(await workplace.ask("GET", "/", cookie_of(reply))) == 200
    assert workplace.seen[0][2].role is role


@pytest.mark.parametrize(
    "headers",
    [
        *BAD_CREDENTIALS,
        (BEARER, "Origin: https://evil.example"),
        (BEARER, "Origin: null"),
        ("Authorization: Bearer an-agent's",),
        ("Content-Type: application/x-www-form-urlencoded",),
    ],
)
async def test_nothing_else_that_is_typed_opens_one(headers, workplace):
    """Not a wrong token, not another site's page, not an agent's own token, which its session would outlive."""
    workplace.guard.name({token_hash("an-agent's"): Allow(Role.FULL, "agent")})
    opened = cookie_of(await workplace.ask("POST", "/login", BEARER))
    for more in ((), (opened,)):
        reply = await workplace.ask("POST", "/login", *headers, *more, body=f"token={TOKEN}".encode())
        assert status_of(reply) in (401, 403)
        assert "set-cookie" not in headers_of(reply)
    assert workplace.seen == []


async def test_without_auth_a_session_is_for_the_token_alone(tmp_path):
    """Where everyone gets in, nobody gets a cookie that would let them in later."""
    async with Workplace(tmp_path, insecure_no_auth=True) as workplace:
        assert status_of(await workplace.ask("POST", "/login")) == 401


async def test_a_used_link_is_no_trouble_for_who_is_in(workplace):
    """Opening the link again in the same browser leads to the dashboard, without another session."""
    link = f"/login?code={mint_code(TOKEN, START)}"
    cookie = cookie_of(await workplace.ask("GET", link))
    again = await workplace.ask("GET", link, cookie)
    assert status_of(again) == 200
    assert "set-cookie" not in headers_of(again)


@pytest.mark.parametrize(
    "query", ["", "?code=", "?code=x", "?token=" + TOKEN, "?code={0}&code={0}", "?code={1}"]
)
async def test_a_link_without_a_good_code_is_refused(query, workplace):
    """No code, a forged one, two of them, an expired one, or the token itself open nothing."""
    path = "/login" + query.format(mint_code(TOKEN, START), mint_code(TOKEN, START - 600))
    assert status_of(await workplace.ask("GET", path)) == 403
    assert workplace.seen == []


async def test_only_a_get_uses_a_code_up(workplace):
    """A HEAD, a POST or an upgrade at the link leaves its code good."""
    link = f"/login?code={mint_code(TOKEN, START)}"
    for method in ("HEAD", "POST"):
        assert status_of(await workplace.ask(method, link)) == 401
    assert status_of(await workplace.ask("GET", link, *UPGRADE)) == 401
    assert status_of(await workplace.ask("GET", link)) == 200


async def test_a_foreign_host_does_not_use_a_code_up(workplace):
    """The Host is checked before the code is looked at."""
    link = f"/login?code={mint_code(TOKEN, START)}"
    assert status_of(await workplace.ask("GET", link, host=["evil.example"])) == 403
    assert status_of(await workplace.ask("GET", link)) == 200


async def test_a_code_for_reading_opens_a_reading_session(workplace):
    """A link can be made that opens reading only."""
    reply = await workplace.ask("GET", f"/login?code={mint_code(TOKEN, START, role=Role.READ)}")
    await workplace.ask("GET", "/", cookie_of(reply))
    assert workplace.seen[0][2].role is Role.READ


@pytest.mark.parametrize("tls", [False, True])
async def test_the_cookie_is_kept_from_scripts_and_other_sites(tls, workplace):
    """The cookie is named by the port, HttpOnly and SameSite=Strict, and Secure under TLS."""
    workplace.guard.access = replace(workplace.guard.access, tls=tls)
    reply = await workplace.ask("GET", f"/login?code={mint_code(TOKEN, START)}")
    name_value, *attributes = headers_of(reply)["set-cookie"].split("; ")
    assert name_value.startswith(f"koubou-{workplace.port}=")
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(attributes)
    assert ("Secure" in attributes) is tls
    assert not any(attribute.startswith("Domain") for attribute in attributes)


async def test_rotation_ends_the_sessions_at_once(workplace):
    """After a rotation neither the old cookie nor the old token opens anything, and the new token does."""
    cookie = cookie_of(await workplace.ask("GET", f"/login?code={mint_code(TOKEN, START)}"))
    workplace.guard.rotate("another", read_token=derive_read_token("another"))
    assert status_of(await workplace.ask("GET", "/", cookie)) == 401
    assert status_of(await workplace.ask("GET", "/", BEARER)) == 401
    assert status_of(await workplace.ask("GET", "/", "Authorization: Bearer another")) == 200


async def test_a_full_disk_is_said_at_the_link(workplace, monkeypatch):
    """A sign-in that cannot be stored is refused with the reason."""
    link = f"/login?code={mint_code(TOKEN, START)}"

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("koubou_panel.servers.credentials.os.fsync", full)
    reply = await workplace.ask("GET", link)
    assert status_of(reply) == 503
    assert "No space left on device" in reply


async def test_a_websocket_may_wait_at_its_own_handler_alone(workplace):
    """Without credentials /ws opens and waits; a handler that does not ask for auth stays closed."""
    assert status_of(await workplace.ask("GET", "/ws", *UPGRADE)) == 101
    assert workplace.seen == [("WS", "/ws", Pending())]
    assert status_of(await workplace.ask("GET", "/foreign", *UPGRADE)) == 401
    assert status_of(await workplace.ask("GET", "/nowhere", *UPGRADE)) == 401
    assert len(workplace.seen) == 1


async def test_a_stale_cookie_waits_like_none(workplace):
    """A page whose session ended may still give the token in a frame at /ws."""
    reply = await workplace.ask("GET", "/ws", *UPGRADE, f"Cookie: koubou-{workplace.port}=old")
    assert status_of(reply) == 101
    assert workplace.seen == [("WS", "/ws", Pending())]


async def test_without_auth_everything_but_host_and_origin_is_open(tmp_path):
    """--insecure-no-auth lets any local request in, and still no rebound name or foreign page."""
    async with Workplace(tmp_path, insecure_no_auth=True) as workplace:
        assert status_of(await workplace.ask("GET", "/")) == 200
        assert status_of(await workplace.ask("GET", "/foreign", *UPGRADE)) == 101
        assert status_of(await workplace.ask("GET", "/login")) == 200
        assert status_of(await workplace.ask("GET", "/", host=["evil.example"])) == 403
        assert status_of(await workplace.ask("GET", "/", "Origin: null")) == 403
        assert len(workplace.seen) == 2


async def test_forwarded_headers_do_not_make_a_peer_local(tmp_path):
    """The peer is the socket's other end, whatever X-Forwarded-For says."""
    async with Workplace(tmp_path) as workplace:
        workplace.server.xheaders = True
        await workplace.ask("GET", "/", BEARER, "X-Forwarded-For: 192.0.2.1")
        assert len(workplace.seen) == 1


async def test_a_guard_can_be_taken_away(workplace):
    """What the guard put on can be taken off again, so that a test or a reload leaves nothing behind."""
    workplace.restore()
    assert status_of(await workplace.ask("GET", "/")) == 200
    assert workplace.seen == [("GET", "/", None)]
    assert "start_request" not in vars(workplace.app)
    assert "start_request" not in vars(type(workplace.app))


async def test_bokehs_own_application_is_guarded():
    """Every path of a real Bokeh server, its WebSocket and static files too, is behind the guard."""
    bokeh_server = pytest.importorskip("bokeh.server.server")
    sock = tornado.netutil.bind_sockets(0, "127.0.0.1")[0]
    port = sock.getsockname()[1]
    bokeh_app = bokeh_server.BokehTornado({"/": lambda _: None})
    guard_application(bokeh_app, Guard(Access(token=TOKEN, port=port, auth_by_frame=("*",))))
    server = tornado.httpserver.HTTPServer(bokeh_app)
    server.add_socket(sock)
    bokeh_app.initialize(tornado.ioloop.IOLoop.current())
    bokeh_app.start()
    place = Workplace.__new__(Workplace)
    place.port = port
    try:
        for path in ("/", "/autoload.js", "/metadata", "/static/js/bokeh.min.js", "/favicon.ico", "/nowhere"):
            assert status_of(await place.ask("GET", path)) == 401
        assert status_of(await place.ask("GET", "/ws", *UPGRADE)) == 401
        assert status_of(await place.ask("GET", "/", BEARER)) == 200
    finally:
        bokeh_app.stop()
        server.stop()


@contextlib.asynccontextmanager
async def socket_port(**changes):
    """Serve a guarded port of the websockets library; give its port and the verdicts that reached a session."""
    seen = []

    async def session(connection):
        seen.append(connection_verdict(connection))
        await connection.send("in")

    listening = tornado.netutil.bind_sockets(0, "127.0.0.1")[0]
    port = listening.getsockname()[1]
    given = {"token": TOKEN, "read_token": READ, "port": port, "auth_by_frame": ("*",)}
    given["extra_origins"] = tuple(loopback_origins(8080))
    guard = Guard(Access(**(given | changes)))
    async with serve(session, sock=listening, process_request=process_request(guard)):
        yield port, seen


async def raw(port, head):
    """Send a request head as written and give the whole reply."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head.replace("\n", "\r\n").encode("latin-1") + b"\r\n\r\n")
    reply = await reader.read()
    writer.close()
    await writer.wait_closed()
    return reply.decode()


@pytest.mark.parametrize(
    ("headers", "verdict"),
    [
        ({"Authorization": f"Bearer {TOKEN}"}, Allow(Role.FULL, "token")),
        ({"Authorization": f"Bearer {READ}"}, Allow(Role.READ, "read-token")),
        ({}, Pending()),
        ({"Cookie": f"koubou-8080={TOKEN}"}, Pending()),
    ],
)
async def test_a_websockets_session_knows_who_connects(headers, verdict):
    """A Bearer header gives a session its role; without one, or with a cookie alone, it waits for auth."""
    async with socket_port() as (port, seen):
        client = await connect(f"ws://127.0.0.1:{port}/any", additional_headers=headers)
        assert await client.recv() == "in"
        await client.close()
        assert seen == [verdict]


async def test_the_dashboards_page_may_connect():
    """The dashboard's origin is accepted at the WebSocket port."""
    async with socket_port() as (port, seen):
        client = await connect(f"ws://localhost:{port}/", origin="http://localhost:8080")
        assert await client.recv() == "in"
        await client.close()
        assert seen == [Pending()]


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (["Host: evil.example:{port}"], 403),
        (["Host: 127.0.0.1"], 403),
        (["Host: localhost.:{port}"], 403),
        ([], 403),
        (["Host: 127.0.0.1:{port}", "Host: 127.0.0.1:{port}"], 403),
        (["Host: 127.0.0.1:{port}", "Origin: null"], 403),
        (["Host: 127.0.0.1:{port}", "Origin: http://evil.example"], 403),
        (["Host: 127.0.0.1:{port}", "Origin: http://localhost:8081"], 403),
        (["Host: 127.0.0.1:{port}", "Authorization: Bearer wrong"], 401),
        (["Host: 127.0.0.1:{port}", "Authorization: Basic x"], 401),
        (["Host: 127.0.0.1:{port}", BEARER, BEARER], 401),
    ],
)
async def test_bad_handshakes_are_refused_before_the_upgrade(lines, status):
    """A wrong Host, Origin or token is an HTTP refusal with the security headers, and no session begins."""
    async with socket_port() as (port, seen):
        head = "\n".join(["GET / HTTP/1.1", *(line.format(port=port) for line in lines), *UPGRADE])
        reply = await raw(port, head)
        assert status_of(reply) == status
        assert headers_of(reply)["x-content-type-options"] == "nosniff"
        assert seen == []


async def test_a_websockets_client_is_told_the_status():
    """A real client with a wrong token fails with 401."""
    async with socket_port() as (port, _):
        with pytest.raises(websockets.InvalidStatus) as refused:
            await connect(f"ws://127.0.0.1:{port}", additional_headers={"Authorization": "Bearer x"})
        assert refused.value.response.status_code == 401


async def test_what_is_no_upgrade_is_told_so_after_the_host_check():
    """A plain GET gets the library's 426 under our own name, and 403 under another."""
    async with socket_port() as (port, seen):
        assert status_of(await raw(port, f"GET / HTTP/1.1\nHost: 127.0.0.1:{port}")) == 426
        assert status_of(await raw(port, f"GET / HTTP/1.1\nHost: evil.example:{port}")) == 403
        assert seen == []


async def test_old_clients_connect_as_they_are_without_auth():
    """With --insecure-no-auth a client without credentials has the full role at once."""
    async with socket_port(insecure_no_auth=True) as (port, seen):
        client = await connect(f"ws://127.0.0.1:{port}/")
        assert await client.recv() == "in"
        await client.close()
        assert seen == [Allow(Role.FULL, "anyone")]


def test_the_uid_at_the_other_end_is_known():
    """A Unix socket's peer is this process, by the kernel's word; another kind of socket tells none."""
    here, there = socket.socketpair(socket.AF_UNIX)
    with here, there, socket.socket(socket.AF_INET) as internet:
        assert peer_uid(here) == os.getuid()
        assert peer_uid(internet) is None


def test_the_guard_loads_no_server_library():
    """Importing the guard imports neither Tornado nor websockets, Panel nor Bokeh."""
    code = "import sys, koubou_panel.servers.guard; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout.split()
    assert not {"tornado", "websockets", "panel", "bokeh"} & set(loaded)
