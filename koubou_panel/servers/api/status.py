"""`/api/status`: how the workshop stands, on one page."""

from __future__ import annotations

from importlib.metadata import version

from msgspec import structs

from koubou_panel.core.records import Service
from koubou_panel.servers.api.handler import ApiHandler
from koubou_panel.wire.messages import system_data, task_counts, worker_totals
from koubou_panel.wire.records import iso, pool_record
from koubou_panel.wire.script import service_record

OF_WORKSHOP = ("agents", "pool", "websocket")
"""The services that live in the workshop's process."""


def service_of(service: Service, *, is_heard: bool) -> dict[str, object]:
    """A service as it stands; what a workshop that is not heard any more said of itself is no news."""
    record = structs.asdict(service_record(service))
    is_silent = not is_heard and service.name in OF_WORKSHOP and service.state == "running"
    return record | ({"state": "unresponsive"} if is_silent else {})


class StatusHandler(ApiHandler):
    """`GET`: services, tasks, workers, scripts, the pool and the host, as they are known here."""

    async def get(self) -> None:
        """Tell."""
        self.check_query()
        shop = self.api.shop
        state, link = shop.state, shop.link
        started = [
            service.started_at for service in state.services.values() if service.started_at is not None
        ]
        entries, services = state.scripts.values(), state.services.values()
        self.answer(
            {
                "status": "ok" if link.status == "live" else link.status,
                "lag_s": round(link.lag_s, 1),
                "version": version("koubou-panel"),
                "epoch": state.epoch,
                "started_at": iso(min(started, default=None)),
                "services": [service_of(service, is_heard=link.status == "live") for service in services],
                "pool": pool_record(state.pool),
                "workers": worker_totals(state),
                "tasks": task_counts(state),
                "scripts": {
                    "total": len(state.scripts),
                    "enabled": sum(entry.script.is_enabled for entry in entries),
                    "active": sum(len(entry.active) for entry in entries),
                },
                "total_executions": state.executions,
                "system": system_data(state),
            }
        )
