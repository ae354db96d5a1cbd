"""`koubou up`, `koubou down` and `koubou restart`."""

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
from koubou_panel.cli.link import settings_of
from koubou_panel.cli.pool import restart_worker
from koubou_panel.cli.running import (
    Running,
    dashboard_link,
    is_workshop_process,
    link_to,
    lock_holder,
    running,
)
from koubou_panel.config import check_together
from koubou_panel.core.suggest import nearest
from koubou_panel.errors import Refused
from koubou_panel.home import Home
from koubou_panel.settings import BY_NAME, EXIT_TAKEN
from koubou_panel.supervising.status import PROCESSES, SERVICES, wish_path
from koubou_panel.supervisor import RESTART, WISH

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
@click.option("--again", metavar="PORTS", hidden=True, help="It is a restart of what had these ports.")
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
    again: str | None,
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
    check_together({name: getattr(settings, name) for name in BY_NAME}, sources=settings.sources)
    kept = Home(settings.home)
    found = running(kept) if again is None else None
    if found is not None and found.has_failed:
        say(
            f"`koubou up` runs here already (pid {found.pid}) and its workshop has failed: "
            "`koubou restart` starts it again, `koubou down` ends it"
        )
        return EXIT_TAKEN
    opens = not no_browser and has_browser(dict(os.environ))

    async def main() -> tuple[int, str | None]:
        supervisor = Supervisor(
            settings,
            dashboard=not no_dashboard,
            insecure_no_auth=insecure_no_auth,
            again=None if again is None else _ports_of(again),
            link=lambda port: link_to(kept, settings.host, port, insecure_no_auth=insecure_no_auth),
            browse=partial(browse, folder=kept.runtime) if opens else None,
        )
        try:
            code = await supervisor.run()
            if not supervisor.is_to_return:
                hear_no_more()
                return code, None
            return code, ",".join(f"{service}={port}" for service, port in supervisor.ports.items())
        finally:
            if opens:
                forget_way_in(kept.runtime)

    code, ports = asyncio.run(main())
    if ports is not None:
        # The same command anew, in the same process and terminal; pages that are open come back by themselves.
        more = ["--no-browser", "--again", ports]
        typed = sys.orig_argv[1:] if again is None else sys.orig_argv[1 : -len(more)]
        os.execv(sys.executable, [sys.executable, *typed, *more])  # noqa: S606 - it is our own
    return code


def _ports_of(again: str) -> dict[str, int]:
    """The ports that the workshop had before its restart, by service."""
    pairs = (pair.partition("=") for pair in again.split(",") if pair)
    return {service: int(port) for service, _, port in pairs}


def hear_no_more() -> None:
    """Everything has ended: one more signal must not make this process' exit code that of a killed one."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.remove_signal_handler(number)
        signal.signal(number, signal.SIG_IGN)


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
@click.argument("name", required=False, metavar="[SERVICE|WORKER]")
@click.option("--now", is_flag=True, help="Do not wait for what runs: it ends as its --on-crash says.")
@click.pass_context
def restart(ctx: click.Context, *, name: str | None, now: bool) -> int:
    """Restart all services, or SERVICE alone, or replace WORKER by a fresh one.

    The workshop ends as by `koubou down` and starts again with the flags that `koubou up` was given and as many
    workers as `koubou scale` said last; what waits is kept. A SERVICE is model, agents, pool, websocket or dashboard;
    agents, pool and websocket are one process, the workshop. A WORKER is replaced when it has ended what it runs, or
    with --now at once, and then what it runs is cancelled.
    """
    if name is not None and name not in PROCESSES and name not in SERVICES:
        near = nearest(name, SERVICES)
        if near is not None:
            raise Refused("not_found", f"no service or worker {name!r}; did you mean {near!r}?")
        restart_worker(ctx, name, at_once=now)
        return 0
    settings = settings_of(ctx)
    home = Home(settings.home)
    found = running(home)
    if found is None:
        pid = _workshop_alone(home)
        raise Refused(
            "conflict", f"`koubou up` did not start the workshop with pid {pid}: end it, then start it"
        )
    limit_s = settings.grace_s + PATIENCE_S
    if name is not None:
        _restart_service(home, found, name, limit_s)
        return 0
    _restart_all(home, found, limit_s, now=now)
    say("the workshop runs again")
    link = dashboard_link(home, running(home))
    if link:
        print(link)
    return 0


def _restart_service(home: Home, found: Running, name: str, limit_s: float) -> None:
    """Have the supervisor start one service anew, and wait until it runs.

    Raises:
        Refused: there is none of that name, or it does not come back.
    """
    shown = "pool" if name == "workshop" else name
    before = found.service(shown)
    if before is None:
        raise Refused("not_found", f"no {name} runs here: it was started without one")
    if shown == "model" and before.state == "running" and before.pid is None:
        raise Refused("conflict", f"{before.message or 'the model server'}: restart it where it was started")
    wish_path(home).write_text(name)
    os.kill(found.pid, WISH)
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        now = running(home)
        service = now.service(shown) if now else None
        if service is None:
            raise Refused("unavailable", "the supervisor is gone; `koubou up` starts everything")
        if service.restarts > before.restarts or service.pid != before.pid:
            if service.state == "failed":
                raise Refused("unavailable", f"the {name} does not start: {service.message}")
            if service.state == "running":
                say(f"the {name} runs again (pid {service.pid})" if service.pid else f"the {name} runs again")
                return
        time.sleep(POLL_S)
    raise Refused("conflict", f"the {name} does not come back; `koubou status` says how it stands")


def _restart_all(home: Home, found: Running, limit_s: float, *, now: bool) -> None:
    """Have the supervisor start everything anew, and wait until it runs.

    Raises:
        Refused: it does not come back.
    """
    os.kill(found.pid, RESTART)
    deadline = time.monotonic() + limit_s
    if not now:
        say("waiting for running tasks; `koubou restart --now` ends them")
    while not _is_back(found_now := running(home), found):
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


def _is_stopping(found: Running | None) -> bool:
    return found is not None and any(service.state == "stopping" for service in found.services)


def _is_back(found: Running | None, before: Running) -> bool:
    """Whether everything that is to run does so, since a later start than `before`."""
    if found is None or found.began_at == before.began_at:
        return False
    return all(service.state == "running" for service in found.services if service.name != "model")


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
