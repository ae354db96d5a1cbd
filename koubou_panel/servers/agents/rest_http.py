"""HTTP for REST: one resource a path, requests read strictly and within bounds, and every failure as JSON."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

import msgspec
from msgspec import UNSET, Struct
from starlette.types import Receive, Scope, Send

from koubou_panel.core.commands import Caller
from koubou_panel.core.decide import role_refusal
from koubou_panel.core.suggest import nearest, unknown
from koubou_panel.errors import ProtocolFault, Refused
from koubou_panel.servers.access import Allow
from koubou_panel.servers.agents.delegate import caller_of
from koubou_panel.servers.agents.operations import Operation
from koubou_panel.servers.agents.schema import Delegate, DelegateOptions, Failure, Problem
from koubou_panel.wire.commands import read_object

log = logging.getLogger(__name__)

JSON = "application/json"
VERDICT = "koubou"
MAX_BODY_BYTES = 1 << 20
DROP_BYTES = 8 << 20
BODY_S = 30.0
DROP_S = 2.0
RETRY_AFTER_S = 5
MAX_FIELDS = 20
NO_CONTENT = 204

STATUS_OF = {
    "invalid": 400,
    "bad_json": 400,
    "bad_request": 400,
    "unauthorized": 401,
    "forbidden": 403,
    "not_found": 404,
    "method": 405,
    "slow": 408,
    "conflict": 409,
    "too_large": 413,
    "media_type": 415,
    "limit": 429,
    "internal": 500,
    "draining": 503,
    "storage": 503,
    "unavailable": 503,
}
_SECURITY = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
)
_LATER = frozenset({429, 503})
# Records within a body, by the path to them: what the names of their fields can be.
_WITHIN: Mapping[str, type[Struct]] = {"": Delegate, "options": DelegateOptions}


class Call(NamedTuple):
    """A request that was let in and read."""

    caller: Caller
    parameters: Mapping[str, str]
    query: Any
    body: Any
    receive: Receive


class Reply(NamedTuple):
    """What is answered."""

    body: bytes
    status: int = 200
    media: str = JSON
    headers: tuple[tuple[str, str], ...] = ()


Handler = Callable[[Call], Awaitable[Reply]]


def reply(record: object) -> Reply:
    """`record` as JSON."""
    return Reply(msgspec.json.encode(record))


def failure(error: Refused | ProtocolFault) -> Reply:
    """An error as JSON, with its status."""
    status = STATUS_OF.get(error.code, 400)
    problem = Problem(error.code, error.message, error.field or UNSET, error.nearest or UNSET)
    headers = (("Retry-After", str(RETRY_AFTER_S)),) if status in _LATER else ()
    return Reply(msgspec.json.encode(Failure(problem)), status, headers=headers)


async def respond(send: Send, answer: Reply, *, with_body: bool = True) -> None:
    """Send `answer`; without its body for HEAD."""
    headers = [*_SECURITY]
    if answer.status != NO_CONTENT:
        headers += [(b"content-type", answer.media.encode())]
        headers += [(b"content-length", str(len(answer.body)).encode())]
    headers += [(name.lower().encode(), value.encode("latin-1")) for name, value in answer.headers]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body if with_body else b""})


class Resource:
    """What is at one path: an operation and its handler for each verb."""

    def __init__(self, operations: Mapping[str, tuple[Operation, Handler]]) -> None:
        """Serve these verbs; HEAD goes with GET, and OPTIONS tells of all."""
        self._operations = dict(operations)
        verbs = [*self._operations, *(["HEAD"] if "GET" in self._operations else []), "OPTIONS"]
        self._allow = ("Allow", ", ".join(sorted(verbs)))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        method = scope["method"]
        try:
            answer = await self._answer(method, scope, receive)
        except (Refused, ProtocolFault) as error:
            answer = failure(error)
        except Exception:
            log.exception("%s %s failed", method, scope["path"])
            words = "the workshop could not answer; its log says why"
            answer = failure(Refused("internal", words))
        await respond(send, answer, with_body=method != "HEAD")

    async def _answer(self, method: str, scope: Scope, receive: Receive) -> Reply:
        if method == "OPTIONS":
            return Reply(b"", NO_CONTENT, headers=(self._allow,))
        found = self._operations.get("GET" if method == "HEAD" else method)
        if found is None:
            error = Refused("method", f"there is no {method[:20]} here; {self._allow[1]} are")
            return failure(error)._replace(headers=(self._allow,))
        operation, handler = found
        verdict: Allow = scope[VERDICT]
        if not verdict.role.covers(operation.role):
            raise role_refusal(verdict.role.value, operation.role.value)
        query = read_query(scope["query_string"], operation.query)
        body = None
        if operation.body is not None:
            body = convert(await read_body(scope, receive), operation.body)
        caller = caller_of(verdict, "rest", header(scope, b"user-agent"))
        return await handler(Call(caller, scope["path_params"], query, body, receive))


def header(scope: Scope, name: bytes) -> str:
    """The first value of a header; empty where there is none."""
    for key, value in scope["headers"]:
        if key == name:
            return bytes(value).decode("latin-1")
    return ""


# -- bodies ---------------------------------------------------------------------------------------------------


async def read_body(scope: Scope, receive: Receive) -> dict[str, object]:
    """The JSON object that a request carries.

    Raises:
        Refused: it is too large (`too_large`), too slow (`slow`), or of another type (`media_type`).
        ProtocolFault: it is no JSON object.
    """
    media, _, rest = header(scope, b"content-type").partition(";")
    charset = re.search(r'charset="?([\w-]+)', rest)
    if media.strip().lower() not in ("", JSON) or (charset and charset[1].lower() not in ("utf-8", "utf8")):
        await _drop(receive)
        raise Refused("media_type", "send the body as UTF-8 with Content-Type: application/json")
    length = header(scope, b"content-length")
    if length.isdecimal() and int(length[:20]) > MAX_BODY_BYTES:
        await _drop(receive)
        raise _too_large()
    try:
        async with asyncio.timeout(BODY_S):
            data = await _read(receive)
    except TimeoutError:
        words = f"the body did not come within {BODY_S:g} s; send it at once"
        raise Refused("slow", words) from None
    try:
        return read_object(data.decode())
    except UnicodeDecodeError:
        raise ProtocolFault("bad_json", "not JSON: the body is not UTF-8") from None
    except ProtocolFault as fault:
        if fault.code != "bad_request":
            raise
        words = 'the body is JSON, but no object: send one such as {"command": ["echo", "hello"]}'
        raise ProtocolFault(fault.code, words) from None


async def _read(receive: Receive) -> bytes:
    pieces: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Refused("bad_request", "the body was cut off")
        piece = message.get("body", b"")
        size += len(piece)
        if size > MAX_BODY_BYTES:
            await _drop(receive)
            raise _too_large()
        pieces.append(piece)
        if not message.get("more_body", False):
            return b"".join(pieces)


def _too_large() -> Refused:
    return Refused("too_large", f"the body is larger than {MAX_BODY_BYTES} bytes; name files instead")


async def _drop(receive: Receive) -> None:
    """Let what still comes run out, for a moment: who is cut off while sending reads no answer."""
    dropped = 0
    with suppress(TimeoutError):
        async with asyncio.timeout(DROP_S):
            while dropped < DROP_BYTES:
                message = await receive()
                dropped += len(message.get("body", b""))
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    return


# -- fields ---------------------------------------------------------------------------------------------------


def read_query(text: bytes, shape: type[Struct]) -> Struct:
    """What an address asks for; what is given as nothing is as if it were left out.

    Raises:
        Refused: code `invalid`, naming the field.
    """
    try:
        pairs = parse_qsl(text.decode(), keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except (ValueError, UnicodeDecodeError):
        raise Refused(
            "invalid", f"the address has no readable query of at most {MAX_FIELDS} fields"
        ) from None
    given: dict[str, str] = {}
    for name, value in pairs:
        if name in given:
            raise Refused("invalid", f"{name[:100]} stands twice in the address", field=name[:100])
        given[name] = value
    known = shape.__struct_fields__
    given = {name: value for name, value in given.items() if value or name not in known}
    return convert(given, shape, strict=False)


def convert(given: Mapping[str, object], shape: type[Struct], *, strict: bool = True) -> Struct:
    """`given` as the record `shape`.

    Raises:
        Refused: code `invalid`, naming the field, with the nearest where it is unknown.
    """
    try:
        return msgspec.convert(given, shape, strict=strict)
    except msgspec.ValidationError as problem:
        raise invalid(str(problem), shape) from None


def invalid(problem: str, shape: type[Struct]) -> Refused:
    """What a validation error says, as a refusal that names the field."""
    words, _, path = problem.partition(" - at `$")
    within = re.match(r"\.([\w.]+)", path)
    parts = [within.group(1)] if within else []
    odd = re.search(r"unknown field `(.*)`", words)
    if odd:
        inner = shape if not parts else _WITHIN.get(parts[0], shape)
        known = [".".join([*parts, name]) for name in inner.__struct_fields__]
        field = ".".join([*parts, odd.group(1)[:100]])
        return Refused("invalid", unknown("field", field, known), field=field, nearest=nearest(field, known))
    missing = re.search(r"required field `(\w+)`", words)
    if missing:
        field = ".".join([*parts, missing.group(1)])
        return Refused("invalid", f"{field} is missing", field=field)
    words = words.replace("`", "")
    return Refused("invalid", f"{'.'.join(parts)}: {words[:1].lower()}{words[1:]}", field=".".join(parts))
