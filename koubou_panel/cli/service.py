"""`koubou up`, `koubou down`, `koubou restart` and `koubou status`."""

from __future__ import annotations

import asyncio
import html
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import click
import psutil

from koubou_panel.cli.ending import say
from koubou_panel.cli.link import CALLER, home_of, settings_of
from koubou_panel.cli.pool import restart_worker
from koubou_panel.cli.running import (
    Running,
    dashboard_link,
    is_workshop_process,
    link_to,
    lock_holder,
    running,
)
from koubou_panel.cli.show import ago, print_fields, print_json, table
from koubou_panel.cli.workers import standing
from koubou_panel.core.state import Snapshot
from koubou_panel.errors import Refused
from koubou_panel.home import Home
from koubou_panel.settings import EXIT_NO_WORKSHOP
from koubou_panel.shop.remote import RemoteShop
from koubou_panel.supervisor import RESTART
from koubou_panel.wire.messages import task_counts, worker_totals
from koubou_panel.wire.records import pool_record

POLL_S = 0.1
PATIENCE_S = 60.0
BROWSER_S = 20.0
WAY_IN = "open.html"
_PAGE = """<!doctype html><meta charset="utf-8"><title>Koubou</title>
<meta name="referrer" content="no-referrer"><meta http-equiv="refresh" content="0;url={address}">
<p><a href="{address}">Open the dashboard</a></p>
"""


@click.command()
@click.option("--home", metavar="DIR", help="Where everything is kept, instead of KOUBOU_HOME.")
@click.option("--host", metavar="H", help="The address to listen on; 127.0.0.1 unless given.")
@click.option(
    "--dashboard-port", type=int, metavar="N", help="The dashboard's port; 8080. 0 takes a free one."
)
@click.option("--socket-port", type=int, metavar="N", help="The WebSocket's port; 8766. 0 takes a free one.")
@click.option("--agents-port", type=int, metavar="N", help="The agents' port; 8765. 0 takes a free one.")
@click.option("--workers", metavar="MIN:MAX", help="How many workers; as before, 1:3 at first.")
@click.option("--no-browser", is_flag=True, help="Do not open the browser.")
@click.option("--no-dashboard", is_flag=True, help="Run the workshop alone.")
@click.option("--insecure-no-auth", is_flag=True, help="Ask for no token, on loopback alone.")
@click.option(
    "--again", is_flag=True, hidden=True, help="It is a restart: the stored number of workers counts."
)
@click.pass_context
def up(
    ctx: click.Context,
    *,
    home: str | None,
    host: str | None,
    dashboard_port: int | None,
    socket_port: int | None,
    agents_port: int | None,
    workers: str | None,
    no_browser: bool,
    no_dashboard: bool,
    insecure_no_auth: bool,
    again: bool,
) -> int:
    """Start the workshop and its dashboard, print the link, and stay until Ctrl-C.

    The first Ctrl-C lets running tasks finish for a while (30 s), the second ends them.
    """
    from koubou_panel.supervisor import Supervisor

    given = {
        "host": host,
        "dashboard_port": dashboard_port,
        "socket_port": socket_port,
        "agents_port": agents_port,
        "workers": workers,
    }
    if home is not None:
        given["home"] = home
    settings = settings_of(ctx, **given)
    kept = Home(settings.home)
    opens = not no_browser and has_browser(dict(os.environ))

    async def main() -> tuple[int, bool]:
        supervisor = Supervisor(
            settings,
            dashboard=not no_dashboard,
            insecure_no_auth=insecure_no_auth,
            is_restart=again,
            link=lambda port: link_to(kept, settings.host, port, insecure_no_auth=insecure_no_auth),
            browse=partial(browse, folder=kept.runtime) if opens else None,
        )
        try:
            return await supervisor.run(), supervisor.is_to_return
        finally:
            if opens:
                forget_way_in(kept.runtime)

    code, is_to_return = asyncio.run(main())
    if is_to_return:
        # The same command anew, in the same process and terminal; pages that are open come back by themselves.
        more = [] if again else ["--no-browser", "--again"]
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:], *more])  # noqa: S606 - it is our own
    return code


def has_browser(environ: dict[str, str]) -> bool:
    """Whether a browser can open where the person sits: not over SSH, in CI, or without a display."""
    if environ.get("CI") or environ.get("SSH_CONNECTION"):
        return False
    return sys.platform == "darwin" or bool(environ.get("DISPLAY") or environ.get("WAYLAND_DISPLAY"))


def browse(address: str, folder: Path) -> None:
    """Open the browser without waiting for it; one that hangs or complains is left to itself.

    Every user of the machine sees the arguments of a process: it is given a page in `folder`, for this user's eyes
    alone, that leads on to the address with its code.
    """
    page = folder / WAY_IN

    def open_it() -> None:
        argv = [sys.executable, "-P", "-m", "webbrowser", page.as_uri()]
        quiet = subprocess.DEVNULL
        with suppress(OSError, subprocess.SubprocessError):
            subprocess.run(
                argv,
                stdin=quiet,
                stdout=quiet,
                stderr=quiet,
                timeout=BROWSER_S,
                start_new_session=True,
                check=False,
            )
        # The browser may have been handed the page by then, and not have read it.
        time.sleep(BROWSER_S)
        forget_way_in(folder)

    forget_way_in(folder)
    with suppress(OSError):  # the link is printed all the same
        with os.fdopen(os.open(page, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(_PAGE.format(address=html.escape(address)))
        threading.Thread(target=open_it, daemon=True).start()


def forget_way_in(folder: Path) -> None:
    """Remove the page that `browse` made."""
    with suppress(OSError):
        (folder / WAY_IN).unlink(missing_ok=True)


@click.command()
@click.pass_context
def down(ctx: click.Context) -> int:
    """End the workshop that `koubou up` started; running tasks may finish for a while."""
    settings = settings_of(ctx)
    home = Home(settings.home)
    found = running(home)
    pid = found.pid if found else _workshop_alone(home)
    os.kill(pid, signal.SIGTERM)
    began = time.monotonic()
    told = False
    while _is_alive(pid):
        waited_s = time.monotonic() - began
        if waited_s > 1 and not told:
            say("waiting for running tasks; `koubou down` once more ends them")
            told = True
        if waited_s > settings.grace_s + PATIENCE_S:
            raise Refused("conflict", f"process {pid} does not end; `kill -9 {pid}` ends it without a drain")
        time.sleep(POLL_S)
    say("the workshop has ended")
    return 0


@click.command()
@click.argument("worker", required=False)
@click.option("--now", is_flag=True, help="Do not wait for what runs: it ends as its --on-crash says.")
@click.pass_context
def restart(ctx: click.Context, *, worker: str | None, now: bool) -> int:
    """Restart the workshop, or replace WORKER alone by a fresh one.

    The workshop ends as by `koubou down` and starts again with the flags that `koubou up` was given and as many
    workers as `koubou scale` said last; what waits is kept. A WORKER is replaced when it has ended what it runs, or
    with --now at once, and then what it runs is cancelled.
    """
    if worker is not None:
        restart_worker(ctx, worker, at_once=now)
        return 0
    settings = settings_of(ctx)
    home = Home(settings.home)
    found = running(home)
    if found is None:
        pid = _workshop_alone(home)
        raise Refused(
            "conflict", f"`koubou up` did not start the workshop with pid {pid}: end it, then start it"
        )
    before = {service.pid for service in found.services}
    os.kill(found.pid, RESTART)
    deadline = time.monotonic() + settings.grace_s + PATIENCE_S
    if not now:
        say("waiting for running tasks; `koubou restart --now` ends them")
    while not _is_back(found_now := running(home), before):
        if now and _is_stopping(found_now):
            os.kill(found.pid, RESTART)  # the second one ends the wait
            now = False
        if not _is_alive(found.pid):
            raise Refused("unavailable", "it did not come back; the terminal where `koubou up` ran says why")
        if time.monotonic() > deadline:
            raise Refused(
                "conflict", f"process {found.pid} does not restart; `koubou down`, then `koubou up`"
            )
        time.sleep(POLL_S)
    say("the workshop runs again")
    link = dashboard_link(home, running(home))
    if link:
        print(link)
    return 0


def _is_stopping(found: Running | None) -> bool:
    return found is not None and any(service.state == "stopping" for service in found.services)


def _is_back(found: Running | None, before: set[int | None]) -> bool:
    """Whether every service runs, and none of the processes of `before`."""
    return found is not None and all(
        service.state == "running" and service.pid not in before for service in found.services
    )


def _workshop_alone(home: Home) -> int:
    """The process to end where there is no supervisor.

    Raises:
        Refused: nobody holds the home, or a program that is not ours to end.
    """
    pid = lock_holder(home)
    if pid is None:
        raise Refused("unavailable", f"no workshop runs at {home.root}")
    if not is_workshop_process(pid):
        message = f"the program with pid {pid} (a notebook, perhaps) holds the home {home.root}: end it there"
        raise Refused("conflict", message)
    return pid


def _is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.pass_context
def status(ctx: click.Context, *, as_json: bool) -> int:
    """Show every service with its state, port and uptime, and a fresh link to the dashboard."""
    home = home_of(ctx)
    found = running(home)
    snapshot, pid = asyncio.run(_look(home))
    link = dashboard_link(home, found)
    if as_json:
        print_json(_document(home, found, snapshot, pid, link))
    elif found is not None or snapshot is not None:
        _print(home, found, snapshot, pid, link)
    if snapshot is None:
        say(f"no workshop answers at {home.root}; `koubou up` starts one")
        return EXIT_NO_WORKSHOP
    return 0


async def _look(home: Home) -> tuple[Snapshot | None, int | None]:
    """How the workshop stands and its pid, if it answers."""
    try:
        shop = await RemoteShop.connect(home.socket, by=CALLER.by, replica=False)
        async with shop:
            return await shop.look(), shop.welcome.pid if shop.welcome else None
    except Refused:
        return None, None


def _services(
    found: Running | None, snapshot: Snapshot | None, pid: int | None, now: float
) -> list[dict[str, object]]:
    """Every service; a workshop without a supervisor is held by the process `pid`."""
    services: list[dict[str, object]] = []
    for service in found.services if found else []:
        answers = service.name != "workshop" or snapshot is not None
        up_s = (
            None if service.started_at is None or service.pid is None else round(now - service.started_at, 1)
        )
        services.append(
            {
                "name": service.name,
                "state": service.state if answers or service.state != "running" else "unresponsive",
                "pid": service.pid,
                "port": service.port,
                "uptime_s": up_s,
                "restarts": service.restarts,
            }
        )
    if not services and snapshot is not None:
        own = pid is not None and is_workshop_process(pid)
        state = "running" if own else "held by another program"
        services.append(
            {"name": "workshop", "state": state, "pid": pid, "port": None, "uptime_s": None, "restarts": 0}
        )
    return services


def _document(
    home: Home, found: Running | None, snapshot: Snapshot | None, pid: int | None, link: str | None
) -> dict[str, object]:
    from koubou_panel.core.state import State

    state = State.from_snapshot(snapshot) if snapshot else None
    return {
        "home": str(home.root),
        "answers": snapshot is not None,
        "services": _services(found, snapshot, pid, time.time()),
        "tasks": task_counts(state) if state else None,
        "workers": worker_totals(state) if state else None,
        "pool": pool_record(state.pool) if state else None,
        "epoch": snapshot.epoch if snapshot else None,
        "link": link,
    }


def _print(
    home: Home, found: Running | None, snapshot: Snapshot | None, pid: int | None, link: str | None
) -> None:
    now = time.time()
    rows = [
        [
            str(service["name"]),
            str(service["state"]),
            f":{service['port']}" if service["port"] else "",
            str(service["pid"] or ""),
            ago(now - float(str(service["uptime_s"])), now) if service["uptime_s"] is not None else "",
            str(service["restarts"]),
        ]
        for service in _services(found, snapshot, pid, now)
    ]
    table(("SERVICE", "STATE", "PORT", "PID", "UP", "RESTARTS"), rows, status=1)
    print()
    fields = [("dashboard", link or ""), ("home", str(home.root))]
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
