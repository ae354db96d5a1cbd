"""How long a cell waits for `submit(pow, 2, 10).result()`, in a real ipykernel, warm.

Prints one JSON object of milliseconds (p50 and p99): a workshop that the kernel holds, a handle attached to a running
`koubou up`, and `concurrent.futures.ProcessPoolExecutor`, which stores nothing, in turns in the same kernel. The p50 of
both of the workshop's is held to 3 ms.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from jupyter_client.manager import start_new_kernel

MOST_MS = 3.0
LIMIT_S = 300
OPEN = """
import json, time
from concurrent.futures import ProcessPoolExecutor
from koubou_panel import Workshop
seats = {{"held": Workshop({held!r}, workers=1), "attached": Workshop({up!r}), "executor": ProcessPoolExecutor(1)}}
assert [seats[name].is_attached for name in ("held", "attached")] == [False, True]
taken = {{name: [] for name in seats}}
for seat in seats.values():
    for _ in range(200):
        seat.submit(pow, 2, 10).result()
"""
ROUND = """
for name, seat in seats.items():
    for _ in range({trips}):
        began = time.perf_counter()
        seat.submit(pow, 2, 10).result()
        taken[name].append(1000 * (time.perf_counter() - began))
"""
CLOSE = "for seat in seats.values(): seat.shutdown()"


class Kernel:
    """A real kernel, that runs cells."""

    def __init__(self) -> None:
        """Start it."""
        self.manager, self.client = start_new_kernel(kernel_name="python3")

    def run(self, code: str) -> str:
        """What a cell prints."""
        said: list[str] = []
        reply = self.client.execute_interactive(
            code, timeout=LIMIT_S, output_hook=lambda m: said.append(m["content"].get("text", ""))
        )
        if reply["content"]["status"] != "ok":
            raise SystemExit("\n".join(reply["content"]["traceback"]))
        return "".join(said)

    def close(self) -> None:
        """End it."""
        self.client.stop_channels()
        self.manager.shutdown_kernel()


def told(times: list[float]) -> dict[str, float]:
    """The middle and the worst but one in a hundred."""
    return {
        "p50": round(statistics.median(times), 3),
        "p99": round(statistics.quantiles(times, n=100)[98], 3),
    }


def measured(folder: Path, rounds: int, trips: int) -> dict[str, list[float]]:
    """The times of each seat."""
    argv = [str(Path(sys.executable).with_name("koubou")), "up", "--no-browser", "--no-dashboard"]
    argv += ["--socket-port", "0", "--agents-port", "0", "--home", str(folder / "up")]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as up:
        kernel = Kernel()
        try:
            if up.stdout is None or not up.stdout.readline():
                raise SystemExit("koubou up did not start")
            kernel.run(OPEN.format(held=str(folder / "held"), up=str(folder / "up")))
            for _ in range(rounds):
                kernel.run(ROUND.format(trips=trips))
            times: dict[str, list[float]] = json.loads(kernel.run("print(json.dumps(taken))"))
            kernel.run(CLOSE)
        finally:
            kernel.close()
            up.terminate()
    return times


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-r", "--rounds", type=int, default=10)
    parser.add_argument("-t", "--trips", type=int, default=100, help="of each, in a round")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        times = measured(Path(folder), options.rounds, options.trips)
    found = {name: told(taken) for name, taken in times.items()}
    ratios = {name: round(found[name]["p50"] / found["executor"]["p50"], 1) for name in ("held", "attached")}
    print(json.dumps({"ms": found, "ratio_to_executor": ratios, "p50_at_most_ms": MOST_MS}, indent=1))
    if max(found[name]["p50"] for name in ratios) > MOST_MS:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
