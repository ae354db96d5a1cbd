"""The guard before real servers: thin shells that put `access` in front of Tornado and of websockets.

Neither library is imported at the top: the workshop process must not load Tornado for its WebSocket port, and
both shells need little more of them than the objects they are handed.
"""

from __future__ import annotations

import json
import logging
import socket
import struct
import sys
import time
from asyncio import timeout
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Protocol, cast
from urllib.parse import parse_qs

from koubou_panel.servers.access import (
    BAD_TOKEN,
    NOBODY,
    UNIX_PEER,
    Access,
    Allow,
    Named,
    Pending,
    Refuse,
    Request,
    Verdict,
    cookie_values,
)

if TYPE_CHECKING:
    from tornado.http1connection import HTTP1Connection
    from tornado.httputil import (
        HTTPConnection,
        HTTPHeaders,
        HTTPMessageDelegate,
        HTTPServerRequest,
        RequestStartLine,
    )
    from tornado.iostream import IOStream
    from tornado.web import Application
    from websockets.asyncio.server import ServerConnection
    from websockets.http11 import Request as Handshake
    from websockets.http11 import Response as HandshakeResponse

    from koubou_panel.servers.credentials import Sessions

_log = logging.getLogger(__name__)

LOGIN_PATH = "/login"
API_PATH = "/api/"
COOKIE_LIFE_S = 400 * 24 * 3600  # the most a browser keeps one; the idle time is the server's to judge
LINGER_S = 2.0
LINGER_BYTES = 1 << 20

_SECURITY_HEADERS = (
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cache-Control", "no-store"),
)
_MARK = "koubou_verdict"
_USED_CODE = "This link was used already or is older than ten minutes: run `koubou status` for a new one."


class Guard:
    """What stands before one port: its policy and, on the dashboard's, its cookie sessions. Loop thread only.

    Args:
        access: the port's policy.
        sessions: where cookies and login codes are looked up; None on a port without them.
        now: gives UTC seconds.

    """

    def __init__(
        self, access: Access, *, sessions: Sessions | None = None, now: Callable[[], float] = time.time
    ) -> None:
        """Stand before a port with this policy."""
        self.access = access
        self.on_change: Callable[[], None] = _nothing
        self._sessions = sessions
        self._now = now

    def check(self, request: Request) -> Verdict:
        """Say whether a request may go on, cookies included."""
        return self.access.check(request, session=self._session)

    def rotate(self, token: str, *, read_token: str | None = None) -> None:
        """Take a new token in the place of the old; every session and every named token of the old one ends."""
        self.access = replace(self.access, token=token, read_token=read_token, named=NOBODY)
        if self._sessions is not None:
            self._sessions.rotate(token, self._now())
        self.on_change()

    def name(self, named: Named) -> None:
        """Let in by these named tokens, and by no others."""
        self.access = replace(self.access, named=named)
        self.on_change()

    def answer(self, request: Request, query: str, *, is_browser: bool) -> Verdict | Answer:
        """Give the verdict, or the whole answer where the guard itself replies (a refusal, the login)."""
        verdict: Verdict | Answer
        is_login = request.path == LOGIN_PATH and not request.websocket
        if self._sessions and is_login and request.method == "GET":
            verdict = self.access.screen(request) or self._log_in(request, query, self._sessions)
        elif self._sessions and is_login and request.method == "POST":
            verdict = self._sign_in(request, self._sessions)
        else:
            verdict = self.check(request)
        if not isinstance(verdict, Refuse):
            return verdict
        if request.path.startswith(API_PATH):
            return json_refusal(verdict)
        has_form = self._sessions is not None
        language = _language(request) if is_browser and has_form else "en"
        return refusal(verdict, is_browser=is_browser, has_form=has_form, language=language)

    def _session(self, value: str) -> Allow | None:
        return self._sessions.find(value, self._now()) if self._sessions else None

    def _log_in(self, request: Request, query: str, sessions: Sessions) -> Answer | Refuse:
        codes = parse_qs(query).get("code", [])
        now = self._now()
        try:
            role = sessions.redeem(codes[0], now) if len(codes) == 1 else None
            cookie = self._cookie(sessions.open(role, now)) if role else None
        except OSError as error:
            return _not_stored(error)
        if cookie is None and not isinstance(self.check(request), Allow):
            return Refuse(403, "bad_code", _USED_CODE)
        return _welcome(cookie, _language(request))

    def _sign_in(self, request: Request, sessions: Sessions) -> Answer | Refuse:
        """Open a session for who presents the token, as the form of the sign-in page does."""
        # Not for an agent's own token, nor for nobody's: a session would outlive what it was opened by.
        verdict = replace(self.access, named=NOBODY, insecure_no_auth=False).check(request)
        if not isinstance(verdict, Allow):
            return verdict if isinstance(verdict, Refuse) else Refuse(401, "unauthorized", BAD_TOKEN)
        try:
            cookie = self._cookie(sessions.open(verdict.role, self._now()))
        except OSError as error:
            return _not_stored(error)
        return Answer(200, "text/plain", "Signed in.\n", (("Set-Cookie", cookie),))

    def _cookie(self, value: str) -> str:
        secure = "; Secure" if self.access.secure_cookies else ""
        attributes = f"Max-Age={COOKIE_LIFE_S}; Path=/; HttpOnly; SameSite=Strict{secure}"
        return f"{self.access.cookie_name}={value}; {attributes}"


def _not_stored(error: OSError) -> Refuse:
    _log.error("the sign-in could not be stored", exc_info=error)
    return Refuse(503, "not_stored", f"The sign-in could not be stored ({error.strerror}): free some space.")


def _nothing() -> None:
    """Nobody wants to know."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole reply of the guard's own: status, headers beside the usual ones, and text."""

    status: int
    content_type: str
    text: str
    headers: tuple[tuple[str, str], ...] = ()

    def encode(self, *, with_body: bool = True) -> bytes:
        """Give the reply as HTTP/1.1 bytes that end the connection; without the body for HEAD."""
        body = self.text.encode()
        headers = [
            ("Content-Type", f"{self.content_type}; charset=utf-8"),
            ("Content-Length", str(len(body))),
            ("Connection", "close"),
            *_SECURITY_HEADERS,
            *self.headers,
        ]
        lines = [
            f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}",
            *(f"{k}: {v}" for k, v in headers),
        ]
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + (body if with_body else b"")


def json_refusal(refuse: Refuse) -> Answer:
    """Give a refusal as programs read it: `{"error": {"code", "message"}}`."""
    text = json.dumps({"error": {"code": refuse.code, "message": refuse.message}})
    return Answer(refuse.status, "application/json", text + "\n", refusal(refuse).headers)


def refusal(
    refuse: Refuse, *, is_browser: bool = False, has_form: bool = False, language: str = "en"
) -> Answer:
    """Give a refusal as a reply: a small page for a browser that lacks credentials, plain text otherwise.

    With `has_form` the page has a field for the token, where that is what is missing, and speaks `language`.
    """
    challenge = (
        (("WWW-Authenticate", 'Bearer realm="koubou"'),) if refuse.status == HTTPStatus.UNAUTHORIZED else ()
    )
    if not is_browser or refuse.code in ("bad_peer", "bad_host", "bad_origin"):
        return Answer(refuse.status, "text/plain", refuse.message + "\n", challenge)
    from koubou_panel.views.sign_in import sign_in_page

    page = sign_in_page(refuse.code, refuse.message, language=language, has_form=has_form)
    return _page(refuse.status, page, challenge)


def guard_application(target: Application | type[Application], guard: Guard) -> Callable[[], None]:
    """Put `guard` before every request of a Tornado application, and give what takes it away again.

    It stands where Tornado hands over a connection, so no handler, route or body is looked at before it:
    every verb and path, static files and WebSocket upgrades pass it. A WebSocket without credentials goes on
    only to a handler class that says `koubou_waits_for_auth = True`, whatever owns the path.

    Args:
        target: an application, or a class of them (bokeh's, which `panel serve` makes an instance of later).
        guard: the port's guard.

    """
    is_class = isinstance(target, type)
    start = target.start_request

    def start_request(*args: Any) -> HTTPMessageDelegate:
        app, server_conn, request_conn = args if is_class else (target, *args)
        gate = _Gate(guard, app, server_conn, request_conn, start=lambda: start(*args))
        return cast("HTTPMessageDelegate", gate)

    had_own = "start_request" in vars(target)
    setattr(target, "start_request", start_request)  # noqa: B010 - a checker refuses an assignment to a method

    def restore() -> None:
        if had_own:
            setattr(target, "start_request", start)  # noqa: B010
        else:
            delattr(target, "start_request")

    return restore


def request_verdict(request: HTTPServerRequest) -> Allow | Pending | None:
    """Give what the guard decided of a request that reached a Tornado handler; None if there is no guard."""
    return cast("Allow | Pending | None", getattr(request.connection, _MARK, None))


def connection_verdict(connection: ServerConnection) -> Allow | Pending | None:
    """Give what the guard decided of an open websockets connection; None if there is no guard."""
    return cast("Allow | Pending | None", getattr(connection, _MARK, None))


def process_request(guard: Guard) -> Callable[[ServerConnection, Handshake], HandshakeResponse | None]:
    """Give the `process_request` of `websockets.asyncio.server.serve` that puts `guard` before the port."""

    def process(connection: ServerConnection, handshake: Handshake) -> HandshakeResponse | None:
        verdict = guard.check(_handshake_request(connection, handshake))
        if not isinstance(verdict, Refuse):
            setattr(connection, _MARK, verdict)
            return None
        answer = refusal(verdict)
        response = connection.respond(answer.status, answer.text)
        for name, value in (*_SECURITY_HEADERS, *answer.headers):
            response.headers[name] = value
        return response

    return process


def peer_uid(sock: socket.socket) -> int | None:
    """Give the user id at the other end of a Unix socket, by the kernel's word; None where it tells none.

    Source: unix(7), SO_PEERCRED; on macOS getsockopt LOCAL_PEERCRED, struct xucred.
    """
    if sock.family != socket.AF_UNIX:
        return None
    if sys.platform == "darwin":
        version_and_uid = sock.getsockopt(0, 0x001, struct.calcsize("IIh16I"))
        return int(struct.unpack_from("II", version_and_uid)[1])
    if not hasattr(socket, "SO_PEERCRED"):
        return None
    size = struct.calcsize("3i")
    return int(struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))[1])


class _Start(Protocol):
    def __call__(self) -> HTTPMessageDelegate: ...


class _Gate:
    """Tornado's message delegate for one request: the guard's reply, or the application's own delegate."""

    def __init__(
        self,
        guard: Guard,
        app: Application,
        server_conn: object,
        request_conn: HTTPConnection,
        *,
        start: _Start,
    ) -> None:
        self._guard = guard
        self._app = app
        self._server_conn = server_conn
        self._conn = cast("HTTP1Connection", request_conn)
        self._start = start
        self._inner: HTTPMessageDelegate | None = None

    def headers_received(self, start_line: RequestStartLine, headers: HTTPHeaders) -> Awaitable[None] | None:
        request = _http_request(self._conn, start_line, headers)
        is_browser = request.method in ("GET", "HEAD") and "text/html" in headers.get("Accept", "")
        verdict = self._guard.answer(request, start_line.path.partition("?")[2], is_browser=is_browser)
        if isinstance(verdict, Pending) and not self._waits_for_auth(start_line, headers):
            verdict = refusal(
                Refuse(401, "unauthorized", "This WebSocket needs credentials before it opens.")
            )
        if isinstance(verdict, Answer):
            # Detached, so that Tornado neither reads the body nor sends `100 Continue` for it.
            return dismiss(self._conn.detach(), verdict.encode(with_body=request.method != "HEAD"))
        setattr(self._conn, _MARK, verdict)
        self._inner = self._start()
        return self._inner.headers_received(start_line, headers)

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        return self._inner.data_received(chunk) if self._inner else None

    def finish(self) -> None:
        if self._inner:
            self._inner.finish()

    def on_connection_close(self) -> None:
        if self._inner:
            self._inner.on_connection_close()

    def _waits_for_auth(self, start_line: RequestStartLine, headers: HTTPHeaders) -> bool:
        # With an app at `/`, /ws is Bokeh's own: a path alone must not let anyone past.
        from tornado.httputil import HTTPServerRequest

        request = HTTPServerRequest(
            connection=self._conn, server_connection=self._server_conn, start_line=start_line, headers=headers
        )
        handler = getattr(self._app.find_handler(request), "handler_class", None)
        return getattr(handler, "koubou_waits_for_auth", False) is True


async def dismiss(stream: IOStream, reply: bytes) -> None:
    """Send a last reply, then let what the client still sends run out, unkept, for a moment.

    Closing at once would reset the connection under a client that still sends: it would not read the reply.
    """
    from tornado.iostream import SSLIOStream, StreamClosedError

    dropped = 0
    try:
        async with timeout(LINGER_S):
            await stream.write(reply)
            if not isinstance(stream, SSLIOStream):
                stream.socket.shutdown(socket.SHUT_WR)
            while dropped < LINGER_BYTES:
                dropped += len(await stream.read_bytes(1 << 16, partial=True))
    except (StreamClosedError, TimeoutError, OSError):
        pass  # the client is gone, or has had its moment
    finally:
        stream.close()


def _http_request(conn: HTTP1Connection, start_line: RequestStartLine, headers: HTTPHeaders) -> Request:
    def every(name: str) -> tuple[str, ...]:
        return tuple(headers.get_list(name))

    return Request(
        method=start_line.method,
        path=start_line.path.partition("?")[0],
        peer=_peer(conn.stream.socket),
        host=every("Host"),
        origin=every("Origin"),
        authorization=every("Authorization"),
        cookie=every("Cookie"),
        accept_language=every("Accept-Language"),
        websocket=headers.get("Upgrade", "").lower() == "websocket",
    )


def _handshake_request(connection: ServerConnection, handshake: Handshake) -> Request:
    def every(name: str) -> tuple[str, ...]:
        return tuple(handshake.headers.get_all(name))

    return Request(
        method=handshake.method,
        path=handshake.path.partition("?")[0],
        peer=_peer(connection.transport.get_extra_info("socket")),
        host=every("Host"),
        origin=every("Origin"),
        authorization=every("Authorization"),
        # The port speaks nothing else: what is no upgrade gets no further than the library's own 426.
        websocket=True,
    )


def _peer(sock: Any) -> str:
    # From the socket, since Tornado's `remote_ip` follows X-Forwarded-For when told to. Gone already: "".
    if sock is None or sock.family == socket.AF_UNIX:
        return "" if sock is None else UNIX_PEER
    with suppress(OSError):
        return str(sock.getpeername()[0])
    return ""


def _welcome(cookie: str | None, language: str) -> Answer:
    from koubou_panel.views.sign_in import signed_in_page

    # Not a redirect: following one that another site's link began, a browser leaves the new cookie out.
    headers = (("Set-Cookie", cookie),) if cookie else ()
    return _page(200, signed_in_page(language), headers)


def _page(status: int, page: tuple[str, str], headers: tuple[tuple[str, str], ...]) -> Answer:
    text, policy = page
    return Answer(status, "text/html", text, (("Content-Security-Policy", policy), *headers))


def _language(request: Request) -> str:
    """What the visitor's browser asks to be spoken to in."""
    from koubou_panel.views.language import COOKIE, language_of

    chosen = cookie_values(request.cookie, COOKIE)
    return language_of(cookie=next(iter(chosen), ""), accepted=",".join(request.accept_language))
