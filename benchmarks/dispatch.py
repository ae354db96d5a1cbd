"""10,000 no-op functions, 2 workers: `Workshop.map`, every task durable, against `ProcessPoolExecutor.submit`.

Prints one JSON object: tasks a second of both (medians of interleaved rounds) and their ratio. The standard
executor keeps nothing: its tasks are gone with its process. (Its own `map(chunksize=64)` is ten times faster
than its `submit`, by not being task by task; that is another thing and not measured here.)
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor

import koubou_panel as kp


def no_op(_number):
    """Nothing."""


def of_workshop(shop, tasks):
    """Tasks a second through an open workshop."""
    began = time.perf_counter()
    count = sum(1 for _ in shop.map(no_op, range(tasks)))
    assert count == tasks
    return tasks / (time.perf_counter() - began)


def of_peer(pool, tasks):
    """Tasks a second through a warm ProcessPoolExecutor."""
    began = time.perf_counter()
    for future in [pool.submit(no_op, number) for number in range(tasks)]:
        future.result()
    return tasks / (time.perf_counter() - began)


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", "--tasks", type=int, default=10_000)
    parser.add_argument("-r", "--rounds", type=int, default=5)
    options = parser.parse_args()
    ours, peer = [], []
    with (
        tempfile.TemporaryDirectory() as home,
        kp.Workshop(home, workers=2) as shop,
        ProcessPoolExecutor(2) as pool,
    ):
        of_workshop(shop, 500)
        of_peer(pool, 500)
        for _ in range(options.rounds):
            ours.append(of_workshop(shop, options.tasks))
            peer.append(of_peer(pool, options.tasks))
    figures = {
        "benchmark": "dispatch",
        "tasks": options.tasks,
        "ours_per_s": round(statistics.median(ours)),
        "peer_per_s": round(statistics.median(peer)),
        "ratio": round(statistics.median(a / b for a, b in zip(ours, peer, strict=True)), 2),
        "peer": "concurrent.futures.ProcessPoolExecutor.submit",
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
