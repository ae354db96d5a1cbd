"""`koubou load`: the load test. It submits, follows, and prints throughput and what tasks waited and took."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import Coroutine, Iterator, Sequence
from typing import Any

import click

from koubou_panel.cli.ending import INTERRUPTED, say
from koubou_panel.cli.link import CALLER, home_of, open_shop, settings_of
from koubou_panel.cli.load_report import Profile, Report
from koubou_panel.cli.load_rest import HEAVY_SCRIPT, LIGHT_SCRIPT, RestDoor, agents_port, bodies
from koubou_panel.cli.show import duration, print_fields, print_json, table
from koubou_panel.core.commands import CancelTask, Command, SubmitTask
from koubou_panel.core.records import Request
from koubou_panel.errors import Refused
from koubou_panel.kinds.packing import pack, pickled_arguments, pickled_function
from koubou_panel.settings import EXIT_FAILED
from koubou_panel.shop.remote import RemoteShop

BATCH = 1_000
TICK_S = 0.05
WORD_S = 0.5
END_S = 5.0

LIGHT_SUM, HEAVY_SUM = 20_000, 20_000_000


PROFILES = {
    "burst": Profile("burst", 100, 0.0),
    "gradual": Profile("gradual", 60, 2.0),
    "heavy": Profile("heavy", 20, 0.0, heavy=True),
    "custom": Profile("custom", 50, 5.0),
}


@click.command()
@click.argument("profile", type=click.Choice(list(PROFILES)), default="burst")
@click.option("-n", "count", type=click.IntRange(1, 1_000_000), metavar="N", help="How many tasks.")
@click.option("--rate", type=click.FloatRange(min=0), metavar="R", help="So many a second; 0: all at once.")
@click.option(
    "--duration",
    "duration_s",
    type=click.FloatRange(min=0, min_open=True),
    metavar="S",
    help="Submit for S seconds.",
)
@click.option(
    "--kind",
    type=click.Choice(["script", "function", "prompt", "mixed"]),
    default="script",
    help="What each task is; mixed: two commands, then a prompt.",
)
@click.option(
    "--via",
    type=click.Choice(["link", "rest"]),
    help="How they are submitted: by the command line's own link, or by REST as agents do, which prompt and mixed "
    "always are.",
)
@click.option("--json", "as_json", is_flag=True, help="The figures as one JSON document.")
@click.pass_context
def load(
    ctx: click.Context,
    *,
    profile: str,
    count: int | None,
    rate: float | None,
    duration_s: float | None,
    kind: str,
    via: str | None,
    as_json: bool,
) -> int:
    """Submit many tasks, follow them, and print what was done by when, and the figures.

    burst: 100 at once. gradual: 2 a second for 30 s. heavy: 20 that keep a core busy. custom: as you say.
    """
    way = via or ("rest" if kind in ("prompt", "mixed") else "link")
    if kind == "function" and way == "rest":
        raise click.UsageError("functions are never taken by REST; leave --via out", ctx)
    if kind in ("prompt", "mixed") and way == "link":
        raise click.UsageError(f"--kind {kind} goes by REST; leave --via out", ctx)
    plan = _plan(PROFILES[profile], count, rate, duration_s)
    report = asyncio.run(_load(ctx, plan, kind, way))
    figures = report.figures()
    if as_json:
        print_json(figures)
    else:
        _print(figures)
    if report.first_failure:
        say(f"the first that failed: {report.first_failure}")
    if report.is_interrupted:
        return INTERRUPTED
    return EXIT_FAILED if report.failed or not report.submits else 0


def _plan(profile: Profile, count: int | None, rate: float | None, duration_s: float | None) -> Profile:
    """The profile with what was given; of count, rate and duration any two give the third."""
    wanted = profile.rate if rate is None else rate
    if duration_s is None:
        return Profile(profile.name, count or profile.count, wanted, profile.heavy)
    if count is not None and rate is None:
        return Profile(profile.name, count, count / duration_s, profile.heavy)
    pace = wanted or profile.count / duration_s
    return Profile(profile.name, count or max(1, round(pace * duration_s)), pace, profile.heavy)


async def _load(ctx: click.Context, plan: Profile, kind: str, way: str) -> Report:
    report = Report(plan, kind, way)
    async with open_shop(ctx, replica=True) as shop:
        shop.subscribe(report)
        interrupted = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, interrupted.set)
        submit = _through_rest(ctx, shop, report) if way == "rest" else _submit_all(shop, report)
        work = asyncio.create_task(_submit_and_wait(submit, report))
        words = asyncio.create_task(_tell(report))
        stop = asyncio.create_task(interrupted.wait())
        await asyncio.wait({work, stop}, return_when=asyncio.FIRST_COMPLETED)
        words.cancel()
        stop.cancel()
        if sys.stderr.isatty():
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
        if work.done():
            work.result()
            return report
        report.is_interrupted = True
        report.news.set()
        await asyncio.wait({work}, timeout=END_S)  # what is being submitted must not be left behind
        work.cancel()
        say(f"stopped: cancelling {len(report.waiting)} tasks that have not ended")
        await shop.do_many([CancelTask(task_id) for task_id in tuple(report.waiting)], CALLER)
    return report


async def _submit_and_wait(submit: Coroutine[Any, Any, None], report: Report) -> None:
    await submit
    while report.waiting and not report.is_interrupted:
        report.news.clear()
        await report.news.wait()


async def _through_rest(ctx: click.Context, shop: RemoteShop, report: Report) -> None:
    """Submit by REST, each task at its time."""
    door = RestDoor(home_of(ctx), agents_port(shop.state, settings_of(ctx).agents_port))
    report.began = time.monotonic()

    async def one(body: dict[str, Any]) -> None:
        task_id = await door.submit(body, report)
        if task_id is None:
            return
        report.submitted([task_id])
        report.look(shop.state.tasks.get(task_id))  # it may have ended before this was answered

    try:
        async with asyncio.TaskGroup() as group:
            for number, body in enumerate(bodies(report.plan, report.kind)):
                if report.plan.rate:
                    due = report.began + number / report.plan.rate
                    await asyncio.sleep(max(0.0, due - time.monotonic()))
                if report.is_interrupted:
                    break
                group.create_task(one(body))
    except* Refused as refused:
        raise _first(refused) from None
    finally:
        await door.close()


def _first(group: BaseExceptionGroup[Refused]) -> Refused:
    """The first of a group: all say the same."""
    found: BaseException = group
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found if isinstance(found, Refused) else Refused("internal", str(found))


async def _submit_all(shop: RemoteShop, report: Report) -> None:
    """Submit by the private link, many at once."""
    plan = report.plan
    report.began = time.monotonic()
    commands = _commands(shop, plan, report.kind)
    sent = 0
    while sent < plan.count and not report.is_interrupted:
        due = plan.count if not plan.rate else int((time.monotonic() - report.began) * plan.rate) + 1
        batch = [next(commands) for _ in range(min(due, plan.count, sent + BATCH) - sent)]
        if batch:
            await _submit(shop, report, batch)
            sent += len(batch)
        else:
            await asyncio.sleep(min(TICK_S, 1 / plan.rate))


async def _submit(shop: RemoteShop, report: Report, batch: Sequence[SubmitTask]) -> None:
    ids = [command.request.task_id for command in batch]
    report.submitted(ids)
    commands: Sequence[Command] = batch
    for task_id, answer in zip(ids, await shop.do_many(commands, CALLER), strict=True):
        if isinstance(answer, Refused):
            if answer.code == "unavailable":
                raise answer
            report.not_taken(task_id)
            if report.refused == 1:
                say(f"refused: {answer.message}")


def _commands(shop: RemoteShop, plan: Profile, kind: str) -> Iterator[SubmitTask]:
    spec: dict[str, object] = {}
    payload = b""
    if kind == "function":
        numbers = range(HEAVY_SUM if plan.heavy else LIGHT_SUM)
        payload = pack(pickled_function(sum), pickled_arguments((numbers,), {}), [])
    elif plan.heavy:
        spec = {"command": [sys.executable, "-c", HEAVY_SCRIPT]}
    else:
        spec = {"command": ["sh", "-c", LIGHT_SCRIPT]}
    name = f"load-{plan.name}"
    while True:
        yield SubmitTask(
            Request(
                task_id=shop.next_id(),
                kind=kind,
                created_at=0.0,
                spec=spec,
                payload=payload,
                name=name,
                labels={"load": plan.name},
            )
        )


async def _tell(report: Report) -> None:
    """One line that changes, on a terminal."""
    while sys.stderr.isatty():
        await asyncio.sleep(WORD_S)
        took_s = max(1e-9, time.monotonic() - report.began)
        words = f"{report.done} of {report.plan.count} done, {report.failed} failed, {report.done / took_s:.1f} tasks/s"
        print(f"\r\x1b[K{words}", end="", file=sys.stderr, flush=True)


def _print(figures: dict[str, object]) -> None:
    took_s, rate = figures["took_s"], figures["throughput_per_s"]
    fields = [
        ("load", f"{figures['profile']}, {figures['kind']}, by {WAYS[str(figures['via'])]}"),
        (
            "tasks",
            ", ".join(f"{figures[name]} {name}" for name in _COUNTS if figures[name] or name == "completed"),
        ),
        ("took", duration(float(str(took_s))) if took_s is not None else ""),
        ("throughput", f"{rate} tasks/s" if rate is not None else ""),
    ]
    for name, label in (("wait_s", "waited"), ("run_s", "ran")):
        values = figures[name]
        if isinstance(values, dict):
            fields.append((label, "   ".join(f"{q} {_short(value)}" for q, value in values.items())))
    if "completion_tokens" in figures:
        fields.append(
            ("tokens", f"{figures['completion_tokens']}, {figures['tokens_per_s']} tokens/s together")
        )
    if figures["held_back"]:
        fields.append(("held back", f"{figures['held_back']} times, at the limit of an agent's tasks"))
    _print_timeline(figures["timeline"])
    print_fields(fields)


def _print_timeline(rows: object) -> None:
    """What was done by when."""
    if not isinstance(rows, list) or not rows:
        return
    others = [name for name in ("failed", "cancelled") if rows[-1][name]]
    columns = ("submitted", "completed", *others, "in_flight")
    shown = [(_moment(row["after_s"]), *(str(row[name]) for name in columns)) for row in rows]
    heads = (name.replace("_", " ").upper() for name in columns)
    table(("AFTER", *heads), shown)
    print()


def _moment(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 60 else duration(seconds)


WAYS = {"link": "the private link", "rest": "REST"}
_COUNTS = ("completed", "failed", "cancelled", "refused")


def _short(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms" if seconds < 1 else duration(seconds)
