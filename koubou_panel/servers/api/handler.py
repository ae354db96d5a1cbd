"""What every resource of the dashboard's REST shares: who may, how a body is read, and how all of it is answered.

The guard has checked peer, Host, Origin and credentials by the time a handler is made. Then, in this order: the
verb, the rate, the role, whether a browser was misled, the body. Every answer is JSON.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, ClassVar, TypeVar, cast

from tornado.web import HTTPError, RequestHandler, stream_request_body

from koubou_panel.core.commands import Caller, Command
from koubou_panel.core.decide import role_refusal
from koubou_panel.core.events import Sample
from koubou_panel.core.ports import Shop
from koubou_panel.core.records import TaskId
from koubou_panel.core.state import Folded, State
from koubou_panel.core.suggest import nearest, unknown
from koubou_panel.errors import ProtocolFault, Refused, SettingsError
from koubou_panel.home import Home
from koubou_panel.servers.access import Allow
from koubou_panel.servers.api.fault import RETRY_AFTER_S, fault_of, status_of, told_of
from koubou_panel.servers.guard import Answer, dismiss, request_verdict
from koubou_panel.wire.commands import read_object
from koubou_panel.wire.messages import encode
from koubou_panel.wire.session import Gauge, Limits

T = TypeVar("T")

MAX_BODY_BYTES = 1 << 20
SWALLOWED_BYTES = 8 * MAX_BODY_BYTES
ANSWER_S = 20.0
SEEN_S = 2.0
BODY_S = 20.0
MAX_ACTORS = 1_000
PAGE_ACTOR = "page-"
AGENT_ACTOR = "agent:"
READS = ("GET", "HEAD")

log = logging.getLogger(__name__)


class Api:
    """What the routes are made with. Loop thread only.

    Args:
        shop: gives the workshop; None as long as none answers.
        home: whose settings are shown and changed.
        environ: the environment that those are read with.
        limits: other than the rate of the protocol.
        answer_s: how long the workshop may take for an answer, seconds.
        body_s: how long a client may take for its body, seconds.
    """

    def __init__(
        self,
        shop: Callable[[], Shop | None],
        *,
        home: Home | None,
        environ: Mapping[str, str],
        limits: Limits | None = None,
        answer_s: float = ANSWER_S,
        body_s: float = BODY_S,
    ) -> None:
        """Nobody has asked yet."""
        self._shop = shop
        self._home = home
        self.environ = environ
        self.answer_s = answer_s
        self.body_s = body_s
        self._limits = limits or Limits()
        self._gauges: dict[str, Gauge] = {}

    @property
    def shop(self) -> Shop:
        """The workshop.

        Raises:
            Refused: `unavailable`: none answers yet.
        """
        shop = self._shop()
        if shop is None:
            raise Refused("unavailable", "no workshop answers yet: `koubou up` starts it")
        return shop

    @property
    def home(self) -> Home:
        """The home.

        Raises:
            Refused: `unavailable`: this dashboard belongs to none.
        """
        if self._home is None:
            raise Refused("unavailable", "this dashboard has no home whose settings it could show")
        return self._home

    def takes(self, actor: str, now: float) -> bool:
        """Whether this one may ask once more now."""
        if actor not in self._gauges and len(self._gauges) >= MAX_ACTORS:
            self._gauges.clear()
        return self._gauges.setdefault(actor, Gauge(self._limits, now)).take(now) == "pass"


@stream_request_body
class ApiHandler(RequestHandler):
    """One resource. What it can be asked is what its class defines: `get`, `post`, `put`, `delete`."""

    runs_only: ClassVar[bool] = False
    """Whether a role that may only run scripts may `post` here."""

    def initialize(self, api: Api) -> None:
        """Keep what the route was made with."""
        self.api = api
        self._received = bytearray()
        self._is_too_large = False
        self._swallowed = 0
        self._body_timer: asyncio.TimerHandle | None = None

    def compute_etag(self) -> None:
        """No validator but the one that a resource sets: a hash of every answer is dear, and says nothing here."""

    def check_etag_header(self) -> bool:
        """Never answer 304: a revision stays the same while runs come and go."""
        return False

    # -- before the body --------------------------------------------------------------------------------------

    async def prepare(self) -> None:
        """Let the request in, or answer it here."""
        self._set_own_headers()
        methods = self.methods()
        if self.request.method == "OPTIONS":
            self.set_header("Allow", ", ".join(methods))
            self.set_status(204)
            self.finish()
            return
        try:
            self._admit(methods)
        except Refused as fault:
            if not self._has_body():
                raise
            # Its body may be on its way still: closing under a client that sends would lose it the answer.
            status, headers = self._answer_to(fault)
            answer = Answer(
                status, "application/json", encode(told_of(fault)).decode() + "\n", tuple(headers)
            )
            await dismiss(self.detach(), answer.encode())
            return
        loop = asyncio.get_running_loop()
        self._body_timer = loop.call_later(self.api.body_s, self._hang_up)

    def _admit(self, methods: list[str]) -> None:
        if self.request.method not in methods:
            words = f"{self.request.method} is not for {self.request.path[:100]}; {', '.join(methods)} are"
            raise Refused("method_not_allowed", words)
        self._check_rate()
        if self.request.method not in READS:
            self._check_may_change()
        told = self.request.headers.get("Content-Length", "0")
        if told.isdigit() and int(told) > SWALLOWED_BYTES:
            raise Refused("too_large", f"a body has at most {MAX_BODY_BYTES} bytes, not {told[:20]}")

    def _has_body(self) -> bool:
        headers = self.request.headers
        return headers.get("Content-Length", "0") != "0" or "Transfer-Encoding" in headers

    def _set_own_headers(self) -> None:
        self.clear_header("Server")
        self.set_header("Cache-Control", "no-store")
        self.set_header("Cross-Origin-Resource-Policy", "same-origin")

    def _check_rate(self) -> None:
        if not self.api.takes(self.verdict.actor, asyncio.get_running_loop().time()):
            raise Refused("rate_limited", "too many requests a second; this one was not carried out")

    def _check_may_change(self) -> None:
        role = self.verdict.role.value
        if role != "full" and not (self.runs_only and role == "run"):
            raise role_refusal(role, "run" if self.runs_only else "full")
        # A browser sends its cookie with what another page of this machine makes it send; see docs/security.md. Of
        # Origins the guard lets only our own through.
        has_cookie = self.verdict.actor.startswith(PAGE_ACTOR)
        if has_cookie and "Origin" not in self.request.headers and not self._says_json():
            words = "with a cookie, a change needs an Origin header or the content type application/json"
            raise Refused("forbidden", words)

    def _says_json(self) -> bool:
        kind, _, rest = self.request.headers.get("Content-Type", "").partition(";")
        charset = rest.lower().replace(" ", "").replace('"', "")
        return kind.strip().lower() == "application/json" and charset in ("", "charset=utf-8")

    # -- the body ---------------------------------------------------------------------------------------------

    def data_received(self, chunk: bytes) -> None:
        """Keep a piece of the body, as long as it is not too large."""
        if self._is_too_large:
            self._swallowed += len(chunk)
            if self._swallowed > SWALLOWED_BYTES:
                self._hang_up()
            return
        self._received += chunk
        if len(self._received) > MAX_BODY_BYTES:
            self._is_too_large = True
            self._swallowed = len(self._received)
            self._received.clear()

    def on_connection_close(self) -> None:
        """Wait for no more."""
        self._stop_timer()
        super().on_connection_close()

    def on_finish(self) -> None:
        """Wait for no more."""
        self._stop_timer()

    def _stop_timer(self) -> None:
        if self._body_timer is not None:
            self._body_timer.cancel()

    def _hang_up(self) -> None:
        """End with a client that sends for too long, or too much."""
        self.request.connection.stream.close()  # type: ignore[union-attr]

    def body(self) -> dict[str, object]:
        """The body as a JSON object; an empty one where nothing was sent.

        Raises:
            Refused: `too_large`, `unsupported`.
            ProtocolFault: it is not strict JSON, or no object.
        """
        self._stop_timer()
        if self._is_too_large:
            raise Refused("too_large", f"a body has at most {MAX_BODY_BYTES} bytes")
        if not self._received:
            return {}
        if not self._says_json() or "Content-Encoding" in self.request.headers:
            raise Refused("unsupported", "send JSON, with the header Content-Type: application/json")
        try:
            return read_object(self._received.decode())
        except UnicodeDecodeError:
            raise ProtocolFault("bad_json", "not JSON: the body is not UTF-8") from None
        except ProtocolFault as fault:
            words = "the body must be one JSON object" if fault.code == "bad_request" else fault.message
            raise ProtocolFault(fault.code, words) from None

    # -- asking and answering ---------------------------------------------------------------------------------

    @property
    def verdict(self) -> Allow:
        """Who asks.

        Raises:
            Refused: `unauthorized`: no guard has let this in.
        """
        verdict = request_verdict(self.request)
        if not isinstance(verdict, Allow):
            raise Refused("unauthorized", "no guard stands before this port")
        return verdict

    @property
    def caller(self) -> Caller:
        """Who asks, as the workshop takes it: an agent by its name."""
        actor = self.verdict.actor
        by = actor if actor.startswith(AGENT_ACTOR) else f"rest:{self.request.remote_ip}"
        return Caller(by, self.verdict.role.value, from_network=True)

    async def ask(self, answer: Awaitable[T]) -> T:
        """What the workshop answers, in time.

        Raises:
            Refused: `unavailable`: it did not; or what the workshop refuses with.
        """
        try:
            async with asyncio.timeout(self.api.answer_s):
                return await answer
        except TimeoutError:
            words = f"the workshop has not answered for {self.api.answer_s:g} s; look before you ask again"
            raise Refused("unavailable", words) from None

    async def carry_out(self, command: Command) -> TaskId | None:
        """Carry out a command."""
        return await self.ask(self.api.shop.do(command, self.caller))

    async def see(self, is_there: Callable[[State], bool]) -> None:
        """Wait for a moment until the state shows what was done: a replica may be a little behind the reply."""
        if is_there(self.api.shop.state):
            return
        watcher = Watcher(is_there)
        unsubscribe = self.api.shop.subscribe(watcher)
        try:
            async with asyncio.timeout(SEEN_S):
                await watcher.seen.wait()
        except TimeoutError:
            pass  # what is shown is older than what was done, and its revision says so
        finally:
            unsubscribe()

    def one(self, name: str) -> str | None:
        """A field of the query, given at most once; None where it is not.

        Raises:
            Refused: `invalid`: it stands there twice.
        """
        values = self.get_query_arguments(name, strip=False)
        if len(values) > 1:
            raise Refused("invalid", f"{name} stands twice in the address", field=name)
        return values[0] if values else None

    def check_query(self, *known: str) -> None:
        """Refuse a field of the query that means nothing here."""
        for name in self.request.query_arguments:
            if name not in known:
                words = unknown("field", name, known)
                raise Refused("invalid", words, field=name[:100], nearest=nearest(name, known))

    def number(self, name: str, *, usual: int, most: int, least: int = 1) -> int:
        """A whole number of the query.

        Raises:
            Refused: `invalid`: it is none, or out of range.
        """
        text = self.one(name)
        if text is None:
            return usual
        if not (text.isascii() and text.isdigit() and len(text) < 12) or not least <= int(text) <= most:  # noqa: PLR2004 - digits of any number that is taken
            raise Refused("invalid", f"{name} must be {least} to {most}", field=name)
        return int(text)

    def answer(self, value: object, status: int = 200) -> None:
        """Answer with `value` as JSON."""
        self.set_status(status)
        self.set_header("Content-Type", "application/json; charset=utf-8")
        self.finish(encode(value) + b"\n")

    async def answer_aside(self, value: Callable[[], object]) -> None:
        """Answer with what may be large: made and encoded in a thread, while the loop goes on."""
        data = await asyncio.to_thread(lambda: encode(value()))
        self.set_header("Content-Type", "application/json; charset=utf-8")
        self.finish(data + b"\n")

    async def head(self, *args: str) -> None:
        """As `get`; Tornado sends no body."""
        await cast("Awaitable[None]", self.get(*args))

    @classmethod
    def methods(cls) -> list[str]:
        """The verbs of this resource."""
        own = [name for name in ("GET", "POST", "PUT", "DELETE") if _is_own(cls, name.lower())]
        return [*(["GET", "HEAD"] if "GET" in own else []), *own[("GET" in own) :], "OPTIONS"]

    # -- faults -----------------------------------------------------------------------------------------------

    def _log(self) -> None:
        """No line a request: Tornado's own would tell each 503 as an error of this process."""

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        """Log what is our own fault, and nothing else."""
        if not isinstance(value, Refused | ProtocolFault | SettingsError | HTTPError):
            log.error("%s %s failed", self.request.method, self.request.path, exc_info=(typ, value, tb))

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Answer with what went wrong."""
        fault = fault_of(kwargs.get("exc_info", (None, None, None))[1], status_code)
        status, headers = self._answer_to(fault)
        self._set_own_headers()
        for name, value in headers:
            self.set_header(name, value)
        self.answer(told_of(fault), status)

    def _answer_to(self, fault: Refused | ProtocolFault) -> tuple[int, list[tuple[str, str]]]:
        """The status that a fault is answered with, and the headers beside the usual ones."""
        status = status_of(fault)
        headers = [("Allow", ", ".join(self.methods()))] if status == HTTPStatus.METHOD_NOT_ALLOWED else []
        headers += [("Retry-After", RETRY_AFTER_S[status])] if status in RETRY_AFTER_S else []
        return status, headers


class Watcher:
    """A subscriber that waits for a state. Loop thread only."""

    def __init__(self, is_there: Callable[[State], bool]) -> None:
        """To be subscribed."""
        self.seen = asyncio.Event()
        self._is_there = is_there
        self._state: State | None = None

    def on_reset(self, state: State) -> None:
        """Look."""
        self._state = state
        self.on_facts(())

    def on_facts(self, folded: Sequence[Folded]) -> None:
        """Look again."""
        if self._state is not None and self._is_there(self._state):
            self.seen.set()

    def on_samples(self, samples: Sequence[Sample]) -> None:
        """A sample shows nothing of the kind."""


class NothingHandler(ApiHandler):
    """Below `/api/`, where there is nothing: 404 in JSON, with the nearest path."""

    PATHS = ("/api/status", "/api/scripts", "/api/logs", "/api/config")

    def _admit(self, methods: list[str]) -> None:
        """Say so, whatever the verb."""
        self._check_rate()
        path = self.request.path
        raise Refused("not_found", unknown("path", path, self.PATHS), nearest=nearest(path, self.PATHS))


def _is_own(cls: type[RequestHandler], method: str) -> bool:
    return getattr(cls, method) is not getattr(RequestHandler, method)
