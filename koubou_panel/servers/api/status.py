"""`/api/status`: how the workshop stands, on one page."""

from __future__ import annotations

from importlib.metadata import version

from koubou_panel.servers.api.handler import ApiHandler
from koubou_panel.wire.messages import system_data, task_counts, worker_totals
from koubou_panel.wire.records import iso, pool_record
from koubou_panel.wire.script import service_record


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
        entries = state.scripts.values()
        self.answer(
            {
                "status": "ok" if link.status == "live" else link.status,
                "lag_s": round(link.lag_s, 1),
                "version": version("koubou-panel"),
                "epoch": state.epoch,
                "started_at": iso(min(started, default=None)),
                "services": [service_record(service) for service in state.services.values()],
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
