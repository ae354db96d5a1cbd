"""`koubou demo`: a busy workshop to look at, labelled as a demo, in a home that is thrown away at the end.

Nothing of it is pretended: the tasks run in the real pool, the scripts by real schedules, and the one that fails does
so. They are small: together about a third of one core.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import click

from koubou_panel.cli.ending import say
from koubou_panel.cli.link import settings_of
from koubou_panel.cli.running import link_to
from koubou_panel.cli.service import browse, forget_way_in, has_browser, hear_no_more
from koubou_panel.core.commands import Caller, Command, SaveScript, SubmitTask
from koubou_panel.core.records import NO_LIMITS, Kind, Limits, Request
from koubou_panel.core.script import Schedule, Script
from koubou_panel.errors import KoubouError, Refused
from koubou_panel.home import Home
from koubou_panel.kinds.model import NoModel, embedded_file
from koubou_panel.settings import Settings, ollama_address
from koubou_panel.shop.remote import RemoteShop
from koubou_panel.supervising.model import ollama_program
from koubou_panel.supervisor import Supervisor

LABEL = "demo"
CALLER = Caller("demo")
GRACE_S = 1.0
CONNECT_S = 60.0
EVERY_S = 4.0
MOST_WAITING = 3  # so many wait at most: more would only pile up
PROMPT_EVERY = 6  # one task in so many is a prompt, where a model is at hand
MEMORY_BYTES = 512 << 20

_BAR = """
import hashlib, sys, time
total, began = 120, time.time()
for n in range(total + 1):
    hashlib.sha256(bytes(1 << 20)).hexdigest()
    time.sleep(0.07)
    rate = n / max(time.time() - began, 0.01)
    left = (total - n) / max(rate, 0.01)
    full = 20 * n // total
    bar = "█" * full + " " * (20 - full)
    times = f"00:{int(time.time() - began):02d}<00:{int(left):02d}, {rate:5.1f}it/s"
    sys.stderr.write(f"\\rhashing: {100 * n // total:3d}%|{bar}| {n:3d}/{total} [{times}]")
    sys.stderr.flush()
print("\\n120 blocks of 1 MiB hashed")
"""
_EPOCHS = """
import random, time
loss = 2.0
for epoch in range(1, 25):
    loss *= random.uniform(0.86, 0.99)
    time.sleep(0.5)
    print(f"::koubou progress {epoch}/24 epochs loss {loss:.3f}", flush=True)
    print(f"epoch {epoch:2d}  loss {loss:.4f}", flush=True)
"""
_MEMORY = """
import time
held = []
for step in range(12):
    held.append(bytearray(b"x" * (16 << 20)))
    print(f"::koubou progress {step + 1}/12 holds {16 * len(held)} MiB", flush=True)
    time.sleep(0.6)
print("all of it is given back")
"""
_FAILS = """
import random, time
for n in range(1, 9):
    print(f"reading part {n} of 8", flush=True)
    time.sleep(0.4)
    if n == 5 and random.random() < 0.7:
        raise ConnectionError("the other side hung up (this demo task fails now and then)")
print("all parts were read")
"""
_DISK = """#!/bin/sh
echo "disk use:"
df -h . | tail -n 1
"""
_SYNC = """
import time
names = [f"folder-{n:02d}" for n in range(1, 31)]
for n, name in enumerate(names, 1):
    print(f"::koubou progress {n}/30 folders {name}", flush=True)
    time.sleep(0.25)
print("30 folders are as they were: nothing to copy")
"""
_REPORT = """
import random, statistics, time
values = [random.gauss(100, 15) for _ in range(20_000)]
time.sleep(1.5)
print(f"mean {statistics.fmean(values):.2f}, deviation {statistics.stdev(values):.2f}, of {len(values)} values")
"""
_QUESTIONS = (
    "Explain in two sentences what a queue is.",
    "Name three uses of a hash function.",
    "Write a short poem about a workshop.",
    "What is the difference between a process and a thread?",
)


@click.command()
@click.option("--host", metavar="H", help="The address to listen on; 127.0.0.1 unless given.")
@click.option("--dashboard-port", type=int, default=0, metavar="N", help="The dashboard's port; a free one.")
@click.option("--socket-port", type=int, default=0, metavar="N", help="The WebSocket's port; a free one.")
@click.option("--agents-port", type=int, default=0, metavar="N", help="The agents' port; a free one.")
@click.option("--workers", metavar="MIN:MAX", help="How many workers; 1:3.")
@click.option("--no-browser", is_flag=True, help="Do not open the browser.")
@click.option("--insecure-no-auth", is_flag=True, help="Ask for no token, on loopback alone.")
@click.pass_context
def demo(ctx: click.Context, /, *, no_browser: bool, insecure_no_auth: bool, **given: object) -> int:
    """Open a busy workshop to look at, labelled as a demo. Ctrl-C ends it and leaves nothing.

    Its home is a new folder that is removed at the end; a workshop of yours that runs is not touched.
    """
    with tempfile.TemporaryDirectory(prefix="koubou-demo-", ignore_cleanup_errors=True) as folder:
        settings = settings_of(ctx, **given | {"home": folder, "grace_s": GRACE_S})
        say(f"a demo: its home {folder} is removed at the end. To look at it: koubou --home {folder} status")
        opens = not no_browser and has_browser(dict(os.environ))
        return asyncio.run(_run(settings, opens=opens, insecure_no_auth=insecure_no_auth))


async def _run(settings: Settings, *, opens: bool, insecure_no_auth: bool) -> int:
    home = Home(settings.home)
    supervisor = Supervisor(
        settings,
        label=LABEL,
        insecure_no_auth=insecure_no_auth,
        link=lambda port: link_to(home, settings.host, port, insecure_no_auth=insecure_no_auth),
        browse=partial(browse, folder=home.runtime) if opens else None,
    )
    load = asyncio.create_task(keep_busy(home))
    try:
        return await supervisor.run()
    finally:
        load.cancel()
        await asyncio.wait({load})
        hear_no_more()
        if opens:
            forget_way_in(home.runtime)


async def keep_busy(home: Home) -> None:
    """Put the demo's scripts into the catalogue, then submit a task every few seconds, until cancelled."""
    try:
        async with await RemoteShop.connect(home.socket, by="demo", wait_s=CONNECT_S) as shop:
            for script, text in scripts():
                await _ask(shop, SaveScript(script, text=text))
            for make in tasks(has_model=has_model()):
                if shop.state.counts["pending"] < MOST_WAITING:
                    await _ask(shop, SubmitTask(make(shop)))
                await asyncio.sleep(EVERY_S)
    except Refused as refused:
        say(f"the demo has no load: {refused.message}")


async def _ask(shop: RemoteShop, command: Command) -> None:
    """Ask; while the workshop restarts, or is paused by who looks at it, the demo goes on later."""
    with suppress(KoubouError):
        await shop.do(command, CALLER)


def scripts() -> Iterator[tuple[Script, str]]:
    """The demo's scripts, each with its text: two by interval, one by cron."""
    python, shell = (sys.executable,), ("sh",)
    for name, text, interpreter, schedule, words in (
        ("check-disk", _DISK, shell, Schedule(every_s=20.0), "how full the disk is"),
        ("sync-folders", _SYNC, python, Schedule(every_s=45.0), "looks at 30 folders, with progress"),
        ("report", _REPORT, python, Schedule(cron="* * * * *"), "statistics of 20,000 numbers, each minute"),
    ):
        yield (
            Script(
                name=name,
                path="",
                is_inline=True,
                interpreter=interpreter,
                schedule=schedule,
                timeout_s=60.0,
                description=f"demo: {words}",
            ),
            text,
        )


def tasks(*, has_model: bool) -> Iterator[Callable[[RemoteShop], Request]]:
    """What makes the demo's tasks, one after the other, without end."""
    commands = itertools.cycle(
        (
            partial(_command, "hash blocks", _BAR, NO_LIMITS),
            partial(_command, "train a toy", _EPOCHS, NO_LIMITS),
            partial(_command, "use memory", _MEMORY, Limits(memory_bytes=MEMORY_BYTES)),
            partial(_command, "read parts (fails at times)", _FAILS, NO_LIMITS),
        )
    )
    questions = itertools.cycle(_QUESTIONS)
    for turn in itertools.count(1):
        if has_model and turn % PROMPT_EVERY == 0:
            yield partial(_prompt, next(questions))
        else:
            yield next(commands)


def has_model() -> bool:
    """Whether a prompt would be answered without anything being installed first."""
    if ollama_program(os.environ) is not None and ollama_address(os.environ) is not None:
        return True
    try:
        embedded_file()
    except NoModel:
        return False
    return True


def _command(name: str, code: str, limits: Limits, shop: RemoteShop) -> Request:
    spec: dict[str, object] = {"command": [sys.executable, "-c", code], "cwd": str(Path.home())}
    return _request(shop, "script", name, spec, limits)


def _prompt(question: str, shop: RemoteShop) -> Request:
    return _request(shop, "prompt", "ask the model", {"prompt": question, "max_tokens": 120}, NO_LIMITS)


def _request(shop: RemoteShop, kind: Kind, name: str, spec: dict[str, object], limits: Limits) -> Request:
    return Request(
        task_id=shop.next_id(),
        kind=kind,
        created_at=0.0,
        spec=spec,
        name=name,
        labels={"demo": "yes"},
        timeout_s=120.0,
        limits=limits,
    )
