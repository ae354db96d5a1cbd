"""`koubou doctor`: what is missing on this machine, and the line that mends it."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import stat
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import NamedTuple

import click

from koubou_panel.cli.link import CALLER, settings_of
from koubou_panel.cli.models import find as find_models
from koubou_panel.cli.models import where_prompts_go
from koubou_panel.cli.running import Running, running
from koubou_panel.cli.service import has_browser
from koubou_panel.cli.show import print_json, size, table
from koubou_panel.config import check_together
from koubou_panel.errors import KoubouError, Refused, SettingsError
from koubou_panel.home import Home
from koubou_panel.servers.child import CannotStart, require_free
from koubou_panel.servers.credentials import load_or_create_token
from koubou_panel.settings import BY_NAME, EXIT_FAILED, TABLE, Settings, ollama_address
from koubou_panel.shop.remote import RemoteShop

NEWEST_TESTED = (3, 13)
LITTLE_SPACE_BYTES = 1_000_000_000
WAL_SAFE = (3, 7, 0)


class Finding(NamedTuple):
    """One thing looked at: `ok`, `warning` or `missing`, what was found, and the line that mends it."""

    what: str
    state: str
    found: str
    mend: str = ""


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.pass_context
def doctor(ctx: click.Context, *, as_json: bool) -> int:
    """Look at what Koubou Panel needs here, and say what mends what is missing. Exit code 1 if something is."""
    findings: list[Finding] = []
    try:
        settings = settings_of(ctx)
        check_together({name: getattr(settings, name) for name in BY_NAME}, sources=settings.sources)
    except SettingsError as error:
        findings.append(
            Finding("settings", "missing", error.message, "`koubou config` lists what can be set")
        )
        # What does not hang on the settings is looked at all the same.
        settings = Settings(**{setting.name: setting.default for setting in TABLE}, sources={})  # type: ignore[arg-type]
        checks: tuple[Callable[[Settings], Iterator[Finding]], ...] = (_python, _packages, _desk)
    else:
        checks = CHECKS
    findings += [finding for check in checks for finding in check(settings)]
    if as_json:
        print_json({"findings": [finding._asdict() for finding in findings]})
    else:
        table(("WHAT", "STATE", "FOUND"), [finding[:3] for finding in findings], status=1)
        mends = [finding for finding in findings if finding.mend]
        if mends:
            print()
        for finding in mends:
            print(f"{finding.what}: {finding.mend}")
    return EXIT_FAILED if any(finding.state == "missing" for finding in findings) else 0


def _python(settings: Settings) -> Iterator[Finding]:  # noqa: ARG001 - one signature for all checks
    found = f"{sys.version_info.major}.{sys.version_info.minor}.{sys.version_info.micro} ({sys.executable})"
    if sys.version_info[:2] > NEWEST_TESTED:
        yield Finding("Python", "warning", found, "tested with 3.11 to 3.13; `make setup PYTHON=python3.13`")
    else:
        yield Finding("Python", "ok", found)
    yield Finding(
        "SQLite", "ok" if sqlite3.sqlite_version_info >= WAL_SAFE else "missing", sqlite3.sqlite_version
    )


def _packages(settings: Settings) -> Iterator[Finding]:  # noqa: ARG001 - one signature for all checks
    try:
        wanted = [line for line in requires("koubou-panel") or [] if "extra ==" not in line]
    except PackageNotFoundError:
        wanted = []
    names = [line.split(";")[0].strip() for line in wanted]
    missing = []
    for name in [_name_of(text) for text in names]:
        try:
            version(name)
        except PackageNotFoundError:
            missing.append(name)
    if missing:
        yield Finding(
            "packages", "missing", ", ".join(missing), f"{sys.executable} -m pip install koubou-panel"
        )
    else:
        yield Finding(
            "packages", "ok", f"{len(names)} installed, panel {version('panel')}, bokeh {version('bokeh')}"
        )


def _name_of(requirement: str) -> str:
    end = next((at for at, c in enumerate(requirement) if not (c.isalnum() or c in "-_.")), len(requirement))
    return requirement[:end]


def _home(settings: Settings) -> Iterator[Finding]:
    folder = settings.home
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not os.access(there, os.W_OK | os.X_OK):
        yield Finding(
            "home", "missing", f"{folder} cannot be written", "name another: KOUBOU_HOME=DIR or --home DIR"
        )
        return
    yield Finding("home", "ok", str(folder) if folder.exists() else f"{folder} (not made yet)")
    runtime = Home(folder).runtime
    if runtime.exists() and stat.S_IMODE(runtime.stat().st_mode) & 0o022:
        yield Finding("access", "missing", f"others can write to {runtime}", f"chmod 700 {runtime}")
    elif runtime.exists():
        try:
            load_or_create_token(runtime, environ=os.environ)
            yield Finding("access", "ok", "the token is for you alone")
        except (KoubouError, OSError) as error:
            yield Finding("access", "missing", "the token cannot be used", str(error))
    free = shutil.disk_usage(there).free
    state = "ok" if free > LITTLE_SPACE_BYTES else "warning"
    mend = (
        ""
        if state == "ok"
        else f"free some space, or move the home: less than {size(LITTLE_SPACE_BYTES)} is left"
    )
    yield Finding("disk", state, f"{size(free)} free", mend)


def _workshop(settings: Settings) -> Iterator[Finding]:
    home = Home(settings.home)
    found = running(home)
    pid = asyncio.run(_answers(home.socket))
    if pid is not None:
        yield Finding("workshop", "ok", f"answers (pid {pid})")
        yield from _failed(found)
    elif found is not None:
        mend = "`koubou restart`; `koubou status` says why"
        yield Finding(
            "workshop",
            "missing",
            f"the supervisor runs (pid {found.pid}) and the workshop does not answer",
            mend,
        )
    else:
        yield Finding("workshop", "ok", "not running; `koubou up` starts it")
    if found is None:
        yield from _ports(settings)


def _failed(found: Running | None) -> Iterator[Finding]:
    for service in found.services if found else ():
        if service.state == "failed":
            first = service.message.partition("\n")[0]
            yield Finding(service.name, "missing", first, f"`koubou restart {service.name}` starts it again")


async def _answers(path: Path) -> int | None:
    try:
        async with await RemoteShop.connect(path, by=CALLER.by, replica=False) as shop:
            return shop.welcome.pid if shop.welcome else None
    except Refused:
        return None


def _ports(settings: Settings) -> Iterator[Finding]:
    for name, port, flag in (
        ("dashboard port", settings.dashboard_port, "--dashboard-port"),
        ("WebSocket port", settings.socket_port, "--socket-port"),
        ("agents port", settings.agents_port, "--agents-port"),
    ):
        try:
            require_free(settings.host, port, flag=flag)
            yield Finding(name, "ok", f"{port} is free" if port else "a free one is taken")
        except CannotStart as error:
            first, _, rest = error.message.partition(": ")
            yield Finding(name, "missing", first, rest)


def _model(settings: Settings) -> Iterator[Finding]:
    goes, why = where_prompts_go(find_models(settings, ollama_address(os.environ)))
    if goes is not None:
        yield Finding("model", "ok", f"prompts go to {goes.name} ({goes.server}): {why}")
        return
    first, _, rest = why.partition(". ")
    yield Finding("model", "warning", first, rest or "`koubou models` says more; only prompts need one")


def _desk(settings: Settings) -> Iterator[Finding]:  # noqa: ARG001 - one signature for all checks
    if has_browser(dict(os.environ)):
        yield Finding("browser", "ok", "opens by itself")
    else:
        yield Finding("browser", "ok", "no display here: open the link that `koubou up` prints")
    if not sys.platform.startswith("linux"):
        words = "on this system a killed workshop can leave processes behind; Linux ends them"
        yield Finding("system", "warning", sys.platform, words)


CHECKS: tuple[Callable[[Settings], Iterator[Finding]], ...] = (
    _python,
    _packages,
    _home,
    _workshop,
    _model,
    _desk,
)
