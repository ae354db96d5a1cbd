"""`koubou workers` and `koubou scale`."""

from __future__ import annotations

import time

import click

from koubou_panel.cli.ending import say
from koubou_panel.cli.link import CALLER, ask
from koubou_panel.cli.show import ago, print_json, size, table
from koubou_panel.core.commands import ScaleWorkers
from koubou_panel.core.fold import Snapshot
from koubou_panel.settings import parse_workers
from koubou_panel.shop.remote import RemoteShop
from koubou_panel.wire.records import worker_record

COLUMNS = ("WORKER", "STATUS", "PID", "UP", "CPU", "MEMORY", "DONE", "FAILED", "TASK")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON document.")
@click.pass_context
def workers(ctx: click.Context, *, as_json: bool) -> None:
    """List the workers: what each does, and what it uses."""
    snapshot = ask(ctx, RemoteShop.look)
    if as_json:
        pool = snapshot.pool
        print_json(
            {
                "workers": [worker_record(worker) for worker in snapshot.workers],
                "total": len(snapshot.workers),
                "min_workers": pool.min_workers,
                "max_workers": pool.max_workers,
                "paused": pool.paused,
            }
        )
        return
    if snapshot.workers:
        table(COLUMNS, _rows(snapshot), status=1)
    pool = snapshot.pool
    say(f"{len(snapshot.workers)} workers, {pool.min_workers} to {pool.max_workers} wanted")


def _rows(snapshot: Snapshot) -> list[list[str]]:
    now = time.time()
    return [
        [
            worker.worker_id,
            worker.status,
            str(worker.pid or ""),
            ago(worker.started_at, now),
            "" if worker.cpu_percent is None else f"{worker.cpu_percent:.0f} %",
            size(worker.rss_bytes),
            str(worker.completed),
            str(worker.failed),
            worker.current_task or "",
        ]
        for worker in snapshot.workers
    ]


@click.command()
@click.argument("bounds", metavar="MIN:MAX")
@click.pass_context
def scale(ctx: click.Context, *, bounds: str) -> None:
    """Have at least MIN and at most MAX workers."""
    low, high = parse_workers(bounds)

    async def change(shop: RemoteShop) -> None:
        await shop.do(ScaleWorkers(low, high), CALLER)

    ask(ctx, change)
    say(f"{low} to {high} workers")
