"""What can go wrong on REST: which status it is answered with, and in which words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import TypeVar

import msgspec
from msgspec import Struct
from tornado.web import HTTPError

from koubou_panel.core.suggest import nearest, unknown
from koubou_panel.errors import ProtocolFault, Refused, SettingsError
from koubou_panel.wire.commands import invalid

T = TypeVar("T")

STATUS_OF: Mapping[str, int] = {
    "invalid": 400,
    "bad_json": 400,
    "bad_request": 400,
    "unauthorized": 401,
    "forbidden": 403,
    "not_found": 404,
    "method_not_allowed": 405,
    "conflict": 409,
    "stale": 412,
    "too_large": 413,
    "unsupported": 415,
    "limit": 429,
    "rate_limited": 429,
    "draining": 503,
    "storage": 503,
    "unavailable": 503,
}
RETRY_AFTER_S = {429: "1", 503: "2"}


class Conflict(Refused):
    """What was to be changed is another by now; `sides` tells both."""

    def __init__(
        self, message: str, *, sides: Mapping[str, object], field: str, code: str = "conflict"
    ) -> None:
        """As `Refused`, with more to say."""
        super().__init__(code, message, field=field)
        self.sides = sides


class Nothing(Struct, frozen=True):
    """A body without fields."""


def status_of(fault: Refused | ProtocolFault) -> int:
    """The status that a fault is answered with."""
    return STATUS_OF.get(fault.code, 500 if fault.code == "internal" else 400)


def fault_of(error: BaseException | None, status: int) -> Refused | ProtocolFault:
    """What went wrong, for the client: its own faults as they are, ours without the inside."""
    if isinstance(error, Refused | ProtocolFault):
        return error
    if isinstance(error, SettingsError):
        return Refused("conflict", error.message, field=error.name or None, nearest=error.nearest)
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        return Refused("method_not_allowed", "there is no such verb")
    if isinstance(error, HTTPError) and 400 <= status < 500:  # noqa: PLR2004 - the client's faults
        return Refused("bad_request", error.log_message or HTTPStatus(status).phrase)
    return Refused("internal", "this is a mistake of Koubou Panel's own; the dashboard's log says more")


def told_of(fault: Refused | ProtocolFault) -> dict[str, object]:
    """A fault as it is answered: `{"error": {"code", "message", "field"?, "nearest"?}}`."""
    told = {"code": fault.code, "message": fault.message, "field": fault.field, "nearest": fault.nearest}
    told = {name: value for name, value in told.items() if value is not None}
    return {"error": told, **(fault.sides if isinstance(fault, Conflict) else {})}


def read_as(body: Mapping[str, object], shape: type[T], known: Iterable[str] = ()) -> T:
    """A body as a struct of fields, unknown ones refused with the nearest.

    Args:
        body: the object.
        shape: a msgspec struct.
        known: dotted names within its fields, for the nearest of those.

    Raises:
        ProtocolFault: `invalid`, naming the field.
    """
    fields = msgspec.structs.fields(shape)  # type: ignore[arg-type]
    names = [field.encode_name for field in fields]
    for name in body:
        if name not in names:
            words = unknown("field", name, names)
            raise ProtocolFault("invalid", words, field=name[:100], nearest=nearest(name, names))
    for name, value in body.items():
        try:
            msgspec.msgpack.encode(value)
        except OverflowError:
            raise ProtocolFault("invalid", f"{name} holds an integer beyond 64 bits", field=name) from None
    try:
        return msgspec.convert(body, shape)
    except msgspec.ValidationError as problem:
        raise invalid(str(problem), [*names, *known]) from None
