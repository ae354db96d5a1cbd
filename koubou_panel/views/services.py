"""What a page says about the services, as plain data: made from their models, drawn by the card."""

from __future__ import annotations

from collections.abc import Sequence

from koubou_panel.reactive.models import ServiceModel
from koubou_panel.views.escape import block, line
from koubou_panel.views.language import _, later
from koubou_panel.views.words import listed

LABELS = {
    "model": later("Model server"),
    "agents": later("Agents (MCP, REST)"),
    "pool": later("Worker pool"),
    "websocket": later("WebSocket"),
    "dashboard": later("Dashboard"),
}
_STATES = {
    "running": later("running"),
    "idle": later("idle"),
    "starting": later("starting"),
    "restarting": later("restarting"),
    "stopping": later("stopping"),
    "stopped": later("stopped"),
    "failed": later("failed"),
}
MARKS = {
    "running": "ok",
    "idle": "wait",
    "starting": "run",
    "restarting": "restart",
    "stopping": "cancel",
    "stopped": "cancel",
    "failed": "fail",
}
_IDLE = later("starts by itself with the first prompt")
_LINES = ". Its last lines:"


def service_rows(services: Sequence[ServiceModel]) -> list[dict[str, object]]:
    """A row for each service, in the order in which they are always shown."""
    known = list(LABELS)
    return [_row(service) for service in sorted(services, key=lambda service: known.index(service.name_of))]


def service_notices(services: Sequence[ServiceModel]) -> list[str]:
    """Which of them have failed and why; those that share a process, and so its fate, in one line."""
    failed: dict[str, list[str]] = {}
    for row in service_rows([service for service in services if service.state == "failed"]):
        failed.setdefault(str(row["about"]), []).append(str(row["label"]))
    words = _("{services} failed: {why}. Start it again under Services, or with: koubou restart")
    return [words.format(services=listed(labels), why=why) for why, labels in failed.items()]


def _row(service: ServiceModel) -> dict[str, object]:
    why, _end, last = service.message.partition("\n")
    elsewhere = service.state == "running" and service.pid is None
    return {
        "name": service.name_of,
        "label": _(LABELS[service.name_of]),
        "state": service.state,
        "word": _(_STATES[service.state]),
        "mark": MARKS[service.state],
        "port": "" if service.port is None else f"{service.port}",
        "pid": "" if service.pid is None else f"{service.pid}",
        "started_at": service.started_at if service.pid is not None else None,
        "restarts": f"{service.restarts}",
        "about": _(_IDLE) if service.state == "idle" and not why else line(why.removesuffix(_LINES), 300),
        "last": block("\n".join(text.removeprefix("  ") for text in last.split("\n"))),
        "can_restart": not elsewhere and service.state not in ("idle", "stopping", "stopped"),
    }
