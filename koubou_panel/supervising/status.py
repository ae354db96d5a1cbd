"""How the services stand, for whoever looks: `<home>/runtime/status.json`, whole at every moment."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from koubou_panel.core.records import Service
from koubou_panel.home import Home

SERVICES = ("model", "agents", "pool", "websocket", "dashboard")
"""The services of a workshop, in the order in which they are shown."""

PROCESSES = ("workshop", "dashboard", "model")
"""The processes that hold them."""


def in_order(services: Sequence[Service]) -> list[Service]:
    """The services as they are shown."""
    return sorted(services, key=lambda service: SERVICES.index(service.name))


def encode_services(services: Sequence[Service]) -> bytes:
    """The line that tells a process of ours how all services stand."""
    return msgspec.json.encode({"services": services}) + b"\n"


def status_path(home: Home) -> Path:
    """Where `koubou up` writes how its services stand."""
    return home.runtime / "status.json"


def write_status(home: Home, about: Mapping[str, object], services: Sequence[Service]) -> None:
    """Put how everything stands into the file, at once or not at all."""
    rows = [{name: getattr(service, name) for name in service.__struct_fields__} for service in services]
    path = status_path(home)
    draft = path.with_suffix(".new")
    with contextlib.suppress(OSError):  # a full disk must not end what runs
        draft.write_text(json.dumps({**about, "pid": os.getpid(), "services": rows}, indent=1))
        draft.replace(path)


def forget_status(home: Home) -> None:
    """Remove the file, unless it is another supervisor's."""
    with contextlib.suppress(OSError, ValueError):
        if json.loads(status_path(home).read_text()).get("pid") == os.getpid():
            status_path(home).unlink()


def wish_path(home: Home) -> Path:
    """Where `koubou restart SERVICE` leaves the service's name for the supervisor."""
    return home.runtime / "restart"


def take_wish(home: Home) -> str | None:
    """The service that is to be started anew; None if nobody left a name."""
    path = wish_path(home)
    try:
        name = path.read_text().strip()
        path.unlink()
    except (OSError, ValueError):
        return None
    return name
