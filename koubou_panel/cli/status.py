"""`koubou status`: every service, how busy the workshop is, and a fresh link to the dashboard."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import click

from koubou_panel.cli.ending import say
from koubou_panel.cli.link import CALLER, home_of
from koubou_panel.cli.running import Running, dashboard_link, is_workshop_process, running
from koubou_panel.cli.show import ago, clean_lines, print_fields, print_json, table
from koubou_panel.cli.workers import standing
from koubou_panel.core.state import Snapshot, State
from koubou_panel.errors import Refused
from koubou_panel.home import Home
from koubou_panel.settings import EXIT_NO_WORKSHOP
from koubou_panel.shop.remote import RemoteShop
from koubou_panel.wire.messages import task_counts, worker_totals
from koubou_panel.wire.records import pool_record

OF_THE_WORKSHOP = ("agents", "pool", "websocket")
COLUMNS = ("SERVICE", "STATE", "PORT", "PID", "UP", "RESTARTS", "ABOUT")
ABOUT = len(COLUMNS) - 1


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.pass_context
def status(ctx: click.Context, *, as_json: bool) -> int:
    """Show every service with its state, port and uptime, and a fresh link to the dashboard."""
    home = home_of(ctx)
    found = running(home)
    snapshot, pid = asyncio.run(_look(home))
    link = dashboard_link(home, found)
    services = _services(found, pid if snapshot is not None else None, time.time())
    if as_json:
        print_json(_document(home, found, snapshot, services, link))
    elif found is not None or snapshot is not None:
        _print(home, found, snapshot, services, link)
    if snapshot is not None:
        return 0
    mend = "`koubou restart` starts it again" if found else "`koubou up` starts one"
    say(f"no workshop answers at {home.root}; {mend}")
    return EXIT_NO_WORKSHOP


async def _look(home: Home) -> tuple[Snapshot | None, int | None]:
    """How the workshop stands and its pid, if it answers."""
    try:
        shop = await RemoteShop.connect(home.socket, by=CALLER.by, replica=False)
        async with shop:
            return await shop.look(), shop.welcome.pid if shop.welcome else None
    except Refused:
        return None, None


def _services(found: Running | None, answers: int | None, now: float) -> list[dict[str, Any]]:
    """Every service; `answers` is the process that answers for the workshop, if any does.

    Without a supervisor, that process holds the pool alone.
    """
    services: list[dict[str, Any]] = []
    for service in found.services if found else []:
        is_up = service.started_at is not None and service.pid is not None
        is_silent = service.state == "running" and service.name in OF_THE_WORKSHOP and answers is None
        services.append(
            {
                "name": service.name,
                "state": "unresponsive" if is_silent else service.state,
                "pid": service.pid,
                "port": service.port,
                "uptime_s": round(now - (service.started_at or now), 1) if is_up else None,
                "restarts": service.restarts,
                "message": service.message,
            }
        )
    if not services and answers is not None:
        state = "running" if is_workshop_process(answers) else "held by another program"
        about = {"port": None, "uptime_s": None, "restarts": 0, "message": ""}
        services.append({"name": "pool", "state": state, "pid": answers, **about})
    return services


def _document(
    home: Home,
    found: Running | None,
    snapshot: Snapshot | None,
    services: list[dict[str, Any]],
    link: str | None,
) -> dict[str, object]:
    state = State.from_snapshot(snapshot) if snapshot else None
    return {
        "home": str(home.root),
        "label": found.label if found else "",
        "answers": snapshot is not None,
        "services": services,
        "tasks": task_counts(state) if state else None,
        "workers": worker_totals(state) if state else None,
        "pool": pool_record(state.pool) if state else None,
        "epoch": snapshot.epoch if snapshot else None,
        "link": link,
    }


def _print(
    home: Home,
    found: Running | None,
    snapshot: Snapshot | None,
    services: list[dict[str, Any]],
    link: str | None,
) -> None:
    _print_services(services)
    print()
    fields = [("label", found.label if found else ""), ("dashboard", link or ""), ("home", str(home.root))]
    if snapshot is not None:
        counts = snapshot.counts
        busy = sum(worker.status == "busy" for worker in snapshot.workers)
        fields += [
            (
                "tasks",
                f"{counts['pending']} pending, {counts['in_progress']} running, {counts['failed']} failed",
            ),
            ("workers", f"{busy} of {len(snapshot.workers)} busy{standing(snapshot.pool)}"),
        ]
    print_fields(fields)


def _print_services(services: list[dict[str, Any]]) -> None:
    """The table; and below it why the failed ones failed, once for those that share a process."""
    rows = []
    failed: dict[str, list[str]] = {}
    for service in services:
        up_s, message = service["uptime_s"], service["message"]
        if service["state"] == "failed":
            failed.setdefault(message, []).append(service["name"])
            message = ""
        rows.append(
            [
                service["name"],
                service["state"],
                f":{service['port']}" if service["port"] else "",
                str(service["pid"] or ""),
                "" if up_s is None else ago(0.0, up_s),
                str(service["restarts"]),
                message,
            ]
        )
    shown = COLUMNS if any(row[ABOUT] for row in rows) else COLUMNS[:ABOUT]
    table(shown, [row[: len(shown)] for row in rows], status=1)
    for message, names in failed.items():
        print(f"\n{', '.join(names)}: {clean_lines(message)}")
