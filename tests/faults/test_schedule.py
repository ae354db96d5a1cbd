"""SIGKILL of the workshop at random moments under a schedule: no due time runs twice, no downtime leads to a flood.

The script itself writes the due time that it was run for into a ledger, so that it tells what truly ran; the table of
runs says what was decided.
"""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

from koubou_panel.core.commands import Caller, SaveScript
from koubou_panel.core.ids import made_at
from koubou_panel.core.records import TaskId
from koubou_panel.core.script import Schedule, Script
from koubou_panel.home import Home
from koubou_panel.shop.remote import RemoteShop
from koubou_panel.testing import until
from tests.cli.conftest import Shell, end

# The whole minute: KOUBOU_TEST_SCHEDULE_S=60.
SPAN_S = float(os.environ.get("KOUBOU_TEST_SCHEDULE_S", "16"))
KILLS = max(2, round(SPAN_S / 8))
DOWN_S = (0.5, 3.5)
EVERY_S = 1.0


def workshop_pid(home: Path) -> int:
    """The process that holds the home."""
    return int((home / "lock").read_text())


async def add(home: Path, path: Path) -> None:
    """Put the script into the catalogue, due each second."""
    shop = await RemoteShop.connect(Home(home).socket, by="test", wait_s=10)
    async with shop:
        script = Script(
            name="tick",
            path=str(path),
            schedule=Schedule(every_s=EVERY_S, overlap="together"),
            keep_runs=1000,
        )
        await shop.do(SaveScript(script), Caller("test"))


async def kill_and_restart(
    shell: Shell, random_s: random.Random, *, with_supervisor: bool
) -> tuple[float, float]:
    """SIGKILL of the workshop, which its supervisor starts again; or of both, and another `koubou up` later.

    When it died, and when the home was held again.
    """
    lock = shell.home / "lock"
    pid = workshop_pid(shell.home)
    if with_supervisor:
        os.killpg(shell.process.pid, signal.SIGKILL)
        shell.process.communicate()
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    died_at = time.time()
    if with_supervisor:
        back_at = died_at + random_s.uniform(*DOWN_S)
        await until(lambda: time.time() > back_at)
        shell.process = shell.up("--no-dashboard", "--workers", "2:4")
    await until(lambda: lock.read_text().strip() not in ("", str(pid)))
    return died_at, lock.stat().st_mtime


def table_of_runs(home: Path) -> list[tuple[str, float]]:
    """(task, due time) of every run that a schedule led to, in order."""
    with sqlite3.connect(f"file:{home}/koubou.db?mode=ro", uri=True) as database:
        return database.execute(
            "SELECT task.task_id, fire_at FROM script_run JOIN task ON task.ord = script_run.ord "
            "WHERE name = 'tick' AND fire_at IS NOT NULL ORDER BY task.ord"
        ).fetchall()


@pytest.mark.timeout(300)
async def test_a_killed_workshop_fires_nothing_twice(tmp_path, capsys):
    """Through several deaths each due time has one run at most, each downtime one made up for, and the grid is kept."""
    ledger, path = tmp_path / "ledger", tmp_path / "tick.sh"
    path.write_text(f'#!/bin/sh\necho "$KOUBOU_FIRE_AT" >> {ledger}\n')
    shell = Shell(tmp_path / "home")
    shell.process = shell.up("--no-dashboard", "--workers", "2:4")
    random_s = random.Random(20261121)
    downtimes = []
    try:
        await add(shell.home, path)
        began = time.time()
        for number in range(KILLS):
            kill_at = began + SPAN_S * (number + 0.3 + 0.5 * random_s.random()) / KILLS
            await until(lambda at=kill_at: time.time() > at, 120)
            both = number % 2 == 1
            downtimes.append(await kill_and_restart(shell, random_s, with_supervisor=both))
        await until(lambda: time.time() > began + SPAN_S, 120)
        await until(lambda: len(table_of_runs(shell.home)) > 0)
    finally:
        assert end(shell.process) == 0
    runs = table_of_runs(shell.home)
    fires = [fire_at for _, fire_at in runs]
    ran = Counter(float(line) for line in ledger.read_text().split())
    assert len(set(fires)) == len(fires), "a due time has two runs in the table"
    assert set(ran.values()) == {1}, "a due time ran twice"
    assert set(ran) <= set(fires)
    assert fires == sorted(fires)
    anchor = fires[0] - EVERY_S
    assert all(abs((at - anchor) / EVERY_S - round((at - anchor) / EVERY_S)) < 1e-3 for at in fires)
    caught_up = [
        sum(died_at < fire_at <= back_at and made_at(TaskId(task)) > died_at for task, fire_at in runs)
        for died_at, back_at in downtimes
    ]
    assert max(caught_up) <= 1, caught_up
    down_s = sum(back_at - died_at for died_at, back_at in downtimes)
    assert len(fires) >= (SPAN_S - down_s) / EVERY_S - 2 * KILLS
    words = (
        f"{SPAN_S:g} s, {len(downtimes)} kills, {down_s:.1f} s down: {len(fires)} due times had a run, "
        f"{sum(ran.values())} ran to the end, none twice; caught up after each downtime: {caught_up}"
    )
    with capsys.disabled():
        sys.stdout.write(f"\n{words}\n")
