"""`koubou load`: the load test. It submits, follows, and prints throughput and what tasks waited and took."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import click

from koubou_panel.cli.ending import INTERRUPTED, say
from koubou_panel.cli.link import CALLER, open_shop
from koubou_panel.cli.show import duration, print_fields, print_json
from koubou_panel.core.commands import CancelTask, Command, SubmitTask
from koubou_panel.core.events import Sample
from koubou_panel.core.records import Request, Task, TaskId
from koubou_panel.core.state import Folded, State
from koubou_panel.errors import Refused
from koubou_panel.kinds.function import pack, pickled_arguments, pickled_function
from koubou_panel.settings import EXIT_FAILED
from koubou_panel.shop.remote import RemoteShop

BATCH = 1_000
TICK_S = 0.05
WORD_S = 0.5

LIGHT_SCRIPT = 'for i in 1 2 3; do echo "step $i of 3"; sleep 0.05; done'
HEAVY_SCRIPT = """
for i in range(1, 6):
    total = sum(range(3_000_000 * i))
    print(f"round {i} of 5: {total}", flush=True)
"""
LIGHT_SUM, HEAVY_SUM = 20_000, 20_000_000


@dataclass(frozen=True)
class Profile:
    """How many tasks, and how they come: `rate` a second (0: all at once), `heavy` ones use a core for a second."""

    name: str
    count: int
    rate: float
    heavy: bool = False


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
    "--kind", type=click.Choice(["script", "function"]), default="script", help="What each task is."
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
    as_json: bool,
) -> int:
    """Submit many tasks, follow them, and print the figures.

    burst: 100 at once. gradual: 2 a second for 30 s. heavy: 20 that keep a core busy. custom: as you say.
    """
    plan = _plan(PROFILES[profile], count, rate, duration_s)
    report = asyncio.run(_load(ctx, plan, kind))
    figures = report.figures()
    if as_json:
        print_json(figures)
    else:
        _print(figures)
    if report.is_interrupted:
        return INTERRUPTED
    return EXIT_FAILED if report.failed else 0


def _plan(profile: Profile, count: int | None, rate: float | None, duration_s: float | None) -> Profile:
    """The profile with what was given; of count, rate and duration any two give the third."""
    wanted = profile.rate if rate is None else rate
    if duration_s is None:
        return Profile(profile.name, count or profile.count, wanted, profile.heavy)
    if count is not None and rate is None:
        return Profile(profile.name, count, count / duration_s, profile.heavy)
    pace = wanted or profile.count / duration_s
    return Profile(profile.name, count or max(1, round(pace * duration_s)), pace, profile.heavy)


@dataclass
class Report:
    """What became of the tasks. A subscriber of the replica."""

    plan: Profile
    kind: str
    waiting: set[TaskId] = field(default_factory=set)
    waits_s: list[float] = field(default_factory=list)
    runs_s: list[float] = field(default_factory=list)
    submitted: int = 0
    refused: int = 0
    failed: int = 0
    cancelled: int = 0
    began: float = 0.0
    ended: float = 0.0
    is_interrupted: bool = False
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def on_reset(self, state: State) -> None:
        """Look at what is known of tasks that are still waited for."""
        for task_id in tuple(self.waiting):
            task = state.tasks.get(task_id)
            if task is not None and task.is_finished:
                self.count(task)

    def on_facts(self, folded: Sequence[Folded]) -> None:
        """Count the tasks that have ended."""
        for _, _, record in folded:
            if isinstance(record, Task) and record.is_finished and record.task_id in self.waiting:
                self.count(record)

    def on_samples(self, samples: Sequence[Sample]) -> None:
        """Nothing: the figures are made of facts."""

    def count(self, task: Task) -> None:
        """Take in a task that has ended."""
        self.waiting.discard(task.task_id)
        self.news.set()
        self.ended = time.monotonic()
        self.failed += task.status == "failed"
        self.cancelled += task.status == "cancelled"
        if task.started_at is not None and task.finished_at is not None:
            self.waits_s.append(max(0.0, task.started_at - task.request.created_at))
            self.runs_s.append(max(0.0, task.finished_at - task.started_at))

    @property
    def done(self) -> int:
        """How many have ended."""
        return self.submitted - len(self.waiting)

    def figures(self) -> dict[str, object]:
        """The result; times in seconds."""
        took_s = max(1e-9, self.ended - self.began)
        return {
            "profile": self.plan.name,
            "kind": self.kind,
            "submitted": self.submitted,
            "completed": self.done - self.failed - self.cancelled,
            "failed": self.failed,
            "cancelled": self.cancelled,
            "refused": self.refused,
            "took_s": round(took_s, 3) if self.ended else None,
            "throughput_per_s": round(self.done / took_s, 2) if self.ended else None,
            "wait_s": quantiles(self.waits_s),
            "run_s": quantiles(self.runs_s),
        }


def quantiles(values: Sequence[float]) -> dict[str, float] | None:
    """p50, p95 and p99 of `values` (nearest rank); None of nothing."""
    if not values:
        return None
    ordered = sorted(values)
    return {f"p{q}": round(ordered[min(len(ordered) - 1, len(ordered) * q // 100)], 6) for q in (50, 95, 99)}


async def _load(ctx: click.Context, plan: Profile, kind: str) -> Report:
    report = Report(plan, kind)
    async with open_shop(ctx, replica=True) as shop:
        shop.subscribe(report)
        interrupted = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, interrupted.set)
        work = asyncio.create_task(_submit_and_wait(shop, report))
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
        work.cancel()
        report.is_interrupted = True
        say(f"stopped: cancelling {len(report.waiting)} tasks that have not ended")
        await shop.do_many([CancelTask(task_id) for task_id in tuple(report.waiting)], CALLER)
    return report


async def _submit_and_wait(shop: RemoteShop, report: Report) -> None:
    plan = report.plan
    report.began = time.monotonic()
    commands = _commands(shop, plan, report.kind)
    sent = 0
    while sent < plan.count:
        due = plan.count if not plan.rate else int((time.monotonic() - report.began) * plan.rate) + 1
        batch = [next(commands) for _ in range(min(due, plan.count, sent + BATCH) - sent)]
        if batch:
            await _submit(shop, report, batch)
            sent += len(batch)
        else:
            await asyncio.sleep(min(TICK_S, 1 / plan.rate))
    while report.waiting:
        report.news.clear()
        await report.news.wait()


async def _submit(shop: RemoteShop, report: Report, batch: Sequence[SubmitTask]) -> None:
    ids = [command.request.task_id for command in batch]
    report.waiting.update(ids)
    report.submitted += len(ids)
    commands: Sequence[Command] = batch
    for task_id, answer in zip(ids, await shop.do_many(commands, CALLER), strict=True):
        if isinstance(answer, Refused):
            if answer.code == "unavailable":
                raise answer
            report.waiting.discard(task_id)
            report.submitted -= 1
            report.refused += 1
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
        ("load", f"{figures['profile']}, {figures['kind']}"),
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
    print_fields(fields)


_COUNTS = ("completed", "failed", "cancelled", "refused")


def _short(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms" if seconds < 1 else duration(seconds)
