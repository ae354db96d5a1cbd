"""A workshop where much has happened and more goes on: for looks at pages that are not empty.

`fill` works on any shop, the process's own or one over the private link.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from koubou_panel.core.commands import Caller, RunScript, SaveScript, SubmitTask
from koubou_panel.core.ports import Shop
from koubou_panel.core.records import Request, TaskId
from koubou_panel.core.script import Schedule, Script
from koubou_panel.testing import until

ME = Caller("cli")
# As people type it: pictures show it.
PY = "python" if shutil.which("python") else sys.executable

TRAINS = r"""
import sys, time
for epoch in range(1, 81):
    loss, accuracy = 3.1 / epoch + 0.02, 1 - 0.8 / (epoch + 1)
    print(f"\033[2mEpoch {epoch}/80\033[0m  loss \033[36m{loss:.4f}\033[0m  accuracy {accuracy:.3f}", flush=True)
    if epoch % 17 == 0: print("\033[33mwarning:\033[0m learning rate halved", file=sys.stderr, flush=True)
    held = [bytes(200_000) for _ in range(epoch)]; sum(i * i for i in range(150_000)); time.sleep(SLEEP)
"""
FETCHES = r"""
import sys, time
for n in range(1, 400):
    bar = f"{n * 100 // 400:3d}%|{'█' * (n // 40):<10}| {n}/400 [00:{n // 20:02d}<00:30, 20.1files/s]"
    sys.stderr.write("\r" + bar); sys.stderr.flush()
    time.sleep(SLEEP)
"""
FAILS = """
import json
def load(path):
    rows = json.loads('{"customers": [1, 2, 3]}')
    return rows["orders"]
print("reading orders.json")
print(load("orders.json"))
"""
REPORT = """\
#!/usr/bin/env python3
# /// script
# [tool.koubou]
# description = "The week's sales as a table"
# timeout = 300
# [tool.koubou.parameters.week]
# type = "integer"
# default = 47
# help = "which week of the year"
# [tool.koubou.parameters.region]
# choices = ["north", "south", "all"]
# default = "all"
# help = "whose sales"
# [tool.koubou.parameters.draft]
# type = "boolean"
# default = false
# help = "leave out what is not checked yet"
# ///
import sys

print("week", sys.argv[1:])
for day in ("Mon", "Tue", "Wed", "Thu", "Fri"):
    print(f"{day}  {len(day) * 1234:>8,}")
"""
BACKUP = "#!/bin/sh\n# Copies what matters to the other disk\nset -e\necho saving\nsleep 0.2\necho saved 128 files\n"
CLEAN = "#!/bin/sh\n# Removes what nobody needs\necho 'no such folder: /var/tmp/old' >&2\nexit 2\n"


@dataclass
class Busy:
    """What there is to look at."""

    running: TaskId
    failed: TaskId
    done: TaskId


async def ask_for(
    shop: Shop, name: str, *command: str, spec: Mapping[str, object] | None = None, **fields: object
) -> TaskId:
    """Submit a command."""
    asked = {"command": list(command)} | dict(spec or {})
    request = Request(task_id=shop.next_id(), kind="script", created_at=0.0, spec=asked, name=name, **fields)
    return TaskId(await shop.do(SubmitTask(request), ME) or "")


async def fill(shop: Shop, *, pace_s: float = 0.25) -> Busy:
    """Have scripts in the catalogue, tasks of every kind of end, two that run with progress, and some that wait."""
    await add_scripts(shop)
    ended = [
        await ask_for(shop, name, PY, "-c", code, labels={"team": "data"})
        for name, code in (
            ("import customers", "print('4,812 customers'); import time; time.sleep(0.3)"),
            ("load orders", FAILS),
            ("resize images", "print('\\n'.join(f'image {n}.png  1600x900' for n in range(40)))"),
            ("check links", "print('404 https://example.invalid/old'); raise SystemExit(1)"),
            ("nightly report 2026-11-20 for all regions, with drafts", "print('done')"),
        )
    ]
    for name in ("weekly report", "backup", "clean up"):
        await shop.do(RunScript(name, shop.next_id()), Caller("schedule"))
    await until(lambda: shop.state.counts["completed"] + shop.state.counts["failed"] >= 8)
    running = await ask_for(shop, "train the model", PY, "-c", TRAINS.replace("SLEEP", str(pace_s)))
    await ask_for(shop, "fetch 400 files", PY, "-c", FETCHES.replace("SLEEP", str(pace_s)))
    await until(lambda: shop.state.counts["in_progress"] >= 1)
    for n in range(3):
        await ask_for(shop, f"evaluate fold {n + 1}", PY, "-c", "print('fold')", after=(running,), priority=7)
    await asyncio.sleep(0)
    return Busy(running, ended[1], ended[2])


async def add_scripts(shop: Shop) -> None:
    """A few scripts: with parameters, with a schedule, one that fails."""
    for name, text, schedule in (
        ("weekly report", REPORT, Schedule(cron="0 7 * * MON", zone="Europe/Berlin")),
        ("backup", BACKUP, Schedule(every_s=3600.0)),
        ("clean up", CLEAN, None),
    ):
        await shop.do(SaveScript(Script(name=name, path="", schedule=schedule), text=text), ME)
