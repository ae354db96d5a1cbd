"""`/api/status` where the workshop is not heard."""

from __future__ import annotations

from koubou_panel.core.records import Service
from koubou_panel.servers.api.status import service_of


def test_a_silent_workshop_is_not_said_to_run() -> None:
    """What lives in its process is unresponsive then; the other services are as their supervisor says."""
    assert service_of(Service("pool", "running"), is_heard=True)["state"] == "running"
    assert service_of(Service("pool", "running"), is_heard=False)["state"] == "unresponsive"
    assert service_of(Service("pool", "restarting"), is_heard=False)["state"] == "restarting"
    assert service_of(Service("dashboard", "running"), is_heard=False)["state"] == "running"
