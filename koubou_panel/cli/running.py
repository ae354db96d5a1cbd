"""What runs for a home: the supervisor's word (`status.json`), checked, and the workshop's own."""

from __future__ import annotations

import os
import time
from pathlib import Path

import msgspec
import psutil

from koubou_panel.errors import SettingsError
from koubou_panel.home import Home
from koubou_panel.servers.credentials import load_or_create_token, mint_code
from koubou_panel.supervising.status import status_path

SAME_S = 2.0  # the system tells start times by a clock that may be set


class ServiceStatus(msgspec.Struct):
    """A service as `status.json` has it."""

    name: str
    state: str
    pid: int | None = None
    port: int | None = None
    started_at: float | None = None
    restarts: int = 0
    message: str = ""


class Running(msgspec.Struct):
    """What `status.json` says of a supervisor that lives."""

    pid: int
    started_at: float
    home: str
    host: str
    services: list[ServiceStatus]
    began_at: float = 0.0
    insecure_no_auth: bool = False
    label: str = ""

    @property
    def has_failed(self) -> bool:
        """Whether its workshop was given up."""
        pool = self.service("pool")
        return pool is not None and pool.state == "failed"

    def service(self, name: str) -> ServiceStatus | None:
        """The service of that name."""
        return next((service for service in self.services if service.name == name), None)


def running(home: Home) -> Running | None:
    """What the supervisor of `home` says; None if there is none, whatever a dead one left behind."""
    try:
        found = msgspec.json.decode(status_path(home).read_bytes(), type=Running)
        created = psutil.Process(found.pid).create_time()
    except (OSError, msgspec.DecodeError, psutil.Error):
        return None
    return found if abs(created - found.started_at) < SAME_S else None


def link_to(home: Home, host: str, port: int, *, insecure_no_auth: bool = False) -> str:
    """The dashboard's address, with a login code that opens it once within ten minutes."""
    shown = f"[{host}]" if ":" in host else host
    if insecure_no_auth:
        return f"http://{shown}:{port}/"
    token = load_or_create_token(home.runtime, environ=os.environ)
    return f"http://{shown}:{port}/login?code={mint_code(token, time.time())}"


def dashboard_link(home: Home, found: Running | None) -> str | None:
    """A fresh link to the dashboard that runs; None if none does."""
    dashboard = found.service("dashboard") if found else None
    if found is None or dashboard is None or dashboard.state != "running" or dashboard.port is None:
        return None
    try:
        return link_to(home, found.host, dashboard.port, insecure_no_auth=found.insecure_no_auth)
    except (SettingsError, OSError):
        return None


def lock_holder(home: Home) -> int | None:
    """The process that holds the home, by its lock file; None if none does or it cannot be told."""
    try:
        text = home.lock_file.read_text()
        pid = int(text)
        return pid if _holds(pid, home.lock_file) else None
    except (OSError, ValueError):
        return None


def _holds(pid: int, lock: Path) -> bool:
    try:
        return any(Path(found.path) == lock for found in psutil.Process(pid).open_files())
    except psutil.AccessDenied:
        return True
    except psutil.Error:
        return False


def is_workshop_process(pid: int) -> bool:
    """Whether `pid` is a workshop process of its own, not somebody's notebook."""
    try:
        return "koubou_panel.servers.workshop" in psutil.Process(pid).cmdline()
    except psutil.Error:
        return False
